"""What a training step does beside the search: moving averages and replaced codewords."""

import numpy as np


def advance(rows, table, shown, codes, quantized, given, q):
    """Take from `rows` what their codes decode to; add `shown`, that in the type of `quantized`."""
    rows -= table[codes]
    some = np.flatnonzero(given > q)
    quantized[some] += shown[codes[some]]


def average(codewords, sums, totals, empty, held, share, decay):
    """Return the codewords and moving sums after a batch, and the largest number in them."""
    past = np.where(empty[:, None], 0.0, sums).astype(np.float64)
    new_sums = decay * past + (1.0 - decay) * totals
    moved = np.where(held[:, None], codewords.astype(np.float64), new_sums / share[:, None])
    with np.errstate(over="ignore"):
        new_codewords, new_sums = moved.astype(np.float32), new_sums.astype(np.float32)
    return (
        new_codewords,
        new_sums,
        max(float(np.abs(each).max()) for each in (new_codewords, new_sums)),
    )


def move(codewords, sums, tally, averaging, place, vectors, count):
    """Return codewords and moving sums after a batch, some replaced, and their largest number."""
    new_codewords, new_sums, largest = average(codewords, sums, tally.sums(), *averaging)
    dead = np.flatnonzero(place >= 0)
    if len(dead):
        largest = max(largest, replace(new_codewords, new_sums, dead, vectors[place[dead]], count))
    return new_codewords, new_sums, largest


def replace(codewords, sums, dead, vectors, count):
    """Write vectors (m, C) over the codewords `dead` (m,), and `count` times them over the sums."""
    wide = vectors.astype(np.float64)
    with np.errstate(over="ignore"):
        codewords[dead], sums[dead] = wide, wide * count
    return max(float(np.abs(each[dead]).max()) for each in (codewords, sums))
