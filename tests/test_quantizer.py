"""The seed's class: every argument, every layout, every promise, every refusal."""

import inspect
import math
import warnings

import numpy as np
import pytest
from helpers import paths
from helpers.small_quantizers import RATE, batch, same_state, small, trained
from hypothesis import given
from hypothesis import strategies as st

import rvq_np
from rvq_np import NotInitializedWarning, QuantizedResult, ResidualVectorQuantizer
from rvq_np.errors import (
    BackendError,
    CodeRangeError,
    DtypeError,
    LevelsError,
    NonFiniteError,
    ParameterError,
    RvqError,
    ShapeError,
    StateError,
)

# The seed's own examples ---------------------------------------------------------------------


def test_the_signature_and_defaults_are_the_seeds_but_for_the_rule_of_dead_codewords():
    parameters = inspect.signature(ResidualVectorQuantizer).parameters
    seeds = {
        "dimension": 256, "codebook_dim": 512, "n_q": 8, "bins": 1024, "decay": 0.99,
        "kmeans_init": True, "kmeans_iters": 50, "threshold_ema_dead_code": None,
        "quantizer_dropout": False,
    }  # fmt: skip
    assert {name: parameters[name].default for name in seeds} == seeds
    assert list(parameters)[:9] == list(seeds)
    assert parameters["commitment_weight"].kind is inspect.Parameter.KEYWORD_ONLY


def test_the_seeds_documentation_examples_run():
    """With arrays for tensors. It prints 128.0 and 2, which contradicts its own formula."""
    quantizer = ResidualVectorQuantizer(dimension=256, n_q=8, bins=1024, rng=0)
    input_tensor = np.random.default_rng(0).standard_normal((10, 256)).astype(np.float32)
    result = quantizer(input_tensor, sample_rate=16000, bandwidth=256)
    assert isinstance(result, QuantizedResult)
    assert result.quantized.shape == (10, 256)
    assert result.codes.shape == (1, 10)
    assert float(result.bandwidth) == 160.0
    with pytest.warns(NotInitializedWarning):  # one stage was trained, all eight are used
        codes = quantizer.encode(input_tensor, sample_rate=16000)
    assert codes.shape == (8, 10)
    assert quantizer.decode(codes).shape == (10, 256)
    assert quantizer.get_bandwidth_per_quantizer(16000) == 160.0
    assert quantizer.get_num_quantizers_for_bandwidth(16000, bandwidth=256) == 1


# Layouts, types, kinds -----------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 6, 5), (1, 6, 1), (7, 6), (2, 6, 0), (0, 6, 3), (0, 6)])
@pytest.mark.parametrize("codebook_dim", [6, 4])
@pytest.mark.parametrize("dropout", [False, 0.5])
def test_shapes(training, shape, codebook_dim, dropout):
    rvq = trained(codebook_dim=codebook_dim, quantizer_dropout=dropout).train(training)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    result = rvq(x, RATE)
    codes_shape = (3, shape[0]) if len(shape) == 2 else (3, shape[0], shape[2])
    assert result.quantized.shape == shape
    assert result.codes.shape == codes_shape
    assert result.codes.dtype == np.int32
    assert result.bandwidth.shape == ((shape[0],) if training and dropout else ())
    assert result.penalty.shape == ()
    codes = rvq.encode(x, RATE)
    assert codes.shape == codes_shape
    assert rvq.decode(codes).shape == shape


def test_time_is_the_last_axis_and_vectors_the_middle_one():
    rvq, x = trained(), batch()
    codes = rvq.encode(x, RATE)
    rows = rvq.encode(x[1].T, RATE)
    np.testing.assert_array_equal(codes[:, 1], rows)
    np.testing.assert_array_equal(rvq.decode(codes)[1].T, rvq.decode(rows))
    np.testing.assert_array_equal(rows, rvq_np.encode(x[1].T, rvq.codebooks))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("training", [True, False])
def test_vectors_come_back_in_the_float_type_they_had(dtype, training):
    rvq = trained(quantizer_dropout=True).train(training)
    result = rvq(batch(dtype=dtype), RATE)
    assert result.quantized.dtype == dtype
    scalars = np.float64 if dtype == np.float64 else np.float32
    assert result.bandwidth.dtype == scalars
    assert result.penalty.dtype == result.quantization_loss.dtype == scalars


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dropout", [False, 0.5])
@pytest.mark.parametrize("device", ["CPU_DEVICE", "device1", "no_float64"])
def test_array_api_arrays_give_what_numpy_gives_on_their_device(training, dropout, device):
    import array_api_strict as xp

    where, x = xp.Device(device), batch()
    mask = np.arange(20)[None] < np.array([20, 9])[:, None]
    ours, theirs = (small(quantizer_dropout=dropout).train(training) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotInitializedWarning)
        expected = ours(x, RATE, mask=mask)
        result = theirs(xp.asarray(x, device=where), RATE, mask=xp.asarray(mask, device=where))
    for one, other in zip(expected, result, strict=True):
        assert other.device == where
        np.testing.assert_array_equal(np.from_dlpack(other), one)
    assert same_state(ours.state_dict(), theirs.state_dict())


