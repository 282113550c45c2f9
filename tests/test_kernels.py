"""The compiled kernels: no screen says too much, whatever the sizes, threads or processor."""

import math
import os
import platform
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import paths
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import binding

import rvq_np
from rvq_np.kernels import dispatch, tables, tiles
from rvq_np.kernels.compiled import differences, gather, jit, maps, packing, search
from rvq_np.kernels.compiled import engine as compiled
from rvq_np.kernels.compiled import exact as settle
from rvq_np.kernels.compiled import rows as row_kernels
from rvq_np.kernels.compiled import target as processor
from rvq_np.kernels.plain import engine as plain
from rvq_np.kernels.plain import exact
from rvq_np.testing import oracle, strategies

EACH_SCREEN = pytest.mark.parametrize("screen", compiled.SCREENS)
U = 2.0**-24
IN_PANEL = processor.LANES * processor.VECTORS
BY_PANEL = st.sampled_from([1, 2, 7, *(n * IN_PANEL + more for n in (1, 2) for more in (-1, 0, 1))])


@jit.kernel
def _bound(
    rows,
    panels,
    side,
    centres,
    moved,
    whole,
    real,
    quantized,
    params,
    starts,
    norms,
    powers,
    bounds,
):
    count = rows.shape[0]
    row_kernels.quantize(rows, 0, count, centres, moved, whole, real, 0,
                     quantized, params, starts, norms, powers)  # fmt: skip
    search._screen(quantized, count, panels, whole, 0, side, params, bounds)


def stage_of(codewords):
    return tables.Stages([tables.codeword_tables(np.array(codewords))])


