"""Training: k-means from the same initial codebook, and a step of moving averages."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np

import rvq_np
from rvq_np import train
from rvq_np.kernels import dispatch

from . import problems
from .encoding import LUCID, SLACK
from .peers import AGREEMENT
from .problems import Problem, clustered
from .report import Answer, Check, Table, duration, plural, ratio
from .setting import Setting
from .threads import fixed_threads
from .timing import round_robin

OURS, ESPNET = "rvq_np", "ESPnet's class"
RATE = 50  # vectors per second; only the bandwidth in the result depends on it


def clustering(setting: Setting, threads: int) -> Answer:
    """How long does k-means take from the same initial codebook, and is its error as low?"""
    every = {OURS: _kmeans_ours, "Faiss": _kmeans_faiss, "scikit-learn": _kmeans_sklearn}
    return _clustering(setting, threads, (8192 if setting.quick else 65536, 128, 1024, 10), every)


def wide(setting: Setting, threads: int) -> Answer:
    """How long does k-means of many long codewords take?"""
    shape = (8192, 512, 2048, 2) if setting.quick else (32768, 512, 8192, 5)
    return _clustering(setting, threads, shape, {OURS: _kmeans_ours, "Faiss": _kmeans_faiss})


def _clustering(
    setting: Setting, threads: int, shape: tuple[int, int, int, int], every: dict
) -> Answer:
    rows, dim, size, iterations = shape
    x = clustered(rows, dim, size)
    start = x[np.random.default_rng(3).choice(rows, size, replace=False)]
    label = f"k-means, N={rows}, D={dim}, K={size}, {iterations} iterations"
    dispatch.load()
    with fixed_threads(threads):
        calls, errors = {}, {}
        for name, make in every.items():
            try:
                calls[name] = partial(make, x, start, iterations)
                errors[name] = _distortion(x, calls[name]())
            except ImportError:
                calls.pop(name)
        seconds = round_robin(calls, 1 if setting.quick else 3, f"{label}, {plural(threads)}")
    table = [
        (name, duration(each), f"{seconds[OURS] / each:.2f}", f"{errors[name]:.5f}")
        for name, each in sorted(seconds.items(), key=lambda item: item[1])
    ]
    note = "From the same initial codebook, so the mean squared error per dimension should agree."
    checks = []
    for name, bound in (("scikit-learn", 3), ("Faiss", 4)):
        if name not in every:
            continue
        value = ratio(seconds.get(name), seconds[OURS])
        good = errors[OURS] <= SLACK * errors.get(name, np.inf)
        target = f"≥ {bound} x {name}, error no higher"
        checks.append(Check(label, target, threads, value, bound, needs=good))
    title = f"{label}; {plural(threads)}"
    return Answer([Table(title, note, ("", "a run", "ours = 1", "error"), table)], checks)


def _kmeans_ours(x, start, iterations):
    state = train.kmeans(x, len(start), iterations, np.random.default_rng(0), start=start)
    return state.codebook


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


def _distortion(x: np.ndarray, codewords: np.ndarray) -> float:
    """Return the mean squared error per dimension of `codewords`, computed without rvq_np."""
    half = 0.5 * np.square(codewords).sum(axis=1)
    total = float(np.square(x, dtype=np.float64).sum())
    for start in range(0, len(x), 4096):
        total += 2 * float((half - x[start : start + 4096] @ codewords.T).min(axis=1).sum())
    return total / x.size


def stepping(setting: Setting, threads: int) -> Answer:
    """How long is a training step of moving averages: encode, count, average, decode, loss?"""
    problem = setting.smaller(problems.BATCH._replace(rows=4096))
    x, codebooks = problem.data()
    label = f"EMA training step, {problem.label}"
    every = {OURS: _step_ours, LUCID: _step_lucid, ESPNET: _step_espnet}
    dispatch.load()
    with fixed_threads(threads):
        first = rvq_np.encode(x, codebooks, n_q=1)[0]
        calls = {}
        for name, make in every.items():
            try:
                call, codes = make(problem, x, codebooks)
            except ImportError as error:
                print(f"skipped {name}: {error}", file=sys.stderr)
                continue
            share = float((codes(call()) == first).mean())
            if share < AGREEMENT:
                raise ValueError(f"{name}: only {share:.2%} of its first codes equal ours")
            calls[name] = call
        seconds = round_robin(calls, setting.rounds, f"{label}, {plural(threads)}")
    rows = [
        (name, duration(each), f"{problem.rows / each:,.0f}", f"{seconds[OURS] / each:.2f}")
        for name, each in sorted(seconds.items(), key=lambda item: item[1])
    ]
    note = (
        "From the same codebooks, without dead-code replacement. Each returns decoded vectors, "
        "codes and a loss. "
        "torch without gradients."
    )
    checks = [
        Check(label, f"≥ {bound} x {name}", threads, ratio(seconds.get(name), seconds[OURS]), bound)
        for name, bound in ((LUCID, 10), (ESPNET, 5))
    ]
    header = ("", "a step", "vectors/s", "ours = 1")
    return Answer([Table(f"{label}; {plural(threads)}", note, header, rows)], checks)


def _channels_first(x: np.ndarray) -> np.ndarray:
    """Return vectors (N, D) as a batch (8, D, N / 8), which keeps their order."""
    return np.ascontiguousarray(x.reshape(8, -1, x.shape[1]).swapaxes(1, 2))


def _step_ours(problem: Problem, x, codebooks):
    count = problem.rows / problem.size
    made = rvq_np.ResidualVectorQuantizer(
        problem.dim, problem.dim, problem.stages, problem.size, threshold_ema_dead_code=0, rng=0
    )
    state = made.state_dict()
    for q, codebook in enumerate(codebooks):
        book = f"vq.layers.{q}._codebook."
        state[book + "embed"], state[book + "embed_avg"] = codebook, codebook * np.float32(count)
        state[book + "cluster_size"] = np.full(problem.size, count, np.float32)
        state[book + "inited"] = np.ones_like(state[book + "inited"])
    made.load_state_dict(state)
    made = made.train()
    batch = _channels_first(x)
    return partial(made, batch, RATE), lambda result: result.codes[0].ravel()


def _step_espnet(problem: Problem, x, codebooks):
    import torch
    from espnet2.gan_codec.shared.quantizer.residual_vq import ResidualVectorQuantizer

    count = problem.rows / problem.size
    made = ResidualVectorQuantizer(
        problem.dim, problem.dim, problem.stages, problem.size, threshold_ema_dead_code=0
    ).train()
    for layer, codebook in zip(made.vq.layers, torch.from_numpy(codebooks), strict=True):
        book = layer._codebook
        book.embed.copy_(codebook)
        book.embed_avg.copy_(codebook * count)
        book.cluster_size.fill_(count)
        book.inited.fill_(1.0)
    batch = torch.from_numpy(_channels_first(x))

    @torch.no_grad()
    def run():
        return made(batch, RATE)

    return run, lambda result: result[1][0].numpy().ravel()


def _step_lucid(problem: Problem, x, codebooks):
    import torch
    from vector_quantize_pytorch import ResidualVQ

    count = problem.rows / problem.size
    made = ResidualVQ(
        dim=problem.dim,
        num_quantizers=problem.stages,
        codebook_size=problem.size,
        decay=0.99,
    ).train()
    for layer, codebook in zip(made.layers, torch.from_numpy(codebooks), strict=True):
        book = layer._codebook
        book.embed.data.copy_(codebook[None])
        book.embed_avg.copy_(codebook[None] * count)
        book.cluster_size.fill_(count)
    batch = torch.from_numpy(x.reshape(8, -1, problem.dim))

    @torch.no_grad()
    def run():
        return made(batch)

    return run, lambda result: result[1][..., 0].numpy().ravel()
