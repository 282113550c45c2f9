"""What training adds up is never rounded until the end: no split, order or thread shows in it.

`math.fsum` is the judge: it gives the exact sum, rounded once.
"""

import math
import pickle

import numpy as np
import pytest
from helpers import paths
from hypothesis import given
from hypothesis import strategies as st

import rvq_np
from rvq_np import codec, train
from rvq_np.codec import ExactSum
from rvq_np.kernels import steps
from rvq_np.kernels.totals import NOTHING, Extent, grids
from rvq_np.train.kmeans import lloyd

FLOATS = {
    np.float32: st.floats(-(2.0**60), 2.0**60, width=32),
    np.float64: st.floats(-1e150, 1e150),
}


def sums_of(rows, codes, size):
    """Return the exact sums, rounded once (K, C)."""
    return np.array(
        [[math.fsum(column) for column in rows[codes == k].T.astype(float)] for k in range(size)]
    )


@st.composite
def batches(draw):
    """Rows and their codes: numbers of one size, or of any."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    count, width, size = draw(st.integers(1, 12)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    if draw(st.booleans()):
        seed = draw(st.integers(0, 2**32 - 1))
        rows = np.random.default_rng(seed).standard_normal((count, width))
    else:
        flat = draw(st.lists(FLOATS[dtype], min_size=count * width, max_size=count * width))
        rows = np.array(flat).reshape(count, width)
    codes = draw(st.lists(st.integers(0, size - 1), min_size=count, max_size=count))
    return rows.astype(dtype), np.array(codes, np.int32), size


@pytest.mark.parametrize("numba", [True, False])
@given(batch=batches())
def test_sums_are_exact_and_rounded_once(numba, batch):
    rows, codes, size = batch
    with paths.inside_of(numba):
        counts, sums = codec.tally(rows, codes[None], np.zeros((1, size, rows.shape[1])))
    np.testing.assert_array_equal(counts[0], np.bincount(codes, minlength=size))
    np.testing.assert_array_equal(sums[0], sums_of(rows, codes, size))


@given(batch=batches(), data=st.data())
def test_any_partition_and_any_order_of_merging_give_the_same_bits(batch, data):
    rows, codes, size = batch
    books = np.zeros((1, size, rows.shape[1]))
    order = np.array(data.draw(st.permutations(range(len(rows)))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    waiting = []
    for places in np.split(order, cuts):
        counts, sums = codec.tally(rows[places], codes[None, places], books, exact=True)
        waiting.append((counts[0], pickle.loads(pickle.dumps(sums[0]))))
    while len(waiting) > 1:
        counts, sums = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
        other = data.draw(st.integers(0, len(waiting) - 1))
        more, others = waiting[other]
        waiting[other] = more + counts, others + sums
    counts, sums = waiting[0]
    np.testing.assert_array_equal(counts, np.bincount(codes, minlength=size))
    np.testing.assert_array_equal(np.asarray(sums), sums_of(rows, codes, size))


def test_the_sum_of_many_rows_is_not_rounded_on_any_grid(rng):
    """All of one sign and with all bits there are, so that sums need as many bits as can be."""
    x = 1 + rng.random((5000, 4))
    sums = codec.tally(x, np.zeros((1, len(x)), np.int32), np.zeros((1, 1, 4)))[1]
    np.testing.assert_array_equal(sums[0], sums_of(x, np.zeros(len(x)), 1))


@pytest.mark.parametrize("whole", [True, False])
def test_residuals_of_all_stages_are_added_up_exactly(whole, rng):
    """Where residuals are not looked at, but bounded by vectors and codewords, which are finer."""
    x = (rng.standard_normal((300, 5)) * 2.0 ** rng.integers(-20, 20, (300, 5))).astype(np.float32)
    books = (rng.standard_normal((3, 8, 5)) * 2.0 ** rng.integers(-9, 9, (3, 8, 5))).astype("f4")
    if whole:
        x, books = rng.integers(-9, 10, x.shape).astype(np.float32), books * np.float32(2.0**-25)
    codes, left = rvq_np.encode(x, books), x
    with paths.tiny_tiles():
        sums = codec.tally(x, codes, books)[1]
    for q in range(3):
        np.testing.assert_array_equal(sums[q], sums_of(left, codes[q], 8))
        left = left - books[q][codes[q]]


@pytest.mark.parametrize("numba", [True, False])
def test_sums_that_follow_moving_rows_are_those_of_all_rows(numba, rng):
    x = (rng.standard_normal((400, 6)) * 10.0 ** rng.integers(-8, 8, (400, 1))).astype(np.float32)
    codes = rng.integers(0, 9, len(x)).astype(np.int32)
    with paths.inside_of(numba):
        assigned = steps.Assigned(x)
        for moved in (len(x), 0, 1, 40, 399, 7, len(x)):
            places = rng.choice(len(x), moved, replace=False)
            codes[places] = rng.integers(0, 9, moved)
            counts, sums = assigned.again(codes, 9)
            np.testing.assert_array_equal(counts, np.bincount(codes, minlength=9))
            np.testing.assert_array_equal(sums.rounded(), sums_of(x, codes, 9))


def test_kmeans_depends_on_neither_the_order_of_the_rows_nor_their_batches(rng):
    x = (rng.standard_normal((900, 6)) * 10.0 ** rng.integers(-3, 4, (900, 6))).astype(np.float32)
    start = x[:16].copy()
    expected = lloyd([x], start, 12)
    turned = x[rng.permutation(len(x))]
    for parts in ([turned], [turned[:1], turned[1:300], turned[300:]]):
        for found in (lloyd(parts, start, 12), lloyd(lambda parts=parts: parts, start, 12)):
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_a_training_step_depends_on_neither_the_order_of_the_rows_nor_their_batches(rng):
    x = rng.standard_normal((300, 6)).astype(np.float32)
    rvq = rvq_np.ResidualVectorQuantizer(
        6, 6, 3, 16, decay=0.9, kmeans_init=False, threshold_ema_dead_code=0, rng=0
    ).train()
    states, books = rvq._states, rvq.codebooks
    order = rng.permutation(len(x))

    def moved(parts):
        found = [codec.tally(part, rvq_np.encode(part, books), books, exact=True) for part in parts]
        counts = [sum(each[0][q] for each in found) for q in range(3)]
        sums = []
        for q in range(3):
            total = found[0][1][q]
            for each in found[1:]:
                total = total + each[1][q]
            sums.append(total)
        return train.step(states, counts, sums, lambda stage, n: x[:n], decay=0.9, threshold=0)

    expected = moved([x])
    rvq(x, 50)
    for mine, yours, its in zip(expected, moved(np.array_split(x[order], 7)), rvq._states,
                                strict=True):  # fmt: skip
        assert mine == yours
        np.testing.assert_array_equal(mine.sums, its.sums)


def test_two_grids_serve_floats_of_usual_data_and_one_whole_numbers():
    """More grids cost time: what a training step and k-means take is measured with two."""
    usual = Extent(3, -48)  # of normal numbers, from 2**3 down to 2**-24
    assert len(grids(usual, 1 << 18)) == 2
    assert len(grids(Extent(8, 0), 1 << 20)) == 1
    assert len(grids(NOTHING, 5)) == 1


def test_sums_of_other_things_are_not_added():
    with pytest.raises(TypeError):
        ExactSum.zeros(NOTHING, 0, (2, 2)) + np.zeros((2, 2))
    assert repr(ExactSum.zeros(NOTHING, 7, (2, 3))) == "ExactSum(7 rows, (2, 3))"


def test_numbers_near_the_end_of_float64_are_added_up_as_they_come():
    x = np.array([[1e300], [2e300], [-1e300]])
    sums = codec.tally(x, np.zeros((1, 3), np.int32), np.zeros((1, 1, 1)))[1]
    np.testing.assert_allclose(sums[0], [[2e300]], rtol=1e-15)