def screened(rows, codewords, screen):
    """Return what a screen says of all pairs, and by which numbers.  Kernels are called here only.

    `bounds` (n, K) and those of the `padding`; the same as `stored` (n, panels, vectors, lanes)
    with the `least` over the vectors; `slack`, `norms`, `powers` (n,), `heavy` (K,), `unit`,
    `ratio`, `lowered` and `centre` (C,) as in `pack`; `repeats` (K,).
    """
    plan = packing.plan(
        stage_of(codewords), screen, processor.LANES, processor.VECTORS, processor.PER_STEP[screen]
    )
    group = -(-len(rows) // search.ROWS) * search.ROWS
    quantized, params, starts, norms, powers, bounds, _, moved = search.workspace(plan, group)[:8]
    bounds[:] = np.nan
    _bound(rows, plan.panels, plan.side, plan.centres, moved, plan.whole, plan.real,
           quantized, params, starts, norms, powers, bounds)  # fmt: skip
    n_panels = int(plan.whole[0, 3])
    stored = bounds[: len(rows)].reshape(
        len(rows), n_panels, processor.VECTORS + 1, processor.LANES
    )
    by_codeword = stored[:, :, 1:].reshape(len(rows), n_panels * IN_PANEL)
    real = plan.real[0]
    return SimpleNamespace(
        bounds=by_codeword[:, : len(codewords)], padding=by_codeword[:, len(codewords) :],
        least=stored[:, :, 0],
        stored=stored[:, :, 1:], slack=-params[: len(rows), 1].astype(float),
        norms=norms[: len(rows)], powers=powers[: len(rows)],
        heavy=plan.side[2, : len(codewords)].astype(float), heaviest=real[12],
        unit=real[7], ratio=real[8], lowered=real[9],
        centre=plan.centres if plan.whole[0, 11] >= 0 else np.zeros(codewords.shape[1]),
        repeats=np.isinf(plan.half),
    )  # fmt: skip


def whole_numbers(*arrays):
    """Return floats as Python ints, all times one power of two, and its logarithm."""
    narrow = all(each.dtype == np.float32 for each in arrays)
    places = 149 if narrow else 1074

    def whole(array):
        pairs = [number.as_integer_ratio() for number in array.ravel().tolist()]
        numbers = np.array([(n << places) // d for n, d in pairs], dtype=object)
        return numbers.reshape(array.shape)

    return [whole(each) for each in arrays], places


def exact_scores(rows, codewords, centre, unit, powers):
    """Return the exact scores in the units of rows: numerators (n, K) and denominators (n,)."""
    kinds = (rows, codewords, centre.astype(np.float32) if not centre.any() else centre)
    (left, right, middle), places = whole_numbers(*kinds)
    left, right = left - middle, right - middle
    twice = (right * right).sum(axis=1)[None] - 2 * (left @ right.T)
    shares = [Fraction(unit) ** 2 * Fraction(power) for power in powers.tolist()]
    over = np.array([each.numerator for each in shares], dtype=object)
    return twice * over[:, None], [each.denominator << (2 * places + 1) for each in shares]


def check_bounds(rows, codewords, screen):
    """Compare every bound with the exact score: never above it, and as near as was derived."""
    said = screened(rows, codewords, screen)
    with np.errstate(over="ignore"):
        moved = (rows.astype(float) - said.centre) * said.unit
        reach = np.abs(moved).max(axis=1)
    in_range = (
        2.0**-100 < np.abs(codewords).max() < 2.0**100
    )  # else little is promised but the bound
    if in_range:
        assert (said.norms[reach < np.inf] < np.inf).all()
        assert (said.powers[reach < 2.0**49] == 1).all()
    np.testing.assert_array_equal(said.least[said.norms < np.inf],
                                  said.stored.min(axis=2)[said.norms < np.inf])  # fmt: skip
    scores, belows = exact_scores(rows, codewords, said.centre, said.unit, said.powers)
    width = codewords.shape[1]
    for i in np.flatnonzero(said.norms < np.inf):
        norm = math.hypot(*(moved[i] * said.powers[i]))
        assert norm * (1 - 1e-12) <= said.norms[i]
        assert (said.padding[i] == np.inf).all()
        for k, bound in enumerate(said.bounds[i].tolist()):
            if said.repeats[k]:
                assert bound == np.inf
                continue
            over, under = bound.as_integer_ratio()
            assert over * belows[i] <= scores[i, k] * under, (i, k)
            # As `hypotheses` has it: two slacks and twice what half norms are lowered by.
            gap = float(Fraction(scores[i, k], belows[i]) - Fraction(over, under))
            lowered = (2 * said.lowered + 16 * U) * (said.norms[i] + said.heavy[k]) * said.heavy[k]
            assert gap <= 2 * said.slack[i] * said.heavy[k] + lowered + 2.0**-90 * max(
                1, said.heavy[k]
            )
        if not in_range or reach[i] < 2.0**-50 or np.abs(rows[i]).max() < 2.0**-100:
            continue
        assert said.norms[i] <= norm * (1 + (width + 40) * U)
        if screen == "float32":
            derived = (width + 16) * U
        else:  # half a step a number, of the row and of the codeword in the middle
            half = math.sqrt(width) / 2 / packing.FULL_SCALE[screen]
            assert said.ratio <= 1.001 * half or said.ratio in (1.0, U)
            ratio = max(said.ratio, U)
            derived = half + (1 + half) * (ratio + 8 * U * (1 + ratio)) + 8 * U
        distant = said.heaviest if said.powers[i] < 1 else 0
        assert said.slack[i] <= 1.001 * derived * norm + distant


def cases(dtype):
    return st.one_of(
        strategies.uneven(counts=BY_PANEL, dims=st.integers(1, 24), dtype=dtype),
        strategies.collapsed(counts=BY_PANEL, dims=st.integers(1, 24), dtype=dtype),
        strategies.lost_to_rounding(dims=st.integers(1, 70), dtype=dtype),
        strategies.near_ties(dtype=dtype),
        strategies.ordinary(max_dim=70, max_codewords=2 * IN_PANEL + 1, max_rows=7, dtype=dtype),
    )


@EACH_SCREEN
@given(cases(np.float32))
def test_no_bound_is_above_the_score(screen, case):
    x, books = case
    check_bounds(x, books[0], screen)


@pytest.mark.slow
@EACH_SCREEN
@given(cases(np.float64))
def test_no_bound_is_above_the_score_of_float64(screen, case):
    x, books = case
    check_bounds(x, books[0], screen)


@EACH_SCREEN
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("largest", [0, 100, -80, -140])
def test_no_bound_is_above_the_score_at_any_two_norms(screen, dtype, largest):
    """Every size of a codeword meets every size of a row, at all thresholds."""
    rng = np.random.default_rng(6)
    near = [0, -1, -20, -49, -50, -51, -59, -60, -61, -62, -75, -100, -125, -127, -140, -148]
    far = [*near, 10, 30, 57, 58, 59, 60, 61, 62, 64, 80, 100, 127, 131, 133, 140]
    for dim in (1, 2, 7, 40):
        codewords = rng.uniform(0.5, 1, (len(near), dim)) * 2.0 ** (
            np.array(near)[:, None] + largest
        )
        codewords *= rng.choice([-1, 1], codewords.shape)
        rows = rng.uniform(0.5, 1, (len(far), dim)) * 2.0 ** (np.array(far)[:, None] + largest)
        rows = rows[np.abs(rows).max(axis=1) < np.finfo(dtype).max / 4].astype(dtype)
        check_bounds(rows, codewords.astype(dtype), screen)
        check_bounds(rows, np.sign(rows[0]) * -np.abs(codewords).astype(dtype), screen)


@EACH_SCREEN
def test_no_bound_is_above_the_score_where_both_are_rounded_up(screen):
    """What is lost of row and codeword adds up, and their product with it: all half a step."""
    stages = packing.FULL_SCALE.get(screen, 127)
    row = np.full((1, 2000), 1 - 0.499 / stages, np.float32)
    row[0, 0] = 1
    for scale in (1.0, 2.0**-9, 2.0**9):
        check_bounds(row, np.float32(-scale) * row, screen)
        check_bounds(row, np.float32(scale) * row, screen)


@EACH_SCREEN
def test_no_bound_is_above_the_score_of_a_codeword_that_is_rounded_unlike_the_others(screen, rng):
    """The others are whole numbers of steps; a row along what is lost of it feels it all."""
    stages = packing.FULL_SCALE.get(screen, 127)
    codewords = rng.integers(-stages // 40, stages // 40 + 1, (IN_PANEL + 3, 16)).astype(np.float32)
    far = rng.choice(
        [-stages, stages], len(codewords)
    )  # not in one place, so that there is no centre
    codewords[np.arange(len(codewords)), rng.integers(16, size=len(codewords))] = far
    codewords[5, 0] = stages
    lost = np.where(rng.random(16) < 0.5, -0.499, 0.499).astype(np.float32)
    lost[0] = 0
    codewords[5] += lost
    rows = np.float32([[1], [-1], [stages], [-stages]]) * lost
    check_bounds(rows, codewords, screen)


@EACH_SCREEN
@pytest.mark.parametrize(
    ("n_codewords", "dim"), [(1, 4096), (3, 4096), (65536, 1), (65536, 4), (2, compiled.DEEP)]
)
def test_no_bound_is_above_the_score_at_the_largest_sizes(screen, n_codewords, dim, rng):
    """Whole numbers of 18 bits: their scores are exact in float64."""
    codewords = rng.integers(1 - 2**18, 2**18, (n_codewords, dim)).astype(np.float32)
    codewords[0] = 2**18 - 1  # the largest sum there can be
    rows = np.stack(
        [codewords[0], -codewords[0], codewords[-1], rng.integers(-99, 99, dim)]
    ).astype(np.float32)
    said = screened(rows, codewords, screen)
    wide = codewords.astype(np.float64)
    scores = np.square(wide).sum(axis=1) / 2 - rows.astype(np.float64) @ wide.T
    usable = ~said.repeats
    assert (said.norms < np.inf).all()
    assert not said.centre.any()
    assert (said.powers == 1).all()
    assert (said.bounds[:, usable] <= (scores * said.unit**2)[:, usable]).all()
    assert (said.bounds[:, ~usable] == np.inf).all()


@EACH_SCREEN
def test_a_screen_leaves_few_codewords_of_ordinary_data(screen, rng):
    x, codewords = (rng.standard_normal((n, 64)).astype(np.float32) for n in (200, 500))
    said = screened(x, codewords, screen)
    scores = np.square(codewords).sum(axis=1) / 2 - x @ codewords.T
    low = scores.min(axis=1, keepdims=True) * said.unit**2
    left = (said.bounds <= low).sum(axis=1).mean()
    assert left < {"uint8": 2.5, "int16": 1.02, "float32": 1.001}[screen]


@EACH_SCREEN
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(st.data())
def test_codes_where_all_but_coincides_are_those_of_the_definition(screen, dtype, data):
    x, books = data.draw(strategies.collapsed(counts=BY_PANEL, dtype=dtype))
    with paths.screen(screen)():
        codes = rvq_np.encode(x, books)
    kind = np.dtype(dtype).name
    expected = np.transpose([oracle.encode(row, books.tolist(), kind) for row in x.tolist()])
    np.testing.assert_array_equal(codes, expected)


@given(strategies.collapsed(counts=BY_PANEL, dtype=np.float32), st.sampled_from([1.0, 2.0**-20]))
def test_distances_said_to_be_exact_are(case, scale):
    """A distance on a grid is the exact one, with Numba and without; and most of those here are."""
    x, books = case
    values, reported = np.empty(len(books[0])), np.empty(len(books[0]), bool)
    for row in x:
        _on_grid(row, books[0], scale, values, reported)
        pairs = np.broadcast_to(row, books[0].shape), books[0]
        np.testing.assert_array_equal(exact.on_grid(*pairs, scale), reported)
        for each in (values, exact.distances(*pairs, scale)[0]):
            for k in np.flatnonzero(reported):
                expected = exact.squared_distance(row, books[0][k])
                assert Fraction(each[k]) / Fraction(scale) ** 2 == Fraction(expected, 1 << 298)


@jit.kernel
def _on_grid(row, codewords, scale, values, reported):
    width = codewords.shape[1]
    for k in range(codewords.shape[0]):
        values[k] = differences.distance(row, 0, codewords, k * width, scale, width)
        reported[k] = settle.on_grid(row, 0, codewords, k * width, width, scale)


@EACH_SCREEN
@pytest.mark.parametrize("first", [0, 1])
def test_scores_of_a_far_row_may_round_one_way_all_along(screen, first):
    """One product is 1, those added to it just above half its last place, or just below."""
    row, codewords = np.zeros((1, 4096)), np.zeros((2, 4096))
    row[0, 0], codewords[:, 0] = 2.0**11, 2.0**-11
    row[0, 1:], along = 2.0**-20, slice(16, None, 16)  # the same lane of all vectors there are
    codewords[first, along] = 2.0**-33 * (1 + 2.0**-10)
    codewords[1 - first, along] = 2.0**-33 * (1 - 2.0**-10)
    codewords[1 - first, 1] = 20 * 2.0**-33  # which makes it the nearer one
    with paths.screen(screen)():
        codes = rvq_np.encode(row, codewords[None])
    assert codes.tolist() == [oracle.encode(row[0].tolist(), [codewords.tolist()], "float64")]
    assert codes.tolist() == [[1 - first]]


def test_whole_numbers_beyond_the_grid_are_not_said_to_be_exact():
    """Squares that need more than 53 bits together: sums of them round."""
    row = np.zeros(3)
    codewords = np.float64([[2.0**24 + 1, 2.0**20 + 1, 1], [2.0**27 + 1, 3, 1], [1, 2.0**-30, 0]])
    values, reported = np.empty(3), np.empty(3, bool)
    _on_grid(row, codewords, 1.0, values, reported)
    assert (
        reported.tolist()
        == exact.on_grid(np.zeros((3, 3)), codewords).tolist()
        == [True, False, False]
    )


def test_repeats_are_those_of_numpy_whatever_the_hash(rng):
    for dtype in (np.float32, np.float64):
        for count, dim in ((1, 1), (300, 1), (300, 2), (40, 17)):
            codewords = rng.integers(-1, 2, (count, dim)) * rng.choice([-1.0, 1.0], (count, dim))
            codewords = codewords.astype(dtype)  # with zeros of both signs
            half, repeat = compiled.measure(codewords)
            expected = tables.measured(codewords)
            np.testing.assert_array_equal(half, expected[0])
            np.testing.assert_array_equal(repeat, expected[1])
            by_numpy = np.ones(count, bool)
            by_numpy[np.unique(codewords + 0.0, axis=0, return_index=True)[1]] = False
            np.testing.assert_array_equal(repeat, by_numpy)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@EACH_SCREEN
@given(st.data())
def test_what_is_said_of_all_other_codewords_is_never_above_their_scores(screen, dtype, data):
    x, books = data.draw(cases(dtype))
    stages = stage_of(books[0])
    stages.kept["screen"] = screen
    codes, others = np.empty((1, len(x)), np.int32), np.empty(len(x))
    lost = compiled.run(x.copy(), compiled.packed(stages), codes, 0, np.zeros(2, np.int64), others)
    assert lost == (codes[0] < 0).sum()
    (left, right), places = whole_numbers(x, books[0])
    usable = ~tables.repeats(books[0])
    for i in np.flatnonzero(codes[0] >= 0):
        twice = ((left[i] - right) ** 2).sum(axis=1)
        usable[codes[0, i]] = False
        if usable.any():
            assert Fraction(others[i]) <= Fraction(int(twice[usable].min()), 2 << (2 * places))
        usable[codes[0, i]] = True


@EACH_SCREEN
def test_what_is_said_of_all_other_codewords_tells_most_rows_apart(screen, rng):
    codewords = rng.standard_normal((3 * IN_PANEL, 24)).astype(np.float32)
    near = rng.integers(len(codewords), size=60)
    x = codewords[near] + 0.1 * rng.standard_normal((60, 24)).astype(np.float32)
    stages = stage_of(codewords)
    stages.kept["screen"] = screen
    codes, others = np.empty((1, 60), np.int32), np.empty(60)
    compiled.run(x.copy(), compiled.packed(stages), codes, 0, np.zeros(2, np.int64), others)
    np.testing.assert_array_equal(codes[0], near)
    chosen = np.square(x - codewords[near]).sum(axis=1) / 2
    assert (others > chosen + 1e-3).all()


# Tiles, blocks, panels, threads


@pytest.fixture(params=[True, False], ids=["large map", "small map"])
def large_map(request, monkeypatch):
    """All maps are taken for large, or for small: float32 rows are summed in float32, or wider."""
    monkeypatch.setattr(tables, "LARGE", 1 if request.param else 1 << 60)
    return request.param


def filled(kind, *shape):
    """Return an array within a larger one, and whether that is untouched."""
    whole = np.full((shape[0] + 2, *shape[1:]), 3, kind)
    return whole[1:-1], lambda: (whole[0] == 3).all() and (whole[-1] == 3).all()


def grid(rng, *shape, steps=8):
    """Return multiples of 1/8: sums are exact in any order, so that projections are, too."""
    return rng.integers(-4 * steps, 4 * steps + 1, shape).astype(np.float32) / 8


def projected(rng, n_codewords, width, dim):
    pick = rng.integers(-1, 2, (width, dim)), rng.integers(-1, 2, (dim, width))
    return rvq_np.Stage(
        grid(rng, n_codewords, width),
        rvq_np.Linear(pick[0].astype(np.float64), grid(rng, width).astype(np.float64)),
        rvq_np.Linear(pick[1].astype(np.float64), grid(rng, dim).astype(np.float64)),
    )


@pytest.fixture(scope="module")
def small():
    """Stages whose panels stay in the cache, of all sizes, two of them projected."""
    rng = np.random.default_rng(1)
    dim = 11
    stages = [rvq_np.Stage(grid(rng, k, dim)) for k in (40, 1, IN_PANEL + 1, 200)]
    stages.insert(1, projected(rng, 30, 5, dim))
    stages.insert(4, projected(rng, 3 * IN_PANEL, 23, dim))
    return grid(rng, 1600, dim) + grid(rng, 1600, dim) / 64, rvq_np.Codebooks(stages)


@pytest.fixture(scope="module")
def large():
    """Stages whose panels do not stay in the cache, met a run at a time, and a small one."""
    rng = np.random.default_rng(2)
    dim = 160
    stages = [
        rvq_np.Stage(rng.standard_normal((k, dim)).astype(np.float32)) for k in (4096, 90, 3001)
    ]
    stages.insert(1, projected(rng, 2048, 257, dim))
    return rng.standard_normal((776, dim)).astype(np.float32), rvq_np.Codebooks(stages)


def plain_codes(x, books):
    with paths.without_numba():
        return rvq_np.encode(x, books)


@EACH_SCREEN
def test_any_number_of_rows_gives_the_same_codes(screen, small):
    x, books = small
    expected = plain_codes(x, books)
    near = [n for edge in (48, 384, 768, 1152, 1536) for n in range(edge - 1, edge + 2)]
    with paths.screen(screen)():
        stages = dispatch.prepare(books, x.dtype)
        for n in [*range(14), *near, 389, 390, 391, 1600]:
            np.testing.assert_array_equal(dispatch.encode(x[:n], stages), expected[:, :n])


@EACH_SCREEN
def test_two_equally_near_codewords_anywhere_are_both_found(screen, rng):
    """Each row is as far from both, all others are far: the lower index wins, wherever they are."""
    count, dim = 2 * IN_PANEL + 1, 6
    for one in range(0, count, 3):
        for other in {(one + 1) % count, (one + IN_PANEL // 2) % count, count - 1} - {one}:
            row, away = rng.integers(-8, 9, dim), rng.integers(1, 5, dim)
            codewords = row + rng.choice([-1, 1], (count, dim)) * rng.integers(20, 40, (count, dim))
            codewords[one], codewords[other] = row + away, row - away
            book = codewords[None].astype(np.float32)
            with paths.screen(screen)():
                codes = rvq_np.encode(row[None].astype(np.float32), book)
            assert codes.tolist() == [[min(one, other)]]


@EACH_SCREEN
def test_panels_met_a_run_at_a_time_give_the_same_codes(screen, large):
    x, books = large
    expected = plain_codes(x, books)
    with paths.screen(screen)():
        prepared = dispatch.prepare(books, x.dtype)
        plan = compiled.packed(prepared)
        panels = plan.whole[0, 2] * plan.whole[0, 3] * IN_PANEL * 4
        assert panels > search.SMALL
        assert search.block(plan, 100) > search.ROWS
        for n in (1, 2, 3, 6, 7, 8, 9, 47, 48, 49, 51, 53, 54, 385, 776):
            np.testing.assert_array_equal(dispatch.encode(x[:n], prepared), expected[:, :n])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_codes(count, large, small):
    for x, books in (large, small):
        expected = plain_codes(x, books)
        with paths.threads(count), paths.patched((compiled, "ALONE", 0)):
            for n in (5, 13, 389, len(x)):
                np.testing.assert_array_equal(rvq_np.encode(x[:n], books), expected[:, :n])


def test_any_layout_and_float_type_gives_the_same_codes(small):
    x, books = small
    halves = x.astype(np.float16)
    expected = plain_codes(halves.astype(np.float32), books)
    wide = plain_codes(halves.astype(np.float64), books)
    frozen = halves.astype(np.float32)
    frozen.setflags(write=False)
    for same in (halves, frozen, np.asfortranarray(frozen), paths.strided(frozen), frozen[::-1]):
        codes = rvq_np.encode(same, books)
        np.testing.assert_array_equal(codes[:, ::-1] if same.base is frozen else codes, expected)
    np.testing.assert_array_equal(rvq_np.encode(halves.astype(np.float64), books), wide)


@EACH_SCREEN
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("n_codewords", "dim"),
    [
        (65536, 1),
        (65536, 2),
        (65536, 3),
        (65536, 4),
        (64 * IN_PANEL + 1, 2),
        (1, 1),
        (1, 4096),
        (70, 4096),
    ],
)
def test_the_largest_and_smallest_sizes_give_the_same_codes(screen, dtype, n_codewords, dim, rng):
    codewords = rng.standard_normal((2, n_codewords, dim)).astype(dtype)
    x = np.concatenate([rng.standard_normal((9, dim)), codewords[0, -4:]]).astype(dtype)
    expected = plain_codes(x, codewords)
    with paths.screen(screen)():
        np.testing.assert_array_equal(rvq_np.encode(x, codewords), expected)


def test_beyond_the_longest_sums_of_bytes_floats_serve(rng):
    codewords = rng.standard_normal((2, compiled.DEEP + 1)).astype(np.float32)
    stages = stage_of(codewords)
    np.testing.assert_array_equal(dispatch.encode(codewords[::-1], stages), [[1, 0]])
    assert stages.kept["screen"] == compiled.SCREENS[-1]


def test_only_the_codes_of_the_rows_are_written(small):
    x, books = small
    stages = dispatch.prepare(books, x.dtype)
    codes = np.full((len(stages), 30), -7, np.int32)
    compiled.run(x[:13].copy(), compiled.packed(stages), codes, 11, np.zeros(2, np.int64))
    np.testing.assert_array_equal(codes[:, 11:24], rvq_np.encode(x[:13], books))
    assert (codes[:, :11] == -7).all()
    assert (codes[:, 24:] == -7).all()


def test_many_python_threads_may_encode_large_batches_at_once(rng):
    x = rng.standard_normal((6000, 64)).astype(np.float32)
    books = rng.standard_normal((2, 200, 64)).astype(np.float32)
    assert len(x) * books.size > compiled.ALONE
    expected = plain_codes(x, books)
    with paths.threads(3), ThreadPoolExecutor(4) as pool:
        for answer in pool.map(lambda _: rvq_np.encode(x, books), range(8)):
            np.testing.assert_array_equal(answer, expected)


def test_many_python_threads_may_encode_frames_at_once(rng):
    """Space to work in is kept from frame to frame, and that of a call under way is no other's."""
    x = rng.standard_normal((150, 512)).astype(np.float32)  # long codewords: calls that overlap
    books = rvq_np.Codebooks(rng.standard_normal((8, 1024, 512)).astype(np.float32))
    expected = plain_codes(x, books)

    def frames(start):
        return [rvq_np.encode(x[n : n + 1], books)[:, 0] for n in range(start, len(x), 3)]

    with ThreadPoolExecutor(6) as pool:
        for start, codes in enumerate(pool.map(frames, [0, 1, 2] * 2)):
            np.testing.assert_array_equal(np.transpose(codes), expected[:, start % 3 :: 3])


def test_a_call_within_a_call_has_a_workspace_of_its_own(rng):
    books = rvq_np.Codebooks(rng.standard_normal((2, 50, 6)).astype(np.float32))
    x = rng.standard_normal((3, 6)).astype(np.float32)
    workspaces, search_encode = [], search.encode

    def encode(*arguments):
        workspaces.append(
            arguments[1 + len(compiled.packed(dispatch.prepare(books, x.dtype)).arrays)]
        )
        if len(workspaces) == 1:
            rvq_np.encode(x[1:2], books)
        return search_encode(*arguments)

    rvq_np.encode(x[:1], books)  # its space is kept
    with paths.patched((search, "encode", encode)):
        for n in (0, 2):
            rvq_np.encode(x[n : n + 1], books)
    outer, inner, later = workspaces
    assert outer is not inner
    assert later is outer or later is inner


@pytest.mark.slow
def test_any_stages_of_a_whole_are_searched_by_their_own_codewords(rng):
    books = rvq_np.Codebooks(rng.standard_normal((4, 50, 6)).astype(np.float32))
    x = rng.standard_normal((3, 6)).astype(np.float32)
    whole = dispatch.prepare(books, x.dtype)
    for part in (slice(0, 3), slice(1, 3), slice(2, 3), slice(0, 4, 2), slice(1, 4, 2)):
        codes = dispatch.encode(x, whole[part])
        np.testing.assert_array_equal(codes, rvq_np.encode(x, books[part]))


def test_rows_after_others_have_the_codes_they_have_alone(rng):
    """What earlier rows left in the space that is kept, of other stages, changes nothing."""
    stages = [rvq_np.Stage(rng.standard_normal((40, 7)).astype(np.float32))]
    stages += [projected(rng, n, width, 7) for n, width in ((90, 3), (900, 40), (20, 7))]
    books, again = rvq_np.Codebooks(stages), rvq_np.Codebooks(stages)
    for n_q in (1, 3, 2):  # stages have space of their own
        rvq_np.encode(np.zeros((1, 7), np.float32), books, n_q)
    x = (rng.standard_normal((60, 7)) * 10.0 ** rng.integers(-30, 18, (60, 1))).astype(np.float32)
    rows = [rvq_np.encode(x[n : n + 1 + n % 3], books) for n in range(len(x))]
    for n, codes in enumerate(rows):
        fresh = rvq_np.Codebooks(stages) if n % 10 == 0 else again
        np.testing.assert_array_equal(codes, rvq_np.encode(x[n : n + 1 + n % 3], fresh))
    np.testing.assert_array_equal(np.stack([c[:, 0] for c in rows], 1), rvq_np.encode(x, again))


def test_memory_above_input_and_output_does_not_grow_with_the_rows(rng):
    x = rng.standard_normal((200_000, 8)).astype(np.float32)
    books = rvq_np.Codebooks(rng.standard_normal((2, 64, 8)).astype(np.float32))
    codes = np.empty((2, len(x)), np.int32)
    rvq_np.encode(x[:100], books)
    with paths.traced_memory() as peak:
        rvq_np.encode(x, books, out=codes)
    assert peak[0] < 1 << 21


# Rows outside, screens given up


@EACH_SCREEN
@pytest.mark.parametrize(
    ("sizes", "most"),
    [((1.0, 1e-3, 1e-151, 1e-200, 1e-308, 5e-324), 55), ((1.0, 1e100, 1e148, 1e152, 1e300), 60)],
    ids=["tiny", "huge"],
)
def test_rows_no_expansion_can_hold_are_decided_by_hand(screen, sizes, most, monkeypatch):
    """Ties and near ties at norms whose squares, or what these lose, leave float64."""
    rng = np.random.default_rng(4)
    books = rng.integers(-3, 4, (3, 9, 4)) * rng.choice(sizes, (3, 9, 1))
    books[1] = books[0][::-1]
    books[2, 3:] = rng.standard_normal((6, 4))
    x = rng.integers(-3, 4, (60, 4)) * rng.choice(sizes, (60, 1))
    x[::3] = rng.standard_normal((20, 4))
    x[1::6] = books[0, rng.integers(9, size=10)] + books[1, rng.integers(9, size=10)]
    expected = np.transpose([oracle.encode(row, books, "float64") for row in x.tolist()])
    by_hand, original = [], compiled.by_hand

    def counted(row, stages):
        by_hand.append(row)
        return original(row, stages)

    monkeypatch.setattr(compiled, "by_hand", counted)
    with paths.screen(screen)():
        np.testing.assert_array_equal(rvq_np.encode(x, books), expected)
        assert 5 < len(by_hand) <= most
        with paths.patched((compiled, "ROWS", 7)):  # so that most tiles do not begin at row 0
            np.testing.assert_array_equal(rvq_np.encode(x, books), expected)


@pytest.mark.parametrize(
    ("largest", "codewords_exponent", "row_exponent"),
    [(0.0, -565, 390), (2.0**390, -565, 390), (0.0, -505, -505), (0.0, 505, 505)],
    ids=["small codewords", "beside a large one", "all small", "all large"],
)
@pytest.mark.parametrize(
    "path",
    [
        *(paths.inside(paths.screen(each)) for each in compiled.SCREENS),
        paths.inside(paths.without_numba),
        paths.array_api(),
        paths.beam_of_one(),
    ],
    ids=[*compiled.SCREENS, "plain", "array api", "beam"],
)
def test_ties_are_settled_where_squares_underflow(
    path, largest, codewords_exponent, row_exponent, rng
):
    """The half norms of small codewords are zero: their products with a row may be large, and err.

    Where all is small, what a product loses to rounding is lost altogether.
    """
    for _ in range(25):
        codeword = 2.0 ** rng.integers(-26, 3, 8) * rng.standard_normal(8)
        codewords = np.zeros((6, 9))
        codewords[0, 0] = largest
        codewords[1:, 1:] = 2.0**codewords_exponent * np.stack(
            [rng.permutation(codeword) for _ in range(5)]
        )
        x = np.full((1, 9), 0.7 * 2.0**row_exponent)
        x[0, 0] *= -1
        expected = oracle.encode(x[0], codewords[None], "float64")
        np.testing.assert_array_equal(path["encode"](x, codewords[None])[:, 0], expected)


def test_a_row_decided_by_hand_goes_through_projections_as_others_do():
    rng = np.random.default_rng(5)
    stages = [projected(rng, 9, 3, 4), rvq_np.Stage(grid(rng, 7, 4))]
    stages = [replace(each, codebook=each.codebook.astype(np.float64)) for each in stages]
    books = rvq_np.Codebooks(stages)
    x = grid(rng, 40, 4).astype(np.float64)
    prepared = dispatch.prepare(books, x.dtype)
    codes = plain_codes(x, books)
    for n, row in enumerate(x):
        np.testing.assert_array_equal(compiled.by_hand(row.copy(), prepared), codes[:, n])


def around_points(rng):
    """Return codewords around four points, less than a step of any screen apart, one the centre."""
    points = 1e4 * rng.standard_normal((4, 16))
    codewords = (
        points[rng.integers(4, size=300)] + 1e-2 * rng.standard_normal((2, 300, 16))
    ).astype(np.float32)
    codewords[1] = codewords[1, 0] - codewords[0]
    x = points[rng.integers(4, size=800)] + 1e-2 * rng.standard_normal((800, 16))
    return x.astype(np.float32), codewords


def test_a_screen_that_leaves_too_many_codewords_is_given_up(rng):
    x, codewords = around_points(rng)
    expected = plain_codes(x, codewords)
    stages = dispatch.prepare(rvq_np.Codebooks(codewords), x.dtype)
    with paths.patched((compiled, "GAINED", np.inf)):
        for rank in (*range(len(compiled.SCREENS)), len(compiled.SCREENS) - 1):
            assert compiled.packed(stages) is stages.kept[compiled.SCREENS[rank]]
            codes = dispatch.encode(x[: compiled.PATIENCE], stages)
            np.testing.assert_array_equal(codes, expected[:, : compiled.PATIENCE])
    np.testing.assert_array_equal(dispatch.encode(x, stages), expected)


@pytest.mark.skipif(len(compiled.SCREENS) < 2, reason="this processor has one screen")
def test_a_screen_that_the_next_one_does_not_better_serves_again(rng):
    x, codewords = around_points(rng)
    expected = plain_codes(x, codewords)
    stages = dispatch.prepare(rvq_np.Codebooks(codewords), x.dtype)
    served = []
    for _ in range(4):
        np.testing.assert_array_equal(dispatch.encode(x, stages), expected)
        served.append(stages.kept["screen"])
    assert served == [compiled.SCREENS[1], *[compiled.SCREENS[0]] * 3]


def test_a_stage_in_training_begins_with_the_screen_that_served(rng, monkeypatch):
    """For as many searches as `FORGET` says; then it is found out again."""
    monkeypatch.setattr(dispatch, "FORGET", 4)
    dispatch.load()
    codewords = rng.standard_normal((9, 4)).astype(np.float32)
    found, served = {"screen": compiled.SCREENS[-1]}, []
    for _ in range(5):
        codewords = codewords + np.float32(0.5)
        stage, codes = tables.codeword_tables(codewords.copy()), np.empty(9, np.int32)
        dispatch.search_again(codewords, stage, codes, found)
        np.testing.assert_array_equal(codes, np.arange(9))
        served.append(found["screen"])
    assert served == [compiled.SCREENS[-1]] * 3 + [compiled.SCREENS[0]] * 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codewords_may_change_their_size_between_steps_of_a_training(dtype, rng):
    """How large they were a step ago is remembered; it says nothing about the codes."""
    dispatch.load()
    codewords, found = rng.standard_normal((9, 4)).astype(dtype), {}
    for scale in (1.0, 1e-30, 1e30, 1e-40, 1.0, 0.0, 1e30):
        stage, codes = (
            tables.codeword_tables((codewords * scale).astype(dtype)),
            np.empty(9, np.int32),
        )
        dispatch.search_again(stage.codebook.copy(), stage, codes, found)
        np.testing.assert_array_equal(codes, np.arange(9) if scale else np.zeros(9))


def test_panels_are_packed_by_several_threads_as_by_one(rng, monkeypatch):
    codewords = rng.standard_normal((300, 6)).astype(np.float32)
    for screen in compiled.SCREENS:
        shape = screen, processor.LANES, processor.VECTORS, processor.PER_STEP[screen]
        alone = packing.plan(stage_of(codewords), *shape)
        with paths.threads(2):
            monkeypatch.setattr(packing, "PACKED", 1)
            together = packing.plan(stage_of(codewords), *shape)
        monkeypatch.undo()
        for name in ("panels", "side", "half"):
            np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))


@pytest.mark.parametrize(("n_codewords", "dim"), [(256, 8), (1024, 64), (1024, 256)])
def test_the_fastest_screen_is_kept_on_ordinary_data(n_codewords, dim, rng):
    x = rng.standard_normal((2000, dim)).astype(np.float32)
    codewords = rng.standard_normal((2, n_codewords, dim)).astype(np.float32)
    stages = dispatch.prepare(rvq_np.Codebooks(codewords), x.dtype)
    for _ in range(3):
        np.testing.assert_array_equal(dispatch.encode(x, stages), plain_codes(x, codewords))
    assert stages.kept["screen"] == compiled.SCREENS[0]


# Decode, tally, subtract, project


WIDTHS = [1, 2, 3, 7, 15, 16, 17, 31, 33, 63, 127, 128, 129, 255, 257]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", WIDTHS)
def test_codewords_are_looked_up_and_added_as_numpy_does(dtype, dim, rng):
    """Bit for bit; and not a number is written behind the last row."""
    sizes = (5, 1, 40)
    stages = dispatch.prepare(
        rvq_np.Codebooks(
            [rvq_np.Stage(rng.standard_normal((k, dim)).astype(dtype)) for k in sizes]
        ),
        dtype,
    )
    codes = np.stack([rng.integers(0, k, 37) for k in sizes]).astype(np.int32)

    for n in range(4):
        for part in (stages, stages[: max(n, 1)]):
            ours, untouched = filled(dtype, 37, dim)
            theirs = np.empty((37, dim), dtype)
            compiled.decode(codes[:n], part, ours)
            plain.decode(codes[:n], part, theirs)
            np.testing.assert_array_equal(ours, theirs)
            assert untouched()
    middle = stages[1:]  # a slice knows where its codewords begin
    compiled.decode(codes[1:], middle, ours)
    plain.decode(codes[1:], middle, theirs)
    np.testing.assert_array_equal(ours, theirs)

    rows, untouched = filled(dtype, 37, dim)
    rows[:] = rng.standard_normal((37, dim))
    counts, expected = np.ones(40), np.ones(40)
    sums, untouched_sums = filled(np.float64, 40, dim)
    expected_sums = sums.copy()
    gather.tally(rows, codes[2], counts, sums)
    plain.tally(rows, codes[2], expected, expected_sums)
    # `plain` adds up from zero and then to what was there.
    fresh = np.zeros((40, dim))
    gather.tally(rows, codes[2], np.zeros(40), fresh)
    np.testing.assert_array_equal(fresh + 3, expected_sums)
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_allclose(sums, expected_sums, rtol=0, atol=1e-12)
    assert untouched_sums()

    plainly = rows.copy()
    plain.subtract(plainly, stages[2].table, codes[2])
    gather.subtract(rows, stages[2].table, codes[2])
    np.testing.assert_array_equal(rows, plainly)
    assert untouched()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", WIDTHS)
def test_rows_are_projected_as_numpy_does(dtype, dim, large_map, rng):
    """On a grid, where sums in float64 are exact; elsewhere within what a sum may be off."""
    for width in (1, 3, 8, 16, 21, 130):
        stage = dispatch.prepare(rvq_np.Codebooks([projected(rng, 2, width, dim)]), dtype)[0]
        rows = grid(rng, 9, dim).astype(dtype)
        np.testing.assert_array_equal(compiled.project(rows, stage), plain.project(rows, stage))
        weight, bias = rng.standard_normal((width, dim)), rng.standard_normal(width)
        stage = replace(stage, into=tables.Map(weight.astype(dtype), bias.astype(dtype)))
        rows = rng.standard_normal((9, dim)).astype(dtype)
        size = np.abs(rows) @ np.abs(stage.weight_in) + np.abs(stage.bias_in)
        off = 2 * (dim + 2) * 2.0**-53 * size
        if large_map:  # one sum in the type of the rows, see `regret`
            off = (dim + 1) * np.finfo(dtype).eps * size
        ours, theirs = compiled.project(rows, stage), plain.project(rows, stage)
        rounding = np.finfo(dtype).eps * np.abs(theirs)
        assert (np.abs(ours.astype(float) - theirs) <= off + rounding).all()


LANES = processor.LANES
COLUMNS = sorted({1, 7, LANES, LANES + 1, IN_PANEL - 1, IN_PANEL, IN_PANEL + 1, 3 * IN_PANEL + 5})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kept", [np.float32, np.float64])
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.usefixtures("large_map")
def test_maps_are_numpys_on_a_grid(dtype, kept, columns, rng):
    """Where sums are exact; nothing beside the outputs is written."""
    linear = tables.Map(grid(rng, columns, 33).astype(kept), grid(rng, columns).astype(kept))
    for count in range(1, 2 * maps.ROWS + 2):
        rows = grid(rng, count, 33).astype(dtype)
        expected = plain.transform(rows, linear)
        np.testing.assert_array_equal(compiled.transform(rows, linear), expected)
        out, untouched = filled(dtype, count, columns)
        maps.transform(rows, maps.panels_of(linear, dtype), out, 0, count)
        np.testing.assert_array_equal(out, expected)
        assert untouched()
    wide = compiled.transform(rows.astype(np.float64), linear, np.float32)
    np.testing.assert_array_equal(wide, expected)
    assert wide.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", [1, 2, 33, 300])
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.usefixtures("large_map")
def test_a_mapped_row_does_not_depend_on_the_rows_or_columns_beside(dtype, dim, columns, rng):
    """Bit for bit: alone, among few or many, whichever panel a column falls into."""
    weight, bias = rng.standard_normal((columns, dim)), rng.standard_normal(columns)
    linear = tables.Map(weight.astype(dtype), bias.astype(dtype))
    rows = rng.standard_normal((3 * maps.ROWS + maps.FEW, dim)).astype(dtype)
    whole = compiled.transform(rows, linear)
    for count in range(1, maps.ROWS + 2):
        for start in (0, 1, len(rows) - count):
            some = compiled.transform(rows[start : start + count].copy(), linear)
            np.testing.assert_array_equal(some, whole[start : start + count])
    last = tables.Map(weight[-1:].astype(dtype), bias[-1:].astype(dtype))
    np.testing.assert_array_equal(compiled.transform(rows, last)[:, 0], whole[:, -1])


def test_a_map_is_summed_in_the_order_of_the_dimensions(large_map):
    """2^24 + 1 - 2^24 is 0 in float32 if added in turn: the order is part of the answer."""
    linear = tables.Map(np.float32([[2.0**24, 1.0, -(2.0**24)]] * 5), np.zeros(5, np.float32))
    rows = np.ones((maps.ROWS, 3), np.float32)
    np.testing.assert_array_equal(compiled.transform(rows, linear), 0 if large_map else 1)
    np.testing.assert_array_equal(compiled.transform(rows[:1], linear), 0 if large_map else 1)
    np.testing.assert_array_equal(compiled.transform(rows.astype(np.float64), linear), 1)


@pytest.mark.usefixtures("large_map")
def test_a_weight_beyond_float32_makes_no_nan_of_zeros():
    linear = tables.Map(np.float64([[1e300]]), np.float64([3.0]))
    np.testing.assert_array_equal(compiled.transform(np.zeros((2, 1), np.float32), linear), 3)


def test_a_beam_over_projections_does_not_depend_on_the_rows_beside(rng):
    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    def maps():
        return rvq_np.Linear(normal(5, 40), normal(5)), rvq_np.Linear(normal(40, 5), normal(40))

    books = rvq_np.Codebooks([rvq_np.Stage(normal(30, 5), *maps()) for _ in range(3)])
    x = normal(50, 40)
    kept = []
    project = compiled.project

    def watched(rows, stage):
        kept.append((rows.copy(), project(rows, stage)))
        return kept[-1][1]

    with paths.patched((compiled, "project", watched)):
        whole = rvq_np.encode(x, books, beam_size=4)
    assert len(kept) == 3
    stages = dispatch.prepare(books, np.float32)
    for (rows, mapped), stage in zip(kept, stages, strict=True):
        for n in (0, 3, 49):
            np.testing.assert_array_equal(mapped[n : n + 1], project(rows[n : n + 1], stage))
    for n in range(len(x)):
        np.testing.assert_array_equal(
            rvq_np.encode(x[n : n + 1], books, beam_size=4)[:, 0], whole[:, n]
        )


# Other processors


@pytest.mark.parametrize(
    ("triple", "features", "target"),
    [
        ("aarch64-unknown-linux-gnu", "+neon", processor.Target(4, 4, ("float32",), True)),
        ("arm64-apple-darwin23", "", processor.Target(4, 4, ("float32",), True)),
        (
            "x86_64-unknown-linux-gnu",
            "+sse2,+avx2,+fma,+avx512f,+avx512bw,+avx512vl,+avx512vnni",
            processor.Target(16, 4, ("uint8", "int16", "float32"), True),
        ),
        (
            "x86_64-unknown-linux-gnu",
            "+sse2,+avx2,+fma,+avx512f,+avx512bw,+avx512vl,-avx512vnni",
            processor.Target(16, 4, ("int16", "float32"), True),
        ),
        (
            "x86_64-pc-windows-msvc",
            "+sse2,+avx2,+fma,+avx512f,-avx512bw,+avx512vl",
            processor.Target(8, 2, ("int16", "float32"), True),
        ),
        (
            "x86_64-apple-darwin",
            "+avx,+avx2,-fma,+sse2",
            processor.Target(4, 2, ("int16", "float32"), False),
        ),
        (
            "x86_64-unknown-linux-gnu",
            "+64bit,+sse2",
            processor.Target(4, 2, ("int16", "float32"), False),
        ),
        ("riscv64-unknown-linux-gnu", "+m,+v", processor.Target(4, 2, ("float32",), False)),
        ("x86_64-unknown-linux-gnu", "", processor.Target(4, 2, ("float32",), False)),
    ],
)
def test_the_shape_of_the_kernels_follows_the_processor(triple, features, target):
    assert processor.target_of(triple, features) == target


# What a processor is taken for, the triple if it is another than this one's, and the shape.
PROCESSORS = {
    "AVX2": (
        "haswell",
        "+avx,+avx2,+fma,+bmi,+bmi2,+f16c,+sse2,+sse4.1,+sse4.2,+ssse3,+popcnt",
        None,
        processor.Target(8, 2, ("int16", "float32"), True),
    ),
    "SSE2": (
        "nehalem",
        "+cx16,+sse,+sse2,+sse3,+sse4.1,+sse4.2,+ssse3,+popcnt",
        None,
        processor.Target(4, 2, ("int16", "float32"), False),
    ),
    "unknown": ("generic", "", None, processor.Target(4, 2, ("float32",), False)),
    "NEON": (None, None, "aarch64-unknown-linux-gnu", processor.Target(4, 4, ("float32",), True)),
}
ON_X86 = platform.machine().lower() in ("x86_64", "amd64")
SELECTED = [
    *(f"test_backends.py::{name}" for name in ("TestNumba", "TestNumbaFloat64")),
    "test_kernels.py::test_no_bound_is_above_the_score",
    "test_kernels.py::test_no_bound_is_above_the_score_of_float64",
    "test_kernels.py::test_no_bound_is_above_the_score_at_the_largest_sizes",
    "test_kernels.py::test_any_number_of_rows_gives_the_same_codes",
    "test_kernels.py::test_panels_met_a_run_at_a_time_give_the_same_codes",
]
AS_ANOTHER = """
import contextlib, sys
from unittest import mock
from numba.core.registry import cpu_target

taken_for = contextlib.nullcontext()
if {triple!r}:
    codegen = type(cpu_target.target_context.codegen())
    taken_for = mock.patch.object(codegen, "magic_tuple", lambda self: ({triple!r}, "", ""))
with taken_for:
    from rvq_np.kernels.compiled import target
assert tuple(target.TARGET) == {target!r}, target.TARGET

{more}

class Fewer:
    def pytest_configure(self):
        from hypothesis import settings
        settings.register_profile("few", settings.get_profile("rvq_np"), max_examples=15)
        settings.load_profile("few")

import pytest
sys.exit(pytest.main({arguments!r}, [Fewer()]))
"""


def run_as(processor, arguments=(), more=""):
    """Run tests, and before them some code, in a process that takes its processor for another."""
    name, features, triple, target = PROCESSORS[processor]
    here = Path(__file__).parent
    reported = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features} if name else {}
    code = AS_ANOTHER.format(
        triple=triple, target=tuple(target), more=more,
        arguments=[*(str(here / each) for each in arguments), "-q", "-x", "-p", "no:cacheprovider"],
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, cwd=here.parent, env={**os.environ, **reported},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS if ON_X86 else ["NEON"])
def test_other_processors_give_the_same_codes(processor, tmp_path, monkeypatch):
    """NEON's shape runs here, too: LLVM lowers its vectors of four for any processor."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    selected = SELECTED
    if len(PROCESSORS[processor][3].screens) > 1:
        selected = [
            *selected,
            "test_backends.py::TestFloat32",
            "test_backends.py::TestFloat32Float64",
        ]
    assert " passed in " in run_as(processor, selected)


def show_code_for_arm():
    """Print what LLVM makes of a float32 screen for another processor than this one."""
    screened(np.ones((1, 3), np.float32), np.ones((1, 3), np.float32), "float32")
    fresh = jit.kernel(inner=True)(_bound.py_func)  # without reference counts: they are x86 code
    fresh.compile(_bound.signatures[-1])
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    triple = "aarch64-unknown-linux-gnu"
    machine = binding.Target.from_triple(triple).create_target_machine(features="+neon")
    lines = fresh.inspect_llvm(fresh.signatures[0]).splitlines()
    module = binding.parse_assembly("\n".join(each for each in lines if each[:7] != "target "))
    module.triple, module.data_layout = triple, str(machine.target_data)
    module.verify()
    print(machine.emit_assembly(module))


@pytest.mark.slow
def test_the_float32_kernels_compile_for_arm():
    """In a process of its own: LLVM ends the one in which it meets code it cannot translate."""
    more = f"sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport test_kernels\n"
    made = run_as("NEON", more=more + "test_kernels.show_code_for_arm()\nsys.exit()")
    assert len(re.findall(r"\bfmla\s+v\d+\.4s", made)) >= search.ROWS * 4


def test_a_call_does_not_wait_for_threads_that_another_keeps_busy():
    """What it asked of them and they have not begun, it has done itself."""
    busy, done = threading.Event(), threading.Event()
    with paths.threads(2):
        holding = tiles._pool(1).submit(lambda: (busy.set(), done.wait(60)))
        assert busy.wait(60)
        try:
            asked = ThreadPoolExecutor(1)
            found = asked.submit(tiles.spread, lambda item: 2 * item, range(5)).result(timeout=30)
        finally:
            done.set()
            holding.result()
            asked.shutdown()
    assert found == [0, 2, 4, 6, 8]