def test_the_result_unpacks_as_the_seeds_tuple():
    quantized, codes, bandwidth, penalty = result = trained()(batch(), RATE)
    assert quantized is result.quantized
    assert codes is result[1]
    assert bandwidth is result.bandwidth
    assert penalty is result.penalty
    assert len(result) == 4
    assert result.quantization_loss is None
    dropped = trained(quantizer_dropout=True)(batch(), RATE)
    assert len(dropped) == len(tuple(dropped)) == 5
    assert dropped[4] is dropped.quantization_loss


def test_any_split_of_the_batch_gives_the_same_codes():
    for codebook_dim in (6, 4):
        rvq, x = trained(codebook_dim=codebook_dim), batch(b=5, t=33)
        codes = rvq.encode(x, RATE)
        one_by_one = [rvq.encode(x[b : b + 1, :, t : t + 1], RATE)
                      for b in range(5) for t in range(33)]  # fmt: skip
        np.testing.assert_array_equal(np.concatenate(one_by_one, axis=2).reshape(3, 5, 33), codes)


# Bandwidth -----------------------------------------------------------------------------------

RATES = [12.5, 21.5, 25, 40, 43, 50, 75, 80, 86, 100, 150]


def test_no_stage_is_lost_to_rounding_on_exact_bitrates():
    for bits in range(8, 15):
        rvq = small(n_q=32, bins=2**bits, dimension=1, codebook_dim=1)
        for rate in RATES:
            for n in range(1, 33):
                assert rvq.get_num_quantizers_for_bandwidth(rate, n * bits * rate / 1000) == n


@given(st.integers(1, 5000), st.floats(0.01, 1e5), st.floats(0, 1e6))
def test_stages_are_the_most_that_fit_at_least_one_at_most_all(bins, rate, bandwidth):
    rvq = small(n_q=5, bins=bins, dimension=1, codebook_dim=1)
    n = rvq.get_num_quantizers_for_bandwidth(rate, bandwidth)
    per_stage = rvq.get_bandwidth_per_quantizer(rate)
    assert per_stage == math.log2(bins) * rate / 1000
    assert 1 <= n <= 5
    if bandwidth > 0:
        assert n == 1 or n * per_stage <= bandwidth * (1 + 1e-6)
        assert n == 5 or (n + 1) * per_stage >= bandwidth * (1 - 1e-6)
    else:
        assert n == 5


def test_what_is_reported_is_what_is_delivered():
    rvq = trained()
    for asked, n in ((None, 3), (0, 3), (0.15, 1), (0.3, 2), (0.4, 2), (99.0, 3), (1e-9, 1)):
        result = rvq(batch(), RATE, asked)
        assert result.codes.shape[0] == n
        assert float(result.bandwidth) == pytest.approx(n * 0.15)
        assert rvq.encode(batch(), RATE, asked).shape[0] == n


def test_bandwidth_is_obeyed_in_training_too():
    rvq = small()
    before = rvq.state_dict()
    result = rvq(batch(), RATE, bandwidth=0.15)
    after = rvq.state_dict()
    assert result.codes.shape[0] == 1
    assert after["vq.layers.0._codebook.inited"] == 1
    for stage in (1, 2):
        names = [name for name in before if f"layers.{stage}." in name]
        assert len(names) == 4
        assert same_state({n: before[n] for n in names}, {n: after[n] for n in names})
    dropped = small(quantizer_dropout=True)(batch(b=50), RATE, bandwidth=0.3)
    assert set(np.round(dropped.bandwidth, 2)) == {np.float32(0.15), np.float32(0.3)}


