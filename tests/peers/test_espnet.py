"""Parity with ESPnet's own class: what goes in, what comes out, and the state after training.

Proved against ``espnet2.gan_codec.shared.quantizer.residual_vq`` itself: state dicts go both
ways; eval codes are equal but for near-ties of float32; vectors and moving averages are equal up
to rounding; so are k-means, expiry and the first training step, given the same random choices.
Where the two differ on purpose: ``test_espnet_differences.py``.
"""

import itertools
import math
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from espnet2.gan_codec.shared.quantizer.modules import core_vq
from espnet2.gan_codec.shared.quantizer.residual_vq import ResidualVectorQuantizer as Espnet
from helpers import parity

import rvq_np
from rvq_np import train

# dimension, codebook_dim, n_q, bins, B, T
SHAPES = [
    (6, 6, 3, 8, 1, 40),
    (16, 16, 8, 33, 3, 37),
    (64, 64, 4, 256, 4, 250),
    (12, 4, 3, 16, 2, 51),
    (8, 20, 4, 24, 3, 65),
    (128, 8, 6, 128, 1, 301),
]
ids = "{0[0]}to{0[1]}-q{0[2]}-k{0[3]}-b{0[4]}-t{0[5]}".format
shapes = pytest.mark.parametrize("shape", SHAPES, ids=ids)
kmeans_module = sys.modules["rvq_np.train.kmeans"]  # the package's name for it is the function
learning_module = sys.modules["rvq_np.train.training"]


@pytest.fixture
def made(shape, rng):
    """Return ours, theirs, both in eval, and a batch as NumPy."""
    dimension, codebook_dim, n_q, bins, batch, length = shape
    theirs = parity.espnet(dimension, codebook_dim, n_q, bins).eval()
    return parity.ours_like(theirs), theirs, parity.normal(rng, batch, dimension, length)


@shapes
@pytest.mark.parametrize("stages", [1, 2, None])
def test_encode_gives_the_codes_of_espnet(made, stages):
    ours, theirs, x = made
    bandwidth = stages and stages * ours.get_bandwidth_per_quantizer(64)  # 64 Hz: exact
    codes = ours.encode(x, 64, bandwidth)
    assert codes.shape[0] == (stages or ours.n_q)
    parity.assert_codes_agree(codes, theirs.encode(torch.from_numpy(x), 64, bandwidth), x,
                              theirs.state_dict())  # fmt: skip


@shapes
def test_encode_from_a_later_stage_gives_the_codes_of_espnet(made):
    ours, theirs, x = made
    for st in (1, ours.n_q - 1):
        codes = ours.encode(x, 50, st=st)
        yours = theirs.encode(torch.from_numpy(x), 50, st=st)
        parity.assert_codes_agree(codes, yours, x, theirs.state_dict(), start=st)
    per_stage = ours.get_bandwidth_per_quantizer(64)
    codes = ours.encode(x, 64, 2 * per_stage, st=1)
    yours = theirs.encode(torch.from_numpy(x), 64, 2 * per_stage, st=1)
    assert codes.shape[0] == 1
    parity.assert_codes_agree(codes, yours, x, theirs.state_dict(), start=1)


def test_the_default_sizes_of_a_codec_give_the_codes_of_espnet(rng):
    theirs = parity.espnet(128, 128, 8, 1024).eval()
    x = parity.normal(rng, 2, 128, 401)
    codes = parity.ours_like(theirs).encode(x, 75)
    parity.assert_codes_agree(codes, theirs.encode(torch.from_numpy(x), 75), x, theirs.state_dict())


@pytest.fixture
def halfway():
    """Return theirs, and the vectors halfway between two codewords that have no nearer codeword."""
    theirs = parity.espnet(16, 16, 2, 64).eval()
    codewords = theirs.vq.layers[0]._codebook.embed.numpy().astype(np.float64)
    middles = [
        middle
        for a, b in itertools.combinations(range(64), 2)
        for middle in [(codewords[a] + codewords[b]) / 2]
        if set(np.square(middle - codewords).sum(axis=1).argsort()[:2]) == {a, b}
    ]
    return theirs, np.float32(middles).T[None]


