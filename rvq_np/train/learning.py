"""One training step of a whole quantizer: initialize, encode, measure, move, expire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import arrays, checks, lookup
from ..codebooks import Codebooks, Linear
from ..config import Config
from .initial import initialize
from .kmeans import energies, sample_rows
from .moving import step
from .ranks import ALONE, AllReduce, Crowd
from .state import CodebookState, codebooks_of, random_projections, random_state

Projections = Sequence[tuple[Linear, Linear] | None] | None

FIRST_WORDS, REPLACEMENTS, DROPOUT = range(3)  # what is drawn in a step, each from its own stream


class Learned(NamedTuple):
    """What a training step gives."""

    states: tuple[CodebookState, ...]
    codebooks: Codebooks  # before the step: what the codes name
    codes: Any  # (n_q, N)
    loss: float  # mean squared distance to the chosen word, averaged over the levels used
    levels: np.ndarray | None  # (groups,) given to each by dropout
    per_row: np.ndarray | None  # the same (N,)


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
    n_q: int,
    config: Config,
    seed: Sequence[int],
    projections: Projections = None,
    *,
    groups: int = 1,
    all_reduce: AllReduce = ALONE,
    moving: bool = True,
) -> Learned:
    """Train all levels on one batch.

    Parameters
    ----------
    states : sequence of CodebookState
    x : array (N, D)
        Checked and finite.
    valid : numpy.ndarray (N,), bool, or None
        Which rows to learn from; None: all.
    n_q : int
        Levels in use.
    config : Config
    seed : two int below 2**32
        For all that is drawn in this step; nothing else is random. With several processes that
        of the first counts.
    projections : sequence of (Linear, Linear), optional
    groups : int, optional
        Items that `x` consists of, N / groups rows each: dropout treats the rows of one alike.
        Losses average over the levels a row is given; statistics use all rows.
    all_reduce : AllReduce, optional
        Adds up over the processes that train together.
    moving : bool, optional
        False: find first words, but leave moving and replacing them to others.
    """
    levels = None
    if config.quantizer_dropout:
        own = np.random.default_rng([*seed, DROPOUT, all_reduce.rank])
        levels = draw_levels(groups, n_q, config.quantizer_dropout, own)
    per_row = None if levels is None else np.repeat(levels, x.shape[0] // max(1, groups))
    places = np.arange(x.shape[0]) if valid is None else np.flatnonzero(valid)
    seen = x if lookup.stays(x) else arrays.to_numpy(x)
    if valid is not None:
        seen = arrays.take(seen, places)

    def picked(rows: np.ndarray) -> np.ndarray:
        return arrays.to_numpy(arrays.take(seen, rows))

    crowd = Crowd.meet(len(places), tuple(seed), all_reduce)
    fresh_words = not all(state.initialized for state in states[:n_q])
    if crowd.total and fresh_words:
        everyone = seen
        if all_reduce.size > 1:
            chosen = np.arange(crowd.total)
            everyone = crowd.rows(chosen, seen.shape[1], picked)
            everyone = everyone.astype(seen.dtype)
        states = initialize(
            states, everyone, n_q, config.kmeans_iters, crowd.generator(FIRST_WORDS),
            projections=projections, epsilon=config.epsilon,
        )  # fmt: skip
    codebooks = codebooks_of(states, projections)
    if len(places) and fresh_words:
        checks.finite("forward", seen, codebooks)  # new words may reach further than the old
    codes = lookup.encode(x, codebooks, n_q)
    seen_codes = codes if lookup.stays(x) else arrays.to_numpy(codes)
    if valid is not None:
        seen_codes = arrays.take(seen_codes, places, 1)
    loss = 0.0
    if len(places):
        loss = _loss(seen, seen_codes, codebooks, None if per_row is None else per_row[places])
    learned = Learned(tuple(states), codebooks, codes, loss, levels, per_row)
    if not (crowd.total and moving):
        return learned

    rng = crowd.generator(REPLACEMENTS)

    def draw(level: int, count: int) -> np.ndarray:
        def quantized(rows: np.ndarray) -> np.ndarray:
            codes = arrays.to_numpy(arrays.take(seen_codes[:level, :], rows, 1))
            left = lookup.residual(picked(rows), codes, codebooks)
            return lookup.searched(left, codebooks[level : level + 1])

        chosen = sample_rows(crowd.total, count, rng)
        return crowd.rows(chosen, states[level].words.shape[1], quantized)

    counts, sums = lookup.added(seen, seen_codes, codebooks)
    if all_reduce.size > 1:
        added = crowd.add_up([*counts, *map(arrays.to_numpy, sums)])
        counts, sums = added[:n_q], added[n_q:]
    moved = step(
        states, counts, sums, draw, decay=config.decay, epsilon=config.epsilon,
        threshold=config.threshold_ema_dead_code, relative=config.relative_threshold,
    )  # fmt: skip
    return learned._replace(states=moved)


def _loss(x: Any, codes: Any, codebooks: Codebooks, levels: np.ndarray | None) -> float:
    """Average over levels of the mean squared distance of the rows active at each level."""
    per_level = []
    for level, (searched, words) in enumerate(lookup.walk(x, codes, codebooks)):
        if levels is not None:
            active = np.flatnonzero(levels > level)
            searched, words = arrays.take(searched, active), arrays.take(words, active)
        if words.shape[0]:
            per_level.append(energies(searched - words).mean() / words.shape[1])
    return float(np.mean([float(each) for each in per_level]))
