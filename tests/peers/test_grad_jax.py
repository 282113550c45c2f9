"""JAX: the bits of the class, the gradients of its products, under every transform."""

import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import shim
from jax import numpy as jnp

import rvq_np
from rvq_np import grad
from rvq_np.errors import (
    BackendError,
    DtypeError,
    FewVectorsWarning,
    NonFiniteError,
    ParameterError,
    ShapeError,
    SingleThreadWarning,
    StateError,
)
from rvq_np.grad import _jax_operator
from rvq_np.grad._remembered import without
from rvq_np.grad.jax import ResidualVectorQuantizer

RATE = 50


@pytest.fixture(autouse=True)
def four_vectors_are_enough(monkeypatch):
    """For each codeword, so that small tests get there."""
    monkeypatch.setattr("rvq_np.train.collect.CHEAP", 0)


works = lambda name: pytest.mark.transform("jax", name)  # noqa: E731


def gradient(function, x):
    return jax.value_and_grad(function, has_aux=True)(x)


def compiled_gradient(function, x):
    # A compiled function cannot know values, so what is reported by values stays outside.
    return jax.jit(jax.value_and_grad(function, has_aux=True))(x)


def array(values, dtype):
    return jnp.asarray(np.asarray(values)).astype(dtype)


def as_numpy(x):
    half = x.dtype in (jnp.float16, jnp.bfloat16)
    return np.asarray(x.astype(jnp.float32) if half else x)


DTYPES = ("float16", "bfloat16", "float32")
TestShim = works("grad")(shim.shim_tests(
    shim.Framework(array, as_numpy, gradient, foreign=np.ones(3, bool), dtypes=DTYPES)
))  # fmt: skip
TestCompiled = works("jit")(shim.shim_tests(
    shim.Framework(array, as_numpy, compiled_gradient, foreign=np.ones(3, bool), dtypes=DTYPES)
))  # fmt: skip


def made(codebook_dim=4, **arguments):
    rvq = ResidualVectorQuantizer(
        6, codebook_dim, **{"n_q": 3, "bins": 8, "commitment_weight": 0.7, **arguments}
    )
    return rvq, *rvq.init(3)


def batch(*shape, seed=2):
    return np.random.default_rng(seed).standard_normal(shape or (4, 6, 20)).astype(np.float32)


def weights(x):
    return np.linspace(-1, 1, x.size, dtype=np.float32).reshape(x.shape)


class Draws:
    def __init__(self, seed):
        self.seed = seed

    def integers(self, *_, **__):
        return np.asarray(jax.random.key_data(jax.random.key(self.seed))).astype(np.int64)


@works("jit")
@works("grad")
@pytest.mark.parametrize("transform", [jax.jit, lambda function: function], ids=["jit", "eager"])
@pytest.mark.parametrize(("codebook_dim", "how"), [(6, "ema"), (4, "ema"), (4, "gradient")])
@pytest.mark.parametrize("estimator", ["straight-through", "rotation"])
@pytest.mark.parametrize("dropout", [False, 0.75])
@pytest.mark.parametrize("masked", [False, True])
def test_a_step_has_the_values_gradients_and_state_of_the_class(
    masked, dropout, estimator, codebook_dim, how, transform, rng
):
    """From k-means on: the first step, and the second, which replaces codewords."""
    rvq, parameters, state = made(
        codebook_dim, quantizer_dropout=dropout, estimator=estimator, codebook_training=how
    )
    mask = rng.random((4, 20)) < 0.7 if masked else None
    there = None if mask is None else jnp.asarray(mask)

    def loss(parameters, x, state, key):
        result, state = rvq.apply(parameters, state, x, RATE, mask=there, train=True, key=key)
        total = (result.quantized * weights(x)).sum() + 3 * result.penalty
        if result.quantization_loss is not None:
            total = total - 2 * result.quantization_loss
        return total, (result, state)

    step = transform(jax.grad(loss, argnums=(0, 1), has_aux=True))
    if how == "gradient":
        parameters, state = rvq.initialize(parameters, state, jnp.asarray(batch()), 0)
        numpy = rvq.to_numpy(parameters, state)
        assert numpy.is_initialized
        assert np.square(np.asarray(batch()) - numpy(batch(), RATE).quantized).mean() < 0.6
    for turn in range(2):
        x = batch(seed=turn)
        numpy = rvq.to_numpy(parameters, state).train()
        numpy._rng = Draws(turn)
        before = state
        (to_parameters, to_x), (result, state) = step(
            parameters, jnp.asarray(x), state, jax.random.key(turn)
        )
        expected, vjp = grad.quantize_vjp(x, numpy, RATE, mask=mask, estimator=estimator)
        np.testing.assert_array_equal(result.codes, expected.codes)
        np.testing.assert_array_equal(result.quantized, expected.quantized)
        np.testing.assert_array_equal(result.bandwidth, expected.bandwidth)
        assert float(result.penalty) == pytest.approx(float(expected.penalty), rel=1e-5)
        both = -2.0 if result.quantization_loss is not None else 0.0
        assert bool(both) == bool(dropout or how == "gradient")
        found = vjp(weights(x), penalty=3.0, quantization_loss=both)
        np.testing.assert_allclose(to_x, found.x, rtol=1e-4, atol=2e-6)
        for name, value in to_parameters.items():
            np.testing.assert_allclose(value, found.parameters[name], rtol=1e-4, atol=2e-5)
        assert len(to_parameters) == len(found.parameters) - 3 * (how == "ema")
        assert rvq.vectors_awaited(state) == (numpy.vectors_awaited if how == "ema" else 0)
        for name, value in without(state).items():
            if how == "ema":
                np.testing.assert_array_equal(value, numpy.state_dict()[name])
            else:
                np.testing.assert_array_equal(value, before[name])


