"""Beam search: several hypotheses a row, ranked by the residual they leave.  NumPy.

At each stage every hypothesis proposes its `beam` nearest words; of all proposals of a row the
`beam` with the smallest exact ``|residual - word|^2`` stay, ties in the order of the hypothesis,
then of the word.  The codes are those of the best hypothesis after the last stage.  With a beam
of one this is the greedy search.  Float64 screens carry a bound here too, and what they cannot
order is ordered by fractions, so the answer depends on neither BLAS nor the batch.

Cost: `beam` times the greedy search, in float64, and ``n * beam^2 * D`` for the ranking.
"""

import numpy as np

from . import exact

SCORES = 1 << 20  # float64 scores held at once


def search(rows, stages, beam, project):
    """Return int32 codes (Q, n); `rows` (n, D) in T; `project(rows, tables)` maps into a stage."""
    widest = max(len(tables.words) for tables in stages)
    step = max(1, SCORES // (beam * widest))
    parts = [
        _search_block(rows[start : start + step], stages, beam, project)
        for start in range(0, len(rows), step)
    ]
    return np.concatenate(parts, axis=1) if parts else np.empty((len(stages), 0), np.int32)


def _search_block(rows, stages, beam, project):
    n_rows, dim = rows.shape
    residuals = rows[:, None, :]  # (n, hypotheses, D)
    history = np.empty((0, n_rows, 1), np.int32)
    for tables in stages:
        alive = residuals.shape[1]
        flat = np.ascontiguousarray(residuals).reshape(-1, dim)
        words = _proposals(project(flat, tables), tables, beam).reshape(n_rows, alive, -1)
        parents = np.broadcast_to(np.arange(alive)[None, :, None], words.shape)
        words, parents = words.reshape(n_rows, -1), parents.reshape(n_rows, -1)
        kept = _best(residuals, tables.table, parents, words, beam)
        words = np.take_along_axis(words, kept, axis=1)
        parents = np.take_along_axis(parents, kept, axis=1)
        every = np.arange(n_rows)[:, None]
        residuals = residuals[every, parents] - tables.table[words]
        history = np.concatenate([history[:, every, parents], words[None].astype(np.int32)], axis=0)
    return history[:, :, 0]


def _proposals(rows, tables, beam):
    """Return for each row its `beam` nearest words, ascending by index (n, at most beam)."""
    usable = np.flatnonzero(tables.half < np.inf)
    wanted = min(beam, len(usable))
    words = tables.words[usable]
    wide = rows.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        scores = tables.half64[usable] - wide @ words.T.astype(np.float64)
        squares = np.square(wide).sum(axis=1) + rows.shape[1] * exact.LOST
        size = np.sqrt(squares) * tables.bounds[0] + tables.bounds[1]
        slack = 2.0 * (tables.bounds[4] * size + tables.bounds[5])
        last = np.partition(scores, wanted - 1, axis=1)[:, wanted - 1]
        trusted = (size < 1e300) & np.isfinite(last)
        near = (scores <= (last + slack)[:, None]) | ~trusted[:, None]
    chosen = np.empty((len(rows), wanted), np.int64)
    sure = near.sum(axis=1) == wanted
    chosen[sure] = np.nonzero(near[sure])[1].reshape(-1, wanted)
    for n in np.flatnonzero(~sure):
        candidates = np.flatnonzero(near[n])
        order = sorted(candidates, key=lambda k: (exact.squared_distance(rows[n], words[k]), k))
        chosen[n] = np.sort(order[:wanted])
    return usable[chosen]


def _best(residuals, table, parents, words, beam):
    """Return the places (n, at most beam) of the best proposals, best first."""
    n_rows, count = words.shape
    wanted = min(beam, count)
    every = np.arange(n_rows)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        left = residuals[every, parents].astype(np.float64) - table[words]
        errors = np.square(left).sum(axis=2)  # no cancellation: a relative bound suffices
        order = np.argsort(errors, axis=1, kind="stable")
        ranked = np.take_along_axis(errors, order, axis=1)
        slack = (left.shape[2] + 8) * np.finfo(np.float64).eps * ranked[:, 1:] + 1e-290
        unsure = ~(np.diff(ranked, axis=1) > slack)[:, :wanted].all(axis=1)
    for n in np.flatnonzero(unsure):
        keys = [
            exact.squared_distance(residuals[n, parent], table[word])
            for parent, word in zip(parents[n], words[n], strict=True)
        ]
        order[n] = sorted(range(count), key=lambda place: (keys[place], place))
    return order[:, :wanted]
