"""Reading a ``.rvq`` file: any range of frames, any number of first stages, only those bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np

from .. import arguments, arrays
from ..codebooks import Quantizer, composed
from ..codec import validation
from ..errors import BitstreamError, ShapeError
from ..files import kinds
from . import _format, _stages


@dataclass(frozen=True)
class Content(arrays.WithCodes):
    """The codes that were read, with the sizes and strides of their stages.

    Attributes
    ----------
    codes : numpy.ndarray (n, ..., T), int32, or list of n arrays (..., T / stride)
        A list where stages have strides. -1: dropped.
    sizes, strides : tuple of int
        Codebook size and frames per code, of each stage that was read.
    frame_rate : fractions.Fraction or None
        Frames per second.
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
        A file object is read from its beginning, and left open.

    Attributes
    ----------
    sizes, strides : tuple of int
        Codebook size and frames per code, of each stage.
    n_q : int
        Number of stages.
    batch : tuple of int
        The shape between stages and frames: () for one stream.
    frames : int
        T, the frames of each stream.
    frame_rate : fractions.Fraction or None
        Frames per second.
    block : int
        A range of frames must begin and end at multiples of this.
    chunks : int
        Number of chunks.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    BitstreamError
        If it is truncated, damaged, or of another format.

    Notes
    -----
    Opening reads the header and the index. Memory is bounded by the size of the file, also for a
    damaged file: at most 64 codes per byte.

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
        if self._owned and not Path(source).exists():
            raise FileNotFoundError(f"read: there is no file {str(source)!r}.")
        if self._owned:
            kind = kinds.of(source)
            if kind.name not in ("rvq", "unknown"):
                raise BitstreamError(f"read: {str(source)!r} is {kind.said}, not an .rvq file.")
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
                "read: the file has no index: writing it was never finished, or it is damaged."
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
        """Return the codes of the first `n_q` stages, of frames `start` to `stop`; all by default.

        Raises
        ------
        BitstreamError
            If a chunk is damaged.
        LevelsError
            If the file has fewer than `n_q` stages.
        ParameterError
            If `start` or `stop` is not an integer >= 0.
        ShapeError
            If the range is not within the file, or cuts through a block.
        """
        n_q = validation.stage_count("read", self.n_q if n_q is None else n_q, 1, self.n_q)
        start = arguments.integer("read", "start", start)
        stop = self.frames if stop is None else arguments.integer("read", "stop", stop)
        self._check_range(start, stop)
        chosen = [
            each for each in self.index if each.first < stop and start < each.first + each.frames
        ]
        parts = [self._parts(each) for each in chosen]  # checked before memory is allocated
        stages = [self._empty((stop - start) // stride) for stride in self.strides[:n_q]]
        for chunk, theirs in zip(chosen, parts, strict=True):
            low, high = max(start, chunk.first), min(stop, chunk.first + chunk.frames)
            for q, codes in enumerate(self._codes(chunk, theirs[:n_q])):
                stride = self.strides[q]
                inside = slice((low - chunk.first) // stride, (high - chunk.first) // stride)
                place = slice((low - start) // stride, (high - start) // stride)
                stages[q][..., place] = codes[..., inside]
        return self._content(stages)

    def __iter__(self) -> Iterator[Content]:
        """Yield the codes chunk by chunk, for files that do not fit into memory."""
        for chunk in self.index:
            yield self._content(list(self._codes(chunk, self._parts(chunk))))

    def check(self, codebooks: Any, n_q: int | None = None) -> None:
        """Raise BitstreamError unless the first stages are codes of the first of `codebooks`.

        A file that was written without codebooks passes the check.
        """
        quantizer = composed.of(codebooks)
        n_q = min(self.n_q, quantizer.n_q) if n_q is None else n_q
        if quantizer.n_q < n_q or quantizer.sizes[:n_q] != self.sizes[:n_q]:
            raise BitstreamError(
                f"read: the file has codes of codebooks with sizes {self.sizes[:n_q]}; got "
                f"codebooks with sizes {quantizer.sizes[:n_q]}. Decode with the model that encoded "
                "them."
            )
        prints = self.header.fingerprints
        if prints and prints[n_q - 1] != fingerprints(quantizer, n_q)[-1]:
            raise BitstreamError(
                "read: the codes are of other codebooks: the fingerprints differ. Decode with the "
                "model that encoded them."
            )

    def codes(self, stage: int) -> int:
        """Return how many codes stage `stage` has in all streams together."""
        stage = arguments.whole("codes", "stage", stage, 0, self.n_q - 1)
        return self.header.streams * (self.frames // self.strides[stage])

    def stage_bytes(self) -> list[int]:
        """Return how many bytes the codes of each stage take."""
        total = [0] * self.n_q
        for chunk in self.index:
            for q, part in enumerate(self._parts(chunk)):
                total[q] += part.length
        return total

    def verify(self) -> None:
        """Read all codes and check every checksum, or raise BitstreamError."""
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
                f"read: start is {start} and stop is {stop}; expected multiples of {block} with "
                f"0 <= start <= stop <= {self.frames}."
            )

    def _parts(self, chunk: _format.Chunk) -> list[_format.Part]:
        """Return where the stages of a chunk are; their lengths have been checked."""
        parts = _format.read_chunk(self._file, self.header, chunk)
        for part, size, stride in zip(parts, self.sizes, self.strides, strict=True):
            count = self.header.streams * (chunk.frames // stride)
            _stages.check(count, part.coding, part.length, size)
        return parts

    def _codes(self, chunk: _format.Chunk, parts: list[_format.Part]) -> Iterator[np.ndarray]:
        """Yield the codes (..., T / stride) of the first stages of a chunk, by one read."""
        begin, end = parts[0].offset, parts[-1].offset + parts[-1].length
        self._file.seek(begin)
        content = _format.exactly(self._file, end - begin, f"the chunk at byte {chunk.offset}")
        for q, part in enumerate(parts):
            data = content[part.offset - begin : part.offset - begin + part.length]
            if crc32(data) != part.checksum:
                raise BitstreamError(
                    f"read: the checksum of stage {q} of the chunk at byte {chunk.offset} does not "
                    "match: the file is damaged."
                )
            codes = self._empty(chunk.frames // self.strides[q])
            _stages.from_bytes(data, part.coding, self.sizes[q], codes.reshape(-1))
            yield codes

    def _empty(self, length: int) -> np.ndarray:
        try:
            return np.empty((*self.batch, length), np.int32)
        except ValueError as error:  # zero streams, of more frames than an array can have
            raise BitstreamError(
                f"read: no array can have {length} frames: the file is damaged."
            ) from error

    def _content(self, stages: list[np.ndarray]) -> Content:
        n_q = len(stages)
        codes: Any = stages if max(self.strides) > 1 else np.stack(stages)
        return Content(codes, self.sizes[:n_q], self.strides[:n_q], self.frame_rate)


def fingerprints(quantizer: Quantizer, n_q: int) -> tuple[bytes, ...]:
    """Return the fingerprints of the first stage, of the first two, and so on."""
    return tuple(
        bytes.fromhex(each)[: _format.FINGERPRINT_BYTES] for each in quantizer.fingerprints[:n_q]
    )
