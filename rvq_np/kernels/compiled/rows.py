"""Rows as a stage searches them: mapped, and rounded as its screen reads them.  Compiled.

See `packing` for the units and what is promised, `search` for the arrays.
"""

import math

import numpy as np

from . import columns as col
from .differences import move
from .gather import normalize
from .jit import kernel
from .maps import map_rows, width_of
from .packing import FAR
from .panels import NORM, SHORT, TINY, U
from .simd import dot, largest, largest_run, round_row

SUM = 32767 // (2 * SHORT) - 4  # what the products of a run of 16 bits hold, less what rounds up


@kernel(inner=True)
def quantize(
    rows, at, count, centres, moved, whole, real, q, quantized, params, starts, norms, powers
):  # fmt: skip
    """Write rows as the screen reads them, with their `params`, norms and powers of two.

    See `packing` for what is promised; norms are in the units of the row and inf if out of range.
    """
    width, centre, unit = whole[q, col.PACKED], whole[q, col.CENTRE_AT], real[q, col.UNIT]
    if centre < 0:
        _round(
            rows, at, 0, count, unit, whole, real, q, quantized, params, starts, norms, powers
        )  # fmt: skip
        return
    for i in range(count):
        move(rows, at + i * width, centres, centre, moved, 0, unit, width)
        _round(moved, 0, i, i + 1, 1.0, whole, real, q, quantized, params, starts, norms, powers)


@kernel(inner=True)
def _round(
    rows, at, begin, end, stage_unit, whole, real, q, quantized, params, starts, norms, powers
):  # fmt: skip
    """Write rows `begin` to `end`, whose numbers times a unit begin at element `at` of `rows`."""
    width, padded = whole[q, col.PACKED], whole[q, col.STEPS] * 4 // quantized.itemsize
    ratio, lowered = real[q, col.RATIO], real[q, col.LOWERED]
    usable, full_scale = real[q, col.USABLE] > 0.0, real[q, col.FULL_SCALE]
    grown = 1.0 + (width + 8) * U  # of a float32 sum of squares
    share = lowered if full_scale == 0.0 else ratio + 8.0 * U * (1.0 + ratio)
    for i in range(begin, end):
        row, out = at + (i - begin) * width, i * quantized.shape[1]
        unit = stage_unit
        reach = np.float64(largest(rows, row, width)) * unit
        powers[i], distant = 1.0, 0.0
        if not (usable and reach < np.inf):
            norms[i] = np.inf
            continue
        for d in range(width, padded):
            quantized[i, d] = 0
        if reach >= FAR:
            power = math.ldexp(1.0, 50 - math.frexp(reach)[1])
            powers[i], reach, unit = power, reach * power, unit * power
            distant = 0.5 * real[q, col.HEAVIEST]
        step = 0.0
        if full_scale == 0.0:
            step = 1.0
        elif reach >= TINY:
            step = reach / (127.0 if full_scale == SHORT else full_scale)
            if full_scale == SHORT:
                most = np.float64(largest_run(rows, row, width)) * unit
                step = max(step, min(most, 16.0 * reach) * (1.0 + 16.0 * U) / SUM)
            if full_scale > 127.0:  # int16: the norm, too, must fit
                size = np.sqrt(dot(rows, row, rows, row, width)) * unit
                if not size < np.inf:  # squares of float64 in no unit
                    size = reach * np.sqrt(np.float64(width))
                step = max(step, size / NORM)
            step = np.float64(np.float32(step))
        total = np.int32(0)
        norm = rest = reach * np.sqrt(np.float64(width)) * (1.0 + 4.0 * U)
        if step > 0.0:
            factor = rows.dtype.type(unit / step)
            squares, lefts, total = round_row(rows, row, width, factor, quantized, out)
            if reach >= 2.0**10 * TINY:  # else float32 might lose the squares
                norm = step * np.sqrt(squares * grown) * (1.0 + 4.0 * U)
            rest = step * (np.sqrt(lefts * grown) + 4.0 * U * np.sqrt(squares * grown))
        else:  # next to nothing: all of it is rest
            for d in range(width):
                quantized[i, d] = 0
        if full_scale == 0.0:
            rest = 0.0
        slack = rest + (norm + rest) * share + distant
        params[i, col.MINUS_STEP] = -step
        params[i, col.MINUS_SLACK] = -slack * (1.0 + 4.0 * U)
        starts[i, col.START] = -total * (
            128 if full_scale == 127.0 else SHORT if full_scale == SHORT else 0
        )
        norms[i] = norm


@kernel(inner=True)
def project_rows(rows, at, count, dim, maps, narrow, whole, q, out):
    """Write what the stage searches, (count, C), from the first element of `out` on."""
    width = whole[q, col.WIDTH]
    if whole[q, col.NARROW]:
        panels = width_of(narrow.itemsize, width)
        map_rows(rows, at, count, dim, narrow, whole[q, col.MAP_AT], panels, width, out, 0, width)
    else:
        panels = width_of(maps.itemsize, width)
        map_rows(rows, at, count, dim, maps, whole[q, col.MAP_AT], panels, width, out, 0, width)
    if whole[q, col.UNIT_ROWS]:
        for i in range(count):
            normalize(out, i * width, width)
