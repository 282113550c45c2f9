"""The search on a GPU: what it reads of the stages, and the calls that make codes of rows."""

import functools
from typing import Any, NamedTuple

import cupy
import numpy as np

from . import columns
from .launch import FAR, PARALLEL, cast, launch, register_bytes, shape

FAR_OFF = 2.0**86  # half squared norm of no codeword, see encode.cu
PADDING = 16  # numbers of a codeword in half precision are padded to a multiple of this
PAD = 256  # codewords are padded to a multiple of this, so that every shape can read whole tiles


class Screen(NamedTuple):
    """Stages of codewords of one length, as encode.cu reads them; a slice shares the arrays."""

    codebook: Any  # of all stages, one after the other, T
    screen: Any  # the same in half precision, as uint16, padded
    half: Any  # float32: half squared norms, in the unit of the screen
    centre: Any  # T: the mean codeword of each stage
    whole: Any  # (Q, 5) int64: see `columns.WHOLE`
    real: Any  # (Q, 4) float64: see `columns.REAL`
    padded: int  # numbers of a codeword in `screen`, zeros among them

    def first(self, stages: slice) -> "Screen":
        return self._replace(whole=self.whole[stages], real=self.real[stages])


class Stage(NamedTuple):
    """One stage: what it searches with, and what its codes decode to."""

    screen: Screen
    codebook: Any  # (K, C) T
    usable: Any  # (U,) int32: codewords that are no repeats of earlier ones
    table: Any  # (K, D) T
    weight_in: Any = None  # (D, C) float64
    bias_in: Any = None
    unit: bool = False

    def search(self) -> "Stage":
        """Return the search alone: rows come projected."""
        return self._replace(table=self.codebook, weight_in=None, unit=False)


def joined(arrays):
    return cupy.concatenate([each.ravel() for each in arrays])


