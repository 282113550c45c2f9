"""The kernels of `compiled` without Numba: the same functions, the same results.

The screen is one BLAS product per block of rows, see `seen`; what its bound cannot separate is
measured in float64, and what that cannot separate is settled exactly.  BLAS brings its own threads.
"""

from typing import Any

import numpy as np

from . import beam, exact, plain_bits
from .tables import measured, normalized

SCREENS = ("BLAS",)
bits, measure = plain_bits, measured
ROWS = 4096  # rows that pass all stages together
SCORES = 1 << 20  # scores held at once: 4 MB of float32, whatever the number of rows
PAIRS = 1 << 20  # numbers of (row, codeword) pairs gathered at once while settling
DISTANT = 1024.0  # norms of a row, as seen, from which scores tell more than distances


def encode(x, stages, codes):
    """Write the codes (Q, n) of `x` (n, D), of any float type."""
    for start in range(0, len(x), ROWS):
        rows = np.array(x[start : start + ROWS], dtype=stages[0].codebook.dtype, order="C")
        for stage, out in zip(stages, codes, strict=True):
            some = out[start : start + ROWS]
            nearest(project(rows, stage), stage, some)
            subtract(rows, stage.table, some)


def search_beams(x, stages, beam_size, codes, into=None):
    """Write the codes (Q, n) that a beam search finds for `x` (n, D), of any float type."""
    for start in range(0, len(x), ROWS):
        rows = np.array(x[start : start + ROWS], dtype=stages[0].codebook.dtype, order="C")
        codes[:, start : start + ROWS] = beam.search(rows, stages, beam_size, into or project)


def follow(x):
    """Return ``encode(stages)`` for the rows `x` (N, D): codes (Q, N)."""

    def again(stages):
        codes = np.empty((len(stages), len(x)), np.int32)
        encode(x, stages, codes)
        return codes

    return again


def decode(codes, stages, out):
    """Write the sum (n, D), in stage order, of the codewords that `codes` (Q, n) name."""
    for start in range(0, len(out), ROWS):
        part = slice(start, start + ROWS)
        out[part] = 0
        for stage, row_codes in zip(stages, codes, strict=False):
            out[part] += stage.table[row_codes[part]]


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


def project_and_search(rows, stage, codes):
    """Return what `project` does, and write the codes (n,) that `nearest` finds for it."""
    searched = project(rows, stage)
    nearest(searched, stage, codes)
    return searched


def project(rows, stage):
    """Return `rows` as the stage searches them: themselves, or through ``into``."""
    if stage.into is None:
        return rows
    into = stage.into
    mapped = (rows.astype(np.float64) @ into.weight + into.bias).astype(rows.dtype)
    return normalized(mapped) if stage.unit else mapped


def transform(rows, linear, dtype=None):
    """Return the rows (n, D) mapped by a `tables.Map`: (n, C), summed in float64."""
    out = np.empty((len(rows), linear.shape[1]), dtype or rows.dtype)
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS].astype(np.float64)
        out[start : start + ROWS] = part @ linear.weight + linear.bias
    return out


def subtract(rows, table, codes):
    """Subtract from each row the codeword of `table` (K, D) that its code names."""
    rows -= table[codes]


def tally(rows, codes, counts, sums):
    """Add to `counts` (K,) and `sums` (K, C), float64, in the order of the rows."""
    counts += np.bincount(codes, minlength=len(counts))
    for d in range(rows.shape[1]):  # bincount adds in the order of the rows, in float64
        sums[:, d] += np.bincount(codes, rows[:, d], minlength=len(counts))


def advance(rows, table, shown, codes, quantized, given, q):
    """Take from `rows` what their codes decode to; add `shown`, that in the type of `quantized`."""
    rows -= table[codes]
    some = np.flatnonzero(given > q)
    quantized[some] += shown[codes[some]]


def add_rows(rows, codes, counts, totals):
    """Count the codes (n,) and add up the rows of each, in their order."""
    tally(rows, codes, counts, totals)


def squared_distances(rows, codewords, codes):
    """Return the squared distance (n,) of each row to the codeword of its code."""
    apart = (rows - codewords[codes]).astype(np.float64)
    return np.einsum("nd,nd->n", apart, apart)


def average(codewords, sums, totals, empty, held, share, decay):
    """Return the codewords and moving sums after a batch, and the largest number in them."""
    past = np.where(empty[:, None], 0.0, sums).astype(np.float64)
    new_sums = decay * past + (1.0 - decay) * totals
    moved = np.where(held[:, None], codewords.astype(np.float64), new_sums / share[:, None])
    with np.errstate(over="ignore"):
        new_codewords, new_sums = moved.astype(np.float32), new_sums.astype(np.float32)
    return (
        new_codewords,
        new_sums,
        max(float(np.abs(each).max()) for each in (new_codewords, new_sums)),
    )


def move(codewords, sums, tally, averaging, place, vectors, count):
    """Return codewords and moving sums after a batch, some replaced, and their largest number."""
    totals = np.zeros(codewords.shape)
    add_rows(tally.rows, tally.codes, np.zeros(len(codewords)), totals)
    new_codewords, new_sums, largest = average(codewords, sums, totals, *averaging)
    dead = np.flatnonzero(place >= 0)
    if len(dead):
        largest = max(largest, replace(new_codewords, new_sums, dead, vectors[place[dead]], count))
    return new_codewords, new_sums, largest


def replace(codewords, sums, dead, vectors, count):
    """Write vectors (m, C) over the codewords `dead` (m,), and `count` times them over the sums."""
    wide = vectors.astype(np.float64)
    with np.errstate(over="ignore"):
        codewords[dead], sums[dead] = wide, wide * count
    return max(float(np.abs(each[dead]).max()) for each in (codewords, sums))
