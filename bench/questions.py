"""What is asked, each question a function that gives a `Table`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np

import rvq_np
from rvq_np import train

from . import peers
from .problems import Problem, clustered
from .report import ROOT, Table
from .threads import fixed_threads
from .timing import round_robin


def encoding(problem: Problem, threads: int, rounds: int, sgemm: peers.Sgemm) -> Table:
    """How many vectors a second, and how near does that come to the matrix product alone?"""
    with fixed_threads(threads):
        calls, agreed = _encoders(problem)
        sgemm()
        question = f"encode, {problem.label}, {plural(threads)}"
        seconds = round_robin({**calls, sgemm.name: sgemm}, rounds, question)
    roof = sgemm.flops / seconds.pop(sgemm.name)
    rows = []
    for name, each in sorted(seconds.items(), key=lambda item: item[1]):
        rate = problem.flops / each
        speed = (f"{problem.rows / each:,.0f}", f"{rate / 1e9:.1f}")
        ratios = (f"{seconds['rvq_np'] / each:.2f}", f"{rate / roof:.2f}")
        rows.append((name, duration(each), *speed, *ratios, f"{agreed[name]:.3%}"))
    rows.append((sgemm.name, "", "", f"{roof / 1e9:.1f}", "", "1.00", ""))
    note = "Reading the tables bounds one frame, not arithmetic." if problem.rows == 1 else ""
    header = ("", "a call", "vectors/s", "GFLOP/s", "ours = 1", "sgemm = 1", "same codes")
    return Table(f"Encode: {problem.label}; {plural(threads)}", note, header, rows)


def _encoders(problem: Problem) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """Return every installed contestant's call, verified and warm, and its share of our codes."""
    x, codebooks = problem.data()
    expected = rvq_np.encode(x, codebooks)
    calls: dict[str, Callable[[], object]] = {}
    agreed = {}
    for name, make in peers.CONTESTANTS.items():
        try:
            contestant = make(codebooks)
        except ImportError as error:
            print(f"{name} stays out: {error}", file=sys.stderr)
            continue
        agreed[name] = peers.agreement(contestant, x, expected)[1]
        calls[name] = partial(contestant.run, x)
    return calls, agreed


def clustering(rows: int, threads: int, rounds: int) -> Table:
    """How long does k-means take from the same first words, and is it as good?"""
    dim, size, iterations = 128, 1024, 10
    x = clustered(rows, dim, size)
    start = x[np.random.default_rng(3).choice(rows, size, replace=False)]
    every = {
        "rvq_np.train.kmeans": _kmeans_ours,
        "Faiss": _kmeans_faiss,
        "scikit-learn": _kmeans_sklearn,
    }
    question = f"k-means, N={rows}, {plural(threads)}"
    with fixed_threads(threads):
        calls, errors = {}, {}
        for name, make in every.items():
            try:
                calls[name] = partial(make, x, start, iterations)
                errors[name] = _distortion(x, calls[name]())
            except ImportError:
                calls.pop(name)
        seconds = round_robin(calls, rounds, question)
    ours = seconds["rvq_np.train.kmeans"]
    table = [
        (name, duration(each), f"{ours / each:.2f}", f"{errors[name]:.5f}")
        for name, each in sorted(seconds.items(), key=lambda item: item[1])
    ]
    title = f"k-means: N={rows}, D={dim}, K={size}, {iterations} iterations; {plural(threads)}"
    note = "From the same first words, so the mean squared error per number should agree."
    return Table(title, note, ("", "a run", "ours = 1", "error"), table)


def _kmeans_ours(x, start, iterations):
    state = train.kmeans(x, len(start), iterations, np.random.default_rng(0), start=start)
    return state.words


def _kmeans_faiss(x, start, iterations):
    import faiss

    # Without this bound Faiss would train on a sample of the rows, or warn of too few.
    bounds = {"min_points_per_centroid": 1, "max_points_per_centroid": len(x)}
    kmeans = faiss.Kmeans(x.shape[1], len(start), niter=iterations, seed=1, **bounds)
    kmeans.train(x, init_centroids=start)
    return kmeans.centroids


def _kmeans_sklearn(x, start, iterations):
    from sklearn.cluster import KMeans

    # It assigns the rows once more at the end, for its labels.
    found = KMeans(len(start), init=start, n_init=1, max_iter=iterations, tol=0, algorithm="lloyd")
    return found.fit(x).cluster_centers_


