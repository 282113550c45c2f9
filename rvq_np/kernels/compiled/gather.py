"""Codewords looked up: added to nothing, subtracted from rows.  Compiled by Numba.

    rows    (n, D)  T        float32 or float64
    codes   (Q, N)  int32    which codeword at each stage, already checked
    table           T        all codewords of all stages, codeword k of stage q at ``first[q] + k *
    D``

One rounding a number: nothing is fused, nothing reordered, so each machine gets the same bits.
"""

import numpy as np

from .differences import distance
from .jit import kernel
from .simd import item, put, subtract_from, sum_codewords


@kernel
def decode(codes, table, first, out, start, stop):
    """Write into rows ``start ... stop`` of `out` (N, D) the sums of their codewords."""
    dim = out.shape[1]
    for n in range(start, stop):
        sum_codewords(codes, n, table, first, dim, out, n * dim)


@kernel
def subtract(rows, table, codes):
    """Subtract from each row the codeword of `table` (K, D) that its code (n,) names."""
    dim = rows.shape[1]
    for n in range(rows.shape[0]):
        subtract_from(rows, n * dim, table, codes[n] * dim, dim)


@kernel
def normalize_rows(rows, start, stop):
    """Divide each of some rows (n, C) by its norm."""
    for n in range(start, stop):
        normalize(rows, n * rows.shape[1], rows.shape[1])


@kernel(inner=True)
def normalize(rows, at, width):
    """Divide `width` numbers from element `at` on by their norm; zeros stay zeros."""
    largest = 0.0
    for c in range(width):
        largest = max(largest, abs(np.float64(item(rows, at + c))))
    if largest == 0.0:
        return
    total = 0.0
    for c in range(width):
        share = np.float64(item(rows, at + c)) / largest
        total += share * share
    norm = np.sqrt(total)
    for c in range(width):
        put(rows, at + c, np.float64(item(rows, at + c)) / largest / norm)


@kernel
def squared_distances(x, rows, codewords, codes, out, start, stop):
    """Write the squared distances of some `rows` (m,) of `x` to the codewords their `codes` (m,)
    name.

    Sums of the squares of differences, in float64: off by a share of the distance itself.
    """
    dim = x.shape[1]
    for i in range(start, stop):
        out[i] = distance(x, rows[i] * dim, codewords, codes[i] * dim, 1.0, dim)


@kernel
def path_distances(x, table, first, codes, out, start, stop):
    """Write the squared distances (K, N) of rows ``start ... stop`` of `x` (N, D) to what each of
    their paths decodes to, `codes` (K, Q, N): infinity where there is none.

    What is left is rounded at each stage, as in a search; its squares are added in their order, in
    float64.
    """
    n_paths, n_q, n_rows = codes.shape
    dim = x.shape[1]
    for n in range(start, stop):
        for path in range(n_paths):
            if codes[path, 0, n] < 0:
                out[path, n] = np.inf
                continue
            total = 0.0
            for d in range(dim):
                left = item(x, n * dim + d)
                for q in range(n_q):
                    chosen = item(codes, (path * n_q + q) * n_rows + n)
                    left = left - item(table, first[q] + chosen * dim + d)
                wide = np.float64(left)
                total += wide * wide
            out[path, n] = total
