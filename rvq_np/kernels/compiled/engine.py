"""The kernels, compiled by Numba: rows tiled, threads used, screens chosen.

Importing this module imports Numba.
"""

import numpy as np

from .. import tiles
from ..plain import engine as plain
from ..plain import exact, fold
from . import averages, beam, gather, maps, packing, search
from . import bits as bits
from . import ids as ids
from . import measure as measuring
from .columns import SPENT
from .follow import Followed
from .target import LANES, PER_STEP, TARGET, VECTORS

SCREENS = TARGET.screens
ROWS = 768  # rows a tile: 384 kB of float32 at D = 128
BYTES = 1 << 20  # of a tile, at most
ALONE = 1 << 26  # products below which other threads cost more than they help
DECODE_ROWS = 2048
FOLDING = True  # whether maps that make rows longer are folded into codewords
LIGHT = 1 << 17  # numbers read that are worth a thread
BEAMED = 1 << 20  # bounds held for one row, at most
PATIENCE = 256  # rows times stages after which a screen is judged
FEW = 4  # codewords a screen may leave per row,
DENSE = 16  # or one in so many: one that leaves more is given up,
GAINED = 0.5  # unless the next one leaves more than this share
SHORT = 16  # numbers a codeword below which sums of 16 bits gain nothing
DEEP = 60000  # numbers a codeword beyond which sums of bytes might leave int32


def measure(codewords):
    """Return half the squared norms (K,) of `codebook` (K, D), float64, and a mask of repeats."""
    half, repeat = np.empty(len(codewords)), np.empty(len(codewords), np.bool_)
    codewords = np.ascontiguousarray(codewords)
    codewords = (
        codewords if codewords.flags.writeable else codewords.copy()
    )  # read-only: another type to Numba
    bits, space = (
        codewords.ravel().view(f"u{codewords.itemsize}"),
        measuring.workspace(*codewords.shape),
    )
    measuring.measure(codewords, bits, *space, half, repeat)
    return half, repeat


