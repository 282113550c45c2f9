"""Where we differ from ESPnet on purpose: each test shows what its class does, and what ours does.

If ESPnet mends one of these, its half of the test fails, and the documentation wants a change.
"""

import itertools

import numpy as np
import pytest
import torch
from espnet2.gan_codec.shared.quantizer.residual_vq import ResidualVectorQuantizer as Espnet
from helpers import parity

import rvq_np
from rvq_np.errors import CodeRangeError, LevelsError, NonFiniteError, NotInitializedWarning


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def codewords_of(theirs, stage=0):
    return theirs.vq.layers[stage]._codebook.embed.numpy()


def assert_unchanged(quantizer, before):
    for name, value in quantizer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_espnet_loses_a_stage_to_rounding_and_ours_does_not():
    theirs = Espnet(6, 6, 8, 1024)
    ours = rvq_np.ResidualVectorQuantizer(6, 6, 8, 1024, rng=0)
    # Three stages of 10 bits at 40 Hz are exactly 1.2 kb/s; 1.2 / 0.4 rounds to below 3.
    assert theirs.get_num_quantizers_for_bandwidth(40, 1.2) == 2
    assert ours.get_num_quantizers_for_bandwidth(40, 1.2) == 3
    x = torch.zeros(1, 6, 5)
    assert len(theirs.eval().encode(x, 40, 1.2)) == 2
    with pytest.warns(NotInitializedWarning):
        assert len(ours.eval().encode(x, 40, 1.2)) == 3


def test_asked_for_more_bandwidth_than_there_is_ours_reports_what_it_delivers(rng):
    ours, theirs = parity.pair(6, 6, 3, 8)
    x = parity.normal(rng, 1, 6, 40)
    most = ours.get_bandwidth_per_quantizer(50) * 3
    assert most == pytest.approx(0.45, rel=1e-15)
    for mode in (False, True):
        result = ours.train(mode)(x, 50, 1.5)
        yours = theirs.train(mode)(torch.from_numpy(x), 50, 1.5)
        assert result.codes.shape == tuple(yours[1].shape) == (3, 1, 40)
        assert yours[2].item() == 1.5
        assert result.bandwidth == np.float32(most)
    assert theirs.get_num_quantizers_for_bandwidth(50, 1.5) == 10
    assert ours.get_num_quantizers_for_bandwidth(50, 1.5) == 3


def test_eval_initializes_the_codewords_of_espnet_but_not_ours(rng):
    x = parity.normal(rng, 2, 6, 40)
    theirs = Espnet(6, 6, 2, 8).eval()
    assert not codewords_of(theirs).any()
    theirs(torch.from_numpy(x), 50)
    assert codewords_of(theirs).any(axis=1).all()
    assert theirs.vq.layers[0]._codebook.inited == 1
    ours = rvq_np.ResidualVectorQuantizer(6, 6, 2, 8, rng=0).eval()
    before = ours.state_dict()
    with pytest.warns(NotInitializedWarning):
        ours(x, 50)
    assert not ours.is_initialized
    assert_unchanged(ours, before)


def test_fresh_codewords_are_zeros_in_espnet_and_random_in_ours(rng):
    x = parity.normal(rng, 1, 6, 40)
    theirs = Espnet(6, 6, 2, 8).eval()
    assert not theirs.encode(torch.from_numpy(x), 50).any()
    ours = rvq_np.ResidualVectorQuantizer(6, 6, 2, 8, rng=0).eval()
    with pytest.warns(NotInitializedWarning):
        codes = ours.encode(x, 50)
    assert len(np.unique(codes)) == 8


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("codebook_dim", [6, 4])
def test_one_bad_number_ruins_espnet_and_is_refused_by_ours(bad, codebook_dim, rng):
    ours, theirs = parity.pair(6, codebook_dim, 3, 8)
    x = parity.normal(rng, 2, 6, 40)
    x[1, 4, 7] = bad
    theirs(torch.from_numpy(x), 50)
    for stage in range(3):  # in at least one dimension no codeword is left
        assert (~np.isfinite(codewords_of(theirs, stage))).all(axis=0).any()
    before = ours.state_dict()
    for call in (ours, ours.encode, lambda x, rate: ours.fit(x)):
        with pytest.raises(NonFiniteError, match=r"holds (nan|-?inf)"):
            call(x, 50)
        assert_unchanged(ours, before)
    x[1, 4, 7] = 0
    fresh = parity.ours_like(parity.espnet(6, codebook_dim, 3, 8))  # what it was at first
    np.testing.assert_array_equal(ours(x, 50).quantized, fresh(x, 50).quantized)


