"""Which codeword is nearest, exactly, among the few a screen could not distinguish.  Compiled.

Each tier passes on what its error bound cannot rule out, and ends where one codeword is left:

1. scores in float64, seen from the stage's centre where it has one.  Their error is a share of
   ``|row| |codeword|``, which is small beside the distance where the row lies far from all
   codewords;
2. squared distances in float64, sums of squares of differences: their error is a share ``g(width +
   4)`` of the distance itself, so that codewords which are almost equal are distinguished where the
   row is near them.  The differences are rounded once, then squared and added;
3. where row and codeword lie on a common grid so coarse that the sum of the squares of their
   differences, counted in its steps, stays below 2^53, nothing was rounded: that distance is exact;
4. the sign of the exact difference of two scores, by error-free transformations (Dekker 1971,
   Shewchuk 1997): products split in two, summed in a growing expansion.

An exact tie goes to the lowest index.  Distances of float64 are scaled by a power of two, so that
squares neither overflow nor underflow; what that loses nevertheless, and all there can be lost of
float32 is nothing, is `LOST` a square.
"""

import math

import numpy as np

from ..plain.exact import LOST
from .differences import distance, dot_moved
from .jit import kernel
from .simd import apart, dot, item

PARTIALS = 1100  # numbers a non-adjacent expansion over float64's 2100 bits may have
DISTANT = 1024.0  # the norm of a row, in the units of a stage, from which scores tell more
U64 = 2.0**-53  # unit roundoff of float64


@kernel(inner=True)
def error_of(norm, half, width, share, least):
    """Bound the error of a float64 score: of a row and a codeword with that half squared norm.

    A share of ``|row| |codeword| + |codeword|^2 / 2``, see `tables.error_bounds`.
    """
    return share * (norm * np.sqrt(2.0 * half + width * LOST) + half) * (1.0 + 1e-9) + least


@kernel(inner=True)
def settle(
    rows, at, norm, moved, centres, centre, unit, power, codewords, codewords_at, width,
    half, half_at, share, least, found, count, scores, partials,
):  # fmt: skip
    """Return the nearest of the codewords ``found[:count]``; -1 if out of an expansion's range.

    The row begins at element `at` of `rows`, codeword k at ``codewords_at + k * width`` of
    `codewords`, and its half squared norm is ``half[half_at + k]``.  `norm` is that of ``(row -
    centre) * unit * power``, or more; infinite if nothing is known.  With a centre, which begins at
    element `centre` of `centres`, half norms are those of ``(codeword - centre) * unit``, and
    `moved` is the row with that norm.  `found` is used up.
    """
    if DISTANT < norm < np.inf:
        if centre < 0:
            norm = norm / power / unit
        best = np.inf
        for i in range(count):
            codeword = found[i]
            place, own = codewords_at + codeword * width, half[half_at + codeword]
            if centre < 0:
                score = own - dot(rows, at, codewords, place, width)
            else:
                product = dot_moved(moved, 0, codewords, place, centres, centre, unit, width)
                score = own * power - product
            error = error_of(norm, own, width, share, least)
            best = min(best, score + error)  # the nearest has no score above it
            scores[i] = score - error
        count = _keep(found, scores, count, best)
    if count > 1:
        narrow = rows.itemsize == 4
        scale = 1.0 if narrow else unit * power
        lost = 0.0 if narrow else width * LOST
        share = (width + 4) * U64 * (1.0 + 1e-9)
        best = np.inf
        for i in range(count):
            value = distance(rows, at, codewords, codewords_at + found[i] * width, scale, width)
            best = min(best, value * (1.0 + 2.0 * share) + lost)
            scores[i] = value * (1.0 - 2.0 * share) - lost
        count = _keep(found, scores, count, best)
        if count > 1:
            return _exactly(
                rows, at, codewords, codewords_at, width, scale, found, count, scores, partials
            )
    return found[0]


@kernel(inner=True)
def _keep(found, scores, count, best):
    """Keep the codewords whose least score is not above the best there can be; return how many."""
    left = 0
    for i in range(count):
        # If one of them is no number, nothing is known of this codeword, or of any.
        if not scores[i] > best or not np.isfinite(scores[i]) or not np.isfinite(best):
            found[left] = found[i]
            left += 1
    return left


