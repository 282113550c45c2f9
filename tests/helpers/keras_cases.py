"""The Keras layer on one backend, the one KERAS_BACKEND names: run by test_grad_keras and others.

Keras chooses its backend once, when it is imported, so every backend has a process of its own.
"""

import doctest
import os

import keras
import numpy as np
import pytest

import rvq_np
from rvq_np import grad
from rvq_np.errors import (
    BackendError,
    DtypeError,
    NonFiniteError,
    ParameterError,
    ShapeError,
    StateError,
)
from rvq_np.grad import keras as shim
from rvq_np.grad.keras import ResidualVectorQuantizer

BACKEND = keras.backend.backend()
assert os.environ["KERAS_BACKEND"] == BACKEND

# Keras asks NumPy 2 for copies in the manner of NumPy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RATE, SEED = 50.0, 3
TRACES = BACKEND in ("jax", "tensorflow")  # fit compiles there, so values are not known
STEPS = [(False, False), (True, False), (True, True)][: 3 if TRACES else 2]  # masked, compiled


@pytest.fixture(autouse=True)
def four_vectors_are_enough(monkeypatch):
    """For each codeword, so that small tests get there."""
    monkeypatch.setattr("rvq_np.train.collect.CHEAP", 0)


class Draws:
    """A generator that draws what the layer draws: its seed, and the number of the step."""

    def __init__(self, step=0):
        self.step = step

    def integers(self, *_, **__):
        self.step += 1
        return np.array([SEED, self.step - 1])


def made(codebook_dim=4, codebook_training="ema", **arguments):
    arguments = {"n_q": 3, "bins": 8, "commitment_weight": 0.7, "seed": SEED, **arguments}
    arguments.setdefault("kmeans_init", codebook_training == "ema")
    return ResidualVectorQuantizer(
        6, codebook_dim, codebook_training=codebook_training, **arguments
    )


def normal(*shape, seed=2):
    return np.random.default_rng(seed).standard_normal(shape or (4, 10, 6)).astype(np.float32)


def back(x):
    return np.array(rvq_np.arrays.to_numpy(x.value if isinstance(x, keras.Variable) else x))


def tensor(values):
    return keras.ops.convert_to_tensor(values)


def arrays(layer):
    return {name: back(each) for name, each in layer._named.items()}


