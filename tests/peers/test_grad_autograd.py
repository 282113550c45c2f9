"""HIPS autograd: the bits of the class, gradients against products and finite differences."""

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from autograd.misc.optimizers import adam
from autograd.tracer import getval
from helpers import shim, shim_training, surrogate
from test_grad import LAYOUTS, point_of, rows_of

import rvq_np
from rvq_np import grad
from rvq_np.errors import BackendError, DtypeError, NonFiniteError, ShapeError, StateError
from rvq_np.grad.autograd import quantize_with
from rvq_np.train import AllReduce

RATE = 50
works = lambda name: pytest.mark.transform("autograd", name)  # noqa: E731
refused = lambda name: pytest.mark.transform("autograd", name, refused=True)  # noqa: E731


def gradient(function, x):
    reported = []

    def scalar(x):
        value, aux = function(x)
        reported.append((getval(value), aux))
        return value

    found = autograd.grad(scalar)(x)
    return reported[0], found


FRAMEWORK = shim.Framework(
    lambda values, dtype: np.asarray(values).astype(dtype), getval, gradient,
    foreign=[True] * 3, dtypes=("float16", "float32", "float64"),
)  # fmt: skip
TestShim = works("grad")(shim.shim_tests(FRAMEWORK))
TestTraining = works("grad, a quantizer in train mode")(shim_training.training_tests(FRAMEWORK))


def learned(rvq):
    """Return the projections and codewords of a quantizer, as autograd users hold them."""
    return {
        name: value.astype(np.float64)
        for name, value in rvq.state_dict().items()
        if "project" in name or name.endswith("embed")
    }


def total_of(result, expected):
    total = anp.sum(result.quantized * expected) + 3 * result.penalty
    if result.quantization_loss is not None:
        total = total - 2 * result.quantization_loss
    return total


