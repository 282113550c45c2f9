"""Codes of items as this package takes them, their order, and one number for each ID."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .. import arguments, arrays
from ..errors import CodeRangeError, DtypeError, LevelsError, ShapeError

LARGEST = np.iinfo(np.int32).max


def checked(call: str, codes: Any, name: str = "codes", dropped: bool = False) -> np.ndarray:
    """Return codes (Q, N) as int32 in host memory, or raise; `dropped`: whether -1 is a code."""
    codes = arrays.codes_of(codes)
    found = arrays.to_numpy(codes) if hasattr(codes, "shape") else np.asarray(codes)
    if found.ndim != 2 or not len(found):
        raise ShapeError(
            f"{call}: {name} has shape {found.shape}; expected (Q, N): one row per stage, one "
            "column per item. Transpose codes that have a row per item."
        )
    if found.dtype.kind not in "iu":
        raise DtypeError(f"{call}: {name} has dtype {found.dtype}; expected integers.")
    lowest = -1 if dropped else 0
    if found.size and not (found.min() >= lowest and found.max() < LARGEST):
        wrong = (found < lowest) | (found >= LARGEST)
        stage, item = np.argwhere(wrong)[0].tolist()
        raise CodeRangeError(
            f"{call}: {name} holds {found[stage, item]} at stage {stage}, item {item}; expected "
            f"{lowest} to {LARGEST - 1}."
        )
    return np.ascontiguousarray(found, dtype=np.int32)


def sizes_of(call: str, sizes: Any, codes: np.ndarray | None = None) -> tuple[int, ...]:
    """Return sizes as a tuple, one for each stage of `codes` and above its codes, or raise."""
    try:
        given = list(sizes)
    except TypeError:
        raise arguments.refused(call, "sizes", sizes, "a sequence of whole numbers") from None
    found = tuple(arguments.whole(call, "sizes", each, 1, LARGEST) for each in given)
    if not found or (codes is not None and len(found) != len(codes)):
        expected = "at least one" if codes is None else f"{len(codes)}, one per stage of the codes"
        raise LevelsError(f"{call}: got {len(found)} sizes; expected {expected}.")
    if codes is not None and codes.size:
        for stage, (size, row) in enumerate(zip(found, codes, strict=True)):
            if row.max() >= size:
                item = int(np.argmax(row >= size))
                raise CodeRangeError(
                    f"{call}: code {row[item]} of item {item} at stage {stage} is out of range; "
                    f"expected 0 to {size - 1}."
                )
    return found


def order(codes: np.ndarray) -> np.ndarray:
    """Return the order (N,) of the items by their codes (Q, N), stage 0 first, then by number.

    A radix sort from the last stage to the first: linear time, as NumPy sorts 16-bit numbers so.
    """
    found = None
    for row in codes[::-1]:
        digits = [row.astype(np.uint16)] if row.size == 0 or row.max() < 1 << 16 else [
            (row & 0xFFFF).astype(np.uint16), (row >> 16).astype(np.uint16)
        ]  # fmt: skip
        for digit in digits:
            moved = np.argsort(digit if found is None else digit[found], kind="stable")
            found = moved if found is None else found[moved]
    assert found is not None
    return found


def beginnings(codes: np.ndarray, ordered: np.ndarray) -> Iterator[np.ndarray]:
    """Yield for the first 1, 2, … Q codes (Q, N) where, in an order, they differ from those before.

    One array (N,) of bool, in which each step sets more.
    """
    new = np.zeros(len(ordered), bool)
    new[:1] = True
    for row in codes:
        sorted_row = row[ordered]
        new[1:] |= sorted_row[1:] != sorted_row[:-1]
        yield new


def starts(codes: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Return the places (n,) in an order where the codes (Q, N) differ from those before."""
    *_, new = beginnings(codes, ordered)
    return np.flatnonzero(new)


def distinct(numbers: np.ndarray) -> np.ndarray:
    """Return the numbers that occur, ascending: by sorting, which `numpy.unique` no longer does."""
    found = np.sort(numbers)
    new = np.ones(len(found), bool)
    new[1:] = found[1:] != found[:-1]
    return found[new]


def keys(*parts: np.ndarray) -> list[np.ndarray]:
    """Return an int64 per column of each of the code arrays (Q, n): equal only for equal codes."""
    sizes = [max((int(part[q].max()) + 1 for part in parts if part.size), default=1)
             for q in range(len(parts[0]))]  # fmt: skip
    found = [part[0].astype(np.int64) for part in parts]
    span = sizes[0]
    for q, size in enumerate(sizes[1:], 1):
        if span * size > 1 << 62:  # count what is there instead of what there could be
            present = distinct(np.concatenate([distinct(each) for each in found]))
            found = [np.searchsorted(present, each) for each in found]
            span = len(present)
        for each, part in zip(found, parts, strict=True):
            each *= size
            each += part[q]
        span *= size
    return found


def space(sizes: Sequence[int]) -> int:
    """Return how many IDs there are."""
    return math.prod(sizes)
