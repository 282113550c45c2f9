"""Seconds on the card, by its own events, and seconds that a caller waits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .desk import Desk

SAMPLE = 0.02  # seconds a measurement lasts at least: shorter calls are repeated
ENOUGH = 4.0  # seconds after which contestants get no further round

Call = Callable[[], object]


def in_turns(
    desk: Desk, calls: Mapping[str, Sequence[Call]], work: str, rounds: int = 7
) -> dict[str, float]:
    """Return the median seconds of a call, by name, for those that can be called at all.

    The calls of one name differ in their inputs and are made in rotation.  Contestants take turns,
    and every round starts with another one: the clock of a card depends on what it has just done.
    All work must be queued on the card's default stream, where the events are.
    """
    begun = time.perf_counter()
    rounds = desk.size(rounds, 2)
    repeats: dict[str, int] = {}
    for name, each in calls.items():
        with desk.fence(name, work):
            for call in each:  # warm: compiled, allocated
                call()
            once = min(_batch(desk.xp, each, 1) for _ in range(2))
            repeats[name] = desk.size(max(1, min(2000, int(SAMPLE / max(once, 1e-9)))), 1)
    seconds: dict[str, list[float]] = {name: [] for name in repeats}
    broken: set[str] = set()
    for turn in range(rounds):
        names = [name for name in repeats if name not in broken]
        shift = turn % max(1, len(names))
        for name in names[shift:] + names[:shift]:
            broken.add(name)
            with desk.fence(name, work):
                seconds[name].append(_batch(desk.xp, calls[name], repeats[name]))
                broken.discard(name)
        if turn >= 2 and (time.perf_counter() - begun > ENOUGH or desk.left < 5.0):
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
    """Return the seconds a caller waits for the card to be done: the median and the 99th of 100."""
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
