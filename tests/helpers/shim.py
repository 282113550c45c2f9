"""What every shim owes: the bits of the class, the gradients of its products.

A framework's test file describes it as a `Framework` and binds ``shim_tests`` to a name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import rvq_np
from rvq_np import grad
from rvq_np.errors import BackendError, DtypeError, NonFiniteError, ShapeError

RATE = 50
LAYOUTS = {"rows": (40, 6), "batch": (4, 6, 10)}


@dataclass(frozen=True)
class Framework:
    """How to speak to one framework.

    ``array(values, dtype)`` makes an array, ``numpy(x)`` goes back (half precision as float32),
    ``gradient(function, x)`` returns a function's value ``(scalar, aux)`` and the scalar's
    gradient to x, ``dtypes`` names the float types it has.
    """

    array: Callable[[np.ndarray, str], Any]
    numpy: Callable[[Any], np.ndarray]
    gradient: Callable[[Callable[[Any], Any], Any], Any]
    foreign: Any  # an array of another framework
    dtypes: tuple[str, ...] = ("float32",)


def trained(codebook_dim=6, **arguments):
    arguments = {"dimension": 6, "codebook_dim": codebook_dim, "n_q": 3, "bins": 8, **arguments}
    rvq = rvq_np.ResidualVectorQuantizer(**arguments, commitment_weight=0.7, rng=0)
    rvq(np.random.default_rng(5).standard_normal((150, 6)).astype(np.float32), RATE)
    return rvq


def slack(dtype):
    """Return how far two gradients of that type may be apart, for values around one."""
    return {"float64": 1e-12, "float32": 2e-5, "float16": 2e-3, "bfloat16": 2e-2}[dtype]


def shim_tests(framework):
    """Return a class of tests for ``rvq_np.grad.quantize`` on a framework's arrays."""
    f = framework

    class Tests:
        @pytest.mark.parametrize("estimator", ["straight-through", "rotation"])
        @pytest.mark.parametrize("layout", LAYOUTS)
        @pytest.mark.parametrize("masked", [False, True])
        @pytest.mark.parametrize("dtype", f.dtypes)
        @pytest.mark.parametrize("codebook_dim", [6, 4])
        def test_values_are_those_of_the_class_and_gradients_those_of_the_products(
            self, codebook_dim, dtype, masked, layout, estimator, rng
        ):
            rvq = trained(codebook_dim).eval()
            # Numbers that every type holds, so that all see the same vectors.
            x = (rng.integers(-64, 65, LAYOUTS[layout]) / 32).astype(np.float32)
            mask = rng.random((x.shape[0], *x.shape[2:])) < 0.7 if masked else None
            upstream = (rng.integers(-64, 65, x.shape) / 32).astype(np.float32)
            if dtype == "float64":
                x, upstream = x + 1e-9 * rng.standard_normal(x.shape), upstream.astype(np.float64)
            given = f.array(x, dtype)
            there = None if mask is None else f.array(mask, "bool")
            back = f.array(upstream, dtype)

            def loss(x):
                result = grad.quantize(x, rvq, RATE, 0.3, mask=there, estimator=estimator)
                return (result.quantized * back).sum() + result.penalty, result

            (_, result), gradient = f.gradient(loss, given)
            expected, vjp = grad.quantize_vjp(x, rvq, RATE, 0.3, mask=mask, estimator=estimator)
            assert result.quantized.dtype == given.dtype
            assert result.quantized.shape == given.shape
            np.testing.assert_array_equal(f.numpy(result.codes), expected.codes)
            exact = f.numpy(f.array(expected.quantized, dtype))
            np.testing.assert_array_equal(f.numpy(result.quantized), exact)
            assert float(result.bandwidth) == pytest.approx(float(expected.bandwidth))
            assert f.numpy(result.penalty) == 0
            np.testing.assert_allclose(
                f.numpy(gradient), vjp(upstream).x, rtol=slack(dtype), atol=4 * slack(dtype)
            )

        @pytest.mark.parametrize("shape", [(0, 6), (2, 6, 0)])
        def test_nothing_comes_back_as_nothing(self, shape):
            x = f.array(np.empty(shape, np.float32), "float32")
            result = grad.quantize(x, trained(4).eval(), RATE)
            assert tuple(result.quantized.shape) == shape
            assert tuple(result.codes.shape) == (3, shape[0], *shape[2:])

        @pytest.mark.parametrize("size", [0, 1e30, 1e-30, 1e-42])
        def test_the_rotation_leaves_the_value_alone_where_there_is_no_direction(self, size):
            rvq = trained().eval()
            x = np.full((5, 6), size, np.float32)

            def loss(x):
                result = grad.quantize(x, rvq, RATE, estimator="rotation")
                return (result.quantized * 1.0).sum(), result

            (_, result), gradient = f.gradient(loss, f.array(x, "float32"))
            np.testing.assert_array_equal(f.numpy(result.quantized), rvq(x, RATE).quantized)
            assert np.isfinite(f.numpy(gradient)).all()

        def test_padding_may_hold_anything_and_receives_no_gradient(self, rng):
            rvq = trained(4).eval()
            x = rng.standard_normal((2, 6, 5)).astype(np.float32)
            mask = np.arange(5) < np.array([[3], [5]])
            dirty = np.where(mask[:, None], x, np.nan).astype(np.float32)
            there = f.array(mask, "bool")

            def loss(x):
                result = grad.quantize(x, rvq, RATE, mask=there)
                return (result.quantized**2).sum(), result

            (_, result), gradient = f.gradient(loss, f.array(dirty, "float32"))
            assert np.isfinite(f.numpy(result.quantized)).all()
            gradient = f.numpy(gradient)
            assert (gradient[~np.broadcast_to(mask[:, None], x.shape)] == 0).all()
            assert (gradient[:, 0][mask] != 0).all()

        @pytest.mark.parametrize(
            ("bad", "error"),
            [
                (lambda: f.array(np.ones((3, 6)), "int32"), DtypeError),
                (lambda: f.array(np.ones((3, 5)), "float32"), ShapeError),
                (lambda: f.array(np.full((3, 6), np.nan), "float32"), NonFiniteError),
            ],
            ids=["integers", "shape", "nan"],
        )
        @pytest.mark.parametrize("training", [False, True])
        def test_what_cannot_be_quantized_is_refused(self, bad, error, training):
            rvq = trained().train(training)
            before = rvq.state_dict()
            with pytest.raises(error):
                grad.quantize(bad(), rvq, RATE)
            for name, value in before.items():
                np.testing.assert_array_equal(rvq.state_dict()[name], value)

        def test_a_mask_of_another_framework_is_refused(self):
            x = f.array(np.ones((3, 6)), "float32")
            with pytest.raises(BackendError):
                grad.quantize(x, trained().eval(), RATE, mask=f.foreign)

    return Tests
