"""From where a stage's codewords are seen: a centre and a power of two.  NumPy.

Differences of scores are lost where codewords share an offset that is large beside what tells them
apart, or where one is huge.  What counts is how many bits of a float lie between a codeword and the
centre, so the centre is the point with the smallest mean logarithm of the distance to codewords:
with many codewords around one point it is there, however far the others are.
"""

from typing import NamedTuple

import numpy as np

SAMPLE = 32  # codewords that tell where a centre is
TRIED = 6  # of those that are tried themselves, beside zero and the mean
GAIN = 1.0  # bits that a centre must gain, or the codewords are seen from zero


class Place(NamedTuple):
    """Where the codewords of a stage are seen from, whatever type they have."""

    centre: np.ndarray | None  # (C,) float64; None: zero
    exponent: int  # a codeword less the centre typically has a norm of about ``2**exponent``


def place_of(words, usable):
    """Return the `Place` of codewords (K, C) of which the mask `usable` (K,) can be chosen."""
    numbers = np.flatnonzero(usable)
    some = numbers[np.linspace(0, len(numbers) - 1, min(SAMPLE, len(numbers))).astype(np.intp)]
    wide = words[some].astype(np.float64)
    largest = np.abs(wide).max(initial=0.0)
    if largest == 0.0:
        return Place(None, 0)
    shift = int(np.frexp(largest)[1])
    wide = np.ldexp(wide, -shift)  # squares neither overflow nor, but for next to nothing, underflow
    best, exponent, centre = _bits(wide), 0, None
    exponent = best
    if len(some) > 2:
        step = -(-len(some) // TRIED)
        for point in (wide.mean(axis=0), *wide[::step]):
            bits = _bits(wide - point)
            if bits < exponent and bits < best - GAIN:
                exponent, centre = bits, point
    if centre is not None:
        centre = np.ldexp(centre, shift)
    return Place(centre, round(exponent) + shift)


def _bits(moved):
    """Return the mean binary logarithm of the norms of rows (n, C), those of zeros left out."""
    squares = np.einsum("kc,kc->k", moved, moved)
    squares = squares[moved.any(axis=1)]
    if not len(squares):
        return 0.0
    return 0.5 * float(np.log2(np.maximum(squares, 2.0**-1000)).mean())
