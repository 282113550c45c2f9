"""Encode, decode and tally for NumPy arrays: kernels chosen, rows tiled, threads used.

This is what every backend whose arrays live in host memory calls.  Compiled kernels serve where
Numba can be imported, the same functions in plain NumPy elsewhere; both give the same codes.
"""

from typing import Any

import numpy as np

from . import beam, exact, plain, tables, tiles

DECODE_ROWS = 2048  # so little work a row that tiles of 256 cost two threads more than they gain
LEAF = 16384  # rows summed in order before sums are merged pairwise: fixed, so bits are too


class _Compiled:
    """The compiled kernels under the names of `plain`."""

    def __init__(self):
        from . import gather, search
        from . import tally as tallies

        self.nearest, self.tally = search.nearest, tallies.tally
        self.add, self.subtract, self.project = gather.add, gather.subtract, gather.project
        self.over_rows = tiles.over_rows


class _Plain:
    """The same in NumPy.  BLAS brings its own threads, so rows stay in one tile."""

    nearest, tally = staticmethod(plain.nearest), staticmethod(plain.tally)
    add, subtract = staticmethod(plain.add), staticmethod(plain.subtract)
    project = staticmethod(plain.project)

    @staticmethod
    def over_rows(function, rows, tile=None):
        function(0, rows)


def _load_kernels():
    try:
        return _Compiled()
    except Exception:  # whatever is wrong with Numba, it must not take the NumPy path down
        return _Plain()


kernels = _load_kernels()


def working_dtype(like, words_dtype):
    """The float type of residuals: the vectors', float32 for half, never below the words'."""
    like = np.dtype(like)
    narrow = like.kind != "f" or like.itemsize < 4  # bfloat16 has kind "V"
    return np.result_type(np.float32 if narrow else like, words_dtype)


def prepare(codebooks, dtype):
    """Return the `Tables` of each stage, for vectors of type `dtype`."""
    dtype = working_dtype(dtype, codebooks.dtype)
    return tuple(tables.stage_tables(stage, dtype) for stage in codebooks.stages)


def encode(x, stages, beam_size=1):
    """Return int32 codes (Q, N) for `x` (N, D), finite, of any float type."""
    rows = _working_copy(x, stages)  # it is used up
    codes = np.empty((len(stages), len(rows)), np.int32)
    if beam_size > 1:
        codes[:] = beam.search(rows, stages, beam_size, _projected)
        return codes

    def tile(start, stop):
        part = rows[start:stop]
        for stage, out in zip(stages, codes, strict=True):
            nearest(_projected(part, stage), stage, out[start:stop])
            kernels.subtract(part, stage.table, out[start:stop])

    kernels.over_rows(tile, len(rows))
    return codes


def nearest(rows, stage, codes):
    """Write into `codes` (n,) the word of one stage nearest to each of `rows` (n, C)."""
    kernels.nearest(rows, *stage.search, codes)
    if len(codes) and codes.min() < 0:  # float64 beyond what expansions hold: fractions decide
        usable = np.flatnonzero(stage.half < np.inf).tolist()
        for n in np.flatnonzero(codes < 0):
            codes[n] = exact.nearest_of(rows[n], stage.words, usable)


def decode(codes, stages):
    """Return the sum, in stage order, of the words that `codes` (n, N) name: (N, D)."""
    dtype, dim = stages[0].table.dtype, stages[0].table.shape[1]
    codes = np.ascontiguousarray(codes, dtype=np.int32)
    x = np.zeros((codes.shape[1], dim), dtype)

    def tile(start, stop):
        for stage, row_codes in zip(stages[: len(codes)], codes, strict=True):
            kernels.add(x[start:stop], stage.table, row_codes[start:stop])

    kernels.over_rows(tile, len(x), DECODE_ROWS)
    return x


def tally(x, codes, stages):
    """Return per stage how often each word was chosen and the sum of what chose it, float64.

    ``(counts, sums)``: one array (K,) and one (K, C) a stage.  Rows are added in order within
    leaves of `LEAF` rows, and leaves are merged as a balanced tree over their positions: the
    same bits for any number of threads.
    """
    codes = np.ascontiguousarray(codes, dtype=np.int32)
    starts = range(0, len(x), LEAF)

    def leaf(start):
        rows = _working_copy(x[start : start + LEAF], stages)
        part = _empty_tally(stages)
        for stage, row_codes, counts, sums in zip(stages, codes, *part, strict=True):
            chosen = row_codes[start : start + LEAF]
            kernels.tally(_projected(rows, stage), chosen, counts, sums)
            kernels.subtract(rows, stage.table, chosen)
        return part

    # A binary counter of (leaves inside, tally): logarithmically many at a time.
    waiting: list[Any] = []
    width = max(1, tiles.threads())
    for first in range(0, len(starts), width):
        for part in tiles.spread(leaf, starts[first : first + width]):
            leaves = 1
            while waiting and waiting[-1][0] == leaves:
                part = merge(waiting.pop()[1], part)
                leaves *= 2
            waiting.append((leaves, part))
    if not waiting:
        return _empty_tally(stages)
    total = waiting.pop()[1]
    while waiting:
        total = merge(waiting.pop()[1], total)
    return total


def walk(x, codes, stages):
    """Yield per stage what it quantized, rows (N, C), and the words (N, C) its codes name."""
    rows = _working_copy(x, stages)
    for stage, row_codes in zip(stages[: len(codes)], codes, strict=True):
        yield _projected(rows, stage), stage.words[row_codes]
        rows = residual(rows, row_codes[None], [stage])


def searched(x, stage):
    """Return `x` (N, D) as `stage` searches it, in its float type; never `x` itself."""
    return _projected(_working_copy(x, [stage]), stage)


def residual(x, codes, stages):
    """Return what the stages of `codes` (n, N) leave of `x` (N, D): one rounding a stage."""
    rows = _working_copy(x, stages)
    for stage, row_codes in zip(stages[: len(codes)], codes, strict=True):
        kernels.subtract(rows, stage.table, np.ascontiguousarray(row_codes, dtype=np.int32))
    return rows


def _working_copy(x, stages):
    return np.array(x, dtype=stages[0].words.dtype, order="C")


def merge(left, right):
    """Return the tally of two sets of rows from the tallies of each."""
    return tuple(
        [a + b for a, b in zip(mine, yours, strict=True)]
        for mine, yours in zip(left, right, strict=True)
    )


def _empty_tally(stages):
    counts = [np.zeros(len(stage.words), np.float64) for stage in stages]
    return counts, [np.zeros(stage.words.shape, np.float64) for stage in stages]


def _projected(rows, stage):
    """Return `rows` as the stage searches them: themselves, or through ``project_in``."""
    if stage.weight_in is None:
        return rows
    out = np.empty((len(rows), stage.weight_in.shape[1]), rows.dtype)
    kernels.project(rows, stage.weight_in, stage.bias_in, out)
    return out
