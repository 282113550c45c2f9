"""An unknown framework joins by one short file: a tape of forty lines and its shim."""

import dataclasses
import types

import numpy as np
import pytest
from helpers import surrogate
from test_grad import LAYOUTS, point_of, rows_of, trained

import rvq_np
from rvq_np import grad
from rvq_np.errors import BackendError, DtypeError, NonFiniteError, ShapeError

RATE = 50


class Tensor:
    """A value, and for each value it was made of the way its gradient goes back."""

    __module__ = "forty_lines.tape"

    def __init__(self, value, *made_of):
        self.value, self.made_of, self.gradient = np.asarray(value), made_of, 0.0

    def __add__(self, other):
        return Tensor(self.value + other.value, (self, lambda g: g), (other, lambda g: g))

    def __sub__(self, other):
        return Tensor(self.value - other.value, (self, lambda g: g), (other, lambda g: -g))

    def __mul__(self, other):
        if not isinstance(other, Tensor):
            return Tensor(self.value * other, (self, lambda g: g * other))
        return Tensor(self.value * other.value, (self, lambda g: g * other.value),
                      (other, lambda g: g * self.value))  # fmt: skip

    def __matmul__(self, other):
        return Tensor(self.value @ other.value, (self, lambda g: g @ other.value.T),
                      (other, lambda g: self.value.T @ g))  # fmt: skip

    def sum(self):
        return Tensor(self.value.sum(), (self, lambda g: np.broadcast_to(g, self.value.shape)))

    def backward(self):
        order, seen = [], set()

        def visit(tensor):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                for parent, _ in tensor.made_of:
                    visit(parent)
                order.append(tensor)

        visit(self)
        self.gradient = np.ones_like(self.value)
        for tensor in reversed(order):
            for parent, back in tensor.made_of:
                parent.gradient = parent.gradient + back(tensor.gradient)


def quantize(x, rvq, sample_rate, bandwidth, mask, estimator):
    """The shim: all that ``rvq_np.grad`` asks of a framework."""
    result, vjp = grad.quantize_vjp(x.value, rvq, sample_rate, bandwidth, mask, estimator=estimator)

    def output(name):
        value = getattr(result, name)
        return None if value is None else Tensor(value, (x, lambda g: vjp(**{name: g}).x))

    names = ("quantized", "penalty", "quantization_loss")
    return dataclasses.replace(result, **{name: output(name) for name in names})


@pytest.fixture(params=["called directly", "found as a plug-in"])
def call(request, monkeypatch):
    """Quantize, with nothing of the package changed."""
    if request.param == "called directly":

        def direct(x, rvq, bandwidth=None, mask=None, estimator="straight-through"):
            return quantize(x, rvq, RATE, bandwidth, mask, estimator)

        return direct
    with pytest.raises(BackendError, match=r"no file of rvq_np\.grad supports forty_lines\.tape"):
        grad.quantize(Tensor(np.ones((3, 6))), trained(), RATE)
    entry = types.SimpleNamespace(load=lambda: types.SimpleNamespace(quantize=quantize))

    def entry_points(group, name):
        return [entry] if (group, name) == ("rvq_np.grad", "forty_lines") else []

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    monkeypatch.setattr("rvq_np.grad._shims", {})
    return lambda x, rvq, bandwidth=None, **given: grad.quantize(x, rvq, RATE, bandwidth, **given)


