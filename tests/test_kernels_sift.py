"""What float32 rules out in a tight group of codewords is not the nearest, and it is nearly all."""

import numpy as np
import pytest
from helpers import paths
from helpers.kernel_cases import EACH_SCREEN
from hypothesis import given
from hypothesis import strategies as st

import rvq_np
from rvq_np.kernels.compiled import jit, sift
from rvq_np.testing import oracle, strategies

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@jit.kernel
def _sift(rows, first, codewords, width, found, count, rest):
    return sift.sift(rows, 0, first, codewords, 0, width, found, count, rest)


def left_of(row, codewords, first):
    """Return the codewords that are left of all, seen from the codeword `first`."""
    count, width = codewords.shape
    found = np.arange(-(-count // 4) * 4, dtype=np.int32)
    rest = np.full(width + 2 * len(found), np.nan, np.float32)
    left = _sift(row.copy(), first, codewords.ravel(), width, found, count, rest)
    return found[:left].tolist()


def nearest_of(row, codewords):
    """Return all codewords that are nearest, ascending, in exact arithmetic."""
    places = 149 if codewords.dtype == np.float32 else 1074

    def whole(array):
        pairs = [number.as_integer_ratio() for number in array.ravel().tolist()]
        numbers = [(n << places) // d for n, d in pairs]
        return np.array(numbers, dtype=object).reshape(array.shape)

    apart = whole(codewords) - whole(row)
    exact = (apart * apart).sum(axis=1)
    return np.flatnonzero(exact == exact.min()).tolist()


@st.composite
def grouped(draw, dtype=np.float32, most=24):
    """Draw a row (1, D) and codewords (1, K, D) in one or two tight groups, some with equal
    distances: permutations of the same whole steps, seen from a row whose numbers are all equal.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim, count = draw(st.sampled_from([1, 2, 5, 8, 17, 33])), draw(st.integers(4, most))
    value = float(draw(st.sampled_from([0, 1, 37, 1000])))
    step = 2.0 ** -draw(st.sampled_from([0, 6, 12]))
    own = rng.integers(-9, 10, dim) if draw(st.booleans()) else rng.standard_normal(dim)
    steps = np.stack([rng.permutation(own) for _ in range(count)])
    if draw(st.booleans()):
        steps[::2] = rng.standard_normal(steps[::2].shape)
    away = draw(st.sampled_from([0, 1, 8]))  # of the row
    codewords = value + step * steps
    codewords[draw(st.integers(1, count)) :] += 4.0  # another group
    codewords = codewords.astype(dtype)
    towards = dtype(draw(st.sampled_from([-np.inf, np.inf])))
    for k in rng.integers(count, size=draw(st.integers(0, 3))):
        codewords[k, 0] = np.nextafter(codewords[k, 0], towards)
    exponents = [0, 0, -130, 100] if dtype == np.float32 else [0, 0, -160, -1000, 900]
    scale = dtype(2.0 ** draw(st.sampled_from(exponents)))
    return np.full((1, dim), dtype(value + away)) * scale, codewords[None] * scale


@DTYPES
@given(st.data())
def test_a_codeword_that_is_ruled_out_is_not_the_nearest(dtype, data):
    x, books = data.draw(
        st.one_of(grouped(dtype), strategies.near_ties(max_codewords=16, dtype=dtype))
    )
    first = data.draw(st.integers(0, books.shape[1] - 1))
    with np.errstate(over="ignore"):
        left = left_of(x[:1], books[0], first)
    assert left == sorted(set(left))
    assert set(left) >= set(nearest_of(x[0], books[0]))


@DTYPES
@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("dim", [3, 16, 100, 128])
def test_all_but_one_are_ruled_out_in_a_tight_group(offset, dim, dtype):
    rng = np.random.default_rng(0)
    middle = offset + rng.standard_normal(dim)
    codewords = (middle + 1e-4 * rng.standard_normal((200, dim))).astype(dtype)
    counts = []
    for row in (middle + rng.standard_normal((15, dim))).astype(dtype):
        left = left_of(row[None], codewords, int(rng.integers(200)))
        assert set(nearest_of(row, codewords)) <= set(left)
        counts.append(len(left))
    assert np.mean(counts) < 1.5


@DTYPES
@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1.0, 1e17, 1e30])
def test_nothing_is_ruled_out_where_float32_says_nothing(scale, dtype):
    """Where squares underflow, or leave float32, or rows do."""
    rng = np.random.default_rng(0)
    codewords = (scale * rng.standard_normal((9, 5))).astype(dtype)
    for row in (scale * rng.standard_normal((20, 5))).astype(dtype):
        left = left_of(row[None], codewords, 3)
        assert set(left) >= set(nearest_of(row, codewords))
        if scale in (1e-30, 1e30):
            assert left == list(range(9))


@EACH_SCREEN
@pytest.mark.parametrize(
    "dtype",
    [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)],
    ids=["float32", "float64"],
)
@given(st.data())
def test_codes_in_tight_groups_are_those_of_the_definition(screen, dtype, data):
    x, books = data.draw(grouped(dtype, most=16))
    with paths.screen(screen)():
        codes = rvq_np.encode(x, books)
    assert codes.T.tolist() == [oracle.encode(x[0].tolist(), books.tolist(), np.dtype(dtype).name)]


@EACH_SCREEN
@pytest.mark.parametrize("size", [3, 4, 5, 8, 64, 200])
def test_codes_of_groups_of_any_size_are_those_of_float64_differences(screen, size):
    rng = np.random.default_rng(size)
    groups = rng.standard_normal((400 // size + 1, 32))
    codewords = groups[rng.permutation(400) // size] + 1e-4 * rng.standard_normal((400, 32))
    codewords = codewords.astype(np.float32)
    x = rng.standard_normal((50, 32)).astype(np.float32)
    x[25:] = codewords[rng.integers(400, size=25)] + np.float32(1e-4) * x[25:]
    with paths.screen(screen)():
        codes = rvq_np.encode(x, codewords[None])[0]
    apart = x[:, None].astype(float) - codewords
    distances = np.square(apart).sum(axis=2)
    assert (distances[np.arange(50), codes] <= distances.min(axis=1) * (1 + 1e-12)).all()
