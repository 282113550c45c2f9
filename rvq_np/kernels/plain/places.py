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


def mean_bits(rows, point):
    """Return the mean binary logarithm of the distances of rows (n, C) to a point, but zeros."""
    moved = rows - point
    squares = np.einsum("kc,kc->k", moved, moved)[moved.any(axis=1)]
    return 0.5 * float(np.log2(np.maximum(squares, 2.0**-1000)).mean()) if len(squares) else 0.0


def place_of(codewords, usable, bits=mean_bits):
    """Return the `Place` of codewords (K, C) of which the mask `usable` (K,) can be chosen."""
    numbers = np.flatnonzero(usable)
    some = numbers[np.linspace(0, len(numbers) - 1, min(SAMPLE, len(numbers))).astype(np.intp)]
    wide = codewords[some].astype(np.float64)
    largest = np.abs(wide).max(initial=0.0)
    if largest == 0.0:
        return Place(None, 0)
    shift = int(np.frexp(largest)[1])
    wide = np.ldexp(wide, -shift)  # squares do not overflow, nor underflow but next to nothing
    zero = np.zeros(wide.shape[1])
    centre, fewest = None, bits(wide, zero)
    enough = fewest - GAIN
    if len(some) > 2:
        for point in (wide.mean(axis=0), *wide[:: -(-len(some) // TRIED)]):
            found = bits(wide, point)
            if found < min(fewest, enough):
                centre, fewest = point, found
    return Place(None if centre is None else np.ldexp(centre, shift), round(fewest) + shift)
