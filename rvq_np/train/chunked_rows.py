"""Some rows of a Dask array as `refine` reads them: tasks encode, this process solves.

A task returns codes, and the sums of the vectors that chose each codeword.  Pairs of codewords are
counted here, from the codes: a table of pairs, the square of all codewords, would be larger than
the codes of many blocks of rows.  All sums are exact, so workers and blocks do not show in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import arrays
from ..codebooks import Codebooks
from ..codec import core
from . import joint
from .chunked import ChunkedData, Chunks
from .tallies import FOLDED, Block
from .tasks import computed, one_key, sharing


class ChunkedRows:
    """Some rows of `Chunks`, ascending, in blocks that are encoded where they are.

    Parameters
    ----------
    call : str
    x : Chunks
    rows : numpy.ndarray (n,), int, or None
        Which rows, ascending; None: all.
    n_q : int
    keep : bool or None
        Whether workers keep the rows, see `ChunkedData`.
    """

    def __init__(self, call: str, x: Chunks, rows: np.ndarray | None, n_q: int, keep: bool | None):
        self.call, self.data = call, ChunkedData(x, rows, [None] * n_q, keep)
        self.n_rows = self.data.n_rows
        self.data.begin()

    def reach(self) -> float:
        """Return the largest of all numbers, without their signs."""
        return max(self._each(_reach))

    def tally(self, codebooks: Codebooks, beam: int, grid: float) -> joint.JointTally:
        """Return the joint tally of all rows."""
        found = joint.Adder(codebooks.sizes, codebooks.dim, grid)
        for sums, *codes in self._folded(codebooks, beam, grid):
            found.sums += sums
            for each in codes:
                found.add_pairs(each)
        return found.tally()

    def errors(self, codebooks: Codebooks, beam: int) -> joint.Errors:
        """Return how far what the codes decode to is from the rows."""
        parts = self._each(_errors, one_key(codebooks), beam)
        return joint.Errors.of(np.concatenate(parts, axis=1), codebooks.dim)

    def counts(self, codebooks: Codebooks) -> list[np.ndarray]:
        """Return how many rows a greedy search gives to each codeword, float64, for each stage."""
        parts = self._each(_counts, one_key(codebooks))
        return [np.array(stage, np.float64).sum(axis=0) for stage in zip(*parts, strict=True)]

    def _each(self, task: Any, *others: Any) -> list[Any]:
        import dask

        return computed(self.call, self.data.each(dask.delayed(task), *others))

    def _folded(self, codebooks: Codebooks, beam: int, grid: float) -> Iterator[list[Any]]:
        """Yield the sums of some blocks, and the codes of each of them."""
        import dask

        parts = self.data.each(dask.delayed(_coded), one_key(codebooks), beam, grid)
        fold = dask.delayed(_summed)
        yield from computed(
            self.call, [fold(parts[n : n + FOLDED]) for n in range(0, len(parts), FOLDED)]
        )


# What tasks do.


def _reach(block: Block) -> float:
    return float(np.abs(arrays.to_numpy(_rows(block))).max())


def _coded(block: Block, codebooks: Codebooks, beam: int, grid: float) -> list[np.ndarray]:
    rows, codes = _encoded(block, codebooks, beam)
    found = joint.Adder(codebooks.sizes, codebooks.dim, grid)
    found.add_sums(rows, codes)
    return [found.sums, codes.astype(np.min_scalar_type(max(codebooks.sizes) - 1))]


def _summed(parts: list[list[np.ndarray]]) -> list[np.ndarray]:
    sums = parts[0][0].copy()
    for more, _ in parts[1:]:
        sums += more
    return [sums, *(codes for _, codes in parts)]


def _errors(block: Block, codebooks: Codebooks, beam: int) -> np.ndarray:
    return joint.energies_left(*_encoded(block, codebooks, beam), codebooks)


def _counts(block: Block, codebooks: Codebooks) -> list[np.ndarray]:
    pairs = zip(_encoded(block, codebooks, 1)[1], codebooks.sizes, strict=True)
    return [np.bincount(chosen, minlength=size) for chosen, size in pairs]


def _encoded(block: Block, codebooks: Codebooks, beam: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of a block and their codes, in host memory."""
    rows = _rows(block)
    with sharing():
        codes = core.encode(rows, codebooks, codebooks.n_q, beam)
    return arrays.to_numpy(rows), arrays.to_numpy(codes)


def _rows(block: Block) -> Any:
    return block.data.read(slice(None))