def _distortion(x: np.ndarray, words: np.ndarray) -> float:
    """Return the mean squared distance per number to the nearest of `words`, without our code."""
    half = 0.5 * np.square(words).sum(axis=1)
    total = float(np.square(x, dtype=np.float64).sum())
    for start in range(0, len(x), 4096):
        total += 2 * float((half - x[start : start + 4096] @ words.T).min(axis=1).sum())
    return total / x.size


def decoding(problem: Problem, threads: int, rounds: int) -> Table:
    """How fast are codes turned back into vectors, beside copying memory?"""
    x, codebooks = problem.data()
    moved = 4 * problem.rows * problem.dim * (problem.stages + 1)
    question = f"decode, {problem.label}, {plural(threads)}"
    with fixed_threads(threads):
        codes = rvq_np.encode(x, codebooks)
        expected = rvq_np.decode(codes, codebooks)
        calls = {}
        for name, make in DECODERS.items():
            try:
                calls[name] = make(codebooks, codes)
            except ImportError:
                continue
            np.testing.assert_allclose(np.asarray(calls[name]()), expected, rtol=0, atol=1e-4)
        source = np.ones(moved // 8, np.float32)  # read once, written once: as many bytes
        copy = partial(np.copyto, np.empty_like(source), source)
        copy()
        seconds = round_robin({**calls, "copying as many bytes": copy}, rounds, question)
    rows = [
        (name, duration(each), f"{moved / each / 1e9:.1f}", f"{seconds['rvq_np'] / each:.2f}")
        for name, each in sorted(seconds.items(), key=lambda item: item[1])
    ]
    note = (
        "Bytes are those of Q words read and one vector written per row; the words may come from "
        "the cache, a copy does not."
    )
    header = ("", "a call", "GB/s", "ours = 1")
    return Table(f"Decode: {problem.label}; {plural(threads)}", note, header, rows)


def _decode_ours(codebooks, codes):
    books = rvq_np.Codebooks(codebooks)
    return lambda: rvq_np.decode(codes, books)


def _decode_numpy(codebooks, codes):
    def run():
        total = codebooks[0][codes[0]]
        for words, code in zip(codebooks[1:], codes[1:], strict=True):
            total += words[code]
        return total

    return run


def _decode_torch(codebooks, codes):
    import torch

    books, wide = torch.from_numpy(codebooks), torch.from_numpy(codes.astype(np.int64))

    def run():
        total = torch.nn.functional.embedding(wide[0], books[0])
        for words, code in zip(books[1:], wide[1:], strict=True):
            total = total + torch.nn.functional.embedding(code, words)
        return total

    return run


def _decode_faiss(codebooks, codes):
    import faiss

    quantizer, n_bits = peers.faiss_quantizer(codebooks)
    packed = faiss.pack_bitstrings(np.ascontiguousarray(codes.T), n_bits)
    return lambda: quantizer.decode(packed)


DECODERS = {
    "rvq_np": _decode_ours,
    "NumPy fancy indexing": _decode_numpy,
    "torch embedding": _decode_torch,
    "Faiss ResidualQuantizer": _decode_faiss,
}

_FIRST_ENCODE = """
import numpy as np, rvq_np
rvq_np.encode(np.ones((300, 8), np.float32), np.eye(8, dtype=np.float32)[None])
"""
_SCRIPTS = {
    "python alone": "pass",
    "import numpy": "import numpy",
    "import rvq_np": "import rvq_np",
    "import rvq_np, first encode": _FIRST_ENCODE,
    "import faiss": "import faiss",
    "import torch": "import torch",
}


def starting(rounds: int) -> Table:
    """How long until a fresh process has its first codes, with Numba's cache warm?"""
    seconds: dict[str, list[float]] = {name: [] for name in _SCRIPTS}
    for turn in range(rounds + 1):
        print(f"start: round {turn}/{rounds}", file=sys.stderr, flush=True)
        for name, script in _SCRIPTS.items():
            each = _process_seconds(script)
            if turn > 0 and each is not None:  # the first warms file caches and Numba's
                seconds[name].append(each)
    rows = [(name, duration(statistics.median(each))) for name, each in seconds.items() if each]
    return Table("Start of a process", "Numba's cache is warm.", ("", "wall time"), rows)


def _process_seconds(script: str) -> float | None:
    """Return how long a fresh interpreter takes for `script`, None if it fails (not installed)."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start if done.returncode == 0 else None


def plural(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def duration(seconds: float) -> str:
    """Return `seconds` with three digits and a unit one can compare at a glance."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds:.0f} s"
    raise AssertionError("unreachable")
