"""Gradients without a framework: against differences of an independent surrogate, in float64."""

import pickle
import types

import numpy as np
import pytest
from helpers import surrogate

import rvq_np
from rvq_np import grad
from rvq_np.errors import BackendError, DtypeError, NonFiniteError, ParameterError, ShapeError

RATE = 50
LAYOUTS = {"rows": (40, 6), "batch": (4, 6, 10)}
CASES = [
    (codebook_dim, training, dropout, layout, masked, estimator)
    for codebook_dim in (6, 4)
    for training, dropout in ((False, False), (True, False), (True, 0.75))
    for layout in LAYOUTS
    for masked in (False, True)
    for estimator in ("straight-through", "rotation")
]


def trained(codebook_dim=6, seed=0, **arguments):
    arguments = {"dimension": 6, "codebook_dim": codebook_dim, "n_q": 3, "bins": 8, **arguments}
    rvq = rvq_np.ResidualVectorQuantizer(**arguments, commitment_weight=0.7, rng=seed)
    rvq(np.random.default_rng(5).standard_normal((150, 6)).astype(np.float32), RATE)
    return rvq


def rows_of(x):
    return x if x.ndim == 2 else np.moveaxis(x, 1, 2).reshape(-1, x.shape[1])


def point_of(rvq_entries, result, x, mask, rvq, estimator):
    """Return where the surrogate is frozen, from public results only."""
    x = x if mask is None else np.where(mask[:, None], x, 0)
    stages = np.atleast_1d(result.bandwidth) / rvq.get_bandwidth_per_quantizer(RATE)
    stages = np.rint(stages).astype(int)
    count = len(rows_of(x))
    stages = np.repeat(stages, count // len(stages))
    if mask is not None:
        stages = np.where(mask.reshape(-1), stages, 0)
    entries = {name: value.astype(np.float64) for name, value in rvq_entries.items()}
    return surrogate.Point(
        rows_of(x).astype(np.float64), entries, result.codes.reshape(len(result.codes), -1),
        stages, 0.7, rvq.training, estimator,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_products_are_the_slopes_of_the_surrogate(case, rng):
    codebook_dim, training, dropout, layout, masked, estimator = case
    rvq = trained(codebook_dim, quantizer_dropout=dropout).train(training)
    x = rng.standard_normal(LAYOUTS[layout])
    mask = rng.random((x.shape[0], *x.shape[2:])) < 0.7 if masked else None
    before = rvq.state_dict()
    result, vjp = grad.quantize_vjp(x, rvq, RATE, mask=mask, estimator=estimator)
    point = point_of(before, result, x, mask, rvq, estimator)
    expected = rng.standard_normal(x.shape)

    def scalar(quantized, penalty, quantization):
        return (quantized * rows_of(expected)).sum() + 3 * penalty - 2 * quantization

    found = vjp(expected, penalty=3.0, quantization_loss=-2.0)
    # The package turns towards the sum of codewords in float32, the surrogate towards that in
    # float64.
    slack = 1e-6 if estimator == "rotation" else 1e-8
    for _ in range(4):
        direction = rng.standard_normal(point.rows.shape)
        slope = surrogate.slope(point, scalar, direction)
        assert (rows_of(found.x) * direction).sum() == pytest.approx(slope, rel=slack, abs=slack)
    learned = {name for name in before if "project" in name or name.endswith("embed")}
    assert set(found.parameters) == learned
    for name, value in found.parameters.items():
        direction = rng.standard_normal(value.shape)
        slope = surrogate.slope(point, scalar, direction, name)
        assert (value * direction).sum() == pytest.approx(slope, rel=slack, abs=slack), name


@pytest.mark.parametrize("training", [False, True])
def test_the_result_is_that_of_the_class_and_so_is_what_it_learns(training, rng):
    ours, theirs = (trained(4, quantizer_dropout=0.5).train(training) for _ in range(2))
    x = rng.standard_normal((3, 6, 20)).astype(np.float32)
    mask = rng.random((3, 20)) < 0.8
    result, _ = grad.quantize_vjp(x, ours, RATE, mask=mask)
    expected = theirs(x, RATE, mask=mask)
    for one, other in zip(result, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(ours.state_dict()[name], value)


def test_the_commitment_reaches_every_stage(rng):
    """Others leave stages after the first without any (encodec issue 25)."""
    rvq = trained().train()
    x = rng.standard_normal((50, 6))
    before = rvq.codebooks
    _, vjp = grad.quantize_vjp(x, rvq, RATE)
    total, left = 0, x
    for stage in range(3):
        codewords = before.stages[stage].codebook[vjp.codes[stage]].astype(np.float64)
        total = total + 2 * 0.7 * (left - codewords) / (3 * x.size)
        left = left - codewords
    np.testing.assert_allclose(vjp(penalty=1.0).x, total, rtol=1e-9)


def test_what_padding_holds_reaches_no_gradient(rng):
    x = rng.standard_normal((2, 6, 5))
    mask = np.arange(5) < np.array([[3], [5]])
    dirty = np.where(mask[:, None], x, np.inf)
    for estimator in ("straight-through", "rotation"):
        found = []
        for each in (x, dirty):
            _, vjp = grad.quantize_vjp(each, trained(4), RATE, mask=mask, estimator=estimator)
            found.append(vjp(np.ones_like(x), penalty=1.0))
        np.testing.assert_array_equal(found[1].x, found[0].x)
        assert (found[1].x[:, 0][~mask] == 0).all()
        for name, value in found[0].parameters.items():
            np.testing.assert_array_equal(found[1].parameters[name], value)


def test_half_precision_comes_back_as_it_was(rng):
    x = rng.standard_normal((10, 6)).astype(np.float16)
    result, vjp = grad.quantize_vjp(x, trained().eval(), RATE)
    assert result.quantized.dtype == np.float16
    gradient = vjp(np.ones_like(x)).x
    assert gradient.dtype == np.float16
    np.testing.assert_array_equal(gradient, 1)


def test_products_can_be_pickled(rng):
    x = rng.standard_normal((10, 6)).astype(np.float32)
    _, vjp = grad.quantize_vjp(x, trained(4).train(), RATE)
    expected = rng.standard_normal(x.shape)
    again = pickle.loads(pickle.dumps(vjp))
    np.testing.assert_array_equal(again(expected, penalty=1.0).x, vjp(expected, penalty=1.0).x)


def test_products_do_not_follow_the_batch_into_later_changes(rng):
    x = rng.standard_normal((10, 6)).astype(np.float32)
    _, vjp = grad.quantize_vjp(x, trained().train(), RATE)
    before = vjp(penalty=1.0).x
    x[:] = 7
    np.testing.assert_array_equal(vjp(penalty=1.0).x, before)


@pytest.mark.parametrize("size", [0, 1e30, 1e-30, 1e-42])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_rotation_has_a_gradient_where_squares_overflow_or_there_is_no_direction(size, dtype):
    x = np.full((5, 6), size, dtype)
    rvq = trained().eval()
    _, vjp = grad.quantize_vjp(x, rvq, RATE, estimator="rotation")
    found = vjp(np.ones_like(x)).x
    assert np.isfinite(found).all()
    if not x.any():
        np.testing.assert_array_equal(found, 1)


def test_no_rows_have_no_gradient():
    for shape in ((0, 6), (2, 6, 0)):
        x = np.empty(shape, np.float32)
        for estimator in ("straight-through", "rotation"):
            _, vjp = grad.quantize_vjp(x, trained(4).train(), RATE, estimator=estimator)
            assert vjp(x, penalty=1.0).x.shape == shape


def test_numpy_arrays_are_quantized_as_by_the_class(rng):
    x = rng.standard_normal((10, 6)).astype(np.float32)
    result = grad.quantize(x, trained(), RATE, 0.3)
    for one, other in zip(result, trained()(x, RATE, 0.3), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        ({"x": np.ones((3, 6), int)}, DtypeError, "floating-point"),
        ({"x": np.ones((3, 5))}, ShapeError, "dimension"),
        ({"x": np.full((3, 6), np.nan)}, NonFiniteError, r"nan at \(0, 0\)"),
        ({"x": [[1.0] * 6]}, BackendError, "quantize"),
        ({"estimator": "sigmoid"}, ParameterError, "straight-through, rotation"),
        ({"rvq": "a quantizer"}, BackendError, "expected an"),
        ({"bandwidth": -1}, ParameterError, "bandwidth"),
    ],
)
@pytest.mark.parametrize("call", ["quantize", "quantize_vjp"])
def test_what_cannot_be_quantized_is_refused(call, bad, error, text):
    rvq = trained()
    before = rvq.state_dict()
    given = {"x": np.ones((3, 6), np.float32), "rvq": rvq, "sample_rate": RATE, **bad}
    with pytest.raises(error, match=text):
        getattr(grad, call)(**given)
    for name, value in before.items():
        np.testing.assert_array_equal(rvq.state_dict()[name], value)


def test_a_gradient_of_the_wrong_shape_is_refused(rng):
    _, vjp = grad.quantize_vjp(rng.standard_normal((10, 6)), trained(), RATE)
    with pytest.raises(ShapeError, match=r"\(6, 10\); expected \(10, 6\)"):
        vjp(np.ones((6, 10)))


def test_a_framework_from_outside_joins_by_an_entry_point(monkeypatch):
    class Theirs:
        __module__ = "their_engine.arrays"

    shim = types.SimpleNamespace(quantize=lambda x, *rest: (type(x), rest[1]))
    entry = types.SimpleNamespace(load=lambda: shim)

    def entry_points(group, name):
        return [entry] if (group, name) == ("rvq_np.grad", "their_engine") else []

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    assert grad.quantize(Theirs(), trained(), RATE) == (Theirs, RATE)
    with pytest.raises(BackendError, match="Wrap"):
        grad.quantize(object(), trained(), RATE)
