"""One training step of a whole quantizer: initialize, encode, measure, move, expire."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import arguments, arrays
from ..codebooks import Codebooks, Linear
from ..codec import core, validation
from ..config import Config
from ..kernels import steps
from .collect import Collected, begin, made_again
from .distributed import ALONE, AllReduce, Ranks
from .ema import Drawn, replaced, step, step_of
from .initial import first_codewords
from .kmeans import sample_rows
from .state import CodebookState, codebooks_of, random_projections, random_state

Projections = Sequence[tuple[Linear, Linear] | None] | None

FIRST_CODEWORDS, REPLACEMENTS, DROPOUT = range(
    3
)  # what is drawn in a step, each from its own stream


class Learned(NamedTuple):
    """The result of a training step."""

    states: tuple[CodebookState, ...]
    codebooks: Codebooks  # before the step: what the codes name
    codes: Any  # (n_q, N)
    quantized: Any  # (N, D): what they decode to, of the stages each row was given
    loss: float  # mean squared distance to the chosen codeword, averaged over the stages used
    stages: np.ndarray | None  # (groups,) given to each by dropout
    per_row: np.ndarray | None  # the same (N,)
    collected: Collected | None = None  # vectors that wait for more of them
    replaced: tuple[int, ...] = ()  # codewords of each stage in use that got a new vector


def fresh(
    config: Config, rng: np.random.Generator
) -> tuple[tuple[CodebookState, ...], list[tuple[Linear, Linear] | None] | None]:
    """Return the states and projections of a new quantizer: small random codewords."""
    arguments.kind("fresh", "config", config, Config)
    arguments.kind("fresh", "rng", rng, np.random.Generator)
    width = config.codebook_dim
    assert width is not None
    states = tuple(
        random_state(size, width, rng, initialized=not config.kmeans_init) for size in config.sizes
    )
    if not config.projects:
        return states, None
    return states, [random_projections(config.dimension, width, rng) for _ in states]


def draw_stages(
    groups: int, n_q: int, dropout: bool | float, rng: np.random.Generator
) -> np.ndarray:
    """Return how many stages each of `groups` rows is quantized with, int (groups,).

    A random share `dropout` of them gets 1 to `n_q` stages, each number equally likely. If the
    share is not a whole number of rows, one more row is included with the probability of the
    remainder, so dropout affects a batch of one row, too.

    Parameters
    ----------
    groups, n_q : int
    dropout : bool or float in [0, 1]
    rng : numpy.random.Generator

    Returns
    -------
    stages : numpy.ndarray (groups,), int
    """
    arguments.whole("draw_stages", "groups", groups, 0)
    arguments.whole("draw_stages", "n_q", n_q, 1)
    arguments.number("draw_stages", "dropout", dropout, 0, 1)
    arguments.kind("draw_stages", "rng", rng, np.random.Generator)
    stages = np.full(groups, n_q)
    expected = groups * float(dropout)
    count = int(expected) + (rng.random() < expected - int(expected))
    chosen = rng.permutation(groups)[:count]
    stages[chosen] = rng.integers(1, n_q + 1, size=len(chosen))
    return stages


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
    collected: Collected | None = None,
    frozen: frozenset[int] = frozenset(),
) -> Learned:
    """Train all stages on one batch.

    Parameters
    ----------
    states : sequence of CodebookState
    x : array (N, D)
        Checked and finite.
    valid : numpy.ndarray (N,), bool, or None
        Which rows to train on; None: all rows.
    n_q : int
        Stages in use.
    config : Config
    seed : two int below 2**32
        For all random numbers of this step; nothing else is random. With several processes the seed
        of the first process is used.
    projections : sequence of (Linear, Linear), optional
    groups : int, optional
        Number of items in `x`, of N / groups rows each: dropout uses one number of stages for all
        rows of an item. Losses average over the stages that a row uses; statistics use all rows.
    all_reduce : AllReduce, optional
        Adds up statistics over the processes of distributed training.
    moving : bool, optional
        False: find first codewords, but neither move nor replace them.
    codebooks : Codebooks, optional
        The codebooks of `states` and `projections`, if they exist already.
    collected : Collected, optional
        Vectors collected until the step before, see `Collected`.
    frozen : frozenset of int, optional
        Stages whose codebooks do not change.
    """
    stages = None
    if config.quantizer_dropout:
        own = np.random.default_rng([*seed, DROPOUT, all_reduce.rank])
        stages = draw_stages(groups, n_q, config.quantizer_dropout, own)
    per_row = None if stages is None else np.repeat(stages, x.shape[0] // max(1, groups))
    places = np.arange(x.shape[0]) if valid is None else np.flatnonzero(valid)
    seen = x if core.stays(x) else arrays.to_numpy(x)
    if valid is not None:
        seen = arrays.take(seen, places)

    def picked(rows: np.ndarray) -> np.ndarray:
        return arrays.to_numpy(arrays.take(seen, rows))

    ranks = Ranks.meet(len(places), tuple(seed), all_reduce)
    blank = frozenset(stage for stage in range(n_q) if not states[stage].initialized)
    fresh_codewords = bool(blank)
    if collected is not None:
        collected = collected.without(frozen)
    if ranks.total and fresh_codewords:
        everyone = seen
        if all_reduce.size > 1:
            chosen = np.arange(ranks.total)
            everyone = ranks.rows(chosen, seen.shape[1], picked)
            everyone = everyone.astype(seen.dtype)
        states = first_codewords(
            "forward", states, everyone, n_q, config.kmeans_iters, ranks.generator(FIRST_CODEWORDS),
            projections, config.epsilon,
        )  # fmt: skip
        codebooks = None
        waiting = blank - frozen
        if config.paced and moving and waiting:
            collected = begin(ranks, config, waiting, collected)
    if ranks.total and collected is not None:
        collected = collected.more(seen, ranks.counts)
        if not collected.missing(config):
            states = made_again(
                tuple(states), collected, ranks, config, ranks.generator(FIRST_CODEWORDS),
                projections,
            )  # fmt: skip
            codebooks, collected, fresh_codewords = None, None, True
    if codebooks is None:
        codebooks = codebooks_of(states, projections)
    if len(places) and fresh_codewords:
        validation.finite(
            "forward", seen, codebooks
        )  # new codewords may reach further than the old
    passage = core.Passage(x, codebooks, n_q, None if valid is None else places, per_row)
    given = None if per_row is None else per_row[places]
    rng = ranks.generator(REPLACEMENTS)
    rule: dict[str, Any] = {
        "decay": config.decay, "epsilon": config.epsilon,
        "threshold": config.threshold_ema_dead_code, "relative": config.relative_threshold,
    }  # fmt: skip
    losses: list[float] = []
    churn: list[int] = []
    added: list[tuple[Any, Any]] = []
    moved = list(states)
    for stage, part in enumerate(passage):
        losses += _loss(part, given, stage)
        if not (ranks.total and moving):
            continue
        if all_reduce.size > 1:  # all stages in one call of the hook
            exact = part.sums.exact() if isinstance(part.sums, steps.Tally) else part.sums.host()
            added.append((part.counts, exact))
            continue

        if stage in frozen:
            churn.append(0)
            continue
        churn.append(replaced(states[stage], part.counts, rule))
        choose = functools.partial(sample_rows, ranks.total, rng=rng)
        drawn = Drawn(part.searched, choose)
        moved[stage] = step_of(states[stage], part.counts, part.sums, drawn, **rule)
    codes = passage.codes
    if added:
        seen_codes = codes if core.stays(x) else arrays.to_numpy(codes)
        if valid is not None:
            seen_codes = arrays.take(seen_codes, places, 1)

        def drawn_from_all(stage: int, count: int) -> np.ndarray:
            def quantized(rows: np.ndarray) -> np.ndarray:
                codes = arrays.to_numpy(arrays.take(seen_codes[:stage, :], rows, 1))
                left = core.residual(picked(rows), codes, codebooks)
                return core.searched(left, codebooks, stage)

            chosen = sample_rows(ranks.total, count, rng)
            return ranks.rows(chosen, states[stage].codebook.shape[1], quantized)

        counted, sums = ranks.add_up(*zip(*added, strict=True))
        churn = [
            0 if stage in frozen else replaced(states[stage], counts, rule)
            for stage, counts in enumerate(counted)
        ]
        moved = list(step(states, counted, sums, drawn_from_all, **rule))
        for stage in frozen:
            moved[stage] = states[stage]
    loss = float(np.mean(losses)) if losses else 0.0
    return Learned(
        tuple(moved), codebooks, codes, passage.quantized, loss, stages, per_row, collected,
        tuple(churn),
    )  # fmt: skip


def _loss(part: core.Part, stages: np.ndarray | None, stage: int) -> list[float]:
    """Return the mean squared distance of the rows active at a stage, if there is one."""
    distances = part.distances
    if stages is not None:
        distances = arrays.take(distances, np.flatnonzero(stages > stage))
    return [float(distances.mean()) / part.searched.shape[1]] if distances.shape[0] else []
