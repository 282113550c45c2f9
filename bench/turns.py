"""Measuring implementations whose times may differ by a factor of a thousand."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping

from . import before
from .quantizers import ESPNET, Call
from .report import Check, Table, duration, plural, ratio
from .timing import round_robin

SLOW = 8.0  # seconds: a call that takes longer is measured once
ENOUGH = 10.0  # seconds per cell of a table
HEADER = ("", "a call", "vectors/s", "ESPnet = 1", "before", "before, ESPnet = 1")
BEFORE = (
    "Before: two cores with AVX2, torch 2.13, ESPnet 202511, another machine, with the kernels of "
    "0.1.0 (see before.py). ESPnet = 1 is speed: above 1 is faster than ESPnet's class."
)


def measured(calls: Mapping[str, Call], rounds: int, label: str) -> dict[str, float]:
    """Return the median seconds of a call, by name; slow implementations take no turns."""
    seconds = {}
    for name, call in calls.items():
        begun = time.perf_counter()
        call()
        seconds[name] = time.perf_counter() - begun
        if seconds[name] > SLOW:
            print(f"{label}: {name} takes {seconds[name]:.0f} s a call", file=sys.stderr)
    quick = {name: call for name, call in calls.items() if seconds[name] <= SLOW}
    if quick:
        seconds.update(round_robin(quick, rounds, label, ENOUGH))
    return seconds


def table(work: str, seconds: Mapping[str, float], rows: int, threads: int, note: str) -> Table:
    """Return the table of one task: now, and before."""
    lines = []
    for name, each in sorted(seconds.items(), key=lambda item: item[1]):
        against = ratio(seconds.get(ESPNET), each)
        lines.append((name, duration(each), f"{rows / each:,.0f}", f"{against:.2f}",
                      *before.shown(work, name)))  # fmt: skip
    return Table(f"{work}; {plural(threads)}", note, HEADER, lines)


def checks(
    work: str, seconds: Mapping[str, float], threads: int, bound: float, names: Iterable[str]
) -> list[Check]:
    """Return whether each of `names` is `bound` times as fast as ESPnet's class."""
    return [
        Check(f"{work}, {name.removeprefix('rvq_np, ')}", f"≥ {bound:g} x {ESPNET}", threads,
              ratio(seconds.get(ESPNET), seconds.get(name)), bound)
        for name in names
    ]  # fmt: skip
