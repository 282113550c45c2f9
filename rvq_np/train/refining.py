"""How `fit` refines: as its argument says; with None, where it may pay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import arguments
from ..codebooks import Linear
from ..errors import ParameterError
from .refine import Way, options, refined, states_of
from .rows import rows_of
from .state import CodebookState, codebooks_of

# What docs/design.md, (aw), has measured.
ENOUGH = 32  # vectors per codeword of all stages
LEAST = 8192  # vectors: a tenth of them tells whether codebooks got better
MOST = 4096  # codewords of all stages: equations of more take 400 MB and seconds an iteration
DEFAULT = {"iterations": 10, "rows_per_codeword": 64}  # of k-means together they take twice as long


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
            "codewords are added up as they are. Set codebook_dim to the dimension, or leave "
            "refine away."
        )
    return options("fit", len(sizes), {} if refine is True else refine)


def refined_states(
    x: Any, rows: np.ndarray | None, states: list[CodebookState], way: Way,
    rng: np.random.Generator, epsilon: float, keep: bool | None = None,
) -> list[CodebookState]:  # fmt: skip
    """Return the states of refined codebooks, or `states` if none are better.

    `rows`: those of `x` that k-means has seen; None: all. `keep`: see `ChunkedData`.
    """
    codebooks = codebooks_of(states)
    own = np.random.default_rng(rng.integers(1 << 32, size=2))  # drawn after all of k-means
    better = refined("fit", x, codebooks, way, own, seen=rows, keep=keep)
    if better == codebooks:
        return states
    counts = rows_of("fit", x, rows, codebooks.n_q, keep).counts(better)
    return states_of(better, counts, epsilon)
