"""The first codewords of stages that have none, from the first batch they see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import arguments, backends
from ..codebooks import Codebooks, Linear
from ..codec import core, validation
from ..errors import ShapeError
from .kmeans import clustered
from .state import CodebookState, check_projections, check_states, codebooks_of


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
    """Run k-means for each of the first `n_q` stages that was never initialized.

    Parameters
    ----------
    states : sequence of CodebookState
        All stages. Initialized states are returned unchanged.
    x : array (N, D), floating, N >= 1
        Each stage trains on the residuals of these vectors after the stages before it.
    n_q : int
        Stages in use, from 1 to the number of states.
    iterations : int
        Iterations of k-means.
    rng : int or numpy.random.Generator
        Draws the first codewords.
    projections : sequence of (Linear, Linear), optional
        Of each stage: the maps to and from the dimensions that it searches.
    epsilon : float, optional
        Laplace smoothing, as in `ema`.

    Returns
    -------
    states : tuple of CodebookState

    Raises
    ------
    ShapeError, DtypeError, NonFiniteError, BackendError
        If `x` is not such an array, or the projections do not fit.
    LevelsError, ParameterError
        If another argument has an invalid value; the message names it.
    """
    check_states("initialize", states)
    n_q = validation.stage_count("initialize", n_q, 1, len(states))
    entered = backends.enter(x)
    x = entered.array
    check_projections("initialize", projections, len(states))
    width = codebooks_of(states[:1], projections and projections[:1]).dim
    if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] != width:
        raise ShapeError(
            f"initialize: x has shape {tuple(x.shape)}; expected (N, {width}) with at least one "
            "vector."
        )
    validation.floating("initialize", x)
    iterations = arguments.whole("initialize", "iterations", iterations, 0)
    epsilon = arguments.number("initialize", "epsilon", epsilon, 0)
    rng = arguments.generator("initialize", "rng", rng)
    with entered.there():
        return first_codewords("initialize", states, x, n_q, iterations, rng, projections, epsilon)


def first_codewords(
    call: str,
    states: Sequence[CodebookState],
    x: Any,
    n_q: int,
    iterations: int,
    rng: np.random.Generator,
    projections: Sequence[tuple[Linear, Linear] | None] | None,
    epsilon: float,
) -> tuple[CodebookState, ...]:
    """Do what `initialize` does, without a look at its arguments."""
    made = list(states)
    residual = x
    last = max((q for q in range(n_q) if not made[q].initialized), default=-1)
    for q in range(last + 1):
        pair = None if projections is None else projections[q]
        stage = codebooks_of([made[q]], [pair])
        searched = residual if pair is None else core.searched(residual, stage)
        if not made[q].initialized:
            size = made[q].codebook.shape[0]
            made[q] = clustered(call, searched, size, iterations, rng, epsilon)
            stage = codebooks_of([made[q]], [pair])
        if q < last:  # rows are mapped already
            codes = core.encode(searched, Codebooks([made[q].codebook]), 1)
            residual = core.residual(residual, codes, stage)
    return tuple(made)
