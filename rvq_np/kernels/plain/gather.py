"""Codewords looked up: subtracted from rows, measured, summed per codeword."""

import numpy as np


def subtract(rows, table, codes):
    """Subtract from each row the codeword of `table` (K, D) that its code names."""
    rows -= table[codes]


ROWS = 16384  # rows that are cut into pieces together


def ends(rows):
    """Return the sizes of the largest number of `rows` (n, C), and of the smallest but 0."""
    largest, smallest = 0.0, np.inf
    for start in range(0, len(rows), ROWS):
        sizes = np.abs(rows[start : start + ROWS])
        largest = max(largest, float(sizes.max(initial=0)))
        smallest = min(smallest, float(sizes.min(initial=np.inf, where=sizes > 0)))
    return largest, smallest


def add_rows(rows, codes, magic, totals):
    """Add the rows of each code (n,) to `totals`, see `kernels.totals`."""
    for start in range(0, len(rows), ROWS):
        chosen, left = codes[start : start + ROWS], rows[start : start + ROWS].astype(np.float64)
        for g, shift in enumerate(magic):
            near = (left + shift) - shift
            _add(totals[g], chosen, near)
            left -= near
        _add(totals[len(magic)], chosen, left)


def _add(totals, codes, rows):
    for d in range(rows.shape[1]):
        totals[:, d] += np.bincount(codes, rows[:, d], minlength=len(totals))


tally = add_rows


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
