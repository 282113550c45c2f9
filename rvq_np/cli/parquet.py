"""Parquet files of the command line: columns that hold a vector, or the codes of one, in each row.

Vectors are a column of lists, or columns of numbers; codes are the column ``codes`` of lists, and
decoded vectors the column ``vectors``.  The other columns of a file of vectors stay beside its
codes.  Everything goes in batches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputFileError, MissingExtraError, ShapeError
from ..files.atomic import NewFile
from ..train import sources
from . import files

CODES, VECTORS = "codes", "vectors"
Put = Callable[[int, Any, Any], None]


def read(
    command: str, path: str, dim: int | None, column: str | None
) -> tuple[int, Iterator[tuple[int, np.ndarray, Any]]]:
    """Return how many vectors a file has, and (first, vectors, table of other columns) in batches.

    `dim`: of the model; None: any.
    """
    file = opened(command, path)
    names = sources.columns(command, Path(path), file.schema_arrow, column)

    def pieces() -> Iterator[Any]:
        start = 0
        for batch in file.iter_batches(batch_size=files.ROWS):
            import pyarrow as pa

            table = pa.Table.from_batches([batch])
            some = sources.vectors_of(command, path, table, names, start)
            if dim is not None:
                check_shape(path, some.shape, dim)
            yield start, some, table.drop_columns(names)
            start += len(some)

    return file.metadata.num_rows, pieces()


def read_codes(command: str, path: str, column: str | None) -> np.ndarray:
    """Return the codes (Q, N) of a file."""
    import pyarrow.types as kinds

    file = opened(command, path)
    name = column or CODES
    if name not in file.schema_arrow.names:
        raise InputFileError(
            f"{command}: {path!r} has columns {file.schema_arrow.names}; expected {name!r} with "
            "lists of codes. Name another by --column."
        )
    kind = file.schema_arrow.field(name).type
    if not kinds.is_integer(getattr(kind, "value_type", kind)):
        raise InputFileError(f"{command}: column {name!r} of {path!r} holds {kind}; expected lists "
                             "of whole numbers, the codes of a vector.")  # fmt: skip
    column_ = file.read(columns=[name])[name].combine_chunks()
    lengths = np.asarray(column_.value_lengths().fill_null(-1))
    if len(lengths) and (lengths != lengths[0]).any():
        raise InputFileError(
            f"{command}: lists in column {name!r} of {path!r} have lengths {lengths.min()} to "
            f"{lengths.max()}; expected one length, a code for each stage."
        )
    numbers = np.asarray(column_.flatten())
    width = int(lengths[0]) if len(lengths) else max(0, getattr(kind, "list_size", 0))
    return numbers.reshape(len(lengths), width).T


def check_shape(path: str, shape: tuple[int, ...], dim: int) -> None:
    """Raise ShapeError unless vectors have the dimension of the model."""
    if len(shape) != 2 or shape[1] != dim:
        raise ShapeError(
            f"{path!r} holds vectors of shape {tuple(shape)}; expected (N, {dim}), the dimension "
            "of the model."
        )


def opened(command: str, path: str) -> Any:
    """Return the ``pyarrow.parquet.ParquetFile`` of a path."""
    needed(command)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:  # OSError: a damaged footer
        raise InputFileError(f"{path!r} is not a readable Parquet file ({error}).") from error


def needed(command: str) -> None:
    """Raise MissingExtraError where there is no pyarrow."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"{command}: Parquet needs pyarrow. Run pip install 'rvq-np[ids]'."
        ) from error


@contextlib.contextmanager
def codes_sink(
    command: str, source: str | None, path: Any, quantizer: Any, column: str | None
) -> Iterator[Put]:
    """Yield ``put(first, codes, table)``; the file is put in its place on success.

    `source`: the Parquet file whose other columns are written, too, in `table`; None: there is
    none.
    """
    needed(command)
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.list_(pa.int32(), quantizer.n_q)
    fields: list[Any] = []
    if source is not None:
        schema = opened(command, source).schema_arrow
        names = sources.columns(command, Path(source), schema, column)
        fields = [field for field in schema if field.name not in names]
    if any(field.name == CODES for field in fields):
        raise InputFileError(f"{source!r} has a column 'codes' already. Rename or drop it.")
    schema = pa.schema([*fields, pa.field(CODES, kind)]).with_metadata(
        {"rvq_np.codebooks": quantizer.fingerprint}
    )
    with NewFile(path) as new, pq.ParquetWriter(new.file, schema) as writer:

        def put(start: int, some: Any, table: Any) -> None:
            flat = pa.array(np.ascontiguousarray(some.T).ravel())
            lists = pa.FixedSizeListArray.from_arrays(flat, quantizer.n_q)
            others = [] if table is None else [table[field.name] for field in fields]
            writer.write_table(pa.table([*others, lists], schema=schema))

        yield put


@contextlib.contextmanager
def vectors_sink(command: str, path: Any, dim: int, dtype: Any) -> Iterator[Callable[..., None]]:
    """Yield ``put(first, vectors)``; the file is put in its place on success."""
    needed(command)
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.list_(pa.from_numpy_dtype(dtype), dim)
    schema = pa.schema([pa.field(VECTORS, kind)])
    with NewFile(path) as new, pq.ParquetWriter(new.file, schema) as writer:

        def put(start: int, some: np.ndarray) -> None:
            flat = pa.array(np.ascontiguousarray(some).ravel())
            lists = pa.FixedSizeListArray.from_arrays(flat, dim)
            writer.write_table(pa.table([lists], schema=schema))

        yield put