def test_codes_at_near_ties_differ_from_espnet_only_where_float32_cannot_tell(halfway):
    """And where they differ ours is the nearer codeword: ESPnet's score is rounded, ours is not."""
    theirs, x = halfway
    codes = parity.ours_like(theirs).encode(x, 50)
    yours = theirs.encode(torch.from_numpy(x), 50).numpy()
    differing = parity.assert_codes_agree(codes, yours, x, theirs.state_dict(), rare=1)
    assert len(differing) > 0.1 * x.shape[2]
    codewords = theirs.vq.layers[0]._codebook.embed.numpy().astype(np.float64)
    rows = parity.as_rows(x).astype(np.float64)
    for n in differing[codes[0, 0, differing] != yours[0, 0, differing]]:
        mine, your = (
            np.square(rows[n] - codewords[k]).sum() for k in (codes[0, 0, n], yours[0, 0, n])
        )
        assert mine <= your + 1e-14 * your


@shapes
def test_a_wrong_code_is_no_near_tie(made, rng):
    """The comparison above can fail: one code moved to another codeword at random is noticed."""
    ours, theirs, x = made
    yours = theirs.encode(torch.from_numpy(x), 50).numpy()
    for stage in (0, ours.n_q - 1):
        codes = yours.copy()
        n, t = rng.integers(x.shape[0]), rng.integers(x.shape[2])
        codes[stage, n, t] = (codes[stage, n, t] + rng.integers(1, ours.bins)) % ours.bins
        with pytest.raises(AssertionError):
            parity.assert_codes_agree(codes, yours, x, theirs.state_dict(), rare=1)


@shapes
def test_decode_gives_the_vectors_of_espnet_for_every_prefix(made, rng):
    ours, theirs, x = made
    state = theirs.state_dict()
    codes = rng.integers(0, ours.bins, (ours.n_q, x.shape[0], x.shape[2]))
    for n in range(1, ours.n_q + 1):
        decoded = ours.decode(codes[:n])
        yours = theirs.decode(torch.from_numpy(codes[:n])).detach().numpy()
        assert decoded.dtype == yours.dtype
        if ours.dimension == ours.codebook_dim:  # the same additions in the same order
            np.testing.assert_array_equal(decoded, yours)
            continue
        exact, slack = parity.decode_slack(codes[:n].reshape(n, -1), state)
        assert (np.abs(parity.as_rows(decoded) - exact) <= slack).all()
        assert (np.abs(parity.as_rows(decoded) - parity.as_rows(yours)) <= slack).all()


@shapes
def test_eval_forward_gives_the_result_of_espnet(made):
    ours, theirs, x = made
    bandwidth = 2.5 * ours.get_bandwidth_per_quantizer(50)
    result, yours = ours(x, 50, bandwidth), theirs(torch.from_numpy(x), 50, bandwidth)
    assert len(result) == len(yours) == 4
    for mine, your in zip(result, yours, strict=True):
        assert mine.shape == tuple(your.shape)
    codes = yours[1].numpy()
    parity.assert_codes_agree(result.codes, codes, x, theirs.state_dict())
    same = (result.codes == codes).all(axis=0).reshape(-1)
    _, slack = parity.decode_slack(codes.reshape(len(codes), -1), theirs.state_dict())
    difference = parity.as_rows(result.quantized) - parity.as_rows(yours[0].detach().numpy())
    assert (np.abs(difference[same]) <= slack[same]).all()
    assert result.bandwidth == yours[2].item()
    assert result.bandwidth.dtype == np.float32
    assert result.penalty == yours[3].item() == 0


