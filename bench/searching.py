"""Search in Faiss: codebooks and codes of rvq_np, exported, beside those of its own training."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
BEAMS = (1, 5, 16)  # of encoding; 5 is Faiss's default, and what is compared
COMPARED = 5
TRAINED = (5, 1)  # beams of Faiss's training
OURS, FAISS = "rvq_np `fit`", "Faiss"
FITS = {"rvq_np `fit(refine=False)`": False, OURS: None, "rvq_np `fit(refine=True)`": True}
VECTORS = "RVQ_NP_BENCH_VECTORS"  # an .npz file with train and test (N, D), such as SIFT's
ROWS = "RVQ_NP_BENCH_ROWS"  # how many of its vectors codebooks are trained on; 25,000


def searching(setting: Setting, threads: int) -> Answer:
    """Does Faiss find more with codebooks and codes from here, and how long do both take?"""
    import faiss

    train, base, queries, what = _data(setting)
    exact = faiss.IndexFlatL2(train.shape[1])
    exact.add(base)
    with fixed_threads(threads):
        faiss.omp_set_num_threads(threads)
        truth = exact.search(queries, 1)[1]
        found = [
            each
            for made in (*_ours(train), *_theirs(faiss, train))
            for each in _searched(faiss, made, base, queries, truth)
        ]
    rows = [
        (name, str(beam), f"{error:.4g}", *(f"{each:.3f}" for each in recalls),
         *map(duration, seconds))
        for (name, beam), error, recalls, seconds in found
    ]  # fmt: skip
    at = {key: recalls for key, _, recalls, _ in found}
    ours, theirs = at[OURS, COMPARED], at[f"{FAISS}, beam {TRAINED[0]}", COMPARED]
    work = f"recall@10 in Faiss, {STAGES} bytes, beam {COMPARED}, {what}"
    check = Check(work, "≥ that of Faiss's own training", threads, ours[1] / theirs[1], 1.0)
    note = (
        f"{len(train)} training vectors of {train.shape[1]} numbers, {what}; {len(base)} in the "
        f"index, {len(queries)} others as queries; {STAGES} stages of {SIZE} codewords, norms in "
        "8 bits. Error: mean squared, per number, of what is in the index. Recall@k: the share of "
        "queries whose nearest vector is among the first k answers."
    )
    header = ("codebooks of", "beam", "error", *(f"recall@{k}" for k in RANKS), "training",
              "encoding", "search")  # fmt: skip
    table = Table(f"Search in Faiss; {threads} threads", note, header, rows)
    return Answer([table], [check])


def _data(setting: Setting) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Return what codebooks are trained on, what is in the index, and queries."""
    rows, asked = (4096, 200) if setting.quick else (25_000, 10_000)
    if VECTORS in os.environ:
        with np.load(os.environ[VECTORS]) as archive:
            base, test = (archive[name].astype(np.float32) for name in ("train", "test"))
        order = np.random.default_rng(0).permutation(len(base))
        rows = int(os.environ.get(ROWS, rows))
        return base[order[:rows]], base, test[:asked], "given vectors"
    base = vectors(2 * rows, 128, 0)
    return base[:rows], base, vectors(2 * rows, 128, 1)[:asked], "clustered vectors"


def _ours(train: np.ndarray) -> Iterator[tuple[str, float, Any]]:
    """Yield names, times of training and codebooks."""
    rvq_np.warmup(train.dtype)
    for name, refine in FITS.items():
        rvq = rvq_np.ResidualVectorQuantizer(train.shape[1], train.shape[1], STAGES, SIZE, rng=0)
        seconds, _ = _timed(lambda rvq=rvq, refine=refine: rvq.fit(train, refine=refine))
        yield name, seconds, rvq.codebooks


def _theirs(
    faiss: Any, train: np.ndarray, beams: Sequence[int] = TRAINED
) -> Iterator[tuple[str, float, Any]]:
    for beam in beams:
        index = faiss.index_factory(train.shape[1], f"RQ{STAGES}x8_Nqint8")
        index.rq.max_beam_size = beam
        seconds, _ = _timed(lambda index=index: index.train(train))
        yield f"{FAISS}, beam {beam}", seconds, index


def _searched(
    faiss: Any, made: tuple[str, float, Any], base: np.ndarray, queries: np.ndarray, truth: Any
) -> Iterator[Any]:
    """Yield what is found with codes of each beam: key, error, recalls, seconds."""
    name, training, quantizer = made
    for beam in BEAMS:
        if name in FITS:
            encode = lambda beam=beam: rvq_np.encode(base, quantizer, beam_size=beam)  # noqa: E731
            encoding, codes = _timed(encode)
            with tempfile.TemporaryDirectory() as folder:
                path = str(Path(folder) / "a.faissindex")
                export.faiss(path, quantizer, codes)
                index = faiss.read_index(path)
        else:
            index = quantizer
            index.reset()
            index.rq.max_beam_size = beam
            encoding, _ = _timed(lambda index=index: index.add(base))
        error = float(np.square(index.reconstruct_n(0, len(base)) - base).mean())
        search = lambda index=index: index.search(queries, max(RANKS))  # noqa: E731
        seconds, (_, answers) = _timed(search)
        recalls = [float((answers[:, :k] == truth).any(axis=1).mean()) for k in RANKS]
        yield (name, beam), error, recalls, (training, encoding, seconds)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result