def test_the_sample_rate_matters_for_bandwidth_only():
    """`rvq.encode(x)` failed for want of a rate that means nothing to most."""
    rvq, x = trained(), batch()
    codes = rvq.encode(x)
    np.testing.assert_array_equal(codes, rvq.encode(x, RATE))
    np.testing.assert_array_equal(rvq.decode(codes), rvq(x).quantized)
    for n in (1, 2, 3):
        result = rvq(x, n_q=n)
        assert float(result.bandwidth) == 3 * n  # bits per vector: log2(8) a stage
        np.testing.assert_array_equal(result.codes, codes[:n])
        np.testing.assert_array_equal(rvq.encode(x, n_q=n), codes[:n])
        np.testing.assert_array_equal(rvq.decode(codes, n_q=n), rvq.decode(codes[:n]))
        np.testing.assert_array_equal(result.quantized, rvq.decode(codes, n_q=n))
        assert float(rvq(x, RATE, n_q=n).bandwidth) == pytest.approx(0.15 * n)
        np.testing.assert_array_equal(rvq(x, RATE, 0.15 * n).codes, codes[:n])  # by place, as ever
    np.testing.assert_array_equal(rvq.encode(x, st=1, n_q=2), rvq.encode(x, RATE, 0.3, 1))
    np.testing.assert_array_equal(rvq.decode(codes[1:], st=1, n_q=2), rvq.decode(codes[1:2], st=1))
    sized = small(n_q=3, bins=(8, 1, 4), kmeans_init=False).eval()
    assert [float(sized(x, n_q=n).bandwidth) for n in (1, 2, 3)] == [3, 3, 5]
    learning = small()
    assert learning(x, n_q=2).codes.shape[0] == 2
    assert [state.initialized for state in learning._states] == [True, True, False]


def test_numbers_of_stages_that_do_not_fit_are_refused():
    rvq, x = trained(), batch()
    codes = rvq.encode(x, n_q=2)
    for call in (rvq, rvq.encode):
        with pytest.raises(ParameterError, match=r"got bandwidth=0\.3 and n_q=2; expected one"):
            call(x, RATE, 0.3, n_q=2)
        with pytest.raises(ParameterError, match=r"got bandwidth=0\.3 and no sample_rate; exp"):
            call(x, bandwidth=0.3)
        for wrong in (0, 4, -1, 1.0, "2", True):
            with pytest.raises(
                LevelsError, match=r"n_q is .*; expected 1 to 3, as there are 3 stages"
            ):
                call(x, n_q=wrong)
    with pytest.raises(
        LevelsError, match="decode: n_q is 3, and codes are of the stages 0 to 1; e"
    ):
        rvq.decode(codes, n_q=3)
    with pytest.raises(LevelsError, match="decode: n_q is 1; expected 2 to 3"):
        rvq.decode(codes, st=1, n_q=1)
    with pytest.raises(LevelsError, match="encode: st is 2; expected 0 to 1"):
        rvq.encode(x, st=2, n_q=2)


# st ------------------------------------------------------------------------------------------


def test_stages_from_st_on_take_the_input_for_a_residual_and_decode_mirrors_it():
    rvq, x = trained(), batch()
    codes = rvq.encode(x, RATE)
    left = x - rvq.decode(codes[:1])
    later = rvq.encode(left, RATE, st=1)
    np.testing.assert_array_equal(later, codes[1:])
    np.testing.assert_allclose(
        rvq.decode(codes[:1]) + rvq.decode(later, st=1), rvq.decode(codes), atol=1e-6
    )
    np.testing.assert_array_equal(
        rvq.decode(codes[2:3], st=2).transpose(0, 2, 1),
        rvq.codebooks.stages[2].codebook[codes[2]],
    )
    np.testing.assert_array_equal(rvq.encode(x, RATE, st=0), codes)
    for start in (3, -1, 1.0, True):
        with pytest.raises(LevelsError, match=r"encode: st is .*; expected 0 to 2"):
            rvq.encode(x, RATE, st=start)
        with pytest.raises(LevelsError, match=r"decode: st is .*; expected 0 to 2"):
            rvq.decode(codes, st=start)
    with pytest.raises(LevelsError, match=r"encode: st is 1; expected 0 to 0"):
        rvq.encode(x, RATE, bandwidth=0.15, st=1)
    with pytest.raises(LevelsError, match="codes have 3 rows, one per stage, but there are 2"):
        rvq.decode(codes, st=1)


# Warnings and refusals -----------------------------------------------------------------------


def test_random_codewords_work_and_warn_once():
    rvq = small()
    with pytest.warns(NotInitializedWarning, match="never trained or loaded: their codewords are"):
        codes = rvq.encode(batch(), RATE)
    assert len(np.unique(codes)) > 1
    rvq.decode(codes)
    rvq.eval()(batch(), RATE)  # silent from now on: any warning is an error here
    with pytest.warns(NotInitializedWarning):
        small().decode(codes)


