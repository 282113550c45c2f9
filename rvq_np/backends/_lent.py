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
# What a backend has for training, see `rvq_np.backends`.
TRAINING = ("extent", "assign", "add_up", "walk", "searched", "residual")


class Card:
    """The functions of `_cuda` for arrays of another library.

    Parameters
    ----------
    there : context manager
        Makes the device of the arrays current, and the stream that their library queues work on.
    back : callable
        Returns a CuPy array as one of the library.
    inside : callable, optional
        The same for what only training sees, float64 among it; by default `back`.
    """

    def __init__(
        self,
        there: Callable[[], AbstractContextManager[Any]],
        back: Callable[[Any], Any],
        inside: Callable[[Any], Any] | None = None,
    ):
        self.there, self.back, self.inside = there, back, inside or back

    def __getattr__(self, name: str) -> Callable[..., Any]:
        back = self.inside if name in TRAINING else self.back
        return functools.partial(self._call, getattr(_cuda(), name), back)

    def _call(self, function: Callable[..., Any], back: Callable[[Any], Any], *given: Any) -> Any:
        with self.there():
            return _returned(function(*map(_lent, given)), back)

    def assign(self, x: Any) -> Callable[[Any], Any]:
        with self.there():
            again = _cuda().assign(_lent(x))
        return functools.partial(self._call, again, self.inside)

    def walk(self, x: Any, codes: Any, prepared: Any) -> Iterator[Any]:
        with self.there():
            stages = _cuda().walk(_lent(x), _lent(codes), prepared)
        while (found := self._call(next, self.inside, stages, None)) is not None:
            yield found


def training(elsewhere: Callable[[Any], Any], plain: Callable[[Any], Any]) -> Iterator[Any]:
    """Return the functions of `TRAINING` for a library: those of the `Card` of their first array.

    ``elsewhere(x)`` is that card, ``plain(x)`` what can be lent to it.
    """

    def lending(name: str) -> Callable[..., Any]:
        return lambda x, *others: getattr(elsewhere(x), name)(plain(x), *others)

    return map(lending, TRAINING)


def _lent(value: Any) -> Any:
    cupy = _cuda().cupy
    ours = isinstance(value, (np.ndarray, cupy.ndarray)) or not hasattr(value, "__dlpack__")
    return value if ours else cupy.from_dlpack(value)


def _returned(value: Any, back: Callable[[Any], Any]) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)(_returned(each, back) for each in value)
    return back(value) if isinstance(value, _cuda().cupy.ndarray) else value


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