@pytest.mark.parametrize("kind", ["fewer vectors than codewords", "many repeats"])
def test_codewords_without_vectors_are_zero_in_espnet_and_vectors_in_ours(kind, rng):
    points, bins = (6, 16) if kind == "fewer vectors than codewords" else (3, 8)
    x = 3 + np.abs(parity.normal(rng, points, 4))  # far from zero
    rows = x if points == 6 else np.repeat(x, 20, axis=0)
    batch = np.ascontiguousarray(rows.T[None])
    theirs = Espnet(4, 4, 1, bins, threshold_ema_dead_code=0)
    theirs(torch.from_numpy(batch), 50)
    zeros = (codewords_of(theirs) == 0).all(axis=1)
    assert zeros.sum() >= bins - points
    for seed in range(10):
        ours = rvq_np.ResidualVectorQuantizer(4, 4, 1, bins, threshold_ema_dead_code=0, rng=seed)
        for _ in range(3):
            ours(batch, 50)
        codewords = ours.codebooks.stages[0].codebook
        assert (ours.state_dict()["vq.layers.0._codebook.cluster_size"] > 0).all()
        # Means of vectors of the batch: up to rounding and smoothing (1e-5 of a count), inside.
        assert (codewords >= x.min(axis=0) * (1 - 1e-4)).all()
        assert (codewords <= x.max(axis=0) * (1 + 1e-4)).all()


def test_an_unused_codeword_stays_in_ours_and_shrinks_to_zero_in_espnet():
    """Idle for long, its count sinks to epsilon, which then is all it is divided by."""
    theirs = parity.espnet(2, 2, 1, 2, decay=0.5)
    book = theirs.vq.layers[0]._codebook
    book.embed.copy_(torch.tensor([[0.0, 0.0], [50.0, 0.0]]))
    book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
    ours = parity.ours_like(theirs)
    x = np.zeros((1, 2, 8), np.float32)
    for _ in range(60):
        ours(x, 50)
        theirs(torch.from_numpy(x), 50)
    assert np.abs(codewords_of(theirs)[1]).max() < 1e-3
    # It is held from a count of 0.001 on, where smoothing has moved it by 0.02 at most.
    np.testing.assert_allclose(ours.codebooks.stages[0].codebook[1], [50, 0], rtol=0.02)


def test_a_fresh_state_without_kmeans_explodes_in_espnet_and_not_in_ours(rng):
    x = parity.normal(rng, 1, 4, 20)
    arguments = {"kmeans_init": False, "threshold_ema_dead_code": 0}
    theirs = Espnet(4, 4, 1, 64, **arguments)
    largest = np.abs(codewords_of(theirs)).max()
    theirs(torch.from_numpy(x), 50)
    assert np.abs(codewords_of(theirs)).max() > 1000 * largest
    ours = rvq_np.ResidualVectorQuantizer(4, 4, 1, 64, rng=0, **arguments)
    largest = max(np.abs(ours.codebooks.stages[0].codebook).max(), np.abs(x).max())
    for _ in range(5):
        ours(x, 50)
        # A mean of old codewords and vectors; smoothing adds epsilon to counts of about one.
        assert np.abs(ours.codebooks.stages[0].codebook).max() <= largest * (1 + 1e-4)


def test_ours_is_not_blown_up_by_the_fresh_state_of_espnet_either(rng):
    """Counts of zero beside sums that are not: as a checkpoint, before the first step."""
    x = parity.normal(rng, 1, 4, 20)
    theirs = Espnet(4, 4, 1, 64, kmeans_init=False, threshold_ema_dead_code=0)
    ours = parity.ours_like(theirs)
    largest = max(np.abs(codewords_of(theirs)).max(), np.abs(x).max())
    theirs(torch.from_numpy(x), 50)
    assert np.abs(codewords_of(theirs)).max() > 1000 * largest
    ours(x, 50)
    # Codewords that were hit are means of vectors; of so few counts smoothing takes a share.
    total = ours.state_dict()["vq.layers.0._codebook.cluster_size"].sum()
    assert total == pytest.approx(0.2, rel=1e-6)  # 20 vectors, a hundredth of each
    smoothing = 1 + 64 * 1e-5 / total
    assert np.abs(ours.codebooks.stages[0].codebook).max() <= largest * smoothing * (1 + 1e-6)


def stages_used(quantized, codes, state_dict):
    """Return which prefix of the stages adds up to each row ``(D, T)`` of `quantized`."""
    prefixes = []
    for row, row_codes in zip(quantized, codes.swapaxes(0, 1), strict=True):
        sums = np.cumsum(
            [
                state_dict[f"vq.layers.{n}._codebook.embed"][each].T
                for n, each in enumerate(row_codes)
            ],
            axis=0,
        )
        prefixes.append(1 + int(np.abs(sums - row).max(axis=(1, 2)).argmin()))
    return prefixes


