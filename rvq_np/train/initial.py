"""The first words of levels that have none, from the first batch they see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import lookup
from ..codebooks import Linear
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
        if not made[level].initialized:
            searched = lookup.searched(residual, codebooks_of([made[level]], [pair]))
            made[level] = kmeans(
                searched, made[level].words.shape[0], iterations, rng, epsilon=epsilon
            )
        stage = codebooks_of([made[level]], [pair])
        residual = lookup.residual(residual, lookup.encode(residual, stage, 1), stage)
    return tuple(made)
