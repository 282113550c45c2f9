"""How `fit` refines: as its argument says; with None, where a short refinement is worthwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import arguments
from ..codebooks import Linear
from ..errors import ParameterError
from .kmeans import sample_rows
from .refine import Way, counts_of, moved, options, states_of
from .rows import rows_of
from .state import CodebookState, codebooks_of

# What docs/design.md, (aw), has measured.
ENOUGH = 32  # vectors per codeword of all stages
LEAST = 8192  # vectors: a tenth of them tells whether codebooks got better
MOST = 4096  # codewords of all stages: equations of more take 400 MB and seconds an iteration
# Callers did not ask for it, and most encode greedily: a beam of 4 is better for that than 8.
DEFAULT = {"iterations": 10, "beam_size": 4, "rows_per_codeword": 64}


def way_of(
    refine: Any,
    sizes: Sequence[int],
    projections: Sequence[tuple[Linear, Linear] | None] | None,
    rows: int,
) -> Way | None:
    """Return how to refine, None: not at all. `rows`: vectors there are, 0 where none may move."""
    refine = bool(refine) if isinstance(refine, np.bool_) else refine
    projected = any(pair is not None for pair in projections or ())
    if refine is None:
        most = sum(sizes)
        pays = rows >= max(LEAST, ENOUGH * most) and most <= MOST and len(sizes) > 1
        if projected or not pays:
            return None
        return options("fit", len(sizes), DEFAULT)._replace(greedy=True)
    if refine is False:
        return None
    if refine is not True and not isinstance(refine, Mapping):
        raise arguments.refused("fit", "refine", refine, "True, False, None or a dict of arguments")
    if projected:
        raise ParameterError(
            "fit: refine is asked for, but the stages have projections; expected stages whose "
            "codewords are added up as they are. Set codebook_dim to the dimension, or "
            "omit refine."
        )
    return options("fit", len(sizes), {} if refine is True else refine)


class Parts(NamedTuple):
    """Which rows of a fit do what; all ascend, None: all rows."""

    cluster: np.ndarray | None  # for k-means
    judge: np.ndarray | None = None  # held out: no codebook is made of them
    learn: np.ndarray | None = None  # to refit codebooks to


def parts(
    total: int, rows: np.ndarray | None, most: int, way: Way, rng: np.random.Generator
) -> Parts:
    """Part `total` rows, of which k-means would take `rows` if nothing was refined.

    Rows that it would not take are held out first; only if there are too few, others are.
    """
    used, count = counts_of(total, most, way)
    taken = np.arange(total) if rows is None else rows
    free = total - len(taken)
    if free >= count:
        judge = _other_than(taken, sample_rows(free, count, rng))
    else:
        judge = np.concatenate([
            _other_than(taken, np.arange(free)),
            taken[sample_rows(len(taken), count - free, rng)],
        ])  # fmt: skip
        rows = np.setdiff1d(taken, judge, assume_unique=True)
    judge = np.sort(judge)
    others = total - count
    chosen = np.arange(others) if used == total else sample_rows(others, used - count, rng)
    return Parts(rows, judge, np.sort(_other_than(judge, chosen)))


def _other_than(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the row numbers at these places among all that are not in `rows`, which ascend."""
    found: np.ndarray = places + np.searchsorted(rows - np.arange(len(rows)), places, side="right")
    return found


def refined_states(
    x: Any, parted: Parts, rows: np.ndarray | None, states: list[CodebookState], way: Way,
    rng: np.random.Generator, epsilon: float, keep: bool | None = None,
) -> list[CodebookState] | None:  # fmt: skip
    """Return the states of refined codebooks, or None if none are surely better.

    `rows`: those of `x` that are counted; None: all. `keep`: see `ChunkedData`.
    """
    codebooks = codebooks_of(states)
    judge, learn = (
        rows_of("fit", x, each, codebooks.n_q, keep) for each in (parted.judge, parted.learn)
    )
    better = moved(judge, learn, codebooks, way, rng)
    if better == codebooks:
        return None
    counts = rows_of("fit", x, rows, codebooks.n_q, keep).counts(better)
    return states_of(better, counts, epsilon)