def test_dropout_spares_a_batch_of_one_in_espnet_and_half_the_time_drops_it_in_ours(rng):
    ours, theirs = parity.pair(6, 6, 4, 8, quantizer_dropout=0.5, decay=1.0)
    state = ours.state_dict()  # kept by a decay of 1
    per_stage = ours.get_bandwidth_per_quantizer(64)
    x = parity.normal(rng, 1, 6, 10)
    drawn, draws = [], 400
    for _ in range(draws):
        result = ours(x, 64)
        used = stages_used(result.quantized, result.codes, state)
        assert result.bandwidth.tolist() == [np.float32(per_stage * n) for n in used]
        drawn += used
    for _ in range(40):
        quantized, codes, *_ = theirs(torch.from_numpy(x), 64)
        assert stages_used(quantized.numpy(), codes.numpy(), state) == [4]
    # Dropped with probability 1/2, then 1 to 4: 1/8 each for 1, 2, 3. Six standard deviations.
    for stages in (1, 2, 3):
        assert abs(drawn.count(stages) - draws / 8) < 6 * np.sqrt(draws * 7 / 64)
    assert abs(drawn.count(4) - draws * 5 / 8) < 6 * np.sqrt(draws * 15 / 64)


def test_dropout_takes_the_first_rows_in_espnet_and_any_in_ours(rng):
    ours, theirs = parity.pair(6, 6, 4, 8, quantizer_dropout=0.5, decay=1.0)
    state = ours.state_dict()
    x = parity.normal(rng, 6, 6, 10)
    mine, yours = [], []
    for _ in range(60):
        result = ours(x, 64)
        mine.append(stages_used(result.quantized, result.codes, state))
        quantized, codes, *_ = theirs(torch.from_numpy(x), 64)
        yours.append(stages_used(quantized.numpy(), codes.numpy(), state))
    mine, yours = np.array(mine), np.array(yours)
    assert (yours[:, 3:] == 4).all()
    assert (yours[:, :3].min(axis=0) == 1).all()
    assert ((mine < 4).sum(axis=1) <= 3).all()
    assert (mine.min(axis=0) == 1).all()


def test_dropout_obeys_the_bandwidth_in_ours_and_espnet_reports_what_it_did_not_do(rng):
    ours, theirs = parity.pair(6, 6, 4, 8, quantizer_dropout=True)
    x = parity.normal(rng, 5, 6, 10)
    one = ours.get_bandwidth_per_quantizer(64)
    _, codes, bandwidth, *_ = theirs(torch.from_numpy(x), 64, one)
    assert len(codes) == 4
    assert bandwidth.item() == np.float32(one)
    result = ours(x, 64, 2 * one)
    assert len(result.codes) == 2
    assert set(result.bandwidth.tolist()) <= {np.float32(one), np.float32(2 * one)}


def test_the_training_output_is_exactly_what_the_codes_decode_to_in_ours_only(rng):
    ours, theirs = parity.pair(6, 6, 4, 8)
    x = parity.normal(rng, 2, 6, 40)
    before = rvq_np.ResidualVectorQuantizer(6, 6, 4, 8, rng=0)
    before.load_state_dict(theirs.state_dict())
    result = ours(x, 50)
    np.testing.assert_array_equal(result.quantized, before.decode(result.codes))
    quantized, codes, *_ = theirs(torch.from_numpy(x), 50)
    assert (quantized.numpy() != before.decode(codes.numpy())).any()


def test_only_ours_decodes_from_a_later_stage(rng):
    ours, theirs = parity.pair(6, 6, 4, 8)
    x = parity.normal(rng, 2, 6, 40)
    codes = ours.encode(x, 50, st=2)
    with pytest.raises(TypeError, match="st"):
        theirs.decode(torch.from_numpy(codes), st=2)
    decoded = ours.decode(codes, st=2)
    codewords = [codewords_of(theirs, stage) for stage in (2, 3)]
    np.testing.assert_array_equal(
        parity.as_rows(decoded).reshape(2, 40, 6), codewords[0][codes[0]] + codewords[1][codes[1]]
    )
    # ESPnet takes the codes for those of the first stages.
    wrong = theirs.decode(torch.from_numpy(codes)).numpy()
    np.testing.assert_array_equal(wrong, ours.decode(codes))
    assert np.abs(wrong - decoded).max() > 1


@pytest.mark.parametrize("kmeans_init", [True, False])
@pytest.mark.parametrize("dropout", [False, 0.5])
def test_training_on_nothing_raises_in_espnet_and_changes_nothing_in_ours(kmeans_init, dropout):
    arguments = {"kmeans_init": kmeans_init, "quantizer_dropout": dropout}
    theirs = Espnet(6, 6, 3, 8, **arguments)
    ours = rvq_np.ResidualVectorQuantizer(6, 6, 3, 8, rng=0, **arguments)
    before = ours.state_dict()
    with pytest.raises(RuntimeError):
        theirs(torch.zeros(2, 6, 0), 50)
    result = ours(np.zeros((2, 6, 0), np.float32), 50)
    assert result.quantized.shape == (2, 6, 0)
    assert result.codes.shape == (3, 2, 0)
    assert result.penalty == 0
    assert_unchanged(ours, before)


