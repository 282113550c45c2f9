"""Implementations take turns, so that other load of the machine affects all of them."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np

# Seconds. Idle threads of OpenBLAS spin for up to 0.1, and would take a core from the next one.
PAUSE = 0.15
SAMPLE = 0.05  # seconds per measurement, at least: shorter calls are repeated
ENOUGH = 60.0  # seconds after which no further round begins


def round_robin(
    calls: Mapping[str, Callable[[], object]], rounds: int, question: str, enough: float = ENOUGH
) -> dict[str, float]:
    """Return the median seconds of a call, by name, each call measured once per round.

    Calls must be warm: made once, for verification. Every round starts with another implementation,
    so that none always runs after the same one. After `enough` seconds there are no further rounds,
    which limits the time on a slow machine.
    """
    begun = time.perf_counter()
    names = list(calls)
    repeats = {name: _repeats(calls[name]) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        shift = turn % len(names)
        print(f"{question}: round {turn + 1}/{rounds}", file=sys.stderr, flush=True)
        for name in names[shift:] + names[:shift]:
            time.sleep(PAUSE)
            seconds[name].append(_seconds(calls[name], repeats[name]))
        if time.perf_counter() - begun > enough:
            break
    return {name: statistics.median(each) for name, each in seconds.items()}


def singles(call: Callable[[], object], count: int) -> np.ndarray:
    """Return the seconds of each of `count` single calls in a row: for percentiles."""
    seconds = np.empty(count)
    time.sleep(PAUSE)
    for turn in range(count):
        start = time.perf_counter_ns()
        call()
        seconds[turn] = (time.perf_counter_ns() - start) * 1e-9
    return seconds


def _repeats(call: Callable[[], object]) -> int:
    once = _seconds(call, 1)
    if once < SAMPLE:
        once = min(once, _seconds(call, 1))
    return max(1, min(1000, int(SAMPLE / max(once, 1e-9))))


def _seconds(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats
