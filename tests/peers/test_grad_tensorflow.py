"""TensorFlow: eager and tf.function, and the Keras layer on it. Needs 1.4 GB: run it by name."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import keras_backends, shim, shim_training

import rvq_np
from rvq_np import grad
from rvq_np.errors import BackendError, DtypeError, ShapeError

RATE = 50


def array(values, dtype):
    return tf.cast(tf.convert_to_tensor(np.asarray(values)), dtype)


def as_numpy(x):
    return (tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x).numpy()


def gradient(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        scalar, aux = function(x)
    return (scalar, aux), tape.gradient(scalar, x)


def compiled_gradient(function, x):
    def call(x):
        (scalar, result), found = gradient(function, x)
        return (scalar, tuple(result)), found

    (scalar, result), found = tf.function(call)(x)
    return (scalar, rvq_np.quantizer.layout.QuantizedResult(*result)), found


@pytest.fixture(autouse=True)
def _sums(monkeypatch):
    """The shared tests add up as other frameworks do: by a method, and over float types."""

    def total(x):
        return tf.reduce_sum(x if x.dtype == tf.float64 else tf.cast(x, tf.float32))

    monkeypatch.setattr(tf.Tensor, "sum", total, raising=False)


def framework(gradient):
    return shim.Framework(
        array, as_numpy, gradient, foreign=np.ones(3, bool),
        dtypes=("float16", "bfloat16", "float32", "float64"),
    )  # fmt: skip


works = lambda name: pytest.mark.transform("tensorflow", name)  # noqa: E731
TestShim = works("eager")(shim.shim_tests(framework(gradient)))
TestCompiled = works("tf.function")(shim.shim_tests(framework(compiled_gradient)))
TestTraining = works("eager")(shim_training.training_tests(framework(gradient)))


@pytest.mark.transform("keras on tensorflow", "fit, GradientTape, tf.function, save and load")
def test_the_layer_keeps_its_promises():
    keras_backends.check_cases("tensorflow")


def test_a_variable_is_a_tensor_too(rng):
    x, rvq = rng.standard_normal((9, 6)).astype(np.float32), shim.trained().eval()
    np.testing.assert_array_equal(grad.quantize(tf.Variable(x), rvq, RATE).codes.numpy(),
                                  rvq.encode(x, RATE))  # fmt: skip


@pytest.mark.parametrize("dropout", [False, 0.5])
def test_eager_it_learns_as_the_class_does(rng, dropout):
    ours, theirs = (shim.trained(4, quantizer_dropout=dropout).train() for _ in range(2))
    x = rng.standard_normal((4, 6, 10)).astype(np.float32)
    weights = np.linspace(-1, 1, x.size, dtype=np.float32).reshape(x.shape)

    def loss(x):
        result = grad.quantize(x, ours, RATE)
        return tf.reduce_sum(result.quantized * weights) + 3 * result.penalty, result

    (_, result), found = gradient(loss, tf.constant(x))
    expected, vjp = grad.quantize_vjp(x, theirs, RATE)
    np.testing.assert_array_equal(result.quantized.numpy(), expected.quantized)
    np.testing.assert_array_equal(result.bandwidth.numpy(), expected.bandwidth)
    assert result.penalty.numpy() == pytest.approx(float(expected.penalty), rel=1e-5)
    assert (result.quantization_loss is None) == (not dropout)
    np.testing.assert_allclose(found.numpy(), vjp(weights, penalty=3.0).x, rtol=1e-4, atol=1e-6)
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[name], value)


@pytest.mark.parametrize("shape", [(None, 6), (None, 6, None)])
def test_sizes_may_be_unknown_and_shapes_come_out_as_far_as_known(rng, shape):
    rvq = shim.trained(4).eval()
    shapes = []

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
    def call(x):
        result = grad.quantize(x, rvq, RATE, 0.3)
        shapes.append((result.codes.shape.as_list(), result.quantized.shape.as_list()))
        return result.codes, result.quantized

    for size in (5, 8):
        x = rng.standard_normal([size if each is None else each for each in shape])
        codes, quantized = call(tf.constant(x, tf.float32))
        expected = rvq(x.astype(np.float32), RATE, 0.3)
        np.testing.assert_array_equal(codes.numpy(), expected.codes)
        np.testing.assert_array_equal(quantized.numpy(), expected.quantized)
    assert shapes == [([2, None, *shape[2:]], list(shape))]


def test_in_a_graph_it_does_not_learn():
    rvq = shim.trained()
    with pytest.raises(Exception, match=r"train mode inside a tf\.function"):
        tf.function(lambda x: grad.quantize(x, rvq, RATE).codes)(tf.ones((3, 6)))


def test_in_a_graph_bad_numbers_give_nan_and_no_codes():
    rvq = shim.trained(4).eval()
    x = np.ones((3, 6), np.float32)
    x[1, 2] = np.nan
    codes, quantized = tf.function(lambda x: tuple(grad.quantize(x, rvq, RATE))[1::-1])(x)
    assert (codes.numpy() == -2).all()
    assert np.isnan(quantized.numpy()).all()


@pytest.mark.transform("tensorflow", "jit_compile=True", refused=True)
def test_xla_is_refused_by_name():
    rvq = shim.trained().eval()
    with pytest.raises(Exception, match="Omit jit_compile=True"):
        tf.function(lambda x: grad.quantize(x, rvq, RATE).codes, jit_compile=True)(tf.ones((3, 6)))


def test_a_graph_outlives_changes_of_the_quantizer(rng):
    rvq = shim.trained().eval()
    x = rng.standard_normal((40, 6)).astype(np.float32)
    call = tf.function(lambda x: grad.quantize(x, rvq, RATE).quantized)
    np.testing.assert_array_equal(call(x).numpy(), rvq(x, RATE).quantized)
    rvq.fit(x[:20])
    np.testing.assert_array_equal(call(x).numpy(), rvq(x, RATE).quantized)


@pytest.mark.parametrize(
    ("given", "mask", "error", "text"),
    [
        (lambda: tf.ones((3, 6)), lambda: tf.ones((4,), tf.bool), ShapeError, "mask"),
        (lambda: tf.ones((3, 6)), lambda: tf.ones((3,)), DtypeError, r"tf\.bool"),
        (lambda: tf.ones((3, 6)), lambda: np.ones(3, bool), BackendError, "TensorFlow tensors"),
        (lambda: tf.ones((6,)), lambda: None, ShapeError, r"\(N, 6\)"),
        (lambda: tf.ones((3, 6), tf.complex64), lambda: None, DtypeError, "floating-point"),
    ],
)
def test_what_cannot_be_quantized_is_refused(given, mask, error, text):
    with pytest.raises(error, match=text):
        grad.quantize(given(), shim.trained().eval(), RATE, mask=mask())


def test_an_unknown_rank_is_refused_by_name():
    rvq = shim.trained().eval()
    call = tf.function(
        lambda x: grad.quantize(x, rvq, RATE).codes,
        input_signature=[tf.TensorSpec(None, tf.float32)],
    )
    with pytest.raises(Exception, match=r"tf\.ensure_shape"):
        call(tf.ones((3, 6)))
