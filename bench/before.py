"""Results from before the kernels supported codewords as long as those of the defaults.

On two cores with AVX2, torch 2.13, ESPnet 202511, in milliseconds: per task, ESPnet's class, our
torch module, our NumPy class; None where not measured. The codebooks were not those of `fitted`,
the SoundStream was another one of that shape, and the machine another one: compare ratios only.
"""

from __future__ import annotations

from .quantizers import ESPNET, OURS_NUMPY, OURS_TORCH
from .report import duration

Row = tuple[float | None, float | None, float | None]
NAMES = ESPNET, OURS_TORCH, OURS_NUMPY
FIGURES: dict[str, Row] = {
    "256 -> 512, n_q=8, bins=1024, N=1000: training step": (278, 4518, 3178),
    "256 -> 512, n_q=8, bins=1024, N=1000: eval forward": (170, 637, None),
    "256 -> 512, n_q=8, bins=1024, N=1000: encode": (158, 854, 456),
    "256 -> 512, n_q=8, bins=1024, N=1: encode": (8.3, 13.2, 4.0),
    "256 -> 512, n_q=8, bins=1024, N=1000: first training call": (700, None, 175_000),
    "256 -> 512, n_q=8, bins=1024, N=4000: first training call": (2200, None, 26_000),
    "256 -> 256, n_q=8, bins=1024, N=1000: training step": (151, 173, 161),
    "256 -> 256, n_q=8, bins=1024, N=1000: encode": (63, 35, 26),
    "32 -> 512, n_q=4, bins=32, N=4000: training step": (80, 646, 543),
    "1024 -> 8, n_q=9, bins=1024, N=400: training step": (57, 417, 171),
    "SoundStream: whole training step": (107, 301, None),
    "SoundStream: quantizer's forward within it": (24, 188, None),
}


def shown(work: str, name: str) -> tuple[str, str]:
    """Return the time of `name` then, and its speed relative to ESPnet's class; "" if unknown."""
    row = dict(zip(NAMES, FIGURES.get(work, (None, None, None)), strict=True))
    taken, theirs = row.get(name), row[ESPNET]
    if taken is None or theirs is None:
        return "", ""
    return duration(taken / 1e3), f"{theirs / taken:.2f}"
