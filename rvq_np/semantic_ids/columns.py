"""Item ids and embeddings out of columns of pyarrow, polars and pandas, and of Parquet files."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..errors import DtypeError, InputFileError, NonFiniteError, ShapeError
from ..files import arrow as files

ROWS = 1 << 14  # of a Parquet file, read at once


def embeddings(column: Any) -> np.ndarray:
    """Return a column of lists of numbers as one array.

    Parameters
    ----------
    column : array (N, D), or column of lists of pyarrow, polars or pandas, or list of lists

    Returns
    -------
    x : numpy.ndarray (N, D), floating
        An array is returned as it is.

    Raises
    ------
    ShapeError
        If the lists have different lengths, or one is missing; the message names the first one.
    DtypeError
        If they do not hold numbers.

    Examples
    --------
    >>> embeddings([[1.0, 2.0], [3.0, 4.0]]).shape
    (2, 2)
    """
    if hasattr(column, "to_arrow"):  # polars
        column = column.to_arrow()
    if type(column).__module__.partition(".")[0] == "pyarrow":
        return files.vectors("embeddings", column)
    if not isinstance(column, np.ndarray) and hasattr(column, "to_numpy"):  # pandas
        column = column.to_numpy()
    if isinstance(column, np.ndarray) and column.dtype != object:
        found = column
    else:
        rows = [None if each is None else np.asarray(each) for each in column]
        lengths = [-1 if each is None or each.ndim != 1 else len(each) for each in rows]
        files.one_length("embeddings", np.array(lengths, np.int64))
        found = np.array(rows) if rows else np.empty((0, 0), np.float32)
    if found.ndim != 2:
        raise ShapeError(f"embeddings: got the shape {found.shape}; expected (N, D).")
    if found.dtype.kind in "iu":
        found = found.astype(np.float32)
    if found.dtype.kind != "f":
        raise DtypeError(f"embeddings: got {found.dtype}; expected numbers.")
    return found


def item_ids(call: str, column: Any, first: int = 0) -> np.ndarray:
    """Return ids of items as int64 or as an object array of str; `first`: the row of the first."""
    if hasattr(column, "to_arrow"):
        column = column.to_arrow()
    if hasattr(column, "to_pylist") and getattr(column, "null_count", None):
        row = first + [each is None for each in column.to_pylist()].index(True)
        raise InputFileError(f"{call}: the id of row {row} is missing; expected one for each item.")
    if hasattr(column, "to_pylist"):
        column = column.to_numpy() if "int" in str(column.type) else column.to_pylist()
    if isinstance(column, (list, tuple)):  # NumPy would make text of numbers beside text
        column = np.array([*column, None], object)[:-1]
        if all(type(each) is int for each in column):
            column = column.astype(np.int64)
    found = np.asarray(column)
    if found.dtype.kind in "iu":
        found = found.astype(np.int64)
    else:
        listed = found.tolist()
        for row, each in enumerate(listed):
            if not isinstance(each, str) or not each:
                raise InputFileError(
                    f"{call}: the id of row {first + row} is {each!r}; expected text or a whole "
                    "number."
                )
        found = np.empty(len(listed), object)
        found[:] = listed
    if found.ndim != 1:
        raise InputFileError(f"{call}: ids have shape {found.shape}; expected (N,).")
    return found


def check_distinct(call: str, ids: np.ndarray, before: np.ndarray | None = None) -> None:
    """Raise InputFileError, naming it, if an id is there twice, or in `before`."""
    if before is not None and len(before) and len(ids) and before.dtype != ids.dtype:
        raise InputFileError(
            f"{call}: the new ids are {_kind(ids)}, those in the file {_kind(before)}; expected "
            "one kind."
        )
    seen: dict[Any, int] = {}
    there = set() if before is None else set(before.tolist())
    for row, each in enumerate(ids.tolist()):
        if each in there:
            raise InputFileError(
                f"{call}: item {each!r} of row {row} has an ID already, which never changes; "
                "expected new items only."
            )
        if each in seen:
            raise InputFileError(
                f"{call}: item {each!r} is in rows {seen[each]} and {row}; expected each once."
            )
        seen[each] = row


def _kind(ids: np.ndarray) -> str:
    return "text" if ids.dtype == object else "whole numbers"


def read_parquet(
    call: str, path: str | os.PathLike[str], id_column: str | None, column: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and embeddings of a Parquet file; without a column of ids, numbers of rows.

    Rows are read in blocks into one array: little is held beside it.
    """
    parquet = arrow(call).parquet
    try:
        file = parquet.ParquetFile(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{call}: there is no file {str(path)!r}.") from None
    except Exception as error:  # pyarrow's errors have no common base
        raise InputFileError(f"{call}: {str(path)!r} is no Parquet file ({error}).") from error
    with file:
        known = file.schema_arrow.names
        columns = [column] if id_column is None else [id_column, column]
        for each in columns:
            if each not in known:
                raise InputFileError(
                    f"{call}: {str(path)!r} has no column {each!r}; expected one of "
                    f"{', '.join(map(repr, known))}."
                )
        x, ids, at = None, [], 0
        for batch in file.iter_batches(ROWS, columns=columns):
            try:
                part = files.vectors(f"{call}: {str(path)!r}", batch.column(len(columns) - 1), at)
            except (ShapeError, DtypeError, NonFiniteError) as error:
                raise InputFileError(str(error)) from error
            if x is None:
                dtype = np.float64 if part.dtype == np.float64 else np.float32
                x = np.empty((file.metadata.num_rows, part.shape[1]), dtype)
            if part.shape[1] != x.shape[1]:
                raise InputFileError(
                    f"{call}: {str(path)!r}: row {at} has {part.shape[1]} numbers, row 0 has "
                    f"{x.shape[1]}; expected one length."
                )
            x[at : at + len(part)] = part
            if id_column is not None:
                ids.append(item_ids(call, batch.column(columns.index(id_column)), at))
            at += len(part)
    if x is None:
        raise InputFileError(f"{call}: {str(path)!r} has no rows; expected at least one.")
    found = np.concatenate(ids) if ids else np.arange(len(x))
    return found, x


def arrow(call: str) -> Any:
    """Return pyarrow, or raise InputFileError that says how to get it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputFileError(
            f"{call}: Parquet files need pyarrow ({error}): pip install 'rvq-np[ids]'."
        ) from error
    return pyarrow
