"""Codes of all stages, exactly: a screen of few bits, float64, then expansions.  Compiled by Numba.

    rows    (n, D)  T       the vectors; used up by all stages but the last
    plan                    the arrays of a `pack.Plan`: T is float32 or float64
    codes   (Q, N)  int32   out, columns ``start ... start + n``; -1 where the numbers are outside
                            what the last tier can hold, and that row goes no further
    spent   (2,)    int64   added to: rows times stages, codewords scored in float64
    others  (n,)    float64 out, unless it is None: a lower bound on half the squared distance to
                            all codewords but the nearest, at the last stage

The score of a codeword is half the squared distance less a part no codeword can change.  Each tier
passes on only what it cannot rule out:

1. the screen (`screens`, `packing`) bounds every codeword's score from below, seen from the stage's
   centre
   where it has one;
2. the codeword with the lowest bound is scored in float64: what is bounded above that is out.  Most
   often nothing else is left; where much is, it is compared with that codeword in float32, by
   differences (`sift`); what is left of that is measured in float64;
3. what float64 cannot separate is compared exactly (`exact`).

A stage with a single codeword that can be chosen is not searched at all, and a row whose neighbour
above is the same has its code.

What is None (`maps` where no stage projects, `others`) is left out when Numba compiles.

About ``2 * n * K * D`` operations a stage, in the arithmetic of the screen.  A tile of rows passes
all stages, so that it stays in the cache; blocks of it meet one run of panels after the other.
"""

import numpy as np

from . import columns as col
from .differences import dot_moved, move
from .exact import PARTIALS, settle
from .fold import pick_folded
from .jit import kernel
from .measure import same
from .packing import aligned_empty
from .panels import TINY, U
from .rows import project_rows, quantize
from .screens import collect, lowest, nearest, screen_block, screen_row
from .sift import SEVERAL, sift
from .simd import align_stack, dot, fetch, subtract_from
from .target import LANES, ROWS, VECTORS

TILE = 384  # rows that pass a stage together
SMALL = 1 << 19  # bytes of a stage's panels that stay in L2 while rows pass
MAPPED = 96  # rows that are mapped together: each reads all weights
NEAR = 1 << 15  # bytes of bounds that stay in L1
BOUNDS = 1 << 22  # bytes of the bounds of a block, unless a single one needs more
RUN = 1 << 17  # bytes of panels met at a time where they do not
MOST = 1e300  # half a squared distance to no codeword
IN_PANEL = LANES * VECTORS
WIDTH = LANES * (VECTORS + 1)  # of a panel in `bounds`


@kernel
def encode(
    rows, codewords, table, half, panels, side, maps, centres, whole, real,
    quantized, params, starts, norms, powers, bounds, mapped, moved, found, scores, partials,
    rest, folds, folded, narrow, codes, start, spent, others,
):  # fmt: skip
    align_stack()
    n_rows, dim = rows.shape
    n_stages, group, lost, space = whole.shape[0], norms.shape[0], 0, mapped.shape[0]
    for first in range(0, n_rows, TILE):
        last = min(first + TILE, n_rows)
        for q in range(n_stages):
            for low in range(first, last, group):
                count, at = min(group, last - low), low * dim
                if whole[q, col.ONLY] >= 0:  # the only codeword there is
                    for i in range(count):
                        codes[q, start + low + i] = whole[q, col.ONLY]
                        if others is not None:
                            others[low + i] = MOST
                elif folds is not None and whole[q, col.FOLDS_AT] >= 0:
                    quantize(
                        rows, at, count, centres, moved, whole, real, q,
                        quantized, params, starts, norms, powers,
                    )  # fmt: skip
                    _screen(quantized, count, panels, whole, q, side, params, bounds)
                    pick_folded(
                        rows, at, count, norms, powers, bounds, folds, folded, maps, narrow, mapped,
                        codewords, half, centres, moved, whole, real, q, codes, start + low,
                        found, scores, partials, spent,
                    )  # fmt: skip
                else:
                    searched, place = rows, at
                    if maps is not None and whole[q, col.MAP_AT] >= 0:
                        place = (low - first) % space
                        if place == 0:
                            some = min(space, last - low)
                            project_rows(rows, at, some, dim, maps, narrow, whole, q, mapped)
                        searched, place = mapped, place * whole[q, col.WIDTH]
                    quantize(
                        searched, place, count, centres, moved, whole, real, q,
                        quantized, params, starts, norms, powers,
                    )  # fmt: skip
                    _screen(quantized, count, panels, whole, q, side, params, bounds)
                    _pick(
                        searched, place, count, norms, powers, bounds, codewords, half, side,
                        centres,
                        moved, whole, real, q, codes, start + low, found, scores, partials, rest,
                        spent,
                    )  # fmt: skip
                    if others is not None:
                        _bound_others(
                            searched, place, count, norms, powers, bounds, centres, moved,
                            whole, real, q, codes, start + low, others, low,
                        )  # fmt: skip
                lost += _subtract(
                    rows, at, count, dim, table, whole[q, col.TABLE_AT], codes, q, start + low,
                    q + 1 < n_stages,
                )  # fmt: skip
    return lost


