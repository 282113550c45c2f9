"""Reading and writing codes in parts: ``.rvq``, ``.npy``, ``.npz``, ``.csv`` and ``.parquet``.

Stages with strides have codes of several lengths, which only ``.rvq`` and ``.npz`` can hold.  A
``.csv`` file has a line for each vector and a column for each stage, a ``.parquet`` file a row for
each vector, with a list in the column ``codes``.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from .. import bitstream
from ..codebooks import Quantizer
from ..codec import validation
from ..errors import CodeRangeError, InputFileError, LevelsError, ShapeError
from ..files.atomic import NewFile
from . import files, inputs, parquet, terminal
from .outputs import Output

Put = Callable[[int, Any], None]


class Codes(NamedTuple):
    """The codes of a file: ``pieces()`` yields (first frame, codes as for `rvq_np.decode`)."""

    n_q: int
    batch: tuple[int, ...]
    frames: int
    rate: Fraction | None
    pieces: Callable[[], Iterator[tuple[int, Any]]]


def kind(command: str, path: str, what: str = "codes") -> str:
    """Return "rvq", "npy", "npz", "csv" or "parquet": by the content or the name."""
    ending = os.path.splitext(path)[1].lower()
    found = inputs.kind(command, path, what)
    if found in ("unknown", "empty"):
        return ending[1:] if ending in (".rvq", ".npz", ".csv", ".parquet") else "npy"
    return found


@contextlib.contextmanager
def named(path: str, start: int = 0) -> Iterator[None]:
    """Let errors about codes name their file, and the frame that places in the error count from."""
    try:
        yield
    except (CodeRangeError, LevelsError, ShapeError) as error:
        counted = f", counted from frame {start}" if start else ""
        raise type(error)(f"{error} That is in {path!r}{counted}.") from error


def source(command: str, path: str, quantizer: Quantizer, column: str | None = None) -> Codes:
    """Return the codes of a file.

    Those of ``.rvq`` files and of stages with strides are checked to be codes of `quantizer`.
    """
    found = kind(command, path)
    if found == "rvq":
        return _container(command, path, quantizer)
    if found == "npz" or quantizer.block > 1:
        listed = validation.listed(command, files.load_stages(path), quantizer, None)
        stages = validation.ragged(command, listed, quantizer)
        frames = _frames(stages, quantizer.strides)
        whole = stages if quantizer.block > 1 else np.stack(stages)
        return Codes(len(stages), stages[0].shape[:-1], frames, None, lambda: iter([(0, whole)]))
    if found == "parquet":
        codes = parquet.read_codes(command, path, column)
    else:
        codes = _csv(path) if found == "csv" else files.load(path, "codes", "iu", (2, 3))

    def pieces() -> Iterator[tuple[int, Any]]:
        for rows in files.batches(codes.shape[-1], command, 1, math.prod(codes.shape[1:-1])):
            yield rows.start, np.asarray(codes[..., rows])

    return Codes(len(codes), codes.shape[1:-1], codes.shape[-1], None, pieces)


def whole(command: str, path: str, quantizer: Quantizer) -> np.ndarray:
    """Return all codes (Q, N) of a file, of all streams one after another."""
    if quantizer.block > 1:
        raise InputFileError(
            f"{command}: the stages have strides {quantizer.strides}, so the codes of {path!r} "
            "are of several lengths; expected one length."
        )
    found = source(command, path, quantizer)
    parts = [np.asarray(some) for _, some in found.pieces()]
    codes = np.concatenate(parts, axis=-1) if parts else np.empty((found.n_q, 0), np.int32)
    return codes.reshape(len(codes), -1)


def _container(command: str, path: str, quantizer: Any) -> Codes:
    with bitstream.Reader(path) as reader:
        reader.check(quantizer)
        reader.stage_bytes()  # checks the chunk headers before the output is created
        n_q, batch, frames, rate = reader.n_q, reader.batch, reader.frames, reader.frame_rate

    def read() -> Iterator[tuple[int, Any]]:
        with bitstream.Reader(path) as reader:
            start = 0
            for content in terminal.shown(reader, command, reader.chunks, "chunk"):
                yield start, content.codes
                start += _frames(content.codes, content.strides)

    return Codes(n_q, batch, frames, rate, read)


def _csv(path: str) -> np.ndarray:
    try:
        with open(path, encoding="utf-8-sig") as file:
            titles = file.readline()
            place = 0 if all(_is_whole(each) for each in titles.split(",")) else 1
            lines = [*([titles] if place == 0 else []), *file]
        if not titles.strip():
            raise ValueError("its first line is empty")
        if any(each.strip() for each in lines):
            rows = np.loadtxt(lines, np.int64, delimiter=",", ndmin=2)
        else:
            rows = np.empty((0, titles.count(",") + 1), np.int64)
    except Exception as error:  # of any kind, for damaged text
        raise InputFileError(
            f"{path!r} is not a .csv file of codes ({error}); expected a line per vector, a whole "
            "number per stage."
        ) from error
    return rows.T


def _is_whole(text: str) -> bool:
    return text.strip().removeprefix("-").isdigit()


@contextlib.contextmanager
def sink(
    out: Output, quantizer: Quantizer, batch: tuple[int, ...], frames: int, rate: Any
) -> Iterator[Put]:
    """Yield ``put(first frame, codes)``; the file is put in its place on success."""
    if out.ending == ".rvq":
        with bitstream.Writer(
            out.path, batch=batch, frame_rate=rate, codebooks=quantizer
        ) as writer:
            yield lambda start, codes: writer.write(codes)
    elif out.ending in (".csv", ".parquet"):
        _refuse_several(out, quantizer, batch)
        with (_csv_sink if out.ending == ".csv" else _parquet_sink)(out, quantizer) as write:
            yield write
    elif out.ending == ".npz":
        stages = [np.empty((*batch, frames // stride), np.int32) for stride in quantizer.strides]

        def keep(start: int, codes: Any) -> None:
            for stage, part, stride in zip(stages, codes, quantizer.strides, strict=True):
                begin = start // stride
                stage[..., begin : begin + part.shape[-1]] = part

        yield keep
        files.write_stages(out.path, stages)
    else:
        _refuse_strides(out, quantizer)
        with files.written(out.path, (quantizer.n_q, *batch, frames), np.int32) as array:

            def put(start: int, codes: Any) -> None:
                array[..., start : start + codes.shape[-1]] = codes

            yield put


@contextlib.contextmanager
def _csv_sink(out: Output, quantizer: Any) -> Iterator[Put]:
    with NewFile(out.path) as new:
        titles = ",".join(f"stage_{q}" for q in range(quantizer.n_q))
        new.file.write(f"{titles}\n".encode())
        yield lambda start, codes: np.savetxt(new.file, codes.T, "%d", ",")


@contextlib.contextmanager
def _parquet_sink(out: Output, quantizer: Any) -> Iterator[Put]:
    with parquet.codes_sink("encode", None, out.path, quantizer, None) as put:
        yield lambda start, codes: put(start, codes, None)


def _refuse_several(out: Output, quantizer: Any, batch: tuple[int, ...]) -> None:
    _refuse_strides(out, quantizer)
    if batch:
        raise InputFileError(
            f"{str(out.path)!r} cannot hold codes of several streams; expected vectors (N, D), or "
            "a file name that ends in .rvq or .npy."
        )


def _refuse_strides(out: Output, quantizer: Any) -> None:
    if quantizer.block > 1:
        raise InputFileError(
            f"{str(out.path)!r} cannot hold codes of stages with strides; expected a file name "
            "that ends in .rvq or .npz."
        )


def _frames(codes: Any, strides: tuple[int, ...]) -> int:
    return int(codes[0].shape[-1]) * strides[0]
