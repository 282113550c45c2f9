"""A batch on its way through the stages while they learn, for arrays in host memory.

What a training step needs of a stage is made once: its rows are mapped once and kept for search,
sums, distances and replacement; of its codewords, only those chosen are mapped back.  Compiled
kernels serve where Numba can be imported, NumPy's elsewhere, as in `dispatch`.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from . import dispatch, tables, totals

MOVED = 0.3  # share of the rows that choose another codeword, above which all are added up again


class Part(NamedTuple):
    """What one stage made of the rows."""

    searched: np.ndarray  # (n, C): residuals as the stage searches them
    codes: np.ndarray  # (n,) int32
    codebook: np.ndarray  # (K, C): the codewords they name, in the type of `searched`


class Tally:
    """The rows (n, C) that chose the codewords of a stage, by `codes` (n,), not yet added up."""

    def __init__(self, rows, codes, size):
        self.rows, self.codes, self.size = rows, codes, size

    @property
    def counts(self) -> np.ndarray:
        """How often each codeword was chosen, float64 (K,)."""
        return np.bincount(self.codes, minlength=self.size).astype(np.float64)

    @property
    def small(self) -> bool:
        """Whether it is best to add up the rows of one codeword after the other."""
        return len(self.rows) <= dispatch.LEAF and len(self.magic) < 2

    @cached_property
    def extent(self) -> totals.Extent:
        """Of all numbers of the rows."""
        return extent(self.rows)

    @property
    def magic(self) -> np.ndarray:
        """What rounds the rows to the grids of their sums."""
        return totals.magic(self.extent, len(self.rows))

    def exact(self) -> totals.ExactSum:
        """The sum of what chose each codeword (K, C), without rounding."""
        return exact_sum(self.rows, self.codes, self.size, self.extent)

    def sums(self) -> np.ndarray:
        """The sum of what chose each codeword, float64 (K, C)."""
        return self.exact().rounded()


def through(x, stages, dtype, codes, quantized, found, given=None) -> Iterator[Part]:
    """Yield a `Part` per stage, while `codes` (Q, N) and `quantized` (N, D) are filled.

    `x` (N, D): finite vectors.  `dtype`: of the residuals.  `quantized`: zeros; what the codes
    decode to is added, of the first ``given[n]`` stages of row n; all by default.  `found`: a
    dictionary a stage, see `dispatch.search_again`.  A part is good until the next is asked for.
    """
    rows = np.array(x, dtype=dtype, order="C")
    given = np.full(len(rows), len(stages), np.int32) if given is None else given
    for q, (stage, chosen) in enumerate(zip(stages, codes, strict=True)):
        using = dispatch.kernels_for(len(rows) * stage.codebook.size)
        made = tables.search_tables(stage, rows.dtype, using.measure)
        searched = dispatch.search_again(rows, made, chosen, found[q])
        yield Part(searched, chosen, made.codebook)
        if stage.project_out is None:
            table, places = made.table, chosen
            shown = table.astype(quantized.dtype, copy=False)
        else:
            used, places = _used(chosen, len(made.codebook))
            table = shown = tables.decoded(stage, used, rows.dtype, dispatch.mapped_out)
            if quantized.dtype != rows.dtype:  # what `decode` adds up: maps may round otherwise
                shown = tables.decoded(stage, used, quantized.dtype, dispatch.mapped_out)
        # `searched` is the caller's until here.
        using.advance(rows, table, shown, places, quantized, given, q)


def searched(x, stage, dtype):
    """Return what a stage searches with, of `x` (N, D); never `x` itself.

    `dtype`: of the codebooks.  No tables are made of the codewords.
    """
    rows = np.array(x, dtype=dispatch.working_dtype(x.dtype, dtype), order="C")
    return dispatch.kernels_for(0).project(rows, tables.way_in(stage))


def residual(x, codes, stages, dtype):
    """Return what the stages of `codes` (n, N) leave of `x` (N, D): one rounding a stage.

    `dtype`: of the codebooks.  Of the codewords, those that were chosen are mapped, and no more.
    """
    rows = np.array(x, dtype=dispatch.working_dtype(x.dtype, dtype), order="C")
    for stage, row_codes in zip(stages[: len(codes)], codes, strict=True):
        used, places = _used(np.asarray(row_codes, dtype=np.int32), stage.size)
        table = tables.decoded(stage, used, rows.dtype, dispatch.mapped_out)
        dispatch.kernels_for(0).subtract(rows, np.ascontiguousarray(table), places)
    return rows


def _used(codes, size):
    """Return which of `size` codewords are chosen, and where each of `codes` (n,) is among them."""
    used = np.flatnonzero(np.bincount(codes, minlength=size))
    places = np.empty(size, np.int32)
    places[used] = np.arange(len(used), dtype=np.int32)
    return used, places[codes]


def extent(rows):
    """Return the `totals.Extent` of rows (n, C)."""
    return totals.extent_of(dispatch.kernels_for(rows.size).ends(rows), rows.dtype)


def exact_sum(rows, codes, size, of=None):
    """Return the `totals.ExactSum` of what chose each of `size` codewords; `of`: its extent."""
    found = totals.ExactSum.zeros(
        extent(rows) if of is None else of, len(rows), (size, rows.shape[1])
    )
    dispatch.kernels_for(rows.size).add_rows(rows, codes, found.magic, found.pieces)
    return found


class Assigned:
    """Which codeword of a stage each row chose last, and the sums of what chose each.

    Sums are exact, so rows that chose another codeword may be taken from one sum and added to the
    other: the bits are those of adding up all rows again.
    """

    def __init__(self, rows, together=None):
        self.rows = rows
        self.count: int
        self.extent, self.count = together or (extent(rows), len(rows))
        self.codes: Any = None
        self.total: Any = None

    def again(self, codes, size):
        """Return the counts (K,) and the exact sums of the rows by their codes (n,) now."""
        counts = np.bincount(codes, minlength=size).astype(np.float64)
        moved = None if self.codes is None else np.flatnonzero(self.codes != codes)
        if moved is None or len(moved) > MOVED * len(codes):
            self.total = totals.ExactSum.zeros(self.extent, self.count, (size, self.rows.shape[1]))
            using = dispatch.kernels_for(self.rows.size)
            using.add_rows(self.rows, codes, self.total.magic, self.total.pieces)
        elif len(moved):
            rows = self.rows[moved]
            both = np.concatenate([-rows, rows])
            places = np.concatenate([self.codes[moved], codes[moved]])
            using = dispatch.kernels_for(both.size)
            using.add_rows(both, places, self.total.magic, self.total.pieces)
        self.codes = codes.copy()
        return counts, self.total


def working(x, dtype):
    """Return `x` (N, D) as kernels take it, beside codewords of type `dtype`; not for writing."""
    return dispatch.as_type(x, dispatch.working_dtype(x.dtype, dtype))


def squared_distances(rows, codewords, codes):
    """Return the squared distance (n,), float64, of each row to the codeword of its code."""
    return dispatch.kernels_for(rows.size).squared_distances(rows, codewords, codes)


def move(codewords, moving, tally, averaging, dead, rows, chosen, count):
    """Return codewords and moving sums after a small batch, float32, and their largest number.

    As `average` by the sums of a `Tally`, with ``averaging = empty, held, share, decay``, and then
    `replace` of the codewords `dead` by ``rows[chosen]``; each number is written once.
    """
    place = np.full(len(codewords), -1)
    place[dead] = chosen
    using = dispatch.kernels_for(tally.rows.size + codewords.size)
    return using.move(codewords, moving, tally, averaging, place, rows, count)


def replace(codewords, sums, dead, vectors, start):
    """Give codewords `dead` (m,) the vectors (m, C), in place; return the largest number written.

    Sums are ``start`` times the vectors.
    """
    return dispatch.kernels_for(vectors.size).replace(codewords, sums, dead, vectors, start)


def average(codewords, sums, totals, empty, held, share, decay):
    """Return new codewords and sums, float32, and the largest number of either.

    See `averages.average`; all but counts in (K, C).
    """
    return dispatch.kernels_for(codewords.size).average(
        codewords, sums, totals, empty, held, share, decay
    )
