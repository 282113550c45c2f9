"""A stage as seen from its centre, and rows beside it: what the kernels without Numba screen with.

Scores are in the units of `compiled.packing`, which derives what is used here: codewords and rows
less the centre, times a power of two, and a far row times another of its own.  The bound is that
of a sum in T with a column more, ``g(D + 16) |r| |w|``, which the product itself subtracts.
"""

from dataclasses import dataclass

import numpy as np

from .exact import LOST
from .places import place_of

FAR = 2.0**50
HIGHEST = 56


@dataclass(frozen=True, eq=False)
class Seen:
    """The codewords of a stage that can be chosen, and what bounds their scores."""

    usable: np.ndarray  # (U,) their numbers
    centre: np.ndarray  # (C,) float64
    unit: float
    moved: np.ndarray  # (U, C) float64: codewords less the centre, times the unit
    half: np.ndarray  # (U,) float64: half their squared norms
    norms: np.ndarray  # (U,) float64, not below them
    columns: np.ndarray  # (C + 1, U) T: the same numbers, then the norms
    low: np.ndarray  # (U,) T: half norms lowered by what rounding may add
    share: float  # g(C + 16) in T
    wide_share: float  # the same in float64

    @classmethod
    def of(cls, codewords, half):
        """Return a stage of `codebook` (K, C); the codewords with a finite `half` can be chosen."""
        dtype, width = codewords.dtype, codewords.shape[1]
        usable = np.flatnonzero(half < np.inf)
        place = place_of(codewords, half < np.inf)
        centre = np.zeros(width) if place.centre is None else place.centre
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            moved = codewords[usable] - centre
            largest = int(np.frexp(np.abs(moved).max(initial=0.0))[1]) + width.bit_length() // 2 + 1
            exponent = min(max(place.exponent, largest - HIGHEST, -1000), 1000)
            moved *= 2.0**-exponent
            squares = np.einsum("kc,kc->k", moved, moved)
            norms = np.sqrt(squares + width * LOST) * (1 + 1e-9)  # whatever underflowed
            share, wide = (_gamma(width + 16, kind) for kind in (dtype, np.float64))
            tiny = (width + 16) * (2.0**-124 if dtype == np.float32 else 2.0**-1000)
            low = 0.5 * squares * (1.0 - share) - tiny * np.maximum(norms, 1.0)
            columns = np.empty((width + 1, len(usable)), dtype)
            columns[:width] = moved.T
            columns[width] = np.nextafter(norms.astype(dtype), dtype.type(np.inf))
            low = np.nextafter(low.astype(dtype), dtype.type(-np.inf))
        return cls(
            usable, centre, 2.0**-exponent, moved, 0.5 * squares, norms, columns, low, share, wide
        )

    def rows(self, rows):
        """Return rows (n, C) as they are seen, float64, their norms and their powers of two."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            moved = (rows.astype(np.float64) - self.centre) * self.unit
            reach = np.abs(moved).max(axis=1, initial=0.0)
            far = (reach >= FAR) & (reach < np.inf)
            powers = np.where(far, np.ldexp(1.0, 50 - np.frexp(reach)[1]), 1.0)
            moved *= powers[:, None]
            squares = np.einsum("nc,nc->n", moved, moved) + moved.shape[1] * LOST
            norms = np.sqrt(squares) * (1 + 1e-9)
        return moved, norms, powers

    def bounds(self, moved, norms, powers):
        """Return numbers (n, U) in T that are not above the scores; not numbers where T ends."""
        dtype = self.columns.dtype
        slack = norms * self.share + np.where(powers < 1.0, 0.5 * self.norms.max(), 0.0)
        seen = np.empty((len(moved), self.columns.shape[0]), dtype)
        with np.errstate(all="ignore"):  # numpy#28687: Arm's BLAS tells of divisions
            seen[:, :-1] = moved
            seen[:, -1] = np.nextafter(slack.astype(dtype), dtype.type(np.inf))
            return self.low - seen @ self.columns

    def scores(self, moved, norms, powers, chosen):
        """Return the scores (n,) of the `chosen` codewords, and how far they may be off."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            products = np.einsum("nc,nc->n", moved, self.moved[chosen])
            scores = self.half[chosen] * powers - products
            errors = self.wide_share * (norms * self.norms[chosen] + self.half[chosen])
        return scores, errors * (1 + 1e-9) + len(self.centre) * 2.0**-1000


def _gamma(terms, dtype):
    share = terms * float(np.finfo(dtype).eps) / 2
    return share / (1 - share) if share < 0.5 else np.inf
