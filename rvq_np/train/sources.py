"""What `fit` can read: arrays, and files and batches that are more than memory holds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import arrays, backends
from ..errors import DtypeError, InputFileError, NonFiniteError, ShapeError
from ..files import arrow
from .chunked import Chunks
from .tasks import same_versions

PART = 1 << 16  # rows of a file that are read by one task


def opened(call: str, x: Any, column: str | None = None) -> Any:
    """Return vectors as `fit` reads them: an array, a memory map, or `Chunks` of a Dask array.

    Parameters
    ----------
    call : str
        The name of the call, for error messages.
    x : object
        A Dask array (N, D), or a Dask DataFrame of numbers: the columns are the dimensions. A zarr
        array. A path: a ``.npy`` file; a folder of zarr (``.zarr``); a Parquet file or a folder of
        them. A list of paths of ``.npy`` or Parquet files: their vectors follow each other. An
        iterator of arrays (n, D): it is written to a temporary file, which needs as much disk
        space. Anything else is returned unchanged.
    column : str, optional
        The column of Parquet files that holds vectors as lists. By default the only column of
        lists, or otherwise all columns of floating-point numbers.

    Returns
    -------
    vectors : array, numpy.memmap or Chunks

    Raises
    ------
    FileNotFoundError, InputFileError, ShapeError, DtypeError
        If a file is missing, is of another kind, or does not fit the others.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np import train
    >>> train.opened("fit", iter([np.zeros((2, 3)), np.ones((4, 3))])).shape
    (6, 3)
    """
    if isinstance(x, (Chunks, np.ndarray)):
        return x
    if isinstance(x, (str, os.PathLike)):
        path = Path(x)
        if path.suffix == ".npy":
            return _mapped(call, path)
        x = _read_later(call, [path], column)
    elif (
        isinstance(x, (list, tuple))
        and x
        and all(isinstance(each, (str, os.PathLike)) for each in x)
    ):
        x = _read_later(call, [Path(each) for each in x], column)
    elif type(x).__module__.partition(".")[0] == "zarr":
        import dask.array as da

        x = da.from_zarr(x)
    elif isinstance(x, Iterator):
        return _spooled(call, x)
    later = backends.chunked(x)
    if later is None:
        return x
    if hasattr(x, "to_dask_array"):
        x = x.to_dask_array()
    later.check(call, "x", x)
    same_versions(call)
    return Chunks(call, x)


def _mapped(call: str, path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{call}: there is no file {str(path)!r}.")
    try:
        return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # headers are parsed as Python: any exception is possible
        raise InputFileError(
            f"{call}: {str(path)!r} is not a readable .npy file ({error}). Write one with "
            "numpy.save."
        ) from error


def _read_later(call: str, paths: list[Path], column: str | None) -> Any:
    """Return the Dask array of files, one after the other."""
    import dask.array as da

    found = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{call}: there is no file {str(path)!r}.")
        if path.suffix == ".npy":
            found.append(_npy(call, path))
        elif path.suffix == ".zarr":
            found.append(da.from_zarr(str(path)))
        elif path.is_dir() or path.suffix in (".parquet", ".pq"):
            files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
            if not files:
                raise InputFileError(
                    f"{call}: {str(path)!r} holds no .parquet file; expected some, or a path that "
                    "ends in .npy, .parquet or .zarr."
                )
            found += [_parquet(call, each, column) for each in files]
        else:
            raise InputFileError(
                f"{call}: {str(path)!r} ends in {path.suffix!r}; expected .npy, .parquet or .zarr, "
                "or a folder of Parquet files."
            )
    widths = {each.shape[1:] for each in found}
    if len(widths) > 1 or len({each.dtype for each in found}) > 1:
        kinds = {
            str(path): (each.dtype, each.shape) for path, each in zip(paths, found, strict=False)
        }
        raise ShapeError(f"{call}: the files differ: {kinds}; expected vectors of one kind.")
    return found[0] if len(found) == 1 else da.concatenate(found)


def _npy(call: str, path: Path) -> Any:
    import dask
    import dask.array as da

    array = _mapped(call, path)
    if array.ndim != 2:
        raise ShapeError(f"{call}: {str(path)!r} has shape {array.shape}; expected (N, D).")
    read = dask.delayed(_rows_of_npy, pure=True)
    parts = [
        da.from_delayed(
            read(str(path.absolute()), start, min(start + PART, len(array))),
            (min(PART, len(array) - start), array.shape[1]), array.dtype,
        )
        for start in range(0, max(1, len(array)), PART)
    ]  # fmt: skip
    return da.concatenate(parts)


def _rows_of_npy(path: str, start: int, stop: int) -> np.ndarray:
    # Still on disk: tasks of some rows read only those.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)[start:stop])


def _parquet(call: str, path: Path, column: str | None) -> Any:
    """Return the Dask array of a file; one chunk a row group."""
    import dask
    import dask.array as da
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise InputFileError(
            f"{call}: {str(path)!r} is not a readable Parquet file ({error})."
        ) from error
    names = columns(call, path, file.schema_arrow, column)
    first = rows_of_parquet(call, str(path), 0, names) if file.num_row_groups else np.empty((0, 0))
    read = dask.delayed(rows_of_parquet, pure=True)
    return da.concatenate([
        da.from_delayed(
            read(call, str(path.absolute()), group, names),
            (file.metadata.row_group(group).num_rows, first.shape[1]), first.dtype,
        )
        for group in range(file.num_row_groups)
    ])  # fmt: skip


def columns(call: str, path: Path, schema: Any, column: str | None) -> list[str]:
    """Return the names of the columns of a schema of Arrow that hold vectors."""
    import pyarrow.types as kinds

    lists = [
        field.name for field in schema
        if kinds.is_list(field.type) or kinds.is_large_list(field.type)
        or kinds.is_fixed_size_list(field.type)
        if kinds.is_floating(field.type.value_type)
    ]  # fmt: skip
    numbers = [field.name for field in schema if kinds.is_floating(field.type)]
    if column is not None:
        found = [column] if column in lists else []
    else:
        found = lists if len(lists) == 1 else [] if lists else numbers
    if not found:
        raise InputFileError(
            f"{call}: {str(path)!r} has columns {schema.names}; expected one of lists of "
            "floating-point numbers, or such numbers only. Name the column."
        )
    return found


def rows_of_parquet(call: str, path: str, group: int, names: list[str]) -> np.ndarray:
    """Return the vectors of a row group (n, D)."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    first = sum(file.metadata.row_group(each).num_rows for each in range(group))
    return vectors_of(call, path, file.read_row_group(group, columns=names), names, first)


