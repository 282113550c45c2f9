"""The runs that are compared, each from the same weights, codebooks and batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import in_jax
import in_torch
from training import SEED, Run, Start, start

TORCH, JAX, AGAIN = "torch", "JAX", "torch, other draws"
AFTER, BEFORE = "cut, encoder learns from the penalty", "cut, encoder does not learn"

# Each is called with a start and how many steps lie between two measurements.
RUNS: dict[str, Callable[[Start, int], Run]] = {
    TORCH: in_torch.train,
    JAX: in_jax.train,
    # How far apart two runs are that differ in their draws alone: no two can be expected nearer.
    AGAIN: partial(in_torch.train, seed=SEED + 1),
    AFTER: partial(in_torch.train, cut="after"),
    BEFORE: partial(in_torch.train, cut="before"),
}


def without_draws(steps: int) -> list[float]:
    """Return by how much the losses of torch and JAX differ at each step without replacement.

    Only replaced codewords are drawn at random after k-means, and each framework draws its own,
    so this is what the frameworks themselves differ by.
    """
    begin = start(steps, threshold_ema_dead_code=0)
    one, other = in_torch.train(begin, steps), in_jax.train(begin, steps)
    return [abs(a / b - 1) for a, b in zip(one.errors, other.errors, strict=True)]
