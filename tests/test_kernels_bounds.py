"""No screen's bound is above the score, and codes where all but coincides are the definition's."""

import math
from fractions import Fraction

import numpy as np
import pytest
from helpers import paths
from helpers.kernel_cases import EACH_SCREEN, IN_PANEL, screened, stage_of
from hypothesis import given
from hypothesis import strategies as st

import rvq_np
from rvq_np.kernels import tables
from rvq_np.kernels.compiled import differences, jit, packing
from rvq_np.kernels.compiled import engine as compiled
from rvq_np.kernels.compiled import exact as settle
from rvq_np.kernels.compiled import rows as row_kernels
from rvq_np.kernels.plain import exact
from rvq_np.testing import oracle, strategies

U = 2.0**-24
BY_PANEL = st.sampled_from([1, 2, 7, *(n * IN_PANEL + more for n in (1, 2) for more in (-1, 0, 1))])


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
            if screen == "int8":  # a run of eight numbers, or all of a few, fits 16 bits
                half = math.sqrt(width) / 2 / (row_kernels.SUM / min(width, 15))
            ratio = max(said.ratio, U)
            derived = half + (1 + half) * (ratio + 8 * U * (1 + ratio)) + 8 * U
        distant = said.heaviest if said.powers[i] < 1 else 0
        assert said.slack[i] <= 1.001 * derived * norm + distant


@st.composite
def sharing(draw, counts=BY_PANEL, most=24, dtype=np.float32):
    """Draw rows and codewords that share an offset, or lie within 1e-4 of each other, or both.

    Rows may share it or not, and some be codewords, or in the middle of two.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim, count = draw(st.integers(1, most)), draw(counts)
    offset, reach = draw(st.sampled_from([(0, 1e-4), (1000, 1), (1000, 1e-4), (-1000, 30)]))
    point = offset + rng.standard_normal(dim)
    codewords = (point + reach * rng.standard_normal((count, dim))).astype(dtype)
    origin = draw(st.sampled_from([point, 0 * point]))
    x = (origin + reach * rng.standard_normal((6, dim))).astype(dtype)
    pairs = codewords[rng.integers(count, size=(2, 3))]
    x[1] = pairs[0, 0]
    x[2:4] = (pairs[0, :2] + pairs[1, :2]) / 2
    return x, codewords[None]


def cases(dtype):
    return st.one_of(
        sharing(dtype=dtype),
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
    assert left < {"uint8": 2.5, "int8": 3.5, "int16": 1.02, "float32": 1.001}[screen]


@EACH_SCREEN
@pytest.mark.parametrize(("offset", "reach"), [(0.0, 1e-4), (1000.0, 1.0), (-1000.0, 1e-2)])
def test_a_screen_leaves_few_codewords_of_those_that_share_much(screen, offset, reach, rng):
    """What they share is taken away before anything is rounded to few bits."""
    point = offset + rng.standard_normal(64)
    x, codewords = (
        (point + reach * rng.standard_normal((n, 64))).astype(np.float32) for n in (200, 500)
    )
    said = screened(x, codewords, screen)
    wide, rows = codewords - point, x - point
    scores = (np.square(wide).sum(axis=1) / 2 - rows @ wide.T) * said.unit**2
    scores += (said.bounds - scores).max(axis=1, keepdims=True)  # from where they are seen
    left = (said.bounds <= scores.min(axis=1, keepdims=True)).sum(axis=1).mean()
    assert left < {"uint8": 2.5, "int8": 3.5, "int16": 1.05, "float32": 1.05}[screen]


@EACH_SCREEN
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(st.data())
def test_codes_of_codewords_that_share_much_are_those_of_the_definition(screen, dtype, data):
    x, books = data.draw(sharing(counts=st.integers(2, 7), most=6, dtype=dtype))
    with paths.screen(screen)():
        codes = rvq_np.encode(x, books)
    kind = np.dtype(dtype).name
    expected = np.transpose([oracle.encode(row, books.tolist(), kind) for row in x.tolist()])
    np.testing.assert_array_equal(codes, expected)


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
