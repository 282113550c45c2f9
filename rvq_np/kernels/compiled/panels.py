"""Codewords rounded, and written in the panels that a screen reads.  Compiled; see `packing`."""

import numpy as np

from . import columns as col
from .differences import distance, move
from .jit import kernel
from .simd import dot, largest

U = 2.0**-24  # unit roundoff of float32

TINY = 2.0**-60  # rows and codewords below this count as rest

SHORT = 80  # int8: the largest whole number of a codeword, which is stored with that added

NORM = 46000.0  # int16: |q| and |p| at most, so that no sum of products leaves int32


@kernel
def largest_of(codewords):
    """Return the largest size of a number of some codewords (K, C)."""
    return np.float64(largest(codewords, 0, codewords.size))


@kernel
def squares_of(codewords, centre, scale, moved, out):
    """Write the squared norm of ``(codeword - centre) * scale`` of each codeword (K, C).

    `moved` (C,): space to work in.
    """
    width = codewords.shape[1]
    for k in range(codewords.shape[0]):
        move(codewords, k * width, centre, 0, moved, 0, scale, width)
        out[k] = dot(moved, 0, moved, 0, width)


@kernel
def pack(
    codewords, centre, unit, full_scale, in_panel, moved, row, row32, panels, steps, missed,
    start, stop,
):  # fmt: skip
    """Write panels ``start ... stop``, and of their codewords the steps and the norms of the rests.

    codewords   (K, C)  T        ``(codeword - centre) * unit`` is what is packed
    row     (S * n,) the screen's type, in which padding is zero; `row32` the same by 32 bits
    panels  (panels, S, in_panel)  uint32, flat
    """
    width, n_steps = codewords.shape[1], row32.shape[0]
    for p in range(start, stop):
        for place in range(in_panel):
            k = p * in_panel + place
            first = p * n_steps * in_panel + place
            if k >= codewords.shape[0]:
                for d in range(width):
                    row[d] = row.dtype.type(_offset(full_scale))
            else:
                move(codewords, k * width, centre, 0, moved, 0, unit, width)
                if full_scale == 0:
                    steps[k], missed[k] = 1.0, 0.0
                    for d in range(width):
                        row[d] = row.dtype.type(moved[d])
                else:
                    steps[k], missed[k] = _round_codeword(moved, full_scale, row)
            for s in range(n_steps):
                panels[first + s * in_panel] = row32[s]


@kernel
def sides(squares, steps, missed, usable_half, ratio, lowered, lost, side, places, half):
    """Write `side` and `half` of a stage: what its panels are short of a bound.

    squares, steps, missed  (K,)     float64  squared norms, steps and norms of rests, in units
    usable_half             (K,)     T        inf marks a repeat
    side                    (3, +)   float32  the first `places` columns: padding never comes near
    half                    (K,)     float64  half of `squares`, inf for a repeat
    """
    for k in range(places):
        side[col.LOWERED_HALF, k] = np.inf
        side[col.STEP, k], side[col.NORM, k] = 0.0, 0.0
    for k in range(squares.shape[0]):
        norm = np.sqrt(squares[k]) * (1.0 + 1e-9)
        bounding = max(norm, TINY)
        if ratio > 0.0:
            bounding = max(bounding, (missed[k] * (1.0 + 1e-9) + 2.0**-1000) / ratio)
        side[col.STEP, k], side[col.NORM, k] = steps[k], _up_of(bounding)
        half[k] = np.inf
        if usable_half[k] < np.inf:
            half[k] = 0.5 * squares[k]
            side[col.LOWERED_HALF, k] = _down_of(half[k] * (1.0 - lowered) - lost * max(norm, 1.0))


@kernel(inner=True)
def _up_of(value):
    """Return the next float32 that is not below `value`."""
    rounded = np.float32(value)
    return np.nextafter(rounded, np.float32(np.inf)) if rounded < value else rounded


@kernel(inner=True)
def _down_of(value):
    """Return the next float32 that is not above `value`."""
    rounded = np.float32(value)
    return np.nextafter(rounded, np.float32(-np.inf)) if rounded > value else rounded


@kernel(inner=True)
def _offset(full_scale):
    """Return what is added to whole numbers, so that none is negative: of bytes only."""
    return np.int32(128 if full_scale == 127 else SHORT if full_scale == SHORT else 0)


@kernel(inner=True, fastmath={"reassoc", "contract", "nsz"})
def _round_codeword(moved, full_scale, row):
    """Write a codeword as whole numbers of a step; return that and the norm of what is left."""
    width = np.uint64(moved.shape[0])  # unsigned: a negative index would be looked up from the end
    offset = _offset(full_scale)
    most, square = largest(moved, 0, moved.shape[0]), dot(moved, 0, moved, 0, moved.shape[0])
    if most < TINY:
        for d in range(width):
            row[d] = row.dtype.type(offset)
        return 0.0, np.sqrt(square)
    step = most / full_scale
    if full_scale > 127:
        step = max(step, np.sqrt(square) * (1.0 + 1e-9) / NORM)
    step = np.float64(np.float32(step))
    inverse, left = 1.0 / step, 0.0
    for d in range(
        width
    ):  # the step is rounded by 2^-24 at most: no whole number is above `full_scale`
        whole = np.rint(moved[d] * inverse)
        rest = moved[d] - whole * step
        left += rest * rest
        row[d] = row.dtype.type(np.int32(whole) + offset)
    return step, np.sqrt(left)


@kernel
def mean_bits(rows, point):
    """As `places.mean_bits`."""
    width = rows.shape[1]
    total, counted = 0.0, 0
    for k in range(rows.shape[0]):
        square = distance(rows, k * width, point, 0, 1.0, width)
        if square > 0.0 or not _equal(rows[k], point):
            total += 0.5 * np.log2(max(square, 2.0**-1000))
            counted += 1
    return total / counted if counted else 0.0


@kernel(inner=True)
def _equal(a, b):
    for d in range(a.shape[0]):
        if a[d] != b[d]:
            return False
    return True
