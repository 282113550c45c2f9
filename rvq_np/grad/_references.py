"""Objects that compiled code names by a number, as operations of a framework take no objects."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

from .. import forks
from ..errors import BackendError

_objects: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_numbers: dict[int, tuple[weakref.ref[Any], int]] = {}  # by id, which a later object may have
_next_number = itertools.count(1)  # never one twice: compiled code may outlive what it names
_lock = forks.lock()


def number_of(thing: Any) -> int:
    """Return the number by which `object_of` finds a quantizer or all-reduce while it lives.

    The same for the same object, and never that of another one, not even of one that is gone.
    """
    place = id(thing)

    def forget(reference: Any) -> None:
        if _numbers.get(place, (None,))[0] is reference:
            del _numbers[place]

    with _lock:
        known = _numbers.get(place)
        if known is not None and known[0]() is thing:
            return known[1]
        number = next(_next_number)
        _numbers[place] = (weakref.ref(thing, forget), number)
        _objects[number] = thing
        return number


def object_of(number: int) -> Any:
    """Return the object that has this number.

    Raises
    ------
    BackendError
        If it is gone.
    """
    try:
        return _objects[number]
    except KeyError:
        raise BackendError(
            "quantize: the quantizer or all_reduce that this was traced with is gone; keep it as "
            "long as the compiled function is used."
        ) from None