def test_decode_of_no_stages_keeps_its_shape_in_ours_only():
    ours, theirs = parity.pair(6, 6, 3, 8)
    codes = np.zeros((0, 2, 5), np.int64)
    assert theirs.decode(torch.from_numpy(codes)).shape == ()
    decoded = ours.decode(codes)
    assert decoded.shape == (2, 6, 5)
    assert not decoded.any()


@pytest.mark.parametrize(
    ("codes", "error"),
    [([[[-2]]], CodeRangeError), ([[[8]]], CodeRangeError), ([[[0]]] * 4, LevelsError)],
)
def test_codes_that_name_no_codeword_raise_in_both_and_ours_says_which(codes, error):
    ours, theirs = parity.pair(6, 6, 3, 8)
    with pytest.raises(IndexError):
        theirs.decode(torch.tensor(codes))
    with pytest.raises(error, match=r"code (-2|8) at \(0, 0, 0\)|4 rows.*3 stages"):
        ours.decode(np.array(codes))


def test_a_dropped_code_adds_nothing_in_ours_and_raises_in_theirs(rng):
    ours, theirs = parity.pair(6, 6, 3, 8)
    codes = rng.integers(0, 8, (3, 2, 5))
    without = codes.copy()
    without[1:] = -1
    with pytest.raises(IndexError):
        theirs.decode(torch.from_numpy(without))
    np.testing.assert_array_equal(ours.decode(without), ours.decode(codes[:1]))


def test_a_start_beyond_the_stages_in_use_raises_in_both_and_ours_says_why(rng):
    ours, theirs = parity.pair(6, 6, 3, 8)
    x = parity.normal(rng, 1, 6, 5)
    with pytest.raises(RuntimeError, match="non-empty"):
        theirs.encode(torch.from_numpy(x), 50, st=3)
    with pytest.raises(LevelsError, match="st is 3; expected 0 to 2"):
        ours.encode(x, 50, st=3)


def test_a_relative_threshold_spares_codewords_that_espnet_replaces_at_every_step():
    """With one vector a codeword, an absolute threshold of 2 replaces most codewords, for ever."""

    def turnover(quantizer, codewords, convert):
        rng, lost = np.random.default_rng(1), []
        for step in range(60):
            before = codewords(quantizer).copy()
            quantizer(convert(parity.normal(rng, 1, 4, 64)), 50)
            moved = np.abs(codewords(quantizer) - before).max(axis=1)
            if step >= 40:
                lost.append((moved > 0.3).sum())  # a moving average moves by some 0.01
        return np.mean(lost)

    def ours_codewords(quantizer):
        return quantizer.codebooks.stages[0].codebook

    theirs = turnover(Espnet(4, 4, 1, 64), codewords_of, torch.from_numpy)
    ours = rvq_np.ResidualVectorQuantizer(4, 4, 1, 64, relative_threshold=0.1, rng=0)
    assert theirs >= 20
    assert turnover(ours, ours_codewords, np.asarray) <= 1


def test_untrained_projections_destroy_the_input_in_espnet_and_not_in_ours(rng):
    """A wider codebook than the vectors loses nothing; ESPnet's way back is drawn independently."""
    x = parity.normal(rng, 4, 6, 100)
    ours = rvq_np.ResidualVectorQuantizer(6, 16, 4, 32, rng=0)
    theirs = Espnet(6, 16, 4, 32)
    ours(x, 50)
    theirs(torch.from_numpy(x), 50)
    mine = np.square(ours.eval()(x, 50).quantized - x).mean()
    your = np.square(theirs.eval()(torch.from_numpy(x), 50)[0].detach().numpy() - x).mean()
    energy = np.square(x).mean()
    assert mine < 0.3 * energy
    assert your > 0.9 * energy


def test_training_draws_from_the_quantizers_own_generator_and_not_from_torchs(rng):
    x = parity.normal(rng, 1, 6, 30)
    results = []
    for seed, torch_seed in itertools.product((0, 1), (0, 1)):
        torch.manual_seed(torch_seed)
        ours = rvq_np.ResidualVectorQuantizer(6, 6, 2, 8, rng=seed)
        theirs = Espnet(6, 6, 2, 8)
        theirs(torch.from_numpy(x), 50)
        results.append((ours(x, 50).quantized, codewords_of(theirs).copy()))
    mine, yours = zip(*results, strict=True)
    np.testing.assert_array_equal(mine[0], mine[1])
    assert (mine[0] != mine[2]).any()
    np.testing.assert_array_equal(yours[0], yours[2])
    assert (yours[0] != yours[1]).any()
