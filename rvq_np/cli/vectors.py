"""Reading and writing vectors in parts: ``.npy``, ``.npz``, ``.csv``, ``.parquet`` and sounds.

An array is (N, D), or (B, D, T) for B streams.  A sound is one stream, see `sounds`.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputFileError, ParameterError, RvqError, ShapeError
from ..files import kinds
from ..frontend import FrontEnd
from . import files, inputs, parquet, sounds, text
from .outputs import Output

Put = Callable[[int, np.ndarray], None]


class Vectors(NamedTuple):
    """The vectors of a file: ``pieces(block)`` yields (first frame, (..., n, D))."""

    batch: tuple[int, ...]
    frames: int
    rate: Fraction | None  # vectors per second
    pieces: Callable[[int], Iterator[tuple[int, np.ndarray]]]
    # Of Parquet: (first frame, (n, D), table of the other columns), instead of `pieces`.
    tables: Iterator[tuple[int, np.ndarray, Any]] | None = None


def source(
    path: str, model: Any, front_end: str | None = None, resample: bool = False,
    column: str | None = None,
) -> Vectors:  # fmt: skip
    """Return the vectors of a file, for a `Model`; of a sound, by its front end."""
    kind, dim = _kind("encode", path), model.quantizer.dim
    if kind in kinds.SOUNDS:
        front = sounds.front_end("encode", path, model, front_end)
        frames, rate, pieces = sounds.source(path, front, resample)
        return Vectors((), frames, rate, pieces)
    for option, given in (("--front-end", front_end), ("--resample", resample)):
        if given:
            raise ParameterError(
                f"encode: {option} is for sounds, and {path!r} holds vectors; expected a sound, or "
                f"no {option}."
            )
    if kind == "npz":
        return _npz(path, dim)
    if kind == "csv":
        return _array(text.read(path), dim)
    if kind == "parquet":
        return _parquet(path, model.quantizer, column)
    return _array(files.load(path, "vectors", "f", (2, 3)), dim)


def _parquet(path: str, quantizer: Any, column: str | None) -> Vectors:
    if quantizer.block > 1:
        raise ParameterError(
            f"encode: {path!r} is a Parquet file and the model has strides; expected vectors of "
            "one stream in order, in an .npy file."
        )
    rows, every = parquet.read("encode", path, quantizer.dim, column)
    pieces = ((start, some) for start, some, _ in every)
    return Vectors((), rows, None, lambda block: pieces, every)


def npy(path: str, dim: int) -> Vectors:
    """Return the vectors of an ``.npy`` file."""
    _kind("encode", path)
    return _array(files.load(path, "vectors", "f", (2, 3)), dim)


def whole(
    path: str, front_end: str | None, dim: int | None, rate: int | None, column: str | None = None
) -> tuple[np.ndarray, FrontEnd | None]:
    """Return all vectors of a file for `fit`, mapped where that is possible, and what they are."""
    kind = _kind("fit", path)
    if kind in kinds.SOUNDS:
        return sounds.array(path, front_end, dim, rate)
    if kind == "npz":
        _check_archive(path)
        x = _unpacked(path)
    elif kind == "csv":
        x = text.read(path)
    elif kind == "parquet":
        parts = [some for _, some, _ in parquet.read("fit", path, None, column)[1]]
        x = np.concatenate(parts) if parts else np.empty((0, 1), np.float32)
    else:
        x = files.load(path, "vectors", "f", (2, 3))
    if dim not in (None, x.shape[1]):
        raise ShapeError(
            f"fit: {path!r} holds vectors of dimension {x.shape[1]}, and --dim is {dim}; expected "
            "the same, or no --dim, which is for sounds."
        )
    return x, sounds.named(front_end, x.shape[1], rate)


def _kind(command: str, path: str) -> str:
    kind = inputs.kind(command, path, "vectors")
    if kind in ("unknown", "empty"):  # its reader says what is wrong with it
        return Path(path).suffix.lower()[1:]
    return kind


def _array(x: np.ndarray, dim: int) -> Vectors:
    if x.shape[1] != dim:  # `encode` would raise this for the transposed array
        raise ShapeError(
            f"encode: x has shape {x.shape}; expected (N, {dim}) or (B, {dim}, T), where {dim} is "
            "the dimension of the model."
        )
    batch, frames = ((), len(x)) if x.ndim == 2 else ((len(x),), x.shape[2])

    def pieces(block: int) -> Iterator[tuple[int, np.ndarray]]:
        for rows in files.batches(frames, "encode", block, math.prod(batch)):
            if x.ndim == 2:
                yield rows.start, np.asarray(x[rows])
            else:
                yield rows.start, np.ascontiguousarray(x[:, :, rows].transpose(0, 2, 1))

    return Vectors(batch, frames, None, pieces)


def _npz(path: str, dim: int) -> Vectors:
    """Return the only array of an archive; (N, D) in C order is read in parts."""
    name, shape, fortran, dtype = _check_archive(path)
    if len(shape) != 2 or fortran:
        return _array(_unpacked(path), dim)
    made = _array(np.empty((0, shape[1]), dtype), dim)

    def pieces(block: int) -> Iterator[tuple[int, np.ndarray]]:
        with zipfile.ZipFile(path) as archive, archive.open(name) as member:
            _header(member)
            for rows in files.batches(shape[0], "encode", block):
                with _readable(path):
                    part = _next_rows(member, rows.stop - rows.start, dim, dtype)
                yield rows.start, part

    return made._replace(frames=shape[0], pieces=pieces)


def _check_archive(path: str) -> tuple[str, tuple[int, ...], bool, np.dtype]:
    """Return the name, shape, order and dtype of the only array of an archive."""
    with _readable(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        with archive.open(names[0]) as member:
            shape, fortran, dtype = _header(member)
        claimed, held = math.prod(shape) * dtype.itemsize, archive.getinfo(names[0]).file_size
        if claimed > held:
            raise InputFileError(
                f"{path!r} has {held} bytes of an array; expected {claimed}: it is damaged."
            )
    if len(names) != 1 or dtype.kind != "f" or len(shape) not in (2, 3):
        raise InputFileError(
            f"{path!r} holds {len(names)} arrays, the first {dtype} of shape {shape}; expected one "
            "array of vectors: floating-point numbers of rank 2 or 3."
        )
    return names[0], shape, fortran, dtype


def _unpacked(path: str) -> np.ndarray:
    """Return the only array of an archive, in memory."""
    with _readable(path), open(path, "rb") as file, np.load(file) as loaded:
        array: np.ndarray = loaded[loaded.files[0]]
    return array


def _next_rows(member: Any, count: int, dim: int, dtype: np.dtype) -> np.ndarray:
    content = member.read(count * dim * dtype.itemsize)
    if len(content) < count * dim * dtype.itemsize:
        raise EOFError(f"expected {count} more vectors, got {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(count, dim)


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turn any exception from reading an archive into `InputFileError`."""
    try:
        yield
    except RvqError:
        raise
    except Exception as error:  # archives and headers may raise any exception
        raise InputFileError(f"{path!r} is not a readable .npz file ({error}).") from error


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


