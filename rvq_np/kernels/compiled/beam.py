"""Beam search on the screens of `search`: all hypotheses of a row against all codewords.  Compiled.

    x       (n, D)  T      the vectors
    plan                   the arrays of a `pack.Plan` whose stages have no projections
    codes   (B, Q, N)  int32  out, columns ``start ... start + n``: the B best hypotheses, B from 1
                           to `beam`, best first; -1 where a row has fewer, and all -1 where float64
                           could not order them: `plain.beam` decides there

What stays of all hypotheses and codewords are the `beam` with the smallest error, half the squared
distance of a hypothesis' residual to a codeword; no hypothesis can have more than `beam` codewords
among them, so this is the search `beam` defines.  The screen bounds every error from below; as many
codewords as the beam is wide have an error of at most the beam-th lowest bound plus twice what a
bound may be off; what is bounded above that is out, and the rest is computed in float64 and sorted.
Errors that this cannot distinguish are in order all the same where they are exact
(`settle.on_grid`).  About ``2 * n * beam * K * D`` operations a stage, in the arithmetic of the
screen.
"""

import numpy as np

from . import columns as col
from .differences import distance, move
from .exact import on_grid
from .jit import kernel
from .packing import aligned_empty
from .panels import TINY, U
from .rows import quantize
from .screens import collect, lowest
from .search import IN_PANEL, WIDTH, _screen
from .simd import apart, dot, subtract_from
from .target import LANES, ROWS

PARAMS, OFFS = len(col.PARAMS), len(col.OFFS)
LARGEST = np.float32(np.finfo(np.float32).max)  # below infinity, which marks padding and repeats


TOGETHER = 8 * ROWS  # hypotheses of several rows that meet a stage together, about


@kernel
def encode(
    x, beam, codewords, table, half, panels, side, maps, centres, whole, real,
    quantized, params, starts, norms, energies, offs, powers, moved, bounds, residuals, following,
    history, later, alive, few, lanes, found, parents, codewords_found, values,
    best_codewords, best_parents, best_errors, codes, start,
):  # fmt: skip
    n_stages, dim = whole.shape[0], x.shape[1]
    group = alive.shape[0]
    lost = 0
    for low in range(0, x.shape[0], group):
        rows = min(group, x.shape[0] - low)
        for n in range(rows):
            for d in range(dim):
                residuals[n * dim + d] = x[low + n, d]
            alive[n] = 1
        for q in range(n_stages):
            total = alive[:rows].sum()
            quantize(
                residuals, 0, total, centres, moved, whole, real, q,
                quantized, params, starts, norms, powers,
            )  # fmt: skip
            _screen(quantized, total, panels, whole, q, side, params, bounds)
            here = to = 0
            for n in range(rows):
                kept = 0
                if alive[n] > 0:
                    reach = _reach(
                        residuals, here, alive[n], dim, bounds, centres, moved, whole,
                        real, q, params, norms, powers, energies, offs, few, lanes,
                    )  # fmt: skip
                    kept = _select(
                        residuals, here, alive[n], dim, bounds, codewords, side, whole, q, real,
                        energies, offs, reach, found, few, parents, codewords_found, values,
                        best_codewords, best_parents, best_errors,
                    )  # fmt: skip
                here += alive[n]
                alive[n] = max(kept, 0)
                for i in range(alive[n]):
                    parent, codeword = best_parents[i], best_codewords[i]
                    at = parent * dim
                    for d in range(dim):
                        following[to * dim + d] = residuals[at + d]
                    codeword_at = whole[q, col.TABLE_AT] + codeword * dim
                    subtract_from(following, to * dim, table, codeword_at, dim)
                    for earlier in range(q):
                        later[to, earlier] = history[parent, earlier]
                    later[to, q] = codeword
                    to += 1
            residuals, following = following, residuals
            history, later = later, history
        here = 0
        for n in range(rows):
            lost += alive[n] == 0
            for place in range(codes.shape[0]):
                for q in range(n_stages):
                    code = history[here + place, q] if place < alive[n] else -1
                    codes[place, q, start + low + n] = code
            here += alive[n]
    return lost


