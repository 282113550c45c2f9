"""Whole processes: time to the first codes, and peak memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

from .machine import ROOT
from .report import Answer, Check, Table, duration, plural
from .setting import Setting

LIMIT = 32 << 20  # bytes above input and output

# Codebooks that are cheap to compute; NumPy encodes one frame, a batch loads Numba.
_ENCODE = """
import numpy as np, rvq_np
codebooks = np.sin(np.arange(8 * 1024 * 128, dtype=np.float32)).reshape(8, 1024, 128)
x = np.cos(np.arange({rows} * 128, dtype=np.float32)).reshape({rows}, 128)
import time; start = time.perf_counter()
rvq_np.encode(x, codebooks)
print(time.perf_counter() - start)
"""
_FRAME, _BATCH = _ENCODE.format(rows=1), _ENCODE.format(rows=1024)
_NUMPY, _IMPORT, _USE = "import numpy", "import rvq_np", "import rvq_np and name encode"
_SCRIPTS = {
    "python alone": "pass",
    _NUMPY: "import numpy",
    _IMPORT: "import rvq_np",
    _USE: "import rvq_np; rvq_np.encode",
    "first codes, N=1": _FRAME,
    "first codes, N=1024": _BATCH,
    "import faiss": "import faiss",
    "import torch": "import torch",
}


def starting(setting: Setting, threads: int) -> Answer:
    """How long until a fresh process has its first codes, with and without Numba's cache?"""
    rounds = 2 if setting.quick else 5
    taken: dict[str, list[float]] = {name: [] for name in _SCRIPTS}
    for turn in range(rounds + 1):
        print(f"start: round {turn}/{rounds}", file=sys.stderr, flush=True)
        for name, script in _SCRIPTS.items():
            each = run(["-c", script])
            if turn > 0 and each is not None:  # the first warms the caches of files and of Numba
                taken[name].append(each[0])
    seconds = {name: statistics.median(each) for name, each in taken.items() if each}
    cold = [_cold() for _ in range(1 if setting.quick else 3)]
    whole, call = (statistics.median(each) for each in zip(*cold, strict=True))
    label = "process start to first codes, D=128, K=1024, Q=8"
    checks = [
        _within(f"{label}, N=1", "≤ 0.6 s, warm cache", seconds["first codes, N=1"], 0.6),
        _within(f"{label}, N=1024", "≤ 0.6 s, warm cache", seconds["first codes, N=1024"], 0.6),
        _within(f"{label}, N=1024", "≤ 3 s, nothing compiled yet", whole, 3.0),
    ]
    for name in (_IMPORT, _USE):
        more = seconds[name] - seconds[_NUMPY]
        target, shown = "≤ NumPy's import + 40 ms", f"NumPy's {1e3 * more:+.0f} ms"
        checks.append(Check(name, target, None, more, 0.040, False, shown))
    rows = [(name, duration(each)) for name, each in seconds.items()]
    rows.append(("first codes, N=1024, nothing compiled", duration(whole)))
    rows.append(("the call to encode in that process", duration(call)))
    note = (
        "Whole processes, from start to end. The first small calls of a process use NumPy, without "
        "Numba: see N=1. N=1024 needs Numba, whose cache is warm except in the last two lines, "
        "where it is a new, empty folder. rvq_np loads NumPy and most of itself when a name is "
        "first used, hence the line that names encode."
    )
    return Answer([Table("Start of a process", note, ("", "wall time"), rows)], checks)


def _within(work: str, target: str, seconds: float, bound: float) -> Check:
    return Check(work, target, None, seconds, bound, False, duration(seconds))


def _cold() -> tuple[float, float]:
    """Return the seconds of a process that compiles all kernels, and of the one call in it."""
    with tempfile.TemporaryDirectory() as folder:
        done = run(["-c", _BATCH], NUMBA_CACHE_DIR=folder)
    if done is None:
        raise RuntimeError("encoding failed in a fresh process")
    return done[0], float(done[1])


def run(arguments: list[str], **variables: str) -> tuple[float, str] | None:
    """Return how long a fresh interpreter takes and what it prints, None if it fails."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return (time.perf_counter() - start, done.stdout) if done.returncode == 0 else None


def memory(setting: Setting, threads: int) -> Answer:
    """How much memory does a call take in addition to its input and output?"""
    rows, checks = [], []
    for count in (10_000,) if setting.quick else (100_000, 1_000_000):
        print(f"memory, N={count}, {plural(threads)}", file=sys.stderr, flush=True)
        done = run(
            ["-m", "bench.probe", str(count)],
            RVQ_NP_NUM_THREADS=str(threads),
            MALLOC_ARENA_MAX="1",
        )
        if done is None:
            raise RuntimeError(f"bench.probe failed for {count} rows")
        for what, taken in zip(("encode", "decode"), map(int, done[1].split()), strict=True):
            shown = f"{taken / 2**20:.1f} MiB"
            work = f"peak memory of {what}, D=128, K=1024, Q=8, N={count}"
            rows.append((f"{what}, N={count}", shown))
            target = "≤ 32 MiB above input and output"
            checks.append(Check(work, target, threads, taken, LIMIT, False, shown))
    note = "After a warm-up call that prepared the tables. One process each; see probe.py."
    header = ("", "above input and output")
    return Answer([Table(f"Peak memory; {plural(threads)}", note, header, rows)], checks)
