"""The chunks of a file that is being written: codes are checked, gathered, coded and put down."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np

from .. import arrays
from ..errors import CodeRangeError, DtypeError, LevelsError, ParameterError, ShapeError
from . import _format, _levels

CODES = 1 << 18  # of a level in a chunk: then headers and tables are well below one percent


class Body:
    """Where the next chunk goes, the index so far, and codes that wait for a chunk to be full."""

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
        self.frames = 0  # that wait

    def write(self, codes: Any) -> None:
        """Take codes (n_q, ..., T), or a list of levels, and write the chunks that are full."""
        levels, frames = checked(codes, self.header)
        begin = 0
        while begin < frames:
            room = min(frames - begin, self.chunk_frames - self.frames)
            for waiting, level, stride in zip(
                self.waiting, levels, self.header.strides, strict=True
            ):
                some = level[..., begin // stride : (begin + room) // stride]
                waiting.append(np.array(some, np.int32))  # the caller's array may change
            begin, self.frames = begin + room, self.frames + room
            if self.frames == self.chunk_frames:
                self._flush()

    def finish(self, slot: _format.Slot | None) -> _format.Slot:
        """Write what waits and the index; return what its slot has to say."""
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
            parts.append(_levels.to_bytes(codes.reshape(-1), size, self.compress))
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


def levels_of(codes: Any) -> list[np.ndarray]:
    """Return one array a level of what is an array (n, ..., T) or a list of arrays, or raise."""
    if hasattr(codes, "shape"):
        codes = arrays.to_numpy(codes)
    elif not isinstance(codes, Iterable):
        raise DtypeError(
            f"write: codes are a {type(codes).__name__}; expected an array (n, ..., T), or a list "
            "with one array a level."
        )
    if isinstance(codes, np.ndarray) and codes.ndim == 0:
        raise ShapeError("write: codes have shape (); expected (n, ..., T).")
    levels = [arrays.to_numpy(each) for each in codes]
    for q, level in enumerate(levels):
        if level.dtype.kind not in "iu":
            raise DtypeError(
                f"write: codes of level {q} have dtype {level.dtype}; wanted integers."
            )
    return levels


def checked(codes: Any, header: _format.Header) -> tuple[list[np.ndarray], int]:
    """Return one array (..., T / stride) a level, and T, or raise."""
    levels = levels_of(codes)
    if len(levels) != header.n_q:
        raise LevelsError(
            f"write: codes have {len(levels)} levels, the file has {header.n_q}. Give sizes for "
            "the levels there are."
        )
    frames = levels[0].shape[-1] * header.strides[0] if levels[0].ndim else 0
    for q, (level, stride) in enumerate(zip(levels, header.strides, strict=True)):
        if frames % header.block or level.shape != (*header.batch, frames // stride):
            raise ShapeError(
                f"write: codes of level {q} have shape {level.shape}; wanted "
                f"{(*header.batch, 'T')} / {stride} frames a code, T a multiple of {header.block} "
                "and the same for all levels."
            )
        size = header.sizes[q]
        if level.size and not (int(level.min()) >= -1 and int(level.max()) < size):
            bad = tuple(int(i) for i in np.argwhere((level < -1) | (level >= size))[0])
            raise CodeRangeError(
                f"write: code {int(level[bad])} at {(q, *bad)} names no word; wanted 0 to "
                f"{size - 1}, or -1 for dropped."
            )
    return levels, frames


def _chunk_frames(header: _format.Header, asked: int | None) -> int:
    if asked is None:
        usual = CODES * min(header.strides) // max(1, header.streams)
        return max(1, usual // header.block) * header.block
    if type(asked) is not int or asked < 1 or asked % header.block:
        raise ParameterError(
            f"write: chunk_frames is {asked!r}; wanted a multiple of {header.block} from it on."
        )
    return asked
