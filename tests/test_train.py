"""Training functions against the formulas written out, and the defects of others."""

import pickle
import warnings
from importlib import import_module
from itertools import pairwise

import numpy as np
import pytest
from helpers import paths
from hypothesis import given
from hypothesis import strategies as st

from rvq_np import ResidualVectorQuantizer, codec, train
from rvq_np.errors import (
    DtypeError,
    FewVectorsWarning,
    NonFiniteError,
    ParameterError,
    ShapeError,
)
from rvq_np.train import CodebookState
from rvq_np.train.kmeans import lloyd
from rvq_np.train.state import random_projections, random_state


def state(codewords, sums, counts):
    return CodebookState(np.float32(codewords), np.float32(sums), np.float32(counts), True)


def test_a_state_is_frozen_float32_and_keeps_no_array_of_the_callers():
    codewords = np.ones((2, 3))
    made = CodebookState(codewords, codewords, np.ones(2), True)
    codewords[:] = 5
    assert made.codebook.dtype == made.sums.dtype == made.counts.dtype == np.float32
    np.testing.assert_array_equal(made.codebook, 1)
    with pytest.raises(ValueError, match="read-only"):
        made.counts[0] = 3


def test_moving_averages_are_the_formula():
    rng = np.random.default_rng(0)
    old = state(rng.standard_normal((5, 3)), rng.standard_normal((5, 3)), [3, 4, 5, 6, 7])
    counts, sums = np.array([0.0, 2, 1, 9, 4]), rng.standard_normal((5, 3))
    decay, epsilon = 0.9, 1e-3
    new = train.ema(old, counts, sums, decay, epsilon)
    expected_counts = [decay * a + (1 - decay) * b for a, b in zip(old.counts, counts, strict=True)]
    np.testing.assert_allclose(new.counts, expected_counts, rtol=1e-6)
    expected_sums = decay * old.sums + (1 - decay) * sums
    np.testing.assert_allclose(new.sums, expected_sums, rtol=1e-5)
    total = sum(expected_counts)
    for k, count in enumerate(expected_counts):
        smooth = (count + epsilon) / (total + 5 * epsilon) * total
        np.testing.assert_allclose(new.codebook[k], expected_sums[k] / smooth, rtol=1e-5)
    assert new.initialized


@given(st.floats(0, 1))
def test_decay_is_the_share_of_the_past(decay):
    old = state([[2.0]], [[20.0]], [10])
    new = train.ema(old, np.array([30.0]), np.array([[120.0]]), decay)
    assert new.counts[0] == pytest.approx(10 * decay + 30 * (1 - decay))
    assert new.sums[0, 0] == pytest.approx(20 * decay + 120 * (1 - decay))


def test_a_codeword_with_no_count_does_not_explode():
    """A state without k-means starts at count 0 elsewhere: 2.1 becomes 190 000 in one step."""
    codewords = np.random.default_rng(0).standard_normal((8, 4))
    old = state(codewords, codewords, np.zeros(8))
    counts, sums = np.zeros(8), np.zeros((8, 4))
    counts[3], sums[3] = 10, 10 * np.arange(4)
    new = train.ema(old, counts, sums, 0.99)
    np.testing.assert_array_equal(
        new.codebook[[0, 1, 2, 4, 5, 6, 7]], old.codebook[[0, 1, 2, 4, 5, 6, 7]]
    )
    np.testing.assert_allclose(new.codebook[3], np.arange(4), rtol=1e-3)


def test_a_codeword_idle_for_long_does_not_shrink_to_zero():
    old = state(np.eye(2), 5 * np.eye(2), [5, 5])
    idle = old
    for _ in range(3000):  # elsewhere its scale is 2e-4 after 2000
        idle = train.ema(idle, np.array([5.0, 0.0]), np.array([[5.0, 0.0], [0.0, 0.0]]), 0.99)
    assert idle.counts[1] < 1e-6
    assert 0.98 < idle.codebook[1, 1] <= 1
    back = train.ema(idle, np.array([5.0, 50.0]), np.array([[5.0, 0], [0, 150.0]]), 0.99)
    np.testing.assert_allclose(back.codebook[1], [0, 3], rtol=1e-3)


