"""Codewords looked up: subtracted from rows, measured, summed per codeword."""

import numpy as np


def subtract(rows, table, codes):
    """Subtract from each row the codeword of `table` (K, D) that its code names."""
    rows -= table[codes]


def tally(rows, codes, counts, sums):
    """Add to `counts` (K,) and `sums` (K, C), float64, in the order of the rows."""
    counts += np.bincount(codes, minlength=len(counts))
    for d in range(rows.shape[1]):  # bincount adds in the order of the rows, in float64
        sums[:, d] += np.bincount(codes, rows[:, d], minlength=len(counts))


def add_rows(rows, codes, counts, totals):
    """Count the codes (n,) and add up the rows of each, in their order."""
    tally(rows, codes, counts, totals)


def squared_distances(rows, codewords, codes):
    """Return the squared distance (n,) of each row to the codeword of its code."""
    apart = (rows - codewords[codes]).astype(np.float64)
    return np.einsum("nd,nd->n", apart, apart)


def path_distances(x, stages, codes, out):
    """Write into `out` (K, N) how far rows are from what each of their paths (K, Q, N) decodes to.

    Squared, infinite where codes are -1.  What is left is rounded at each stage, as in a search;
    its squares are added in their order, in float64.
    """
    for path, distances in zip(codes, out, strict=True):
        left = x.copy()
        for stage, chosen in zip(stages, path, strict=True):
            subtract(left, stage.table, np.maximum(chosen, 0))
        distances[:] = 0
        for column in np.ascontiguousarray(left.T):
            wide = column.astype(np.float64)
            distances += wide * wide
        distances[path[0] < 0] = np.inf
