"""Reading and writing codes in parts: ``.rvq``, ``.npy``, and ``.npz`` for strides."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import bitstream
from ..codec import validation
from . import files

Put = Callable[[int, Any], None]


class Codes(NamedTuple):
    """The codes of a file: ``pieces()`` yields (first frame, codes as for `rvq_np.decode`)."""

    batch: tuple[int, ...]
    frames: int
    rate: Fraction | None
    pieces: Callable[[], Iterator[tuple[int, Any]]]


def is_container(path: str) -> bool:
    return Path(path).suffix == ".rvq"


def source(path: str, quantizer: Any) -> Codes:
    """Return the codes of a file, checked to be codes of `quantizer`."""
    if is_container(path):
        with bitstream.Reader(path) as reader:
            reader.check(quantizer)
            reader.stage_bytes()  # checks the chunk headers before the output is created
            batch, frames, rate = reader.batch, reader.frames, reader.frame_rate

        def read() -> Iterator[tuple[int, Any]]:
            with bitstream.Reader(path) as reader:
                start = 0
                for content in reader:
                    yield start, content.codes
                    start += _frames(content.codes, content.strides)

        return Codes(batch, frames, rate, read)
    if quantizer.block > 1:
        listed = validation.listed("decode", files.load_stages(path), quantizer, None)
        stages = validation.ragged("decode", listed, quantizer)
        frames = _frames(stages, quantizer.strides)
        return Codes(stages[0].shape[:-1], frames, None, lambda: iter([(0, stages)]))
    codes = files.load(path, "codes", "iu", (2, 3))

    def pieces() -> Iterator[tuple[int, Any]]:
        for rows in files.batches(codes.shape[-1], "decode", 1, math.prod(codes.shape[1:-1])):
            yield rows.start, np.asarray(codes[..., rows])

    return Codes(codes.shape[1:-1], codes.shape[-1], None, pieces)


def whole(path: str, quantizer: Any) -> np.ndarray:
    """Return all codes (Q, N) of a file, of all streams one after another."""
    found = source(path, quantizer)
    parts = [np.asarray(some) for _, some in found.pieces()]
    codes = np.concatenate(parts, axis=-1) if parts else np.empty((quantizer.n_q, 0), np.int32)
    return codes.reshape(len(codes), -1)


@contextlib.contextmanager
def sink(
    path: str, quantizer: Any, batch: tuple[int, ...], frames: int, rate: Any
) -> Iterator[Put]:
    """Yield ``put(first frame, codes)``; the file is put in its place on success."""
    files.check_folder(path)
    if is_container(path):
        with bitstream.Writer(path, batch=batch, frame_rate=rate, codebooks=quantizer) as writer:
            yield lambda start, codes: writer.write(codes)
    elif quantizer.block > 1:
        files.check_npz(path)
        stages = [np.empty((*batch, frames // stride), np.int32) for stride in quantizer.strides]

        def keep(start: int, codes: Any) -> None:
            for stage, part, stride in zip(stages, codes, quantizer.strides, strict=True):
                begin = start // stride
                stage[..., begin : begin + part.shape[-1]] = part

        yield keep
        files.write_stages(path, stages)
    else:
        with files.written(path, (quantizer.n_q, *batch, frames), np.int32) as out:

            def put(start: int, codes: Any) -> None:
                out[..., start : start + codes.shape[-1]] = codes

            yield put


def _frames(codes: Any, strides: tuple[int, ...]) -> int:
    return int(codes[0].shape[-1]) * strides[0]