def test_a_dead_codeword_becomes_a_vector_with_its_sum_and_count():
    old = state(np.eye(3), 4 * np.eye(3), [4, 1.9, 2])
    asked = []

    def vectors(count):
        asked.append(count)
        return np.float32([[7, 8, 9]])

    new = train.expire(old, vectors, 2)
    assert asked == [1]
    np.testing.assert_array_equal(new.codebook, [[1, 0, 0], [7, 8, 9], [0, 0, 1]])
    np.testing.assert_array_equal(new.sums[1], [14, 16, 18])
    np.testing.assert_array_equal(new.counts, [4, 2, 2])


def test_a_replaced_codeword_survives_the_next_average():
    dead = state([[1.0], [500.0]], [[9.0], [0.0]], [9, 0])
    new = train.expire(dead, lambda n: np.full((n, 1), 3.0), 2)
    moved = train.ema(new, np.array([5.0, 5.0]), np.array([[5.0], [15.0]]), 0.99)
    assert moved.codebook[1, 0] == pytest.approx(3, rel=1e-4)


def test_a_threshold_of_zero_expires_nothing():
    old = state(np.eye(2), np.eye(2), [0, 0])
    assert train.expire(old, lambda n: pytest.fail("asked for vectors"), 0) is old


def test_a_relative_threshold_is_a_share_of_the_mean_count():
    old = state(np.zeros((4, 1)), np.zeros((4, 1)), [10, 10, 19.5, 0.5])
    new = train.expire(old, lambda n: np.full((n, 1), 6.0), 2, relative=0.1)
    np.testing.assert_array_equal(new.codebook[:, 0], [0, 0, 0, 6])
    assert new.counts[3] == 10  # the mean
    assert new.sums[3, 0] == 60


def blobs(rng, centres, each=50):
    noise = 0.01 * rng.standard_normal((len(centres) * each, centres.shape[1]))
    return (np.repeat(centres, each, axis=0) + noise).astype(np.float32)


def test_kmeans_finds_well_separated_clusters(rng):
    centres = 10 * rng.standard_normal((6, 4))
    x = blobs(rng, centres)
    found = train.kmeans(x, 6, 5, rng, start=(centres + 0.5).astype(np.float32))
    means = x.reshape(6, 50, 4).mean(axis=1)
    np.testing.assert_allclose(found.codebook, means, rtol=1e-5)
    np.testing.assert_array_equal(found.counts, 50)
    np.testing.assert_allclose(found.sums, 50 * means, rtol=1e-5)
    assert found.initialized


def naive_lloyd(x, codewords, iterations):
    codewords = codewords.astype(np.float64)
    for _ in range(iterations):
        near = np.square(x[:, None].astype(np.float64) - codewords[None]).sum(axis=2).argmin(axis=1)
        for k in range(len(codewords)):
            if (near == k).any():
                codewords[k] = x[near == k].mean(axis=0, dtype=np.float64)
        codewords = codewords.astype(np.float32).astype(np.float64)
    return codewords, np.bincount(near, minlength=len(codewords))


def test_lloyd_is_that_of_the_textbook(rng):
    x = rng.standard_normal((200, 3)).astype(np.float32)
    start = x[:12]
    found = lloyd(lambda: [x[:70], x[70:]], start, 7)
    codewords, counts = naive_lloyd(x, start, 7)
    np.testing.assert_allclose(found.codebook, codewords, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.counts, counts)


def test_a_step_on_the_same_batch_leaves_fresh_codewords_nearly_still(rng):
    """Sums are means times counts; where they are not, the first step shrinks 1.60 to 0.033."""
    x = rng.standard_normal((400, 4)).astype(np.float32)
    found = train.kmeans(x, 8, 60, rng)
    books = train.codebooks_of([found])
    counts, sums = codec.tally(x, codec.encode(x, books), books)
    moved = train.ema(found, counts[0], sums[0], 0.99)
    np.testing.assert_allclose(moved.codebook, found.codebook, atol=1e-3)


