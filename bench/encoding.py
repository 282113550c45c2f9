"""Encoding: vectors per second, baselines and sgemm, one frame, projections, beam search."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature

import numpy as np

import rvq_np
from rvq_np.kernels import dispatch

from . import peers, problems, searching
from .fitted import vectors
from .problems import Problem
from .report import Answer, Check, Table, duration, plural, ratio
from .setting import Setting
from .threads import fixed_threads
from .timing import round_robin, singles

OURS, NUMPY, FAISS = "rvq_np", "NumPy matmul + argmin", "Faiss ResidualQuantizer"
TORCH, LUCID = "torch, EnCodec's formula", "vector-quantize-pytorch"
SLACK = 1 + 1e-4  # an error is equal if it agrees to four digits: float32 loses near-ties
Calls = dict[str, Callable[[], object]]


def implementations(
    makers: Mapping[str, Callable], codebooks, x: np.ndarray, compared: int | None = None
) -> tuple[Calls, dict[str, float]]:
    """Return the verified, warm call of each installed implementation, and its share of our codes.

    Codes are compared on the first `compared` rows, all by default.
    """
    head = x[:compared]
    expected = makers[OURS](codebooks).run(head)
    calls: Calls = {}
    agreed = {}
    for name, make in makers.items():
        try:
            implementation = make(codebooks)
        except ImportError as error:
            print(f"skipped {name}: {error}", file=sys.stderr)
            continue
        agreed[name] = peers.agreement(implementation, head, expected)[1]
        calls[name] = partial(implementation.run, x)
    return calls, agreed


def batch(setting: Setting, threads: int) -> Answer:
    """How many vectors per second, and how close is that to the matrix product alone?"""
    problem = setting.smaller(problems.BATCH)
    table, seconds, roof = _encode(problem, threads, setting.rounds, setting.sgemm)
    reached = problem.flops / seconds[OURS] / roof
    work = f"encode, {problem.label}"
    checks = [Check(work, "≥ 1.4 x sgemm rate (goal 2.0)", threads, reached, 1.4)]
    for name, bound in ((FAISS, 4), (TORCH, 8), (LUCID, 15)):
        value = ratio(seconds.get(name), seconds[OURS])
        checks.append(Check(work, f"≥ {bound} x {name}", threads, value, bound))
    return Answer([table], checks)


def fitted_batch(setting: Setting, threads: int) -> Answer:
    """The same with codebooks fitted to vectors, and other vectors of the same kind."""
    problem = setting.smaller(problems.BATCH)
    data, what = fitted_data(problem)
    problem = problem._replace(dim=data[0].shape[1])
    table, seconds, roof = _encode(problem, threads, setting.rounds, setting.sgemm, data, what)
    reached = problem.flops / seconds[OURS] / roof
    work = f"encode, fitted to {what}, {problem.label}"
    return Answer([table], [Check(work, "≥ 1.4 x sgemm rate", threads, reached, 1.4)])


@functools.cache
def fitted_data(problem: Problem) -> tuple[tuple[np.ndarray, np.ndarray], str]:
    """Return vectors and codebooks fitted to others of their kind, and which vectors they are."""
    if searching.VECTORS in os.environ:
        with np.load(os.environ[searching.VECTORS]) as archive:
            found = archive["train"].astype(np.float32)
        what = f"vectors of {os.path.basename(os.environ[searching.VECTORS])}"
    else:
        found, what = vectors(4 * problem.rows, problem.dim, 0), "clustered vectors"
    train, x = found[: -problem.rows], np.ascontiguousarray(found[-problem.rows :])
    dim = found.shape[1]
    rvq = rvq_np.ResidualVectorQuantizer(dim, dim, n_q=problem.stages, bins=problem.size, rng=0)
    rvq.fit(train, iterations=5)
    return (x, np.stack([stage.codebook for stage in rvq.codebooks])), what


def narrow(setting: Setting, threads: int) -> Answer:
    """The same with short codewords, where the argmin is the cost, not the product."""
    problem = setting.smaller(problems.NARROW._replace(rows=8192))
    return Answer([_encode(problem, threads, min(3, setting.rounds), setting.sgemm)[0]])


def _encode(
    problem: Problem,
    threads: int,
    rounds: int,
    sgemm: peers.Sgemm,
    data: tuple[np.ndarray, np.ndarray] | None = None,
    what: str = "",
) -> tuple[Table, dict[str, float], float]:
    """Return the table of all implementations, their seconds, and the flops per second of sgemm."""
    x, codebooks = data or problem.data()
    with fixed_threads(threads):
        calls, agreed = implementations(peers.IMPLEMENTATIONS, codebooks, x)
        sgemm()
        what = f", fitted to {what}" if what else ""
        question = f"encode{what}, {problem.label}, {plural(threads)}"
        seconds = round_robin({**calls, sgemm.name: sgemm}, rounds, question)
    roof = sgemm.flops / seconds.pop(sgemm.name)
    rows = []
    for name, each in sorted(seconds.items(), key=lambda item: item[1]):
        rate = problem.flops / each
        speed = (f"{problem.rows / each:,.0f}", f"{rate / 1e9:.1f}")
        ratios = (f"{seconds[OURS] / each:.2f}", f"{rate / roof:.2f}")
        rows.append((name, duration(each), *speed, *ratios, f"{agreed[name]:.3%}"))
    rows.append((sgemm.name, "", "", f"{roof / 1e9:.1f}", "", "1.00", ""))
    header = ("", "a call", "vectors/s", "GFLOP/s", "ours = 1", "sgemm = 1", "same codes")
    return (
        Table(f"Encode{what}: {problem.label}; {plural(threads)}", "", header, rows),
        seconds,
        roof,
    )


def frame(setting: Setting, threads: int) -> Answer:
    """How long does one frame of a stream take, and how long at the 99th percentile?"""
    x, codebooks = problems.FRAME.data()
    label = f"one frame, {problems.FRAME.label}"
    with fixed_threads(threads):
        makers = dict(peers.IMPLEMENTATIONS)
        if "out" in signature(rvq_np.encode).parameters:
            makers["rvq_np, out= reused"] = _ours_reusing
        calls, agreed = implementations(makers, codebooks, x)
        seconds = round_robin(calls, setting.rounds, f"{label}, {plural(threads)}")
        spread = {name: singles(call, setting.singles) for name, call in calls.items()}
    quantiles = {name: np.percentile(each, (50, 90, 99)) for name, each in spread.items()}
    rows = [
        (name, duration(each), *map(duration, quantiles[name]),
         f"{quantiles[name][2] / quantiles[name][0]:.2f}", f"{seconds[OURS] / each:.2f}",
         f"{agreed[name]:.3%}")
        for name, each in sorted(seconds.items(), key=lambda item: item[1])
    ]  # fmt: skip
    note = (
        f"One frame is bound by reading the tables, not by arithmetic. Percentiles are over "
        f"{setting.singles} single calls in a row."
    )
    header = ("", "a call", "p50", "p90", "p99", "p99 / p50", "ours = 1", "same codes")
    checks = [
        Check(label, f"≤ 1/{bound} x the time of {name}", threads,
              ratio(seconds[OURS], seconds.get(name)), 1 / bound, False)
        for name, bound in ((FAISS, 4), (TORCH, 8))
    ]  # fmt: skip
    worst = float(quantiles[OURS][2] / quantiles[OURS][0])
    checks.append(Check(label, "p99 ≤ 3 x p50", threads, worst, 3, False))
    return Answer([Table(f"O{label[1:]}; {plural(threads)}", note, header, rows)], checks)


def _ours_reusing(codebooks: np.ndarray) -> peers.Implementation:
    books = rvq_np.Codebooks(codebooks)
    dispatch.load()
    held: dict[int, np.ndarray] = {}

    def run(x):
        out = held.get(len(x))
        if out is None:
            out = held[len(x)] = np.empty((books.n_q, len(x)), np.int32)
        return rvq_np.encode(x, books, out=out)

    return peers.Implementation(run, np.asarray)


def dac(setting: Setting, threads: int) -> Answer:
    """How long does one frame take through DAC's projections?"""
    names = OURS, "torch, DAC's module"
    makers = dict(zip(names, (peers.dac_ours, peers.dac_torch), strict=True))
    tables, checks = [], []
    for count in (1, 512 if setting.quick else 4096):
        x, stages = problems.mapped(count)
        label = f"DAC's shape (9 stages, 1024 -> 8 -> 1024, cosine), K=1024, N={count}"
        with fixed_threads(threads):
            calls, agreed = implementations(makers, stages, x)
            seconds = round_robin(calls, setting.rounds, f"{label}, {plural(threads)}")
        rows = [
            (name, duration(each), f"{count / each:,.0f}", f"{seconds[OURS] / each:.2f}",
             f"{agreed[name]:.3%}")
            for name, each in sorted(seconds.items(), key=lambda item: item[1])
        ]  # fmt: skip
        note = (
            "torch's module decodes as well, and normalizes its codewords in each call. Codewords "
            "have norm one here, so that the nearest one has the largest cosine."
        )
        header = ("", "a call", "vectors/s", "ours = 1", "same codes")
        tables.append(Table(f"{label}; {plural(threads)}", note, header, rows))
        if count == 1:
            value = ratio(seconds[OURS], seconds.get(names[1]))
            target = "≤ 1/5 x the time of the torch module"
            checks.append(Check(f"one frame, {label}", target, threads, value, 0.2, False))
    return Answer(tables, checks)


