"""Beam search: several hypotheses a row, ranked by the residual they leave.  NumPy.

At each stage every hypothesis proposes its `beam` nearest codewords; of all proposals of a row the
`beam` with the smallest exact ``|residual - codeword|^2`` stay, ties in the order of the
hypothesis, then of the codeword.  The codes are those of the best hypotheses after the last stage.
With a beam of one this is the greedy search.  Float64 screens carry a bound here too, and what they
cannot order is ordered exactly, so the answer depends on neither BLAS nor the batch.

Cost: `beam` times the greedy search, in float64, and ``n * beam^2 * D`` for the ranking.
"""

import itertools

import numpy as np

from . import exact

SCORES = 1 << 20  # float64 scores held at once
LOST = 2.0**-900  # more than all products that underflow


def search(rows, stages, beam, project, best=1):
    """Return int32 codes (best, Q, n) of the best hypotheses, -1 where a row has fewer.

    `rows` (n, D) in T; `project(rows, tables)` maps into a stage.
    """
    widest = max(len(tables.codebook) for tables in stages)
    step = max(1, SCORES // (beam * widest))
    parts = [
        _search_block(rows[start : start + step], stages, beam, project, best)
        for start in range(0, len(rows), step)
    ]
    none = np.empty((best, len(stages), 0), np.int32)
    return np.concatenate(parts, axis=2) if parts else none


def _search_block(rows, stages, beam, project, best):
    n_rows, dim = rows.shape
    residuals = rows[:, None, :]  # (n, hypotheses, D)
    history = np.empty((0, n_rows, 1), np.int32)
    for tables in stages:
        alive = residuals.shape[1]
        flat = np.ascontiguousarray(residuals).reshape(-1, dim)
        codewords = _proposals(project(flat, tables), tables, beam).reshape(n_rows, alive, -1)
        parents = np.broadcast_to(np.arange(alive)[None, :, None], codewords.shape)
        codewords, parents = codewords.reshape(n_rows, -1), parents.reshape(n_rows, -1)
        kept = _best(residuals, tables.table, parents, codewords, beam)
        codewords = np.take_along_axis(codewords, kept, axis=1)
        parents = np.take_along_axis(parents, kept, axis=1)
        every = np.arange(n_rows)[:, None]
        residuals = residuals[every, parents] - tables.table[codewords]
        history = np.concatenate(
            [history[:, every, parents], codewords[None].astype(np.int32)], axis=0
        )
    codes = np.full((best, len(stages), n_rows), -1, np.int32)
    found = history[:, :, :best].transpose(2, 0, 1)
    codes[: len(found)] = found
    return codes


def _proposals(rows, tables, beam):
    """Return for each row its `beam` nearest codewords, ascending by index (n, at most beam)."""
    seen = tables.seen
    codewords, expected = tables.codebook[seen.usable], min(beam, len(seen.usable))
    if expected == len(codewords):
        return np.broadcast_to(seen.usable, (len(rows), expected))
    moved, norms, powers = seen.rows(rows)
    with np.errstate(all="ignore"):  # numpy#28687: Arm's BLAS tells of divisions
        scores = seen.half * powers[:, None] - moved @ seen.moved.T
        errors = seen.wide_share * (norms[:, None] * seen.norms + seen.half) * (1 + 1e-9) + LOST
        last = np.partition(scores + errors, expected - 1, axis=1)[:, expected - 1]
        near = ~(scores - errors > last[:, None]) | ~np.isfinite(last)[:, None]
    chosen = np.empty((len(rows), expected), np.int64)
    sure = near.sum(axis=1) == expected
    chosen[sure] = np.nonzero(near[sure])[1].reshape(-1, expected)
    known: dict[bytes, np.ndarray] = {}  # equal rows are decided once
    for n in np.flatnonzero(~sure):
        key = rows[n].tobytes()
        if key not in known:
            known[key] = exact.smallest(rows[n], codewords, np.flatnonzero(near[n]), expected)
        chosen[n] = known[key]
    return seen.usable[chosen]


def _best(residuals, table, parents, codewords, beam):
    """Return the places (n, at most beam) of the best proposals, best first."""
    n_rows, count = codewords.shape
    expected = min(beam, count)
    every, scale = np.arange(n_rows)[:, None], exact.scale_of(table)
    dim = residuals.shape[2]
    left, right = residuals[every, parents].reshape(-1, dim), table[codewords].reshape(-1, dim)
    errors, share, lost = exact.distances(left, right, scale)
    errors = errors.reshape(n_rows, count)
    order = np.argsort(errors, axis=1, kind="stable")
    with np.errstate(over="ignore", invalid="ignore"):
        ranked = np.take_along_axis(errors, order, axis=1)
        apart = np.diff(ranked, axis=1) > 2.0 * share * ranked[:, 1:] + 2.0 * lost
    for n in np.flatnonzero(~apart[:, :expected].all(axis=1)):
        breaks = [0, *(np.flatnonzero(apart[n]) + 1), count]
        for start, stop in itertools.pairwise(breaks):
            if stop - start > 1 and start < expected:  # what float64 cannot put in order
                places = np.sort(order[n, start:stop])
                pairs = n * count + places
                order[n, start:stop] = exact.ranked(left[pairs], right[pairs], places)
    return order[:, :expected]