@pytest.mark.parametrize("case", ["fewer rows than codewords", "repeated rows"])
def test_no_codeword_is_zero_for_want_of_data(case, rng):
    """ESPnet gets 10 zero codewords of 16 here, lucidrains 11."""
    if case == "fewer rows than codewords":
        x = (1 + rng.random((6, 3))).astype(np.float32)
    else:
        x = np.repeat((1 + rng.random((3, 3))).astype(np.float32), 20, axis=0)
    found = train.kmeans(x, 16, 10, rng)
    assert (found.counts > 0).all()
    for codeword in found.codebook:
        assert np.abs(x - codeword).max(axis=1).min() < 1e-4  # each is a vector of the data
    np.testing.assert_allclose(found.sums, found.codebook * found.counts[:, None], rtol=1e-4)


def test_first_codewords_of_a_stage_are_of_what_the_stages_before_it_leave(rng):
    x = rng.standard_normal((50, 3)).astype(np.float32)
    states = [random_state(4, 3, rng, initialized=False) for _ in range(3)]
    left = x
    for state in train.initialize(states, x, 3, 0, rng):  # without a round codewords are rows
        assert all((codeword == left).all(axis=1).any() for codeword in state.codebook)
        books = train.codebooks_of([state])
        left = left - codec.decode(codec.encode(left, books), books)


def test_drawn_rows_are_distinct_where_there_are_enough(rng):
    assert len(set(train.sample_rows(10, 10, rng))) == 10
    many = train.sample_rows(3, 50, rng)
    assert many.shape == (50,)
    assert set(many) == {0, 1, 2}


def test_kmeans_is_the_same_under_the_same_seed(rng):
    x = rng.standard_normal((300, 3)).astype(np.float32)
    one, two = (train.kmeans(x, 9, 4, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.codebook, two.codebook)


def test_kmeans_says_what_is_wrong(rng):
    with pytest.raises(ShapeError, match="kmeans: got no rows"):
        train.kmeans(np.empty((0, 3), np.float32), 2, 1, rng)
    with pytest.raises(ShapeError, match=r"kmeans: start has shape \(3, 2\); expected \(2, 2\)"):
        train.kmeans(np.ones((5, 2), np.float32), 2, 1, rng, start=np.ones((3, 2)))


def test_utilisation_and_perplexity():
    assert train.usage(np.zeros(4)) == (0.0, 0.0)
    utilisation, perplexity = train.usage(np.array([1.0, 1, 1, 1, 0]))
    assert (utilisation, perplexity) == (0.8, pytest.approx(4))
    assert train.usage(np.array([9.0, 0]))[1] == pytest.approx(1)


def test_fresh_codewords_are_small_random_and_counted_once(rng):
    fresh = random_state(50, 24, rng, initialized=False)
    assert (np.abs(fresh.codebook) <= 0.5).all()
    assert np.abs(fresh.codebook).max() > 0.4
    np.testing.assert_array_equal(fresh.counts, 1)
    np.testing.assert_array_equal(fresh.sums, fresh.codebook)


@pytest.mark.parametrize(("wide", "narrow"), [(6, 9), (6, 6)])
def test_fresh_projections_lose_nothing_that_fits(wide, narrow, rng):
    into, out = random_projections(wide, narrow, rng)
    x = rng.standard_normal((20, wide))
    there = x @ into.weight.T + into.bias
    np.testing.assert_allclose(there @ out.weight.T + out.bias, x, atol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.3, 0.5, 1.0])
def test_dropout_draws_the_share_of_rows_it_was_asked_for_and_all_numbers_of_stages(dropout):
    rng = np.random.default_rng(0)
    draws = np.stack([train.draw_stages(6, 4, dropout, rng) for _ in range(2000)])
    assert draws.min() == (1 if dropout else 4)
    dropped = (draws < 4).mean(axis=0)  # of those chosen a quarter gets all four stages
    np.testing.assert_allclose(dropped, dropout * 0.75, atol=0.05)  # every row, not the first ones
    if dropout == 1.0:
        shares = np.bincount(draws.ravel(), minlength=5)[1:] / draws.size
        np.testing.assert_allclose(shares, 0.25, atol=0.02)


def test_dropout_of_a_half_does_not_spare_a_batch_of_one():
    rng = np.random.default_rng(0)
    stages = [train.draw_stages(1, 2, 0.5, rng)[0] for _ in range(2000)]
    assert 0.2 < np.mean(np.equal(stages, 1)) < 0.3