@pytest.mark.parametrize("estimator", ["straight-through", "rotation"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("training", "dropout"), [(False, False), (True, False), (True, 0.75)])
@pytest.mark.parametrize("codebook_dim", [6, 4])
def test_gradients_are_the_slopes_of_the_surrogate(
    call, codebook_dim, training, dropout, masked, layout, estimator, rng
):
    rvq = trained(codebook_dim, quantizer_dropout=dropout).train(training)
    x, expected = rng.standard_normal((2, *LAYOUTS[layout]))
    mask = rng.random((x.shape[0], *x.shape[2:])) < 0.7 if masked else None
    before, leaf = rvq.state_dict(), Tensor(x)
    result = call(leaf * 1.0, rvq, mask=mask, estimator=estimator)
    total = (result.quantized * expected).sum() + result.penalty * 3.0
    if dropout:
        total = total + result.quantization_loss * -2.0
    total.backward()
    point = point_of(before, result, x, mask, rvq, estimator)

    def scalar(quantized, penalty, quantization):
        return (
            (quantized * rows_of(expected)).sum() + 3 * penalty - 2 * quantization * bool(dropout)
        )

    slack = 1e-6 if estimator == "rotation" else 1e-8
    for _ in range(3):
        direction = rng.standard_normal(point.rows.shape)
        slope = surrogate.slope(point, scalar, direction)
        found = (rows_of(leaf.gradient) * direction).sum()
        assert found == pytest.approx(slope, rel=slack, abs=slack)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(40, 6), (4, 6, 10), (0, 6), (2, 6, 0)])
def test_values_and_state_are_those_of_the_class(call, shape, training, rng):
    ours, theirs = (trained(4, quantizer_dropout=0.5).train(training) for _ in range(2))
    x = rng.standard_normal(shape).astype(np.float32)
    mask = rng.random((shape[0], *shape[2:])) < 0.8
    result = call(Tensor(x), ours, mask=mask)
    for one, other in zip(result, theirs(x, RATE, mask=mask), strict=True):
        np.testing.assert_array_equal(getattr(one, "value", one), other)
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[name], value)


@pytest.mark.parametrize(
    ("x", "mask", "error"),
    [
        (np.ones((3, 6), int), None, DtypeError),
        (np.ones((3, 5)), None, ShapeError),
        (np.full((3, 6), np.nan), None, NonFiniteError),
        (np.ones((3, 6)), Tensor(np.ones(3, bool)), BackendError),
    ],
    ids=["integers", "shape", "nan", "mask"],
)
def test_what_cannot_be_quantized_is_refused(call, x, mask, error):
    rvq = trained()
    before = rvq.state_dict()
    with pytest.raises(error):
        call(Tensor(x), rvq, mask=mask)
    for name, value in before.items():
        np.testing.assert_array_equal(rvq.state_dict()[name], value)


def test_an_autoencoder_learns(call):
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((64, 12)) @ rng.standard_normal((12, 12)) / 3)
    into, out = (Tensor(rng.standard_normal(shape) / 4) for shape in ((12, 6), (6, 12)))
    rvq = rvq_np.ResidualVectorQuantizer(6, 6, n_q=3, bins=16, rng=0)
    errors, share = [], 1 / x.value.size
    for _ in range(200):
        result = call(x @ into, rvq)
        apart = result.quantized @ out - x
        error = (apart * apart).sum() * share
        errors.append(float(error.value))
        (error + result.penalty).backward()
        for weight in (into, out):
            weight.value, weight.gradient = weight.value - 0.2 * weight.gradient, 0.0
    assert errors[-1] < 0.4 * errors[0]


def test_projections_learn_by_the_products_alone():
    """What a shim that trains a quantizer's own arrays does in each step."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 6)) @ rng.standard_normal((6, 6)) / 2
    rvq = rvq_np.ResidualVectorQuantizer(6, 2, n_q=2, bins=16, rng=0)
    errors = []
    for _ in range(100):
        result, vjp = grad.quantize_vjp(x, rvq, RATE)
        apart = result.quantized - x
        errors.append((apart**2).mean())
        moved = vjp(2 * apart / x.size, penalty=1.0).parameters
        state = rvq.state_dict()
        for name in filter(lambda name: "project" in name, moved):
            state[name] = state[name] - 0.3 * moved[name]
        rvq.load_state_dict(state)
    assert errors[-1] < 0.6 * errors[0]
