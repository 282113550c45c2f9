"""Faiss indexes of residual quantizers, written without Faiss.

The layout is that of ``faiss.write_index`` from 1.7.3 on: four letters for the kind, then the
fields of the C++ classes in their order, little-endian; a vector is its length and its values.

====================  =====================================  ===================================
``IxRq``              IndexResidualQuantizer                 Codebooks
``IxPR``              IndexProductResidualQuantizer          Grouped: neighbouring channels
``IwRQ``, ``IwPR``    the same with inverted lists           the same, and the centroids of lists
====================  =====================================  ===================================

A vector's code is a string of bits, the lowest first: the codes of its stages, and the squared norm
of what they decode to, which spares Faiss that sum while it searches.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import arguments
from ..arrays import codes_of, to_numpy
from ..codebooks import Codebooks, Grouped, composed
from ..codec import decode, validation
from ..errors import ParameterError, ShapeError
from ..files.atomic import NewFile
from ._floats import narrowed

NORMS = {"none": (0, 0), "float": (3, 32), "qint8": (4, 8)}  # search type, bits of a norm
MOST_BITS = 24  # of a stage; Faiss counts codewords in 32 bits, and adds those of all stages
L2, PROGRESSIVE, SKIP_TABLES = 1, 1, 2048
BEAM = 5  # of Faiss's own encoder, when vectors are added there; its default
ROWS = 1 << 14  # vectors whose codes are packed at once


def faiss(
    path: str | os.PathLike[str],
    codebooks: Any,
    codes: Any = None,
    norms: str | None = None,
    lists: Any = None,
) -> None:
    """Write a Faiss index of a residual quantizer, without Faiss.

    Parameters
    ----------
    path : str or os.PathLike
        Written atomically. For ``faiss.read_index``.
    codebooks : Codebooks, Grouped or array (Q, K, D)
        Euclidean stages without projections or strides, of at most 2**24 codewords. For `Grouped`
        the index is a product residual quantizer; its parts must quantize as many channels each.
    codes : integer array (Q, ...), optional
        Codes of the vectors to put into the index, as `rvq_np.encode` returns them; the id of a
        vector is its position. With `lists`, the first row holds the list of each vector, before
        the rows of the stages. Without codes the index is empty, and Faiss's ``add`` fills it.
    norms : {"qint8", "float", "none"}, optional
        How the squared norm of a decoded vector is stored: in 8 bits, on a scale from the smallest
        to the largest norm; in 32 bits; or not at all, so that Faiss decodes each vector that it
        compares. By default "qint8"; "float" without codes, because the codes set the scale.
    lists : array (L, D), optional
        The centroids of inverted lists. The stages then quantize the vector minus its centroid: the
        codes are those of ``Codebooks([lists, *codebooks])``.

    Raises
    ------
    ParameterError
        If the index cannot hold such a quantizer, `norms` has an invalid value or needs codes, or a
        stored number is beyond float32.
    ShapeError, DtypeError, CodeRangeError
        If `codes` or `lists` do not fit the codebooks; dropped codes (-1) are not allowed.
    OSError
        If the file cannot be written.

    Notes
    -----
    In Faiss the number of codewords of a stage is a power of two. Other codebooks are filled up
    with codewords far from all vectors, which no search chooses. float64 codebooks are rounded to
    float32. The codes are stored unchanged, and Faiss decodes and ranks them as its own. Faiss
    encodes vectors that are added later itself, by a beam search of width 5.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from rvq_np import checkpoints, encode, export
    >>> books = np.random.default_rng(0).standard_normal((3, 16, 4)).astype(np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "small.faissindex")
    ...     export.faiss(path, books, encode(books[0], books))
    ...     checkpoints.load(path)
    Codebooks(3 stages, 16 codewords of 4)
    """
    path, quantizer = arguments.path("export.faiss", "path", path), composed.of(codebooks)
    parts, order = _parts(quantizer)
    packed = _Codes.of(quantizer, codes_of(codes), norms, lists, order)
    with NewFile(path) as new:
        write = new.file.write
        coarse = packed.lists
        write((b"IxRq", b"IxPR", b"IwRQ", b"IwPR")[(len(parts) > 1) + 2 * (coarse is not None)])
        write(_header(quantizer.dim, packed.total))
        if coarse is not None:
            write(struct.pack("<QQ", len(coarse), 1) + b"IxF2")
            write(_header(quantizer.dim, len(coarse)) + _vector(coarse.ravel()))
            write(struct.pack("<bQ", 0, 0))  # no direct map from numbers to places
            write(struct.pack("<Q", packed.size))
        for each in _quantizers(quantizer, parts, packed):
            write(each)
        if coarse is None:
            write(struct.pack("<QQ", packed.size, packed.total * packed.size))
            for some in packed.pieces(slice(None)):
                write(some)
        else:
            write(struct.pack("<?i", True, 0))  # by residual, no precomputed table
            for each in _inverted(packed, len(coarse)):
                write(each)


class _Codes(NamedTuple):
    """The codes of an index, and how they are stored."""

    quantizer: Any
    rows: np.ndarray | None  # (Q, N)
    order: Sequence[int]  # stages as the index has them
    bits: list[int]
    search: int
    norm_bits: int
    span: tuple[float, float]  # of the norms
    lists: np.ndarray | None
    members: np.ndarray | None  # (N,): the list of each vector

    @classmethod
    def of(cls, quantizer: Any, codes: Any, norms: Any, lists: Any, order: list[int]) -> _Codes:
        if norms is None:
            norms = "float" if codes is None else "qint8"
        if norms not in (*NORMS,) or (norms == "qint8" and codes is None):
            raise ParameterError(
                f"export.faiss: norms is {norms!r}; expected one of {', '.join(NORMS)}, and codes "
                "with 'qint8', as they set its scale."
            )
        search, width = NORMS[norms]
        if lists is not None:
            lists = to_numpy(lists)
            if lists.ndim != 2 or lists.shape[1] != quantizer.dim or not len(lists):
                raise ShapeError(
                    f"export.faiss: lists has shape {lists.shape}; expected the centroids (L, "
                    f"{quantizer.dim})."
                )
            Codebooks([lists])  # refuses what is no finite number
            lists = narrowed("export.faiss", "centroid", lists, "<f4")
        rows = members = None
        if codes is not None:
            rows, members = _checked(quantizer, codes, lists)
        bits = [_bits(quantizer.sizes[q]) for q in order]
        made = cls(quantizer, rows, order, bits, search, width, (0.0, 0.0), lists, members)
        return made._replace(span=made.measured()) if norms == "qint8" else made

    @property
    def total(self) -> int:
        return 0 if self.rows is None else self.rows.shape[1]

    @property
    def size(self) -> int:
        """Bytes of a vector."""
        return (sum(self.bits) + self.norm_bits + 7) // 8

    def some(self, chosen: Any) -> Iterator[np.ndarray]:
        """Yield codes (Q, n) of a slice or of numbers of vectors, some at a time."""
        if self.rows is None:
            return
        numbers = range(self.total)[chosen] if isinstance(chosen, slice) else chosen
        for start in range(0, len(numbers), ROWS):
            part = numbers[start : start + ROWS]
            chosen = slice(part.start, part.stop) if isinstance(part, range) else part
            yield np.asarray(self.rows[:, chosen])

    def norms(self, codes: np.ndarray) -> np.ndarray:
        call, decoded = "export.faiss", decode(codes, self.quantizer)
        decoded = narrowed(call, "decoded vector", decoded)
        squares = np.square(decoded, dtype=np.float64).sum(axis=1)
        return narrowed(call, "squared norm", squares)

    def measured(self) -> tuple[float, float]:
        """Return the smallest and the largest norm."""
        low, high = np.inf, -np.inf
        for codes in self.some(slice(None)):
            if codes.size:
                norms = self.norms(codes)
                low, high = min(low, float(norms.min())), max(high, float(norms.max()))
        if not low < high:  # no vector, or one norm: any scale that has a width
            low = low if np.isfinite(low) else 0.0
            high = float(np.nextafter(np.float32(low), np.float32(np.inf))) + max(1.0, low)
        return low, high

    def pieces(self, chosen: Any) -> Iterator[bytes]:
        """Yield the packed codes of a slice or of numbers of vectors."""
        for codes in self.some(chosen):
            columns = [
                (codes[q].astype(np.uint32)[:, None] >> np.arange(width, dtype=np.uint32)) & 1
                for q, width in zip(self.order, self.bits, strict=True)
            ]
            if self.norm_bits:
                norms = self.norms(codes)
                if self.norm_bits == 8:
                    low, high = (np.float32(each) for each in self.span)
                    steps = np.floor((norms - low) / (high - low) * np.float32(256))
                    norms = np.clip(steps, 0, 255).astype("u1")
                raw = norms.reshape(-1, 1).view("u1")
                columns.append(np.unpackbits(raw, axis=1, bitorder="little"))
            whole = np.concatenate([each.astype("u1") for each in columns], axis=1)
            yield np.packbits(whole, axis=1, bitorder="little").tobytes()


def _checked(
    quantizer: Any, codes: Any, lists: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return codes as (Q, N), and the list of each vector, or raise."""
    rows = to_numpy(codes)
    expected = quantizer.n_q + (lists is not None)
    if rows.ndim < 2 or len(rows) != expected:
        raise ShapeError(
            f"export.faiss: codes has shape {rows.shape}; expected ({expected}, ...), one row per "
            "stage" + (" behind the row of lists." if lists is not None else ".")
        )
    rows = rows.reshape(len(rows), -1)
    members = None
    if lists is not None:
        members, rows = rows[0], rows[1:]
        validation.codes("export.faiss", members[None], Codebooks([lists]))
    validation.codes("export.faiss", rows, quantizer)
    return rows, members


