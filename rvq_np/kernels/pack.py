"""Codebooks as the vector kernels read them: words of few bits, and how far those may lie.  NumPy.

Scores are compared in units in which the largest word of a stage has a norm between a half and
one: with ``unit`` the power of two that does it, words and rows are multiplied by ``unit``, scores
by its square.  Below all norms are in these units.

**What a screen promises.**  For each word it gives a number that is *never above* the score
``|w|^2 / 2 - <r, w>`` in exact arithmetic.  It comes from a product of rounded vectors: ``r = s q
+ e`` with a step s, whole numbers q (bytes: up to 127, int16: see below) and a rest e, and ``w = t
p + f`` likewise.  By Cauchy and Schwarz

    |<r, w> - s t <q, p>|  <=  |e| |w| + (|r| + |e|) |f|  <=  slack(r) * norm(w)

    slack(r) = |e| + (|r| + |e|) * ratio        norm(w) = max(|w|, |f| / ratio)

where ``ratio`` is any positive number, here the median of ``|f| / |w|``.  The sum of ``q p`` is
exact in int32: bytes reach ``127^2 D``; int16 vectors are scaled so that ``|q| |p| < 2^31``.  What
follows are five roundings of float32 (the sum itself, times t, minus s times that, minus slack
times norm, and the half norm's own), each at most ``u = 2^-24`` of the numbers involved, which
are below ``|w|^2 / 2 + (|r| + |e|) (|w| + |f|)``: eight u of either cover them, half by lowering
the half norm, half by raising the slack.  A float32 screen sums products of rounded numbers: that
is the standard bound ``g(D + 8)`` of `tables.error_bounds` on ``|r| |w|`` and ``|w|^2 / 2``.

What float32 loses below its range is covered too: words and rows below ``2^-60`` are not scaled up
but count as rest (q = 0), so no product underflows that matters, and each half norm is lowered by
a further ``2^-100``.
"""

from typing import NamedTuple

import numpy as np

from . import tiles
from .maps import panels_of

U = 2.0**-24  # unit roundoff of float32
TINY = 2.0**-60  # rows and words below this count as rest
LEVELS = {"uint8": 127, "int16": 32767}
NORM = 46000.0  # int16: |q| and |p| at most, so that no sum of products leaves int32


class Plan(NamedTuple):
    """All stages of a quantizer in a few flat arrays, one row of `whole` and `real` a stage."""

    words: np.ndarray  # T: all words, one stage after the other
    table: np.ndarray  # T: all they decode to
    half: np.ndarray  # float64: half squared norms; inf marks a repeat
    panels: np.ndarray  # the screen's type
    side: np.ndarray  # (3, +) float32: lowered half norm, step and norm of each word
    maps: np.ndarray | None  # T: the panels of projections, see `maps`; None if there are none
    blank: np.ndarray  # (0,) of the type of a quantized row
    whole: np.ndarray  # (Q, 11) int64: words, their length, steps, panels, then where the stage
    # begins in `words`, `table`, `half`, `panels`, `side` and, unless it is -1, `maps`; whether
    # mapped rows are divided by their norms
    real: np.ndarray  # (Q, 13) float64: `tables.error_bounds`, then `unit`, `ratio`, the share by
    # which half norms are lowered, whether the screen can be used, the largest whole number and
    # the largest of the norms in `side`
    rooms: list  # `search.workspace`s for a few rows that nobody works in now

    @property
    def arrays(self):
        """What kernels take: all but `blank` and `rooms`."""
        return (*self[:6], self.whole, self.real)

    def some(self, stages):
        """Return the plan of a slice of the stages, sharing all arrays."""
        return self._replace(whole=self.whole[stages], real=self.real[stages], rooms=[])


def plan(stages, screen, lanes, vectors, per_step):
    """Return the `Plan` of `tables.Stages` for one kind of screen."""
    parts = tiles.spread(lambda stage: _Packed(stage, screen, lanes, vectors, per_step), stages)
    whole = np.zeros((len(stages), 11), np.int64)
    real = np.zeros((len(stages), 13), np.float64)
    words_at = table_at = half_at = panels_at = side_at = maps_at = 0
    maps = []
    levels = LEVELS.get(screen, 0)
    for stage, part, counts, numbers in zip(stages, parts, whole, real, strict=True):
        n_words, width = stage.words.shape
        into = None if stage.into is None else panels_of(stage.into, stage.words.dtype)
        counts[:] = (
            n_words, width, part.steps, part.n_panels, words_at, table_at, half_at, panels_at,
            side_at, -1 if into is None else maps_at, stage.unit,
        )  # fmt: skip
        numbers[:7] = stage.bounds
        numbers[7:] = part.unit, part.ratio, part.lowered, part.safe, levels, part.side[2].max()
        words_at += stage.words.size
        table_at += stage.table.size
        half_at += n_words
        panels_at += part.panels.size
        side_at += part.side.shape[1]
        if into is not None:
            maps.append(into)
            maps_at += into.size
    return Plan(
        words=stages.words,
        table=stages.table,
        half=np.concatenate([stage.usable_half for stage in stages]),
        panels=aligned(np.concatenate([part.panels.ravel() for part in parts])),
        side=np.ascontiguousarray(np.concatenate([part.side for part in parts], axis=1)),
        maps=np.concatenate(maps, dtype=stages.words.dtype) if maps else None,
        blank=np.empty(0, np.int8 if screen == "uint8" else screen),
        whole=whole,
        real=real,
        rooms=[],
    )


