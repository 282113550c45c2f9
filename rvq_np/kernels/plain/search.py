"""The nearest codeword of each row, exactly: a screen by BLAS, float64, then exact comparison.

The screen is one BLAS product per block of rows, see `seen`; what its bound cannot separate is
measured in float64, and what that cannot separate is compared exactly, in `exact`.
"""

from typing import Any

import numpy as np

from . import exact

SCORES = 1 << 20  # scores held at once: 4 MB of float32, whatever the number of rows
PAIRS = 1 << 20  # numbers of (row, codeword) pairs gathered at once while settling
DISTANT = 1024.0  # norms of a row, as seen, from which scores tell more than distances


def nearest(rows, stage, codes):
    """Write into `codes` (n,) the codeword of one stage nearest to each of `rows` (n, C)."""
    seen = stage.seen
    if len(seen.usable) == 1:
        codes[:] = seen.usable[0]
        return
    step = max(1, SCORES // len(seen.usable))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        codes[part] = seen.usable[_nearest_block(rows[part], stage.codebook[seen.usable], seen)]


def _nearest_block(rows, codewords, seen):
    """Return which of the usable `codewords` is nearest to each row, by their places (n,)."""
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
        settle(rows, codewords, seen, those, close, codes)
    return codes


def settle(rows, codewords, seen, those, close, codes):
    """Decide the rows in which more than one codeword is `close` (n, U), changing only those codes.

    Each tier keeps what its bound cannot rule out: scores in float64 where a row is far from all
    codewords, squared distances in float64, and what is left exactly.  Equal rows are decided once.
    """
    undecided = np.flatnonzero(close.sum(axis=1) != 1)
    first: dict[bytes, Any] = {}
    same = np.array([first.setdefault(rows[n].tobytes(), n) for n in undecided], np.int64)
    alone = undecided[same == undecided]
    step = max(1, PAIRS // close[alone].sum(axis=1).max(initial=1) // codewords.shape[1])
    for start in range(0, len(alone), step):
        some = alone[start : start + step]
        row_of, codeword_of = np.nonzero(close[some])
        row_of = some[row_of]
        far = those[1][row_of] > DISTANT
        if far.any():
            moved, norms, powers = (each[row_of] for each in those)
            scores, errors = seen.scores(moved, norms, powers, codeword_of)
            row_of, codeword_of = _left(row_of, codeword_of, scores - errors, scores + errors, ~far)
        left, right = rows[row_of], codewords[codeword_of]
        scale = exact.scale_of(rows)
        values, share, lost = exact.distances(left, right, scale)
        low, high = values * (1.0 - share) - lost, values * (1.0 + share) + lost
        row_of, codeword_of = _left(row_of, codeword_of, low, high, False)
        starts = np.flatnonzero(np.diff(row_of, prepend=-1))
        for i, stop in zip(starts, [*starts[1:], len(row_of)], strict=True):
            codes[row_of[i]] = codeword_of[i]
            if stop - i > 1:
                codes[row_of[i]] = _exactly(rows[row_of[i]], codewords, codeword_of[i:stop])
    codes[undecided] = codes[same]


def _left(row_of, codeword_of, low, high, always):
    """Return the pairs whose least value is not above the least that is sure in their row.

    Those, too, that are `always` kept, and all of a row where something is no number.
    """
    first = np.flatnonzero(np.diff(row_of, prepend=-1))
    counts = np.diff(first, append=len(row_of))
    with np.errstate(invalid="ignore"):
        limit = np.repeat(np.minimum.reduceat(high, first), counts)
        known = np.logical_and.reduceat(np.isfinite(low) & np.isfinite(high), first)
        kept = (low <= limit) | ~np.repeat(known, counts) | always
    return row_of[kept], codeword_of[kept]


def _exactly(row, codewords, candidates):
    """Return which of `candidates` (ascending) is nearest to `row`; ties: the first."""
    left, right = np.broadcast_to(row, (len(candidates), len(row))), codewords[candidates]
    scale = exact.scale_of(row)
    if exact.on_grid(left, right, scale).all():
        return candidates[exact.distances(left, right, scale)[0].argmin()]
    return exact.nearest_of(row, codewords, candidates.tolist())
