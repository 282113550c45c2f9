"""Faiss: residual and additive quantizers as ``faiss.write_index`` writes them, also wrapped.

===========================  =====================================================================
``IxRq``, ``ImRQ``           Codebooks
``IxLS``                     Codebooks, for decoding: Faiss encodes by another search
``IxPR``, ``IxPL``           Grouped, one part a split; Faiss has all codes of a split together
``IwRQ``, ``IwPR``, …        the same behind a first stage, the centroids of the inverted lists,
                             where the lists hold residuals; else as without lists
``IxPT``                     Projected: vectors are centred, mapped or rotated before (PCA, OPQ)
``IxMp``, ``IxM2``, ``IxRF``  what they are wrapped around
===========================  =====================================================================

Other indexes are refused by their kind.

Faiss encodes by a beam search of width 5 by default, as ``encode(..., beam_size=5)`` does; only
``max_beam_size=1`` gives the greedy codes.  Vectors stored in the index are not read.  Indices that
quantize norms with extra tables (``cqint8``, ``cqint4``, ``lsq2x4``, ``rq2x4``) are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from ..codebooks import Codebooks, Grouped, Linear, Projected
from ..errors import CheckpointError, RvqError
from ..files import kinds

SERVED = (
    b"IxRq", b"ImRQ", b"IxLS", b"IxPR", b"IxPL", b"IwRQ", b"IwLS", b"IwPR", b"IwPL", b"IxPT",
    b"IxMp", b"IxM2", b"IxRF",
)  # fmt: skip
EXTRACT = "faiss.write_index({}, 'rq.faissindex')"
INNER = "index = faiss.read_index(PATH); " + EXTRACT.format("faiss.downcast_index(index.index)")
TAKEN = (
    "index = faiss.read_index(PATH); rq = faiss.IndexResidualQuantizer(index.d, index.rq.M, 1); "
    "rq.rq = index.rq; " + EXTRACT.format("rq")
)
PLAIN = (0, 1, 2, 3, 4, 5)  # search types without tables of norms
DEEPEST = 8  # wrappers in wrappers


class _Reader:
    def __init__(self, file: Any, path: Any) -> None:
        self.file, self.path = file, path
        self.outer: bytes | None = None  # the kind of the whole file
        self.left = path.stat().st_size

    def read(self, size: int) -> bytes:
        content = self.file.read(size) if size <= self.left else b""
        if len(content) != size:
            raise CheckpointError(
                f"load: {str(self.path)!r} is a truncated Faiss index: expected {size} more bytes, "
                f"got {self.left}."
            )
        self.left -= size
        return content

    def take(self, form: str) -> Any:
        values = struct.unpack("<" + form, self.read(struct.calcsize("<" + form)))
        return values[0] if len(values) == 1 else values

    def vector(self, dtype: Any) -> np.ndarray:
        count = self.take("Q")
        return np.frombuffer(self.read(count * np.dtype(dtype).itemsize), dtype)

    def header(self) -> tuple[int, int, int]:
        """Return dimension, number of vectors and metric."""
        dim, total, _, _, _, metric = self.take("iqqqBi")
        if metric > 1:
            self.take("f")
        return dim, total, metric

    def refuse(self, about: str, what: str) -> CheckpointError:
        return CheckpointError(f"load: {str(self.path)!r} is a Faiss index {about}; {what}")


def recognizes(head: bytes) -> bool:
    return head[:4] in SERVED or kinds.of_bytes(head, len(head)).name == "faiss"


def parse(file: Any, path: Any) -> Any:
    reader = _Reader(file, path)
    try:
        return _index(reader, 0)
    except RvqError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"load: {str(path)!r}: {error}") from error


def _index(reader: _Reader, depth: int) -> Any:
    kind = reader.read(4)
    if kind not in SERVED or depth > DEEPEST:
        outer, name = reader.outer or kind, kinds.of_faiss(kind)
        inside = f", around one of kind {name}" if depth else ""
        raise reader.refuse(
            f"of kind {kinds.of_faiss(outer)}{inside}",
            "expected a residual or additive quantizer, with inverted lists, identifiers or linear "
            f"maps around it, at most {DEEPEST} of these. For a FastScan index, write the plain "
            "index it was made of; of others extract the residual quantizer with Faiss, if there "
            "is one.",
        )
    reader.outer = reader.outer or kind
    dim, _, metric = reader.header()
    if kind in (b"IxMp", b"IxM2", b"IxRF"):
        return _fits(reader, dim, _index(reader, depth + 1))
    if kind == b"IxPT":
        maps = [_transform(reader) for _ in range(_few(reader, reader.take("i")))]
        inner = _index(reader, depth + 1)
        for into, out in reversed(maps):
            inner = Projected(inner, into, out)
        return _fits(reader, dim, inner)
    if kind in (b"IxRq", b"IxLS", b"ImRQ"):
        return _additive(reader, dim)
    if kind in (b"IxPR", b"IxPL"):
        return _product(reader, dim, _local if kind == b"IxPL" else _residual)
    return _lists(reader, kind, dim, metric)


def _few(reader: _Reader, count: int) -> int:
    if not 0 <= count <= DEEPEST:
        raise reader.refuse(f"with {count} maps", f"expected 0 to {DEEPEST}.")
    return count


def _fits(reader: _Reader, dim: int, quantizer: Any) -> Any:
    if quantizer.dim != dim:
        raise reader.refuse(
            f"of dimension {dim} around one of {quantizer.dim}", "expected the same."
        )
    return quantizer


def _additive(reader: _Reader, dim: int) -> Codebooks:
    """Return the codebooks of an additive quantizer."""
    width, stages = reader.take("QQ")
    bits = reader.vector("<u8")
    reader.take("B")
    values = reader.vector("<f4")
    search = reader.take("i")
    sizes = [1 << int(each) if each < 32 else 0 for each in bits]
    fits = width == dim > 0 and stages == len(bits) > 0 and sum(sizes) * dim == len(values)
    if not fits:
        raise CheckpointError(
            f"load: {str(reader.path)!r} is a Faiss index of {stages} stages and dimension {dim} "
            f"whose codebooks have {len(values)} values; expected {sum(sizes) * dim}."
        )
    _plain(reader, search)
    codebooks = np.split(values.reshape(-1, dim).astype(np.float32), np.cumsum(sizes)[:-1])
    return Codebooks(codebooks)


def _plain(reader: _Reader, search: int) -> None:
    if search not in PLAIN:
        raise CheckpointError(
            f"load: {str(reader.path)!r} is a Faiss index with search type {search}, whose tables "
            "of norms are not supported. Train it with ST_decompress or plain norms."
        )
    reader.take("ff")


def _residual(reader: _Reader, dim: int) -> Codebooks:
    books = _additive(reader, dim)
    reader.take("ii")
    return books


def _local(reader: _Reader, dim: int) -> Codebooks:
    books = _additive(reader, dim)
    reader.take("QQQQQffQiQB")
    return books


def _product(reader: _Reader, dim: int, each: Callable[[_Reader, int], Codebooks]) -> Grouped:
    """Return quantizers of neighbouring channels; the codebooks of all come first, and again."""
    reader.take("QQ")
    reader.vector("<u8")
    reader.take("B")
    reader.vector("<f4")
    _plain(reader, reader.take("i"))
    splits = reader.take("Q")
    if not 1 <= splits <= max(dim, 1) or dim % splits:
        raise reader.refuse(
            f"of dimension {dim} with {splits} splits", "expected splits of one length."
        )
    return Grouped([each(reader, dim // splits) for _ in range(splits)])


def _lists(reader: _Reader, kind: bytes, dim: int, metric: int) -> Codebooks | Grouped:
    reader.take("QQ")
    coarse, by_distance = _coarse(reader, dim)
    array = reader.take("b"), reader.vector("<i8")
    if array[0] not in (0, 1):
        raise reader.refuse(
            f"whose direct map has type {array[0]}",
            "expected none, or an array.",
        )
    reader.take("Q")
    each = _local if kind in (b"IwLS", b"IwPL") else _residual
    fine = _product(reader, dim, each) if kind in (b"IwPR", b"IwPL") else each(reader, dim)
    if not reader.take("B"):  # by residual
        return fine
    if metric != 1 or not by_distance:
        raise reader.refuse(
            "whose inverted lists are chosen by inner product",
            "expected METRIC_L2, as for a first stage. Subtract the centroids yourself, and "
            f"extract the quantizer: {TAKEN}",
        )
    if isinstance(fine, Grouped):
        raise reader.refuse(
            "of a product quantizer within inverted lists",
            "expected a residual quantizer there, as a first stage of all channels cannot be "
            "before groups. Subtract the centroids yourself, and write an index without lists.",
        )
    return Codebooks([*coarse, *fine])


def _coarse(reader: _Reader, dim: int) -> tuple[Codebooks, bool]:
    """Return the quantizer that chooses lists, and whether it does so by distance."""
    kind = reader.read(4)
    if kind not in (b"IxF2", b"IxFI", b"ImRQ"):
        name = kinds.of_faiss(kind)
        raise reader.refuse(
            f"whose inverted lists are chosen by one of kind {name}",
            "expected IndexFlat or ResidualCoarseQuantizer. Replace index.quantizer by an "
            "IndexFlat with the same centroids.",
        )
    own, count, metric = reader.header()
    if kind == b"ImRQ":
        books = _residual(reader, own)
        reader.take("f")
        return _fits(reader, dim, books), metric == 1
    values = reader.vector("<f4")
    if own != dim or not 0 < dim * count == len(values):
        raise reader.refuse(
            f"whose {count} centroids of dimension {own} have {len(values)} values",
            f"expected dimension {dim}.",
        )
    return Codebooks([values.reshape(count, dim).astype(np.float32)]), metric == 1


def _transform(reader: _Reader) -> list[Linear]:
    """Return what maps vectors before an index, and back, as `Linear`."""
    kind = reader.read(4)
    if kind == b"Pcam":
        reader.take("ffBi")
        for _ in range(3):
            reader.vector("<f4")
    elif kind == b"Viqm":
        reader.take("ii")
    if kind in (b"LTra", b"rrot", b"Pcam", b"Viqm"):
        has_bias, weight, bias = reader.take("B"), reader.vector("<f4"), reader.vector("<f4")
    elif kind == b"VCnt":
        mean = reader.vector("<f4")
        has_bias, weight, bias = True, np.eye(min(len(mean), 1 << 12), dtype="<f4"), -mean
    else:
        raise reader.refuse(
            f"behind a transform of kind {kind.decode('latin-1')!r}",
            "expected a linear one (PCA, OPQ, rotation) or centring. For VNrm, which divides "
            f"vectors by their norms, do so yourself and extract the index within: {INNER}",
        )
    inputs, outputs, _ = reader.take("iiB")
    if weight.size != inputs * outputs or (has_bias and len(bias) != outputs) or inputs < 1:
        raise reader.refuse(
            f"behind a map from {inputs} to {outputs} numbers of {weight.size} weights",
            f"expected {inputs * outputs}.",
        )
    matrix = weight.reshape(outputs, inputs).astype(np.float64)
    offset = bias.astype(np.float64) if has_bias else np.zeros(outputs)
    with np.errstate(over="ignore", invalid="ignore"):
        orthonormal = np.allclose(matrix @ matrix.T, np.eye(outputs), atol=4e-5)
    if not orthonormal:
        raise reader.refuse(
            f"behind a map from {inputs} to {outputs} numbers that is not orthonormal",
            "expected one that can be undone, as Faiss needs to reconstruct vectors. Map vectors "
            f"yourself, and extract the index within: {INNER}",
        )
    maps = [(matrix, offset), (matrix.T, -matrix.T @ offset)]
    return [Linear(*(each.astype(np.float32) for each in pair)) for pair in maps]
