"""The way of a batch through a tensor framework: vectors to rows, and outputs to the result.

What every shim does around its opaque operation, in this order:

1. `inputs_of`: widen to float32, make rows, zero what is padding;
2. its own call of `_operation.run`, which gives `Outputs`;
3. `result_of`: splice in the first codewords, attach gradients and losses (`_surrogate`), and put
   the result together in the layout and float type the vectors came in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..config import Config
from ..quantizer.layout import QuantizedResult
from ._names import StageArrays
from ._ops import Ops, batch_of, rows_of
from ._surrogate import attach, decoded


class Inputs(NamedTuple):
    """A batch as the operation takes it."""

    x: Any  # as it came
    rows: Any  # (N, D), float32 or float64, zeros where there is padding
    valid: Any  # (N,) bool, or None
    shape: tuple[Any, ...]  # (B, T) or (N,): how many vectors there are
    channels_last: bool = False


class Outputs(NamedTuple):
    """What the operation gives, as arrays of the framework."""

    codes: Any  # (n_q, N)
    quantized: Any  # (N, D)
    active: Any  # (N,): stages that make up each row
    bandwidth: Any
    codebooks: Sequence[Any] = ()  # in training: those that the codes name
    state: Sequence[Any] = ()  # in training: the new one

    @classmethod
    def of(cls, outputs: Sequence[Any]) -> Outputs:
        """Return the outputs of `_operation.run`."""
        n_q = outputs[0].shape[0]
        codes, quantized, active, bandwidth = outputs[:4]
        codebooks, state = outputs[4 : 4 + n_q], outputs[4 + n_q :]
        return cls(codes, quantized, active, bandwidth, codebooks, state)


def inputs_of(ops: Ops, x: Any, mask: Any, *, channels_last: bool = False) -> Inputs:
    """Return a batch as rows; `x` and `mask` have been checked."""
    rows = rows_of(ops, ops.widen(x), channels_last=channels_last)
    sizes = ops.shape(x)
    time = 1 if channels_last else 2
    shape = (sizes[0], sizes[time]) if len(x.shape) == 3 else (sizes[0],)
    valid = None
    if mask is not None:  # whatever padding holds
        valid = ops.reshape(mask, (-1,))
        rows = ops.where(valid[:, None], rows, 0.0)
    return Inputs(x, rows, valid, shape, channels_last)


def result_of(
    ops: Ops,
    inputs: Inputs,
    outputs: Outputs,
    stages: Sequence[StageArrays],
    config: Config,
    *,
    losses: bool,
    estimator: str,
    both_losses: bool,
    gradients: bool = True,
) -> QuantizedResult:
    """Return what the user gets, with gradients.

    Parameters
    ----------
    ops : Ops
    inputs : Inputs
    outputs : Outputs
    stages : sequence of StageArrays
        The arrays of the stages in use; none where they are constants and nothing trains.
    config : Config
    losses : bool
        Whether there are losses, as in training.
    estimator : {"straight-through", "rotation"}
    both_losses : bool
        Whether the result has a ``quantization_loss``.
    gradients : bool, optional
        False: neither gradients nor losses are asked for.
    """
    rows = inputs.rows
    if gradients:
        quantized, commitment, quantization = attach(
            ops, rows, outputs.quantized, outputs.codes, outputs.active,
            _in_use(ops, stages, outputs.codebooks, rows), losses=losses, estimator=estimator,
        )  # fmt: skip
    else:
        quantized, commitment = outputs.quantized, ops.sum(rows[:0])
        quantization = commitment
    return assembled(
        ops, inputs, quantized, outputs.codes, outputs.bandwidth,
        config.commitment_weight * commitment, quantization if both_losses else None,
    )  # fmt: skip


def assembled(
    ops: Ops, inputs: Inputs, quantized: Any, codes: Any, bandwidth: Any, penalty: Any,
    quantization_loss: Any,
) -> QuantizedResult:  # fmt: skip
    """Return a result of rows in the layout and float type the batch came in."""
    vectors = batch_of(ops, quantized, inputs.x, channels_last=inputs.channels_last)
    if len(inputs.shape) == 2:
        codes = ops.reshape(codes, (codes.shape[0], *inputs.shape))
    return QuantizedResult(
        ops.cast(vectors, inputs.x), codes, bandwidth, penalty, quantization_loss
    )


def decoded_vectors(ops: Ops, value: Any, codes: Any, stages: Sequence[StageArrays]) -> Any:
    """Return decoded vectors (B, D, T) or (N, D) with their gradient to codewords and maps.

    `codes` (n, ...) are of the first of these stages; `value` is what they decode to.
    """
    n_q = codes.shape[0]
    flat = ops.reshape(codes, (n_q, -1)) if len(codes.shape) == 3 else codes
    return batch_of(ops, decoded(ops, rows_of(ops, value), flat, stages[:n_q]), value)


def _in_use(
    ops: Ops, stages: Sequence[StageArrays], codebooks: Sequence[Any], rows: Any
) -> list[StageArrays]:
    """Return the arrays of the stages in the type of the rows, with the codewords codes name.

    In training k-means may have found those only now: their values are spliced in, but gradients
    go to the arrays that came.
    """
    cast = [stage.each(lambda array: ops.cast(array, rows)) for stage in stages]
    for place, codewords in enumerate(codebooks):
        known = cast[place].codebook
        spliced = ops.cast(codewords, rows) + (known - ops.stop(known))
        cast[place] = cast[place]._replace(codebook=spliced)
    return cast