class _Packed:
    """One stage for one kind of screen: `panels`, `side` and the numbers beside them."""

    def __init__(self, stage, screen, lanes, vectors, per_step):
        n_words, width = stage.words.shape
        in_panel = lanes * vectors
        self.n_panels = -(-n_words // in_panel)
        self.steps = -(-width // per_step)
        largest = stage.bounds[0]  # of the norms
        self.unit, self.safe = 1.0, 0.0 < largest < 2.0**400
        if self.safe:
            exponent = np.frexp(largest)[1]
            self.safe = exponent > -400
            self.unit = 2.0 ** -float(exponent) if self.safe else 1.0
        room = (self.n_panels * in_panel, self.steps * per_step)
        words = np.zeros(stage.words.shape)
        if self.safe:
            words = stage.words.astype(np.float64) * self.unit
        norms = np.sqrt(np.square(words).sum(axis=1)) * (1 + 1e-9)
        if screen == "float32":
            packed, steps = np.zeros(room, np.float32), np.ones(n_words)
            packed[:n_words, :width] = words
            self.ratio, self.lowered = 0.0, stage.bounds[2]
            bounding = np.maximum(norms, TINY)
            if stage.words.dtype == np.float64:  # the bounds are of a float64 screen
                terms = (width + 8) * U
                self.lowered = terms / (1 - terms) if terms < 0.5 else np.inf
        else:
            packed, steps, bounding = self._whole_numbers(words, norms, screen, room)
            self.lowered = 8 * U
        offset = 128 if screen == "uint8" else 0
        grid = (packed + packed.dtype.type(offset)).astype(screen)
        grid = grid.reshape(self.n_panels, vectors, lanes, self.steps, per_step)
        self.panels = np.ascontiguousarray(grid.transpose(0, 3, 1, 2, 4))
        self.side = np.zeros((3, room[0]), np.float32)
        self.side[0] = np.inf  # padding and repeats never come near
        half = stage.usable_half * self.unit * self.unit if self.safe else stage.usable_half
        with np.errstate(over="ignore"):
            self.side[0, :n_words] = _down(half * (1 - self.lowered) - 2.0**-100)
        self.side[1, :n_words] = steps
        self.side[2, :n_words] = _up(bounding)

    def _whole_numbers(self, words, norms, screen, room):
        largest = np.abs(words).max(axis=1)
        levels = LEVELS[screen]
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = largest / levels
            if screen == "int16":
                steps = np.maximum(steps, norms / NORM)
            steps = steps.astype(np.float32).astype(np.float64)
            counted = largest >= TINY
            whole = np.rint(np.where(counted[:, None], words / steps[:, None], 0.0))
            np.clip(whole, -levels, levels, out=whole)
        steps[~counted] = 0.0
        rest = words - whole * steps[:, None]
        missed = np.sqrt(np.square(rest).sum(axis=1)) * (1 + 1e-9) + 2.0**-1000
        ratios = missed[counted] / norms[counted]
        self.ratio = float(np.median(ratios)) if len(ratios) else 1.0
        self.ratio = max(self.ratio, U)
        packed = np.zeros(room, np.int32)
        packed[: len(whole), : whole.shape[1]] = whole
        return packed, steps, np.maximum(np.maximum(norms, missed / self.ratio), TINY)


def aligned(array):
    """Return a copy that begins a cache line."""
    copy = aligned_empty(1, array.size, array.dtype)[0]
    copy[:] = array
    return copy


def aligned_empty(rows, columns, dtype=np.float32):
    """Return an array (rows, columns) of anything that begins a cache line."""
    dtype = np.dtype(dtype)
    store = np.empty(rows * columns * dtype.itemsize + 64, np.uint8)
    first = -store.ctypes.data % 64
    return store[first : first + rows * columns * dtype.itemsize].view(dtype).reshape(rows, columns)


def _up(values):
    """Return float32 that are not below the given float64."""
    rounded = values.astype(np.float32)
    return np.where(rounded < values, np.nextafter(rounded, np.float32(np.inf)), rounded)


def _down(values):
    rounded = values.astype(np.float32)
    return np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)
