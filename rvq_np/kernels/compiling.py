"""Whether a kernel is being compiled just now: for those who show progress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from . import prebuilt


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
