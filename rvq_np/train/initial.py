"""The first words of levels that have none, from the first batch they see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import lookup
from ..codebooks import Codebooks, Linear
from .kmeans import kmeans
from .state import CodebookState, codebooks_of


def initialize(
    states: Sequence[CodebookState],
    x: Any,
    n_q: int,
    iterations: int,
    rng: np.random.Generator,
    *,
    projections: Sequence[tuple[Linear, Linear] | None] | None = None,
    epsilon: float = 1e-5,
) -> tuple[CodebookState, ...]:
    """Run k-means for each of the first `n_q` levels that was never initialized.

    Each on what the levels before it leave of `x` (N, D), N >= 1. The others are returned as
    they were.
    """
    made = list(states)
    residual = x
    last = max((level for level in range(n_q) if not made[level].initialized), default=-1)
    for level in range(last + 1):
        pair = None if projections is None else projections[level]
        stage = codebooks_of([made[level]], [pair])
        searched = residual if pair is None else lookup.searched(residual, stage)
        if not made[level].initialized:
            made[level] = kmeans(
                searched, made[level].words.shape[0], iterations, rng, epsilon=epsilon
            )
            stage = codebooks_of([made[level]], [pair])
        if level < last:  # rows are mapped already
            codes = lookup.encode(searched, Codebooks([made[level].words]), 1)
            residual = lookup.residual(residual, codes, stage)
    return tuple(made)
