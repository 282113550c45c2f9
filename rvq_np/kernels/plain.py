"""The kernels of `compiled` without Numba: the same functions, the same results.

The screen is one BLAS product per block of rows, see `seen`; what its bound cannot separate is
measured in float64, and what that cannot separate is settled exactly.  BLAS brings its own threads.
"""

import numpy as np

from . import beam, exact, plain_bits
from .tables import measured, normalized

SCREENS = ("BLAS",)
bits, measure = plain_bits, measured
ROWS = 4096  # rows that pass all stages together
SCORES = 1 << 20  # scores held at once: 4 MB of float32, whatever the number of rows
PAIRS = 1 << 20  # numbers of (row, word) pairs gathered at once while settling
DISTANT = 1024.0  # norms of a row, as seen, from which scores tell more than distances


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
    seen = stage.seen
    if len(seen.usable) == 1:
        codes[:] = seen.usable[0]
        return
    step = max(1, SCORES // len(seen.usable))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        codes[part] = seen.usable[_nearest_block(rows[part], stage.words[seen.usable], seen)]


def _nearest_block(rows, words, seen):
    """Return which of the usable `words` is nearest to each row, by their places (n,)."""
    those = seen.rows(rows)
    bounds = seen.bounds(*those)
    codes = bounds.argmin(axis=1)
    scores, errors = seen.scores(*those, codes)
    with np.errstate(over="ignore", invalid="ignore"):
        limit = scores + 1.5 * errors
        limit = (limit + np.abs(limit) * 4.0 * np.finfo(bounds.dtype).eps).astype(bounds.dtype)
        close = bounds <= limit[:, None]
    close[~np.isfinite(limit) | ~np.isfinite(bounds).all(axis=1)] = True
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        settle(rows, words, seen, those, close, codes)
    return codes


def settle(rows, words, seen, those, close, codes):
    """Decide the rows in which more than one word is `close` (n, U), changing only those codes.

    Each tier keeps what its bound cannot rule out: scores in float64 where a row is far from all
    words, squared distances in float64, and what is left exactly.  Equal rows are decided once.
    """
    undecided = np.flatnonzero(close.sum(axis=1) != 1)
    first: dict[bytes, int] = {}
    same = np.array([first.setdefault(rows[n].tobytes(), n) for n in undecided.tolist()], np.int64)
    alone = undecided[same == undecided]
    step = max(1, PAIRS // close[alone].sum(axis=1).max(initial=1) // words.shape[1])
    for start in range(0, len(alone), step):
        some = alone[start : start + step]
        row_of, word_of = np.nonzero(close[some])
        row_of = some[row_of]
        far = those[1][row_of] > DISTANT
        if far.any():
            moved, norms, powers = (each[row_of] for each in those)
            scores, errors = seen.scores(moved, norms, powers, word_of)
            row_of, word_of = _left(row_of, word_of, scores - errors, scores + errors, ~far)
        left, right = rows[row_of], words[word_of]
        scale = exact.scale_of(rows)
        values, share, lost = exact.distances(left, right, scale)
        low, high = values * (1.0 - share) - lost, values * (1.0 + share) + lost
        row_of, word_of = _left(row_of, word_of, low, high, False)
        starts = np.flatnonzero(np.diff(row_of, prepend=-1))
        for i, stop in zip(starts, [*starts[1:], len(row_of)], strict=True):
            codes[row_of[i]] = word_of[i]
            if stop - i > 1:
                codes[row_of[i]] = _exactly(rows[row_of[i]], words, word_of[i:stop])
    codes[undecided] = codes[same]


def _left(row_of, word_of, low, high, always):
    """Return the pairs whose least value is not above the least that is sure in their row.

    Those, too, that are `always` kept, and all of a row where something is no number.
    """
    first = np.flatnonzero(np.diff(row_of, prepend=-1))
    counts = np.diff(first, append=len(row_of))
    with np.errstate(invalid="ignore"):
        limit = np.repeat(np.minimum.reduceat(high, first), counts)
        known = np.logical_and.reduceat(np.isfinite(low) & np.isfinite(high), first)
        kept = (low <= limit) | ~np.repeat(known, counts) | always
    return row_of[kept], word_of[kept]


def _exactly(row, words, candidates):
    """Return which of `candidates` (ascending) is nearest to `row`; ties: the first."""
    left, right = np.broadcast_to(row, (len(candidates), len(row))), words[candidates]
    scale = exact.scale_of(row)
    if exact.on_grid(left, right, scale).all():
        return candidates[exact.distances(left, right, scale)[0].argmin()]
    return exact.nearest_of(row, words, candidates.tolist())


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