@works("vmap")
@pytest.mark.parametrize("transform", [jax.jit, lambda function: function], ids=["jit", "eager"])
def test_mapping_batches_masks_and_quantizers(transform):
    rvq, parameters, state = made()
    _, state = rvq.apply(parameters, state, jnp.asarray(batch(90, 6)), RATE, train=True, key=1)
    x = batch(3, 2, 5, 6, 10)
    mask = np.random.default_rng(0).random((3, 2, 5, 10)) < 0.7

    def loss(x, mask):
        result, _ = rvq.apply(parameters, state, x, RATE, mask=mask)
        return (result.quantized * weights(x)).sum(), result

    each = jax.value_and_grad(loss, has_aux=True)
    (_, results), found = transform(jax.vmap(jax.vmap(each)))(jnp.asarray(x), jnp.asarray(mask))
    for i, j in np.ndindex(3, 2):
        (_, alone), gradient = each(jnp.asarray(x[i, j]), jnp.asarray(mask[i, j]))
        np.testing.assert_array_equal(results.codes[i, j], alone.codes)
        np.testing.assert_array_equal(results.quantized[i, j], alone.quantized)
        np.testing.assert_array_equal(found[i, j], gradient)
    only_masks = jax.vmap(lambda mask: loss(jnp.asarray(x[0, 0]), mask)[1].codes)
    codes = transform(only_masks)(jnp.asarray(mask[0]))
    for j in range(2):
        expected = loss(jnp.asarray(x[0, 0]), jnp.asarray(mask[0, j]))[1].codes
        np.testing.assert_array_equal(codes[j], expected)

    def train(parameters, state, x, key):
        result, state = rvq.apply(parameters, state, x, RATE, train=True, key=key)
        return result.codes, state

    states = jax.tree.map(lambda value: jnp.stack([value, value * 0.9]), state)
    keys = jax.random.split(jax.random.key(0), 2)
    ensemble = transform(jax.vmap(train, in_axes=(None, 0, 0, 0)))
    codes, moved = ensemble(parameters, states, jnp.asarray(x[:2, 0]), keys)
    for i in range(2):
        one = jax.tree.map(lambda value, i=i: value[i], states)
        its_codes, its_state = train(parameters, one, jnp.asarray(x[i, 0]), keys[i])
        np.testing.assert_array_equal(codes[i], its_codes)
        for name, value in its_state.items():
            np.testing.assert_array_equal(moved[name][i], value)