@kernel(inner=True)
def _exactly(rows, at, codewords, codewords_at, width, scale, found, count, scores, partials):
    """Return the nearest of some codewords, by distances without an error or by expansions."""
    apart()
    nearest, least, known = -1, 0.0, False
    for i in range(count):
        codeword = found[i]
        place = codewords_at + codeword * width
        value = distance(rows, at, codewords, place, scale, width)
        exact = on_grid(rows, at, codewords, place, width, scale)
        if nearest >= 0:
            if known and exact:
                order = -1 if value < least else 1
            else:
                order = _compare(
                    rows, at, codewords, codewords_at + nearest * width, place, width, partials
                )
            if order == 2:
                return -1
            if order >= 0:  # they come in order: a tie is the earlier one's
                continue
        nearest, least, known = codeword, value, exact
    return nearest


@kernel(inner=True)
def on_grid(rows, at, codewords, codeword_at, width, scale):
    """Return whether `distance` was computed without an error.

    The grid's step is a power of two in which no difference counts more than b bits, with ``2 b +
    log2(width) <= 53``.  Where row and codeword are whole numbers of steps below 2^52, differences,
    squares and all sums of them are exact.
    """
    largest = 0.0
    for d in range(width):
        left = np.float64(item(rows, at + d)) - np.float64(item(codewords, codeword_at + d))
        largest = max(largest, abs(left))
    if largest == 0.0:
        return True
    bits = (53 - math.frexp(np.float64(width))[1]) // 2
    steps = bits - math.frexp(largest)[1]  # the largest difference falls short of 2^bits of them
    if not -1000 < steps < 1000:
        return False
    inverse = math.ldexp(1.0, steps)
    if not 1e-150 < scale / inverse < 1e120:  # or squares might leave float64
        return False
    for d in range(width):
        x, y = np.float64(item(rows, at + d)), np.float64(item(codewords, codeword_at + d))
        for value in (x, y):
            value = value * inverse
            if not (abs(value) < 2.0**52 and np.rint(value) == value):
                return False
    return True


@kernel(inner=True)
def _compare(rows, at, codewords, a, b, width, partials):
    """Return the sign of ``|row - b|^2 - |row - a|^2``, exact; 2 if out of range."""
    apart()
    count = 0
    for d in range(width):
        r = np.float64(item(rows, at + d))
        x, y = np.float64(item(codewords, a + d)), np.float64(item(codewords, b + d))
        for value in (abs(r), abs(x), abs(y)):  # a product might overflow, or its error underflow
            if value != 0.0 and not 1e-144 < value < 1e150:
                return 2
        if x != y:
            for part in range(4):  # one call, four times: LLVM need not inline it four times
                left = y if part == 0 else -x if part == 1 else -2.0 * r if part == 2 else 2.0 * r
                count = _grow_product(partials, count, left, y if part % 2 == 0 else x)
    if count == 0:
        return 0
    return 1 if partials[count - 1] > 0.0 else -1  # the last partial outweighs the others


@kernel(inner=True)
def _grow_product(partials, count, x, y):
    """Add the exact product ``x * y`` to an expansion: Dekker's product, Veltkamp's split."""
    high = x * y
    if high == 0.0:
        return count
    t = 134217729.0 * x
    x_high = t - (t - x)
    x_low = x - x_high
    t = 134217729.0 * y
    y_high = t - (t - y)
    y_low = y - y_high
    low = x_low * y_low - (((high - x_high * y_high) - x_low * y_high) - x_high * y_low)
    for part in range(2):
        count = _grow(partials, count, high if part else low)
    return count


@kernel(inner=True)
def _grow(partials, count, x):
    """Add `x` to a non-overlapping expansion in ascending order; zeros are dropped."""
    kept = 0
    for i in range(count):
        y = partials[i]
        total = x + y
        y_part = total - x
        error = (x - (total - y_part)) + (y - y_part)
        if error != 0.0:
            partials[kept] = error
            kept += 1
        x = total
    if x != 0.0:
        partials[kept] = x
        kept += 1
    return kept
