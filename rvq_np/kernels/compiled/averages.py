"""What a training step does beside the search: sums, distances, averages.  Compiled by Numba.

    rows       (n, C)  T        what a stage quantized
    codes      (n,)    int32    the codeword of each row, checked
    codebook   (K, C)  float32 or T
    sums       (K, C)  float32  moving sum of the rows that chose each codeword
    totals     (K, C)  float64  the sum of the rows of this batch that chose each, rounded once;
               while it is made (L, K, C), on L grids with ``magic`` (L - 1,), see `kernels.totals`
    distances  (n,)    float64  out: squared distance of each row to its codeword

Each loop is cut into parts of rows, codewords or columns that share nothing, so threads never show
in a result.  `average` rounds as NumPy does: nothing is fused, nothing reordered.
"""

import numpy as np

from .jit import kernel
from .simd import add_to, item, put, split_to


@kernel
def ends(bits, found):
    """Put the largest and the smallest but 0 into `found` (2,), of floats read as whole numbers.

    Bits of floats are in the order of the floats, but for the sign.
    """
    sign = bits.dtype.type(1) << bits.dtype.type(8 * bits.itemsize - 1)
    largest, smallest = bits.dtype.type(0), ~bits.dtype.type(0)
    for i in range(len(bits)):
        size = bits.dtype.type(bits[i] & ~sign)
        largest = max(largest, size)
        smallest = min(smallest, bits.dtype.type(size - bits.dtype.type(1)))
    found[0], found[1] = largest, smallest


@kernel(inner=True)
def _add_row(totals, k, rows, n, magic, first, length):
    """Add `length` numbers of row `n` to sums `k`, from column `first` on."""
    n_grids, size, width = totals.shape
    at, row_at = k * width + first, n * width + first
    if n_grids == 1:
        add_to(totals, at, rows, row_at, length)
    elif n_grids == 2:
        split_to(totals, at, size * width, rows, row_at, length, magic[0])
    else:
        for c in range(length):
            left = np.float64(item(rows, row_at + c))
            for g in range(n_grids - 1):
                near = (left + magic[g]) - magic[g]
                left -= near
                place = g * size * width + at + c
                put(totals, place, item(totals, place) + near)
            place = (n_grids - 1) * size * width + at + c
            put(totals, place, item(totals, place) + left)


@kernel
def add_columns(rows, codes, magic, totals, first, last):
    """Add columns ``first ... last`` of the rows of each code to `totals`, see `kernels.totals`."""
    for n in range(rows.shape[0]):
        _add_row(totals, codes[n], rows, n, magic, first, last - first)


@kernel(fastmath={"reassoc", "contract"})
def squared_distances(rows, codebook, codes, distances, start, stop):
    """Write the squared distances of some rows: differences rounded once, sums in float64."""
    for n in range(start, stop):
        code, total = codes[n], 0.0
        for c in range(rows.shape[1]):
            apart = np.float64(rows[n, c] - codebook[code, c])
            total += apart * apart
        distances[n] = total


@kernel
def advance(rows, table, shown, codes, quantized, stages, q, start, stop):
    """Take from some rows what their codes decode to in `table`, and add what they do in `shown`.

    To `quantized` (n, D); `stages` (n,): of how many a row is given the sum.
    """
    for n in range(start, stop):
        code = codes[n]
        for d in range(rows.shape[1]):
            rows[n, d] -= table[code, d]
        if q < stages[n]:
            for d in range(rows.shape[1]):
                quantized[n, d] += shown[code, d]


@kernel
def average(codebook, sums, totals, empty, held, share, decay, new_codebook, new_sums, start, stop):
    """Write the moving sums and codewords ``start ... stop`` after a batch; return the largest.

    `empty` (K,): whose past counts for nothing.  `held` (K,): codewords that stay where they are.
    `share` (K,): smoothed counts that the sums are divided by.
    """
    largest = np.float32(0.0)
    for k in range(start, stop):
        most = _average(
            codebook, sums, k, totals, k, empty[k], held[k], share[k], decay, new_codebook, new_sums
        )
        largest = max(largest, most)
    return largest


@kernel(inner=True)
def _average(codebook, sums, k, totals, t, empty, held, share, decay, new_codebook, new_sums):
    """Write sums and codeword `k` as row `t` of `totals` moves them; return the largest."""
    largest = np.float32(0.0)
    for c in range(codebook.shape[1]):
        past = 0.0 if empty else np.float64(sums[k, c])
        total = decay * past + (1.0 - decay) * totals[t, c]
        new_sums[k, c] = total
        new_codebook[k, c] = np.float64(codebook[k, c]) if held else total / share
        largest = max(largest, abs(new_sums[k, c]), abs(new_codebook[k, c]))
    return largest


@kernel(inner=True)
def _replace(codebook, sums, k, vectors, i, count):
    """Write vector `i` over codeword `k`, `count` times it over its sums; return the largest."""
    largest = np.float32(0.0)
    for c in range(vectors.shape[1]):
        value = np.float64(vectors[i, c])
        codebook[k, c] = value
        sums[k, c] = value * count
        largest = max(largest, abs(codebook[k, c]), abs(sums[k, c]))
    return largest


@kernel
def move(
    codebook, sums, rows, magic, order, starts, empty, held, share, decay, place, vectors, count,
    new_codebook, new_sums, total, start, stop,
):  # fmt: skip
    """Do for codewords ``start ... stop`` what sums of the rows, `average` and `replace` do.

    `order` (n,), `starts` (K + 1,): the rows of each code.  `place` (K,): which of `vectors` (m, C)
    a codeword becomes, with a count of `count`; -1: none, it is averaged.  `total` (1, 1, C) or
    (2, 1, C): space for the sums on one grid or two, see `kernels.totals`.
    """
    largest = np.float32(0.0)
    width = codebook.shape[1]
    for k in range(start, stop):
        if place[k] >= 0:
            most = _replace(new_codebook, new_sums, k, vectors, place[k], count)
        else:
            total[:] = 0.0
            for i in range(starts[k], starts[k + 1]):
                _add_row(total, 0, rows, order[i], magic, 0, width)
            if total.shape[0] == 2:
                add_to(total, 0, total, width, width)
            most = _average(
                codebook, sums, k, total[0], 0, empty[k], held[k], share[k], decay,
                new_codebook, new_sums,
            )  # fmt: skip
        largest = max(largest, most)
    return largest


@kernel
def replace(codebook, sums, dead, vectors, count, start, stop):
    """Write vectors ``start ... stop`` over the codewords `dead`, their sums `count` times that."""
    largest = np.float32(0.0)
    for i in range(start, stop):
        largest = max(largest, _replace(codebook, sums, dead[i], vectors, i, count))
    return largest
