"""Reading and writing vectors in parts: ``.npy``, ``.npz`` and ``.wav``.

An array is (N, D), or (B, D, T) for B streams.  A WAV file is one stream, split into consecutive
frames of D samples; the last one is padded with zeros.
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
from ..files.atomic import NewFile
from . import files, inputs
from .outputs import Output

Put = Callable[[int, np.ndarray], None]


class Vectors(NamedTuple):
    """The vectors of a file: ``pieces(block)`` yields (first frame, (..., n, D))."""

    batch: tuple[int, ...]
    frames: int
    rate: Fraction | None  # vectors per second
    pieces: Callable[[int], Iterator[tuple[int, np.ndarray]]]


def source(path: str, dim: int) -> Vectors:
    """Return the vectors of a file, of length `dim`."""
    kind = inputs.kind("encode", path, "vectors")
    if kind in ("unknown", "empty"):  # its reader says what is wrong with it
        kind = Path(path).suffix.lower()[1:]
    if kind in kinds.SOUNDS:
        return _wav(path, dim)
    if kind == "npz":
        return _npz(path, dim)
    return _array(files.load(path, "vectors", "f", (2, 3)), dim)


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
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path!r}.")
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
    if len(shape) != 2 or fortran:
        with _readable(path), open(path, "rb") as file, np.load(file) as loaded:
            array = loaded[loaded.files[0]]
        return _array(array, dim)
    made = _array(np.empty((0, shape[1]), dtype), dim)

    def pieces(block: int) -> Iterator[tuple[int, np.ndarray]]:
        with zipfile.ZipFile(path) as archive, archive.open(names[0]) as member:
            _header(member)
            for rows in files.batches(shape[0], "encode", block):
                with _readable(path):
                    part = _next_rows(member, rows.stop - rows.start, dim, dtype)
                yield rows.start, part

    return made._replace(frames=shape[0], pieces=pieces)


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


def _wav(path: str, dim: int) -> Vectors:
    from ..files import wav

    samples, rate = wav.length(path)

    def pieces(block: int) -> Iterator[tuple[int, np.ndarray]]:
        frames = -(-samples // dim)
        with wav.opened(path) as read:
            for rows in files.batches(frames, "encode", block):
                x = np.zeros(((rows.stop - rows.start) * dim), np.float32)
                found = read(len(x))
                x[: len(found)] = found
                yield rows.start, x.reshape(-1, dim)

    return Vectors((), -(-samples // dim), Fraction(rate, dim), pieces)


@contextlib.contextmanager
def sink(
    out: Output, batch: tuple[int, ...], frames: int, dim: int, dtype: Any, rate: Fraction | None
) -> Iterator[Put]:
    """Yield ``put(first frame, (..., n, D))``; the file is put in its place on success."""
    if out.ending == ".wav":
        with _wav_sink(out.path, batch, dim, rate) as put:
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


@contextlib.contextmanager
def _wav_sink(path: Any, batch: tuple[int, ...], dim: int, rate: Fraction | None) -> Iterator[Put]:
    from ..files import wav

    samples = None if rate is None else rate * dim
    if batch or samples is None or samples.denominator != 1:
        raise ParameterError(
            f"decode: a WAV file, {str(path)!r}, holds one stream with a known frame rate; got "
            f"streams of shape {batch} at {rate} frames per second. Write .npy."
        )
    with NewFile(path) as new, wav.writing(new.file, int(samples)) as write:
        yield lambda start, x: write(x.reshape(-1))
