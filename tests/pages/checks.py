"""What is wrong with a page that is open, and with the links of all pages."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LOOK = Path(__file__).with_name("look.js").read_text(encoding="utf-8")
KINDS = (
    "a heading is cut off", "pixels wide", "a table is cut off", "a text is cut off",
    "a picture without a text", "a picture that does not load", "a heading of rank",
    "headings of rank 1", "not smaller than those of rank", "a link beside the text is cut off",
    "no language", "console: an error in the console", "console: Uncaught",
)  # fmt: skip
AXE = """
axe.run(document, {resultTypes: ["violations"], runOnly: RULES}).then(
  result => result.violations.flatMap(
    each => each.nodes.slice(0, 3).map(node => `axe, ${each.id}: ${node.target.join(" ")}`)))
"""
RULES = [
    "color-contrast", "image-alt", "heading-order", "link-name", "button-name", "document-title",
    "html-has-lang", "list", "listitem", "duplicate-id-aria", "label", "aria-valid-attr-value",
    "scrollable-region-focusable", "svg-img-alt", "link-in-text-block",
]  # fmt: skip


def looked_at(browser: Any, here: str, axe: str | None) -> list[str]:
    """Return the faults of the page that is open; `here` begins the addresses of the site."""
    faults = list(browser.evaluate(LOOK))
    if axe is not None:
        browser.evaluate(axe + ";0")
        faults += browser.evaluate(AXE.replace("RULES", json.dumps(RULES)))
    return faults + list(errors_of(browser.events, here))


def errors_of(events: list[dict[str, Any]], here: str) -> Iterator[str]:
    """Yield the errors in the console that come from the site itself."""
    for event in events:
        parameters = event.get("params", {})
        method = event.get("method")
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            if details.get("url", here).startswith(here):
                why = details.get("exception", {}).get("description", "")
                yield f"console: {details['text']} {why}"
        elif method == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            yield f"console: {parameters['args'][0].get('value')}"
        elif method == "Log.entryAdded" and "error" in parameters["entry"].values():
            entry = parameters["entry"]
            if entry.get("url", here).startswith(here):  # others cannot be reached everywhere
                yield f"console: {entry['text']} {entry.get('url', '')}"


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif value and ((tag, name) in LINKS):
                self.targets.append(value)


LINKS = {("a", "href"), ("img", "src"), ("link", "href"), ("script", "src"), ("audio", "src")}


def broken_links(site: Path) -> list[str]:
    """Return the links within the site that lead to no file, or to no place in it."""
    pages = {}
    for path in site.rglob("*.html"):
        if path.is_relative_to(site / "_static"):  # templates of the theme
            continue
        page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
        pages[path.relative_to(site).as_posix()] = page
    faults = []
    for name, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            path = unquote(parts.path)
            to = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            to = posixpath.join(to, "index.html") if (site / to).is_dir() else to
            if to not in pages and not (site / to).is_file():
                faults.append(f"{name}: a link to {target}, which is not there")
            elif to in pages and parts.fragment and not name.startswith("_modules"):
                # Pages of source know a function by its home, pages of the API by its public name.
                place = unquote(parts.fragment)
                if place not in pages[to].anchors:
                    faults.append(f"{name}: a link to {target}, a place that is not in that page")
    return sorted(set(faults))
