"""Columns of Arrow that hold a vector a row, as lists of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DtypeError, NonFiniteError, ShapeError


def vectors(call: str, column: Any, first: int = 0) -> np.ndarray:
    """Return a column of lists of one length as (N, D), floating, or raise.

    `first`: the number of the first row, for errors.
    """
    import pyarrow as pa

    if hasattr(column, "combine_chunks"):
        column = column.combine_chunks()
    kind = column.type
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(each(kind) for each in lists):
        raise DtypeError(f"{call}: the column holds {kind}; expected lists of numbers.")
    lengths = column.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
    one_length(call, lengths, first)
    values = column.flatten()
    if values.null_count:
        row = int(np.argmin(values.is_valid().to_numpy(zero_copy_only=False))) // int(lengths[0])
        raise NonFiniteError(f"{call}: row {first + row} has a missing number; expected none.")
    numbers = values.to_numpy(zero_copy_only=False)
    if numbers.dtype.kind not in "fiu":
        raise DtypeError(f"{call}: the column holds {kind}; expected lists of numbers.")
    numbers = numbers if numbers.dtype.kind == "f" else numbers.astype(np.float32)
    width = lengths[0] if len(lengths) else max(0, getattr(kind, "list_size", 0))
    return numbers.reshape(len(column), width)


def one_length(call: str, lengths: np.ndarray, first: int = 0) -> None:
    """Raise ShapeError, naming a row, unless all lengths are equal and from 1; -1: missing."""
    if len(lengths) and ((lengths != lengths[0]).any() or lengths[0] < 1):
        row = int(np.argmax((lengths != lengths[0]) | (lengths < 1)))
        got = "is missing" if lengths[row] < 0 else f"has {lengths[row]} numbers"
        raise ShapeError(
            f"{call}: row {first + row} {got}, row {first} has {lengths[0]}; expected one length "
            "from 1."
        )
