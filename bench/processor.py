"""What one instruction set reaches, beside other libraries that use the same: one table a run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from functools import partial

import numpy as np

import rvq_np
from rvq_np.kernels import dispatch

from . import peers, problems
from .decoding import DECODERS
from .encoding import FAISS, NUMPY, OURS, TORCH, fitted_data, implementations
from .machine import instructions
from .report import Answer, Check, Table, duration, plural, ratio
from .setting import Setting
from .threads import fixed_threads
from .timing import round_robin

SGEMM = {"avx512f": 2.3}  # times its rate, random codebooks
FITTED, USUAL = 1.4, 1.5
OF_PEERS = {FAISS: 6, TORCH: 11}  # times as fast
FRAME = {FAISS: 5, TORCH: 10}
DECODE, NARROW = 8, 2.5  # times torch's embedding sum; times NumPy
ROUNDS = 3
DIMS = (8, 16, 32, 64)
MAKERS = {OURS: peers.ours, FAISS: peers.faiss_residual, TORCH: peers.torch_encodec}


def processor(setting: Setting, threads: int) -> Answer:
    """How fast is it on this instruction set?  Encoding, one frame, decoding, short codewords."""
    rows: list[tuple[str, ...]] = []
    checks: list[Check] = []
    problem = setting.smaller(problems.BATCH)
    random = problem.data()
    fitted, what = fitted_data(problem)
    kinds = {"random codebooks": (random, SGEMM.get(instructions(), USUAL)),
             f"fitted to {what}": (fitted, FITTED)}  # fmt: skip
    for kind, (data, bound) in kinds.items():
        found = _encode(setting, threads, f"encode, {kind}, {problem.label}", data, bound)
        rows.append(found[0])
        checks += found[1]
    for kind, (data, _) in kinds.items():
        one = data[0][:1], data[1]
        found = _frame(setting, threads, f"one frame, {kind}, {problems.FRAME.label}", one)
        rows.append(found[0])
        checks += found[1]
    for count in (problem.rows, 4 * problem.rows):
        found = _decode(setting, threads, problem._replace(rows=count))
        rows.append(found[0])
        checks += found[1]
    for dim in DIMS:
        narrow = setting.smaller(problems.Problem(dim, 256, 8, 8192))
        found = _narrow(setting, threads, narrow)
        rows.append(found[0])
        checks += found[1]
    header = ("", "rvq_np", "sgemm = 1", "x Faiss", "x torch", "x NumPy")
    title = f"Against sgemm, Faiss and torch; {plural(threads)}"
    note = (
        "sgemm is 4096³ by NumPy's BLAS; Faiss has a beam of one; torch computes EnCodec's "
        "formula, and to decode a sum of embeddings; NumPy is matmul and argmin."
    )
    return Answer([Table(title, note, header, rows)], checks)


def _row(work: str, seconds: dict[str, float], **others: float) -> tuple[str, ...]:
    """Return a row of the table: `others` by the column."""
    columns = [others.get(name, math.nan) for name in ("sgemm", "faiss", "torch", "numpy")]
    cells = ["" if math.isnan(each) else f"{each:.2f}" for each in columns]
    return (work, duration(seconds[OURS]), *cells)


def _encode(setting: Setting, threads: int, label: str, data, bound: float):
    x, codebooks = data
    sgemm = setting.sgemm
    with fixed_threads(threads):
        calls, _ = implementations(MAKERS, codebooks, x)
        sgemm()
        seconds = round_robin({**calls, sgemm.name: sgemm}, ROUNDS, f"{label}, {plural(threads)}")
    flops = 2 * x.size * codebooks.shape[0] * codebooks.shape[1]
    reached = flops / seconds[OURS] / (sgemm.flops / seconds.pop(sgemm.name))
    times = {name: ratio(seconds.get(name), seconds[OURS]) for name in (FAISS, TORCH)}
    checks = [Check(label, f"≥ {bound} x sgemm rate", threads, reached, bound)]
    checks += [
        Check(label, f"≥ {OF_PEERS[name]} x {name}", threads, value, OF_PEERS[name])
        for name, value in times.items()
    ]
    return _row(label, seconds, sgemm=reached, faiss=times[FAISS], torch=times[TORCH]), checks


def _frame(setting: Setting, threads: int, label: str, data):
    x, codebooks = np.ascontiguousarray(data[0]), data[1]
    with fixed_threads(threads):
        calls, _ = implementations(MAKERS, codebooks, x)
        seconds = round_robin(calls, setting.rounds, f"{label}, {plural(threads)}")
    times = {name: ratio(seconds.get(name), seconds[OURS]) for name in (FAISS, TORCH)}
    checks = [
        Check(label, f"≤ 1/{FRAME[name]} x the time of {name}", threads, 1 / value,
              1 / FRAME[name], False)
        for name, value in times.items()
    ]  # fmt: skip
    return _row(label, seconds, faiss=times[FAISS], torch=times[TORCH]), checks


def _decode(setting: Setting, threads: int, problem: problems.Problem):
    _, codebooks = problem._replace(rows=1).data()
    rng = np.random.default_rng(5)
    codes = rng.integers(0, problem.size, (problem.stages, problem.rows), dtype=np.int32)
    label, name = f"decode, {problem.label}", "torch embedding"
    calls: dict[str, Callable[[], object]] = {}
    with fixed_threads(threads):
        books = rvq_np.Codebooks(codebooks)
        dispatch.load()
        calls[OURS] = partial(rvq_np.decode, codes, books)
        with contextlib.suppress(ImportError):
            calls[name] = DECODERS[name](codebooks, codes)
        expected = calls[OURS]()
        for call in calls.values():
            np.testing.assert_allclose(np.asarray(call()), expected, rtol=0, atol=1e-4)
        seconds = round_robin(calls, setting.rounds, f"{label}, {plural(threads)}")
    value = ratio(seconds.get(name), seconds[OURS])
    check = Check(label, f"≥ {DECODE} x {name} sum", threads, value, DECODE)
    return _row(label, seconds, torch=value), [check]


def _narrow(setting: Setting, threads: int, problem: problems.Problem):
    x, codebooks = problem.data()
    label = f"encode, {problem.label}"
    makers = {OURS: peers.ours, NUMPY: peers.numpy_loop}
    with fixed_threads(threads):
        calls, _ = implementations(makers, codebooks, x)
        seconds = round_robin(calls, ROUNDS, f"{label}, {plural(threads)}")
    value = seconds[NUMPY] / seconds[OURS]
    check = Check(label, f"≥ {NARROW} x {NUMPY}", threads, value, NARROW)
    return _row(label, seconds, numpy=value), [check]
