"""Reading a ``.rvq`` file: any range of frames, any prefix of the levels, and only those bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np

from .. import arguments, checks, composed
from ..errors import BitstreamError, ShapeError
from . import _format, _levels


@dataclass(frozen=True)
class Content:
    """What was read.

    Attributes
    ----------
    codes : numpy.ndarray (n, ..., T), int32, or list of n arrays (..., T / stride)
        A list where levels have strides. -1: dropped.
    sizes, strides : tuple of int
        Words, and frames per code, level by level, of the levels that were read.
    frame_rate : fractions.Fraction or None
        Frames a second.
    """

    codes: Any
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    frame_rate: Fraction | None


class Reader:
    """An open file of codes.

    Parameters
    ----------
    source : str, os.PathLike or binary file
        A file is left open, and read from its beginning.

    Attributes
    ----------
    sizes, strides : tuple of int
        Words, and frames per code, level by level.
    n_q : int
        Levels.
    batch : tuple of int
        The shape between levels and frames: () for one stream.
    frames : int
        T, of every stream.
    frame_rate : fractions.Fraction or None
        Frames a second.
    block : int
        Ranges of frames begin and end at multiples of this.
    chunks : int

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    BitstreamError
        If it is truncated, damaged, or no such file at all.

    Notes
    -----
    Opening reads the header and the index. Memory is bounded by what the file holds, whatever it
    claims: at most 64 codes a byte.

    Examples
    --------
    >>> import io
    >>> import numpy as np
    >>> from rvq_np.bitstream import write
    >>> file = io.BytesIO()
    >>> write(file, np.arange(6).reshape(2, 3), sizes=(8, 8))
    >>> with Reader(file) as reader:
    ...     reader.frames, reader.read(1, start=1, stop=3).codes
    (3, array([[1, 2]], dtype=int32))
    """

    def __init__(self, source: Any):
        self._owned = arguments.is_path("read", "path", source, "rb")
        if self._owned and not Path(source).is_file():
            raise FileNotFoundError(f"read: there is no file {str(source)!r}.")
        self._file: BinaryIO = open(source, "rb") if self._owned else source  # noqa: SIM115
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        self.header, self._start = _format.read_header(self._file)
        self.slots = _format.read_slots(self._file)
        self._start += 2 * _format.SLOT.size
        written = [each for each in self.slots if each is not None]
        if not written:
            raise BitstreamError(
                "read: the file has no index: it was never finished, or is damaged."
            )
        self.slot = max(written, key=lambda each: each.generation)
        block = self.header.block
        self.index = _format.read_index(self._file, self.slot, self._start, self._size, block)

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.header.sizes

    @property
    def strides(self) -> tuple[int, ...]:
        return self.header.strides

    @property
    def n_q(self) -> int:
        return self.header.n_q

    @property
    def batch(self) -> tuple[int, ...]:
        return self.header.batch

    @property
    def frame_rate(self) -> Fraction | None:
        return self.header.frame_rate

    @property
    def block(self) -> int:
        return self.header.block

    @property
    def frames(self) -> int:
        return self.index[-1].first + self.index[-1].frames if self.index else 0

    @property
    def chunks(self) -> int:
        return len(self.index)

    def read(self, n_q: int | None = None, *, start: int = 0, stop: int | None = None) -> Content:
        """Return the codes of the first `n_q` levels, of frames `start` to `stop`; all by default.

        Raises
        ------
        BitstreamError
            If a chunk is damaged.
        LevelsError
            If there are not so many levels.
        ParameterError
            If `start` or `stop` is no whole number from 0.
        ShapeError
            If the range is none of the file's, or cuts through a block.
        """
        n_q = checks.levels("read", self.n_q if n_q is None else n_q, 1, self.n_q)
        start = arguments.integer("read", "start", start)
        stop = self.frames if stop is None else arguments.integer("read", "stop", stop)
        self._check_range(start, stop)
        chosen = [
            each for each in self.index if each.first < stop and start < each.first + each.frames
        ]
        parts = [self._parts(each) for each in chosen]  # nothing is allocated before
        levels = [self._empty((stop - start) // stride) for stride in self.strides[:n_q]]
        for chunk, theirs in zip(chosen, parts, strict=True):
            low, high = max(start, chunk.first), min(stop, chunk.first + chunk.frames)
            for level, codes in enumerate(self._codes(chunk, theirs[:n_q])):
                stride = self.strides[level]
                inside = slice((low - chunk.first) // stride, (high - chunk.first) // stride)
                place = slice((low - start) // stride, (high - start) // stride)
                levels[level][..., place] = codes[..., inside]
        return self._content(levels)

    def __iter__(self) -> Iterator[Content]:
        """Yield the codes of chunk after chunk, so that they need not fit into memory."""
        for chunk in self.index:
            yield self._content(list(self._codes(chunk, self._parts(chunk))))

    def check(self, codebooks: Any, n_q: int | None = None) -> None:
        """Raise BitstreamError unless the first levels are codes of the first of `codebooks`.

        Files that were written without codebooks pass.
        """
        quantizer = composed.of(codebooks)
        n_q = min(self.n_q, quantizer.n_q) if n_q is None else n_q
        if quantizer.n_q < n_q or quantizer.sizes[:n_q] != self.sizes[:n_q]:
            raise BitstreamError(
                f"read: the codes name words of codebooks with sizes {self.sizes[:n_q]}; these "
                f"have {quantizer.sizes[:n_q]}."
            )
        prints = self.header.fingerprints
        if prints and prints[n_q - 1] != fingerprints(quantizer, n_q)[-1]:
            raise BitstreamError(
                "read: the codes are of other codebooks: the fingerprints differ. Decode them with "
                "the model that made them."
            )

    def codes(self, level: int) -> int:
        """Return how many codes a level has, of all streams."""
        level = arguments.whole("codes", "level", level, 0, self.n_q - 1)
        return self.header.streams * (self.frames // self.strides[level])

    def level_bytes(self) -> list[int]:
        """Return how many bytes the codes of each level take."""
        total = [0] * self.n_q
        for chunk in self.index:
            for level, part in enumerate(self._parts(chunk)):
                total[level] += part.length
        return total

    def verify(self) -> None:
        """Read everything, or raise BitstreamError."""
        for _ in self:
            pass

    def close(self) -> None:
        if self._owned:
            self._file.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_range(self, start: int, stop: int) -> None:
        block = self.header.block
        fits = 0 <= start <= stop <= self.frames
        if not fits or start % block or (stop % block and stop != self.frames):
            raise ShapeError(
                f"read: frames {start} to {stop} of {self.frames}; wanted a range of multiples of "
                f"{block}."
            )

    def _parts(self, chunk: _format.Chunk) -> list[_format.Part]:
        """Return where the levels of a chunk are; what they claim has been checked."""
        parts = _format.read_chunk(self._file, self.header, chunk)
        for part, size, stride in zip(parts, self.sizes, self.strides, strict=True):
            count = self.header.streams * (chunk.frames // stride)
            _levels.check(count, part.coding, part.length, size)
        return parts

    def _codes(self, chunk: _format.Chunk, parts: list[_format.Part]) -> Iterator[np.ndarray]:
        """Yield the codes (..., T / stride) of the first levels of a chunk, read in one go."""
        begin, end = parts[0].offset, parts[-1].offset + parts[-1].length
        self._file.seek(begin)
        content = _format.exactly(self._file, end - begin, f"the chunk at byte {chunk.offset}")
        for level, part in enumerate(parts):
            data = content[part.offset - begin : part.offset - begin + part.length]
            if crc32(data) != part.checksum:
                raise BitstreamError(
                    f"read: level {level} of the chunk at byte {chunk.offset} does not have its "
                    "checksum: the file is damaged."
                )
            codes = self._empty(chunk.frames // self.strides[level])
            _levels.from_bytes(data, part.coding, self.sizes[level], codes.reshape(-1))
            yield codes

    def _empty(self, length: int) -> np.ndarray:
        try:
            return np.empty((*self.batch, length), np.int32)
        except ValueError as error:  # no stream at all, of more frames than an array can have
            raise BitstreamError(f"read: no array can hold {length} frames of nothing.") from error

    def _content(self, levels: list[np.ndarray]) -> Content:
        n_q = len(levels)
        codes: Any = levels if max(self.strides) > 1 else np.stack(levels)
        return Content(codes, self.sizes[:n_q], self.strides[:n_q], self.frame_rate)


def fingerprints(quantizer: Any, n_q: int) -> tuple[bytes, ...]:
    """Return what tells the first level, the first two, and so on, from other codebooks."""
    return tuple(bytes.fromhex(each)[: _format.PRINT] for each in quantizer.fingerprints[:n_q])
