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

Faiss encodes by a beam search of width 5 by default, as ``encode(..., beam_size=5)`` does; only
``max_beam_size=1`` gives the greedy codes.  Vectors stored in the index are not read.  Indices that
quantize norms with extra tables (``cqint8``, ``cqint4``, ``lsq2x4``, ``rq2x4``) are refused, and so
are all other kinds, by name.
"""

from __future__ import annotations

import struct

import numpy as np

from ..codebooks import Codebooks, Grouped, Linear, Projected
from ..errors import CheckpointError, RvqError

SERVED = {
    b"IxRq": "IndexResidualQuantizer", b"ImRQ": "ResidualCoarseQuantizer",
    b"IxLS": "IndexLocalSearchQuantizer", b"IxPR": "IndexProductResidualQuantizer",
    b"IxPL": "IndexProductLocalSearchQuantizer", b"IwRQ": "IndexIVFResidualQuantizer",
    b"IwLS": "IndexIVFLocalSearchQuantizer", b"IwPR": "IndexIVFProductResidualQuantizer",
    b"IwPL": "IndexIVFProductLocalSearchQuantizer", b"IxPT": "IndexPreTransform",
    b"IxMp": "IndexIDMap", b"IxM2": "IndexIDMap2", b"IxRF": "IndexRefine",
}  # fmt: skip
FASTSCAN = "FastScan, whose codes are in blocks"
OTHERS = {
    b"IxFI": "IndexFlat", b"IxF2": "IndexFlat", b"IxFl": "IndexFlat", b"IxPq": "IndexPQ",
    b"IxPQ": "IndexPQ", b"IxSQ": "IndexScalarQuantizer", b"IxHe": "IndexLSH", b"IxHE": "IndexLSH",
    b"IwFl": "IndexIVFFlat", b"IwPQ": "IndexIVFPQ", b"IwQR": "IndexIVFPQR",
    b"IwSq": "IndexIVFScalarQuantizer", b"Imiq": "MultiIndexQuantizer", b"Ix2L": "Index2Layer",
    b"IHNf": "IndexHNSWFlat", b"IHNp": "IndexHNSWPQ", b"IHNs": "IndexHNSWSQ",
    b"Ixrq": "IndexRaBitQ", b"Iwrq": "IndexIVFRaBitQ", b"IPfs": "IndexPQFastScan",
    b"IwPf": "IndexIVFPQFastScan", b"IRfs": f"IndexResidualQuantizer{FASTSCAN}",
    b"ILfs": f"IndexLocalSearchQuantizer{FASTSCAN}",
    b"IPRf": f"IndexProductResidualQuantizer{FASTSCAN}",
    b"IPLf": f"IndexProductLocalSearchQuantizer{FASTSCAN}",
    b"IVRf": f"IndexIVFResidualQuantizer{FASTSCAN}",
    b"IVLf": f"IndexIVFLocalSearchQuantizer{FASTSCAN}",
}  # fmt: skip
MAGIC = (*SERVED, *OTHERS)
PLAIN = (0, 1, 2, 3, 4, 5)  # search types without tables of norms
DEEPEST = 8  # wrappers in wrappers


class _Reader:
    def __init__(self, file, path):
        self.file, self.path = file, path
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

    def take(self, form: str):
        values = struct.unpack("<" + form, self.read(struct.calcsize("<" + form)))
        return values[0] if len(values) == 1 else values

    def vector(self, dtype) -> np.ndarray:
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


def parse(file, path):
    reader = _Reader(file, path)
    try:
        return _index(reader, 0)
    except RvqError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"load: {str(path)!r}: {error}") from error


def _index(reader, depth):
    kind = reader.read(4)
    if kind not in SERVED or depth > DEEPEST:
        name = OTHERS.get(kind) or SERVED.get(kind, "none known")
        raise reader.refuse(
            f"of kind {name} ({kind.decode('latin-1')!r})" + (", within others" if depth else ""),
            "expected a residual or additive quantizer, with inverted lists, identifiers or linear "
            "maps around it. For a FastScan index, write the plain index it was made of.",
        )
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
        return _additive(reader, dim)[0]
    if kind in (b"IxPR", b"IxPL"):
        return _product(reader, dim, _local if kind == b"IxPL" else _residual)
    return _lists(reader, kind, dim, metric, depth)


def _few(reader, count):
    if not 0 <= count <= DEEPEST:
        raise reader.refuse(f"with {count} maps", f"expected 0 to {DEEPEST}.")
    return count


def _fits(reader, dim, quantizer):
    if quantizer.dim != dim:
        raise reader.refuse(
            f"of dimension {dim} around one of {quantizer.dim}", "expected the same."
        )
    return quantizer


def _additive(reader, dim):
    """Return the codebooks of an additive quantizer, and its bits."""
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
    return Codebooks(codebooks), bits


def _plain(reader, search):
    if search not in PLAIN:
        raise CheckpointError(
            f"load: {str(reader.path)!r} is a Faiss index with search type {search}, whose tables "
            "of norms are not supported. Train it with ST_decompress or plain norms."
        )
    reader.take("ff")


def _residual(reader, dim):
    books, _ = _additive(reader, dim)
    reader.take("ii")
    return books


def _local(reader, dim):
    books, _ = _additive(reader, dim)
    reader.take("QQQQQffQiQB")
    return books


def _product(reader, dim, each):
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


def _lists(reader, kind, dim, metric, depth):
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
            "expected METRIC_L2, as a first stage has. Subtract the centroids yourself, and write "
            "an index without lists.",
        )
    if isinstance(fine, Grouped):
        raise reader.refuse(
            "of a product quantizer within inverted lists",
            "expected a residual quantizer there, as a first stage of all channels has no place "
            "before groups. Subtract the centroids yourself, and write an index without lists.",
        )
    return Codebooks([*coarse, *fine])


def _coarse(reader, dim):
    """Return the quantizer that chooses lists, and whether it does so by distance."""
    kind = reader.read(4)
    if kind not in (b"IxF2", b"IxFI", b"ImRQ"):
        name = {**SERVED, **OTHERS}.get(kind, "none known")
        raise reader.refuse(
            f"whose inverted lists are chosen by kind {name} ({kind.decode('latin-1')!r})",
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


def _transform(reader):
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
            "vectors by their norms, do so yourself and write the index within, index.index.",
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
            "yourself, and write the index within, index.index.",
        )
    maps = [(matrix, offset), (matrix.T, -matrix.T @ offset)]
    return [Linear(*(each.astype(np.float32) for each in pair)) for pair in maps]
