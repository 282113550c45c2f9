"""The container for codes, ``.rvq``: small, checked, and readable from any frame and to any level.

====================  ======================================================================
`write`, `read`       codes to a file and back, in one call
`append`              frames added to a file, in place; a crash leaves what was there
`Writer`              for codes that come bit by bit, or do not fit into memory
`Reader`              a range of frames, a prefix of the levels: only those bytes are read
====================  ======================================================================

Levels lie one by one in a chunk, so that fewer levels are fewer bytes.  Each has a CRC-32; so have
header, index and chunk headers.  Codes are packed into as few bits as their level needs, or range
coded where that is smaller, with whole-number tables that are in the file.  A dropped code, -1, is
not code 0.  A file says which codebooks its codes are of, and refuses others.  Reading returns the
codes or raises `BitstreamError`, in memory bounded by what the file holds.  docs/format.md has
every byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._body import levels_of
from .reader import Content as Content
from .reader import Reader as Reader
from .writer import Writer as Writer
from .writer import append as append


def write(
    path: Any,
    codes: Any,
    *,
    sizes: Sequence[int] | None = None,
    frame_rate: Any = None,
    codebooks: Any = None,
    strides: Sequence[int] | None = None,
    chunk_frames: int | None = None,
    compress: bool = True,
) -> None:
    """Write codes to a file, atomically.

    Parameters
    ----------
    path : str, os.PathLike or binary file
    codes : array (n, ..., T), integer, or list of n arrays (..., T / stride)
        As `rvq_np.encode` returns them; -1 for codes that were dropped.
    sizes : sequence of int, optional
        Words per level, of n levels at least; by default those of `codebooks`.
    frame_rate, codebooks, strides, chunk_frames, compress
        As in `Writer`.

    Raises
    ------
    ParameterError, DtypeError, ShapeError, LevelsError, CodeRangeError
        If an argument cannot be. Nothing is written.
    OSError
        If the file cannot be written. The old one stays.

    Examples
    --------
    >>> import io
    >>> import numpy as np
    >>> file = io.BytesIO()
    >>> write(file, np.array([[5, 7, -1], [0, 0, 3]]), sizes=(1000, 8), frame_rate=(44100, 512))
    >>> read(file).codes, read(file, n_q=1).codes, read(file).frame_rate
    (array([[ 5,  7, -1],
           [ 0,  0,  3]], dtype=int32), array([[ 5,  7, -1]], dtype=int32), Fraction(11025, 128))
    """
    levels = levels_of(codes)
    count, batch = len(levels), levels[0].shape[:-1] if len(levels) else ()
    if codebooks is not None:
        from .. import composed

        codebooks = composed.of(codebooks)
        codebooks = codebooks[:count] if 0 < count < codebooks.n_q else codebooks
    with Writer(
        path,
        sizes=_first(sizes, count),
        batch=batch,
        strides=_first(strides, count),
        frame_rate=frame_rate,
        codebooks=codebooks,
        chunk_frames=chunk_frames,
        compress=compress,
    ) as writer:
        writer.write(levels)


def _first(numbers: Any, count: int) -> Any:
    """Return the numbers of the levels there are, or what is no list of numbers as it is."""
    return tuple(numbers)[:count] if count and isinstance(numbers, Sequence) else numbers


def read(
    path: Any, n_q: int | None = None, *, start: int = 0, stop: int | None = None,
    codebooks: Any = None,
) -> Content:  # fmt: skip
    """Read codes from a file.

    Parameters
    ----------
    path : str, os.PathLike or binary file
    n_q : int, optional
        Read the first levels only, and only their bytes. All by default.
    start, stop : int, optional
        Frames from, and up to. All by default.
    codebooks : Codebooks, Composed or array (Q, K, D), optional
        What the codes are to be decoded with: refused if they are of others.

    Returns
    -------
    content : Content
        ``codes``, ``sizes``, ``strides``, ``frame_rate``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    BitstreamError
        If it is truncated, damaged, foreign, or of other codebooks.
    LevelsError, ShapeError, ParameterError
        If there are not so many levels, or no such frames.
    """
    with Reader(path) as reader:
        if codebooks is not None:
            reader.check(codebooks, n_q)
        return reader.read(n_q, start=start, stop=stop)
