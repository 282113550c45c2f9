"""The chunks of a file being written: codes are checked, buffered, coded and written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np

from .. import arrays
from ..errors import CodeRangeError, DtypeError, LevelsError, ParameterError, ShapeError
from . import _format, _stages

CODES = 1 << 18  # per stage and chunk: headers and tables are then well below one percent


class Body:
    """The offset of the next chunk, the index so far, and the codes of a chunk not yet full."""

    def __init__(
        self,
        file: BinaryIO,
        header: _format.Header,
        place: int,
        index: list[_format.Chunk],
        chunk_frames: int | None,
        compress: bool,
    ):
        self.file, self.header, self.place, self.index = file, header, place, index
        self.compress = compress
        self.chunk_frames = _chunk_frames(header, chunk_frames)
        self.waiting: list[list[np.ndarray]] = [[] for _ in header.sizes]
        self.frames = 0  # in `waiting`

    def write(self, codes: Any) -> None:
        """Take codes (n_q, ..., T), or a list of stages, and write the chunks that are full."""
        stages, frames = checked(codes, self.header)
        begin = 0
        while begin < frames:
            length = min(frames - begin, self.chunk_frames - self.frames)
            for waiting, stage, stride in zip(
                self.waiting, stages, self.header.strides, strict=True
            ):
                part = stage[..., begin // stride : (begin + length) // stride]
                waiting.append(np.array(part, np.int32))  # a copy: the caller's array may change
            begin, self.frames = begin + length, self.frames + length
            if self.frames == self.chunk_frames:
                self._flush()

    def finish(self, slot: _format.Slot | None) -> _format.Slot:
        """Write the waiting codes and the index; return the slot that points to the index."""
        if self.frames:
            self._flush()
        content = _format.index_bytes(self.index)
        self._put(content)
        generation = slot.generation + 1 if slot else 1
        return _format.Slot(generation, self.place - len(content), len(content))

    def _flush(self) -> None:
        parts = []
        for waiting, size in zip(self.waiting, self.header.sizes, strict=True):
            codes = waiting[0] if len(waiting) == 1 else np.concatenate(waiting, axis=-1)
            parts.append(_stages.to_bytes(codes.reshape(-1), size, self.compress))
        first = self.index[-1].first + self.index[-1].frames if self.index else 0
        begin = self.place
        self._put(_format.chunk_header(self.frames, parts) + b"".join(data for _, data in parts))
        self.index.append(_format.Chunk(begin, self.place, self.frames, first))
        self.waiting = [[] for _ in self.header.sizes]
        self.frames = 0

    def _put(self, content: bytes) -> None:
        self.file.seek(self.place, os.SEEK_SET)
        self.file.write(content)
        self.place += len(content)


def stages_of(codes: Any) -> list[np.ndarray]:
    """Return one array per stage of an array (n, ..., T) or a list of arrays, or raise."""
    codes = arrays.codes_of(codes)
    if hasattr(codes, "shape"):
        codes = arrays.to_numpy(codes)
    elif not isinstance(codes, Iterable):
        raise DtypeError(
            f"write: codes are a {type(codes).__name__}; expected an array (n, ..., T), or a list "
            "with one array per stage."
        )
    if isinstance(codes, np.ndarray) and codes.ndim == 0:
        raise ShapeError("write: codes have shape (); expected (n, ..., T).")
    stages = [arrays.to_numpy(each) for each in codes]
    for q, stage in enumerate(stages):
        if stage.dtype.kind not in "iu":
            raise DtypeError(
                f"write: codes of stage {q} have dtype {stage.dtype}; expected integers."
            )
    return stages


def checked(codes: Any, header: _format.Header) -> tuple[list[np.ndarray], int]:
    """Return one array (..., T / stride) per stage, and T, or raise."""
    stages = stages_of(codes)
    if len(stages) != header.n_q:
        raise LevelsError(
            f"write: codes have {len(stages)} stages; expected {header.n_q}, as the file has. Pass "
            "one size per stage when the file is created."
        )
    frames = stages[0].shape[-1] * header.strides[0] if stages[0].ndim else 0
    for q, (stage, stride) in enumerate(zip(stages, header.strides, strict=True)):
        if frames % header.block or stage.shape != (*header.batch, frames // stride):
            raise ShapeError(
                f"write: codes of stage {q} have shape {stage.shape}; expected "
                f"{(*header.batch, f'T / {stride}')}, where T is a multiple of {header.block} and "
                "the same for all stages."
            )
        size = header.sizes[q]
        if stage.size and not (int(stage.min()) >= -1 and int(stage.max()) < size):
            bad = tuple(int(i) for i in np.argwhere((stage < -1) | (stage >= size))[0])
            raise CodeRangeError(
                f"write: code {int(stage[bad])} at {(q, *bad)} is out of range [0, {size}) of "
                f"stage {q}; expected a code in range, or -1 for a dropped code."
            )
    return stages, frames


def _chunk_frames(header: _format.Header, asked: int | None) -> int:
    if asked is None:
        usual = CODES * min(header.strides) // max(1, header.streams)
        return max(1, usual // header.block) * header.block
    if type(asked) is not int or asked < 1 or asked % header.block:
        raise ParameterError(
            f"write: chunk_frames is {asked!r}; expected a positive multiple of {header.block}."
        )
    return asked
