"""Arguments of public calls that are no arrays of vectors: checked by name, before any work.

Each function takes the call it speaks for and the name of an argument, and returns its value as a
plain Python one, or raises ParameterError.  Any real number is a number, a NumPy or framework
scalar and a fraction among them, but no truth value and no text.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import ParameterError


def whole(call: str, name: str, value: Any, lowest: int, highest: int | None = None) -> int:
    """Return a whole number in ``[lowest, highest]``."""
    found = whole_of(value)
    if found is None or found < lowest or (highest is not None and found > highest):
        bounds = f">= {lowest}" if highest is None else f"from {lowest} to {highest}"
        raise refused(call, name, value, f"a whole number {bounds}")
    return found


def sizes(call: str, name: str, value: Any, count: int) -> int | tuple[int, ...]:
    """Return a whole number from 1, or `count` of them, one per stage; one if all are equal."""
    several = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    several |= getattr(value, "ndim", 0) == 1
    found = tuple(map(whole_of, value if several else [value]))
    if len(found) != (count if several else 1) or any(not each or each < 1 for each in found):
        raise refused(
            call, name, value, f"a whole number from 1, or {count} of them, one per stage (n_q)"
        )
    return found[0] if len(set(found)) == 1 else found  # type: ignore[return-value]


def integer(call: str, name: str, value: Any) -> int:
    """Return a whole number, whatever its sign."""
    found = whole_of(value)
    if found is None:
        raise refused(call, name, value, "a whole number")
    return found


def whole_of(value: Any) -> int | None:
    """Return a whole number as an int: an int, or a scalar or 0-d array of whole numbers.

    None for anything else; a float is no whole number, whatever its value, and no truth value is.
    """
    if type(value) is int:
        return value
    if _kind(value) not in "iu":
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def number(
    call: str, name: str, value: Any, lowest: float = -math.inf, highest: float = math.inf
) -> float:
    """Return a finite number in ``[lowest, highest]``."""
    found = real_of(value)
    if found is None or not lowest <= found <= highest:
        bounds = "" if lowest == -math.inf else f" >= {lowest:g}"
        if highest < math.inf:
            bounds = f" from {lowest:g} to {highest:g}"
        raise refused(call, name, value, f"a finite number{bounds}")
    return found


def real_of(value: Any) -> float | None:
    """Return a finite real number as a float: of Python, a fraction, a scalar, a 0-d array.

    None for anything else, text and complex numbers among it.
    """
    if type(value) is not float and _kind(value) not in "biuf":
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def plain(value: Any) -> Any:
    """Return a number that `real_of` knows as Python's own: a bool, an int or a float."""
    if type(value) in (bool, int, float):
        return value
    kind = _kind(value)
    return bool(value) if kind == "b" else operator.index(value) if kind in "iu" else float(value)


def rounding(value: Any) -> float:
    """Return by which share of it a number may have been rounded to its type, if that is narrow.

    0 for what has 53 bits or more: float64, numbers of Python, whole numbers.
    """
    if type(value) in (int, float) or _kind(value) != "f":
        return 0.0
    name = str(getattr(value, "dtype", ""))
    if "bfloat16" in name:
        return 2.0**-8
    return 2.0**-11 if "float16" in name else 2.0**-24 if "float32" in name else 0.0


def _kind(value: Any) -> str:
    """Return NumPy's letter of what kind of number a scalar is; "O" for what is none."""
    if isinstance(value, (str, bytes, bytearray)):
        return "O"
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        if isinstance(value, bool):
            return "b"
        if isinstance(value, int) or hasattr(value, "__index__"):
            return "i"
        return "f" if hasattr(value, "__float__") and not isinstance(value, complex) else "O"
    if tuple(getattr(value, "shape", ())) != ():
        return "O"
    if getattr(dtype, "kind", "V") in "biuf":
        return str(dtype.kind)
    name = str(dtype)  # of a framework, or an object in an array
    for part, kind in (("complex", "O"), ("bool", "b"), ("uint", "u"), ("int", "i"),
                       ("float", "f"), ("object", "f")):  # fmt: skip
        if part in name:
            return kind
    return "O"


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
    seed = whole_of(value)
    try:
        return np.random.default_rng(value if seed is None else seed)
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
    """Return the error for an argument with an invalid value."""
    text = repr(value)
    text = text if len(text) <= 80 else f"a {type(value).__name__}"
    return ParameterError(f"{call}: {name} is {text}; expected {expected}.")