def workspace(plan, rows):
    """Return what `encode` writes into besides its results: arrays for blocks of `rows` rows."""
    n_panels = int(plan.whole[:, col.PANELS].max())
    width = int(plan.whole[:, col.STEPS].max()) * 4 // plan.blank.itemsize
    dtype = plan.codebook.dtype
    widest = int(plan.whole[:, col.WIDTH].max()) if plan.maps is not None else 0
    params = np.empty((rows, len(col.PARAMS)), np.float32)
    return (
        np.zeros((rows, width), plan.blank.dtype),
        params,
        params.view(np.int32),
        np.empty(rows),
        np.empty(rows),
        aligned_empty(rows, n_panels * WIDTH),
        np.empty((-(-MAPPED // max(1, rows)) * rows, widest), dtype),
        np.empty(int(plan.whole[:, col.WIDTH].max())),
        np.empty(n_panels * IN_PANEL, np.int32),
        np.empty(n_panels * IN_PANEL),
        np.empty(PARTIALS),
        np.empty(int(plan.whole[:, col.WIDTH].max()) + 2 * n_panels * IN_PANEL, np.float32),
    )


def block(plan, n_rows):
    """Return how many rows take a stage together.

    As many as keep their bounds in L1, or, where panels leave L2, share one reading of them.
    """
    panels = int((plan.whole[:, col.STEPS] * plan.whole[:, col.PANELS]).max()) * IN_PANEL * 4
    # Bytes of the bounds of ROWS rows.
    a_block = int(plan.whole[:, col.PANELS].max()) * WIDTH * 4 * ROWS
    blocks = (BOUNDS if panels > SMALL else NEAR) // a_block
    return ROWS * max(1, min(8, blocks, -(-n_rows // ROWS)))


@kernel(inner=True)
def _screen(quantized, count, panels, whole, q, side, params, bounds):
    """Bound the scores of `count` rows with all codewords of a stage."""
    steps, n_panels = whole[q, col.STEPS], whole[q, col.PANELS]
    at, side_at = whole[q, col.PANELS_AT], whole[q, col.SIDE_AT]
    run = n_panels
    if steps * n_panels * IN_PANEL * 4 > SMALL:
        run = max(1, RUN // (steps * IN_PANEL * 4))
    for begin in range(0, n_panels, run):
        end = min(begin + run, n_panels)
        i = 0
        while i + ROWS // 2 <= count:  # the rows that fill up a block are there, if meaningless
            screen_block(quantized, i, panels, at, steps, begin, end, side, side_at, params, bounds)
            i += ROWS
        while i < count:
            screen_row(quantized, i, panels, at, steps, begin, end, side, side_at, params, bounds)
            i += 1


@kernel(inner=True)
def _pick(
    rows, at, count, norms, powers, bounds, codewords, half, side, centres, moved,
    whole, real, q, codes, start, found, scores, partials, rest, spent,
):  # fmt: skip
    """Write the nearest codeword of each row."""
    size, width, n_panels = whole[q, col.SIZE], whole[q, col.WIDTH], whole[q, col.PANELS]
    codewords_at, half_at = whole[q, col.CODEWORDS_AT], whole[q, col.HALF_AT]
    centre, side_at = whole[q, col.CENTRE_AT], whole[q, col.SIDE_AT]
    share, least, unit = real[q, col.WIDE_SHARE], real[q, col.WIDE_LEAST], real[q, col.UNIT]
    scale = 1.0 / unit / unit
    scored = 0
    for i in range(count):
        if norms[i] < np.inf:  # all rows first, so that their codewords are on the way
            first = nearest(bounds, i, n_panels)
            codes[q, start + i] = first
            fetch(codewords, codewords_at + first * width, width)
    for i in range(count):
        row, power = at + i * width, powers[i]
        near, norm = 0, norms[i]
        if norm < np.inf:
            first = np.int64(codes[q, start + i])
            own, weight = half[half_at + first], np.float64(side[col.NORM, side_at + first])
            place = codewords_at + first * width
            # As `error_of`, with a norm that need not be computed: it is not below the codeword's.
            if centre < 0:
                score = own - dot(rows, row, codewords, place, width)
                length = norm if power == 1.0 else norm / power
                error = share * (length * weight * scale + own) * (1.0 + 1e-9) + least
                limit = (score + 1.5 * error) * unit * unit * power
            else:
                move(rows, row, centres, centre, moved, 0, unit * power, width)
                product = dot_moved(moved, 0, codewords, place, centres, centre, unit, width)
                score = own * power - product
                error = share * (norm * weight + own * power) * (1.0 + 1e-9) + least
                limit = score + 1.5 * error
            rounded = np.float32(limit + abs(limit) * (4.0 * U) + TINY * TINY)  # never below
            if rounded < np.inf:
                near = collect(bounds, i, n_panels, rounded, found)
                scored += near
                if near == 1:
                    codes[q, start + i] = first
                    continue
        if i > 0 and same(rows, row, row - width, width):
            codes[q, start + i] = codes[q, start + i - 1]
            continue
        if near >= SEVERAL:
            near = sift(rows, row, first, codewords, codewords_at, width, found, near, rest)
        if near == 0:  # numbers too large for the screen: every codeword may be the one
            for k in range(size):
                if half[half_at + k] < np.inf:
                    found[near] = k
                    near += 1
        codes[q, start + i] = settle(
            rows, row, norm, moved, centres, centre, unit, power, codewords, codewords_at, width,
            half, half_at, share, least, found, near, scores, partials,
        )  # fmt: skip
    spent[col.ROWS] += count
    spent[col.SCORED] += scored


@kernel(inner=True)
def _bound_others(
    rows, at, count, norms, powers, bounds, centres, moved, whole, real, q,
    codes, start, others, to,
):  # fmt: skip
    """Write a lower bound on half the squared distance to all codewords but the one chosen."""
    width, unit = whole[q, col.WIDTH], real[q, col.UNIT]
    off = (width + 8) * 2.0**-51  # of a sum of squares in float64, and of what is made of it
    for i in range(count):
        others[to + i] = 0.0
        if codes[q, start + i] >= 0 and norms[i] < np.inf:
            panel, place = divmod(codes[q, start + i], IN_PANEL)
            lane, first = place % LANES, panel * WIDTH
            bounds[i, first + LANES + place] = np.inf
            least = np.float32(np.inf)
            for v in range(VECTORS):
                least = min(least, bounds[i, first + (v + 1) * LANES + lane])
            bounds[i, first + lane] = least
            row = at + i * width
            bound = np.float64(lowest(bounds, i, whole[q, col.PANELS])) / powers[i]
            if whole[q, col.CENTRE_AT] < 0:
                energy = 0.5 * dot(rows, row, rows, row, width) * unit * unit
            else:
                move(rows, row, centres, whole[q, col.CENTRE_AT], moved, 0, unit, width)
                energy = 0.5 * dot(moved, 0, moved, 0, width)
            value = energy + bound - (energy + abs(bound)) * off
            # Not a number where a square or the bound left float64: nothing is known then.
            others[to + i] = min(value / unit / unit, MOST) if value > 0.0 else 0.0


@kernel(inner=True)
def _subtract(rows, at, count, dim, table, table_at, codes, q, start, more):
    """Leave the residual where `more` stages follow; count the rows without a code."""
    lost = 0
    for i in range(count):
        if codes[q, start + i] < 0:
            lost += 1
        elif more:
            codeword = table_at + codes[q, start + i] * dim
            subtract_from(rows, at + i * dim, table, codeword, dim)
    return lost