def vectors_of(call: str, path: str, table: Any, names: list[str], first: int) -> np.ndarray:
    """Return the vectors (n, D) of columns of an Arrow table; `first`: the row of the first."""
    if any(table[name].null_count for name in names):
        raise InputFileError(
            f"{call}: {path!r} has missing values in {names}; expected a number everywhere. Drop "
            "those rows."
        )
    if len(names) > 1 or not hasattr(table[names[0]].type, "value_type"):
        return np.column_stack([table[name].to_numpy() for name in names])
    try:
        return arrow.vectors(f"{call}: {path!r}", table[names[0]], first)
    except (ShapeError, DtypeError, NonFiniteError) as error:
        raise InputFileError(str(error)) from error


def _spooled(call: str, batches: Iterator[Any]) -> np.ndarray:
    """Return a memory map of all batches, in a file that is gone when the map is."""
    dtype: Any = None
    width, rows = 0, 0
    with tempfile.TemporaryFile() as file:
        for number, batch in enumerate(batches):
            part = arrays.to_numpy(batch)
            if part.ndim != 2 or (dtype is not None and part.shape[1] != width):
                raise ShapeError(
                    f"{call}: batch {number} has shape {part.shape}; expected "
                    f"{'(n, D)' if dtype is None else f'(n, {width})'}."
                )
            if part.dtype.kind != "f" or part.dtype != (dtype or part.dtype):
                raise DtypeError(
                    f"{call}: batch {number} has dtype {part.dtype}; expected "
                    f"{dtype or 'floating-point numbers'}."
                )
            dtype, width, rows = part.dtype, part.shape[1], rows + len(part)
            file.write(np.ascontiguousarray(part).data)
        if not rows * width:
            return np.empty((rows, width), dtype or np.float32)
        file.flush()
        whole: Any = file
        return np.memmap(whole, dtype, "r", shape=(rows, width))
