"""One training step of a whole quantizer: initialize, encode, measure, move, expire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import arrays, checks, codec
from ..codebooks import Codebooks, Linear
from ..config import Config
from .initial import initialize
from .kmeans import sample_rows
from .moving import step
from .state import CodebookState, codebooks_of, random_projections, random_state

Projections = Sequence[tuple[Linear, Linear] | None] | None


class Learned(NamedTuple):
    """What a training step gives."""

    states: tuple[CodebookState, ...]
    codebooks: Codebooks  # before the step: what the codes name
    codes: Any  # (n_q, N)
    loss: float  # mean squared distance to the chosen word, averaged over the levels used


def fresh(
    config: Config, rng: np.random.Generator
) -> tuple[tuple[CodebookState, ...], list[tuple[Linear, Linear] | None] | None]:
    """Return the states and projections of a new quantizer: small random words."""
    width = config.codebook_dim
    assert width is not None
    states = tuple(
        random_state(config.bins, width, rng, initialized=not config.kmeans_init)
        for _ in range(config.n_q)
    )
    if not config.projects:
        return states, None
    return states, [random_projections(config.dimension, width, rng) for _ in states]


def draw_levels(
    groups: int, n_q: int, dropout: bool | float, rng: np.random.Generator
) -> np.ndarray:
    """Return how many levels each of `groups` rows is quantized with, int (groups,).

    The share `dropout` of them, chosen at random, gets 1 to `n_q`, each equally likely; a part
    of a row is dropped with that probability, so that a batch of one is not spared.
    """
    levels = np.full(groups, n_q)
    wanted = groups * float(dropout)
    count = int(wanted) + (rng.random() < wanted - int(wanted))
    chosen = rng.permutation(groups)[:count]
    levels[chosen] = rng.integers(1, n_q + 1, size=len(chosen))
    return levels


def learn(
    states: Sequence[CodebookState],
    x: Any,
    valid: np.ndarray | None,
    levels: np.ndarray | None,
    n_q: int,
    config: Config,
    rng: np.random.Generator,
    projections: Projections = None,
) -> Learned:
    """Train all levels on one batch.

    Parameters
    ----------
    states : sequence of CodebookState
    x : array (N, D)
        Checked and finite.
    valid : numpy.ndarray (N,), bool, or None
        Which rows to learn from; None: all.
    levels : numpy.ndarray (N,), int, or None
        Levels each row is quantized with, for the loss; None: `n_q`. Statistics use all rows.
    n_q : int
        Levels in use.
    config : Config
    rng : numpy.random.Generator
    projections : sequence of (Linear, Linear), optional
    """
    places = np.arange(x.shape[0]) if valid is None else np.flatnonzero(valid)
    seen = arrays.to_numpy(x)
    if valid is not None:
        seen = seen[places]
    fresh_words = not all(state.initialized for state in states[:n_q])
    if len(places):
        states = initialize(
            states, seen, n_q, config.kmeans_iters, rng,
            projections=projections, epsilon=config.epsilon,
        )  # fmt: skip
    codebooks = codebooks_of(states, projections)
    if len(places) and fresh_words:
        checks.finite("forward", seen, codebooks)  # new words may reach further than the old
    codes = codec.encode_rows(x, codebooks, n_q)
    if not len(places):
        return Learned(tuple(states), codebooks, codes, 0.0)
    seen_codes = np.ascontiguousarray(arrays.to_numpy(codes)[:, places])
    loss = _loss(seen, seen_codes, codebooks, None if levels is None else levels[places])

    def draw(level: int, count: int) -> np.ndarray:
        rows = sample_rows(len(seen), count, rng)
        left = codec.residual(seen[rows], seen_codes[:level, rows], codebooks)
        return codec.searched(left, codebooks[level : level + 1])

    moved = step(
        states, seen, seen_codes, codebooks, draw,
        decay=config.decay, epsilon=config.epsilon,
        threshold=config.threshold_ema_dead_code, relative=config.relative_threshold,
    )  # fmt: skip
    return Learned(moved, codebooks, codes, loss)


def _loss(
    x: np.ndarray, codes: np.ndarray, codebooks: Codebooks, levels: np.ndarray | None
) -> float:
    """Average over levels of the mean squared distance of the rows active at each level."""
    per_level = []
    for level, (searched, words) in enumerate(codec.walk(x, codes, codebooks)):
        if levels is not None:
            searched, words = searched[levels > level], words[levels > level]
        if len(words):
            left = searched - words
            squares = np.einsum("nd,nd->n", left, left, dtype=np.float64)
            per_level.append(float(squares.mean()) / left.shape[1])
    return float(np.mean(per_level))
