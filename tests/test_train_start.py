"""Warm starts that keep codes, and stages that stay as they are, offline and online."""

import numpy as np
import pytest
from test_distributed import Ranks

from rvq_np import (
    Codebooks,
    FewVectorsWarning,
    Linear,
    ResidualVectorQuantizer,
    Stage,
    codec,
    train,
)
from rvq_np.config import Config
from rvq_np.errors import NonFiniteError, ParameterError, ShapeError, StateError

RATE = 50


@pytest.fixture(autouse=True)
def four_vectors_are_enough(monkeypatch):
    """For each codeword, so that small tests get there."""
    monkeypatch.setattr("rvq_np.train.collect.CHEAP", 0)


def clusters(n, seed, dim=8):
    centres = 3 * np.random.default_rng(9).standard_normal((60, dim))
    rng = np.random.default_rng(seed)
    return (centres[rng.integers(0, 60, n)] + rng.standard_normal((n, dim))).astype(np.float32)


def fitted(seed=0, n_q=3, bins=16, x=None):
    rvq = ResidualVectorQuantizer(8, 8, n_q=n_q, bins=bins, rng=seed)
    return rvq.fit(clusters(4000, 0) if x is None else x)


def error(rvq, x):
    return float(np.square(x - rvq.decode(rvq.encode(x, RATE))).mean())


def test_a_warm_start_keeps_the_codes_of_nearly_all_old_vectors():
    old, new = clusters(4000, 0), clusters(40, 1) + np.float32(2)
    rvq = fitted()
    codes, before = rvq.encode(old, RATE), error(rvq, new)
    again = ResidualVectorQuantizer(8, 8, n_q=3, bins=16, rng=5)
    again.fit(np.concatenate([old, new]), start=rvq)
    assert (again.encode(old, RATE) == codes).all(axis=0).mean() > 0.97
    assert error(again, new) < before  # it has learnt, too
    cold = fitted(seed=5, x=np.concatenate([old, new]))
    assert (cold.encode(old, RATE) == codes).all(axis=0).mean() < 0.05


@pytest.mark.parametrize("hold", [0.0, 0.5, 1.0])
def test_a_codeword_stops_at_a_share_of_the_way_back(hold):
    """One stage, and clusters so far apart that no code changes: the formula written out."""
    rng = np.random.default_rng(0)
    centres = np.float32([[0, 0], [100, 0], [0, 100]])
    x = (centres[rng.integers(0, 3, 300)] + rng.standard_normal((300, 2))).astype(np.float32)
    start = centres + np.float32(2)
    states = train.fit(x, 1, 3, 20, 0, start=start[None], hold=hold)
    codes = codec.encode(x, start[None])[0]
    for k in range(3):
        mean = x[codes == k].mean(axis=0, dtype=np.float64)
        expected = (1 - hold) * mean + hold * start[k]
        np.testing.assert_allclose(states[0].codebook[k], expected, atol=1e-3)
    assert states[0].counts.tolist() == np.bincount(codes).tolist()
    still = train.ema(states[0], states[0].counts, states[0].sums, 0.5)
    np.testing.assert_allclose(still.codebook, states[0].codebook, atol=1e-3)


def test_codewords_that_nothing_chooses_become_others_and_are_not_held():
    x = clusters(2000, 0)
    start = fitted(n_q=1, x=x).codebooks[0].codebook.copy()
    start[3] = 1e4
    states = train.fit(x, 1, 16, 20, 0, start=start[None], hold=1.0)
    assert np.abs(states[0].codebook[3]).max() < 50
    np.testing.assert_allclose(states[0].codebook[4:], start[4:], atol=1e-4)


def test_without_iterations_a_warm_start_is_the_start():
    books = fitted().codebooks
    states = train.fit(clusters(500, 3), 3, 16, 0, 0, start=books)
    assert train.codebooks_of(states) == books


