"""HIPS autograd: `quantize_vjp` as one primitive of its tape.

Reverse mode, first derivatives: `grad`, ``value_and_grad``, ``jacobian``, ``elementwise_grad``.
A second derivative, or forward mode, raises `BackendError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from autograd.core import JVPNode
from autograd.extend import defvjp_argnums, primitive
from autograd.tracer import getval, isbox

from .. import train as training
from ..errors import BackendError, StateError
from ..quantizer import ResidualVectorQuantizer
from ..quantizer.layout import QuantizedResult
from ._inputs import check_quantizer, refuse_kind
from ._names import is_codebook, is_state
from ._products import Products, quantize_vjp

__all__ = ["quantize", "quantize_with"]


def __dir__() -> list[str]:
    return sorted(__all__)


_NO_SECOND = "quantize: HIPS autograd has no second derivatives here; MLX and JAX have them."


def quantize(
    x: Any, rvq: Any, sample_rate: Any, bandwidth: Any, mask: Any, estimator: Any, n_q: Any = None
) -> Any:
    result, products = quantize_vjp(
        _plain("x", x), rvq, sample_rate, bandwidth, mask, n_q=n_q, estimator=estimator
    )
    return _taped(result, products, x, {})


def quantize_with(
    parameters: Mapping[str, Any],
    x: Any,
    rvq: ResidualVectorQuantizer,
    sample_rate: float | None = None,
    bandwidth: float | None = None,
    mask: np.ndarray | None = None,
    *,
    n_q: int | None = None,
    estimator: str = "straight-through",
) -> QuantizedResult:
    """Quantize with some arrays of a quantizer as arguments, so that they get gradients, too.

    Parameters
    ----------
    parameters : mapping of str to array
        Any number of projections and codebooks to use instead of those of `rvq`, named as in its
        ``state_dict``: ``vq.layers.0.project_in.weight``, ``vq.layers.0._codebook.embed``, ... They
        are rounded to float32.
    x : array (B, D, T) or (N, D), floating
    rvq : ResidualVectorQuantizer
        Holds the other arrays. In train mode it is trained on the batch and holds the values of
        `parameters` afterwards; in eval mode it does not change.
    sample_rate, bandwidth, mask, n_q, estimator
        As `rvq_np.grad.quantize`.

    Returns
    -------
    result : QuantizedResult
        If codewords are among `parameters`, it has ``quantization_loss``, which has a gradient to
        them. Training then neither moves nor replaces these codewords.

    Raises
    ------
    StateError
        If `rvq` has no such arrays, or one has the wrong shape.
    BackendError, ShapeError, DtypeError, NonFiniteError, ParameterError
        As `rvq_np.grad.quantize`.

    Examples
    --------
    >>> import autograd
    >>> import numpy as np
    >>> from rvq_np import ResidualVectorQuantizer
    >>> from rvq_np.grad.autograd import quantize_with
    >>> rvq = ResidualVectorQuantizer(dimension=6, codebook_dim=4, n_q=2, bins=8, rng=0)
    >>> x = np.random.default_rng(0).standard_normal((50, 6))
    >>> entries = rvq.state_dict()
    >>> parameters = {name: entries[name] for name in entries if "project" in name}
    >>> def loss(parameters):
    ...     result = quantize_with(parameters, x, rvq, 50)
    ...     return ((result.quantized - x) ** 2).mean() + result.penalty
    >>> autograd.grad(loss)(parameters)["vq.layers.1.project_out.weight"].shape
    (6, 4)
    """
    check_quantizer("quantize_with", rvq)
    given = {name: parameters[name] for name in parameters}  # unpacks the box of a dictionary
    values = {name: _plain(name, value) for name, value in given.items()}
    codebooks = [name for name in given if is_codebook(name)]
    fixed = [name for name in given if is_state(name) and name not in codebooks]
    if fixed:
        raise StateError(f"quantize_with: {fixed[:4]} are statistics, which have no gradient.")
    started = {name.replace(".embed", ".inited"): np.ones(1) for name in codebooks}
    # With weight one the penalty is the plain loss, which the class tells under dropout only.
    weight = rvq.config.commitment_weight
    config = replace(rvq.config, commitment_weight=1.0) if codebooks else rvq.config
    arrays = {**rvq.state_dict(), **values, **started}
    states, projections = training.from_state_dict(arrays, config)
    moved = ResidualVectorQuantizer.made_of(
        config, states, projections, rng=rvq._rng, frozen=frozenset(rvq.frozen),
        collected=None if codebooks else rvq.collected,
    )  # fmt: skip
    moved.train(rvq.training).all_reduce = rvq.all_reduce
    result, products = quantize_vjp(
        _plain("x", x), moved, sample_rate, bandwidth, mask, n_q=n_q, estimator=estimator
    )
    if codebooks:
        result.quantization_loss = result.penalty
        result.penalty = np.asarray(weight * result.penalty, dtype=result.penalty.dtype)
        products = replace(products, weight=weight)
    if rvq.training:
        rvq.load_state_dict({**moved.state_dict(), **values})
        rvq._collected = moved.collected
    return _taped(result, products, x, given)


@dataclass(frozen=True)
class _Call:
    """One call for the tape: its results, the way back, and the names of the arrays."""

    result: QuantizedResult
    products: Products
    names: tuple[str, ...]


@primitive
def _outputs(call: Any, x: Any, *arrays: Any) -> Any:
    result = call.result
    both = result.quantization_loss is not None
    return (result.quantized, result.penalty, *([result.quantization_loss] if both else []))


def _pull(argnums: Any, outputs: Any, args: Any, kwargs: Any) -> Any:
    call, x, *arrays = args

    def back(given: Any) -> Any:
        if any(map(isbox, (x, *arrays, *given))):
            raise BackendError(_NO_SECOND)
        gradients = call.products(*given)
        return tuple(
            gradients.x if place == 1 else _to(gradients, call.names[place - 2], arrays[place - 2])
            for place in argnums
        )

    return back


defvjp_argnums(_outputs, _pull)


def _to(gradients: Any, name: str, array: Any) -> Any:
    """Return the gradient to an array; stages that were not in use have none."""
    gradient = gradients.parameters.get(name)
    return np.zeros_like(array) if gradient is None else gradient.astype(array.dtype)


def _taped(result: Any, products: Any, x: Any, given: Any) -> Any:
    call = _Call(result, products, tuple(given))
    quantized, penalty, *rest = _outputs(call, x, *given.values())
    return QuantizedResult(quantized, result.codes, result.bandwidth, penalty, *rest)


def _plain(name: str, box: Any) -> Any:
    """Return the NumPy array in a box."""
    if isbox(box):
        if isinstance(box._node, JVPNode):
            raise BackendError("quantize: forward mode is not supported for HIPS autograd.")
        if isbox(box._value):
            raise BackendError(_NO_SECOND)
    value = getval(box)
    if not isinstance(value, np.ndarray):
        refuse_kind(value, f"a numpy.ndarray as {name}")
    return value
