"""How fast are training and beam search? The targets that stand beside those of quality."""

from __future__ import annotations

import math
from functools import partial

import rvq_np

from .encoding import beam
from .machine import instructions
from .problems import clustered
from .quality_report import below
from .report import Check, duration, targets
from .setting import Setting
from .threads import fixed_threads, imported
from .timing import round_robin
from .training import clustering, stepping, wide

QUESTIONS = (beam, clustering, wide, stepping)
CLUSTERED = (65536, 128, 1024), (32768, 512, 8192)  # rows, dimension, codewords of k-means

# What bounds a target that is not reached; docs/performance.md says more.
BOUNDS = {
    "encode, beam": (
        "candidates that the bounds do not exclude are ranked in float64, so that the answer is "
        "defined; Faiss ranks in float32"
    ),
    "EMA training step": (
        "the search and the packing of codewords use all threads; the loss, the averages and the "
        "exact sums do less or not"
    ),
}


def measured(threads: int) -> str:
    """Measure all, and return the section."""
    setting = Setting(False, [threads])
    answers = [ask(setting, threads) for ask in QUESTIONS]
    checks = [check for answer in answers for check in answer.checks]
    tables = [str(table) for answer in answers for table in answer.tables]
    table = targets(checks, [threads], instructions())
    with fixed_threads(threads):
        missed = [_bound(each) for each in checks if not (each.met or math.isnan(each.value))]
    return "\n".join([str(table), below(missed), *tables])


def _bound(check: Check) -> str:
    found = next((text for work, text in BOUNDS.items() if check.work.startswith(work)), "")
    for rows, dim, size in CLUSTERED:
        if f"N={rows}, D={dim}, K={size}" in check.work:
            found = _searches(rows, dim, size)
    return f"{check.work}, {check.target}, {check.text} measured: {found}."


def _searches(rows: int, dim: int, size: int) -> str:
    """Return how long a search of all rows takes, which most of an iteration is, beside Faiss."""
    x = clustered(rows, dim, size)
    codewords = x[:size].copy()
    calls = {"ours": partial(rvq_np.encode, x, codewords[None])}
    if (faiss := imported("faiss")) is not None:
        index = faiss.IndexFlatL2(dim)
        index.add(codewords)
        calls["Faiss"] = partial(index.search, x, 1)
    for call in calls.values():
        call()
    seconds = round_robin(calls, 3, "searches")
    times = ", ".join(f"{duration(each)} ({name})" for name, each in seconds.items())
    return (
        f"one search of all rows, which most of an iteration is, takes {times}; later iterations "
        "skip the rows whose codeword cannot have changed, and add up exact sums"
    )