@pytest.mark.parametrize("training", [True, False])
def test_refused_input_leaves_everything_as_it_was(training):
    rvq = trained(quantizer_dropout=0.5).train(training)
    before = rvq.state_dict()
    drawn = rvq._rng.bit_generator.state

    def refused(error, message, x, *arguments, **options):
        for call in (rvq, rvq.encode):
            with pytest.raises(error, match=message) as caught:
                call(x, *arguments, **options)
            assert isinstance(caught.value, RvqError)

    x = batch()
    refused(ShapeError, r": x has shape \(2, 5, 20\); expected \(B, 6, T\) or \(N, 6\)", x[:, :5],
            RATE)  # fmt: skip
    refused(ShapeError, r": x has shape \(6,\)", x[0, :, 0], RATE)
    refused(ShapeError, r": x has shape \(1, 2, 6, 20\)", x[None], RATE)
    refused(DtypeError, ": x has dtype int32; expected floating", x.astype(np.int32), RATE)
    refused(BackendError, r"builtins\.list", [[1.0] * 6], RATE)
    for value in (np.nan, np.inf, -np.inf):
        bad = x.copy()
        bad[1, 4, 7] = value
        bad[1, 5, 2] = value
        refused(NonFiniteError, rf": x holds {value} at \(1, 4, 7\); expected finite", bad, RATE)
    for rate in (0, -1, np.nan, np.inf, "50"):
        refused(ParameterError, r"sample_rate is .*; expected a positive number", x, rate)
    for bandwidth in (-1, np.nan, np.inf, "6"):
        refused(ParameterError, r"bandwidth is .*; expected kb/s from 0", x, RATE, bandwidth)
    with pytest.raises(ParameterError, match="encode: beam_size is 0"):
        rvq.encode(x, RATE, beam_size=0)
    assert same_state(rvq.state_dict(), before)
    assert rvq._rng.bit_generator.state == drawn


@pytest.mark.parametrize("scale", [1e37, 1e38])
def test_vectors_too_large_to_add_up_in_float32_are_refused(scale):
    rvq, x = small(bins=2, n_q=4), batch(b=1, t=500)
    x = (np.sign(x) * scale).astype(np.float32)
    before = rvq.state_dict()
    for call in (lambda: rvq(x, RATE), lambda: rvq.fit(x)):
        with pytest.raises(NonFiniteError, match=r"beyond float32|may overflow"):
            call()
        assert same_state(rvq.state_dict(), before)


def test_refused_codes():
    rvq = trained()
    codes = np.zeros((3, 2, 4), np.int64)
    with pytest.raises(ShapeError, match=r"decode: codes have shape \(4,\); expected \(n, B, T\)"):
        rvq.decode(codes[0, 0])
    with pytest.raises(DtypeError, match="decode: codes have dtype float64; expected integers"):
        rvq.decode(codes * 1.0)
    with pytest.raises(LevelsError, match="decode: codes have 4 rows"):
        rvq.decode(np.zeros((4, 2, 4), int))
    for code in (-2, 8):
        codes[1, 0, 2] = code
        with pytest.raises(CodeRangeError, match=rf"code {code} at \(1, 0, 2\) names no codeword"):
            rvq.decode(codes)


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("dimension", (0, -1, 2.5, "6", True, None)),
        ("codebook_dim", (0, 1.5)),
        ("n_q", (0, -3, 1.0)),
        ("bins", (0, -1, 8.0)),
        ("decay", (-0.1, 1.1, np.nan, "0.9")),
        ("kmeans_iters", (-1, 2.5)),
        ("threshold_ema_dead_code", (-1, np.inf)),
        ("quantizer_dropout", (-0.5, 1.5, np.nan)),
        ("commitment_weight", (-1, np.nan)),
        ("epsilon", (-1e-5, np.inf)),
        ("relative_threshold", (-0.1, 2, np.nan)),
        ("rng", (-1, 0.5, "seed", [-1])),
    ],
)
def test_refused_arguments(argument, values):
    for value in values:
        with pytest.raises(ParameterError, match=f"{argument} is .*; expected ") as caught:
            small(**{argument: value})
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "argument",
    [{"decay": 0}, {"decay": 1}, {"bins": 1}, {"n_q": 1}, {"kmeans_iters": 0}, {"epsilon": 0},
     {"codebook_dim": None}, {"quantizer_dropout": 1.0}, {"dimension": 1, "codebook_dim": 3}],
)  # fmt: skip
def test_arguments_at_their_edges_train(argument):
    rvq = small(**argument)
    x = batch(d=rvq.dimension)
    for _ in range(2):
        result = rvq(x, RATE)
    assert np.isfinite(result.quantized).all()
    assert np.isfinite(rvq.codebooks.stages[0].codebook).all()


