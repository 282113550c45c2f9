"""The class in training: first codewords, losses, statistics, masks, `fit`."""

import numpy as np
import pytest
from helpers.small_quantizers import RATE, batch, same_state, small, trained
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import rvq_np
from rvq_np import NotInitializedWarning, ResidualVectorQuantizer
from rvq_np.errors import (
    DtypeError,
    NonFiniteError,
    ShapeError,
)
from rvq_np.kernels import tables

# Training ------------------------------------------------------------------------------------


def test_a_fresh_quantizer_trains_as_in_torch_and_eval_never_does():
    rvq = small()
    assert rvq.training
    assert rvq.eval() is rvq
    assert not rvq.training
    before = rvq.state_dict()
    with pytest.warns(NotInitializedWarning):
        rvq(batch(), RATE)
    rvq.encode(batch(), RATE)
    assert same_state(rvq.state_dict(), before)
    assert rvq.train() is rvq
    rvq(batch(), RATE)
    assert rvq.is_initialized
    assert not same_state(rvq.state_dict(), before)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("codebook_dim", [6, 4, 9])
def test_quantized_is_exactly_decode_of_the_codes_by_the_codewords_before_the_step(
    training, codebook_dim
):
    rvq = trained(codebook_dim=codebook_dim, threshold_ema_dead_code=5).train(training)
    before = rvq.codebooks
    x = batch()
    result = rvq(x, RATE)
    rows = rvq_np.decode(result.codes, before).transpose(0, 2, 1)
    np.testing.assert_array_equal(result.quantized, rows)
    np.testing.assert_array_equal(result.codes, rvq_np.encode(x.transpose(0, 2, 1), before))
    assert (rvq.codebooks is not before) == training


