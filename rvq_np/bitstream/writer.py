"""Writing a ``.rvq`` file in chunks, and appending to one; a crash does not damage existing files.

A new file is written under a temporary name beside its path and renamed when it is complete.
Appending writes chunks and a new index after all existing bytes, and then the offset of that index
into one of the two slots after the header; if it stops before that, the file has its old content.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from numbers import Rational
from typing import Any

from .. import arguments
from ..codebooks import composed
from ..errors import ParameterError
from ..files.atomic import NewFile
from . import _format
from ._body import Body, checked
from .reader import Reader, fingerprints


class Writer:
    """Write a file of codes incrementally, chunk by chunk.

    Parameters
    ----------
    target : str, os.PathLike or binary file
        A path is written atomically: until `close` there is no file, or the old file. A file object
        must support seek; it is written from its beginning and left open.
    sizes : sequence of int, optional
        Codebook size of each stage; by default those of `codebooks`.
    batch : sequence of int, optional
        The shape between stages and frames: () for one stream.
    strides : sequence of int, optional
        Frames per code, of each stage; by default those of `codebooks`, or 1.
    frame_rate : int, float, fractions.Fraction or (int, int), optional
        Frames, that is vectors, per second; a pair is an exact fraction: (44100, 512).
    codebooks : Codebooks, Composed or array (Q, K, D), optional
        The codebooks of the codes. Their fingerprints are stored, so that decoding with other
        codebooks is an error.
    chunk_frames : int, optional
        Frames per chunk, the smallest part that can be read. By default about 260 000 codes per
        stage, which keeps the overhead well below one percent.
    compress : bool, optional
        Range code a stage of a chunk where that is smaller. True by default.

    Raises
    ------
    ParameterError
        If an argument is invalid.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import io
    >>> import numpy as np
    >>> file = io.BytesIO()
    >>> with Writer(file, sizes=(1024, 1024), frame_rate=75) as writer:
    ...     for _ in range(3):
    ...         writer.write(np.zeros((2, 100), np.int32))
    >>> Reader(file).frames
    300
    """

    def __init__(
        self,
        target: Any,
        *,
        sizes: Sequence[int] | None = None,
        batch: Sequence[int] = (),
        strides: Sequence[int] | None = None,
        frame_rate: Any = None,
        codebooks: Any = None,
        chunk_frames: int | None = None,
        compress: bool = True,
    ):
        arguments.is_path("write", "path", target, "wb")
        compress = arguments.flag("write", "compress", compress)
        header = header_of(sizes, batch, strides, frame_rate, codebooks)
        content = header.to_bytes()
        self._slots = len(content)
        body = self._slots + 2 * _format.SLOT.size
        self._body = Body(target, header, body, [], chunk_frames, compress)
        self._new = NewFile(target) if isinstance(target, (str, os.PathLike)) else None
        if self._new is not None:
            self._body.file = self._new.file
        try:
            self._body.file.seek(0)
            self._body.file.write(content + bytes(2 * _format.SLOT.size))
        except BaseException:
            self.discard()
            raise

    def write(self, codes: Any) -> None:
        """Write codes (n_q, ..., T), or a list of (..., T / stride), T any multiple of the block.

        Raises
        ------
        DtypeError, ShapeError, LevelsError, CodeRangeError
            If the codes do not fit the file. None of them are written.
        OSError
            If the file cannot be written.
        """
        self._body.write(codes)

    def close(self) -> None:
        """Write the remaining codes and the index, and move the file to its path."""
        try:
            slot = self._body.finish(None)
            self._body.file.seek(self._slots)
            self._body.file.write(2 * slot.to_bytes())
        except BaseException:
            self.discard()
            raise
        if self._new is not None:
            self._new.commit()

    def discard(self) -> None:
        """Delete what was written; an existing file at the path is kept."""
        if self._new is not None:
            self._new.discard()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def append(
    target: Any, codes: Any, *, chunk_frames: int | None = None, compress: bool = True
) -> None:
    """Add frames to a file, in place.

    Parameters
    ----------
    target : str, os.PathLike or binary file
        A file object must be open for reading and writing.
    codes : array (n_q, ..., T), integer, or list of (..., T / stride)
        They must have as many stages and streams as the file.
    chunk_frames, compress
        As in `Writer`. Each call begins a new chunk, so append many frames at once.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    BitstreamError
        If it is damaged.
    DtypeError, ShapeError, LevelsError, CodeRangeError
        If the codes do not fit the file. The file is unchanged.
    OSError
        If the file cannot be written. It still holds its old frames.

    Notes
    -----
    One process may append at a time.
    """
    compress = arguments.flag("append", "compress", compress)
    if arguments.is_path("append", "target", target, "r+b"):
        Reader(target).close()  # append does not create a file
        with open(target, "r+b") as file:
            append(file, codes, chunk_frames=chunk_frames, compress=compress)
            return
    with Reader(target) as reader:
        pass
    checked(codes, reader.header)
    begin = reader.slot.offset + reader.slot.length
    body = Body(target, reader.header, begin, list(reader.index), chunk_frames, compress)
    body.write(codes)
    slot = body.finish(reader.slot)
    target.truncate(body.place)
    _durable(target)
    places = [len(reader.header.to_bytes()) + n * _format.SLOT.size for n in range(2)]
    older = reader.slots.index(reader.slot) ^ 1
    for which in (older, older ^ 1):  # one of them is complete at any time
        target.seek(places[which])
        target.write(slot.to_bytes())
        _durable(target)


def header_of(
    sizes: Any, batch: Any, strides: Any, frame_rate: Any, codebooks: Any
) -> _format.Header:
    """Return the header of a new file, or raise ParameterError."""
    prints: tuple[bytes, ...] = ()
    if codebooks is not None:
        quantizer = composed.of(codebooks)
        sizes = quantizer.sizes if sizes is None else tuple(sizes)
        own = quantizer.strides[: len(sizes)]
        strides = own if strides is None else tuple(strides)
        if sizes != quantizer.sizes[: len(sizes)] or strides != own:
            raise ParameterError(
                f"write: sizes are {sizes} and strides {strides}; expected those of codebooks, "
                f"{quantizer.sizes} and {quantizer.strides}. Omit both."
            )
        prints = fingerprints(quantizer, len(sizes))
    if sizes is None:
        raise ParameterError("write: got neither sizes nor codebooks; expected one of them.")
    if not isinstance(sizes, Iterable) and not hasattr(sizes, "shape"):
        raise ParameterError(f"write: sizes is {sizes}; expected a sequence of one size per stage.")
    strides = (1,) * len(sizes) if strides is None else strides
    try:
        sizes, strides, batch = (tuple(map(_whole, each)) for each in (sizes, strides, batch))
    except (ValueError, TypeError, OverflowError) as error:
        raise ParameterError(
            f"write: sizes, strides and batch must be sequences of integers: {error}."
        ) from error
    try:
        header = _format.Header(sizes, strides, batch, _rate(frame_rate), prints)
        _format.check(header)
    except ValueError as error:
        raise ParameterError(f"write: {error}.") from error
    return header


def _rate(rate: Any) -> Fraction | None:
    if rate is None:
        return None
    try:
        pair = rate if isinstance(rate, tuple) else (rate,)
        exact = Fraction(*map(_exact, pair))
    except (ValueError, TypeError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"frame_rate is {rate!r}; expected a positive number or a pair") from error
    if exact <= 0:
        raise ValueError(f"frame_rate must be positive, got {rate}")
    if max(exact.numerator, exact.denominator) >= 1 << 64:
        raise ValueError(f"frame_rate must be a fraction of numbers below 2^64, got {rate}")
    return exact


def _whole(value: Any) -> int:
    found = arguments.whole_of(value)
    if found is None:
        raise TypeError(f"{value!r} is none")
    return found


def _exact(value: Any) -> Any:
    """Return what `Fraction` takes for a number, without rounding it."""
    if isinstance(value, (Rational, Decimal, str)):
        return value
    if arguments.real_of(value) is None:
        raise TypeError("no real number")
    return arguments.plain(value)


def _durable(file: Any) -> None:
    file.flush()
    if hasattr(file, "fileno"):
        try:
            os.fsync(file.fileno())
        except ValueError:  # a file in memory; io.UnsupportedOperation is a ValueError
            return
