"""Training on small batches: first codewords that wait for enough vectors, what replaces others."""

import copy
import dataclasses
import pickle
import warnings

import numpy as np
import pytest
from test_distributed import lattice, together

import rvq_np
from rvq_np import FewVectorsWarning, ResidualVectorQuantizer, UnstableTrainingWarning, train
from rvq_np.config import Config
from rvq_np.errors import NonFiniteError, ParameterError

RATE = 50


@pytest.fixture(autouse=True)
def four_vectors_are_enough(monkeypatch):
    """For each codeword, so that small tests get there."""
    monkeypatch.setattr("rvq_np.train.collect.CHEAP", 0)


def paced(**options):
    arguments = {"dimension": 6, "codebook_dim": 6, "n_q": 2, "bins": 16, "rng": 0}
    return ResidualVectorQuantizer(**{"threshold_ema_dead_code": None, **arguments, **options})


def rows(n, seed=0, dim=6):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def clusters(n, seed, count=48, dim=6):
    """Vectors around as many centres as two small codebooks can tell apart, of uneven use."""
    centres = 4 * np.random.default_rng(99).standard_normal((count, dim))
    rng = np.random.default_rng(seed)
    shares = 1.0 / (1 + np.arange(count))
    chosen = rng.choice(count, size=n, p=shares / shares.sum())
    return (centres[chosen] + 0.3 * rng.standard_normal((n, dim))).astype(np.float32)


def error(rvq, x):
    return float(np.square(x - rvq.decode(rvq.eval().encode(x, RATE))).mean())


def test_the_first_batch_serves_until_there_are_four_vectors_for_each_codeword():
    rvq = paced()
    awaited = []
    for step in range(5):
        rvq(rows(15, seed=step), RATE)
        assert rvq.is_initialized
        awaited.append(rvq.vectors_awaited)
    assert awaited == [49, 34, 19, 4, 0]


def test_codewords_are_then_those_of_all_that_was_seen():
    """With nothing forgotten and nothing added a step leaves k-means' codewords where they are."""
    rvq = paced(decay=1.0, kmeans_iters=30)
    batches = [lattice(np.random.default_rng(step), 16, 6) for step in range(4)]
    for each in batches:
        rvq(each, RATE)
    everything = np.concatenate(batches)
    stage = rvq.codebooks[:1]
    codes = rvq_np.encode(everything, stage)[0]
    used = np.unique(codes)
    for k in used:  # Lloyd's condition, on the vectors of all batches
        np.testing.assert_allclose(
            stage[0].codebook[k], everything[codes == k].mean(axis=0), rtol=1e-3, atol=1e-3
        )
    assert len(used) == 16
    sizes = rvq.state_dict()["vq.layers.0._codebook.cluster_size"]
    np.testing.assert_allclose(sizes, np.bincount(codes, minlength=16) / 4, rtol=1e-5)


def test_a_first_batch_that_is_enough_is_not_waited_for():
    rvq, other = paced(), paced(threshold_ema_dead_code=0)
    for each in (rvq, other):
        each(rows(64), RATE)
    assert rvq.vectors_awaited == 0
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(rvq.state_dict()[name], value)


@pytest.mark.parametrize("rule", [{"threshold_ema_dead_code": 2}, {"relative_threshold": 0.1}])
def test_a_rule_that_is_given_is_espnets_and_waits_for_nothing(rule):
    rvq = paced(**rule)
    rvq(rows(10), RATE)
    assert rvq.vectors_awaited == 0


def test_padding_is_not_waited_for_and_a_refused_batch_changes_nothing():
    rvq = paced()
    mask = np.arange(15) < 5
    rvq(rows(15), RATE, mask=mask)
    assert rvq.vectors_awaited == 59
    bad = rows(15)
    bad[3, 3] = np.nan
    with pytest.raises(NonFiniteError):
        rvq(bad, RATE)
    assert rvq.vectors_awaited == 59
    rvq.eval()(rows(15), RATE)
    assert rvq.vectors_awaited == 59


def test_an_array_that_is_used_again_is_collected_as_it_was():
    once, again = paced(), paced()
    buffer = np.empty((20, 6), np.float32)
    for step in range(4):
        once(rows(20, seed=step), RATE)
        buffer[:] = rows(20, seed=step)
        again(buffer, RATE)
    assert again.vectors_awaited == 0
    assert again.codebooks == once.codebooks


def test_what_was_collected_is_dropped_where_codebooks_come_from_elsewhere(tmp_path):
    for take in (
        lambda rvq: rvq.fit(rows(200)),
        lambda rvq: rvq.load_state_dict(paced().state_dict()),
    ):
        rvq = paced()
        rvq(rows(15), RATE)
        take(rvq)
        assert rvq.vectors_awaited == 0
    rvq = paced()
    rvq.save(tmp_path / "m.safetensors")
    loaded = ResidualVectorQuantizer.load(tmp_path / "m.safetensors")
    assert loaded.config == rvq.config
    assert loaded.config.threshold_ema_dead_code is None


