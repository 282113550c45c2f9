"""Rows plus or minus the words their codes name, and rows through a linear map.  Compiled.

    rows     (n, D)  float32 or float64   changed in place by `add` and `subtract`
    table    (K, D)  the rows' float type the words
    codes    (n,)    int32                which word, already checked
    weight   (C, D)  float64              a linear map, transposed
    bias     (D,)    float64
    out      (n, D)  the rows' float type written by `project`

One rounding a number: nothing is fused, nothing reordered, so each machine gets the same bits.
"""

import numpy as np

from .jit import kernel


@kernel
def add(rows, table, codes):
    for n in range(rows.shape[0]):
        word = table[codes[n]]
        row = rows[n]
        for d in range(rows.shape[1]):
            row[d] += word[d]


@kernel
def subtract(rows, table, codes):
    for n in range(rows.shape[0]):
        word = table[codes[n]]
        row = rows[n]
        for d in range(rows.shape[1]):
            row[d] -= word[d]


@kernel
def project(rows, weight, bias, out):
    n_rows, width = rows.shape[0], rows.shape[1]
    total = np.empty(bias.shape[0], np.float64)
    for n in range(n_rows):
        total[:] = bias
        for c in range(width):
            value = np.float64(rows[n, c])
            column = weight[c]
            for d in range(total.shape[0]):
                total[d] += value * column[d]
        for d in range(total.shape[0]):
            out[n, d] = total[d]
