"""Chromium, driven through a pair of pipes by the DevTools protocol. Standard library only."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
SECONDS = 60  # that an answer may take on a busy machine


def found() -> str | None:
    """Return the path of a Chromium that is installed; None if there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class CannotStartError(Exception):
    """There is a Chromium, but it does not run on this machine."""


class Browser:
    """One page of a running Chromium."""

    def __init__(self, to: int, answers: int) -> None:
        self._to, self._from = to, answers
        self._number = itertools.count(1)
        self._bytes = b""
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; what happens meanwhile goes to `events`."""
        number = next(self._number)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            answer = self._next(method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, event: str) -> None:
        """Return once `event` has happened since `events` was emptied."""
        while not any(each.get("method") == event for each in self.events):
            self.events.append(self._next(event))

    def open(self, url: str) -> None:
        """Load a page, and its scripts and pictures."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")

    def window(self, width: int, height: int, scheme: str) -> None:
        """Set the size of the window, in CSS pixels, and the colour scheme that it prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        pairs = [{"name": name, "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=pairs)

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression, which may be a promise, in the page."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"].get("description", script))
        return result["result"].get("value")

    def screenshot(self, height: int) -> bytes:
        """Return a PNG of the page from its top, at most `height` pixels of it."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        width = self.evaluate("innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, size["height"]), "scale": 1}
        taken = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    def _next(self, what: str) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while b"\0" not in self._bytes:
            if not select.select([self._from], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError(f"no answer from Chromium to {what} in {SECONDS} s")
            some = os.read(self._from, 1 << 20)
            if not some:
                raise RuntimeError(f"Chromium ended while {what} was waited for")
            self._bytes += some
        message, self._bytes = self._bytes.split(b"\0", 1)
        return dict(json.loads(message))


@contextmanager
def running(path: str) -> Iterator[Browser]:
    """Start the Chromium at `path`, with a profile of its own, and end it afterwards."""
    theirs_in, to = os.pipe()
    answers, theirs_out = os.pipe()
    with tempfile.TemporaryDirectory(prefix="pages-", ignore_cleanup_errors=True) as profile:
        # It reads commands from descriptor 3 and answers on 4.
        command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        process = subprocess.Popen(
            ["bash", "-c", command, path, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            try:
                browser = Browser(to, answers)
            except (OSError, RuntimeError) as error:  # a broken pipe, an end, no answer
                raise CannotStartError(f"{path} does not start: {error}") from error
            yield browser
            browser._session = None
            browser.call("Browser.close")
            process.wait(SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
            os.close(to)
            os.close(answers)