@works("grad")
@pytest.mark.parametrize("estimator", ["straight-through", "rotation"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("training", "dropout"), [(False, False), (True, False), (True, 0.75)])
@pytest.mark.parametrize("codebook_dim", [6, 4])
def test_gradients_are_the_slopes_of_the_surrogate(
    codebook_dim, training, dropout, masked, layout, estimator, rng
):
    """Of the vectors, the projections and the codewords, in float64."""
    rvq = shim.trained(codebook_dim, quantizer_dropout=dropout).train(training)
    x, expected = rng.standard_normal((2, *LAYOUTS[layout]))
    mask = rng.random((x.shape[0], *x.shape[2:])) < 0.7 if masked else None
    before, results = rvq.state_dict(), []

    def loss(parameters, x):
        results.append(quantize_with(parameters, x, rvq, RATE, mask=mask, estimator=estimator))
        return total_of(results[0], expected)

    to_parameters, to_x = autograd.grad(loss, argnum=(0, 1))(learned(rvq), x)
    point = point_of(before, results[0], x, mask, rvq, estimator)

    def scalar(quantized, penalty, quantization):
        return (quantized * rows_of(expected)).sum() + 3 * penalty - 2 * quantization

    slack = 1e-6 if estimator == "rotation" else 1e-8
    for _ in range(3):
        direction = rng.standard_normal(point.rows.shape)
        slope = surrogate.slope(point, scalar, direction)
        assert (rows_of(to_x) * direction).sum() == pytest.approx(slope, rel=slack, abs=slack)
    assert set(to_parameters) == set(learned(rvq))
    for name, value in to_parameters.items():
        direction = rng.standard_normal(value.shape)
        slope = surrogate.slope(point, scalar, direction, name)
        assert (value * direction).sum() == pytest.approx(slope, rel=slack, abs=slack), name


@works("jacobian, value_and_grad")
def test_other_reverse_operators(rng):
    rvq = shim.trained(4).eval()
    x = rng.standard_normal((3, 6))
    jacobian = autograd.jacobian(lambda x: grad.quantize(x, rvq, RATE).quantized)(x)
    np.testing.assert_array_equal(jacobian, np.eye(18).reshape(3, 6, 3, 6))
    call = autograd.value_and_grad(lambda x: (grad.quantize(x, rvq, RATE).quantized ** 2).sum())
    value, found = call(x)
    quantized = rvq(x, RATE).quantized
    assert value == (quantized**2).sum()
    np.testing.assert_array_equal(found, 2 * quantized)


def test_codes_and_bandwidth_are_plain_arrays(rng):
    rvq = shim.trained(quantizer_dropout=0.5)

    def loss(x):
        result = grad.quantize(x, rvq, RATE)
        assert type(result.codes) is np.ndarray
        assert type(result.bandwidth) is np.ndarray
        assert len(result) == 5
        return result.quantization_loss + result.penalty

    assert autograd.grad(loss)(rng.standard_normal((5, 6))).shape == (5, 6)


@refused("second derivatives")
@pytest.mark.parametrize("inner", [0, 1])
def test_second_derivatives_are_refused(inner, rng):
    """Whether the vectors, or only what comes back, belong to the outer derivative."""
    rvq = shim.trained()
    x = rng.standard_normal((5, 6))
    before = rvq.state_dict()

    def loss(x, scale):
        return grad.quantize(x, rvq, RATE).penalty * scale

    outer = autograd.grad(lambda x, scale: autograd.grad(loss)(x, scale).sum(), argnum=inner)
    with pytest.raises(BackendError, match="second derivatives"):
        outer(x, 2.0)
    if inner == 0:
        for name, value in before.items():
            np.testing.assert_array_equal(rvq.state_dict()[name], value)


@refused("forward mode")
def test_forward_mode_is_refused_before_anything_is_learned(rng):
    rvq, x = shim.trained(), rng.standard_normal((5, 6))
    before = rvq.state_dict()
    with pytest.raises(BackendError, match="forward mode"):
        autograd.make_jvp(lambda x: grad.quantize(x, rvq, RATE).quantized)(x)(x)
    for name, value in before.items():
        np.testing.assert_array_equal(rvq.state_dict()[name], value)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        ({"x": np.ones((3, 5))}, ShapeError, "dimension"),
        ({"x": np.ones(6)}, ShapeError, "dimension"),
        ({"x": np.full((3, 6), np.inf)}, NonFiniteError, "inf"),
        ({"mask": np.ones(4, bool)}, ShapeError, "mask"),
        ({"mask": np.ones(3)}, DtypeError, "bool"),
        ({"mask": [True] * 3}, BackendError, "list"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_under_grad_too_what_cannot_be_quantized_is_refused(bad, error, text, training):
    rvq = shim.trained(4).train(training)
    before = rvq.state_dict()
    given = {"x": np.ones((3, 6)), "mask": None, **bad}
    mask = given["mask"]
    with pytest.raises(error, match=text):
        autograd.grad(lambda x: grad.quantize(x, rvq, RATE, mask=mask).quantized.sum())(given["x"])
    with pytest.raises(error, match=text):
        autograd.grad(lambda p: quantize_with(p, given["x"], rvq, RATE, mask=mask).quantized.sum())(
            learned(rvq)
        )
    for name, value in before.items():
        np.testing.assert_array_equal(rvq.state_dict()[name], value)


def test_integers_are_refused_where_only_the_parameters_are_differentiated():
    rvq = shim.trained(4)
    with pytest.raises(DtypeError, match="floating-point"):
        quantize_with(learned(rvq), np.ones((3, 6), int), rvq, RATE)
    with pytest.raises(BackendError, match="list"):
        quantize_with(learned(rvq), [[1.0] * 6], rvq, RATE)
    with pytest.raises(BackendError, match="expected an"):
        quantize_with({}, np.ones((3, 6)), "a quantizer", RATE)


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("vq.layers.0._codebook.embed_avg", (8, 4), "statistics"),
        ("vq.layers.9.project_in.weight", (4, 6), "extra"),
        ("vq.layers.0.project_in.weight", (6, 4), "shape"),
    ],
)
def test_parameters_the_quantizer_has_not_are_refused(name, shape, text):
    with pytest.raises(StateError, match=text):
        quantize_with({name: np.ones(shape)}, np.ones((3, 6)), shim.trained(4), RATE)


def test_parameters_take_the_place_of_those_of_the_quantizer(rng):
    rvq, other = shim.trained(4).eval(), shim.trained(4, decay=0.5)
    other(rng.standard_normal((90, 6)), RATE)
    x, before = rng.standard_normal((20, 6)), rvq.state_dict()
    result = quantize_with(learned(other), x, rvq, RATE)
    expected = other.eval()(x, RATE)
    np.testing.assert_array_equal(result.codes, expected.codes)
    np.testing.assert_array_equal(result.quantized, expected.quantized)
    assert result.penalty == result.quantization_loss == 0
    assert (expected.codes != rvq(x, RATE).codes).any()
    for name, value in before.items():
        np.testing.assert_array_equal(rvq.state_dict()[name], value)