def test_eval_of_a_quantizer_with_dropout_gives_five_values_as_in_espnet(rng):
    ours, theirs = parity.pair(6, 6, 3, 8, quantizer_dropout=True)
    x = parity.normal(rng, 2, 6, 30)
    per_stage = ours.get_bandwidth_per_quantizer(64)
    result = ours.eval()(x, 64, 2 * per_stage)
    yours = theirs.eval()(torch.from_numpy(x), 64, 2 * per_stage)
    assert len(result) == len(yours) == 5
    np.testing.assert_array_equal(result.codes, yours[1].numpy())
    np.testing.assert_array_equal(result.quantized, yours[0].numpy())
    assert [float(each) for each in result[2:]] == [each.item() for each in yours[2:]]


@shapes
def test_state_dicts_have_the_same_names_order_shapes_and_types(made):
    ours, theirs, _ = made
    mine, yours = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(yours)
    for name, value in yours.items():
        assert mine[name].shape == tuple(value.shape)
        assert mine[name].dtype == value.numpy().dtype == np.float32
        np.testing.assert_array_equal(mine[name], value.numpy())


@pytest.mark.parametrize("codebook_dim", [6, 4])
def test_our_state_loads_into_espnet_and_gives_the_same_codes(codebook_dim, rng):
    x = parity.normal(rng, 2, 6, 45)
    ours = rvq_np.ResidualVectorQuantizer(6, codebook_dim, 3, 8, rng=1)
    ours(x, 50)
    theirs = Espnet(6, codebook_dim, 3, 8).eval()
    entries = {name: torch.from_numpy(value) for name, value in ours.state_dict().items()}
    assert str(theirs.load_state_dict(entries, strict=True)) == "<All keys matched successfully>"
    codes = ours.eval().encode(x, 50)
    assert len(np.unique(codes)) > 1
    parity.assert_codes_agree(codes, theirs.encode(torch.from_numpy(x), 50), x, ours.state_dict())


@pytest.mark.parametrize("kmeans_init", [True, False])
def test_whether_stages_are_initialized_is_stored_as_in_espnet(kmeans_init):
    theirs = Espnet(6, 6, 2, 8, kmeans_init=kmeans_init)
    ours = rvq_np.ResidualVectorQuantizer(6, 6, 2, 8, kmeans_init=kmeans_init, rng=0)
    for name, value in theirs.state_dict().items():
        if name.endswith("inited"):
            np.testing.assert_array_equal(ours.state_dict()[name], value.numpy())


@pytest.mark.parametrize("decay", [0.99, 0.7])
@pytest.mark.parametrize("epsilon", [1e-5, 1e-2])
@pytest.mark.parametrize("codebook_dim", [6, 4, 9])
def test_state_and_losses_after_training_steps_are_those_of_espnet(
    codebook_dim, epsilon, decay, rng
):
    """ESPnet computes in float64 here, so that little rounding hides a difference.

    An epsilon of 0.01 moves codewords by a share of up to 0.002: it cannot be left out.
    """
    theirs = parity.espnet(6, codebook_dim, 3, 12, double=True, decay=decay)
    for layer in theirs.vq.layers:
        layer._codebook.epsilon = epsilon
    ours = parity.ours_like(theirs, epsilon=epsilon)
    for step in range(4):
        x = parity.normal(rng, 3, 6, 51, dtype=np.float64)
        before = ours.state_dict()
        result, yours = ours(x, 50), theirs(torch.from_numpy(x), 50)
        # 12 codewords and 153 vectors: no near-tie among them.
        np.testing.assert_array_equal(result.codes, yours[1].numpy())
        # ESPnet's number goes through float32 on its way to the type of x.
        assert np.float32(result.bandwidth) == yours[2].item()
        assert result.bandwidth == 3 * np.log2(12) * 50 / 1000
        assert result.penalty.dtype == np.float64
        loss = yours[3].item()
        slack = parity.loss_slack(loss, x, before, step)
        assert result.penalty == pytest.approx(loss, rel=slack, abs=0)
        parity.assert_states_agree(ours, theirs, x, step + 1)


