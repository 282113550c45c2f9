"""The file format for codes, ``.rvq``: compact, with checksums, readable in part.

====================  ======================================================================
`write`, `read`       write codes to a file and read them, in one call
`append`              add frames to a file in place; if it is interrupted, the old frames remain
`Writer`              for codes that arrive incrementally or do not fit into memory
`Reader`              reads a range of frames or the first stages, and only those bytes
====================  ======================================================================

The stages of a chunk are stored one after the other, so fewer stages are fewer bytes.  Each has a
CRC-32; so have the header, the index and the chunk headers.  Codes are packed into as few bits as
their stage needs, or range coded where that is smaller, with integer tables stored in the file.  A
dropped code, -1, differs from code 0.  A file stores fingerprints of the codebooks, and reading it
with other codebooks is an error.  Reading returns the codes or raises `BitstreamError`; its memory
is bounded by the size of the file.  docs/format.md specifies every byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._body import stages_of
from .reader import Content as Content
from .reader import Reader as Reader
from .writer import Writer as Writer
from .writer import append as append

__all__ = [
    "Content",
    "Reader",
    "Writer",
    "append",
    "read",
    "write",
]


def __dir__() -> list[str]:
    return sorted(__all__)


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
        As `rvq_np.encode` returns them; -1 for dropped codes.
    sizes : sequence of int, optional
        Codebook sizes, of at least n stages; by default those of `codebooks`.
    frame_rate, codebooks, strides, chunk_frames, compress
        As in `Writer`.

    Raises
    ------
    ParameterError, DtypeError, ShapeError, LevelsError, CodeRangeError
        If an argument is invalid. Nothing is written.
    OSError
        If the file cannot be written. An existing file is kept.

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
    if isinstance(codes, Content):
        sizes = codes.sizes if sizes is None and codebooks is None else sizes
        strides = codes.strides if strides is None else strides
        frame_rate = codes.frame_rate if frame_rate is None else frame_rate
    stages = stages_of(codes)
    count, batch = len(stages), stages[0].shape[:-1] if len(stages) else ()
    if codebooks is not None:
        from ..codebooks import composed

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
        writer.write(stages)


def _first(numbers: Any, count: int) -> Any:
    """Return the first `count` numbers of a sequence; anything else unchanged."""
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
        Read the first `n_q` stages only, and only their bytes. By default all stages.
    start, stop : int, optional
        First frame, and the frame after the last. By default all frames.
    codebooks : Codebooks, Composed or array (Q, K, D), optional
        The codebooks to decode with. It is an error if the file was written with others.

    Returns
    -------
    content : Content
        ``codes``, ``sizes``, ``strides``, ``frame_rate``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    BitstreamError
        If it is truncated, damaged, of another format, or of other codebooks.
    LevelsError, ShapeError, ParameterError
        If the file has fewer than `n_q` stages, or does not have these frames.
    """
    with Reader(path) as reader:
        if codebooks is not None:
            reader.check(codebooks, n_q)
        return reader.read(n_q, start=start, stop=stop)
