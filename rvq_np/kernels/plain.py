"""The kernels of `search`, `gather` and `tally` without Numba: same arguments, same results.

The screen is one BLAS product per block of rows; what its bound cannot separate is scored again
in float64, and what that cannot separate is settled exactly.  See `search` for the arrays.
"""

import numpy as np

from . import exact

SCORES = 1 << 20  # scores held at once: 4 MB of float32, whatever the number of rows
PAIRS = 1 << 20  # numbers of (row, word) pairs gathered at once while settling


def nearest(rows, words, panel, half, half64, bounds, codes):
    step = max(1, SCORES // len(words))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        _nearest_block(rows[part], words, panel, half, half64, bounds, codes[part])


def _nearest_block(rows, words, panel, half, half64, bounds, codes):
    with np.errstate(over="ignore", invalid="ignore"):
        scores = half - rows @ panel[:, : len(half)]
        size = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1)) * bounds[0] + bounds[1]
        slack = bounds[2] * size + bounds[3]
        low = scores.min(axis=1).astype(np.float64)
        limit = (low + 2.0 * slack).astype(rows.dtype)
        close = scores <= limit[:, None]
    close[~(size < bounds[6])] = True  # T may overflow: nothing the screen said can be used
    close &= half < np.inf
    codes[:] = close.argmax(axis=1)
    settle(rows, words, half64, bounds, size, close, codes)


def settle(rows, words, half64, bounds, size, close, codes):
    """Decide the rows in which more than one word is `close` (n, K), changing only those codes."""
    undecided = np.flatnonzero(close.sum(axis=1) != 1)
    step = max(1, PAIRS // close[undecided].sum(axis=1).max(initial=1) // words.shape[1])
    for start in range(0, len(undecided), step):
        some = undecided[start : start + step]
        row_of, word_of = np.nonzero(close[some])
        with np.errstate(over="ignore", invalid="ignore"):
            left = rows[some][row_of].astype(np.float64)
            dots = np.einsum("pd,pd->p", left, words[word_of].astype(np.float64))
            scores = half64[word_of] - dots
            first = np.searchsorted(row_of, np.arange(len(some)))
            low = np.minimum.reduceat(scores, first)
            limit = low + 2.0 * (bounds[4] * size[some] + bounds[5])
        limit[~((size[some] < 1e300) & np.isfinite(limit))] = np.inf
        near = (scores <= limit[row_of]) | np.isinf(limit[row_of])
        for i, stop in enumerate(np.append(first[1:], len(row_of))):
            span = slice(first[i], stop)
            left_over = word_of[span][near[span]]
            if len(left_over) == 1:
                codes[some[i]] = left_over[0]
            else:
                codes[some[i]] = exact.nearest_of(rows[some[i]], words, left_over.tolist())


def project(rows, weight, bias, out):
    out[:] = rows.astype(np.float64) @ weight + bias


def add(rows, table, codes):
    rows += table[codes]


def subtract(rows, table, codes):
    rows -= table[codes]


def tally(rows, codes, counts, sums):
    counts += np.bincount(codes, minlength=len(counts))
    for d in range(rows.shape[1]):  # bincount adds in the order of the rows, in float64
        sums[:, d] += np.bincount(codes, rows[:, d], minlength=len(counts))
