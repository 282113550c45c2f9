"""Search in Faiss: codebooks and codes of rvq_np, exported, beside those of its own training."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import rvq_np
from rvq_np import export

from .fitted import vectors
from .report import Answer, Check, Table, duration
from .setting import Setting
from .threads import fixed_threads

STAGES, SIZE, RANKS = 8, 256, (1, 10, 100)
BEAMS = (1, 5)  # 5 is Faiss's default
VECTORS = "RVQ_NP_BENCH_VECTORS"  # an .npz file with train and test (N, D), such as SIFT's


def searching(setting: Setting, threads: int) -> Answer:
    """Does Faiss find more with codebooks and codes from here, and how long do both take?"""
    import faiss

    train, queries, what = _data(setting)
    exact = faiss.IndexFlatL2(train.shape[1])
    exact.add(train)
    with fixed_threads(threads):
        faiss.omp_set_num_threads(threads)
        truth = exact.search(queries, 1)[1]
        found = [*_ours(faiss, train, queries, truth), *_theirs(faiss, train, queries, truth)]
    rows = [
        (name, *(f"{each:.3f}" for each in recalls), *map(duration, seconds))
        for name, recalls, seconds in found
    ]
    ours, theirs = found[len(BEAMS) - 1], found[-1]
    work = f"recall@10 in Faiss, {STAGES} bytes, beam {BEAMS[-1]}, {what}"
    value = ours[1][1] / theirs[1][1]
    check = Check(work, "≥ that of Faiss's own training", threads, value, 1.0)
    note = (
        f"{len(train)} vectors of {train.shape[1]} numbers, {what}, {len(queries)} others as "
        f"queries; {STAGES} stages of {SIZE} codewords, norms in 8 bits. Recall@k: the share of "
        "queries whose nearest vector is among the first k answers."
    )
    header = ("", *(f"recall@{k}" for k in RANKS), "training", "encoding", "search")
    table = Table(f"Search in Faiss; {threads} threads", note, header, rows)
    return Answer([table], [check])


def _data(setting: Setting) -> tuple[np.ndarray, np.ndarray, str]:
    rows, asked = (4096, 200) if setting.quick else (1 << 16, 1000)
    if VECTORS in os.environ:
        with np.load(os.environ[VECTORS]) as archive:
            train, test = (archive[name].astype(np.float32) for name in ("train", "test"))
        return train[: rows if setting.quick else None], test[:asked], "given vectors"
    return vectors(rows, 128, 0), vectors(rows, 128, 1)[:asked], "clustered vectors"


def _ours(faiss: Any, train: np.ndarray, queries: np.ndarray, truth: Any) -> list[Any]:
    dim, found = train.shape[1], []
    rvq = rvq_np.ResidualVectorQuantizer(dim, dim, n_q=STAGES, bins=SIZE, rng=0)
    fitting, _ = _timed(lambda: rvq.fit(train))
    for beam in BEAMS:
        encode = lambda beam=beam: rvq_np.encode(train, rvq.codebooks, beam_size=beam)  # noqa: E731
        encoding, codes = _timed(encode)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "a.faissindex")
            export.faiss(path, rvq.codebooks, codes)
            index = faiss.read_index(path)
        found.append(_searched(f"rvq_np, beam {beam}", index, queries, truth, fitting, encoding))
    return found


def _theirs(faiss: Any, train: np.ndarray, queries: np.ndarray, truth: Any) -> list[Any]:
    found = []
    for beam in BEAMS:
        index = faiss.index_factory(train.shape[1], f"RQ{STAGES}x8_Nqint8")
        index.rq.max_beam_size = beam
        training, _ = _timed(lambda index=index: index.train(train))
        adding, _ = _timed(lambda index=index: index.add(train))
        found.append(_searched(f"Faiss, beam {beam}", index, queries, truth, training, adding))
    return found


def _searched(
    name: str, index: Any, queries: np.ndarray, truth: Any, training: float, encoding: float
) -> Any:
    seconds, (_, answers) = _timed(lambda: index.search(queries, max(RANKS)))
    recalls = [float((answers[:, :k] == truth).any(axis=1).mean()) for k in RANKS]
    return name, recalls, (training, encoding, seconds)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result
