"""Beam search on the screens of `search`: all hypotheses of a row against all words.  Compiled.

    x       (n, D)  T      the vectors
    plan                   the arrays of a `pack.Plan` whose stages have no projections
    codes   (Q, N)  int32  out, columns ``start ... start + n``; -1 where float64 could not order
                           the hypotheses: `beam` decides there

What stays of all hypotheses and words are the `beam` with the smallest error, half the squared
distance of a hypothesis' residual to a word; no hypothesis can have more than `beam` words among
them, so this is the search `beam` defines.  The screen bounds every error from below; as many words
as the beam is wide have an error of at most the beam-th lowest bound plus twice what a bound may
be off; what is bounded above that is out, and the rest is computed in float64 and sorted.  About
``2 * n * beam * K * D`` operations a stage, in the arithmetic of the screen.
"""

import numpy as np

from .jit import kernel
from .pack import TINY, U
from .search import IN_PANEL, WIDTH, _quantize, _screen
from .simd import LANES, ROWS, collect, dot, lowest, subtract_from

LARGEST = np.float32(np.finfo(np.float32).max)  # below infinity, which marks padding and repeats


TOGETHER = 8 * ROWS  # hypotheses of several rows that meet a stage together, about


@kernel
def encode(x, beam, words, table, half, panels, side, maps, whole, real, blank, codes, start):
    n_stages, dim = whole.shape[0], x.shape[1]
    group = max(1, min(ROWS, TOGETHER // beam))
    room = -(-group * beam // ROWS) * ROWS
    width, n_panels = 1, 1
    for q in range(n_stages):
        width = max(width, whole[q, 2] * 4 // blank.itemsize)
        n_panels = max(n_panels, whole[q, 3])
    quantized = np.zeros((room, width), blank.dtype)
    params = np.zeros((room, 4), np.float32)
    starts = params.view(np.int32)
    norms, energies, offs = np.zeros(room), np.zeros(room), np.zeros((room, 2))
    store = np.empty(room * n_panels * WIDTH + 16, np.float32)
    first = (-store.ctypes.data % 64) // 4
    bounds = store[first : first + room * n_panels * WIDTH].reshape(room, n_panels * WIDTH)
    residuals, following = np.empty(room * dim, x.dtype), np.empty(room * dim, x.dtype)
    history, later = np.empty((room, n_stages), np.int32), np.empty((room, n_stages), np.int32)
    alive = np.empty(group, np.int64)
    few, lanes = np.empty(beam, np.float64), np.empty(LANES, np.float32)
    found = np.empty(n_panels * IN_PANEL, np.int32)
    parents = np.empty(beam * n_panels * IN_PANEL, np.int32)
    words_found = np.empty(beam * n_panels * IN_PANEL, np.int32)
    values = np.empty(beam * n_panels * IN_PANEL, np.float64)
    best_words, best_parents = np.empty(beam + 1, np.int64), np.empty(beam + 1, np.int64)
    best_errors = np.empty(beam + 1, np.float64)
    lost = 0
    for low in range(0, x.shape[0], group):
        rows = min(group, x.shape[0] - low)
        for n in range(rows):
            residuals[n * dim : n * dim + dim] = x[low + n]
            alive[n] = 1
        for q in range(n_stages):
            total = alive[:rows].sum()
            _quantize(residuals, 0, total, whole, real, q, quantized, params, starts, norms)
            _screen(quantized, total, panels, whole, q, side, params, bounds)
            here = to = 0
            for n in range(rows):
                kept = 0
                if alive[n] > 0:
                    reach = _reach(residuals, here, alive[n], dim, bounds, whole, real, q, params,
                                   norms, energies, offs, few, lanes)  # fmt: skip
                    kept = _select(
                        residuals, here, alive[n], dim, bounds, words, side, whole, q, real,
                        energies, offs, reach, found, few, parents, words_found, values,
                        best_words, best_parents, best_errors,
                    )  # fmt: skip
                here += alive[n]
                alive[n] = max(kept, 0)
                for i in range(alive[n]):
                    parent, word = best_parents[i], best_words[i]
                    at = parent * dim
                    following[to * dim : to * dim + dim] = residuals[at : at + dim]
                    subtract_from(following, to * dim, table, whole[q, 5] + word * dim, dim)
                    for earlier in range(q):
                        later[to, earlier] = history[parent, earlier]
                    later[to, q] = word
                    to += 1
            residuals, following = following, residuals
            history, later = later, history
        here = 0
        for n in range(rows):
            lost += alive[n] == 0
            for q in range(n_stages):
                codes[q, start + low + n] = history[here, q] if alive[n] > 0 else -1
            here += alive[n]
    return lost


@kernel(inner=True)
def _reach(
    residuals, first, alive, dim, bounds, whole, real, q, params, norms, energies, offs, few, lanes
):  # fmt: skip
    """Return what errors, in the stage's units, may be kept at most; -1: unknown.

    Sets the `energies` of the residuals, half their squares, rounded down, and `offs`, how far a
    bound may be off: that of a word of norm w by ``offs[h, 0] * w + offs[h, 1]``.
    """
    count, n_panels, unit = 0, np.uint64(whole[q, 3]), real[q, 7]
    for h in range(first, first + alive):
        if not norms[h] < np.inf:
            return -1.0
        square = dot(residuals, h * dim, residuals, h * dim, dim) * unit * unit
        energies[h] = 0.5 * square * (1.0 - 1e-11)
        # A bound is below the score by two slacks at most, and as much again of the half norm.
        offs[h, 0] = -2.0 * np.float64(params[h, 1])
        offs[h, 1] = (2.0 * real[q, 9] + 16.0 * U) * (norms[h] + 1.0) + 2e-11 * square
        off = energies[h] + offs[h, 0] * real[q, 12] + offs[h, 1]
        if h > first:
            count = _keep(off + lowest(bounds, h, whole[q, 3]), few, count)
            continue
        # The one with the best words: the least of each lane over some runs of panels.
        run = np.uint64(max(1, whole[q, 3] * LANES // (4 * few.shape[0])))
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
    residuals, first, alive, dim, bounds, words, side, whole, q, real, energies, offs, reach,
    found, few, parents, words_found, values, best_words, best_parents, errors,
):  # fmt: skip
    """Find the words and parents of the smallest errors, in order; return how many.

    -1 if float64 cannot order them.
    """
    if reach < 0.0:
        return -1
    beam, n_panels, words_at, side_at = few.shape[0], whole[q, 3], whole[q, 4], whole[q, 8]
    listed = seen = 0
    for h in range(first, first + alive):
        count = collect(bounds, h, n_panels, _above(reach - energies[h]), found)
        for i in range(count):
            word = found[i]
            value = energies[h] + bounds[h, word // IN_PANEL * WIDTH + LANES + word % IN_PANEL]
            parents[listed], words_found[listed], values[listed] = h, word, value
            seen = _keep(value + offs[h, 0] * side[2, side_at + word] + offs[h, 1], few, seen)
            listed += 1
        if seen == beam:
            reach = min(reach, few[beam - 1])
    limit = reach
    kept = 0
    half = 0.5 * real[q, 7] * real[q, 7] * (1.0 + 1e-11)
    for i in range(listed):
        if values[i] > limit:
            continue
        h, word = parents[i], words_found[i]
        error = _error(residuals, h * dim, words, words_at + word * dim, dim)
        if not np.isfinite(error):
            return -1
        if kept == beam + 1 and not error < errors[beam]:
            continue
        place = min(kept, beam)
        while place > 0 and errors[place - 1] > error:
            errors[place] = errors[place - 1]
            best_words[place] = best_words[place - 1]
            best_parents[place] = best_parents[place - 1]
            place -= 1
        errors[place], best_words[place], best_parents[place] = error, word, h
        kept = min(kept + 1, beam + 1)
        if kept > beam:
            limit = min(limit, errors[beam] * half)
    for i in range(1, kept):  # no cancellation in an error: a relative bound suffices
        if not errors[i] - errors[i - 1] > (dim + 8) * 2.220446049250313e-16 * errors[i] + 1e-290:
            return -1
    return min(kept, beam)


@kernel(inner=True)
def _above(value):
    """Return a finite float32 that is not below `value`."""
    return min(np.float32(value + abs(value) * (8.0 * U) + TINY * TINY), LARGEST)


@kernel(fastmath={"reassoc", "contract", "nsz"}, inner=True)
def _error(rows, at, words, word_at, dim):
    """Return the squared distance in float64, summed in any order."""
    total = 0.0
    for d in range(np.uint64(dim)):  # unsigned: a negative index would be looked up from the end
        left = np.float64(rows[np.uint64(at) + d]) - np.float64(words[np.uint64(word_at) + d])
        total += left * left
    return total
