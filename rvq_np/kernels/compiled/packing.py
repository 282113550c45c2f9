"""Codebooks as the vector kernels read them: codewords of few bits, and how far those may lie.

Scores are compared in the units of a stage: codewords and rows are moved by its centre m, zero for
most, and multiplied by a power of two that gives a typical codeword a norm of about one; see
`places`. The score of a codeword is then ``|w|^2 / 2 - <r, w>`` with ``w = (codeword - m) unit``
and ``r = (row - m) unit``: half the squared distance, times ``unit^2``, less ``|r|^2 / 2``, which
no codeword can change. A row whose largest number is ``FAR`` or more in these units is divided by
another power of two, its own: it has a score ``power |w|^2 / 2 - <power r, w>``.  Below all norms
are in these units, w and r are what was moved and scaled.

**What a screen promises.**  For each codeword it gives a number that is *never above* its score in
exact arithmetic.  It comes from a product of rounded vectors: ``r = s q + e`` with a step s, whole
numbers q (bytes and int16: see below) and a rest e, and ``w = t p + f`` likewise.  By
Cauchy and Schwarz

    |<r, w> - s t <q, p>|  <=  |e| |w| + (|r| + |e|) |f|  <=  slack(r) * norm(w)

    slack(r) = |e| + (|r| + |e|) * ratio        norm(w) = max(|w|, |f| / ratio)

where ``ratio`` is any positive number, here the median of ``|f| / |w|``.  The sum of ``q p`` is
exact in int32: bytes reach ``127^2 D``; int16 vectors are scaled so that ``|q| |p| < 2^31``.

**Bytes summed in 16 bits first** (int8, where no instruction sums four bytes in 32): ``vpmaddubsw``
multiplies ``p + 80``, 0 to 160, with q and adds two products; those of four steps, eight products,
are added in 16 bits, then in 32.  All p + 80 of a run being at most 160, and none negative, its sum
lies between -160 times the sizes of the negative q and 160 times the positive ones.  So the step
of a row is chosen so that neither sum of sizes in a run is above 204, ``160 * 204 < 2^15``: at
least 1/200 of the largest sum of a run of the row, `simd.largest_run`, to which rounding adds half
a step a number, four steps, and the float32 of that sum less than 16 u of it.  The same holds for
each pair of products, so ``vpmaddubsw`` does not saturate, and sums do not wrap.

What
follows are five roundings of float32 (the sum itself, times t, minus s times that, minus slack
times norm, and the half norm's own), each at most ``u = 2^-24`` of the numbers involved, which
are below ``|w|^2 / 2 + (|r| + |e|) (|w| + |f|)``: eight u of either cover them, half by lowering
the half norm, half by raising the slack.  A float32 screen sums products of rounded numbers: that
is the standard bound ``g(D + 8)`` of `tables.error_bounds` on ``|r| |w|`` and ``|w|^2 / 2``.

**What moving costs.**  A difference with the centre is computed in float64, for codewords and rows
of either type, and rounded once: by at most ``2^-53`` of itself, number by number, so that r and w
are off by ``2^-53`` of their norms, and the score by less than ``2^-51 (|r| |w| + |w|^2 / 2)``.
The eight u hold that, too: the five roundings above use less than six of them.  Scaling is exact,
or loses ``2^-1074`` a number where it underflows.

**A row that is far.**  With its own power of two, the screen still counts all of ``|w|^2 / 2``, too
much by less than ``|w|^2 / 2 <= norm(w) * W / 2`` with W the largest of the norms.  So ``W / 2`` is
added to its slack, which is nothing beside the norm of such a row, ``2^49`` at least, unless a
stage holds codewords of very different norms.

What float32 loses below its range is covered too: codewords and rows below ``2^-60`` are not scaled
up but count as rest (q = 0), so no product underflows that matters, and each half norm is lowered
by a further ``(D + 16) 2^-124 max(1, |w|)``: ``2^-126`` a product or a number of a row that a
float32 screen loses, flushed to zero or not, and as much for each of the roundings above.
"""

import math
from typing import NamedTuple

import numpy as np

from .. import tiles
from ..columns import BOUNDS
from ..plain.fold import foldable, folded
from ..plain.places import place_of
from . import columns as col
from .maps import panels_of
from .panels import SHORT, TINY, U, largest_of, mean_bits, pack, sides, squares_of
from .screens import IN_16_BITS
from .target import TARGET

