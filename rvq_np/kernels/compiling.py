"""Progress bars, and whether a kernel is being compiled just now, which they show."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from . import prebuilt


def tqdm_class() -> Any:
    """Return the class of tqdm's bars for this terminal or notebook; None: it is not installed."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm


@contextlib.contextmanager
def watched(report: Callable[[bool], None]) -> Iterator[None]:
    """Call ``report(True)`` when Numba begins to compile, and ``report(False)`` when it is done.

    A kernel from the cache on disk is not compiled, nor one of a library.  Without Numba nothing is
    reported.
    """
    if prebuilt.library() is not None:
        yield
        return
    try:
        from numba.core import event
    except ImportError:
        yield
        return

    class Watch(event.Listener):
        depth = 0  # a kernel compiles those that it calls

        def on_start(self, _: Any) -> None:
            self.depth += 1
            if self.depth == 1:
                report(True)

        def on_end(self, _: Any) -> None:
            self.depth -= 1
            if self.depth == 0:
                report(False)

    with event.install_listener("numba:compile", Watch()):
        yield
