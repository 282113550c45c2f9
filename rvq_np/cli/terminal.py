"""What a terminal can show: progress bars, and characters beyond ASCII only where it has them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from ..kernels import compiling

Item = TypeVar("Item")
BARS, PLAIN = " ▁▂▃▄▅▆▇█", " .:-=+*#@"


def bars() -> str:
    """Return nine characters of growing height, or of growing darkness in ASCII."""
    try:
        BARS.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return BARS


@contextlib.contextmanager
def any_text() -> Iterator[None]:
    """Let standard output escape characters that it cannot show, as standard error does.

    A file name may have any characters, and such that are in no encoding.
    """
    stream: Any = sys.stdout
    before = getattr(stream, "errors", None)
    if not hasattr(stream, "reconfigure") or before != "strict":
        yield
        return
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, OSError):  # it was closed
            stream.reconfigure(errors=before)


def shown(items: Iterable[Item], name: str, total: int, unit: str = "batch") -> Iterator[Item]:
    """Yield `items` with a progress bar where standard error is a terminal and tqdm installed."""
    tqdm = compiling.tqdm_class() if sys.stderr.isatty() else None
    if tqdm is None:
        yield from items
        return
    with tqdm(total=total, desc=name, unit=unit, leave=False) as bar:

        def report(compiles: bool) -> None:
            bar.set_description(f"{name}: compiling" if compiles else name)

        with compiling.watched(report):
            for item in items:
                yield item
                bar.update()
