"""Faiss: an ``IndexResidualQuantizer`` as ``faiss.write_index`` writes it (``IxRq``).

A ``ResidualCoarseQuantizer`` (``RCQ``) has the same codebooks, and an ``IndexIDMap`` around either
only adds names of vectors. Other indices are refused by their kind: what their quantizer quantizes
is not the vectors, but, for example, the difference to the centroid of a list.

Faiss encodes by a beam search of width 5 by default, as ``encode(..., beam_size=5)`` does; only
``max_beam_size=1`` gives the greedy codes.  Vectors stored in the index are not read.  Indices that
quantize norms with extra tables (``cqint8``, ``cqint4``, ``lsq2x4``, ``rq2x4``) are refused.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ..codebooks import Codebooks
from ..errors import CheckpointError, RvqError
from ..files import kinds

SERVED, WRAPPERS = (b"IxRq", b"ImRQ"), (b"IxMp", b"IxM2")
EXTRACT = "faiss.write_index({}, 'rq.faissindex')"
INNER = "index = faiss.read_index(PATH); " + EXTRACT.format("faiss.downcast_index(index.index)")
TAKEN = (
    "index = faiss.read_index(PATH); rq = faiss.IndexResidualQuantizer(index.d, index.rq.M, 1); "
    "rq.rq = index.rq; " + EXTRACT.format("rq")
)
ADVICE = {
    b"IxPT": "Its quantizer quantizes transformed vectors: apply the transform yourself, by "
    f"index.apply_chain(x), and extract the quantizer: {INNER}",
    b"IwRQ": "Its quantizer quantizes differences to the centroids of the lists: subtract them "
    f"yourself, and extract the quantizer: {TAKEN}",
    b"IxRF": "Extract its quantizer: " + INNER.replace("index.index", "index.base_index"),
}
PLAIN = (0, 1, 2, 3, 4, 5)  # search types without tables of norms


class _Reader:
    def __init__(self, file: Any, path: Any) -> None:
        self.file, self.path = file, path
        self.outer: bytes | None = None
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


def recognizes(head: bytes) -> bool:
    return head[:4] in SERVED or kinds.of_bytes(head, len(head)).name == "faiss"


def parse(file: Any, path: Any) -> Any:
    reader = _Reader(file, path)
    dim = None
    while dim is None:
        code = reader.read(4)
        if code not in (*SERVED, *WRAPPERS):
            raise CheckpointError(
                f"load: {str(path)!r} is {kinds.of(path).said}"
                + ("" if reader.outer is None else f", around one of kind {code!r}")
                + "; expected IndexResidualQuantizer, alone or in an IndexIDMap. "
                + ADVICE.get(code, "Extract its residual quantizer with Faiss, if it has one.")
            )
        reader.outer = code
        dim, _, _, _, _, metric = reader.take("iqqqBi")
        if metric > 1:
            reader.take("f")
        dim = None if code in WRAPPERS else dim
    width, stages = reader.take("QQ")
    bits = reader.vector("<u8")
    reader.take("B")
    values = reader.vector("<f4")
    search = reader.take("i")
    sizes = [1 << int(each) if each < 32 else 0 for each in bits]
    fits = width == dim > 0 and stages == len(bits) > 0 and sum(sizes) * dim == len(values)
    if not fits:
        raise CheckpointError(
            f"load: {str(path)!r} is a Faiss index of {stages} stages and dimension {dim} whose "
            f"codebooks have {len(values)} values; expected {sum(sizes) * dim}."
        )
    if search not in PLAIN:
        raise CheckpointError(
            f"load: {str(path)!r} is a Faiss index with search type {search}, whose tables of "
            "norms are not supported. Train it with ST_decompress or plain norms."
        )
    codebooks = np.split(values.reshape(-1, dim).astype(np.float32), np.cumsum(sizes)[:-1])
    try:
        return Codebooks(codebooks)
    except RvqError as error:
        raise CheckpointError(f"load: {str(path)!r}: {error}") from error
