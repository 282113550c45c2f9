"""The search on a card: what it reads of the stages, and the calls that make codes of rows."""

from typing import Any, NamedTuple

import cupy
import numpy as np

from ._cuda_launch import FAR, PARALLEL, cast, launch, register_bytes, shape

FAR_OFF = 2.0**86  # half squared norm of no word, see encode.cu
PAD = 256  # words are padded to a multiple of this, so that every shape can read whole tiles


class Screen(NamedTuple):
    """Stages whose words have one length, as encode.cu reads them; a slice shares the arrays."""

    words: Any  # of all stages, one after the other, T
    screen: Any  # the same in half precision, as uint16, padded
    half: Any  # float32: half squared norms, in the unit of the screen
    centre: Any  # T: the mean word of each stage
    whole: Any  # (Q, 5) int64: sizes and where a stage begins
    real: Any  # (Q, 4) float64: the unit, and what bounds the error

    def first(self, stages: slice) -> "Screen":
        return self._replace(whole=self.whole[stages], real=self.real[stages])


class Stage(NamedTuple):
    """One stage: what it searches with, and what its codes decode to."""

    screen: Screen
    words: Any  # (K, C) T
    usable: Any  # (U,) int32: words that are no repeats of earlier ones
    table: Any  # (K, D) T
    weight_in: Any = None  # (D, C) float64
    bias_in: Any = None
    unit: bool = False

    def search(self) -> "Stage":
        """Return the search alone: rows come projected."""
        return self._replace(table=self.words, weight_in=None, unit=False)


def joined(arrays):
    return cupy.concatenate([each.ravel() for each in arrays])


def screen(words, usable=None):
    """Return the `Screen` of stages `words`, arrays (K, C), computed on their device.

    `usable`: per stage the numbers of the words that can be chosen; by default all.
    """
    width, sizes = words[0].shape[1], np.array([len(each) for each in words])
    padded, rows = -(-width // 16) * 16, -(-sizes // PAD) * PAD
    before = np.cumsum(sizes) - sizes
    starts = np.cumsum(rows) - rows
    places = [sizes, before * width, starts * padded, starts, np.arange(len(words)) * width]
    halves = cupy.zeros((int(rows.sum()), padded), np.float16)
    half = cupy.full(int(rows.sum()), FAR_OFF, np.float32)
    centres, real = [], []
    for q, each in enumerate(words):
        own = slice(int(starts[q]), int(starts[q] + sizes[q]))
        centre, halves[own, :width], norms, bounds = _rounded(each)
        if usable is None or len(usable[q]) == len(each):
            half[own] = norms
        else:
            half[usable[q] + int(starts[q])] = norms[usable[q]]
        centres.append(centre)
        real.append(bounds)
    whole = cupy.asarray(np.stack(places, axis=1).astype(np.int64))
    every = words[0] if len(words) == 1 else joined(words)
    return Screen(every, halves.view(np.uint16), half, joined(centres), whole, cupy.stack(real))


def _rounded(words):
    """Return the mean of words (K, C), what half precision makes of the rest, half squared norms.

    And the `real` of encode.cu: the power of two of the unit, the largest norm, the largest norm
    of what rounding took away, and the largest half squared norm.
    """
    wide = cast(words, np.float64)
    centre = (wide / len(words)).sum(axis=0)
    centre = cast(cupy.where(cupy.abs(wide).max() < 1e300, centre, 0.0), words.dtype)
    moved = wide - cast(centre, np.float64)
    unit = 14 - cupy.frexp(cupy.abs(moved).max())[1]  # the largest number falls short of 2^14
    scaled = cupy.ldexp(moved, unit)
    halves = scaled.astype(np.float32).astype(np.float16)
    rest = scaled - halves.astype(np.float64)
    squares, rests = (scaled * scaled).sum(axis=1), (rest * rest).sum(axis=1)
    most = [cupy.sqrt(squares.max()), cupy.sqrt(rests.max()), 0.5 * squares.max()]
    bounds = [unit.astype(np.float64)] + [each * (1 + 1e-6) + 1e-30 for each in most]
    return centre, halves, (0.5 * squares).astype(np.float32), cupy.stack(bounds)


def search(rows, screen, stages, codes):
    """Write the codes (Q, n), columns of an array perhaps, of `rows` (n, C), which stay."""
    n, width = rows.shape
    found = shape(n, width)
    if found is None:
        search_beams(rows, stages, 1, codes)
        return
    (row_groups, word_groups), block, shared, deep = found
    macros = {"ROW_GROUPS": row_groups, "WORD_GROUPS": word_groups, **({"DEEP": 1} if deep else {})}
    left = cupy.empty_like(rows) if len(stages) > 1 else rows
    launch(
        "encode", "encode", rows.dtype, -(-n // block), 32 * row_groups * word_groups, shared,
        (rows, left, np.int64(n), np.int32(width), np.int32(-(-width // 16) * 16),
         np.int32(len(stages)), *screen, codes, np.int64(codes.strides[0] // codes.itemsize)),
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
        wanted = min(beam_size, usable)
        kept = min(beam_size, alive * wanted)
        chosen = cupy.empty((n * alive, wanted), np.int32)
        blocks, far = _far(n * alive, usable)
        launch(
            "beam", "propose", rows.dtype, blocks, 128, shared,
            (searched, np.int64(n * alive), np.int32(searched.shape[1]), stage.words,
             stage.usable, np.int32(usable), np.int32(wanted), far, chosen),
        )  # fmt: skip
        blocks, far = _far(n, alive * wanted)
        kept_rows = cupy.empty((n * kept, dim), rows.dtype)
        after = cupy.empty((n * kept, q + 1), np.int32)
        launch(
            "beam", "rank", rows.dtype, blocks, 128, shared,
            (left, np.int64(n), np.int32(dim), np.int32(alive), stage.table, chosen,
             np.int32(wanted), far, np.int32(kept), kept_rows, history, np.int32(q), after),
        )  # fmt: skip
        left, history, alive = kept_rows, after, kept
    codes[...] = history.reshape(n, alive, len(stages))[:, 0, :].T


def _far(warps, count):
    """Return how many blocks of four warps, and room for `count` distances of each warp."""
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
