"""Which word is nearest, exactly, among the few a screen could not tell apart.  Compiled.

Scores in float64 with their error bound first; what those cannot separate is decided by the sign
of the exact difference of two scores, by error-free transformations (Dekker 1971, Shewchuk 1997):
products split in two, summed in a growing expansion.  An exact tie goes to the lowest index.
"""

import numpy as np

from .exact import LOST
from .jit import kernel
from .simd import apart, dot, item

PARTIALS = 1100  # numbers a non-adjacent expansion over float64's 2100 bits may have


@kernel(inner=True)
def error_of(norm, half, width, share, least):
    """Bound the error of a float64 score: of a row and a word with that half squared norm.

    A share of ``|row| |word| + |word|^2 / 2``, see `tables.error_bounds`.
    """
    return share * (norm * np.sqrt(2.0 * half + width * LOST) + half) * (1.0 + 1e-9) + least


@kernel(inner=True)
def settle(
    rows, at, norm, words, words_at, width, half, half_at, share, least,
    found, count, scores, partials,
):  # fmt: skip
    """Return the nearest of the words ``found[:count]``; -1 if out of an expansion's range.

    The row begins at element `at` of `rows`, word k at ``words_at + k * width`` of `words`, and
    its half squared norm is ``half[half_at + k]``.  `norm` is that of the row, or more; infinite
    if nothing is known.
    """
    limit = np.inf  # no score can be below it but that of the nearest, and its equals
    best = second = np.inf
    nearest = -1
    for i in range(count):
        word = found[i]
        score = half[half_at + word] - dot(rows, at, words, words_at + word * width, width)
        error = error_of(norm, half[half_at + word], width, share, least)
        limit = min(limit, score + error)
        low = score - error
        scores[i] = low
        if low < best:
            best, second, nearest = low, best, word
        elif low < second:
            second = low
    if second > limit:  # never, if one of them is not a number
        return nearest
    nearest = -1
    for i in range(count):
        if scores[i] <= limit or not np.isfinite(limit + scores[i]):
            word = found[i]
            if nearest < 0:
                nearest = word
            else:
                a, b = words_at + nearest * width, words_at + word * width
                order = _compare(rows, at, words, a, b, width, partials)
                if order == 2:
                    return -1
                if order < 0:  # they come in order: a tie is the earlier one's
                    nearest = word
    return nearest


@kernel(inner=True)
def _compare(rows, at, words, a, b, width, partials):
    """Return the sign of ``|row - b|^2 - |row - a|^2``, exact; 2 if out of range."""
    apart()
    count = 0
    for d in range(width):
        r = np.float64(item(rows, at + d))
        x, y = np.float64(item(words, a + d)), np.float64(item(words, b + d))
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