FOLDED = "folded"  # the screen that maps are folded into codewords for; FOLDS is what it packs
FOLDS = TARGET.screens[0]
FAR = 2.0**50  # a row that reaches so far has a power of two of its own
HIGHEST = 56  # the binary logarithm of the largest norm, at most
# A stage is seen from zero where its unit is so near to one that no factor of a row leaves T.
NEAR = {4: 40, 8: 400}
FULL_SCALE = {"uint8": 127, "int8": SHORT, "int16": 32767}
PER_ROW = 32  # products that each number of a row, and each codeword, costs besides
PACKED = 1 << 17  # numbers packed that are worth a thread


class Plan(NamedTuple):
    """All stages of a quantizer in a few flat arrays, one row of `whole` and `real` a stage."""

    codebook: np.ndarray  # T: all codewords, one stage after the other
    table: np.ndarray  # T: all they decode to
    half: np.ndarray  # float64: half squared norms, in units if there is a centre; inf: a repeat
    panels: np.ndarray  # the screen's type
    side: np.ndarray  # (3, +) float32: lowered half norm, step and norm of each codeword
    maps: np.ndarray | None  # float64: the panels of projections, see `maps`; None: there are none
    centres: np.ndarray  # float64
    blank: np.ndarray  # (0,) of the type of a quantized row
    folds: tuple  # what `search` reads of stages whose map is folded: codewords, T, flat, and
    # (3, +) float64 `scores`, `away` and `apart` of each, see `fold`; None if there are none
    narrow: np.ndarray | None  # the memory of `maps` as float32, which large maps are
    whole: np.ndarray  # (Q, 17) int64, see `columns.WHOLE`
    real: np.ndarray  # (Q, 13) float64, see `columns.REAL`
    workspaces: list  # idle `search.workspace`s for a few rows
    arrays: tuple = ()  # what kernels take of these: all up to `blank`, without it
    of_maps: tuple = ()  # what the search takes besides, for stages with maps
    work: int = 0  # products that a row costs, about

    def some(self, stages):
        """Return the plan of a slice of the stages, sharing all arrays."""
        return self._replace(whole=self.whole[stages], real=self.real[stages]).ready()

    def ready(self):
        """Return the plan with what is derived from it."""
        sizes, widths = self.whole[:, col.SIZE], self.whole[:, col.WIDTH]
        return self._replace(
            workspaces=[],
            arrays=(*self[:7], self.whole, self.real),
            of_maps=(*self.folds, self.narrow),
            work=int((sizes * widths + PER_ROW * (sizes + widths)).sum()),
        )