def test_state_and_losses_after_training_steps_in_float32_are_those_of_espnet(rng):
    ours, theirs = parity.pair(8, 8, 4, 16, decay=0.9)
    hits = 1
    for step in range(5):
        x = parity.normal(rng, 2, 8, 99)
        before = ours.state_dict()
        result, yours = ours(x, 43), theirs(torch.from_numpy(x), 43)
        np.testing.assert_array_equal(result.codes, yours[1].numpy())  # no near-tie in 3960
        assert result.bandwidth == yours[2].item()
        assert result.penalty.dtype == np.float32
        loss = yours[3].item()
        slack = parity.loss_slack(loss, x, before, step, hits)
        assert result.penalty == pytest.approx(loss, rel=slack, abs=0)
        stages = parity.stages_of(before)
        reach, drifts = max(parity.reaches(x, stages)), parity.drifts(x, stages, step, hits)
        # ESPnet forms x + (q - x) at each stage and once more for their sum, and adds them up.
        slack = sum(each.codebook for each in drifts) + parity.gamma(3 * 4 + 2) * reach
        assert np.abs(result.quantized - yours[0].detach().numpy()).max() <= slack
        hits = max(hits, *(np.bincount(codes.reshape(-1)).max() for codes in result.codes))
        parity.assert_states_agree(ours, theirs, x, step + 1, hits)


def test_bandwidth_is_obeyed_in_training_and_deeper_stages_stay_as_in_espnet(rng):
    ours, theirs = parity.pair(6, 6, 4, 8, double=True)
    x = parity.normal(rng, 2, 6, 40, dtype=np.float64)
    before = ours.state_dict()
    bandwidth = 2 * ours.get_bandwidth_per_quantizer(64)
    result, yours = ours(x, 64, bandwidth), theirs(torch.from_numpy(x), 64, bandwidth)
    assert result.codes.shape == tuple(yours[1].shape) == (2, 2, 40)
    assert result.bandwidth == bandwidth
    assert np.float32(bandwidth) == yours[2].item()
    slack = parity.loss_slack(result.penalty, x, before, 0)
    assert result.penalty == pytest.approx(yours[3].item(), rel=slack, abs=0)
    parity.assert_states_agree(ours, theirs, x, 1)
    for name, value in ours.state_dict().items():
        if not name.endswith("inited"):
            assert np.array_equal(value, before[name]) == (int(name.split(".")[2]) >= 2)


def test_padding_under_a_mask_trains_as_espnet_does_without_the_padding(rng):
    ours, theirs = parity.pair(6, 6, 3, 8, double=True)
    x = parity.normal(rng, 1, 6, 60, dtype=np.float64)
    mask = np.zeros((1, 60), bool)
    mask[:, rng.permutation(60)[:41]] = True
    kept = x[:, :, mask[0]]
    x[:, :, ~mask[0]] = np.nan
    result, yours = ours(x, 50, mask=mask), theirs(torch.from_numpy(kept), 50)
    np.testing.assert_array_equal(result.codes[:, :, mask[0]], yours[1].numpy())
    slack = parity.loss_slack(result.penalty, kept, ours.state_dict(), 0)
    assert result.penalty == pytest.approx(yours[3].item(), rel=slack, abs=0)
    parity.assert_states_agree(ours, theirs, kept, 1)


