"""What a shim owes that runs eagerly: in train mode, too, the bits and the state of the class.

For frameworks in which ``rvq_np.grad.quantize`` may train; they are described as in `shim`.
"""

import dataclasses

import numpy as np
import pytest

import rvq_np
from rvq_np import grad

from . import shim


def same_state(one, other):
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(one.state_dict()[name], value, err_msg=name)
    assert one._rng.bit_generator.state == other._rng.bit_generator.state


def twins(codebook_dim, dropout):
    """Return two quantizers that will find their first codewords in the first step."""
    return [
        rvq_np.ResidualVectorQuantizer(
            6, codebook_dim, n_q=3, bins=8, quantizer_dropout=dropout, commitment_weight=0.7, rng=3
        )
        for _ in range(2)
    ]


def training_tests(framework):
    """Return a class of tests for ``rvq_np.grad.quantize`` with a quantizer in train mode."""
    f = framework

    class Tests:
        @pytest.mark.parametrize("estimator", ["straight-through", "rotation"])
        @pytest.mark.parametrize("layout", shim.LAYOUTS)
        @pytest.mark.parametrize("masked", [False, True])
        @pytest.mark.parametrize("dropout", [False, 0.75])
        @pytest.mark.parametrize("codebook_dim", [6, 4])
        def test_steps_have_the_values_gradients_and_state_of_the_class(
            self, codebook_dim, dropout, masked, layout, estimator, rng
        ):
            """From k-means on: its step, and one after it."""
            ours, theirs = twins(codebook_dim, dropout)
            for _ in range(2):
                x = rng.standard_normal(shim.LAYOUTS[layout]).astype(np.float32)
                mask = rng.random((x.shape[0], *x.shape[2:])) < 0.7 if masked else None
                upstream = rng.standard_normal(x.shape).astype(np.float32)
                there = None if mask is None else f.array(mask, "bool")
                back = f.array(upstream, "float32")

                def loss(x, there=there, back=back, ours=ours):
                    result = grad.quantize(x, ours, shim.RATE, mask=there, estimator=estimator)
                    total = (result.quantized * back).sum() + 3 * result.penalty
                    if result.quantization_loss is not None:
                        total = total - 2 * result.quantization_loss
                    return total, result

                (_, result), gradient = f.gradient(loss, f.array(x, "float32"))
                expected, vjp = grad.quantize_vjp(
                    x, theirs, shim.RATE, mask=mask, estimator=estimator
                )
                for name in ("codes", "quantized", "bandwidth"):
                    ours_then, theirs_then = getattr(result, name), getattr(expected, name)
                    np.testing.assert_array_equal(f.numpy(ours_then), theirs_then, err_msg=name)
                assert f.numpy(result.penalty) == pytest.approx(expected.penalty, rel=1e-5)
                assert expected.penalty > 0
                assert (result.quantization_loss is None) == (not dropout)
                if dropout:
                    reported = f.numpy(result.quantization_loss)
                    assert reported == pytest.approx(expected.quantization_loss, rel=1e-5)
                found = vjp(upstream, penalty=3.0, quantization_loss=-2.0).x
                np.testing.assert_allclose(f.numpy(gradient), found, rtol=2e-5, atol=2e-5)
                same_state(ours, theirs)

        @pytest.mark.parametrize("shape", [(0, 6), (2, 6, 0)])
        def test_a_step_on_nothing_changes_nothing(self, shape):
            ours, theirs = twins(4, 0.5)
            x = np.empty(shape, np.float32)
            expected = theirs(x, shim.RATE)

            def loss(x):
                result = grad.quantize(x, ours, shim.RATE)
                return result.quantized.sum() + result.penalty, result

            (_, result), gradient = f.gradient(loss, f.array(x, "float32"))
            assert tuple(gradient.shape) == shape
            for name, value in dataclasses.asdict(expected).items():
                np.testing.assert_array_equal(f.numpy(getattr(result, name)), value, err_msg=name)
            same_state(ours, theirs)

    return Tests
