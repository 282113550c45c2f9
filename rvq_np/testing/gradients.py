"""A pytest class of properties for the gradients through any residual quantizer.

The surrogate is written here in NumPy and float64, from its formula and not from `rvq_np.grad`:
with the codes ``i`` and the codewords of earlier stages held fixed,

    quantized(x) = sum over q of codebooks[q, i_q]  +  (x - x held fixed)
    penalty(x)   = weight / Q * sum over q of mean of (residual_q - codebooks[q, i_q])**2

where ``residual_q`` is `x` less the codewords of the stages before q.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st

from .. import arguments
from .properties import given


class _Case(NamedTuple):
    x: np.ndarray
    codebooks: np.ndarray
    weight: float
    cotangent: np.ndarray
    direction: np.ndarray


@st.composite
def _cases(draw: Any, dtype: Any) -> _Case:
    """Draw vectors, and codebooks of eighths: a sum of codewords is exact in any float type.

    The vectors are not eighths: ``x + (codewords - x)`` rounds, and differs from the codewords.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, dim = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    stages, size = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    codebooks = np.rint(8 * rng.standard_normal((stages, size, dim))) / 8
    x, cotangent, direction = rng.standard_normal((3, rows, dim))
    weight = draw(st.sampled_from([0.25, 1.0, 3.0]))
    return _Case(
        x.astype(dtype), codebooks.astype(dtype), weight, cotangent.astype(dtype), direction
    )


def _sums(codes: np.ndarray, codebooks: np.ndarray) -> np.ndarray:
    """Return the sums of the first 1 to Q codewords (Q, N, D), float64: exact."""
    codewords = np.stack([book[code] for book, code in zip(codebooks, codes, strict=True)])
    return np.cumsum(codewords, axis=0, dtype=np.float64)


def _residuals(x: np.ndarray, codes: np.ndarray, codebooks: np.ndarray) -> np.ndarray:
    """Return the residuals after each stage (Q, N, D), float64."""
    return x.astype(np.float64) - _sums(codes, codebooks)


def _penalty(x: np.ndarray, codes: np.ndarray, case: _Case) -> float:
    return float(case.weight * np.square(_residuals(x, codes, case.codebooks)).mean())


