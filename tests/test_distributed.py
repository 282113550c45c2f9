"""Several processes that train one quantizer: as many threads here, each with a quantizer."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rvq_np
from rvq_np.errors import ParameterError
from rvq_np.train import AllReduce

RATE = 50


class Ranks:
    """Adds up what all threads bring, and counts how often each came."""

    def __init__(self, size):
        self.size, self.calls = size, [0] * size
        self._brought = [None] * size
        self._barrier = threading.Barrier(size, timeout=300)

    def hook(self, rank):
        def add_up(buffer):
            assert buffer.dtype == np.float64
            assert buffer.ndim == 1
            assert buffer.flags.c_contiguous
            self.calls[rank] += 1
            self._brought[rank] = buffer.copy()
            self._barrier.wait()
            total = sum(self._brought)  # in the same order everywhere
            self._barrier.wait()
            buffer[:] = -1  # the hook may write in what it is given
            return total

        return AllReduce(add_up, rank, self.size)

    def run(self, work):
        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(work, range(self.size)))


def quantizer(**arguments):
    arguments = {"codebook_dim": 6, "n_q": 3, "bins": 8, "rng": 0, **arguments}
    return rvq_np.ResidualVectorQuantizer(6, **arguments)


def together(batches, size, **arguments):
    """Return the quantizers of all ranks after training on ``batches[step][rank]``."""
    ranks = Ranks(size)

    def work(rank):
        # Only the first rank's random numbers may count.
        rvq = quantizer(**arguments)
        rvq.all_reduce = ranks.hook(rank)
        rvq._rng = np.random.default_rng(7 if rank == 0 else 1000 + rank)
        for step in batches:
            rvq(step[rank], RATE)
        return rvq

    made = ranks.run(work)
    assert len(set(ranks.calls)) == 1
    return made, ranks.calls[0]


def alone(batches, **arguments):
    rvq = quantizer(**arguments)
    rvq._rng = np.random.default_rng(7)
    for step in batches:
        rvq(np.concatenate(step), RATE)
    return rvq


def lattice(rng, *shape):
    """Whole numbers: their sums are exact in any order, so all must agree bit for bit."""
    return rng.integers(-9, 10, shape).astype(np.float32)


def assert_same(ours, theirs):
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[name], value, err_msg=name)


@pytest.mark.parametrize("sizes", [(40, 40), (50, 3), (30, 0, 41), (0, 60)])
@pytest.mark.parametrize("codebook_dim", [6, 4])
def test_ranks_end_where_one_ends_with_all_the_rows(sizes, codebook_dim, rng):
    """k-means, moving averages and replacements: one stage, so that sums stay exact."""
    batches = [[lattice(rng, n, 6) for n in sizes] for _ in range(4)]
    arguments = {"codebook_dim": codebook_dim, "n_q": 1, "decay": 0.5}
    arguments["threshold_ema_dead_code"] = 8
    expected = alone(batches, **arguments)
    untouched = alone(batches, **{**arguments, "threshold_ema_dead_code": 0})
    assert (expected.codebooks.stages[0].codebook != untouched.codebooks.stages[0].codebook).any()
    made, _ = together(batches, len(sizes), **arguments)
    for each in made:
        if codebook_dim == 6:
            assert_same(each, expected)
        else:  # a projection leaves no whole numbers
            for name, value in expected.state_dict().items():
                np.testing.assert_allclose(each.state_dict()[name], value, rtol=1e-5, atol=1e-6)
        assert_same(each, made[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("codebook_dim", [6, 4])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_real_numbers_end_in_the_bits_of_one_process(size, codebook_dim, dtype, rng):
    """Of very different sizes, so that any sum in floating point shows how it was split."""
    rows = rng.standard_normal((5, 120, 6)) * 10.0 ** rng.integers(-6, 3, (5, 120, 6))
    batches = [np.array_split(step, size) for step in rows.astype(dtype)]
    arguments = {"codebook_dim": codebook_dim, "decay": 0.5, "threshold_ema_dead_code": 8}
    expected = alone(batches, **arguments)
    made, _ = together(batches, size, **arguments)
    for each in made:
        assert_same(each, expected)


def test_processes_whose_numbers_have_no_size_in_common_agree_on_grids(rng):
    """One has numbers around 1e-20, one around 1e20, one nothing but zeros, one no rows."""
    scales = (1e-20, 1e20, 0.0)
    batches = [
        [*(s * rng.standard_normal((30, 6)) for s in scales), np.empty((0, 6))] for _ in range(3)
    ]
    batches = [[part.astype(np.float32) for part in step] for step in batches]
    expected = alone(batches)
    made, _ = together(batches, 4)
    for each in made:
        assert_same(each, expected)


def test_masked_rows_take_part_in_nothing(rng):
    x, ranks = lattice(rng, 2, 6, 30), Ranks(2)
    mask = rng.random((2, 30)) < 0.6
    poisoned = np.where(mask[:, None], x, 1e6).astype(np.float32)

    def work(rank):
        rvq = quantizer(n_q=1)
        rvq.all_reduce, rvq._rng = ranks.hook(rank), np.random.default_rng(7)
        rvq(poisoned[rank : rank + 1], RATE, mask=mask[rank : rank + 1])
        return rvq

    first, second = ranks.run(work)
    rows = np.moveaxis(x, 1, 2)[mask]
    assert_same(first, alone([[rows]], n_q=1))
    assert_same(second, first)


def test_dropout_draws_for_each_rank_its_own_and_keeps_the_codewords_common(rng):
    x, ranks = rng.standard_normal((64, 6)).astype(np.float32), Ranks(2)

    def work(rank):
        rvq = quantizer(quantizer_dropout=True)
        rvq.all_reduce, rvq._rng = ranks.hook(rank), np.random.default_rng(7)
        return rvq, rvq(x, RATE).bandwidth

    (first, ours), (second, theirs) = ranks.run(work)
    assert_same(first, second)
    assert (ours != theirs).any()


def test_a_step_asks_for_three_sums_and_one_for_each_stage_that_replaces(rng):
    batches = [[lattice(rng, 40, 6) for _ in range(2)] for _ in range(3)]
    _, calls = together(batches, 2, kmeans_init=False, threshold_ema_dead_code=0)
    assert calls == 3 * 3
    _, calls = together(batches[:1], 2, kmeans_init=True, threshold_ema_dead_code=0)
    assert calls == 4
    _, calls = together(batches[:1], 2, kmeans_init=False, threshold_ema_dead_code=39)
    assert calls == 3 + 3


@pytest.mark.parametrize(("rank", "size"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_that_is_none_is_refused(rank, size):
    with pytest.raises(ParameterError, match="rank from 0 to size - 1"):
        AllReduce(lambda buffer: buffer, rank, size)


def test_a_hook_that_returns_something_else_is_refused_and_nothing_changes(rng):
    rvq = quantizer(all_reduce=AllReduce(lambda buffer: buffer[:1], 0, 2))
    before = rvq.state_dict()
    with pytest.raises(ParameterError, match="of the same shape"):
        rvq(rng.standard_normal((20, 6)).astype(np.float32), RATE)
    for name, value in before.items():
        np.testing.assert_array_equal(rvq.state_dict()[name], value)