def test_processes_wait_together(rng):
    batches = [[lattice(rng, n, 6) for n in (9, 0, 4)] for _ in range(6)]
    made, _ = together(batches, 3, n_q=1, threshold_ema_dead_code=None)
    expected, _ = together(
        [[np.concatenate(step)] for step in batches], 1, n_q=1, threshold_ema_dead_code=None
    )
    assert made[0].vectors_awaited == 0
    for each in made:
        for name, value in expected[0].state_dict().items():
            np.testing.assert_array_equal(each.state_dict()[name], value)


def test_without_a_threshold_a_codeword_is_dead_below_three_percent_of_the_mean():
    counts = np.float32([0.058, 0.062, 2.0, 5.88])  # mean 2: dead below 0.06
    state = train.CodebookState(np.eye(4), np.eye(4), counts, True)
    new = train.expire(state, lambda n: np.full((n, 4), 7.0), None)
    np.testing.assert_array_equal(new.codebook[0], 7)
    np.testing.assert_array_equal(new.codebook[1:], state.codebook[1:])
    assert new.counts[0] == pytest.approx(0.09, rel=1e-3)
    np.testing.assert_allclose(new.sums[0], 7 * 0.09, rtol=1e-3)


def test_small_batches_train_codebooks_that_are_used():
    """The rule of ESPnet replaces most codewords at every step; without one, some stay idle."""
    new = clusters(3000, seed=1)
    found = {}
    for threshold in (2, 0, None):
        rvq = paced(bins=32, threshold_ema_dead_code=threshold)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnstableTrainingWarning)
            for step in range(150):
                rvq(clusters(24, seed=100 + step), RATE)
        found[threshold] = error(rvq, new)
    assert found[None] < 0.7 * found[2]
    assert found[None] < 0.9 * found[0]


def test_codebooks_that_are_replaced_at_every_step_are_warned_about_once():
    rvq = paced(threshold_ema_dead_code=2)
    for step in range(4):
        rvq(rows(10, seed=step), RATE)
    with pytest.warns(
        UnstableTrainingWarning,
        match=r"1\d of 16 codewords of stage 0 were replaced .* last 5: .* threshold_ema_dead_code"
        r"=2; pass None",
    ):
        rvq(rows(10, seed=4), RATE)
    for step in range(10):  # once is enough
        rvq(rows(10, seed=step), RATE)


def test_no_warning_where_codewords_are_replaced_now_and_then():
    rvq = paced(threshold_ema_dead_code=6, decay=0.0, n_q=1)
    for _ in range(2):
        for step in range(4):
            rvq(rows(40, seed=step), RATE)
        rvq(rows(2000), RATE)  # a step that replaces few begins the count again
    quiet = paced()
    for step in range(30):
        quiet(rows(10, seed=step), RATE)


def test_none_is_for_the_threshold_only():
    with pytest.raises(ParameterError, match="epsilon is None"):
        paced(epsilon=None)
    assert "threshold_ema_dead_code=None" in repr(paced().config)


def test_kmeans_ends_where_nothing_moves():
    x = np.float32([[0, 0], [0, 2], [8, 8], [8, 6]])
    seen = []
    lloyd = train.kmeans.__globals__["lloyd"]
    batches = _Counted([x], seen)
    found = lloyd(batches, x[[0, 2]], 50)
    assert len(seen) == 2  # means, the same means again, and no more
    np.testing.assert_array_equal(found.codebook, [[0, 1], [8, 7]])
    np.testing.assert_array_equal(found.counts, [2, 2])


class _Counted:
    """Batches given again for each iteration, counted."""

    def __init__(self, batches, seen):
        self.batches, self.seen = batches, seen

    def __call__(self):
        self.seen.append(1)
        return iter(self.batches)


def test_fit_ends_where_no_error_is_left():
    """500 distinct vectors and 1024 codewords took all 50 iterations of every stage."""
    points = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    x = points[np.random.default_rng(1).integers(0, 40, 900)]
    seen = []
    with pytest.warns(FewVectorsWarning, match="40 distinct vectors for 64 codewords"):
        train.fit(x, 3, 64, 50, 0, callback=seen.append)
    for stage in range(3):
        assert sum(each.stage == stage for each in seen) <= 8
    assert seen[-1].iteration == 50  # what a progress bar shows of a stage that is done