def screen(codewords, useless=None):
    """Return the `Screen` of stages `codewords`, arrays (K, C), computed on their device.

    `useless`: per stage the numbers of codewords that are never chosen, on the host; none by
    default.
    """
    width, sizes = codewords[0].shape[1], tuple(len(each) for each in codewords)
    dtype = codewords[0].dtype
    padded = -(-width // PADDING) * PADDING
    whole, rows, starts = _places(cupy.cuda.Device().id, width, padded, sizes)
    halves = cupy.empty((starts[-1], padded), np.uint16)
    half = cupy.empty(starts[-1], np.float32)
    centres = cupy.empty(len(codewords) * width, dtype)
    spread = cupy.empty(width, np.float64)
    real = cupy.empty((len(codewords), len(columns.REAL)), np.float64)
    for q, each in enumerate(codewords):
        own = slice(starts[q], starts[q + 1])
        centre = centres[q * width : (q + 1) * width]
        given = (each, np.int32(sizes[q]), np.int32(width))
        launch(
            "codewords", "find_centre", dtype, -(-width // 32), 32 * min(32, -(-sizes[q] // 8)), 0,
            (*given, centre, spread, real[q]),
        )  # fmt: skip
        launch(
            "codewords", "round_codewords", dtype, -(-rows[q] // 8), 256, 0,
            (*given, np.int32(padded), np.int32(rows[q]), centre, spread, halves[own], half[own],
             real[q]),
        )  # fmt: skip
        if useless is not None and len(useless[q]):
            half[cupy.asarray(useless[q] + starts[q])] = np.float32(FAR_OFF)
    every = codewords[0].ravel() if len(codewords) == 1 else joined(codewords)
    return Screen(every, halves, half, centres, whole, real, padded)


@functools.lru_cache(maxsize=64)
def _places(device, width, padded, sizes):
    """Return `whole` of encode.cu, the padded sizes of the stages, and their places."""
    sizes = np.array(sizes)
    rows = -(-sizes // PAD) * PAD
    before = np.cumsum(sizes) - sizes
    starts = np.cumsum(rows) - rows
    whole = np.empty((len(sizes), len(columns.WHOLE)), np.int64)
    whole[:, columns.SIZE] = sizes
    whole[:, columns.CODEWORDS_AT] = before * width
    whole[:, columns.SCREEN_AT] = starts * padded
    whole[:, columns.HALF_AT] = starts
    whole[:, columns.CENTRE_AT] = np.arange(len(sizes)) * width
    return cupy.asarray(whole), rows.tolist(), [0, *np.cumsum(rows).tolist()]


def search(rows, screen, stages, codes):
    """Write the codes (Q, n), columns of an array perhaps, of `rows` (n, C), which stay."""
    n, width = rows.shape
    found = shape(n, screen.padded)
    if found is None:
        search_beams(rows, stages, 1, codes)
        return
    (row_groups, codeword_groups), block, shared, form = found
    macros = {
        "ROW_GROUPS": row_groups,
        "CODEWORD_GROUPS": codeword_groups,
        **({form: 1} if form else {}),
    }
    left = cupy.empty_like(rows) if len(stages) > 1 else rows
    launch(
        "encode", "encode", rows.dtype, -(-n // block), 32 * row_groups * codeword_groups, shared,
        (rows, left, np.int64(n), np.int32(width), np.int32(screen.padded),
         np.int32(len(stages)), *screen[:-1], codes, np.int64(codes.strides[0] // codes.itemsize)),
        **macros,
    )  # fmt: skip


def search_beams(rows, stages, beam_size, codes):
    """Write the codes (Q, n) of the best of `beam_size` hypotheses for `rows` (n, D)."""
    n, dim = rows.shape
    left, alive = rows, 1
    history = cupy.empty((n, 0), np.int32)
    shared = 4 * register_bytes(rows.dtype)
    for q, stage in enumerate(stages):
        searched = projected(left, stage)
        usable = len(stage.usable)
        expected = min(beam_size, usable)
        kept = min(beam_size, alive * expected)
        chosen = cupy.empty((n * alive, expected), np.int32)
        blocks, far = _far(n * alive, usable)
        launch(
            "beam", "propose", rows.dtype, blocks, 128, shared,
            (searched, np.int64(n * alive), np.int32(searched.shape[1]), stage.codebook,
             stage.usable, np.int32(usable), np.int32(expected), far, chosen),
        )  # fmt: skip
        blocks, far = _far(n, alive * expected)
        kept_rows = cupy.empty((n * kept, dim), rows.dtype)
        after = cupy.empty((n * kept, q + 1), np.int32)
        launch(
            "beam", "rank", rows.dtype, blocks, 128, shared,
            (left, np.int64(n), np.int32(dim), np.int32(alive), stage.table, chosen,
             np.int32(expected), far, np.int32(kept), kept_rows, history, np.int32(q), after),
        )  # fmt: skip
        left, history, alive = kept_rows, after, kept
    codes[...] = history.reshape(n, alive, len(stages))[:, 0, :].T


def _far(warps, count):
    """Return how many blocks of four warps, and space for `count` distances of each warp."""
    blocks = -(-max(1, min(warps, PARALLEL, FAR // count)) // 4)
    return blocks, cupy.empty((4 * blocks, count), np.float64)


def projected(rows, stage):
    """Return `rows` (n, D) as a stage searches them, (n, C), in their type."""
    if stage.weight_in is not None:
        mapped = cast(rows, np.float64) @ stage.weight_in + stage.bias_in
        rows = cast(mapped, rows.dtype)
    if not stage.unit:
        return rows
    wide = cast(rows, np.float64)
    wide = wide / _at_least(cupy.abs(wide).max(axis=1, keepdims=True))
    norms = cupy.sqrt((wide * wide).sum(axis=1, keepdims=True))
    return cast(wide / _at_least(norms), rows.dtype)


def _at_least(sizes):
    """Return `sizes`, one where they are zero: what is divided by them is zero as well."""
    return cupy.where(sizes > 0, sizes, 1.0)
