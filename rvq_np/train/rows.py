"""Rows of the data as refinement reads them: in this process, or by tasks of Dask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from .. import arrays
from ..codebooks import Codebooks
from ..codec import core
from . import joint
from .chunked import Chunks
from .chunked_rows import ChunkedRows
from .data import single

ROWS = 1 << 14  # rows encoded and added to a tally at once


class Rows(Protocol):
    """Rows that are encoded where they are; what comes back does not depend on where that is."""

    n_rows: int

    def reach(self) -> float:
        """Return the largest of all numbers, without their signs."""
        ...

    def tally(self, codebooks: Codebooks, beam: int, grid: float) -> joint.JointTally:
        """Return the joint tally of all rows."""
        ...

    def errors(self, codebooks: Codebooks, beam: int) -> joint.Errors:
        """Return how far what the codes decode to is from the rows."""
        ...

    def counts(self, codebooks: Codebooks) -> list[np.ndarray]:
        """Return how many rows a greedy search gives to each codeword, float64, for each stage."""
        ...


def rows_of(call: str, x: Any, rows: np.ndarray | None, n_q: int, keep: bool | None) -> Rows:
    """Return rows of the data, ascending; None: all. `keep`: see `ChunkedData`."""
    if isinstance(x, Chunks):
        return ChunkedRows(call, x, rows, n_q, keep)
    return LocalRows(x, rows)


class LocalRows:
    """Some rows of the data, read in blocks as float32 in host memory."""

    def __init__(self, x: Any, rows: np.ndarray | None):
        self.x, self.rows = x, np.arange(x.shape[0]) if rows is None else rows
        self.n_rows = len(self.rows)

    def blocks(self) -> Iterator[Any]:
        """Yield the rows where they are."""
        for start in range(0, self.n_rows, ROWS):
            yield single(arrays.take(self.x, self.rows[start : start + ROWS]))

    def reach(self) -> float:
        """Return the largest of all numbers, without their signs."""
        return max(float(np.abs(arrays.to_numpy(block)).max()) for block in self.blocks())

    def encoded(self, codebooks: Codebooks, beam: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield blocks and their codes, in host memory."""
        for block in self.blocks():
            codes = core.encode(block, codebooks, codebooks.n_q, beam)
            yield arrays.to_numpy(block), arrays.to_numpy(codes)

    def tally(self, codebooks: Codebooks, beam: int, grid: float) -> joint.JointTally:
        """Return the joint tally of all rows."""
        found = joint.Adder(codebooks.sizes, codebooks.dim, grid)
        for block, codes in self.encoded(codebooks, beam):
            found.add(block, codes)
        return found.tally()

    def errors(self, codebooks: Codebooks, beam: int) -> joint.Errors:
        """Return how far what the codes decode to is from the rows."""
        parts = [joint.energies_left(*each, codebooks) for each in self.encoded(codebooks, beam)]
        return joint.Errors.of(np.concatenate(parts, axis=1), codebooks.dim)

    def counts(self, codebooks: Codebooks) -> list[np.ndarray]:
        """Return how many rows a greedy search gives to each codeword, float64, for each stage."""
        totals = [np.zeros(size) for size in codebooks.sizes]
        for _, codes in self.encoded(codebooks, 1):
            for total, chosen in zip(totals, codes, strict=True):
                total += np.bincount(chosen, minlength=len(total))
        return totals