def test_frozen_stages_stay_to_the_bit_and_the_others_learn_from_what_they_leave():
    rvq = fitted()
    x = clusters(3000, 5) + np.float32(1)
    books = rvq.codebooks
    states = train.fit(x, 3, 16, 10, 0, start=books, freeze=[0, 2], hold=0)
    for stage in (0, 2):
        np.testing.assert_array_equal(states[stage].codebook, books[stage].codebook)
    assert not np.allclose(states[1].codebook, books[1].codebook, atol=0.01)
    codes = codec.encode(x, train.codebooks_of(states))
    for stage in range(3):  # usage is of these data
        counts = np.bincount(codes[stage], minlength=16)
        np.testing.assert_allclose(states[stage].counts, np.maximum(counts, 1), atol=30)
    assert error(ResidualVectorQuantizer.made_of(rvq.config, states, None), x) < error(rvq, x)


def test_a_warm_start_that_was_interrupted_goes_on(tmp_path):
    x, books, path = clusters(2000, 2), fitted().codebooks, tmp_path / "fit"
    whole = train.fit(x, 3, 16, 5, np.random.default_rng(1), start=books, freeze=[1])

    def stop(info):
        if info.stage == 2:
            raise KeyboardInterrupt

    arguments = {"start": books, "freeze": [1], "checkpoint": path}
    with pytest.raises(KeyboardInterrupt):
        train.fit(x, 3, 16, 5, np.random.default_rng(1), callback=stop, **arguments)
    with pytest.raises(StateError, match="is the resume file of another fit"):
        train.fit(x, 3, 16, 5, np.random.default_rng(1), checkpoint=path)
    again = train.fit(x, 3, 16, 5, np.random.default_rng(1), **arguments)
    assert list(again) == list(whole)


def test_a_start_with_projections_is_that_of_the_quantizer():
    x = clusters(900, 0)
    rvq = ResidualVectorQuantizer(8, 4, n_q=2, bins=8, rng=0).fit(x)
    before = rvq.codebooks
    rvq.fit(x, start=rvq, freeze=[0])
    assert rvq.codebooks[0] == before[0]
    other = ResidualVectorQuantizer(8, 4, n_q=2, bins=8, rng=1)
    with pytest.raises(ParameterError, match="fit: the stages of start have other projections"):
        other.fit(x, start=rvq)


def test_training_leaves_frozen_stages_and_trains_the_rest():
    rvq = fitted().freeze([0, 2])
    assert rvq.frozen == (0, 2)
    before, counts = rvq.codebooks, [state.counts for state in rvq._states]
    for step in range(5):
        rvq(clusters(200, 10 + step), RATE)
    for stage in (0, 2):
        assert rvq.codebooks[stage] == before[stage]
        np.testing.assert_array_equal(rvq._states[stage].counts, counts[stage])
    assert rvq.codebooks[1] != before[1]
    rvq.freeze()(clusters(200, 3), RATE)
    assert all(new != old for new, old in zip(rvq.codebooks, before, strict=True))


def test_processes_freeze_together():
    ranks, made = Ranks(2), []
    batches = [clusters(100, seed) for seed in (1, 2)]

    def work(rank):
        rvq = fitted().freeze([1])
        rvq.all_reduce = ranks.hook(rank)
        rvq(batches[rank], RATE)
        return rvq

    made = ranks.run(work)
    before = fitted().codebooks
    for each in made:
        assert each.codebooks[1] == before[1]
        assert each.codebooks[0] != before[0]
        assert each.codebooks == made[0].codebooks


def test_a_frozen_stage_is_not_made_once_more():
    rvq = ResidualVectorQuantizer(8, 8, n_q=2, bins=16, rng=0, threshold_ema_dead_code=None)
    rvq(clusters(20, 0), RATE)
    rvq.freeze([0])
    before = rvq.codebooks
    for step in range(6):
        rvq(clusters(20, step), RATE)
    assert rvq.vectors_awaited == 0
    assert rvq.codebooks[0] == before[0]