def _parts(quantizer: Any) -> tuple[list[Codebooks], list[int]]:
    """Return the residual quantizers side by side, and the stages of all, one part after another.

    Raises ParameterError where an index cannot hold them.
    """
    parts = list(quantizer.parts) if isinstance(quantizer, Grouped) else [quantizer]
    order = list(range(quantizer.n_q))
    if isinstance(quantizer, Grouped):
        shares = quantizer.shares(quantizer.n_q)
        parts = [part[:share] for part, share in zip(parts, shares, strict=True) if share]
        order = sorted(order, key=lambda q: quantizer.order[q])
        if len(parts) < len(shares) or len({part.dim for part in parts}) > 1:
            raise ParameterError(
                f"export.faiss: an index cannot hold {quantizer!r}; expected parts of one length, "
                "each with a stage."
            )
    for part in parts:
        if not isinstance(part, Codebooks):
            raise ParameterError(
                f"export.faiss: an index cannot hold {part!r}; expected Codebooks, or Grouped of "
                "such. Export its parts one by one, and map vectors in and out yourself."
            )
        for q, stage in enumerate(part):
            plain = stage.metric == "euclidean" and stage.stride == 1 and stage.project_in is None
            if not plain or _bits(stage.size) > MOST_BITS:
                raise ParameterError(
                    f"export.faiss: an index cannot hold {stage!r} at stage {q}; expected "
                    "Euclidean stages without projections or strides, of at most 2**24 codewords."
                )
    return parts, order