def test_the_repr_of_its_arguments_evaluates():
    from rvq_np.config import Config

    rvq = small(decay=0.5, quantizer_dropout=0.25)
    assert eval(repr(rvq.config), {"Config": Config}) == rvq.config


# State ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("codebook_dim", [6, 4])
def test_a_state_carries_everything_over(codebook_dim):
    one = trained(codebook_dim=codebook_dim).train()
    other = small(codebook_dim=codebook_dim, rng=99)
    other.load_state_dict(one.state_dict())
    assert same_state(one.state_dict(), other.state_dict())
    one._rng, other._rng = np.random.default_rng(1), np.random.default_rng(1)
    for k in range(3):
        results = one(batch(seed=k), RATE), other(batch(seed=k), RATE)
        for mine, yours in zip(*results, strict=True):
            np.testing.assert_array_equal(mine, yours)
    assert same_state(one.state_dict(), other.state_dict())


def test_the_names_and_shapes_are_espnets():
    state = small(codebook_dim=4, n_q=2).state_dict()
    layer = {
        "project_in.weight": (4, 6), "project_in.bias": (4,),
        "project_out.weight": (6, 4), "project_out.bias": (6,),
        "_codebook.inited": (1,), "_codebook.cluster_size": (8,),
        "_codebook.embed": (8, 4), "_codebook.embed_avg": (8, 4),
    }  # fmt: skip
    expected = {f"vq.layers.{q}.{name}": shape for q in (0, 1) for name, shape in layer.items()}
    assert {name: value.shape for name, value in state.items()} == expected
    assert list(state) == list(expected)
    assert {value.dtype for value in state.values()} == {np.dtype(np.float32)}


def test_a_state_dict_is_a_copy():
    rvq = trained()
    rvq.state_dict()["vq.layers.0._codebook.embed"][:] = 0
    assert np.abs(rvq.codebooks.stages[0].codebook).max() > 0


def test_a_state_that_does_not_fit_is_refused_with_every_mismatch():
    rvq = trained()
    before = rvq.state_dict()

    def refused(message, change):
        state = rvq.state_dict()
        change(state)
        with pytest.raises(StateError, match=message) as caught:
            rvq.load_state_dict(state)
        assert isinstance(caught.value, ValueError)
        assert "Nothing was changed" in str(caught.value)
        assert same_state(rvq.state_dict(), before)

    name = "vq.layers.1._codebook.embed"
    refused(rf"1 of the entries do not fit .*n_q=3, bins=8.*missing {name}", lambda s: s.pop(name))
    refused(
        "extra vq.layers.3._codebook.embed",
        lambda s: s.update({"vq.layers.3._codebook.embed": s[name]}),
    )
    refused(
        rf"{name} has shape \(8, 5\), expected \(8, 6\)", lambda s: s.update({name: s[name][:, :5]})
    )
    refused(f"{name} holds NaN or infinity", lambda s: s[name].__setitem__((0, 0), np.nan))
    refused(
        f"{name} has dtype <U1, expected float32", lambda s: s.update({name: np.full((8, 6), "a")})
    )
    refused(
        "cluster_size holds negative counts",
        lambda s: s["vq.layers.0._codebook.cluster_size"].__setitem__(0, -1),
    )

    def two(state):
        del state[name]
        state["more"] = np.ones(2)

    refused(f"2 of the entries.*missing {name}; extra more", two)


# Round trips ---------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from([6, 4]), st.integers(1, 3))
def test_codes_of_decoded_codewords_of_the_first_stage_come_back(seed, codebook_dim, n_q):
    rng = np.random.default_rng(seed)
    rvq = trained(codebook_dim=codebook_dim)
    codes = rng.integers(0, 8, (1, 2, 5))
    vectors = rvq.decode(codes)
    if codebook_dim == 6:
        np.testing.assert_array_equal(rvq.encode(vectors, RATE)[:1], codes)
    errors = [np.square(batch() - rvq.decode(rvq.encode(batch(), RATE)[:n])).sum()
              for n in (n_q, 3)]  # fmt: skip
    assert errors[1] <= errors[0]


def test_every_path_gives_the_class_the_same_codes():
    rvq, x = trained(), batch(b=3, t=50)
    codes = rvq.encode(x, RATE)
    for context in (paths.without_numba, paths.tiny_tiles, paths.small_blocks):
        with context():
            np.testing.assert_array_equal(rvq.encode(np.asfortranarray(x), RATE), codes)