def test_bad_starts_and_stages_are_named():
    x, books = clusters(300, 0), fitted().codebooks

    def refused(message, error=ParameterError, **options):
        with pytest.raises(error, match=message):
            train.fit(x, 3, 16, 2, 0, **options)

    refused(r"fit: freeze\[1\] is 3; expected a whole number from 0 to 2", start=books,
            freeze=[0, 3])  # fmt: skip
    refused(r"fit: freeze\[0\] is 'a'", start=books, freeze="a")
    refused("fit: freeze is 1; expected a list of stages", start=books, freeze=1)
    refused(r"fit: freeze is \[0\], but start is None", freeze=[0])
    refused("fit: hold is 1.5", start=books, hold=1.5)
    refused("fit: refine moves all stages, but freeze", start=books, freeze=[0], refine=True)
    refused(r"fit: start has Codebooks\(2 stages, .*; expected 3 stages of 16 codewords for "
            "vectors of 8", ShapeError, start=books[:2])  # fmt: skip
    cosine = Codebooks([Stage(each.codebook, metric="cosine") for each in books])
    refused("fit: a stage of start has the metric cosine", start=cosine)
    huge = Codebooks(np.full((3, 16, 8), 1e39))
    refused("fit: start reaches beyond float32", NonFiniteError, start=huge)
    linear = Linear(np.eye(8), np.zeros(8))
    mapped = Codebooks([Stage(each.codebook, linear, linear) for each in books])
    refused("fit: the stages of start have other projections", start=mapped)
    rvq = ResidualVectorQuantizer(8, 8, n_q=3, bins=16, rng=0)
    with pytest.raises(StateError, match="freeze: stage 1 has random codewords"):
        rvq.freeze([1])
    with pytest.raises(ParameterError, match=r"freeze: freeze\[0\] is -1"):
        rvq.freeze([-1])
    assert rvq.frozen == ()


@pytest.mark.parametrize("size", [1, 2])
def test_nothing_is_replaced_in_a_frozen_stage_with_several_processes_either(size):
    states = train.fit(clusters(300, 0), 2, 16, 2, 0)
    config = Config(8, 8, 2, 16, threshold_ema_dead_code=1000)
    learned = train.learn(
        states, clusters(40, 1), None, 2, config, (1, 2), frozen=frozenset([0]),
        all_reduce=train.AllReduce(lambda numbers: numbers, 0, size),
    )  # fmt: skip
    assert learned.replaced == (0, 16)
    assert learned.states[0] is states[0]


def test_counts_of_held_and_frozen_stages_are_of_what_vectors_chose():
    """Also of the arrays alone, as a file holds them: most codewords here are chosen by nothing."""
    x = clusters(3, 7).repeat(100, axis=0)
    start = fitted(n_q=2).codebooks
    with pytest.warns(FewVectorsWarning, match="3 distinct vectors for 16 codewords"):
        states = train.fit(x, 2, 16, 5, 0, start=start, freeze=[0], hold=0.5)
    codes = codec.encode(x, train.codebooks_of(states))
    np.testing.assert_array_equal(states[0].chosen, np.bincount(codes[0], minlength=16))
    for state in states:
        assert state.chosen.sum() == 300 < state.counts.sum()
        loaded = train.CodebookState(state.codebook, state.sums, state.counts, True)
        np.testing.assert_array_equal(loaded.chosen, state.chosen)


def test_a_start_has_the_size_of_each_stage():
    x = clusters(3000, 0)
    first = train.codebooks_of(train.fit(x, 3, [16, 8, 4], 5, 0))
    states = train.fit(x, 3, [16, 8, 4], 5, 0, start=first, freeze=[1])
    assert [len(each.counts) for each in states] == [16, 8, 4]
    np.testing.assert_array_equal(states[1].codebook, first[1].codebook)
    assert not np.array_equal(states[2].codebook, first[2].codebook)
    with pytest.raises(ShapeError, match=r"fit: start has .*; expected 3 stages of 8, 16, 4 codew"):
        train.fit(x, 3, [8, 16, 4], 5, 0, start=first)
