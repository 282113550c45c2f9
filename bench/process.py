"""Whole processes: time to the first codes, and peak memory."""

from __future__ import annotations

import math
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


# With kernels compiled ahead of time; what each process prints: seconds of the call, peak memory.
_DATA = """
import time
import numpy as np, rvq_np
codebooks = np.sin(np.arange(8 * 1024 * 128, dtype=np.float32)).reshape(8, 1024, 128)
x = np.cos(np.arange({rows} * 128, dtype=np.float32)).reshape({rows}, 128)
start = time.perf_counter()
"""
_END = """
print(time.perf_counter() - start)
try:  # not ru_maxrss, which includes the process before exec
    with open("/proc/self/status") as file:
        print(next(int(line.split()[1]) for line in file if line.startswith("VmHWM")))
except OSError:
    print("nan")
"""
_BEAM = "rvq_np.encode(x, codebooks, beam_size=4)"
_STEP = "rvq_np.ResidualVectorQuantizer(128, codebook_dim=128, n_q=2, bins=64, rng=0)(x, 50)"
_FIRST_CALLS = {  # rows, call, limit of the whole process in seconds
    "first codes": (1024, "rvq_np.encode(x, codebooks)", 0.35),
    "first codes of many": (16384, "rvq_np.encode(x, codebooks)", 0.6),
    "first beam search of four": (1024, _BEAM, None),
    "first training step": (1024, _STEP, None),
}


def prebuilt(setting: Setting, threads: int) -> Answer:
    """How long do first calls take: from a library of kernels, and from Numba's cache?"""
    rounds = 2 if setting.quick else 7
    with tempfile.TemporaryDirectory() as folder:
        library = os.path.join(folder, "kernels.so")
        print("start-prebuilt: rvq-np compile", file=sys.stderr, flush=True)
        if os.environ.get("RVQ_NP_KERNELS", "0") != "0":  # one that is there
            library = os.path.abspath(os.environ["RVQ_NP_KERNELS"])
        elif run(["-m", "rvq_np", "compile", "-o", library]) is None:
            return Answer([])  # no C compiler
        engines = {
            "library": {"RVQ_NP_KERNELS": library},
            "Numba's cache": {"RVQ_NP_KERNELS": "0", "NUMBA_CACHE_DIR": folder},
        }
        scripts = {
            (name, engine): (_DATA.format(rows=rows) + call + _END, variables)
            for name, (rows, call, _) in _FIRST_CALLS.items()
            for engine, variables in engines.items()
        }
        empty = {
            name: (_DATA.format(rows=each[0]) + _END, {}) for name, each in _FIRST_CALLS.items()
        }
        taken: dict[object, list[tuple[float, float, float]]] = {}
        for turn in range(rounds + 1):
            print(f"start-prebuilt: round {turn}/{rounds}", file=sys.stderr, flush=True)
            for key, (script, variables) in [*scripts.items(), *empty.items()]:
                each = run(["-c", script], **variables)
                if each is None:
                    raise RuntimeError(f"{key} failed in a fresh process")
                if turn > 0:  # the first fills Numba's cache
                    seconds, peak = map(float, each[1].split())
                    taken.setdefault(key, []).append((each[0], seconds, peak * 1024))
    median = {
        key: [statistics.median(each) for each in zip(*found, strict=True)]
        for key, found in taken.items()
    }
    rows, checks = [], []
    for (name, engine), (whole, call, peak) in ((key, median[key]) for key in scripts):
        count, _, limit = _FIRST_CALLS[name]
        more = peak - median[name][2]
        rows.append((f"{name}, N={count}", engine, duration(whole), duration(call),
                     "-" if math.isnan(more) else f"{more / 2**20:.0f} MiB"))  # fmt: skip
        if engine == "library" and limit is not None:
            label = f"process start to {name}, D=128, K=1024, Q=8, N={count}, library of kernels"
            checks.append(_within(label, f"≤ {limit} s, nothing cached", whole, limit))
    note = (
        "`rvq-np compile` for this processor; whole processes with their data, and the call in "
        "them. Memory above a process that makes the same data and calls nothing."
    )
    header = ("", "kernels", "whole process", "the call", "memory")
    return Answer([Table("First calls", note, header, rows, 2)], checks)


def starting(setting: Setting, threads: int) -> Answer:
    """How long until a fresh process has its first codes, with and without Numba's cache?"""
    rounds = 2 if setting.quick else 5
    taken: dict[str, list[float]] = {name: [] for name in _SCRIPTS}
    for turn in range(rounds + 1):
        print(f"start: round {turn}/{rounds}", file=sys.stderr, flush=True)
        for name, script in _SCRIPTS.items():
            each = run(["-c", script], RVQ_NP_KERNELS="0")
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
        done = run(["-c", _BATCH], NUMBA_CACHE_DIR=folder, RVQ_NP_KERNELS="0")
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