def encode(x, stages, codes, before=None):
    """Write the codes (Q, n) of `x` (n, D), of any float type.

    ``before(start, stop)`` is called for rows that are about to be searched: it writes them.
    """
    dtype, plan = stages.codebook.dtype, packed(stages)
    kept = len(stages) == 1 and x.dtype == dtype and x.flags.c_contiguous and x.flags.writeable

    def tile(start, stop):
        if before is not None:
            before(start, stop)
        # All stages but the last use rows up; Numba knows read-only arrays as another type.
        rows = x[start:stop] if kept else np.array(x[start:stop], dtype=dtype, order="C")
        spent = np.zeros(len(SPENT), np.int64)
        lost = run(rows, plan, codes, start, spent)
        if lost:
            for n in start + np.flatnonzero((codes[:, start:stop] < 0).any(axis=0)):
                codes[:, n] = by_hand(np.array(x[n], dtype=dtype), stages)
        judge(stages, spent)

    rows = min(ROWS, max(search.ROWS, BYTES // (x.shape[1] * dtype.itemsize)))
    if len(x) * plan.work < ALONE:
        for start in range(0, len(x), rows):
            tile(start, min(start + rows, len(x)))
    else:
        share = -(-len(x) // (tiles.threads() * search.ROWS)) * search.ROWS
        tiles.over_rows(tile, len(x), max(1, min(rows, share)))


def run(rows, plan, codes, start, spent, others=None):
    """Call `search.encode` with space to work in, which is kept for the next few rows."""
    workspaces = plan.workspaces if len(rows) <= search.ROWS else []
    try:
        space = workspaces.pop()
    except IndexError:  # none yet, or others work in all there are
        space = search.workspace(plan, search.block(plan, len(rows)))
    lost = search.encode(rows, *plan.arrays, *space, *plan.of_maps, codes, start, spent, others)
    workspaces.append(space)
    return lost


def search_beams(x, stages, beam_size, codes):
    """Write the codes (B, Q, n) of the B best hypotheses of a beam search, best first.

    For `x` (n, D), of any float type; -1 where a row has fewer hypotheses.
    """
    dtype = stages[0].codebook.dtype
    projects = any(stage.into is not None for stage in stages)
    if projects or beam_size * max(len(stage.codebook) for stage in stages) > BEAMED:
        plain.search_beams(x, stages, beam_size, codes, project)
        return
    plan = packed(stages)

    def tile(start, stop):
        rows = np.array(x[start:stop], dtype=dtype, order="C")
        space = beam.workspace(plan, beam_size, rows)
        if beam.encode(rows, beam_size, *plan.arrays, *space, codes, start):
            lost = start + np.flatnonzero(codes[0, 0, start:stop] < 0)
            few = np.empty((*codes.shape[:2], len(lost)), np.int32)
            plain.search_beams(x[lost], stages, beam_size, few)
            codes[:, :, lost] = few

    tiles.over_rows(tile, len(x), ROWS // 4)


def follow(x):
    """Return ``encode(stages)`` for rows `x` (N, D) and a stage whose codewords move a little."""
    return Followed(x, search_one).encode


def search_one(x, rows, stages):
    """Return codes (n,) by a single stage, and lower bounds (n,) on the scores of the others.

    Of the rows (n,) of `x` (N, D), or None for all, in the float type of the codewords.  A bound is
    on half the squared distance to every codeword but the one chosen.
    """
    count = len(x) if rows is None else len(rows)
    plan, codes, bounds = packed(stages), np.empty((1, count), np.int32), np.empty(count)

    def tile(start, stop):
        some = x[start:stop] if rows is None else x[rows[start:stop]]
        spent = np.zeros(len(SPENT), np.int64)
        if run(some, plan, codes, start, spent, bounds[start:stop]):
            for n in start + np.flatnonzero(codes[0, start:stop] < 0):
                codes[:, n] = by_hand(x[n if rows is None else rows[n]].copy(), stages)
        judge(stages, spent)

    tiles.over_rows(tile, count, ROWS)
    return codes[0], bounds


def decode(codes, stages, out):
    """Write the sum (n, D), in stage order, of the codewords that `codes` (Q, n) name."""
    if not len(codes):
        out[:] = 0
        return
    first = _first(stages)

    def tile(start, stop):
        gather.decode(codes, stages.table, first, out, start, stop)

    tiles.over_rows(tile, len(out), DECODE_ROWS)


def _first(stages):
    """Return where in ``stages.table`` the codewords of each stage begin."""
    if "first" not in stages.kept:
        sizes = [stage.table.size for stage in stages.whole]
        stages.kept["first"] = np.cumsum(sizes) - sizes
    return stages.kept["first"][stages.part]


def path_distances(x, stages, codes, out):
    """Write into `out` (K, N) how far rows are from what each of their paths (K, Q, N) decodes to.

    Squared, float64, infinite where codes are -1.
    """
    first = _first(stages)

    def part(start, stop):
        gather.path_distances(x, stages.table, first, codes, out, start, stop)

    _parts(part, len(x), codes.shape[0] * codes.shape[1] * x.shape[1])


def nearest(rows, stage, codes):
    """Write into `codes` (n,) the codeword of one stage nearest to each of `rows` (n, C)."""
    encode(rows, stage.alone, codes[None])


def project(rows, stage):
    """Return `rows` as the stage searches them: themselves, or through ``into``."""
    if stage.into is None:
        return rows
    out, tile = _projecting(rows, stage)
    _over(tile, len(rows), out.shape[1] * rows.shape[1])
    return out


def project_and_search(rows, stage, codes):
    """Return what `project` does, and write the codes (n,) that `nearest` finds for it."""
    out, tile = (rows, None) if stage.into is None else _projecting(rows, stage)
    encode(out, stage.alone, codes[None], tile)
    return out


def _projecting(rows, stage):
    """Return space for `rows` through ``into``, and what writes some of them there."""
    panels = maps.panels_of(stage.into, rows.dtype)
    out = np.empty((len(rows), stage.into.shape[1]), rows.dtype)

    def tile(start, stop):
        maps.transform(rows, panels, out, start, stop)
        if stage.unit:
            gather.normalize_rows(out, start, stop)

    return out, tile


def transform(rows, linear, dtype=None):
    """Return the rows (n, D) mapped by a `tables.Map`: (n, C), summed in the type of `rows`."""
    panels = maps.panels_of(linear, rows.dtype)
    out = np.empty((len(rows), linear.shape[1]), dtype or rows.dtype)

    def tile(start, stop):
        maps.transform(rows, panels, out, start, stop)

    _over(tile, len(rows), linear.shape[0] * linear.shape[1])
    return out


def _over(tile, rows, products):
    """Call ``tile(start, stop)`` for parts of the rows, by threads where that is worth it."""
    if rows * products < ALONE // 32:
        tile(0, rows)
    else:
        share = -(-rows // (tiles.threads() * maps.ROWS)) * maps.ROWS
        tiles.over_rows(tile, rows, max(maps.ROWS, min(ROWS, share)))


subtract = gather.subtract


def advance(rows, table, shown, codes, quantized, given, q):
    """Take from `rows` what their codes decode to; add `shown`, that in the type of `quantized`."""

    def part(start, stop):
        averages.advance(rows, table, shown, codes, quantized, given, q, start, stop)

    _parts(part, len(rows), rows.shape[1])


def ends(rows):
    """Return the sizes of the largest number of `rows` (n, C), and of the smallest but 0."""
    kind = np.uint32 if rows.dtype == np.float32 else np.uint64
    bits = rows.reshape(-1).view(kind)

    def part(start, stop):
        found = np.empty(2, kind)
        averages.ends(bits[start:stop], found)
        return int(found[0]), int(found[1])

    found = _parts(part, len(bits), 1)
    largest = max((each[0] for each in found), default=0)
    smallest = min((each[1] for each in found), default=0)
    if largest == 0:
        return 0.0, 0.0
    sizes = np.array([largest, smallest + 1], kind).view(rows.dtype)
    return float(sizes[0]), float(sizes[1])


def tally(rows, codes, magic, totals):
    """As `add_rows`, by one thread."""
    averages.add_columns(rows, codes, magic, totals, 0, rows.shape[1])


def add_rows(rows, codes, magic, totals):
    """Add the rows of each code (n,) to `totals`, see `kernels.totals`."""

    def part(first, last):
        averages.add_columns(rows, codes, magic, totals, first, last)

    _parts(part, rows.shape[1], len(rows), 16)


def squared_distances(rows, codewords, codes):
    """Return the squared distance (n,) of each row to the codeword of its code."""
    out = np.empty(len(rows))

    def part(start, stop):
        averages.squared_distances(rows, codewords, codes, out, start, stop)

    _parts(part, len(rows), rows.shape[1])
    return out


def average(codewords, sums, totals, empty, held, share, decay):
    """Return the codewords and moving sums after a batch, and the largest number in them."""
    new_codewords, new_sums = (
        np.empty(codewords.shape, np.float32),
        np.empty(codewords.shape, np.float32),
    )

    def part(start, stop):
        return averages.average(
            codewords, sums, totals, empty, held, share, decay, new_codewords, new_sums, start, stop
        )

    return new_codewords, new_sums, max(_parts(part, len(codewords), codewords.shape[1]))


def move(codewords, sums, tally, averaging, place, vectors, count):
    """Return codewords and moving sums after a batch, some replaced, and their largest number."""
    new_codewords, new_sums = (
        np.empty(codewords.shape, np.float32),
        np.empty(codewords.shape, np.float32),
    )
    order = np.argsort(tally.codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(tally.codes, minlength=len(codewords)))])
    magic = tally.magic

    def part(start, stop):
        return averages.move(
            codewords, sums, tally.rows, magic, order, starts, *averaging, place, vectors, count,
            new_codewords, new_sums, np.empty((1 + len(magic), 1, codewords.shape[1])), start, stop,
        )  # fmt: skip

    numbers = (len(tally.rows) + len(codewords)) * codewords.shape[1] // len(codewords)
    return new_codewords, new_sums, max(_parts(part, len(codewords), numbers))


def replace(codewords, sums, dead, vectors, count):
    """Write vectors (m, C) over the codewords `dead` (m,), and `count` times them over the sums."""

    def part(start, stop):
        return averages.replace(codewords, sums, dead, vectors, count, start, stop)

    return max(_parts(part, len(dead), codewords.shape[1]))


def _parts(function, count, numbers, whole=1):
    """Return ``function(start, stop)`` of as many parts of `count` things as threads are worth.

    `numbers` of a thing; parts are multiples of `whole`.
    """
    threads = min(tiles.threads(), max(1, count * numbers // LIGHT))
    share = -(-count // (threads * whole)) * whole
    return tiles.over_rows(function, count, max(1, share))


def packed(stages):
    """Return the packed `stages` for the screen in use."""
    kept = stages.kept
    if "screen" not in kept:
        kept["screen"] = _screens(stages)[0]
    screen = kept["screen"]
    if screen not in kept:
        kept[screen] = packing.plan(stages.whole, screen, LANES, VECTORS, _per_step(screen))
    if stages.whole is stages:
        return kept[screen]
    key = (screen, stages.part.start, stages.part.stop, stages.part.step)
    if key not in kept:
        kept[key] = kept[screen].some(stages.part)
    return kept[key]


def _screens(stages):
    if "screens" not in stages.kept:  # what can be folded takes a look at all codewords
        widest = max(stage.codebook.shape[1] for stage in stages.whole)
        deep = widest > DEEP
        screens = TARGET.screens[-1:] if deep else TARGET.screens
        if widest < SHORT and screens[0] == "int8":
            screens = screens[1:] or screens
        folding = FOLDING and not deep and any(map(fold.foldable, stages.whole))
        stages.kept["screens"] = (packing.FOLDED, *screens) if folding else screens
    return stages.kept["screens"]


def _per_step(screen):
    return PER_STEP[packing.FOLDS if screen == packing.FOLDED else screen]


def judge(stages, spent):
    """Give up a screen whose bounds leave too many codewords: the next one is slower but closer.

    Where the next one leaves about as many, what it would distinguish is not there to be reported:
    the faster one serves again, for good.  Which one serves never shows in the codes, so threads
    may disagree for a moment.
    """
    kept = stages.kept
    before, (rows, codewords) = kept.get("spent", (0, 0)), spent.tolist()
    rows, codewords = rows + before[0], codewords + before[1]
    if rows < PATIENCE:
        kept["spent"] = rows, codewords
        return
    kept["spent"] = 0, 0
    screens = _screens(stages)
    rank = screens.index(kept["screen"])
    smallest = min(len(stage.codebook) for stage in stages.whole)
    if codewords > rows * _allowed(smallest):
        earlier = kept.get("left", {})
        if rank and FEW >= 0 and codewords > GAINED * rows * earlier.get(rank - 1, np.inf):
            kept["screen"], kept["stays"] = screens[rank - 1], True
        elif rank + 1 < len(screens) and "stays" not in kept:
            kept["screen"], kept["left"] = screens[rank + 1], {**earlier, rank: codewords / rows}


def _allowed(n_codewords):
    return max(FEW, n_codewords / DENSE) if FEW >= 0 else -1


def by_hand(row, stages):
    """Return the codes of one row (D,), used up, whose numbers expansions cannot hold."""
    codes = np.empty(len(stages), np.int32)
    for q, stage in enumerate(stages):
        searched = project(row[None], stage)
        code = np.empty(1, np.int32)
        plan = packed(stage.alone)
        if run(searched.copy(), plan, code[None], 0, np.zeros(len(SPENT), np.int64)):
            usable = np.flatnonzero(stage.half < np.inf).tolist()
            code[0] = exact.nearest_of(searched[0], stage.codebook, usable)
        codes[q] = code[0]
        subtract(row[None], stage.table, code)
    return codes
