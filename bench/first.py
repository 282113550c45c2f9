"""``python -m bench.first WHAT NAME ROWS``: the first training call of a new quantizer, or memory.

One process per measurement: a process over the time limit is killed, and a peak of memory never
decreases within one. WHAT is "call": prints its seconds, with k-means; or "memory": prints the
bytes that a training step of fitted codebooks needs in addition.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time

from . import fitted
from .machine import ROOT
from .quantizers import IMPLEMENTATIONS

ITERATIONS = 3  # of k-means
LIMIT = 60  # seconds per call, and 30 to prepare: then the process is killed
ABSENT = 3  # exit code if the implementation is not installed


def calls(names: list[str], rows: int, threads: int, rounds: int) -> dict[str, float]:
    """Return the median seconds of the first training call, by name; implementations take turns."""
    taken: dict[str, list[float]] = {name: [] for name in names}
    begun = time.perf_counter()
    for turn in range(rounds):
        for name in [*names[turn % len(names) :], *names[: turn % len(names)]]:
            if taken[name] and (taken[name][0] >= LIMIT or math.isnan(taken[name][0])):
                continue
            print(f"first call, N={rows}: {name}, round {turn + 1}", file=sys.stderr, flush=True)
            taken[name].append(_asked("call", name, rows, threads))
        if time.perf_counter() - begun > LIMIT:
            break
    seconds = {name: statistics.median(each) for name, each in taken.items()}
    return {name: each for name, each in seconds.items() if not math.isnan(each)}


def memory(name: str, rows: int, threads: int) -> float:
    """Return the bytes a training step takes above its batch; NaN if `name` is not installed."""
    return _asked("memory", name, rows, threads)


def _asked(what: str, name: str, rows: int, threads: int) -> float:
    count = str(threads)
    limits = {"RVQ_NP_NUM_THREADS": count, "OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count}
    if what == "memory":
        limits["MALLOC_ARENA_MAX"] = "1"
    command = [sys.executable, "-m", "bench.first", what, name, str(rows)]
    child = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **limits}, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        printed, _ = child.communicate(timeout=LIMIT + 30)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return LIMIT if what == "call" else math.nan
    if child.returncode not in (0, ABSENT):
        raise RuntimeError(f"bench.first {what} failed for {name}, {rows} vectors")
    return float(printed) if child.returncode == 0 else math.nan


def main(what: str, name: str, rows: int) -> None:
    """Measure and print."""
    from rvq_np.kernels import dispatch

    from . import probe

    dispatch.load()
    shape = fitted.DEFAULTS
    items, length = (4, rows // 4) if rows % 4 == 0 else (1, rows)
    batches = [fitted.batch(shape, items, length, seed) for seed in (1, 2)]
    make = IMPLEMENTATIONS[name]
    if what == "memory":
        step = make(shape, batches, fitted.state(shape, rows)).step
        step()
        step()
        print(probe.above(step)[0])
        return
    # The one-time costs of a process, on a few vectors: threads, and loading kernels.
    small = fitted.Shape(16, 32, 1, 4)
    warm = make(small, [fitted.batch(small, 1, 64)], None, kmeans_iters=1)
    warm.step()
    step = make(shape, batches, None, kmeans_iters=ITERATIONS).step
    begun = time.perf_counter()
    step()
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except ImportError:
        raise SystemExit(ABSENT) from None