@pytest.mark.parametrize("codebook_dim", [6, 4])
def test_dropout_with_the_same_draws_quantizes_and_trains_as_espnet(codebook_dim, rng, monkeypatch):
    stages = np.array([1, 3, 2, 4, 1, 4])
    ours, theirs = parity.pair(6, codebook_dim, 4, 8, double=True, quantizer_dropout=True)
    monkeypatch.setattr(learning_module, "draw_stages", lambda groups, n_q, dropout, rng: stages)
    monkeypatch.setattr(core_vq.torch, "randint", lambda *range_and_shape: torch.from_numpy(stages))
    x = parity.normal(rng, 6, 6, 40, dtype=np.float64)
    before = ours.state_dict()
    result = ours(x, 50)
    quantized, codes, commit, quant = theirs.vq(torch.from_numpy(x))
    np.testing.assert_array_equal(result.codes, codes.numpy())
    # Ours sums float32 vectors, rounded once if projected; ESPnet's are float64.
    reach = max(parity.reaches(x, parity.stages_of(before)))
    difference = np.abs(result.quantized - quantized.detach().numpy()).max()
    assert difference <= 2 * parity.gamma(4) * 4 * reach
    # ESPnet divides a stage's loss by B, ours by the rows that are active at it.
    active = (stages[:, None] > np.arange(4)).sum(axis=0)
    assert active.tolist() == [6, 4, 3, 2]
    losses = commit.detach().numpy().ravel().astype(np.float64) * 6 / active
    slack = parity.loss_slack(losses.mean(), x, before, 0)
    assert result.penalty == pytest.approx(losses.mean(), rel=slack, abs=0)
    np.testing.assert_array_equal(quant.detach().numpy(), commit.detach().numpy())
    assert result.quantization_loss == result.penalty  # weight 1
    parity.assert_states_agree(ours, theirs, x, 1)  # statistics from all rows at every stage


CENTRES = np.array([[a, b, c, 0.0] for a in (-9, 9) for b in (-9, 9) for c in (-9, 9)])


@pytest.fixture
def nested(rng):
    """Return rows around 8 centres, around 8 finer ones around each; first codewords for 2 stages.

    So far apart are the groups of either stage that k-means from one row of each keeps them, and
    no rounding moves a row from one to another. The first codewords are row numbers, out of order.
    """
    coarse, fine = (grid.ravel() for grid in np.meshgrid(range(8), range(8)))
    coarse, fine = np.repeat(coarse, 5), np.repeat(fine, 5)
    order = rng.permutation(len(coarse))
    coarse, fine = coarse[order], fine[order]
    x = CENTRES[coarse] + CENTRES[fine] / 9 + 0.02 * rng.standard_normal((len(order), 4))
    starts = [
        rng.permutation([rng.choice(np.flatnonzero(group == k)) for k in range(8)])
        for group in (coarse, fine)
    ]
    return x.astype(np.float32), starts


def kmeans_of_both(x, start, iterations):
    """Return our state, and ESPnet's codebook computing in the type of `x`."""
    book = core_vq.EuclideanCodebook(4, len(start), kmeans_init=True, kmeans_iters=iterations)
    book.to(torch.from_numpy(x).dtype)
    book.sample_fn = lambda samples, count: torch.from_numpy(start)
    book.init_embed_(torch.from_numpy(x))
    state = train.kmeans(x, len(start), iterations, np.random.default_rng(0), start=start)
    np.testing.assert_array_equal(state.counts, book.cluster_size)
    assert state.initialized
    assert book.inited == 1
    return state, book


def assert_clusters_agree(state, book, x, roundings):
    """Assert that sums and codewords are equal but for that many roundings."""
    slack = parity.gamma(roundings) * np.abs(x).max()
    counts = book.cluster_size.numpy()[:, None]
    assert (np.abs(state.sums - book.embed_avg.numpy()) <= slack * counts).all()
    assert np.abs(state.codebook - book.embed.numpy()).max() <= slack


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("iterations", [1, 5])
def test_kmeans_of_separate_groups_gives_the_state_of_espnet(nested, dtype, iterations):
    x, (rows, _) = nested
    x = x.astype(dtype)
    state, book = kmeans_of_both(x, x[rows], iterations)
    np.testing.assert_array_equal(state.counts, np.full(8, 40))
    # Ours rounds once. In float32 ESPnet adds 40 rows, divides by their number and multiplies by
    # it, smooths the count (3) and divides by that.
    assert_clusters_agree(state, book, x, 1 if dtype == np.float64 else 1 + 40 + 2 + 4)