@works("pmap and shard_map, psum")
@pytest.mark.parametrize("way", ["pmap", "shard_map"])
@pytest.mark.parametrize(("codebook_dim", "threshold"), [(6, 0), (4, 0), (6, 6)])
def test_devices_add_up_their_statistics_and_keep_the_same_codewords(way, codebook_dim, threshold):
    script = Path(__file__).parents[1] / "helpers" / "devices_in_jax.py"
    done = subprocess.run(
        [sys.executable, script, way, str(codebook_dim), str(threshold)],
        capture_output=True, text=True, timeout=2000, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "done", done.stderr[-2000:]


@works("async dispatch, large arrays")
def test_it_does_not_wait_for_itself_under_async_dispatch():
    """A callback that touches JAX, or gets what is not there yet, can hang (jax issue 24255)."""
    code = """
import faulthandler
faulthandler.dump_traceback_later(1000, exit=True)
import jax, jax.numpy as jnp, numpy as np
from rvq_np.grad._remembered import without
from rvq_np.grad.jax import ResidualVectorQuantizer
rvq = ResidualVectorQuantizer(128, 128, n_q=2, bins=64)
parameters, state = rvq.init(0)
def loss(x, state, key):
    y = jnp.tanh(x @ jnp.eye(128))
    result, state = rvq.apply(parameters, state, y, 50, train=True, key=key)
    return (result.quantized ** 2).mean() + result.penalty, state
step = jax.jit(jax.grad(loss, has_aux=True))
x = jax.random.normal(jax.random.key(0), (60000, 128))
for turn in range(6):  # sent off one after the other, nothing waits in between
    gradient, state = step(x, state, jax.random.key(turn))
    x = x - gradient
print(bool(jnp.isfinite(x).all()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=2000, check=False
    )
    assert done.stdout.strip() == "True", done.stderr[-3000:]


@pytest.mark.parametrize(("cores", "devices", "warned"), [
    (1, 1, True), (2, 1, False), (1, 2, False),
])  # fmt: skip
def test_one_core_on_which_a_callback_would_wait_for_ever_is_said(
    cores, devices, warned, monkeypatch
):
    """JAX 0.10 pinned to one core hung in `pure_callback`, from some thousand numbers on."""
    monkeypatch.setattr(_jax_operator.os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(jax, "local_device_count", lambda _: devices)
    _jax_operator._check_threads.cache_clear()
    rvq, x = shim.trained().eval(), jnp.ones((4, 6))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            jax.jit(lambda x: grad.quantize(x, rvq, 50).quantized)(x)
    _jax_operator._check_threads.cache_clear()
    (*found,) = (each for each in caught if each.category is SingleThreadWarning)
    assert len(found) == warned
    assert all("xla_force_host_platform_device_count=2" in str(each.message) for each in found)


@pytest.mark.transform("jax", "training an rvq_np quantizer under a transform", refused=True)
@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap])
def test_learning_as_a_side_effect_is_refused(transform):
    rvq = shim.trained().train()
    x = jnp.ones((4, 6)) if transform is not jax.vmap else jnp.ones((2, 4, 6))
    with pytest.raises(BackendError, match="side effect"):
        transform(lambda x: grad.quantize(x, rvq, RATE).quantized.sum())(x)


def test_an_array_with_known_values_trains_an_rvq_np_quantizer():
    ours, theirs = shim.trained().train(), shim.trained().train()
    x = batch()
    result = grad.quantize(jnp.asarray(x), ours, RATE)
    np.testing.assert_array_equal(result.quantized, theirs(x, RATE).quantized)
    assert isinstance(result.quantized, jax.Array)
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[name], value)


@pytest.mark.parametrize("training", [False, True])
def test_values_that_cannot_be_quantized_poison_the_result_where_nothing_can_be_raised(training):
    rvq, parameters, state = made()
    _, state = rvq.apply(parameters, state, jnp.asarray(batch()), RATE, train=True, key=1)
    bad = batch()
    bad[1, 2, 3] = np.nan

    @jax.jit
    def step(x):
        return rvq.apply(parameters, state, x, RATE, train=training, key=jax.random.key(0))

    result, after = step(jnp.asarray(bad))
    assert np.isnan(result.quantized).all()
    assert (np.asarray(result.codes) == -2).all()
    if training:
        assert np.isnan(result.penalty)
    for name, value in state.items():
        np.testing.assert_array_equal(after[name], value)
    with pytest.raises(NonFiniteError, match=r"\(1, 2, 3\)"):
        rvq.apply(parameters, state, jnp.asarray(bad), RATE, train=training, key=0)


@works("jit")
def test_codes_decode_to_the_quantized_vectors_with_gradients_to_the_decoder():
    rvq, parameters, state = made()
    _, state = rvq.apply(parameters, state, jnp.asarray(batch()), RATE, train=True, key=1)
    x = jnp.asarray(batch(seed=4))
    result, _ = rvq.apply(parameters, state, x, RATE)
    np.testing.assert_array_equal(rvq.encode(parameters, state, x, RATE), result.codes)
    assert rvq.encode(parameters, state, x, RATE, st=1, beam_size=2).shape == (2, 4, 20)
    np.testing.assert_array_equal(rvq.decode(parameters, state, result.codes), result.quantized)
    compiled = jax.jit(rvq.decode)(parameters, state, result.codes)
    np.testing.assert_array_equal(compiled, result.quantized)
    found = jax.grad(
        lambda parameters: (rvq.decode(parameters, state, result.codes) * weights(x)).sum()
    )(parameters)
    _, vjp = grad.quantize_vjp(np.asarray(x), rvq.to_numpy(parameters, state), RATE)
    expected = vjp(weights(x)).parameters
    for name, value in found.items():
        if "project_out" in name:
            np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5)
    wrong = jnp.full((3, 5), 99)
    assert np.isnan(jax.jit(rvq.decode)(parameters, state, wrong)).all()
    with pytest.raises(rvq_np.errors.CodeRangeError):
        rvq.decode(parameters, state, wrong)
    with pytest.raises(BackendError, match="take the codes of apply"):
        jax.jit(lambda state: rvq.encode(parameters, state, x, RATE))(state)


def test_it_goes_to_the_class_without_jax_and_back():
    numpy = shim.trained(4)
    rvq = ResidualVectorQuantizer(6, 4, n_q=3, bins=8)
    parameters, state = rvq.of(numpy)
    x = batch()
    np.testing.assert_array_equal(
        rvq.encode(parameters, state, jnp.asarray(x), RATE), numpy.encode(x, RATE)
    )
    back = rvq.to_numpy(parameters, state).state_dict()
    for name, value in numpy.state_dict().items():
        np.testing.assert_array_equal(back[name], value)
    numpy.load_state_dict({**parameters, **state})  # JAX arrays will do


def test_float64_stays_float64():
    code = """
import jax
jax.config.update("jax_enable_x64", True)
import numpy as np, jax.numpy as jnp
import rvq_np
from rvq_np import grad
rvq = rvq_np.ResidualVectorQuantizer(6, 4, n_q=3, bins=8, rng=0)
x = np.random.default_rng(0).standard_normal((40, 6))
rvq(x, 50); rvq.eval()
expected = rvq(x, 50)
result = jax.jit(lambda x: grad.quantize(x, rvq, 50))(jnp.asarray(x))
assert result.quantized.dtype == np.float64
np.testing.assert_array_equal(result.quantized, expected.quantized)
np.testing.assert_array_equal(result.codes, expected.codes)
found = jax.grad(lambda x: (grad.quantize(x, rvq, 50).quantized * x).sum())(jnp.asarray(x))
np.testing.assert_allclose(found, expected.quantized + x, rtol=1e-12)
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=2000, check=False
    )
    assert done.stdout.strip() == "done", done.stderr[-3000:]


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        ({"x": np.ones((3, 6), np.float32)}, BackendError, "JAX arrays"),
        ({"x": jnp.ones((3, 6), int)}, DtypeError, "astype"),
        ({"x": jnp.ones((3, 5))}, ShapeError, r"\(N, 6\)"),
        ({"x": jnp.ones(6)}, ShapeError, r"\(N, 6\)"),
        ({"bandwidth": -1}, ParameterError, "bandwidth"),
        ({"sample_rate": 0}, ParameterError, "sample_rate"),
        ({"mask": jnp.ones(4, bool)}, ShapeError, "mask"),
        ({"mask": jnp.ones(3)}, DtypeError, "bool"),
        ({"mask": np.ones(3, bool)}, BackendError, "JAX arrays"),
        ({"train": True}, ParameterError, "key"),
        ({"state": {}}, StateError, "cluster_size"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
@pytest.mark.parametrize("transform", [jax.jit, lambda function: function], ids=["jit", "eager"])
def test_what_can_be_reported_without_values_is_reported_while_tracing(bad, error, text, transform):
    rvq, parameters, state = made()
    given = {"state": state, "x": jnp.ones((3, 6)), "sample_rate": RATE, **bad}
    with pytest.raises(error, match=text):
        transform(lambda zero: rvq.apply(parameters, **given)[0].quantized + zero)(0.0)


def test_arguments_are_checked_as_by_the_class():
    for wrong in ({"bins": 0}, {"codebook_training": "magic"}, {"estimator": "magic"}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            ResidualVectorQuantizer(6, 6, **wrong)


def test_compiling_the_same_step_again_finds_it():
    rvq, parameters, state = made()
    step = jax.jit(lambda state, x: rvq.apply(parameters, state, x, RATE))
    step(state, jnp.asarray(batch()))
    step(state, jnp.asarray(batch(seed=5)))
    assert step._cache_size() == 1


@works("jit")
@works("grad")
@pytest.mark.parametrize("transform", [jax.jit, lambda function: function], ids=["jit", "eager"])
@pytest.mark.parametrize("frozen", [(), (1,)])
@pytest.mark.parametrize(("codebook_dim", "bins"), [(6, (8, 4, 6)), (4, 8)])
def test_small_batches_train_as_the_class_does_and_stages_can_be_frozen(
    codebook_dim, bins, frozen, transform
):
    """First codewords are made once more after 32 vectors, but those of a frozen stage."""
    rvq, parameters, state = made(codebook_dim, bins=bins)
    numpy = rvq.to_numpy(parameters, state).train()
    step = lambda freeze: transform(  # noqa: E731
        lambda x, state, key: rvq.apply(
            parameters, state, x, RATE, train=True, key=key, freeze=freeze
        )
    )
    free, held = step(()), step(frozen)
    awaited, stage = [], []
    for turn in range(6):
        numpy.freeze(frozen if turn in (3, 4) else ())
        x = batch(10, 6, seed=turn)
        numpy._rng = Draws(turn)
        expected = numpy(x, RATE)
        call = held if turn in (3, 4) else free
        result, state = call(jnp.asarray(x), state, jax.random.key(turn))
        np.testing.assert_array_equal(result.codes, expected.codes)
        np.testing.assert_array_equal(result.quantized, expected.quantized)
        for name, value in without(state).items():
            np.testing.assert_array_equal(value, numpy.state_dict()[name], err_msg=name)
        assert rvq.vectors_awaited(state) == numpy.vectors_awaited
        if turn == 1:  # what waits goes to the class and back
            numpy = rvq.to_numpy(parameters, state).train()
            np.testing.assert_array_equal(
                rvq.of(numpy)[1]["vq.waiting.vectors"], state["vq.waiting.vectors"]
            )
        awaited.append(rvq.vectors_awaited(state))
        stage.append(np.asarray(state["vq.layers.1._codebook.embed"]))
    assert awaited == [22, 12, 2, 0, 0, 0]
    kept = bool(frozen)
    assert (stage[2] == stage[3]).all() == (stage[3] == stage[4]).all() == kept
    assert not (stage[4] == stage[5]).all()


def test_a_state_without_places_for_vectors_that_wait_waits_for_none():
    rvq, parameters, state = made()
    _, moved = rvq.apply(parameters, without(state), jnp.asarray(batch(10, 6)), RATE, train=True,
                         key=1)  # fmt: skip
    assert set(moved) == set(without(state))
    assert rvq.vectors_awaited(moved) == 0
    other, _, plain = made(threshold_ema_dead_code=2)
    assert set(plain) == set(without(state))
    _, moved = other.apply(parameters, state, jnp.asarray(batch(10, 6)), RATE, train=True, key=1)
    assert set(moved) == set(state)
    assert not moved["vq.waiting.counts"].any()


def test_stages_to_freeze_places_for_vectors_and_few_vectors_are_checked():
    rvq, parameters, state = made()
    x = jnp.asarray(batch(10, 6))
    with pytest.raises(ParameterError, match=r"apply: freeze\[0\] is 3; expected .* 0 to 2"):
        rvq.apply(parameters, state, x, RATE, train=True, key=1, freeze=[3])
    bad = {**state, "vq.waiting.vectors": jnp.zeros((3, 6))}
    with pytest.raises(StateError, match=r"vq\.waiting\.vectors has shape \(3, 6\), expected \(31"):
        rvq.apply(parameters, bad, x, RATE, train=True, key=1)
    bad = {**state, "vq.waiting.counts": jnp.full(4, 99.0)}
    with pytest.raises(StateError, match=r"vq\.waiting\.counts says 99 vectors; expected 0 to 31"):
        rvq.apply(parameters, bad, x, RATE, train=True, key=1)
    with pytest.warns(FewVectorsWarning, match="x holds 10 vectors for 8 codewords; expected 32"):
        rvq.initialize(parameters, state, x, 1)
