"""The kernels in NumPy: the same functions as in `rvq_np.kernels.compiled.engine`, same results.

BLAS brings its own threads.
"""

import numpy as np

from ..tables import measured as measure
from . import beam
from . import bits as bits
from . import ids as ids
from .averages import advance as advance
from .averages import average as average
from .averages import move as move
from .averages import replace as replace
from .gather import add_rows as add_rows
from .gather import ends as ends
from .gather import path_distances as path_distances
from .gather import squared_distances as squared_distances
from .gather import subtract, tally
from .maps import project, transform
from .search import nearest

__all__ = [
    "SCREENS", "add_rows", "advance", "average", "bits", "decode", "encode", "ends", "follow",
    "ids", "measure", "move", "nearest", "path_distances", "project", "project_and_search",
    "replace", "search_beams", "squared_distances", "subtract", "tally", "transform",
]  # fmt: skip

SCREENS = ("BLAS",)
ROWS = 4096  # rows that pass all stages together


def encode(x, stages, codes):
    """Write the codes (Q, n) of `x` (n, D), of any float type."""
    for start in range(0, len(x), ROWS):
        rows = np.array(x[start : start + ROWS], dtype=stages[0].codebook.dtype, order="C")
        for stage, out in zip(stages, codes, strict=True):
            some = out[start : start + ROWS]
            nearest(project(rows, stage), stage, some)
            subtract(rows, stage.table, some)


def search_beams(x, stages, beam_size, codes, into=None):
    """Write the codes (B, Q, n) of the B best hypotheses of a beam search, best first.

    For `x` (n, D), of any float type; -1 where a row has fewer hypotheses.
    """
    best, project_rows = codes.shape[0], into or project
    for start in range(0, len(x), ROWS):
        rows = np.array(x[start : start + ROWS], dtype=stages[0].codebook.dtype, order="C")
        found = beam.search(rows, stages, beam_size, project_rows, best)
        codes[:, :, start : start + ROWS] = found


def follow(x):
    """Return ``encode(stages)`` for the rows `x` (N, D): codes (Q, N)."""

    def again(stages):
        codes = np.empty((len(stages), len(x)), np.int32)
        encode(x, stages, codes)
        return codes

    return again


def decode(codes, stages, out):
    """Write the sum (n, D), in stage order, of the codewords that `codes` (Q, n) name."""
    for start in range(0, len(out), ROWS):
        part = slice(start, start + ROWS)
        out[part] = 0
        for stage, row_codes in zip(stages, codes, strict=False):
            out[part] += stage.table[row_codes[part]]


def project_and_search(rows, stage, codes):
    """Return what `project` does, and write the codes (n,) that `nearest` finds for it."""
    searched = project(rows, stage)
    nearest(searched, stage, codes)
    return searched