def workspace(plan, beam, rows):
    """Return what `encode` writes into besides its results, for rows of the type of `rows`."""
    (n_stages, dim), dtype = (len(plan.whole), rows.shape[1]), rows.dtype
    group = max(1, min(ROWS, TOGETHER // beam))  # rows that meet a stage together
    space = -(-group * beam // ROWS) * ROWS  # hypotheses
    width = max(1, int(plan.whole[:, col.STEPS].max()) * 4 // plan.blank.itemsize)
    n_panels = max(1, int(plan.whole[:, col.PANELS].max()))
    params, reached = np.zeros((space, PARAMS), np.float32), n_panels * IN_PANEL
    return (
        np.zeros((space, width), plan.blank.dtype),
        params,
        params.view(np.int32),
        np.zeros(space),
        np.zeros(space),
        np.zeros((space, OFFS)),
        np.zeros(space),
        np.empty(dim),
        aligned_empty(space, n_panels * WIDTH),
        np.empty(space * dim, dtype),
        np.empty(space * dim, dtype),
        np.empty((space, n_stages), np.int32),
        np.empty((space, n_stages), np.int32),
        np.empty(group, np.int64),
        np.empty(beam),
        np.empty(LANES, np.float32),
        np.empty(reached, np.int32),
        np.empty(beam * reached, np.int32),
        np.empty(beam * reached, np.int32),
        np.empty(beam * reached),
        np.empty(beam + 1, np.int64),
        np.empty(beam + 1, np.int64),
        np.empty(beam + 1),
    )


@kernel(inner=True)
def _reach(
    residuals, first, alive, dim, bounds, centres, moved, whole, real, q, params, norms, powers,
    energies, offs, few, lanes,
):  # fmt: skip
    """Return what errors, in the stage's units, may be kept at most; -1: unknown.

    Sets the `energies` of the residuals, half their squares, rounded down, and `offs`, how far a
    bound may be off: that of a codeword of norm w by ``(per_norm + grain * w) * w
    + at_least``, see `columns.OFFS`.
    """
    count, n_panels = 0, np.uint64(whole[q, col.PANELS])
    unit, heaviest = real[q, col.UNIT], real[q, col.HEAVIEST]
    grain = 2.0 * real[q, col.LOWERED] + 16.0 * U
    for h in range(first, first + alive):
        if not norms[h] < np.inf or powers[h] != 1.0:
            return -1.0
        if whole[q, col.CENTRE_AT] < 0:
            square = dot(residuals, h * dim, residuals, h * dim, dim) * unit * unit
        else:
            move(residuals, h * dim, centres, whole[q, col.CENTRE_AT], moved, 0, unit, dim)
            square = dot(moved, 0, moved, 0, dim)
        energies[h] = 0.5 * square * (1.0 - 1e-11)
        # A bound is below the score by two slacks at most, and as much again of the half norm.
        slack = -2.0 * np.float64(params[h, col.MINUS_SLACK])
        offs[h, col.PER_NORM] = slack + grain * norms[h] + 2.0**-90
        offs[h, col.AT_LEAST] = 2.0**-90 + 2e-11 * square
        off = (offs[h, col.PER_NORM] + grain * heaviest) * heaviest
        off = energies[h] + off + offs[h, col.AT_LEAST]
        if h > first:
            count = _keep(off + lowest(bounds, h, whole[q, col.PANELS]), few, count)
            continue
        # The one with the best codewords: the least of each lane over some runs of panels.
        run = np.uint64(max(1, whole[q, col.PANELS] * LANES // (4 * few.shape[0])))
        for begin in range(np.uint64(0), n_panels, run):
            lanes[:] = np.inf
            for p in range(begin, min(begin + run, n_panels)):
                for lane in range(np.uint64(LANES)):
                    bound = bounds[h, p * np.uint64(WIDTH) + lane]
                    lanes[lane] = bound if bound < lanes[lane] else lanes[lane]
            for lane in range(LANES):
                count = _keep(off + lanes[lane], few, count)
    return few[-1] if count == few.shape[0] else np.inf


@kernel(inner=True)
def _keep(value, few, count):
    """Insert a value into the sorted `few`; return how many there are."""
    beam = few.shape[0]
    if count == beam and not value < few[beam - 1]:
        return count
    place = min(count, beam - 1)
    while place > 0 and few[place - 1] > value:
        few[place] = few[place - 1]
        place -= 1
    few[place] = value
    return min(count + 1, beam)


@kernel(inner=True)
def _select(
    residuals, first, alive, dim, bounds, codewords, side, whole, q, real, energies, offs, reach,
    found, few, parents, codewords_found, values, best_codewords, best_parents, errors,
):  # fmt: skip
    """Find the codewords and parents of the smallest errors, in order; return how many.

    -1 if float64 cannot order them.
    """
    if reach < 0.0:
        return -1
    beam, n_panels = few.shape[0], whole[q, col.PANELS]
    codewords_at, side_at = whole[q, col.CODEWORDS_AT], whole[q, col.SIDE_AT]
    grain, unit = 2.0 * real[q, col.LOWERED] + 16.0 * U, real[q, col.UNIT]
    listed = seen = 0
    for h in range(first, first + alive):
        count = collect(bounds, h, n_panels, _above(reach - energies[h]), found)
        for i in range(count):
            codeword = found[i]
            value = (
                energies[h] + bounds[h, codeword // IN_PANEL * WIDTH + LANES + codeword % IN_PANEL]
            )
            parents[listed], codewords_found[listed], values[listed] = h, codeword, value
            weight = np.float64(side[col.NORM, side_at + codeword])
            off = (offs[h, col.PER_NORM] + grain * weight) * weight
            seen = _keep(value + off + offs[h, col.AT_LEAST], few, seen)
            listed += 1
        if seen == beam:
            reach = min(reach, few[beam - 1])
    limit = reach
    kept = 0
    for i in range(listed):
        if values[i] > limit:
            continue
        h, codeword = parents[i], codewords_found[i]
        error = distance(residuals, h * dim, codewords, codewords_at + codeword * dim, unit, dim)
        if not np.isfinite(error):
            return -1
        if kept == beam + 1 and not error < errors[beam]:
            continue
        place = min(kept, beam)
        while place > 0 and errors[place - 1] > error:
            errors[place] = errors[place - 1]
            best_codewords[place] = best_codewords[place - 1]
            best_parents[place] = best_parents[place - 1]
            place -= 1
        errors[place], best_codewords[place], best_parents[place] = error, codeword, h
        kept = min(kept + 1, beam + 1)
        if kept > beam:
            limit = min(limit, errors[beam] * 0.5 * (1.0 + 1e-11))
    off = (dim + 8) * 2.220446049250313e-16  # no cancellation in an error: a relative bound
    for i in range(1, kept):
        if not errors[i] - errors[i - 1] > off * errors[i] + 1e-290:
            for j in (i - 1, i):
                if not on_grid(residuals, best_parents[j] * dim, codewords,
                               codewords_at + best_codewords[j] * dim, dim, unit):  # fmt: skip
                    return -1
            if i == beam and not _all_on_grid(
                residuals, codewords, codewords_at, dim, unit, parents, codewords_found, values,
                listed, limit, errors[beam] * (1.0 + off) + 1e-290,
            ):  # fmt: skip
                return -1
    return min(kept, beam)


@kernel(inner=True)
def _all_on_grid(
    residuals, codewords, codewords_at, dim, unit, parents, codewords_found, values, listed,
    limit, most,
):  # fmt: skip
    """Return whether all errors up to `most`, which decide who is the last to stay, are exact."""
    apart()
    for i in range(listed):
        if values[i] <= limit:
            at, place = parents[i] * dim, codewords_at + codewords_found[i] * dim
            near = distance(residuals, at, codewords, place, unit, dim) <= most
            if near and not on_grid(residuals, at, codewords, place, dim, unit):
                return False
    return True


@kernel(inner=True)
def _above(value):
    """Return a finite float32 that is not below `value`."""
    return min(np.float32(value + abs(value) * (8.0 * U) + TINY * TINY), LARGEST)