@pytest.mark.parametrize("dropout", [False, 0.5])
def test_projections_handed_in_train_as_those_of_the_class(dropout, rng):
    ours, theirs = shim_training.twins(4, dropout)
    for _ in range(2):
        x = rng.standard_normal((40, 6)).astype(np.float32)
        projections = {
            name: value + rng.standard_normal(value.shape).astype(np.float32) / 20
            for name, value in theirs.state_dict().items()
            if "project" in name
        }
        result = quantize_with(projections, x, ours, RATE)
        theirs.load_state_dict({**theirs.state_dict(), **projections})
        expected = theirs(x, RATE)
        assert len(result) == len(expected)
        for one, other in zip(result, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        shim_training.same_state(ours, theirs)


def test_statistics_are_added_up_by_the_hook(rng):
    asked = []
    rvq = shim.trained(4)
    rvq.all_reduce = AllReduce(lambda buffer: asked.append(1) or buffer, 0, 1)
    quantize_with({}, rng.standard_normal((5, 6)), rvq, RATE)
    assert asked


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_codewords_handed_in_stay_and_their_loss_is_reported(weight, rng):
    rvq = rvq_np.ResidualVectorQuantizer(6, 6, n_q=2, bins=8, commitment_weight=weight, rng=0)
    codewords = {
        name: rng.standard_normal(value.shape).astype(np.float32)
        for name, value in rvq.state_dict().items()
        if name.endswith("embed")
    }
    x = rng.standard_normal((40, 6))
    result = quantize_with(codewords, x, rvq, RATE)
    left, loss = x, 0
    for stage, book in enumerate(codewords.values()):
        chosen = book[result.codes[stage]]
        loss, left = loss + ((left - chosen) ** 2).mean() / 2, left - chosen
    assert result.quantization_loss == pytest.approx(loss, rel=1e-6)
    assert result.penalty == pytest.approx(weight * loss, rel=1e-6)
    for name, value in codewords.items():
        np.testing.assert_array_equal(rvq.state_dict()[name], value)
    assert rvq.is_initialized
    rvq.eval()
    np.testing.assert_array_equal(rvq.encode(x, RATE), result.codes)


def test_stages_not_in_use_have_zeros_for_gradients(rng):
    rvq = shim.trained(4)
    x = rng.standard_normal((20, 6))
    found = autograd.grad(
        lambda parameters: total_of(quantize_with(parameters, x, rvq, RATE, bandwidth=0.1), 1.0)
    )(learned(rvq))
    assert set(found) == set(learned(rvq))
    for name, value in found.items():
        assert value.dtype == np.float64
        assert value.any() == (".0." in name), name


@works("training by quantize_with")
@pytest.mark.parametrize("by_codewords", [False, True])
def test_a_network_around_it_learns(by_codewords):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 12)) @ rng.standard_normal((12, 12)) / 3
    rvq = rvq_np.ResidualVectorQuantizer(6, 4, n_q=3, bins=16, rng=0)
    network = {"into": rng.standard_normal((12, 6)) / 4, "out": rng.standard_normal((6, 12)) / 4}
    rvq(x @ network["into"], RATE)
    arrays = learned(rvq)
    if not by_codewords:
        arrays = {name: value for name, value in arrays.items() if "project" in name}

    def loss(both, reported):
        network, parameters = both
        result = quantize_with(parameters, x @ network["into"], rvq, RATE)
        error = anp.mean((result.quantized @ network["out"] - x) ** 2)
        reported.append(getval(error))
        extra = result.quantization_loss if by_codewords else 0
        return error + result.penalty + extra

    reported = []
    network, _ = adam(
        autograd.grad(lambda both, _: loss(both, reported)), (network, arrays), num_iters=200,
        step_size=0.01,
    )  # fmt: skip
    assert reported[-1] < 0.4 * reported[0]


def test_mixed_second_derivatives_are_refused_not_zero():
    rvq = shim.trained(4).eval()
    x = np.random.default_rng(0).standard_normal((20, 6))
    entries = rvq.state_dict()
    parameters = {name: entries[name] for name in entries if "project" in name}

    def loss(parameters, x):
        return (quantize_with(parameters, x, rvq, RATE).quantized ** 2).sum()

    def of_parameters(x):
        return sum((each**2).sum() for each in autograd.grad(loss, 0)(parameters, x).values())

    with pytest.raises(BackendError, match="second derivatives"):
        autograd.grad(of_parameters)(x)
    with pytest.raises(BackendError, match="second derivatives"):
        autograd.grad(lambda parameters: (autograd.grad(loss, 1)(parameters, x) ** 2).sum())(
            parameters
        )
