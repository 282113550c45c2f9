"""One training step of a whole quantizer: initialize, encode, measure, move, expire."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import arguments, arrays, checks, lookup
from ..codebooks import Codebooks, Linear
from ..config import Config
from ..kernels import steps
from .initial import first_words
from .kmeans import sample_rows
from .moving import Drawn, step, step_of
from .ranks import ALONE, AllReduce, Crowd
from .state import CodebookState, codebooks_of, random_projections, random_state

Projections = Sequence[tuple[Linear, Linear] | None] | None

FIRST_WORDS, REPLACEMENTS, DROPOUT = range(3)  # what is drawn in a step, each from its own stream


class Learned(NamedTuple):
    """What a training step gives."""

    states: tuple[CodebookState, ...]
    codebooks: Codebooks  # before the step: what the codes name
    codes: Any  # (n_q, N)
    quantized: Any  # (N, D): what they decode to, of the levels each row was given
    loss: float  # mean squared distance to the chosen word, averaged over the levels used
    levels: np.ndarray | None  # (groups,) given to each by dropout
    per_row: np.ndarray | None  # the same (N,)


def fresh(
    config: Config, rng: np.random.Generator
) -> tuple[tuple[CodebookState, ...], list[tuple[Linear, Linear] | None] | None]:
    """Return the states and projections of a new quantizer: small random words."""
    arguments.kind("fresh", "config", config, Config)
    arguments.kind("fresh", "rng", rng, np.random.Generator)
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

    Parameters
    ----------
    groups, n_q : int
    dropout : bool or float in [0, 1]
    rng : numpy.random.Generator

    Returns
    -------
    levels : numpy.ndarray (groups,), int
    """
    arguments.whole("draw_levels", "groups", groups, 0)
    arguments.whole("draw_levels", "n_q", n_q, 1)
    arguments.number("draw_levels", "dropout", dropout, 0, 1)
    arguments.kind("draw_levels", "rng", rng, np.random.Generator)
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
    codebooks: Codebooks | None = None,
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
    codebooks : Codebooks, optional
        Those of `states` and `projections`, if they are there already.
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
        states = first_words(
            "forward", states, everyone, n_q, config.kmeans_iters, crowd.generator(FIRST_WORDS),
            projections, config.epsilon,
        )  # fmt: skip
        codebooks = None
    if codebooks is None:
        codebooks = codebooks_of(states, projections)
    if len(places) and fresh_words:
        checks.finite("forward", seen, codebooks)  # new words may reach further than the old
    passage = lookup.Passage(x, codebooks, n_q, None if valid is None else places, per_row)
    given = None if per_row is None else per_row[places]
    rng = crowd.generator(REPLACEMENTS)
    rule: dict[str, Any] = {
        "decay": config.decay, "epsilon": config.epsilon,
        "threshold": config.threshold_ema_dead_code, "relative": config.relative_threshold,
    }  # fmt: skip
    losses: list[float] = []
    added: list[tuple[Any, Any]] = []
    moved = list(states)
    for level, part in enumerate(passage):
        losses += _loss(part, given, level)
        if not (crowd.total and moving):
            continue
        if all_reduce.size > 1:  # all levels in one call of the hook
            sums = part.sums.sums() if isinstance(part.sums, steps.Tally) else part.sums
            added.append((part.counts, arrays.to_numpy(sums)))
            continue

        choose = functools.partial(sample_rows, crowd.total, rng=rng)
        drawn = Drawn(part.searched, choose)
        moved[level] = step_of(states[level], part.counts, part.sums, drawn, **rule)
    codes = passage.codes
    if added:
        seen_codes = codes if lookup.stays(x) else arrays.to_numpy(codes)
        if valid is not None:
            seen_codes = arrays.take(seen_codes, places, 1)

        def drawn_from_all(level: int, count: int) -> np.ndarray:
            def quantized(rows: np.ndarray) -> np.ndarray:
                codes = arrays.to_numpy(arrays.take(seen_codes[:level, :], rows, 1))
                left = lookup.residual(picked(rows), codes, codebooks)
                return lookup.searched(left, codebooks, level)

            chosen = sample_rows(crowd.total, count, rng)
            return crowd.rows(chosen, states[level].words.shape[1], quantized)

        together = crowd.add_up([*(each for each, _ in added), *(each for _, each in added)])
        moved = list(step(states, together[:n_q], together[n_q:], drawn_from_all, **rule))
    loss = float(np.mean(losses)) if losses else 0.0
    return Learned(tuple(moved), codebooks, codes, passage.quantized, loss, levels, per_row)


def _loss(part: lookup.Part, levels: np.ndarray | None, level: int) -> list[float]:
    """Return the mean squared distance of the rows active at a level, if there is one."""
    distances = part.distances
    if levels is not None:
        distances = arrays.take(distances, np.flatnonzero(levels > level))
    return [float(distances.mean()) / part.searched.shape[1]] if distances.shape[0] else []