def _bits(size: int) -> int:
    return max(1, (size - 1).bit_length())


def _header(dim: int, count: int) -> bytes:
    return struct.pack("<iqqqBi", dim, count, 1 << 20, 1 << 20, 1, L2)


def _vector(values: np.ndarray) -> bytes:
    return struct.pack("<Q", len(values)) + values.tobytes()


def _quantizers(quantizer: Any, parts: list[Codebooks], packed: _Codes) -> Iterator[bytes]:
    if len(parts) == 1:
        yield from _residual(parts[0], packed.search, packed.span)
        return
    stages = [stage for part in parts for stage in part]
    yield from _additive(quantizer.dim, stages, packed.search, packed.span)
    yield struct.pack("<Q", len(parts))
    for part in parts:
        yield from _residual(part, 0, (0.0, 0.0))


def _residual(books: Codebooks, search: int, span: tuple[float, float]) -> Iterator[bytes]:
    yield from _additive(books.dim, list(books), search, span)
    yield struct.pack("<ii", PROGRESSIVE | SKIP_TABLES, BEAM)


def _additive(
    dim: int, stages: list[Any], search: int, span: tuple[float, float]
) -> Iterator[bytes]:
    bits = [_bits(stage.size) for stage in stages]
    yield struct.pack("<QQ", dim, len(bits)) + _vector(np.array(bits, "<u8")) + b"\1"
    filled = [_filled(stage.codebook, width) for stage, width in zip(stages, bits, strict=True)]
    yield struct.pack("<Q", sum(each.size for each in filled))
    for each in filled:
        yield each.tobytes()
    yield struct.pack("<iff", search, *span)


def _filled(codebook: np.ndarray, bits: int) -> np.ndarray:
    """Return 2**bits codewords; those that were missing are far from whatever is quantized."""
    books = narrowed("export.faiss", "codebook", codebook, "<f4")
    missing = (1 << bits) - len(books)
    if not missing:
        return books
    largest = max(1.0, float(np.abs(books).max()))
    if largest > 1e8:  # the square of what is far from it must be a float32
        raise ParameterError(
            f"export.faiss: a codebook of {len(books)} codewords has numbers up to {largest:.3g}; "
            f"expected 2**{bits} codewords, or numbers up to 1e8."
        )
    far = np.full((missing, books.shape[1]), largest * 2.0**20, "<f4")
    return np.concatenate([books, far])


def _inverted(packed: _Codes, n_lists: int) -> Iterator[bytes]:
    """Yield the inverted lists: codes of each, and the numbers of its vectors."""
    members = np.empty(0, np.int64) if packed.members is None else packed.members
    order = np.argsort(members, kind="stable")
    sizes = np.bincount(members, minlength=n_lists)
    yield b"ilar" + struct.pack("<QQ", n_lists, packed.size) + b"full"
    yield _vector(sizes.astype("<u8"))
    for numbers in np.split(order, np.cumsum(sizes)[:-1]):
        if len(numbers):
            yield from packed.pieces(numbers)
            yield numbers.astype("<i8").tobytes()