@pytest.mark.parametrize("dropout", [False, 0.8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_large_maps_only_chosen_codewords_are_mapped_back_and_to_the_same_bits(dropout, dtype):
    """As they are when all are mapped: see `rvq_np.kernels.tables.LARGE`."""
    rvq = ResidualVectorQuantizer(
        130, 260, 3, 40, kmeans_init=False, quantizer_dropout=dropout, rng=0
    )
    assert rvq.codebooks.stages[0].project_out.weight.size >= tables.LARGE
    x = batch(d=130, t=17, dtype=dtype)
    before = rvq.codebooks
    result = rvq(x, RATE)
    rows = [rvq_np.decode(result.codes[:n], before) for n in (1, 2, 3)]
    stages = np.asarray(result.bandwidth) / rvq.get_bandwidth_per_quantizer(RATE)
    for b, n in enumerate(np.broadcast_to(np.rint(stages).astype(int), 2)):
        np.testing.assert_array_equal(result.quantized[b], rows[n - 1][b].T)
    assert len(np.unique(result.codes[0])) < 40


def test_the_penalty_is_the_mean_over_stages_of_the_distance_to_the_chosen_codeword():
    rvq = trained(commitment_weight=0.25).train()
    x = batch().transpose(0, 2, 1)
    books = rvq.codebooks
    result = rvq(batch(), RATE)
    left, losses = x.astype(np.float64), []
    for stage, codes in zip(books, result.codes, strict=True):
        losses.append(np.square(left - stage.codebook[codes]).mean())
        left = left - stage.codebook[codes]
    assert float(result.penalty) == pytest.approx(0.25 * np.mean(losses), rel=1e-5)
    assert float(rvq.eval()(batch(), RATE).penalty) == 0.0


def test_losses_under_dropout_average_over_the_rows_active_at_a_stage():
    rvq = trained(quantizer_dropout=True, commitment_weight=2.0).train()
    x, books = batch(b=6).transpose(0, 2, 1), rvq.codebooks
    result = rvq(batch(b=6), RATE)
    stages = np.round(np.asarray(result.bandwidth) / 0.15).astype(int)
    assert set(stages) == {1, 2, 3}
    left, losses, total = x.astype(np.float64), [], np.zeros_like(x)
    for q, (stage, codes) in enumerate(zip(books, result.codes, strict=True)):
        active = stages > q
        losses.append(np.square(left - stage.codebook[codes])[active].mean())
        left = left - stage.codebook[codes]
        total[active] += stage.codebook[codes][active]
    assert float(result.quantization_loss) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(result.penalty) == pytest.approx(2 * np.mean(losses), rel=1e-5)
    np.testing.assert_array_equal(result.quantized, total.transpose(0, 2, 1))


def test_statistics_under_dropout_use_all_rows():
    rvq = trained(quantizer_dropout=True, decay=0.0, threshold_ema_dead_code=0).train()
    rvq(batch(b=5, t=8), RATE)
    state = rvq.state_dict()
    for stage in range(3):
        assert state[f"vq.layers.{stage}._codebook.cluster_size"].sum() == 40


def test_decay_and_expiry_reach_the_training_step():
    x = batch(b=4, t=50)
    rvq = trained(decay=0.5, threshold_ema_dead_code=0).train()
    before = rvq.state_dict()["vq.layers.0._codebook.cluster_size"]
    counts = np.bincount(rvq(x, RATE).codes[0].ravel(), minlength=8)
    after = rvq.state_dict()["vq.layers.0._codebook.cluster_size"]
    np.testing.assert_allclose(after, 0.5 * before + 0.5 * counts, rtol=1e-6)

    state = rvq.state_dict()
    state["vq.layers.1._codebook.embed"][3] = 200  # planted: far from everything
    state["vq.layers.1._codebook.cluster_size"][3] = 0.1
    rvq = small(decay=0.99, threshold_ema_dead_code=2)
    rvq.load_state_dict(state)
    books = rvq.codebooks
    result = rvq(x, RATE)
    state = rvq.state_dict()
    codeword = state["vq.layers.1._codebook.embed"][3]
    residuals = x.transpose(0, 2, 1) - books.stages[0].codebook[result.codes[0]]
    assert np.abs(residuals - codeword).max(axis=2).min() == 0  # a vector stage 1 quantized
    assert state["vq.layers.1._codebook.cluster_size"][3] == 2
    np.testing.assert_array_equal(state["vq.layers.1._codebook.embed_avg"][3], 2 * codeword)


def test_relative_expiry_reaches_the_training_step():
    rvq = trained(relative_threshold=0.5).train()
    state = rvq.state_dict()
    state["vq.layers.0._codebook.cluster_size"][:] = [100, 100, 100, 100, 100, 100, 100, 20]
    rvq.load_state_dict(state)
    rvq(batch(b=1, t=2), RATE)
    sizes = rvq.state_dict()["vq.layers.0._codebook.cluster_size"]
    assert sizes[7] == pytest.approx(sizes.mean(), rel=0.2)
    assert sizes[7] > 80


def test_kmeans_iterations_reach_the_first_step():
    codewords = []
    for iterations in (0, 20):
        rvq = small(kmeans_iters=iterations, n_q=1, threshold_ema_dead_code=0, decay=1.0)
        rvq(batch(b=4, t=60), RATE)
        codewords.append(rvq.codebooks.stages[0].codebook)
    x = batch(b=4, t=60).transpose(0, 2, 1).reshape(-1, 6)
    distances = [np.abs(x[:, None] - each[None]).max(axis=2).min(axis=0) for each in codewords]
    assert distances[0].max() < 1e-4  # rows of the batch
    assert distances[1].max() > 0.1  # means


def test_without_kmeans_the_codewords_are_small_random_and_no_warning_is_due():
    rvq = small(kmeans_init=False).eval()
    assert rvq.is_initialized
    rvq.encode(batch(), RATE)
    assert np.abs(rvq.codebooks.stages[0].codebook).max() <= 1.0
    assert rvq.state_dict()["vq.layers.0._codebook.inited"] == 1
    codewords = rvq.codebooks.stages[0].codebook
    rvq.train()(batch(b=4, t=60), RATE)
    assert np.abs(rvq.codebooks.stages[0].codebook).max() < 5
    assert not np.array_equal(rvq.codebooks.stages[0].codebook, codewords)


def test_training_lowers_the_error():
    rvq = small(bins=16)
    x = batch(b=8, t=100)
    errors = [float(np.square(x - rvq(x, RATE).quantized).mean()) for _ in range(30)]
    assert errors[-1] < errors[0]
    assert errors[-1] < 0.35


def test_training_is_the_same_under_the_same_seed_and_differs_under_another():
    def states(seed):
        rvq = small(rng=seed, quantizer_dropout=0.5)
        for k in range(3):
            rvq(batch(seed=k), RATE)
        return rvq.state_dict()

    assert same_state(states(3), states(3))
    assert not same_state(states(3), states(4))
    assert same_state(states(3), states(np.random.default_rng(3)))


def test_fit_replaces_the_codewords_and_leaves_the_mode(tmp_path):
    x = batch(b=3, t=200)
    for layout in (x, x.transpose(0, 2, 1).reshape(-1, 6)):
        rvq = small().fit(layout)
        assert rvq.training
        assert rvq.is_initialized
        assert np.square(x - rvq.decode(rvq.encode(x, RATE))).mean() < 0.3
    np.save(tmp_path / "x.npy", layout)
    mapped = small().fit(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert same_state(mapped.state_dict(), rvq.state_dict())


def test_fit_shows_a_progress_bar_only_when_asked(capsys):
    seen = []
    small().fit(batch(), iterations=3, callback=seen.append)
    assert capsys.readouterr().err == ""
    assert {each.stage for each in seen} == {0, 1, 2}
    assert all(each.iterations == 3 for each in seen)
    small().fit(batch(), iterations=3, progress=True)
    assert "fit stage 3/3" in capsys.readouterr().err


def test_fit_without_tqdm_is_quiet(monkeypatch, capsys):
    import sys

    for name in ("tqdm", "tqdm.auto"):  # another test may have imported it
        monkeypatch.setitem(sys.modules, name, None)
    assert small().fit(batch(), iterations=3, progress=True).is_initialized
    assert capsys.readouterr().err == ""


def test_a_fit_that_fails_changes_nothing():
    rvq, x = small(), batch(b=3, t=200)
    before = rvq.state_dict()

    def stop(info):
        if info.stage == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rvq.fit(x, callback=stop)
    x[1, 2, 3] = np.nan
    with pytest.raises(NonFiniteError, match=r"fit: x holds nan at \(1, 2, 3\)"):
        rvq.fit(x)
    with pytest.raises(ShapeError, match=r"fit: x has shape \(9, 5\); expected \(N, 6\) or"):
        rvq.fit(np.ones((9, 5), np.float32))
    assert same_state(rvq.state_dict(), before)


# Mask ----------------------------------------------------------------------------------------


@given(npst.arrays(bool, (3, 7)), st.booleans(), st.sampled_from([False, 0.5]))
def test_padding_takes_part_in_nothing(mask, first, dropout):
    """Whatever is under the mask, poison included, nothing that comes out depends on it."""
    x = batch(b=3, t=7)
    poison = np.where(mask[:, None], x, np.nan)
    other = np.where(mask[:, None], x, np.inf)
    ours = [small(bins=4, quantizer_dropout=dropout) if first
            else trained(bins=4, quantizer_dropout=dropout).train() for _ in range(2)]  # fmt: skip
    results = [rvq(each, RATE, mask=mask) for rvq, each in zip(ours, (poison, other), strict=True)]
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
    assert same_state(ours[0].state_dict(), ours[1].state_dict())
    assert np.isfinite(results[0].quantized).all()


def test_a_masked_batch_trains_as_its_valid_vectors_alone():
    mask = np.arange(20)[None] < np.array([20, 6])[:, None]
    x = batch()
    rows = x.transpose(0, 2, 1)[mask]
    ours, alone = trained(threshold_ema_dead_code=0), trained(threshold_ema_dead_code=0)
    result, expected = ours.train()(x, RATE, mask=mask), alone.train()(rows, RATE)
    assert same_state(ours.state_dict(), alone.state_dict())
    assert float(result.penalty) == float(expected.penalty)
    np.testing.assert_array_equal(result.codes[:, mask], expected.codes)
    np.testing.assert_array_equal(result.quantized.transpose(0, 2, 1)[mask], expected.quantized)


def test_the_first_codewords_of_a_masked_batch_are_of_its_valid_vectors_alone():
    mask = np.arange(20)[None] < np.array([20, 6])[:, None]
    ours, alone = small(threshold_ema_dead_code=0), small(threshold_ema_dead_code=0)
    ours(batch(), RATE, mask=mask)
    alone(batch().transpose(0, 2, 1)[mask], RATE)
    assert ours.is_initialized
    assert same_state(ours.state_dict(), alone.state_dict())


def test_under_the_mask_comes_the_quantized_zero_vector():
    rvq, x = trained(), batch()
    mask = np.zeros((2, 20), bool)
    result = rvq(x, RATE, mask=mask)
    zero = rvq(np.zeros_like(x), RATE)
    np.testing.assert_array_equal(result.codes, zero.codes)
    np.testing.assert_array_equal(result.quantized, rvq.decode(result.codes))


def test_a_batch_without_a_vector_changes_nothing():
    for rvq in (small(), trained().train()):
        before = rvq.state_dict()
        for x, mask in ((batch(t=0), None), (batch(), np.zeros((2, 20), bool))):
            result = rvq(x, RATE, mask=mask)
            assert float(result.penalty) == 0.0
        assert same_state(rvq.state_dict(), before)


def test_a_mask_that_does_not_fit_is_refused():
    rvq, x = trained(), batch()
    for mask in (np.ones((2, 19), bool), np.ones(40, bool)):
        with pytest.raises(ShapeError, match=r"forward: mask has shape .*; expected \(2, 20\)"):
            rvq(x, RATE, mask=mask)
    with pytest.raises(DtypeError, match="forward: mask has dtype int64; expected bool"):
        rvq(x, RATE, mask=np.ones((2, 20), int))
    rows = x[0].T
    assert rvq(rows, RATE, mask=np.ones(20, bool)).codes.shape == (3, 20)