def error_of(x, states, projections=None):
    books = train.codebooks_of(states, projections)
    codes = codec.encode(x, books)
    return [
        float(np.square(x - codec.decode(codes[: n + 1], books)).mean()) for n in range(len(states))
    ]


def test_fit_lowers_the_error_with_every_stage(rng):
    x = rng.standard_normal((3000, 6)).astype(np.float32)
    errors = error_of(x, train.fit(x, 4, 16, 15, rng))
    assert errors[0] < 0.75
    assert all(later < 0.8 * earlier for earlier, later in pairwise(errors))


def test_fit_keeps_all_codewords_in_use_where_one_would_take_them_all():
    """Plain random rows collapse on Gaussian residuals of many dimensions: perplexity 1.2."""
    x = np.random.default_rng(0).standard_normal((8000, 64)).astype(np.float32)
    states = train.fit(x, 3, 256, 10, np.random.default_rng(0))
    for each in states:
        assert train.usage(each.counts)[1] > 200


def test_fit_tells_of_every_round_and_may_be_stopped(rng):
    x = rng.standard_normal((500, 3)).astype(np.float32)
    seen = []
    train.fit(x, 2, 8, 6, rng, callback=seen.append, tolerance=0)
    assert {each.stage for each in seen} == {0, 1}
    for stage in (0, 1):
        errors = [each.error for each in seen if each.stage == stage]
        assert errors == sorted(errors, reverse=True)
        assert seen[-1].iteration == seen[-1].iterations == 6
    states = train.fit(x, 1, 8, 200, rng, callback=seen.append, tolerance=0)
    assert seen[-1].error == pytest.approx(error_of(x, states)[0], rel=1e-3)

    seen.clear()
    train.fit(x, 2, 8, 30, rng, callback=seen.append)
    for stage in (0, 1):
        rounds = [each for each in seen if each.stage == stage]
        assert 3 < len(rounds) < 30  # it goes on while it gains, and then stops
        assert rounds[-1].iteration == rounds[-1].iterations
        assert rounds[-2].error - rounds[-1].error <= 1e-4 * rounds[-2].error
        assert rounds[0].error - rounds[1].error > 1e-4 * rounds[0].error

    class Stop(Exception):
        pass

    def stop(info):
        raise Stop

    with pytest.raises(Stop):
        train.fit(x, 2, 8, 6, rng, callback=stop)


