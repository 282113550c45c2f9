"""Seconds on the GPU, by CUDA events, and seconds that a caller waits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .context import Context

SAMPLE = 0.02  # seconds per measurement, at least: shorter calls are repeated
ENOUGH = 4.0  # seconds after which no further round begins

Call = Callable[[], object]


def in_turns(
    context: Context, calls: Mapping[str, Sequence[Call]], work: str, rounds: int = 7
) -> dict[str, float]:
    """Return the median seconds of a call, by name, without those that fail.

    The calls of one name differ in their inputs and are made in rotation.  Implementations take
    turns, and every round starts with another one: the clock of a GPU depends on its previous work.
    All work must be queued on the default stream of the GPU, as the events are.
    """
    begun = time.perf_counter()
    rounds = context.size(rounds, 2)
    repeats: dict[str, int] = {}
    for name, each in calls.items():
        with context.fence(name, work):
            for call in each:  # warm: compiled, allocated
                call()
            once = min(_batch(context.xp, each, 1) for _ in range(2))
            repeats[name] = context.size(max(1, min(2000, int(SAMPLE / max(once, 1e-9)))), 1)
    seconds: dict[str, list[float]] = {name: [] for name in repeats}
    broken: set[str] = set()
    for turn in range(rounds):
        names = [name for name in repeats if name not in broken]
        shift = turn % max(1, len(names))
        for name in names[shift:] + names[:shift]:
            broken.add(name)
            with context.fence(name, work):
                seconds[name].append(_batch(context.xp, calls[name], repeats[name]))
                broken.discard(name)
        if turn >= 2 and (time.perf_counter() - begun > ENOUGH or context.left < 5.0):
            break
    return {
        name: statistics.median(each)
        for name, each in seconds.items()
        if each and name not in broken
    }


def _batch(xp: Any, calls: Sequence[Call], repeats: int) -> float:
    begin, end = xp.cuda.Event(), xp.cuda.Event()
    begin.record()
    for turn in range(repeats):
        calls[turn % len(calls)]()
    end.record()
    end.synchronize()
    return xp.cuda.get_elapsed_time(begin, end) * 1e-3 / repeats


def waits(xp: Any, call: Call, count: int) -> tuple[float, float]:
    """Return the seconds until the GPU has finished a call: the median and the 99th percentile."""
    device = xp.cuda.Device()
    seconds = []
    for turn in range(count + max(3, count // 10)):
        start = time.perf_counter()
        call()
        device.synchronize()
        if turn >= max(3, count // 10):
            seconds.append(time.perf_counter() - start)
    seconds.sort()
    return statistics.median(seconds), seconds[min(len(seconds) - 1, len(seconds) * 99 // 100)]
