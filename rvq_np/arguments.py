"""Arguments of public calls that are no arrays of vectors: checked by name, before any work.

Each function takes the call it speaks for and the name of an argument, and returns its value as a
plain Python one, or raises ParameterError.  Any real number is a number, a NumPy or framework
scalar and a fraction among them, but no truth value and no text.
"""

from __future__ import annotations

import math
import operator
import os
from typing import Any

import numpy as np

from .errors import ParameterError


def whole(call: str, name: str, value: Any, lowest: int, highest: int | None = None) -> int:
    """Return a whole number in ``[lowest, highest]``."""
    try:
        found = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        found = None
    if found is None or found < lowest or (highest is not None and found > highest):
        bounds = f">= {lowest}" if highest is None else f"from {lowest} to {highest}"
        raise refused(call, name, value, f"a whole number {bounds}")
    return found


def integer(call: str, name: str, value: Any) -> int:
    """Return a whole number, whatever its sign."""
    try:
        return operator.index(value)
    except TypeError:
        raise refused(call, name, value, "a whole number") from None


def number(
    call: str, name: str, value: Any, lowest: float = -math.inf, highest: float = math.inf
) -> float:
    """Return a finite number in ``[lowest, highest]``."""
    found = math.nan
    if not isinstance(value, (str, bytes, bytearray)) and tuple(getattr(value, "shape", ())) == ():
        try:
            found = float(value)
        except (TypeError, ValueError, OverflowError):
            found = math.nan
    if not (math.isfinite(found) and lowest <= found <= highest):
        bounds = "" if lowest == -math.inf else f" >= {lowest:g}"
        if highest < math.inf:
            bounds = f" from {lowest:g} to {highest:g}"
        raise refused(call, name, value, f"a finite number{bounds}")
    return found


def function(call: str, name: str, value: Any) -> None:
    """Raise unless `value` can be called."""
    if not callable(value):
        raise refused(call, name, value, "a function")


def flag(call: str, name: str, value: Any) -> bool:
    """Return True or False: a truth value of Python or NumPy, or 0 or 1."""
    try:
        found = None if isinstance(value, float) else operator.index(value)
    except TypeError:
        found = int(value) if isinstance(value, np.bool_) else None
    if found not in (0, 1):
        raise refused(call, name, value, "True or False")
    return bool(found)


def float_type(call: str, name: str, value: Any) -> np.dtype:
    """Return float32 or float64, of the dtype, its class or its name."""
    for each in (np.dtype(np.float32), np.dtype(np.float64)):
        if isinstance(value, (str, type, np.dtype)) and value in (each, each.type, each.name):
            return each
    raise refused(call, name, value, "float32 or float64")


def path(call: str, name: str, value: Any) -> str | os.PathLike[str]:
    """Return the path of a file as it is, or as str if it is bytes."""
    try:
        decoded = os.fsdecode(value)
    except (TypeError, UnicodeError):
        raise refused(call, name, value, "the path of a file") from None
    return value if isinstance(value, os.PathLike) else decoded


def is_path(call: str, name: str, value: Any, mode: str) -> bool:
    """Return whether `value` is the path of a file; raise if it is no binary file either."""
    if isinstance(value, (str, os.PathLike)):
        return True
    expected = ("seek", "read" if mode == "rb" else "write")
    if not all(callable(getattr(value, each, None)) for each in expected):
        raise refused(call, name, value, "a path or a binary file")
    return False


def generator(call: str, name: str, value: Any) -> np.random.Generator:
    """Return `value` if it is a generator, else the one that NumPy makes of it."""
    try:
        return np.random.default_rng(value)
    except (ValueError, TypeError) as error:
        raise ParameterError(
            f"{call}: {name} is {value!r} ({error}); expected a whole number from 0, a "
            "numpy.random.Generator, or None."
        ) from error


def kind(call: str, name: str, value: Any, cls: type) -> None:
    """Raise unless `value` is one of a class."""
    if not isinstance(value, cls):
        raise refused(call, name, value, f"a {cls.__name__}")


def refused(call: str, name: str, value: Any, expected: str) -> ParameterError:
    """Return the error for an argument that is not what it may be."""
    text = repr(value)
    text = text if len(text) <= 80 else f"a {type(value).__name__}"
    return ParameterError(f"{call}: {name} is {text}; expected {expected}.")