def beam(setting: Setting, threads: int) -> Answer:
    """How fast is beam search, and is its error as low?"""
    problem = setting.smaller(Problem(dim=128, size=1024, stages=4, rows=4096), 512)
    x, codebooks = problem.data()
    books = rvq_np.Codebooks(codebooks)
    dispatch.load()
    with_tables = f"{FAISS}, use_beam_LUT"
    tables, checks = [], []
    for size in (5, 16):
        label = f"beam {size}, {problem.label}"
        calls: Calls = {OURS: partial(rvq_np.encode, x, books, beam_size=size)}
        errors = {}
        with fixed_threads(threads):
            errors[OURS] = _error(x, codebooks, calls[OURS]())
            for name, lookup in ((FAISS, False), (with_tables, True)):
                try:
                    peer = peers.faiss_residual(codebooks, size, lookup)
                except ImportError:
                    continue
                errors[name] = _error(x, codebooks, peer.codes(peer.run(x)))
                calls[name] = partial(peer.run, x)
            rounds = min(3, setting.rounds)
            seconds = round_robin(calls, rounds, f"{label}, {plural(threads)}")
        rows = [
            (name, duration(each), f"{problem.rows / each:,.0f}", f"{seconds[OURS] / each:.2f}",
             f"{errors[name]:.5f}")
            for name, each in sorted(seconds.items(), key=lambda item: item[1])
        ]  # fmt: skip
        note = (
            "With use_beam_LUT, not its default, Faiss looks up products of codewords. Error: mean "
            "squared error per dimension."
        )
        header = ("", "a call", "vectors/s", "ours = 1", "error")
        tables.append(Table(f"Encode, {label}; {plural(threads)}", note, header, rows))
        for name, bound in ((FAISS, 4), (with_tables, 3)):
            value = ratio(seconds.get(name), seconds[OURS])
            good = errors[OURS] <= SLACK * errors.get(name, np.inf)
            target = f"≥ {bound} x {name}, error no higher"
            checks.append(Check(f"encode, {label}", target, threads, value, bound, needs=good))
    return Answer(tables, checks)


def _error(x: np.ndarray, codebooks: np.ndarray, codes: np.ndarray) -> float:
    """Return the mean squared error per dimension, computed without rvq_np."""
    residual = x.astype(np.float64)
    for book, code in zip(codebooks, codes, strict=True):
        residual -= book[code]
    return float(np.square(residual).mean())
