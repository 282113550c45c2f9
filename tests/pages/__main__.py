"""Visit every page of a built site, and fail where something is wrong with one."""

from __future__ import annotations

import argparse
import functools
import sys
import threading
import time
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from . import browser, checks

WINDOWS = ((1400, 900), (390, 844))
SCHEMES = ("light", "dark")
TOP = (
    "index", "install", "start", "guide/index", "guide/codec", "guide/model", "guide/semantic",
    "guide/search", "guide/prove", "guide/cluster", "guide/small", "guide/choosing",
    "auto_gallery/index", "auto_gallery/plot_1_speech", "auto_gallery/plot_6_stages",
    "notebooks/speech_tokens", "notebooks/item_ids", "api/index", "api/frameworks",
    "api/generated/rvq_np.ResidualVectorQuantizer", "reference/index", "reference/faq", "glossary",
    "benchmarks/index", "benchmarks/speed", "checkpoints/index", "quality", "platforms",
)  # fmt: skip
NOT_PAGES = ("_modules", "_static", "genindex", "search", "py-modindex")
TALL = 3000  # pixels of a screenshot, at most


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pages", description=__doc__)
    parser.add_argument("site", type=Path, help="the folder that Sphinx wrote")
    parser.add_argument("--axe", type=Path, help="axe.min.js of the npm package axe-core")
    parser.add_argument("--screenshots", type=Path, help="folder for pictures of the top pages")
    parser.add_argument("--only", nargs="*", help="pages to visit, without .html")
    options = parser.parse_args()
    path = browser.found()
    if path is None:
        return _left_out("no Chromium is installed")
    faults = [] if options.only else checks.broken_links(options.site)
    started = time.monotonic()
    try:
        with _served(Path(__file__).parent) as here, browser.running(path) as chromium:
            faults += _not_found(chromium, here)
    except browser.CannotStartError as error:
        return _left_out(str(error))
    with _served(options.site) as here, browser.running(path) as chromium:
        seen = _visit(chromium, here, options, faults)
    for fault, count in Counter(faults).items():
        print(fault if count == 1 else f"{fault} ({count} times)")
    print(f"pages: {seen} views, {len(faults)} faults, {time.monotonic() - started:.0f} s")
    return 1 if faults else 0


def _left_out(why: str) -> int:
    print(f"pages: NOT LOOKED AT: {why}", file=sys.stderr)
    return 3


def _not_found(chromium: browser.Browser, here: str) -> list[str]:
    """Return what the checks do not find on a page that has every fault."""
    chromium.window(*WINDOWS[1], "light")
    chromium.open(f"{here}/broken.html")
    found = checks.looked_at(chromium, here, None)
    return [
        f"broken.html has a fault that is not found: {kind}"
        for kind in checks.KINDS
        if not any(kind in fault for fault in found)
    ]


def _visit(chromium: browser.Browser, here: str, options: argparse.Namespace, faults: list) -> int:
    axe = options.axe.read_text(encoding="utf-8") if options.axe else None
    names = options.only or [
        path.relative_to(options.site).with_suffix("").as_posix()
        for path in sorted(options.site.rglob("*.html"))
    ]
    names = [name for name in names if not name.startswith(NOT_PAGES)]
    views = 0
    for width, height in WINDOWS:
        for scheme in SCHEMES:
            chromium.window(width, height, scheme)
            for name in names:
                top = name in TOP or options.only
                if (scheme == "dark" or width > 1000) and not top:
                    continue  # other pages are alike in colour, and what is narrow finds more
                chromium.open(f"{here}/{name}.html")
                # What axe looks for does not depend on the width, but for what is hidden.
                some = axe if top and (width > 1000 or scheme == "light") else None
                found = checks.looked_at(chromium, here, some)
                faults += [f"{name}, {width} px, {scheme}: {fault}" for fault in found]
                views += 1
                if top and options.screenshots:
                    options.screenshots.mkdir(parents=True, exist_ok=True)
                    file = f"{name.replace('/', '-')}-{width}-{scheme}.png"
                    (options.screenshots / file).write_bytes(chromium.screenshot(TALL))
    return views


class _served:
    """Serve a folder on a free port of this machine, and give its address."""

    def __init__(self, folder: Path) -> None:
        handler = functools.partial(_Quiet, directory=str(folder))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


if __name__ == "__main__":
    raise SystemExit(main())
