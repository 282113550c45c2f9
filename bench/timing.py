"""Contestants take turns, so that whatever else the machine does hits all of them."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np

# Seconds. Idle threads of OpenBLAS spin for up to 0.1, and would take a core from whoever is next.
PAUSE = 0.15
SAMPLE = 0.05  # seconds a measurement lasts at least: shorter calls are repeated
ENOUGH = 60.0  # seconds after which a question gets no further round


def round_robin(
    calls: Mapping[str, Callable[[], object]], rounds: int, question: str, enough: float = ENOUGH
) -> dict[str, float]:
    """Return the median seconds of a call, by name, each call measured once a round.

    Calls are warm when they come here: whoever verified them has made them once. Every round
    starts with another contestant, so that nobody always runs after the same neighbour. After
    `enough` seconds there are no further rounds, so that a slow machine comes to an end.
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
