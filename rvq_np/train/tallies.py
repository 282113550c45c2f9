"""Counts and exact sums of blocks of rows, made by tasks and added up where the blocks are.

The sums of all blocks are on the grids of all rows together, so they are added number by number;
the order shows in nothing.  A task makes the tallies of all blocks that one thread of a worker
keeps, with one set of tables of the codewords, and returns one tally for them.
"""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import arrays
from ..codebooks import Codebooks
from ..codec import core
from ..kernels.totals import ExactSum, Extent
from .data import Data
from .tasks import at_home, computed, one_key, sharing

FOLDED = 16  # tallies that a task adds up
HERE = 4  # tallies that this process adds up
SMALL = 1 << 22  # bytes of codewords that so few tasks get one by one

Tally = tuple[np.ndarray, ExactSum]
Together = tuple[Extent, int]  # of all rows, see `core.extents`


class Block:
    """Rows on a worker, as `Data` of nothing else."""

    def __init__(self, data: Data):
        self.data = data
        self._lock = threading.Lock()
        self._following: tuple[str, Callable[..., Tally]] | None = None

    def __reduce__(self) -> Any:
        return type(self), (self.data,)

    def __sizeof__(self) -> int:
        held = [self.data.x, self.data.held, *self.data.codes]
        return sum(int(getattr(each, "nbytes", 0)) for each in held)

    def extent(self) -> Together:
        """Return the extent of what the stage quantizes, and how many rows that is."""
        return core.extents([arrays.to_numpy(self.data.read(slice(None)))])

    def tally(self, codebooks: Codebooks, together: Together, following: str | None) -> Tally:
        """Return the counts and exact sums of the rows nearest to each codeword of the one stage.

        `following`: the same for codewords that follow each other in the iterations of a stage; a
        block remembers what makes the next tally faster. None: there is no next one.
        """
        held = self.data.held
        if following is None or not isinstance(held, np.ndarray):
            batch = self.data.read(slice(None))
            found = core.exact_tally(batch, core.encode(batch, codebooks, 1), codebooks)
            return found[0][0], found[1][0].host().onto(*together)
        with self._lock:
            if self._following is None or self._following[0] != following:
                self._following = (following, core.assign(held, together))
            counts, sums = self._following[1](codebooks)
            return counts, ExactSum(sums.pieces.copy(), *together)


def tallies(
    groups: list[tuple[Any, list[Any]]],
    trials: list[np.ndarray],
    together: Together,
    following: str | None,
) -> list[Tally]:
    """Return the tally of all blocks by each of `trials`, codewords of one stage.

    `groups`: where tasks are to run, see `tasks.at_home`, and the blocks, also tasks, that are
    there.
    """
    import dask

    task, fold = dask.delayed(_tallied), dask.delayed(_added)
    alone = len(groups) <= HERE and sum(each.nbytes for each in trials) <= SMALL
    shared = trials if alone else one_key(trials)  # a key is one more message between workers
    parts = []
    for home, blocks in groups:
        with at_home(home):
            parts.append(task(blocks, shared, together, following))
    while len(parts) > HERE:
        parts = [fold(parts[n : n + FOLDED]) for n in range(0, len(parts), FOLDED)]
    return _added(computed("fit", parts))


# What tasks do.


def _tallied(
    blocks: list[Block], trials: list[np.ndarray], together: Together, following: str | None
) -> list[Tally]:
    with sharing():
        found = []
        for codewords in trials:
            codebooks = Codebooks([codewords])  # whose tables are made once
            counts, sums = blocks[0].tally(codebooks, together, following)
            for block in blocks[1:]:
                more, rows = block.tally(codebooks, together, following)
                counts += more
                sums.pieces += rows.pieces
            found.append((counts, sums))
        return found


def _added(parts: list[list[Tally]]) -> list[Tally]:
    """Add tallies, all on the same grids, into none of them."""
    found = []
    for of_one in zip(*parts, strict=True):
        counts, sums = zip(*of_one, strict=True)
        pieces = functools.reduce(operator.add, [each.pieces for each in sums])
        total = ExactSum(pieces, sums[0].extent, sums[0].rows)
        found.append((functools.reduce(operator.add, counts), total))
    return found
