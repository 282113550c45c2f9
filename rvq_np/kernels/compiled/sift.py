"""Many codewords that a screen cannot distinguish, compared in float32 by differences.  Compiled.

Codewords of a tight group differ by less than a screen of the whole codebook can tell, but what
tells them apart is no smaller than other numbers are.  So one of them leads, w, and the others are
seen from it.  With e = row - w and d = codeword - w

    |row - codeword|^2 / 2 - |row - w|^2 / 2  =  |d|^2 / 2 - <e, d>

in float32 is off by a share of ``|e| |d| + |d|^2`` only, however long rows and codewords are.

**What it may be off.**  With u = 2^-24, t = 2^-126, what float32 loses where it underflows, flushed
to zero or not, and D numbers: e and d are rounded once, by (1 + 2^-28) u of each number and t; the
sums, in whatever order, fused or not, by g(D) = D u / (1 - D u) of the sums of sizes and 2 D t;
half of one less the other, by 2 u of both.  By Cauchy and Schwarz that is below ``g(D + 16) (|e|
|d| + |d|^2) + 16 D t (1 + |e| + |d|)``, where the size of e is that in float64, grown by 4 u, and
that of d comes from its float32 sum of squares, grown by 1.25 (D + 16) u and 16 D t: its rounding
is less where D u is below 1/16.  The bound itself, and what is above or below by it, is computed
in float32: a share of 16 u more holds those roundings.  Where a sum overflows, nothing is known,
and the codeword stays.

What is left goes the way of other codewords: `exact` measures it in float64.
"""

import numpy as np

from .differences import bracket, shorten, spans
from .jit import kernel
from .panels import U
from .simd import apart, fetch

SEVERAL = 4  # codewords from which float32 costs less than float64
AHEAD = 8  # codewords that are on the way from the second-level cache
LOST = 2.0**-122  # 16 t
LONGEST = 1 << 19  # numbers a codeword beyond which float32 says little
FAR = 2.0**80  # |e|^2 from which float32 might not hold what follows


@kernel(inner=True)
def sift(rows, at, first, codewords, codewords_at, width, found, count, rest):
    """Keep those of the codewords ``found[:count]`` that may be nearest; return how many.

    The row begins at element `at` of `rows`, codeword k at ``codewords_at + k * width``; `first` is
    the codeword that leads.  `rest`, ``width + 2 * found.shape[0]`` float32: to work in.
    """
    apart()
    leader, places = codewords_at + first * width, found.shape[0]
    square = shorten(rows, at, codewords, leader, rest, 0, width)
    if not square < FAR or width > LONGEST:
        return count
    for i in range(count, -(-count // 4) * 4):  # `found` has places for whole panels
        found[i] = first
    for i in range(0, count, 4):
        for n in range(i + AHEAD, min(i + AHEAD + 4, count)):
            fetch(codewords, codewords_at + found[n] * width, width)
        spans(rest, width, codewords, codewords_at, leader, found, i)
    terms = (width + 16) * U
    share = terms / (1.0 - terms) * (1.0 + 16.0 * U) + 16.0 * U
    far, grown = np.sqrt(square) * (1.0 + 4.0 * U), 1.0 + 1.25 * terms
    best = bracket(rest, width, count, far, share, grown, LOST * width, places)
    left = 0
    for i in range(count):
        least = rest[width + i]
        # If one of them is no number, nothing is known of this codeword, or of any.
        if not least > best or not np.isfinite(least) or not np.isfinite(best):
            found[left] = found[i]
            left += 1
    return left