@pytest.mark.parametrize("rows_per_codeword", [4, None])
def test_fit_reads_a_memory_map_in_batches_and_gives_what_it_gives_in_memory(
    rows_per_codeword, tmp_path, monkeypatch
):
    x = np.random.default_rng(0).standard_normal((700, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    asked = {"rows_per_codeword": rows_per_codeword}
    whole = train.fit(x, 3, 8, 5, np.random.default_rng(3), **asked)
    monkeypatch.setattr(import_module("rvq_np.train.data"), "ROWS", 64)
    parts = train.fit(mapped, 3, 8, 5, np.random.default_rng(3), **asked)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.codebook, other.codebook, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(one.counts, other.counts)


@pytest.mark.filterwarnings("ignore::rvq_np.FewVectorsWarning")
def test_fit_stops_where_no_error_is_left(rng):
    """Codewords that nothing chooses get other vectors for ever, unless there is nothing to win."""
    x, seen = np.repeat(rng.standard_normal((6, 4)), 50, axis=0).astype(np.float32), []
    train.fit(x, 2, 8, 60, rng, callback=seen.append)
    for stage in (0, 1):
        assert len([each for each in seen if each.stage == stage]) <= 3
    assert seen[-1].error < 1e-12


def test_fit_stops_where_nothing_moves(rng):
    """Three codewords are the same, and other vectors for them are nearly always that one, too."""
    x, seen = np.zeros((100_000, 1), np.float32), []
    x[:8] = np.arange(1, 9)[:, None]
    start = np.float32([[[0], [0], [0], [0], [1.5], [4], [7]]])
    train.fit(x, 1, 7, 60, 3, start=start, hold=0, rows_per_codeword=None, callback=seen.append)
    assert 5 < len(seen) < 15
    assert seen[-1].utilisation < 1
    assert seen[-1].error > 0


def test_fit_draws_its_rows_from_all_there_are(rng):
    x = np.float32([[0, 0]] * 400 + [[7, 7]] * 400)
    states = train.fit(x, 1, 2, 5, rng, rows_per_codeword=20)
    np.testing.assert_allclose(np.sort(states[0].codebook, axis=0), [[0, 0], [7, 7]], atol=1e-3)


def test_unused_codewords_are_filled_again():
    """Of two equal codewords the second is never chosen; by the next iteration it is another."""
    x = np.float32([[0, 0], [0, 1], [9, 9], [9, 8]])
    codewords = np.float32([[0, 0], [0, 0]])
    asked = []

    def refill(count):
        asked.append(count)
        return x[2:3]

    found = lloyd([x], codewords, 3, refill=refill)
    assert asked == [1]
    np.testing.assert_array_equal(found.codebook, [[0, 0.5], [9, 8.5]])
    np.testing.assert_array_equal(
        lloyd([x], codewords, 1).codebook[1], [0, 0]
    )  # there is no other vector: it stays


def test_fit_of_more_codewords_than_rows_keeps_vectors_of_the_data(rng):
    x = (3 + rng.random((5, 2))).astype(np.float32)
    with pytest.warns(FewVectorsWarning, match="5 distinct vectors for 16 codewords"):
        states = train.fit(x, 1, 16, 5, rng)
    assert np.abs(states[0].codebook).min() > 2.9
    assert error_of(x, states)[0] < 1e-4


def test_fit_says_what_is_wrong(rng):
    def refused(error, message, x, **options):
        with pytest.raises(error, match=message):
            train.fit(x, 1, 2, 2, rng, **options)

    refused(ShapeError, r"fit: x has shape \(4,\); expected \(N, D\)", np.ones(4))
    refused(ShapeError, r"fit: x has shape \(0, 4\)", np.ones((0, 4)))
    refused(DtypeError, "fit: x has dtype int64", np.ones((4, 4), int))
    refused(ParameterError, "rows_per_codeword is 0", np.ones((4, 4)), rows_per_codeword=0)
    for iterations in (-1, 2.5, None):
        with pytest.raises(ParameterError, match=r"iterations is .*; expected a whole number >= 0"):
            train.fit(np.ones((4, 4)), 1, 2, iterations, rng)
    x = np.ones((9, 3), np.float32)
    x[7, 1] = np.inf
    refused(NonFiniteError, r"fit: x holds inf at \(7, 1\).*Nothing was changed", x)


def test_no_array_of_vectors_by_codewords_is_made():
    """1 GB would be needed for distances of 60 000 vectors to 4096 codewords."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60_000, 4)).astype(np.float32)
    train.kmeans(x[:5000], 64, 1, rng)  # compiled before it is measured
    with paths.traced_memory() as peak:
        train.kmeans(x, 4096, 1, rng)
    assert peak[0] < 40e6


def usage_of(codes, size):
    return [train.usage(np.bincount(row, minlength=size)) for row in codes]


@pytest.mark.parametrize("path", ["fit", "pickled", "saved", "state dict"])
@pytest.mark.parametrize("narrow", [4, 3])
def test_usage_after_a_fit_is_of_the_codewords_that_vectors_chose(path, narrow, rng, tmp_path):
    """3 distinct vectors, 64 codewords: usage said 100 %, the callback 4.7 %."""
    x = rng.standard_normal((3, 4)).astype(np.float32).repeat(100, axis=0)
    last = {}
    rvq = ResidualVectorQuantizer(4, narrow, n_q=2, bins=64, rng=0)
    with pytest.warns(FewVectorsWarning) as caught:
        rvq.fit(x, callback=lambda info: last.update({info.stage: info}))
    assert len(caught) == 1
    assert "fit: x holds 3 distinct vectors for 64 codewords a stage" in str(caught[0].message)
    if path == "pickled":
        rvq = pickle.loads(pickle.dumps(rvq))
    elif path == "saved":
        rvq.save(tmp_path / "model.safetensors")
        rvq = ResidualVectorQuantizer.load(tmp_path / "model.safetensors")
    elif path == "state dict":
        state, rvq = rvq.state_dict(), ResidualVectorQuantizer(4, narrow, n_q=2, bins=64, rng=1)
        rvq.load_state_dict(state)
    expected = usage_of(rvq.eval().encode(x, 1), 64)
    assert rvq.usage[0] == expected[0]
    assert rvq.usage[0].utilisation == 3 / 64
    for stage, each in enumerate(rvq.usage):
        assert each.utilisation <= max(expected[stage].utilisation, last[stage].utilisation)


@pytest.mark.filterwarnings("ignore::rvq_np.UnstableTrainingWarning")  # of 5 distinct vectors
@pytest.mark.parametrize("options", [{}, {"relative_threshold": 0.1}])
@pytest.mark.parametrize("rows", [100, 20000])
def test_codewords_that_were_replaced_do_not_count_as_used(rng, options, rows):
    """Until a vector chooses them; 188 codewords were reported where 21 are used."""
    few = rng.standard_normal((5, 4)).astype(np.float32)
    rvq = ResidualVectorQuantizer(4, 4, n_q=1, bins=32, decay=0.9, kmeans_iters=2, rng=0, **options)
    assert rvq.usage == [(0.0, 0.0)]  # nothing was chosen yet
    x = few[rng.integers(5, size=rows)]
    chosen = np.zeros(32, bool)
    for _ in range(6):
        before = rvq.codebooks
        codes = rvq(x, 1).codes[0]
        chosen[np.unique(codes)] = True
        moved = (before[0].codebook != rvq.codebooks[0].codebook).any(axis=1)
        # Five were chosen in k-means; their repeats, exactly a vector, may be nearer from then on.
        assert rvq.usage[0].utilisation <= chosen.mean() + 5 / 32
        assert moved.any() or not options
    assert len(np.unique(codes)) / 32 <= rvq.usage[0].utilisation < 1
    assert rvq.usage[0].perplexity <= 32 * rvq.usage[0].utilisation * (1 + 1e-6)
    counts = rvq.state_dict()["vq.layers.0._codebook.cluster_size"]
    assert (counts > 0).sum() > 5 * rvq.usage[0].utilisation  # ESPnet's array has placeholders


def test_averages_carry_along_what_was_placed(rng):
    x = rng.standard_normal((20, 4)).astype(np.float32)
    state = train.kmeans(x, 8, 3, 0)
    assert not state.placed.any()
    counts = np.zeros(8)
    counts[:3] = 5
    moved = train.ema(state, counts, np.ones((8, 4)), 0.5)
    replaced = train.expire(moved, lambda n: x[:n], threshold=1.5)
    dead = moved.counts < 1.5
    assert dead.any()
    np.testing.assert_array_equal(replaced.placed, np.where(dead, np.float32(1.5), 0))
    np.testing.assert_array_equal(replaced.chosen, np.where(dead, 0, moved.counts))
    again = train.ema(replaced, np.zeros(8), np.zeros((8, 4)), 0.9)
    assert not again.chosen[dead].any()  # to the last bit: no rounding makes a use of it
    assert (again.chosen[~dead] > 0).all()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(again)).placed, again.placed)
    one = np.zeros(8)
    one[np.flatnonzero(dead)[0]] = 1
    assert train.ema(again, one, np.zeros((8, 4)), 0.9).chosen[np.flatnonzero(dead)[0]] > 0


@pytest.mark.parametrize(("distinct", "warns"), [(15, True), (16, False), (17, False)])
def test_fewer_distinct_vectors_than_codewords_are_said_once_with_both_numbers(
    distinct, warns, rng, tmp_path
):
    few = rng.standard_normal((distinct, 4)).astype(np.float32)
    few[0] = 0.0
    x = np.concatenate([few, few[rng.integers(distinct, size=300)], -few[:1]])  # -0.0 is 0.0
    np.save(tmp_path / "x.npy", x)
    for vectors in (x, np.load(tmp_path / "x.npy", mmap_mode="r"), x.T[None]):
        rvq = ResidualVectorQuantizer(4, 4, n_q=3, bins=16, rng=0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rvq.fit(vectors, rows_per_codeword=None)
        assert len(caught) == warns
        if warns:
            assert "15 distinct vectors for 16 codewords" in str(caught[0].message)
