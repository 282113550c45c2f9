"""The nearest codeword by a map folded into the codewords, see `plain.fold`.  Compiled.

What a folded screen leaves open is mapped, and goes the way of other rows.
"""

import numpy as np

from . import columns as col
from .exact import settle
from .jit import kernel
from .panels import TINY, U
from .rows import project_rows
from .screens import collect, nearest
from .simd import dot

MAPPED = 4  # numbers of a row mapped alone that cost as much as a codeword scored


@kernel(inner=True)
def pick_folded(
    rows, at, count, norms, powers, bounds, folds, folded, maps, narrow, mapped, codewords, half,
    centres, moved, whole, real, q, codes, start, found, scores, partials, spent,
):  # fmt: skip
    """Write the nearest codeword of each row, by a map folded into the codewords; see `fold`."""
    size, width = whole[q, col.SIZE], whole[q, col.WIDTH]
    dim, n_panels = whole[q, col.PACKED], whole[q, col.PANELS]
    codewords_at, half_at = whole[q, col.CODEWORDS_AT], whole[q, col.HALF_AT]
    unit = real[q, col.UNIT]
    folds_at, side_at = whole[q, col.FOLDS_AT], whole[q, col.FOLDED_AT]
    scored = 0
    for i in range(count):
        row, near = at + i * dim, 0
        norm = norms[i] / unit
        if norm < np.inf and powers[i] == 1.0:
            first = nearest(bounds, i, n_panels)
            limit = _score(rows, row, folds, folds_at, folded, side_at, first, norm, dim)[1]
            limit = limit * unit * unit
            rounded = np.float32(limit + abs(limit) * (4.0 * U) + TINY * TINY)  # never below
            if rounded < np.inf:
                near = collect(bounds, i, n_panels, rounded, found)
                scored += near
                if near == 1:
                    codes[q, start + i] = first
                    continue
        if near == 0:  # numbers too large for the screen: every codeword may be the one
            scored += size
            for k in range(size):
                if half[half_at + k] < np.inf:
                    found[near] = k
                    near += 1
        elif near > 1:
            best = np.inf
            for n in range(near):
                low, high = _score(rows, row, folds, folds_at, folded, side_at, found[n], norm, dim)
                scores[n], best = low, min(best, high)
            left = 0
            for n in range(near):
                if not scores[n] > best:
                    found[left] = found[n]
                    left += 1
            near = left
            if near == 1:
                codes[q, start + i] = found[0]
                continue
        scored += width // MAPPED
        project_rows(rows, row, 1, dim, maps, narrow, whole, q, mapped)
        codes[q, start + i] = settle(
            mapped, 0, np.inf, moved, centres, -1, 1.0, 1.0, codewords, codewords_at, width,
            half, half_at, 0.0, 0.0, found, near, scores, partials,
        )  # fmt: skip
    spent[col.ROWS] += count
    spent[col.SCORED] += scored


@kernel(inner=True)
def _score(rows, row, folds, folds_at, folded, side_at, k, norm, dim):
    """Return what the score of a codeword is not below, and not above."""
    product = dot(rows, row, folds, folds_at + k * dim, dim)
    score, k = folded[col.SCORE, side_at + k] - product, side_at + k
    off = (norm * folded[col.AWAY, k] + folded[col.APART, k]) * (1.0 + 1e-9)
    off += (abs(product) + abs(score)) * 2.0**-50 + norm * 2.0**-120
    return score - off, score + off