def gradient_tests(
    *,
    value_and_gradients: Callable[..., tuple[Any, Any, Any, Any]],
    codebook_loss_gradient: Callable[[np.ndarray, np.ndarray], Any] | None = None,
    dtype: Any = np.float32,
    tolerance: float | None = None,
) -> type:
    """Build a pytest class for gradients; bind it to a name that starts with ``Test``.

    Parameters
    ----------
    value_and_gradients : callable
        ``value_and_gradients(x (N, D), codebooks (Q, K, D), weight, cotangent (N, D))`` returns
        ``quantized (N, D)``, ``codes (Q, N)``, ``penalty`` and the gradient (N, D) to `x` of
        ``sum(cotangent * quantized) + penalty``. The penalty is `weight` times the commitment
        loss, the mean over stages of the mean squared distance to the chosen codeword; divide a
        sum over stages, and average one value per stage, in this callable.
    codebook_loss_gradient : callable, optional
        ``codebook_loss_gradient(x, codebooks)`` returns the gradient to `x` of the codebook loss.
        Without it that property is skipped.
    dtype : numpy.dtype, optional
        float32 or float64, of the inputs.
    tolerance : float, optional
        Relative to the largest number compared; 1e-5 for float32, 1e-10 for float64. ``quantized``
        is compared exactly.

    Returns
    -------
    tests : type
        As `rvq_tests`.

    Raises
    ------
    ParameterError
        If an argument has an invalid value.

    Examples
    --------
    >>> from rvq_np.testing import gradient_tests
    >>> TestMine = gradient_tests(value_and_gradients=print)
    """
    call = "gradient_tests"
    arguments.function(call, "value_and_gradients", value_and_gradients)
    if codebook_loss_gradient is not None:
        arguments.function(call, "codebook_loss_gradient", codebook_loss_gradient)
    slack = {4: 1e-5, 8: 1e-10}[arguments.float_type(call, "dtype", dtype).itemsize]
    if tolerance is not None:
        slack = arguments.number(call, "tolerance", tolerance, 0.0)

    def close(found: Any, expected: Any) -> None:
        size = max(1e-3, float(np.abs(expected).max(initial=0)))
        np.testing.assert_allclose(
            np.asarray(found, np.float64), expected, rtol=0, atol=slack * size
        )

    def run(case: _Case, **changed: Any) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
        now = case._replace(**changed)
        quantized, codes, penalty, gradient = map(
            np.asarray, value_and_gradients(now.x, now.codebooks, now.weight, now.cotangent)
        )
        assert quantized.shape == gradient.shape == now.x.shape
        assert codes.shape == (len(now.codebooks), len(now.x))
        return quantized, codes, float(penalty), gradient.astype(np.float64)

    cases = _cases(dtype)
    codebook_loss = codebook_loss_gradient

    class Tests:
        @given(cases)
        def test_quantized_is_exactly_what_the_codes_decode_to(self, case: _Case) -> None:
            """Not ``x + (codewords - x)``, which rounds: training sees the decoded vectors.

            lucidrains/vector-quantize-pytorch#71
            """
            quantized, codes, _, _ = run(case)
            np.testing.assert_array_equal(quantized, _sums(codes, case.codebooks)[-1])

        @given(cases)
        def test_quantized_passes_its_gradient_on_unchanged(self, case: _Case) -> None:
            """The identity: not zero, and not once per stage.

            yangdongchao/RSTnet#2
            """
            _, _, penalty, gradient = run(case, weight=0.0)
            assert penalty == 0
            close(gradient, case.cotangent)

        @given(cases)
        def test_the_penalty_is_the_mean_of_the_commitment_losses(self, case: _Case) -> None:
            """The mean over stages, not the sum.

            lucidrains/vector-quantize-pytorch#238
            """
            _, codes, penalty, _ = run(case)
            close(penalty, _penalty(case.x, codes, case))

        @given(cases)
        def test_the_gradient_of_the_penalty_is_its_slope(self, case: _Case) -> None:
            """Against finite differences, with codes and earlier stages held fixed.

            descriptinc/descript-audio-codec#107
            """
            _, codes, _, gradient = run(case, cotangent=np.zeros_like(case.cotangent))
            step = 1e-4 * case.direction
            x = case.x.astype(np.float64)
            expected = (_penalty(x + step, codes, case) - _penalty(x - step, codes, case)) / 2e-4
            found = gradient * case.direction
            assert abs(found.sum() - expected) <= max(slack, 1e-9) * (1 + np.abs(found).sum())

        @given(cases)
        def test_the_commitment_loss_reaches_every_stage(self, case: _Case) -> None:
            """The gradient with each stage, less the gradient without it.

            facebookresearch/encodec#25
            """
            none = np.zeros_like(case.cotangent)
            before = np.zeros(case.x.shape)
            _, codes, _, _ = run(case)
            residuals = _residuals(case.x, codes, case.codebooks)
            for stages in range(1, len(case.codebooks) + 1):
                _, _, _, gradient = run(case, codebooks=case.codebooks[:stages], cotangent=none)
                total = gradient * stages  # the mean over stages undone
                scale = max(1.0, float(np.abs(total).max()))
                expected = 2 * case.weight * residuals[stages - 1] / case.x.size
                np.testing.assert_allclose(
                    total - before, expected, rtol=0, atol=2 * stages * slack * scale
                )
                before = total

        @given(cases)
        def test_a_vector_that_is_a_codeword_has_a_finite_gradient(self, case: _Case) -> None:
            """At distance zero, where the derivative of a square root is not finite.

            lucidrains/vector-quantize-pytorch#106
            """
            codewords = case.codebooks[0]
            x = np.ascontiguousarray(codewords[np.arange(len(case.x)) % len(codewords)])
            _, _, penalty, gradient = run(case, x=x)
            assert np.isfinite(penalty)
            assert np.isfinite(gradient).all()

        @given(cases)
        def test_the_codebook_loss_leaves_the_encoder_alone(self, case: _Case) -> None:
            """It moves codewords to vectors, never vectors to codewords.

            andylolu2/jax-vqvae-gpt#2
            """
            if codebook_loss is None:
                pytest.skip("no codebook_loss_gradient was given")
            else:
                found = np.asarray(codebook_loss(case.x, case.codebooks))
                np.testing.assert_array_equal(found, np.zeros(case.x.shape))

    return Tests