def test_usage_is_of_what_vectors_chose_when_codewords_are_made_again():
    points = rows(5, seed=3)
    rvq = paced(decay=1.0, n_q=1)
    for step in range(4):
        result = rvq(points[np.random.default_rng(step).integers(0, 5, 16)], RATE)
    assert rvq.vectors_awaited == 0
    used = np.unique(rvq.eval().encode(points, RATE))
    assert rvq.usage[0].utilisation == len(used) / 16
    assert result.codes.shape == (1, 16)


def test_copies_and_pickles_go_on_with_the_vectors_that_wait():
    rvq = paced()
    rvq(rows(15), RATE)
    others = [copy.copy(rvq), copy.deepcopy(rvq), pickle.loads(pickle.dumps(rvq))]
    for step in range(1, 6):
        rvq(rows(15, seed=step), RATE)
        for other in others:
            other(rows(15, seed=step), RATE)
            assert other.vectors_awaited == rvq.vectors_awaited
            assert other.codebooks == rvq.codebooks
    frozen = pickle.loads(pickle.dumps(rvq.freeze([1])))
    assert frozen.frozen == (1,)
    assert rvq.freeze().frozen == ()


def test_the_warning_of_codewords_that_are_replaced_names_the_line_that_trains():
    rvq = paced(threshold_ema_dead_code=2)
    for step in range(4):
        rvq(rows(10, seed=step), RATE)
    with pytest.warns(UnstableTrainingWarning) as caught:
        rvq(rows(10, seed=4), RATE)
    assert caught[0].filename == __file__


def test_stages_that_have_codewords_are_not_made_once_more_when_others_wait():
    """Stage 0 was trained alone, by a smaller bandwidth; stage 1 then begins with a small batch."""
    rvq = paced(kmeans_iters=100)
    rvq(rows(64), RATE, bandwidth=0.2)
    assert rvq.vectors_awaited == 0
    rvq.config = dataclasses.replace(rvq.config, decay=1.0)  # so that averages stay, too
    before = rvq.codebooks[0]
    awaited = []
    for step in range(5):
        rvq(rows(15, seed=step), RATE)
        awaited.append(rvq.vectors_awaited)
        np.testing.assert_allclose(rvq.codebooks[0].codebook, before.codebook, rtol=1e-5)
    assert awaited == [49, 34, 19, 4, 0]
    everything = np.concatenate([rows(15, seed=step) for step in range(5)])
    codes = rvq_np.encode(everything, rvq.codebooks)
    left = everything - before.codebook[codes[0]]
    for k in np.unique(codes[1]):  # stage 1 is the means of what stage 0, as it was, leaves
        np.testing.assert_allclose(
            rvq.codebooks[1].codebook[k], left[codes[1] == k].mean(axis=0), rtol=1e-3, atol=1e-3
        )


def test_a_stage_that_begins_later_waits_for_the_same_vectors():
    rvq = paced()
    rvq(rows(15), RATE, bandwidth=0.2)
    rvq(rows(15, seed=1), RATE)
    assert rvq.vectors_awaited == 34
    first = rvq.codebooks
    for step in range(2, 5):
        rvq(rows(15, seed=step), RATE)
    assert rvq.vectors_awaited == 0
    for old, new in zip(first, rvq.codebooks, strict=True):
        assert np.abs(old.codebook - new.codebook).max() > 0.1


def test_stages_that_are_not_frozen_go_on_waiting():
    rvq = paced()
    rvq(rows(15), RATE)
    before = rvq.freeze([0]).codebooks
    assert rvq.vectors_awaited == 49
    for step in range(1, 5):
        rvq(rows(15, seed=step), RATE)
    assert rvq.vectors_awaited == 0
    assert rvq.codebooks[0] == before[0]
    assert np.abs(rvq.codebooks[1].codebook - before[1].codebook).max() > 0.1
    again = paced()
    again(rows(15), RATE)
    assert again.freeze([0, 1]).vectors_awaited == 0


def test_small_batches_wait_by_default_and_a_model_saved_before_keeps_its_rule():
    rvq = ResidualVectorQuantizer(6, 6, n_q=2, bins=16, rng=0)
    rvq(rows(15), RATE)
    assert rvq.vectors_awaited == 49
    old = {**rvq.config.as_dict(), "threshold_ema_dead_code": 2}
    assert not Config.from_dict(old).paced


@pytest.mark.parametrize(("bins", "expected"), [
    (16, 256), (256, 4096), (1024, 16384), (2048, 16384), (4096, 16384), (8192, 32768),
    ((16, 1024, 4), 16384),
])  # fmt: skip
def test_more_vectors_are_waited_for_where_that_is_cheap(bins, expected, monkeypatch):
    monkeypatch.undo()
    assert train.enough(Config(6, 6, 3, bins), range(3)) == expected
