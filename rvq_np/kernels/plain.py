"""The kernels of `compiled` without Numba: the same functions, the same results.

The screen is one BLAS product per block of rows; what its bound cannot separate is scored again
in float64, and what that cannot separate is settled exactly.  BLAS brings its own threads.
"""

import numpy as np

from . import beam, exact, plain_bits
from .tables import measured as measure
from .tables import normalized

SCREENS = ("BLAS",)
bits = plain_bits
ROWS = 4096  # rows that pass all stages together
SCORES = 1 << 20  # scores held at once: 4 MB of float32, whatever the number of rows
PAIRS = 1 << 20  # numbers of (row, word) pairs gathered at once while settling


def encode(x, stages, codes):
    """Write the codes (Q, n) of `x` (n, D), of any float type."""
    for start in range(0, len(x), ROWS):
        rows = np.array(x[start : start + ROWS], dtype=stages[0].words.dtype, order="C")
        for stage, out in zip(stages, codes, strict=True):
            some = out[start : start + ROWS]
            nearest(project(rows, stage), stage, some)
            subtract(rows, stage.table, some)


def search_beams(x, stages, beam_size, codes, into=None):
    """Write the codes (Q, n) that a beam search finds for `x` (n, D), of any float type."""
    for start in range(0, len(x), ROWS):
        rows = np.array(x[start : start + ROWS], dtype=stages[0].words.dtype, order="C")
        codes[:, start : start + ROWS] = beam.search(rows, stages, beam_size, into or project)


def follow(x):
    """Return ``encode(stages)`` for the rows `x` (N, D): codes (Q, N)."""

    def again(stages):
        codes = np.empty((len(stages), len(x)), np.int32)
        encode(x, stages, codes)
        return codes

    return again


def decode(codes, stages, out):
    """Write the sum (n, D), in stage order, of the words that `codes` (Q, n) name."""
    for start in range(0, len(out), ROWS):
        part = slice(start, start + ROWS)
        out[part] = 0
        for stage, row_codes in zip(stages, codes, strict=False):
            out[part] += stage.table[row_codes[part]]


def nearest(rows, stage, codes):
    """Write into `codes` (n,) the word of one stage nearest to each of `rows` (n, C)."""
    step = max(1, SCORES // len(stage.words))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        _nearest_block(rows[part], stage.words, stage.half, stage.half64, stage.bounds, codes[part])


def _nearest_block(rows, words, half, half64, bounds, codes):
    with np.errstate(over="ignore", invalid="ignore"):
        scores = half - rows @ words.T
        lost = rows.shape[1] * exact.LOST
        norms = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1) + lost)
        size = norms * bounds[0] + bounds[1]
        slack = bounds[2] * size + bounds[3]
        low = scores.min(axis=1).astype(np.float64)
        limit = (low + 2.0 * slack).astype(rows.dtype)
        close = scores <= limit[:, None]
    close[~(size < bounds[6])] = True  # T may overflow: nothing the screen said can be used
    close &= half < np.inf
    codes[:] = close.argmax(axis=1)
    settle(rows, words, half64, bounds, norms, close, codes)


def settle(rows, words, half64, bounds, norms, close, codes):
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
            lengths = np.sqrt(2.0 * half64[word_of] + words.shape[1] * exact.LOST)
            errors = norms[some][row_of] * lengths + half64[word_of]
            errors = bounds[4] * errors * (1 + 1e-9) + bounds[5]
            first = np.searchsorted(row_of, np.arange(len(some)))
            limit = np.minimum.reduceat(scores + errors, first)
            near = scores - errors <= limit[row_of]
        known = np.logical_and.reduceat(np.isfinite(scores) & np.isfinite(errors), first)
        near |= ~known[row_of]  # all of them
        for i, stop in enumerate(np.append(first[1:], len(row_of))):
            span = slice(first[i], stop)
            left_over = word_of[span][near[span]]
            if len(left_over) == 1:
                codes[some[i]] = left_over[0]
            else:
                codes[some[i]] = exact.nearest_of(rows[some[i]], words, left_over.tolist())


def project(rows, stage):
    """Return `rows` as the stage searches them: themselves, or through ``project_in``."""
    if stage.weight_in is None:
        return rows
    mapped = (rows.astype(np.float64) @ stage.weight_in + stage.bias_in).astype(rows.dtype)
    return normalized(mapped) if stage.unit else mapped


def transform(rows, prepared):
    """Return ``rows @ weight + bias`` (n, C) of a `tables.Map`, in the type of `rows`."""
    out = np.empty((len(rows), len(prepared.bias)), rows.dtype)
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS].astype(np.float64)
        out[start : start + ROWS] = part @ prepared.weight + prepared.bias
    return out


def subtract(rows, table, codes):
    """Subtract from each row the word of `table` (K, D) that its code names."""
    rows -= table[codes]


def tally(rows, codes, counts, sums):
    """Add to `counts` (K,) and `sums` (K, C), float64, in the order of the rows."""
    counts += np.bincount(codes, minlength=len(counts))
    for d in range(rows.shape[1]):  # bincount adds in the order of the rows, in float64
        sums[:, d] += np.bincount(codes, rows[:, d], minlength=len(counts))