@contextlib.contextmanager
def sink(
    out: Output, model: Any, front_end: str | None, batch: tuple[int, ...], frames: int,
    rate: Fraction | None,
) -> Iterator[Put]:  # fmt: skip
    """Yield ``put(first frame, (..., n, D))``; the file is put in its place on success."""
    dim, dtype = model.quantizer.dim, model.quantizer.dtype
    if batch and out.ending in (".csv", ".parquet"):
        raise InputFileError(
            f"{str(out.path)!r} cannot hold vectors of several streams; expected codes (n, N), or "
            "a file name that ends in .npy."
        )
    if out.ending == ".wav":
        front = sounds.front_end("decode", str(out.path), model, front_end)
        with sounds.sink(out.path, front, batch, rate) as put:
            yield put
        return
    if front_end:
        raise ParameterError(
            f"decode: --front-end is for sounds, and {str(out.path)!r} gets vectors; expected the "
            "name of a .wav file, or no --front-end."
        )
    if out.ending == ".csv":
        with text.sink(out.path, dim, dtype) as put:
            yield put
        return
    if out.ending == ".parquet":
        with parquet.vectors_sink("decode", out.path, dim, dtype) as put:
            yield put
        return
    shape = (frames, dim) if not batch else (*batch, dim, frames)
    with files.written(out.path, shape, dtype) as array:

        def put(start: int, x: np.ndarray) -> None:
            if batch:
                array[:, :, start : start + x.shape[1]] = x.transpose(0, 2, 1)
            else:
                array[start : start + len(x)] = x

        yield put