def assert_same_arrays(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def gradients(layer, loss, x, compiled=False, **options):
    """Return what a layer gives, and the gradients of ``loss(result)`` to x and its weights."""
    names = [name for name, each in layer._named.items() if each.trainable]
    variables = [layer._named[name] for name in names]
    if BACKEND == "torch":
        x = keras.ops.convert_to_tensor(x).requires_grad_()
        result = layer.quantize_batch(x, RATE, **options)
        layer.zero_grad()
        loss(result).backward()
        found = [x.grad, *(
            keras.ops.zeros_like(each.value) if each.value.grad is None else each.value.grad
            for each in variables
        )]  # fmt: skip
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        def call(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                result = layer.quantize_batch(x, RATE, **options)
                scalar = loss(result)
            return tuple(result), [
                tf.convert_to_tensor(each)  # those of chosen rows come as IndexedSlices
                for each in tape.gradient(
                    scalar,
                    [x, *(each.value for each in variables)],
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
            ]

        call = tf.function(call) if compiled else call
        result, found = call(tf.convert_to_tensor(x))
        result = rvq_np.quantizer.layout.QuantizedResult(*result)
    else:
        import jax

        def call(x, trained, others):
            result, others = layer.stateless_call(
                trained, others, x, spending=(RATE, None), **options
            )
            result = rvq_np.quantizer.layout.QuantizedResult(*result)
            return loss(result), (tuple(result), others)

        call = jax.grad(call, argnums=(0, 1), has_aux=True)
        trained = [each.value for each in layer.trainable_variables]
        others = [each.value for each in layer.non_trainable_variables]
        call = jax.jit(call) if compiled else call
        (to_x, to_weights), (result, others) = call(jax.numpy.asarray(x), trained, others)
        result = rvq_np.quantizer.layout.QuantizedResult(*result)
        for variable, value in zip(layer.non_trainable_variables, others, strict=True):
            variable.assign(value)
        by_path = dict(zip([each.path for each in layer.trainable_variables], to_weights,
                           strict=True))  # fmt: skip
        found = [to_x, *(by_path[each.path] for each in variables)]
    to_x, *to_weights = map(back, found)
    return result, to_x, dict(zip(names, to_weights, strict=True))


def loss_of(result):
    quantized = result.quantized
    size = int(np.prod(quantized.shape))
    total = keras.ops.sum(quantized * tensor(weights(tuple(quantized.shape), size)))
    total = total + 3 * result.penalty
    if result.quantization_loss is not None:
        total = total - 2 * result.quantization_loss
    return total


def weights(shape, size):
    return np.linspace(-1, 1, size, dtype=np.float32).reshape(shape)


# Every pair of choices at least once.
CASES = [
    (6, "ema", False, "channels_last", "straight-through"),
    (6, "ema", 0.75, "rows", "rotation"),
    (4, "ema", False, "rows", "straight-through"),
    (4, "ema", 0.75, "channels_last", "straight-through"),
    (4, "ema", False, "channels_first", "rotation"),
    (4, "gradient", 0.75, "channels_first", "straight-through"),
    (4, "gradient", False, "channels_last", "rotation"),
    (6, "gradient", False, "rows", "rotation"),
    (6, "gradient", 0.75, "channels_first", "rotation"),
]


@pytest.mark.parametrize(("masked", "compiled"), STEPS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_steps_have_the_values_gradients_and_state_of_the_class(case, masked, compiled):
    """K-means in the first step, replaced codewords in the second, then eval."""
    codebook_dim, how, dropout, data_format, estimator = case
    rows = data_format == "rows"
    first = data_format == "channels_first"
    layer = made(
        codebook_dim, how, quantizer_dropout=dropout, estimator=estimator,
        data_format=None if rows else data_format,
    )  # fmt: skip
    for step, training in enumerate((True, True, False)):
        x = normal(40, 6, seed=step) if rows else normal(4, 6, 10, seed=step)
        mask = np.random.default_rng(step).random((x.shape[0], *x.shape[2:])) < 0.7
        mask = mask if masked else None
        turn = (lambda x: x) if rows or first else (lambda x: np.swapaxes(x, 1, 2))
        rvq = layer.to_numpy().train(training)
        rvq._rng = Draws(step)
        before = arrays(layer)
        expected, vjp = grad.quantize_vjp(x, rvq, RATE, mask=mask, estimator=estimator)
        result, to_x, to_weights = gradients(
            layer, loss_of, turn(x).copy(), compiled, training=training,
            mask=None if mask is None else keras.ops.convert_to_tensor(mask),
        )  # fmt: skip
        np.testing.assert_array_equal(back(result.codes), expected.codes)
        np.testing.assert_array_equal(turn(back(result.quantized)), expected.quantized)
        np.testing.assert_array_equal(back(result.bandwidth), expected.bandwidth)
        assert float(back(result.penalty)) == pytest.approx(float(expected.penalty), rel=1e-5)
        assert (result.quantization_loss is not None) == bool(dropout or how == "gradient")
        assert_same_arrays(arrays(layer), rvq.state_dict() if how == "ema" else before)
        both = -2.0 if result.quantization_loss is not None else 0.0
        found = vjp(turn(weights(turn(x).shape, x.size)), penalty=3.0, quantization_loss=both)
        np.testing.assert_allclose(turn(to_x), found.x, rtol=1e-4, atol=4e-6)
        assert len(to_weights) == len(found.parameters) - 3 * (how == "ema")
        for name, value in to_weights.items():
            np.testing.assert_allclose(value, found.parameters[name], rtol=1e-4, atol=4e-5)


def test_fit_moves_the_codewords_as_the_class_does():
    """From Keras's own training loop, compiled and stateless where the backend has it so."""
    layer = made(quantizer_dropout=0.5)
    model = keras.Sequential([layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = normal(12, 10, 6)
    rvq = layer.to_numpy().train()
    rvq._rng = Draws()
    penalties = []
    for _ in range(2):
        for start in (0, 5, 10):  # the last batch is smaller
            batch = np.swapaxes(x[start : start + 5], 1, 2)
            penalties.append((len(batch), float(rvq(batch, RATE).penalty)))
    model.fit(x, np.zeros_like(x), epochs=2, batch_size=5, shuffle=False, verbose=0)
    assert_same_arrays(arrays(layer), rvq.state_dict())
    assert rvq.is_initialized


@pytest.mark.parametrize(("frozen", "bins"), [(False, (8, 4, 6)), (True, 8)])
def test_small_batches_train_as_the_class_does_and_stages_can_be_frozen(frozen, bins):
    """In Keras's loop: first codewords once more after 32 vectors, but those of a frozen stage."""
    layer = made(bins=bins)
    model = keras.Sequential([layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    rvq = layer.to_numpy().train()
    rvq._rng = Draws()
    awaited, stage = [], []
    for step in range(6):
        if frozen and step in (3, 5):
            layer.freeze([1] if step == 3 else [])
            rvq.freeze([1] if step == 3 else [])
        x = normal(10, 6, seed=step)
        rvq(x, RATE)
        model.fit(x, x, batch_size=10, shuffle=False, verbose=0)
        assert_same_arrays(arrays(layer), rvq.state_dict())
        assert layer.vectors_awaited == rvq.vectors_awaited
        assert layer.frozen == rvq.frozen
        awaited.append(layer.vectors_awaited)
        stage.append(arrays(layer)["vq.layers.1._codebook.embed"])
    assert awaited == [22, 12, 2, 0, 0, 0]
    assert (stage[2] == stage[3]).all() == (stage[3] == stage[4]).all() == frozen
    assert not (stage[4] == stage[5]).all()
    assert ResidualVectorQuantizer.of(rvq).frozen == ()
    with pytest.raises(ParameterError, match=r"freeze: freeze\[0\] is 3; expected .* 0 to 2"):
        layer.freeze([3])
    with pytest.raises(StateError, match="freeze: stage 2 has random codewords"):
        made().freeze([2])


def test_fit_adds_the_penalty_to_the_loss():
    layer = made(decay=1.0, threshold_ema_dead_code=0)
    x = normal(5, 10, 6)
    layer.quantize_batch(x, RATE, training=True)
    result = layer.quantize_batch(x, RATE, training=True)
    model = keras.Sequential([layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    history = model.fit(x, x, batch_size=5, verbose=0).history["loss"]
    expected = float(back(result.penalty)) + np.square(back(result.quantized) - x).mean()
    assert history[0] == pytest.approx(expected, rel=1e-4)
    assert float(back(result.penalty)) > 0.01
    plain = model.evaluate(x, x, verbose=0)
    assert plain == pytest.approx(expected - float(back(result.penalty)), rel=1e-4)


@pytest.mark.parametrize(("codebook_dim", "how"), [(6, "ema"), (4, "ema"), (6, "gradient")])
def test_a_network_around_it_learns(codebook_dim, how):
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((3, 12)) / 2
    x = (rng.standard_normal((64, 5, 3)) @ mixing).astype(np.float32)
    layer = made(codebook_dim, how, bins=16, decay=0.8, threshold_ema_dead_code=0.5)
    model = keras.Sequential([keras.layers.Dense(6), layer, keras.layers.Dense(12)])
    model.compile(keras.optimizers.Adam(0.02), "mse")
    fresh = arrays(layer)
    model.fit(x, x, epochs=30, batch_size=32, verbose=0)
    assert model.evaluate(x, x, verbose=0) < 0.5 * np.square(x).mean()
    for name, value in arrays(layer).items():
        if "inited" not in name and not (how == "gradient" and _only_averages(name)):
            assert (value != fresh[name]).any(), name


def _only_averages(name):
    return name.endswith(("cluster_size", "embed_avg"))


def test_a_saved_model_gives_the_same_codes_and_goes_on_learning(tmp_path):
    layer = made(sample_rate=RATE, bandwidth=0.3)
    inputs = keras.Input((10, 6))
    hidden = keras.layers.Dense(6)(inputs)
    result = layer.quantize_batch(hidden)
    model = keras.Model(inputs, [result.quantized, result.codes])
    x = normal()
    layer.quantize_batch(x, training=True)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(again(x), model(x), strict=True):
        np.testing.assert_array_equal(back(ours), back(theirs))
    assert tuple(model(x)[1].shape) == (2, 4, 10)
    assert result.codes.shape == (2, None, 10)
    loaded = again.layers[-1]
    assert_same_arrays(arrays(loaded), arrays(layer))
    assert loaded.get_config() == layer.get_config()
    assert loaded.get_config()["codebook_dim"] == 4
    before = arrays(loaded)
    loaded.quantize_batch(normal(seed=9), training=True)
    moved = arrays(loaded)
    assert (moved["vq.layers.0._codebook.embed"] != before["vq.layers.0._codebook.embed"]).any()
    model.save_weights(tmp_path / "model.weights.h5")
    again.load_weights(tmp_path / "model.weights.h5")
    assert_same_arrays(arrays(loaded), arrays(layer))


def test_its_configuration_names_every_argument():
    options = {
        "dimension": 6, "codebook_dim": 6, "n_q": 2, "bins": 5, "decay": 0.5, "kmeans_init": False,
        "kmeans_iters": 7, "threshold_ema_dead_code": 1, "quantizer_dropout": 0.25,
        "commitment_weight": 0.5, "epsilon": 1e-4, "relative_threshold": 0.1,
        "codebook_training": "gradient", "estimator": "rotation", "sample_rate": 75.0,
        "bandwidth": 0.2, "data_format": "channels_first", "seed": 9,
    }  # fmt: skip
    layer = ResidualVectorQuantizer(**options, name="books", trainable=False)
    config = layer.get_config()
    assert options.items() <= config.items()
    again = ResidualVectorQuantizer.from_config(config)
    assert again.get_config() == config
    assert again.name == "books"
    assert not again.trainable


def test_symbolic_results_have_the_shapes_of_real_ones():
    for dropout in (False, 0.5):
        for training in (False, True):
            for shape in ((10, 6), (6,)):
                layer = made(quantizer_dropout=dropout)
                symbols = layer.quantize_batch(
                    keras.Input(shape, batch_size=4), RATE, training=training
                )
                real = layer.quantize_batch(normal(4, *shape), RATE, training=training)
                for symbol, tensor in zip(symbols, real, strict=True):
                    assert symbol.shape == tuple(tensor.shape)
                    dtype = keras.backend.standardize_dtype(tensor.dtype)
                    assert keras.backend.standardize_dtype(symbol.dtype) == dtype


@pytest.mark.parametrize("shape", [(4, 10, 6), (40, 6)])
def test_codes_go_to_the_class_without_a_framework_and_back(shape):
    layer = made()
    layer.quantize_batch(normal(*shape), RATE, training=True)
    rvq = layer.to_numpy().eval()
    again = ResidualVectorQuantizer.of(rvq, sample_rate=RATE)
    assert_same_arrays(arrays(again), arrays(layer))
    x = normal(*shape, seed=5)
    theirs = np.swapaxes(x, 1, 2) if len(shape) == 3 else x
    for options in ({}, {"bandwidth": 0.3}, {"st": 1}, {"beam_size": 3}):
        expected = rvq.encode(theirs, RATE, **options)
        np.testing.assert_array_equal(back(again.encode(x, **options)), expected)
    codes = rvq.encode(theirs, RATE)
    vectors = back(again.decode(keras.ops.convert_to_tensor(codes)))
    assert vectors.shape == shape
    np.testing.assert_array_equal(vectors, back(again(x)))
    later = rvq.decode(codes[1:], st=1)
    later = np.swapaxes(later, 1, 2) if len(shape) == 3 else later
    np.testing.assert_array_equal(back(again.decode(codes[1:], st=1)), later)


def test_decoding_has_a_gradient_to_the_decoder():
    layer = made()
    x = normal()
    layer.quantize_batch(x, RATE, training=True)
    codes = layer.encode(x, RATE)
    name = "vq.layers.2.project_out.weight"
    variable, expected = layer._named[name], normal(4, 10, 6, seed=7)
    if BACKEND == "torch":
        keras.ops.sum(layer.decode(codes[1:], st=1) * tensor(expected)).backward()
        found = variable.value.grad
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            scalar = keras.ops.sum(layer.decode(codes[1:], st=1) * tensor(expected))
        found = tf.convert_to_tensor(tape.gradient(scalar, variable.value))
    else:
        import jax

        def call(value):
            with keras.StatelessScope(state_mapping=[(variable, value)]):
                return keras.ops.sum(layer.decode(codes[1:], st=1) * tensor(expected))

        found = jax.grad(call)(variable.value)
    codewords = arrays(layer)["vq.layers.2._codebook.embed"][back(codes)[2].reshape(-1)]
    np.testing.assert_allclose(
        back(found), expected.reshape(-1, 6).T @ codewords, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16"])
def test_under_every_dtype_policy_codewords_and_losses_are_float32(policy):
    compute = policy.removeprefix("mixed_")
    layer, plain = made(dtype=policy), made()
    x = (np.random.default_rng(0).integers(-64, 65, (4, 10, 6)) / 32).astype(np.float32)
    for training in (True, False):
        result = layer.quantize_batch(x, RATE, training=training)
        expected = plain.quantize_batch(x, RATE, training=training)
        assert keras.backend.standardize_dtype(result.quantized.dtype) == compute
        rounded = keras.ops.cast(expected.quantized, compute)
        np.testing.assert_array_equal(
            back(keras.ops.cast(result.quantized, "float32")),
            back(keras.ops.cast(rounded, "float32")),
        )
        np.testing.assert_array_equal(back(result.codes), back(expected.codes))
        assert keras.backend.standardize_dtype(result.penalty.dtype) == "float32"
        assert float(back(result.penalty)) == float(back(expected.penalty))
    assert_same_arrays(arrays(layer), arrays(plain))
    assert {each.dtype for each in layer._named.values()} == {"float32"}
    model = keras.Sequential([keras.layers.Dense(6, dtype=policy), layer])
    model.compile("sgd", "mse")
    assert np.isfinite(model.fit(x, x, verbose=0).history["loss"]).all()


def test_a_mask_comes_along_from_earlier_layers_and_goes_on():
    layer = made()
    x = normal()
    x[:, 7:] = 0
    outputs = keras.layers.Masking()(keras.ops.convert_to_tensor(x))
    mask = np.arange(10) < np.full((4, 1), 7)
    rvq = layer.to_numpy().train()
    rvq._rng = Draws()
    expected = rvq(np.swapaxes(x, 1, 2), RATE, mask=mask).quantized
    quantized = layer(outputs, training=True)
    np.testing.assert_array_equal(np.swapaxes(back(quantized), 1, 2), expected)
    assert_same_arrays(arrays(layer), rvq.state_dict())
    np.testing.assert_array_equal(back(quantized._keras_mask), mask)


def test_padding_may_hold_anything():
    x, mask = normal(), np.arange(10) < np.full((4, 1), 7)
    dirty = np.where(mask[..., None], x, np.nan).astype(np.float32)
    one, other = made(), made()
    for training in (True, False):
        clean = one(x, training=training, mask=mask)
        np.testing.assert_array_equal(back(other(dirty, training=training, mask=mask)), back(clean))
    assert_same_arrays(arrays(other), arrays(one))


@keras.saving.register_keras_serializable("cases")
class Inside(keras.Model):
    """A network of the user's own, which takes the whole result."""

    def __init__(self):
        super().__init__()
        self.into, self.quantizer, self.out = keras.layers.Dense(6), made(), keras.layers.Dense(12)

    def call(self, x, training=None):
        result = self.quantizer.quantize_batch(self.into(x), RATE, training=training)
        self.add_loss(0.5 * result.penalty)
        return self.out(result.quantized)


def test_a_network_of_the_users_own_takes_the_whole_result():
    model, x = Inside(), normal(32, 10, 12)
    model.compile("adam", "mse")
    fresh = arrays(model.quantizer)
    model.evaluate(x, x, verbose=0)
    assert_same_arrays(arrays(model.quantizer), fresh)
    losses = model.fit(x, x, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    moved = arrays(model.quantizer)
    for name, value in fresh.items():
        assert (moved[name] != value).any(), name
    model.predict(x, verbose=0)
    assert_same_arrays(arrays(model.quantizer), moved)


def test_it_asks_the_layer_that_calls_it_whether_to_train():
    class Outer(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = made()

        def call(self, x, training=None):  # which it does not hand on
            return self.inner.quantize_batch(x, RATE).quantized

    layer = Outer()
    before = arrays(layer.inner)
    layer(normal())
    assert_same_arrays(arrays(layer.inner), before)
    layer(normal(), training=True)
    assert (arrays(layer.inner)["vq.layers.0._codebook.inited"] == 1).all()


def test_frozen_it_learns_nothing_but_pulls_the_encoder():
    layer = made(6, quantizer_dropout=0.5)
    x = normal()
    layer.quantize_batch(x, RATE, training=True)
    before = arrays(layer)
    layer.trainable = False
    result, to_x, _ = gradients(layer, lambda result: result.penalty, x, training=True)
    assert_same_arrays(arrays(layer), before)
    assert result.bandwidth.shape == ()
    assert float(back(result.penalty)) > 0
    assert np.abs(to_x).max() > 0
    inputs = keras.Input((10, 6))
    assert layer.quantize_batch(inputs, RATE, training=True).bandwidth.shape == ()


def test_bad_numbers_in_fit_leave_the_codewords_alone():
    layer = made()
    model = keras.Sequential([layer])
    model.compile("sgd", "mse")
    model.fit(normal(), normal(), verbose=0)
    before = arrays(layer)
    x = normal()
    x[2, 5, 3] = np.nan
    if TRACES:
        result = model.predict(x, verbose=0)
        assert np.isnan(result).all()
        model.compile(keras.optimizers.SGD(0.0), "mse")
        assert np.isnan(model.fit(x, x, verbose=0).history["loss"]).all()
    else:
        for call in (model.predict, lambda x, verbose: model.fit(x, x, verbose=verbose)):
            with pytest.raises(NonFiniteError, match=r"nan at \(., 3, 5\)"):
                call(x, verbose=0)
    for name, value in arrays(layer).items():
        if "_codebook" in name:
            np.testing.assert_array_equal(value, before[name])


BAD = {
    "integers": (lambda: np.ones((4, 10, 6), np.int32), {}, DtypeError, "int32"),
    "width": (lambda: normal(4, 10, 5), {}, ShapeError, r"\(B, T, 6\).*channels_last"),
    "other layout": (lambda: normal(4, 6, 10), {}, ShapeError, "channels_last"),
    "axes": (lambda: normal(2, 4, 10, 6), {}, ShapeError, r"\(2, 4, 10, 6\)"),
    "nan": (lambda: np.full((4, 6), np.nan, np.float32), {}, NonFiniteError, "nan at"),
    "mask": (normal, {"mask": np.ones((4, 9), bool)}, ShapeError, r"\(4, 10\)"),
    "mask of numbers": (normal, {"mask": np.ones((4, 10), "int32")}, DtypeError, "bool"),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_quantized_is_refused_and_nothing_changes(case, training):
    x, options, error, text = BAD[case]
    layer = made()
    before = arrays(layer)
    for call in (layer, lambda *given, **named: layer.quantize_batch(*given, RATE, **named)):
        with pytest.raises(error, match=text):
            call(x(), training=training, **options)
    if not options:
        with pytest.raises(error, match=text):
            layer.encode(x(), RATE)
    assert_same_arrays(arrays(layer), before)


def test_arguments_are_checked_as_by_the_class():
    wrong = {"bins": 0, "codebook_training": "magic", "estimator": "magic", "data_format": "wide"}
    for name, value in wrong.items():
        with pytest.raises(ParameterError, match=name):
            made(6, **{name: value}) if name != "codebook_training" else made(6, value)
    with pytest.raises(ParameterError, match="kmeans_init"):
        made(6, "gradient", kmeans_init=True)
    with pytest.raises(ParameterError, match="without a sample_rate"):
        made(bandwidth=0.3)
    with pytest.raises(ParameterError, match="sample_rate"):
        made(sample_rate=-1)
    with pytest.raises(ParameterError, match="quantize_batch: got bandwidth=1 and no sample_rate"):
        made().quantize_batch(normal(), bandwidth=1)
    with pytest.raises(ParameterError, match="encode: got bandwidth=1 and n_q=2; expected one"):
        made().encode(normal(), RATE, 1, n_q=2)
    with pytest.raises(ParameterError, match="bandwidth"):
        made().quantize_batch(normal(), RATE, -1)
    with pytest.raises(ParameterError, match=r"call rvq\.fit"):
        ResidualVectorQuantizer.of(made().to_numpy(), codebook_training="gradient")


def test_codewords_trained_by_gradient_may_start_from_kmeans():
    rvq = rvq_np.ResidualVectorQuantizer(6, 6, 3, 8, rng=0).fit(normal(90, 6))
    layer = ResidualVectorQuantizer.of(rvq, codebook_training="gradient")
    assert len(layer.trainable_variables) == 3
    np.testing.assert_array_equal(back(layer.encode(normal(40, 6), RATE)),
                                  rvq.encode(normal(40, 6), RATE))  # fmt: skip


def test_bandwidth_of_the_layer_and_of_the_call():
    layer = made(sample_rate=RATE, bandwidth=0.3)
    counts = [
        len(layer.quantize_batch(normal()).codes),
        len(layer.quantize_batch(normal(), bandwidth=0).codes),
        len(layer.quantize_batch(normal(), 100, 0.3).codes),
    ]
    assert counts == [2, 3, 1]
    whole = layer.quantize_batch(normal()).quantized
    np.testing.assert_array_equal(back(layer(normal())), back(whole))


def test_draws_follow_the_seed():
    codewords = []
    for seed in (3, 3, 4):
        layer = made(seed=seed, quantizer_dropout=True)
        layer(normal(), training=True)
        codewords.append(arrays(layer)["vq.layers.2._codebook.embed"])
    np.testing.assert_array_equal(codewords[0], codewords[1])
    assert (codewords[0] != codewords[2]).any()
    fresh = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        fresh.append(arrays(made(seed=None))["vq.layers.2._codebook.embed"])
    np.testing.assert_array_equal(fresh[0], fresh[1])
    assert (fresh[0] != fresh[2]).any()


def test_two_formats_are_chosen_by_kerass_setting():
    was = keras.config.image_data_format()
    try:
        keras.config.set_image_data_format("channels_first")
        assert made().data_format == "channels_first"
        keras.config.set_image_data_format("channels_last")
        assert made().data_format == "channels_last"
    finally:
        keras.config.set_image_data_format(was)


def test_the_function_takes_variables_and_refuses_symbols():
    rvq = rvq_np.ResidualVectorQuantizer(6, 6, 3, 8, kmeans_init=False, rng=0).eval()
    result = grad.quantize(keras.Variable(normal(40, 6)), rvq, RATE)
    np.testing.assert_array_equal(back(result.codes), rvq.encode(normal(40, 6), RATE))
    with pytest.raises(BackendError, match="KerasTensor"):
        grad.quantize(keras.Input((6,)), rvq, RATE)


def test_examples_in_docstrings_run():
    assert doctest.testmod(shim) == doctest.TestResults(failed=0, attempted=8)


if TRACES:

    def traced(function, x):
        if BACKEND == "jax":
            import jax

            return jax.jit(function)(x)
        import tensorflow as tf

        return tf.function(function)(tf.convert_to_tensor(x))

    def test_what_needs_values_is_refused_while_tracing():
        layer = made()
        for call, x in ((layer.encode, normal()), (layer.decode, np.zeros((3, 40), np.int32))):
            # AutoGraph wraps an error in one of its own.
            with pytest.raises(Exception, match="not known while the backend traces"):
                traced(lambda x, call=call: call(x, RATE) if call == layer.encode else call(x), x)

    def test_values_that_are_not_known_give_nan_and_no_codes():
        x = normal(40, 6)
        x[3, 2] = np.inf
        layer = made()
        result = traced(lambda x: tuple(layer.quantize_batch(x, RATE)), x)
        assert np.isnan(back(result[0])).all()
        assert (back(result[1]) == -2).all()  # which names nothing; -1 is a dropped code

else:

    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
    def test_it_can_be_compiled_around_the_search():
        import torch

        model = keras.Sequential([made(), keras.layers.Dense(3)])
        model.compile("sgd", "mse")
        x = normal()
        model.fit(x, x[..., :3], verbose=0)
        expected = model.layers[0](x)
        compiled = torch.compile(model.layers[0], backend="aot_eager")
        np.testing.assert_array_equal(back(compiled(torch.from_numpy(x))), back(expected))


if BACKEND == "tensorflow":

    def test_xla_is_refused_by_name_and_left_out_of_fit():
        import tensorflow as tf

        layer = made()
        with pytest.raises(Exception, match="Omit jit_compile=True"):
            tf.function(layer, jit_compile=True)(tf.constant(normal()))
        model = keras.Sequential([layer])
        model.compile("sgd", "mse")
        model.fit(normal(), normal(), verbose=0)
        assert not model.jit_compile
        with pytest.warns(UserWarning, match="support `jit_compile=True`"):
            model.compile("sgd", "mse", jit_compile=True)


def test_stages_are_asked_for_as_of_the_class():
    rvq = rvq_np.ResidualVectorQuantizer(6, 6, 3, 8, rng=0).fit(normal(90, 6)).eval()
    layer, x = ResidualVectorQuantizer.of(rvq), normal(40, 6)
    for n in (1, 2, 3):
        result = layer.quantize_batch(x, n_q=n)
        np.testing.assert_array_equal(back(result.codes), rvq.encode(x, n_q=n))
        assert float(back(result.bandwidth)) == 3 * n  # bits per vector
        np.testing.assert_array_equal(back(layer.encode(x, n_q=n)), rvq.encode(x, n_q=n))
        decoded = layer.decode(layer.encode(x), n_q=n)
        np.testing.assert_array_equal(back(decoded), rvq(x, n_q=n).quantized)
    rated = ResidualVectorQuantizer.of(rvq, sample_rate=50, bandwidth=0.3)
    assert rated.encode(x).shape[0] == 2
    assert rated.encode(x, n_q=3).shape[0] == 3
    assert "3 stages of 8 codewords, dimension=6, codebook_dim=6" in repr(layer)
