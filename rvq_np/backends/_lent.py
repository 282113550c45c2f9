"""Arrays of another library that live on a card, lent to CuPy by DLPack: the same memory.

A backend of such a library asks `card` and calls the functions of `_cuda` through what it gets;
where CuPy is not installed or finds no device, it gets None and turns to `_array_api`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

_log = logging.getLogger("rvq_np")


class Card:
    """The functions of `_cuda` for arrays of another library.

    Parameters
    ----------
    there : context manager
        Makes the device of the arrays current, and the stream that their library queues work on.
    back : callable
        Returns a CuPy array as one of the library.
    """

    def __init__(
        self, there: Callable[[], AbstractContextManager[Any]], back: Callable[[Any], Any]
    ):
        self.there, self.back = there, back

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return functools.partial(self._call, getattr(_cuda(), name))

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self.there():
            return self._returned(function(*map(self._lent, arguments)))

    def assign(self, x: Any) -> Callable[[Any], Any]:
        with self.there():
            again = _cuda().assign(self._lent(x))
        return functools.partial(self._call, again)

    def walk(self, *arguments: Any) -> Iterator[Any]:
        with self.there():
            stages = _cuda().walk(*map(self._lent, arguments))
        while True:
            with self.there():
                found = next(stages, None)
                if found is None:
                    return
                found = self._returned(found)
            yield found

    def _lent(self, value: Any) -> Any:
        if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack__"):
            return value
        return _cuda().cupy.from_dlpack(value)

    def _returned(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(map(self._returned, value))
        return self.back(value) if isinstance(value, _cuda().cupy.ndarray) else value


def ready() -> bool:
    """Return whether CuPy can compute here."""
    try:
        return not _cuda().missing()
    except ImportError as error:
        _tell(str(error))
        return False


def _cuda() -> Any:
    from . import _cuda as found

    return found


@functools.cache
def _tell(problem: str) -> None:
    _log.info("arrays on a card go the way of the array API, without CuPy: %s", problem)
