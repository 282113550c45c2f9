"""Vectors of the first batches, kept until there are enough for good first codewords.

K-means on fewer vectors than codewords makes codewords of single vectors: each later vector is far
from all of them, and most are never chosen.  So the codebooks that the first batch gives serve only
until enough vectors were seen, and are then made once more, of all of those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import arrays
from ..codebooks import Linear
from ..config import Config
from .distributed import Ranks
from .initial import first_codewords
from .state import CodebookState

ENOUGH = 4  # vectors per codeword, the fewest
AMPLE = 16  # vectors per codeword, for as long as that is cheap:
CHEAP = 16384  # vectors in all


class Collected(NamedTuple):
    """The vectors of all batches since the first, until there are enough."""

    parts: tuple[Any, ...]  # arrays (n, D) of this process
    counts: tuple[np.ndarray, ...]  # a batch (processes,): vectors of each
    stages: frozenset[int]  # those whose codewords are provisional

    def without(self, frozen: frozenset[int]) -> Collected | None:
        """Return the same vectors for the stages that are not frozen; None if all are frozen."""
        left = self.stages - frozen
        return self._replace(stages=left) if left else None

    def more(self, rows: Any, counts: np.ndarray) -> Collected:
        """Return these and a copy of the rows of one more batch; `counts`: rows of each process.

        A copy: callers write their next batch into the same array.
        """
        with arrays.there(rows):
            rows = arrays.namespace(rows).concat([rows])  # which every library copies
        return Collected((*self.parts, rows), (*self.counts, counts), self.stages)

    def missing(self, config: Config) -> int:
        """Return how many vectors are still needed."""
        seen = int(sum(each.sum() for each in self.counts))
        return max(0, enough(config, self.stages) - seen)

    def order(self) -> np.ndarray:
        """Return the numbers of all rows, process by process, in the order they were received.

        So k-means draws the same rows for every split of a batch among processes.
        """
        counts = np.array(self.counts)  # (batches, processes)
        first = np.cumsum(counts, axis=0) - counts  # among the rows of that process
        first += np.cumsum(counts.sum(axis=0)) - counts.sum(axis=0)
        starts = zip(first.ravel(), counts.ravel(), strict=True)
        return np.concatenate([np.arange(start, start + count) for start, count in starts])


def enough(config: Config, stages: Iterable[int]) -> int:
    """Return how many vectors the first codewords of these stages need."""
    largest = max(config.sizes[stage] for stage in stages)
    return max(ENOUGH * largest, min(AMPLE * largest, CHEAP))


def begin(
    ranks: Ranks, config: Config, stages: frozenset[int], before: Collected | None
) -> Collected | None:
    """Return what was collected before a batch that gives stages their first codewords.

    None if nothing was and the batch is enough by itself. `before`: what other stages wait for.
    """
    if before is not None:
        return before._replace(stages=before.stages | stages)
    none = Collected((), (), stages)
    return none if ranks.total < none.missing(config) else None


def made_again(
    states: tuple[CodebookState, ...],
    found: Collected,
    ranks: Ranks,
    config: Config,
    rng: np.random.Generator,
    projections: Sequence[tuple[Linear, Linear] | None] | None,
) -> tuple[CodebookState, ...]:
    """Return the states with first codewords from all that was collected.

    Counts and sums are those of one step: of all vectors, divided by the number of steps.
    """
    parts = list(found.parts)
    if len({type(each) for each in parts}) > 1:  # batches of several libraries
        parts = [arrays.to_numpy(each) for each in parts]
    with arrays.there(parts):
        rows = arrays.namespace(*parts).concat(parts)
    together = Ranks(ranks.all_reduce, np.array(found.counts).sum(axis=0), ranks.seed)
    if ranks.all_reduce.size > 1:
        there = together.rows(
            found.order(), rows.shape[1], lambda some: arrays.to_numpy(arrays.take(rows, some))
        )
        rows = there.astype(arrays.to_numpy(rows[:0, :]).dtype)
    blank = tuple(
        CodebookState.of(each.codebook, each.sums, each.counts, stage not in found.stages)
        for stage, each in enumerate(states)
    )
    made = first_codewords(
        "forward", blank, rows, max(found.stages) + 1, config.kmeans_iters, rng, projections,
        config.epsilon,
    )  # fmt: skip
    share = ranks.total / together.total
    return tuple(
        _shared(each, share) if stage in found.stages else states[stage]
        for stage, each in enumerate(made)
    )


def _shared(state: CodebookState, share: float) -> CodebookState:
    """Return the state with that share of its counts and sums."""
    made = CodebookState(state.codebook, state.sums * share, state.counts * share, True)
    return made.knowing(state.placed * share)