@pytest.mark.parametrize("iterations", [1, 2, 3, 4, 50])
def test_kmeans_of_one_cloud_gives_the_state_of_espnet_after_any_number_of_rounds(iterations, rng):
    """Vectors still change codewords in the first iterations, so that one iteration is missed."""
    x = parity.normal(rng, 300, 4, dtype=np.float64)
    start = x[rng.permutation(300)[:8]]
    state, book = kmeans_of_both(x, start, iterations)
    assert (state.counts > 0).all()
    assert_clusters_agree(state, book, x, 1)
    before, _ = kmeans_of_both(x, start, iterations - 1) if 1 < iterations < 50 else (None, None)
    assert before is None or (before.counts != state.counts).any()


def test_the_first_training_step_from_the_same_rows_is_that_of_espnet(nested, monkeypatch):
    x, starts = nested
    x = x.astype(np.float64)
    theirs = Espnet(4, 4, 2, 8, kmeans_iters=5).double()
    ours = rvq_np.ResidualVectorQuantizer(4, 4, 2, 8, kmeans_iters=5, rng=0)
    for layer, rows in zip(theirs.vq.layers, starts, strict=True):
        layer._codebook.sample_fn = lambda samples, count, rows=rows: samples[rows]
    left = iter(starts)
    monkeypatch.setattr(kmeans_module, "sample_rows", lambda n_rows, count, rng: next(left))
    batch = np.ascontiguousarray(x.reshape(4, 80, 4).swapaxes(1, 2))
    result, yours = ours(batch, 50), theirs(torch.from_numpy(batch), 50)
    assert next(left, None) is None
    np.testing.assert_array_equal(result.codes, yours[1].numpy())
    assert len(np.unique(result.codes[1])) == 8
    parity.assert_states_agree(ours, theirs, x, 2)  # k-means rounds as a step does
    slack = parity.loss_slack(yours[3].item(), x, theirs.state_dict(), 1)
    assert result.penalty == pytest.approx(yours[3].item(), rel=slack, abs=0)


@pytest.mark.parametrize("threshold", [0.5, 2, 3])
def test_expiry_with_the_same_vectors_gives_the_state_of_espnet(threshold, rng):
    book = core_vq.EuclideanCodebook(5, 10, threshold_ema_dead_code=threshold)
    book.embed.copy_(torch.from_numpy(parity.normal(rng, 10, 5)))
    book.embed_avg.copy_(torch.from_numpy(parity.normal(rng, 10, 5)))
    # At the threshold a codeword lives; just below, it does not.
    edge = np.float32(threshold)
    counts = np.array([0, 0.1, 1, 1.9, 2.5, 4, 9, 0.49, edge, np.nextafter(edge, 0)], np.float32)
    book.cluster_size.copy_(torch.from_numpy(counts))
    state = train.CodebookState(book.embed.numpy(), book.embed_avg.numpy(), counts, True)
    vectors = parity.normal(rng, 10, 5)
    asked = []

    def draw(count):
        asked.append(count)
        return vectors[:count]

    expired = train.expire(state, draw, threshold)
    book.sample_fn = lambda samples, count: samples[:count]
    book.expire_codes_(torch.from_numpy(vectors))
    assert asked == [int((counts < threshold).sum())]
    assert 0 < asked[0] < 10
    # Products with these thresholds are exact or round once on both sides: the same bits.
    np.testing.assert_array_equal(expired.codebook, book.embed)
    np.testing.assert_array_equal(expired.sums, book.embed_avg)
    np.testing.assert_array_equal(expired.counts, book.cluster_size)


def test_a_threshold_of_zero_expires_nothing_as_in_espnet(rng):
    book = core_vq.EuclideanCodebook(3, 4, threshold_ema_dead_code=0)
    state = train.CodebookState(np.eye(4, 3), np.eye(4, 3), np.zeros(4), True)
    book.cluster_size.zero_()
    codewords = book.embed.clone()
    book.expire_codes_(torch.ones(2, 3))
    assert torch.equal(book.embed, codewords)
    assert train.expire(state, lambda count: np.ones((count, 3)), 0) is state


