"""Decoding: how fast codes become vectors, compared with copying memory."""

from __future__ import annotations

from functools import partial
from inspect import signature

import numpy as np

import rvq_np
from rvq_np.kernels import dispatch

from . import peers, problems
from .report import Answer, Check, Table, duration, plural, ratio
from .setting import Setting
from .threads import fixed_threads
from .timing import round_robin

OURS, TORCH, COPY = "rvq_np", "torch embedding", "copying as many bytes"


def decoding(setting: Setting, threads: int) -> Answer:
    """How fast are codes decoded, compared with copying memory?"""
    problem = setting.smaller(problems.BATCH._replace(rows=65536))
    _, codebooks = problem.data()
    rng = np.random.default_rng(5)
    codes = rng.integers(0, problem.size, (problem.stages, problem.rows), dtype=np.int32)
    moved = 4 * problem.rows * problem.dim * (problem.stages + 1)
    label = f"decode, {problem.label}"
    with fixed_threads(threads):
        expected = rvq_np.decode(codes, codebooks)
        calls = {}
        for name, make in DECODERS.items():
            try:
                calls[name] = make(codebooks, codes)
            except ImportError:
                continue
            np.testing.assert_allclose(np.asarray(calls[name]()), expected, rtol=0, atol=1e-4)
        source = np.ones(moved // 8, np.float32)  # read once, written once: as many bytes
        calls[COPY] = partial(np.copyto, np.ones_like(source), source)
        calls["the same, to new memory"] = source.copy
        seconds = round_robin(calls, setting.rounds, f"{label}, {plural(threads)}")
    rows = [
        (name, duration(each), f"{moved / each / 1e9:.1f}", f"{seconds[OURS] / each:.2f}")
        for name, each in sorted(seconds.items(), key=lambda item: item[1])
    ]
    note = (
        "Bytes are those of Q codewords read and one vector written per row; codewords may come "
        "from the cache, a copy does not. A copy runs on one thread and writes to memory that is "
        "already mapped; decoders return new arrays."
    )
    header = ("", "a call", "GB/s", "ours = 1")
    beside = ratio(seconds.get(TORCH), seconds[OURS])
    checks = [
        Check(label, f"≥ 3 x {TORCH} sum", threads, beside, 3),
        Check(label, f"≥ 0.6 x {COPY}", threads, ratio(seconds[COPY], seconds[OURS]), 0.6),
    ]
    return Answer([Table(f"D{label[1:]}; {plural(threads)}", note, header, rows)], checks)


def _decode_ours(codebooks, codes):
    books = rvq_np.Codebooks(codebooks)
    dispatch.load()
    return lambda: rvq_np.decode(codes, books)


def _decode_ours_reusing(codebooks, codes):
    books = rvq_np.Codebooks(codebooks)
    out = np.ones((codes.shape[1], books.dim), np.float32)
    return lambda: rvq_np.decode(codes, books, out=out)


def _decode_numpy(codebooks, codes):
    def run():
        total = codebooks[0][codes[0]]
        for book, code in zip(codebooks[1:], codes[1:], strict=True):
            total += book[code]
        return total

    return run


def _decode_torch(codebooks, codes):
    import torch

    books, wide = torch.from_numpy(codebooks), torch.from_numpy(codes.astype(np.int64))

    def run():
        total = torch.nn.functional.embedding(wide[0], books[0])
        for book, code in zip(books[1:], wide[1:], strict=True):
            total = total + torch.nn.functional.embedding(code, book)
        return total

    return run


def _decode_faiss(codebooks, codes):
    import faiss

    quantizer, n_bits = peers.faiss_quantizer(codebooks)
    packed = faiss.pack_bitstrings(np.ascontiguousarray(codes.T), n_bits)
    return lambda: quantizer.decode(packed)


DECODERS = {
    OURS: _decode_ours,
    "NumPy fancy indexing": _decode_numpy,
    TORCH: _decode_torch,
    "Faiss ResidualQuantizer": _decode_faiss,
}
if "out" in signature(rvq_np.decode).parameters:
    DECODERS["rvq_np, out= reused"] = _decode_ours_reusing
