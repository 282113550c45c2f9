"""Sums that are never rounded, so that no order, split or number of threads shows in them.

Numbers are cut into pieces, each a whole multiple of a power of two, its grid.  The grids are so
far apart that a float64 sum of pieces on one grid is exact, and together they hold all bits that
the numbers have.  Two grids hold float32 numbers that are up to 2**40 times apart.  At the end the
pieces are added: the exact sum, rounded once.

    pieces  (L, K, C)  float64  sums of what was cut on each grid, the coarsest first
    magic   (L - 1,)   float64  ``(x + magic) - magic`` is `x`, rounded to the grid
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

BITS = 53  # of a float64: whole numbers up to 2**53 add up exactly
SPARE = 2  # bits: sums that were cut again when they were merged add up exactly too
LARGEST = 960  # powers of two: beyond, float64 itself overflows, and sums are plain ones
FLOAT32 = 24, -149  # bits of a number, and the power of two that all are multiples of
FLOAT64 = 53, -1074


class Extent(NamedTuple):
    """Numbers that are all below ``2**top`` in size, and whole multiples of ``2**bottom``."""

    top: int
    bottom: int

    def __or__(self, other: Extent) -> Extent:
        """Return the extent of the numbers of both."""
        return Extent(max(self.top, other.top), min(self.bottom, other.bottom))

    def less(self, other: Extent) -> Extent:
        """Return the extent of differences of numbers of both, rounded to the wider float type."""
        either = self | other
        return either if NOTHING in (self, other) else Extent(either.top + 1, either.bottom)


NOTHING = Extent(-5000, 5000)  # of zeros


def extent_of(ends: tuple[float, float], dtype: Any) -> Extent:
    """Return the extent of numbers, given the sizes of the largest and of the smallest but 0."""
    largest, smallest = ends
    if not largest > 0:
        return NOTHING
    bits, least = FLOAT64 if dtype == np.float64 else FLOAT32
    return Extent(math.frexp(largest)[1], max(math.frexp(smallest)[1] - bits, least))


def grids(extent: Extent, rows: int) -> tuple[int, ...]:
    """Return the powers of two, the coarsest first, on which sums of `rows` numbers are exact."""
    within = BITS - SPARE - max(1, rows).bit_length()
    if extent == NOTHING or extent.top > LARGEST:
        return (0,)
    found = [extent.top - within]
    while found[-1] > extent.bottom:
        found.append(found[-1] - 1 - within)
    return tuple(found)


class ExactSum:
    """Sums of rows, one for each codeword, without any rounding so far.

    ``a + b`` is the sum of the rows of both, exactly: merged in any order, sums of the parts of
    any split end in the same numbers. `numpy.asarray` and `rounded` give these numbers.

    Attributes
    ----------
    pieces : array (L, K, C), float64
        Their sum over the first axis is the sum of the rows.
    extent : Extent
        Of the numbers that were added.
    rows : int
        How many rows were added; or more, if it is known how many there will be.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np.codec import tally
    >>> x, codes = np.float32([[1e8], [3.14], [-1e8]]), np.int32([[0, 0, 0]])
    >>> parts = [tally(x[n : n + 1], codes[:, n : n + 1], np.zeros((1, 1, 1)), exact=True)[1][0]
    ...          for n in range(3)]
    >>> np.asarray(parts[0] + parts[1] + parts[2]) == np.float64(np.float32(3.14))
    array([[ True]])
    """

    __slots__ = ("extent", "pieces", "rows")
    __array_ufunc__ = None  # NumPy would round before it adds

    def __init__(self, pieces: Any, extent: Extent, rows: int):
        self.pieces, self.extent, self.rows = pieces, extent, rows

    @classmethod
    def zeros(cls, extent: Extent, rows: int, shape: tuple[int, ...]) -> ExactSum:
        """Return the sum of no rows, on the grids of so many rows of an extent."""
        return cls(np.zeros((len(grids(extent, rows)), *shape)), extent, rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(K, C)."""
        return tuple(self.pieces.shape[1:])

    @property
    def grids(self) -> tuple[int, ...]:
        """The powers of two that the pieces are multiples of."""
        return grids(self.extent, self.rows)

    @property
    def magic(self) -> np.ndarray:
        """What rounds numbers to each grid but the last, which holds what is left."""
        return magic(self.extent, self.rows)

    def __add__(self, other: ExactSum) -> ExactSum:
        if not isinstance(other, ExactSum):
            return NotImplemented
        extent, rows = self.extent | other.extent, self.rows + other.rows
        mine, yours = self.onto(extent, rows), other.onto(extent, rows)
        return type(self)(mine.pieces + yours.pieces, extent, rows)

    def onto(self, extent: Extent, rows: int) -> ExactSum:
        """Return the same sum on the grids of at least as many rows, of a wider extent."""
        fitting = grids(extent, rows)
        if fitting == self.grids:
            return type(self)(self.pieces, extent, rows)
        cut = np.zeros((len(fitting), *self.shape))
        for piece in self.host().pieces:
            for g, grid in enumerate(fitting[:-1]):
                near = np.ldexp(np.rint(np.ldexp(piece, -grid)), grid)
                cut[g] += near
                piece = piece - near
            cut[-1] += piece
        return type(self)(self.put(cut), extent, rows)

    def host(self) -> ExactSum:
        """Return the same sum with its pieces in host memory."""
        return self

    def put(self, array: np.ndarray) -> Any:
        """Return an array of the host where the pieces are."""
        return array

    def rounded(self) -> Any:
        """Return the sums (K, C), float64: exact ones, rounded once, where the pieces are."""
        if self.pieces.shape[0] == 1:
            return self.pieces[0].copy()
        if self.pieces.shape[0] == 2:
            return self.pieces[0] + self.pieces[1]
        numbers = self.host().pieces.reshape(len(self.pieces), -1).T.tolist()
        exact = np.array([math.fsum(each) for each in numbers]).reshape(self.shape)
        return self.put(exact)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        rounded = self.host().rounded()
        return rounded if dtype is None else rounded.astype(dtype)

    def __repr__(self) -> str:
        return f"ExactSum({self.rows} rows, {self.shape})"


def magic(extent: Extent, rows: int) -> np.ndarray:
    """Return what is added and subtracted to round to each grid but the last."""
    return np.array([math.ldexp(1.5, BITS - 1 + grid) for grid in grids(extent, rows)[:-1]])