def plan(stages, screen, lanes, vectors, per_step):
    """Return the `Plan` of `tables.Stages` for one kind of screen."""
    shape = lanes * vectors, per_step
    folding, screen = screen == FOLDED, FOLDS if screen == FOLDED else screen

    def part_of(each):
        stage, exponent = each
        part = _Folded(stage, screen, *shape) if folding and foldable(stage) else None
        return part if part and part.serves else _Packed(stage, screen, *shape, exponent)

    exponents = stages.kept.get("exponents", [None] * len(stages))
    parts = tiles.spread(part_of, zip(stages, exponents, strict=True))
    stages.kept["exponents"] = [part.exponent for part in parts]
    whole = np.zeros((len(stages), len(col.WHOLE)), np.int64)
    real = np.zeros((len(stages), len(col.REAL)), np.float64)
    codewords_at = table_at = half_at = panels_at = side_at = maps_at = centres_at = 0
    folds_at = folded_at = 0
    maps = []
    full_scale = FULL_SCALE.get(screen, 0)
    for stage, part, counts in zip(stages, parts, whole, strict=True):
        n_codewords, width = stage.codebook.shape
        into = None if stage.into is None else panels_of(stage.into, stage.codebook.dtype)
        if into is not None and stage.codebook.dtype == np.float64:
            into = into.astype(np.float64)
        narrow = into is not None and into.dtype == np.float32
        is_folded = isinstance(part, _Folded)
        counts[col.SIZE], counts[col.WIDTH] = n_codewords, width
        counts[col.STEPS], counts[col.PANELS] = part.steps, part.n_panels
        counts[col.CODEWORDS_AT], counts[col.TABLE_AT] = codewords_at, table_at
        counts[col.HALF_AT], counts[col.PANELS_AT] = half_at, panels_at
        counts[col.SIDE_AT] = side_at
        counts[col.MAP_AT] = -1 if into is None else maps_at * (1 + narrow)
        counts[col.UNIT_ROWS], counts[col.NARROW] = stage.unit, narrow
        counts[col.CENTRE_AT] = -1 if part.centre is None else centres_at
        counts[col.ONLY], counts[col.PACKED] = part.only, part.width
        counts[col.FOLDS_AT] = folds_at if is_folded else -1
        counts[col.FOLDED_AT] = folded_at if is_folded else -1
        if is_folded:
            folds_at += part.stage.codebook.size
            folded_at += n_codewords
        codewords_at += stage.codebook.size
        table_at += stage.table.size
        half_at += n_codewords
        panels_at += part.steps * part.n_panels * lanes * vectors * per_step
        side_at += part.n_panels * lanes * vectors
        centres_at += 0 if part.centre is None else width
        if into is not None:
            if narrow:
                into = np.pad(into, (0, into.size % 2)).view(np.float64)
            maps.append(into)
            maps_at += into.size
    kind = np.dtype(screen)
    panels = aligned_empty(1, panels_at, kind)[0]
    side = np.empty((len(col.SIDE), side_at), np.float32)
    half = np.empty(half_at)
    jobs = [
        (part, at, first, last)
        for part, at in zip(parts, whole[:, col.PANELS_AT], strict=True)
        for first, last in part.shares()
    ]
    tiles.spread(lambda job: job[0].pack(panels, *job[1:]), jobs)
    for stage, part, counts, numbers in zip(stages, parts, whole, real, strict=True):
        own = slice(counts[col.HALF_AT], counts[col.HALF_AT] + counts[col.SIZE])
        part.finish(side[:, counts[col.SIDE_AT] :], half[own])
        numbers[: len(BOUNDS)] = stage.bounds
        numbers[col.UNIT], numbers[col.RATIO], numbers[col.LOWERED] = (
            part.unit, part.ratio, part.lowered,
        )  # fmt: skip
        numbers[col.USABLE], numbers[col.FULL_SCALE] = 1.0, full_scale
        numbers[col.HEAVIEST] = part.heaviest
    centres = [part.centre for part in parts if part.centre is not None]
    folds = [part.stage for part in parts if isinstance(part, _Folded)]
    together = np.concatenate(maps) if maps else None
    return Plan(
        codebook=stages.codebook,
        table=stages.table,
        half=half,
        panels=panels,
        side=side,
        maps=together,
        centres=np.concatenate(centres) if centres else np.empty(0),
        folds=(
            np.concatenate([each.codebook.ravel() for each in folds]),
            np.hstack([np.stack([each.scores, each.away, each.apart]) for each in folds]),
        )
        if folds
        else (None, None),
        narrow=None if together is None else together.view(np.float32),
        blank=np.empty(0, np.int8 if screen == "uint8" else screen),
        whole=whole,
        real=real,
        workspaces=[],
    ).ready()


