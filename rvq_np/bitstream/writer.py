"""Writing a ``.rvq`` file in chunks, and appending to one; what was there survives a crash.

A new file is written beside its place and renamed when it is whole.  Appending writes chunks and a
new index behind everything there is, and only then, in one of the two slots of the header, where
that index is; until then, and if it never comes to that, the file is what it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from .. import arguments, composed
from ..errors import ParameterError
from ..newfile import NewFile
from . import _format
from ._body import Body, checked
from .reader import Reader, fingerprints


class Writer:
    """A file that is written as codes come, chunk by chunk.

    Parameters
    ----------
    target : str, os.PathLike or binary file
        A path is written atomically: there is no file, or the old one, until `close`. A file must
        be able to seek; it is written from its beginning and left open.
    sizes : sequence of int, optional
        Words per level; by default those of `codebooks`.
    batch : sequence of int, optional
        The shape between levels and frames: () for one stream.
    strides : sequence of int, optional
        Frames per code, level by level; by default those of `codebooks`, or 1.
    frame_rate : int, float, fractions.Fraction or (int, int), optional
        Frames, that is vectors, a second; a pair is a fraction: (44100, 512) is kept as it is.
    codebooks : Codebooks, Composed or array (Q, K, D), optional
        Whose words the codes name. Their fingerprints go into the file, so that it is not decoded
        with others.
    chunk_frames : int, optional
        Frames per chunk: what is read to get at one of them. By default about 260 000 codes a
        level, which keeps the overhead well below one percent.
    compress : bool, optional
        Range code a level of a chunk where that is smaller. True by default.

    Raises
    ------
    ParameterError
        If an argument cannot be.
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
            If they are no such codes. Nothing of them is written.
        OSError
            If they cannot be written.
        """
        self._body.write(codes)

    def close(self) -> None:
        """Write what waits, and the index; only now the file is in its place."""
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
        """Give up what was written; the file that was there before stays."""
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
        A file that can be read and written.
    codes : array (n_q, ..., T), integer, or list of (..., T / stride)
        As the file has them.
    chunk_frames, compress
        As in `Writer`. What is appended begins a chunk of its own, so append much at once.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    BitstreamError
        If it is damaged.
    DtypeError, ShapeError, LevelsError, CodeRangeError
        If they are no such codes. The file is what it was.
    OSError
        If it cannot be written. The file holds what it held before.

    Notes
    -----
    One process may append at a time.
    """
    if arguments.is_path("append", "target", target, "r+b"):
        Reader(target).close()  # a missing file is not made
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
    for which in (older, older ^ 1):  # one of them is whole at any time
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
                f"write: sizes are {sizes} and strides {strides}, those of the codebooks "
                f"{quantizer.sizes} and {quantizer.strides}; leave both away."
            )
        prints = fingerprints(quantizer, len(sizes))
    if sizes is None:
        raise ParameterError("write: give sizes, the words per level, or codebooks.")
    if not isinstance(sizes, Iterable) and not hasattr(sizes, "shape"):
        raise ParameterError(f"write: sizes is {sizes}; wanted one number a level.")
    strides = (1,) * len(sizes) if strides is None else strides
    try:
        whole = [tuple(int(each) for each in some) for some in (sizes, strides, batch)]
        header = _format.Header(whole[0], whole[1], whole[2], _rate(frame_rate), prints)
        _format.check(header)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError) as error:
        raise ParameterError(f"write: an argument cannot be: {error}.") from error
    return header


def _rate(rate: Any) -> Fraction | None:
    if rate is None:
        return None
    exact = Fraction(*rate) if isinstance(rate, tuple) else Fraction(rate)
    if exact <= 0 or max(exact.numerator, exact.denominator) >= 1 << 64:
        raise ValueError(f"a frame rate of {rate}")
    return exact


def _durable(file: Any) -> None:
    file.flush()
    if hasattr(file, "fileno"):
        try:
            os.fsync(file.fileno())
        except ValueError:  # a file in memory; io.UnsupportedOperation is one
            return