@pytest.mark.parametrize("codebook_dim", [6, 4])
def test_training_steps_that_expire_codewords_are_those_of_espnet(codebook_dim, rng, monkeypatch):
    """Expiry comes after the averages, replaces sum and count as well, and the next step knows."""
    theirs = parity.espnet(6, codebook_dim, 3, 12, double=True, threshold_ema_dead_code=4)
    for layer in theirs.vq.layers:
        book = layer._codebook
        book.cluster_size[:4] = torch.tensor([0.5, 1.0, 2.0, 3.0])
        book.embed_avg.copy_((book.embed * book.cluster_size[:, None]).float())  # as ours holds it
    ours = parity.ours_like(theirs)
    rows = rng.permutation(80)
    for layer in theirs.vq.layers:
        layer._codebook.sample_fn = lambda samples, count: samples[rows[:count]]
    drawn = []

    def sample_rows(n_rows, count, rng):
        assert n_rows == 80
        drawn.append(count)
        return rows[:count]

    monkeypatch.setattr(learning_module, "sample_rows", sample_rows)
    for step in range(3):
        x = parity.normal(rng, 2, 6, 40, dtype=np.float64)
        result, yours = ours(x, 50), theirs(torch.from_numpy(x), 50)
        np.testing.assert_array_equal(result.codes, yours[1].numpy())
        parity.assert_states_agree(ours, theirs, x, step + 1)
    assert len(drawn) >= 3
    assert 0 < sum(drawn) < 3 * 3 * 12


RATES = (12.5, 21.5, 25, 40, 43, 50, 75, 80, 86, 100, 150)


@pytest.mark.parametrize("bins", [2, 10, 256, 1000, 1024, 2**14])
def test_bandwidth_per_stage_is_that_of_espnet(bins):
    theirs = Espnet(2, 2, 1, bins)
    ours = rvq_np.ResidualVectorQuantizer(2, 2, 1, bins, rng=0)
    for rate in (*RATES, 1, 44100 / 512, 16000, 44100):
        mine = ours.get_bandwidth_per_quantizer(rate)
        assert mine == theirs.get_bandwidth_per_quantizer(rate)
        # One rounding each for the logarithm, the product and the quotient, in float64.
        assert mine == pytest.approx(math.log(bins, 2) * rate / 1000, rel=8e-16, abs=0)


@pytest.mark.parametrize("bins", [256, 1000, 1024])
def test_stages_for_a_bandwidth_between_two_stages_are_those_of_espnet(bins):
    theirs, n_q = Espnet(2, 2, 16, bins), 16
    ours = rvq_np.ResidualVectorQuantizer(2, 2, n_q, bins, rng=0)
    for rate in (*RATES, 16000):
        per_stage = ours.get_bandwidth_per_quantizer(rate)
        for stages in (0.01, 0.5, 0.999, 1.001, 1.5, 2.01, 7.99, 15.5, 15.999):
            mine = ours.get_num_quantizers_for_bandwidth(rate, stages * per_stage)
            assert mine == theirs.get_num_quantizers_for_bandwidth(rate, stages * per_stage)
            assert mine == max(1, math.floor(stages))
        for everything in (None, 0, 0.0):
            assert ours.get_num_quantizers_for_bandwidth(rate, everything) == n_q
            assert theirs.get_num_quantizers_for_bandwidth(rate, everything) == n_q


def test_no_stage_is_lost_on_2464_exact_bitrates_where_espnet_loses_313():
    lost = total = 0
    for bits in range(8, 15):
        ours = rvq_np.ResidualVectorQuantizer(1, 1, 32, 2**bits, rng=0)
        theirs = Espnet(1, 1, 32, 2**bits)
        for rate in RATES:
            for n in range(1, 33):
                exact = float(Fraction(rate) * bits * n / 1000)  # as one types it: nearest
                assert ours.get_num_quantizers_for_bandwidth(rate, exact) == n
                found = theirs.get_num_quantizers_for_bandwidth(rate, exact)
                assert found in (n, n - 1)
                lost += found == n - 1
                total += 1
    assert (lost, total) == (313, 2464)