class _Packed:
    """One stage for one kind of screen: found out at first, then packed, then finished."""

    def __init__(self, stage, screen, in_panel, per_step, exponent=None):
        """`exponent`: with which the codewords were seen from zero a little while ago."""
        self.stage, self.screen, self.in_panel, self.per_step = stage, screen, in_panel, per_step
        n_codewords, width = stage.codebook.shape
        self.width = width  # of what is packed
        self.n_panels, self.steps = -(-n_codewords // in_panel), -(-width // per_step)
        if screen == "int8":
            self.steps = -(-self.steps // IN_16_BITS) * IN_16_BITS
        usable = stage.half < np.inf
        self.only = int(usable.argmax()) if usable.sum() == 1 else -1
        self.centre: np.ndarray | None = None
        if exponent is None:
            self.centre, exponent = self.place(usable)
        self.exponent = exponent if self.centre is None else None
        zero = np.zeros(width) if self.centre is None else self.centre
        # All squares in a unit in which none overflows; the centre is no longer than the codewords.
        self.squares = np.empty(n_codewords)
        coarse = max(_exponent(largest_of(stage.codebook)) + _exponent(width) // 2 + 2, -1000)
        scale = math.ldexp(1.0, -coarse)
        squares_of(stage.codebook, zero, scale, np.empty(width), self.squares)
        top = self.squares[usable].max(initial=0.0)
        exponent = max(exponent, _exponent(math.sqrt(top)) + coarse - HIGHEST) if top > 0.0 else 0
        exponent = min(max(exponent, -1000), 1000)
        self.unit = math.ldexp(1.0, -exponent)
        self.squares *= math.ldexp(1.0, 2 * (coarse - exponent))
        if abs(exponent) > NEAR[stage.codebook.itemsize]:
            self.centre = zero
        self.steps_of, self.missed = np.empty(n_codewords), np.empty(n_codewords)

    def place(self, usable):
        """Return the centre and the exponent that codewords are seen from."""
        return place_of(self.stage.codebook, usable, mean_bits)

    def shares(self):
        """Return which panels, first and end, are worth a thread of their own."""
        worth = max(1, PACKED // (self.in_panel * self.width))
        return [(at, min(at + worth, self.n_panels)) for at in range(0, self.n_panels, worth)]

    def pack(self, panels, at, first, last):
        """Write panels ``first ... last`` of this stage into `panels`, where it begins at `at`."""
        width = self.stage.codebook.shape[1]
        padded = self.steps * self.per_step
        row = np.full(padded, 128 if self.screen == "uint8" else 0, self.screen)
        stage_panels = panels[at : at + self.n_panels * self.in_panel * padded].view(np.uint32)
        pack(
            self.stage.codebook, np.zeros(width) if self.centre is None else self.centre, self.unit,
            FULL_SCALE.get(self.screen, 0), self.in_panel, np.empty(width), row,
            row.view(np.uint32), stage_panels, self.steps_of, self.missed, first, last,
        )  # fmt: skip

    def finish(self, side, half):
        """Write `side` and `half`, once all panels are there; find out the `ratio`."""
        stage, n_codewords = self.stage, len(self.stage.codebook)
        if self.screen == "float32":
            self.ratio = 0.0
            terms = (stage.codebook.shape[1] + 8) * U
            self.lowered = terms / (1 - terms) if terms < 0.5 else np.inf
        else:
            self.lowered = 8 * U
            counted = self.steps_of > 0.0
            ratios = np.sort(self.missed[counted] / np.sqrt(self.squares[counted]))
            self.ratio = max(float(ratios[len(ratios) // 2]), U) if len(ratios) else 1.0
        sides(
            self.squares, self.steps_of, self.missed, stage.half, self.ratio, self.lowered,
            (stage.codebook.shape[1] + 16) * 2.0**-124, side, self.n_panels * self.in_panel, half,
        )  # fmt: skip
        self.heaviest = float(side[col.NORM, :n_codewords].max())
        if self.centre is None:
            half[:] = stage.usable_half


class _Folded(_Packed):
    """One stage whose map is folded into the codewords: seen from zero, scores of their own."""

    def __init__(self, stage, screen, in_panel, per_step):
        self.own = stage
        super().__init__(folded(stage), screen, in_panel, per_step)
        # Rows are not moved, nor far: those are left to the search of mapped rows.
        self.serves = self.centre is None and self.only < 0 and self.heaviest_norm() < FAR
        self.width, self.exponent = stage.into.shape[0], None  # which is of folded codewords

    def place(self, usable):
        return None, place_of(self.stage.codebook, usable, mean_bits).exponent

    def heaviest_norm(self):
        return float(np.sqrt(self.squares.max(initial=0.0)))

    def finish(self, side, half):
        """As of others, but the scores are no half norms, and more is uncertain; see `fold`."""
        folded, n_codewords = self.stage, len(self.stage.codebook)
        folded.usable_half = 0.5 * self.squares
        super().finish(side, half)
        usable, unit = folded.half < np.inf, self.unit
        away = folded.away * unit  # by the norm of a row in its units, what a score may be off
        norms = side[col.NORM, :n_codewords]
        more = float(np.median(away[usable] / np.maximum(norms[usable], TINY)))
        more = max(more, U)
        norms[:] = _up(np.maximum(norms, away / more))
        self.heaviest = float(norms.max())
        self.ratio += more + 2 * U
        lost = (folded.codebook.shape[1] + 16) * 2.0**-124 * np.maximum(np.sqrt(self.squares), 1.0)
        scores = folded.scores * unit * unit
        lowest = scores - self.lowered * np.abs(scores) - folded.apart * unit * unit - lost
        lowest[~usable] = np.inf
        with np.errstate(over="ignore"):
            side[col.LOWERED_HALF, :n_codewords] = _down(lowest)
        half[:] = self.own.usable_half
        if self.screen == "float32":  # whose slack is a share of the norm, this one
            self.lowered += more + 2 * U


def _exponent(value):
    return math.frexp(value)[1]


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
