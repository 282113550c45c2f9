"""The last tier: which word is nearest in exact real arithmetic, whatever the floats say.

Twice the difference of two scores, ``|b|^2 - |a|^2 - 2 <r, b> + 2 <r, a>``, is a sum of products.
Products of two float32 are exact in float64, and `math.fsum` rounds a sum of float64 correctly,
so its sign is the true one.  For float64 the products are taken as fractions.
"""

import math
from fractions import Fraction

import numpy as np

LOST = 2.0**-1021  # twice what a float64 square that underflows may lose, flushed to zero or not


def nearest_of(row, words, candidates):
    """Return which of `candidates` (ascending) names the word nearest to `row`; ties: the first.

    row (D,), words (K, D), both of one float type; `candidates` is a sequence of indices.
    Raises OverflowError when `row` is not finite.
    """
    if row.dtype == np.float64:
        return min(candidates, key=lambda k: _score_as_fraction(row, words[k]))
    best = candidates[0]
    r = row.astype(np.float64)
    for k in candidates[1:]:
        if _is_nearer(r, words[best].astype(np.float64), words[k].astype(np.float64)):
            best = k
    return best


def squared_distance(row, word):
    """Return ``|row - word|^2`` as a fraction: a key that orders without rounding."""
    differences = (Fraction(float(a)) - Fraction(float(b)) for a, b in zip(row, word, strict=True))
    return sum((each * each for each in differences), Fraction(0))


def _score_as_fraction(row, word):
    score = Fraction(0)
    for r, c in zip(row.tolist(), word.tolist(), strict=True):
        score += Fraction(c) * (Fraction(c) - 2 * Fraction(r))
    return score


def _is_nearer(r, a, b):
    """Whether word `b` is strictly nearer to `r` than word `a`; float64 that hold float32."""
    terms = np.concatenate([b * b, -(a * a), -2.0 * (r * b), 2.0 * (r * a)])
    return math.fsum(terms.tolist()) < 0.0
