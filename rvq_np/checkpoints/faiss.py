"""Faiss: an ``IndexResidualQuantizer`` as ``faiss.write_index`` writes it (``IxRq``).

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

MAGIC = b"IxRq"
PLAIN = (0, 1, 2, 3, 4, 5)  # search types without tables of norms


class _Reader:
    def __init__(self, file: Any, path: Any) -> None:
        self.file, self.path = file, path
        self.left = path.stat().st_size - len(MAGIC)

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


def parse(file: Any, path: Any) -> Any:
    reader = _Reader(file, path)
    dim, _, _, _, _, metric = reader.take("iqqqBi")
    if metric > 1:
        reader.take("f")
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
