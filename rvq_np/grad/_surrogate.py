"""The differentiable part, once for all tensor frameworks, over rows (N, D).

Codes and vectors come from outside the framework.  What is written here has the right gradient
and, for the vectors, the value zero: it is added to them, so that they stay ``decode(codes)``
bit for bit.

==================  ==========================================================================
output              gradient
==================  ==========================================================================
quantized           to x the identity (or the rotation); to project_out that of decode; to
                    project_in, through project_out, as if each codeword were what it was
                    searched by; to the codewords none
penalty             to project_in and x that of the distance to the codewords, at every stage; to
                    the codewords and project_out none
quantization_loss   to the codewords that of the distance to what was searched; else none
==================  ==========================================================================

Padding receives and gives none.  What reaches project_in stops there: the residual is held fixed,
or x would receive more than the identity.  Without it project_in has the commitment alone, which is
least where everything is mapped to zero: a small autoencoder then ends at three times the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._names import StageArrays
from ._ops import Ops


def attach(
    ops: Ops,
    rows: Any,
    quantized: Any,
    codes: Any,
    active: Any,
    stages: Sequence[StageArrays],
    *,
    losses: bool,
    estimator: str = "straight-through",
) -> tuple[Any, Any, Any]:
    """Return the rows with their gradient, and two losses: commitment and quantization.

    Parameters
    ----------
    ops : Ops
    rows : array (N, D), float32 or float64
        The vectors, as the framework's gradient sees them.
    quantized, codes, active
        From `_operation.run`; `active` (N,) are the stages that make up each row.
    stages : sequence of StageArrays
        What the codes were found with, stage for stage, in the float type of `rows`; may be empty
        where there is neither a projection with a gradient nor a loss.
    losses : bool
        False: both losses are zero, and nothing is computed for them.
    estimator : {"straight-through", "rotation"}
    """
    value = ops.stop(quantized)
    seen = ops.cast(active > 0, rows)[:, None]
    moved = rows - ops.stop(rows)
    if estimator == "rotation":
        moved = rotated(ops, moved, ops.stop(rows), value)
    through = moved * seen
    commitment = quantization = used_stages = ops.stop(ops.sum(rows[:0]))
    left = rows
    projects = bool(stages) and stages[0].project_in is not None
    for stage, (codebook, project_in, project_out) in enumerate(
        stages if losses or projects else ()
    ):
        codewords = ops.take(codebook, codes[stage])
        share = ops.cast(active > stage, rows)
        out = fixed = ops.stop(codewords)
        if projects:
            near = linear(ops, ops.stop(left), project_in)
            near = fixed + (near - ops.stop(near))
            out = linear(ops, near, project_out)
            through = through + share[:, None] * (out - ops.stop(out))
        if losses:
            searched = linear(ops, left, project_in) if projects else left
            count = ops.sum(share)
            used = ops.cast(count > 0, rows)
            weight = share / ((count + (1 - used)) * codewords.shape[1])
            apart, pull = searched - fixed, codewords - ops.stop(searched)
            commitment = commitment + ops.sum(weight * ops.sum(apart * apart, 1))
            quantization = quantization + ops.sum(weight * ops.sum(pull * pull, 1))
            used_stages = used_stages + used
        left = left - ops.stop(out)
    if losses:
        used_stages = used_stages + (1 - ops.cast(used_stages > 0, rows))
        commitment, quantization = commitment / used_stages, quantization / used_stages
    return value + through, commitment, quantization


def decoded(ops: Ops, value: Any, codes: Any, stages: Sequence[StageArrays]) -> Any:
    """Return decoded rows (N, D) with their gradient to codewords and projections.

    `codes` (n, N) are of these stages; `value` is what they decode to.
    """
    through = ops.stop(value)
    for stage, (codebook, _, project_out) in enumerate(stages):
        out = ops.take(codebook, codes[stage])
        if project_out is not None:
            out = linear(ops, out, project_out)
        nothing = ops.where(codes[stage][:, None] >= 0, out - ops.stop(out), 0.0)  # if dropped
        through = through + nothing
    return through


def linear(ops: Ops, rows: Any, parts: tuple[Any, Any]) -> Any:
    """Return rows mapped by a weight (out, in) and a bias (out,)."""
    weight, bias = parts
    return rows @ ops.transpose(weight, (1, 0)) + bias


def rotated(ops: Ops, moved: Any, x: Any, value: Any, *, backwards: bool = False) -> Any:
    """Return what turns and stretches `x` into `value`, applied to `moved`, row by row.

    The rotation trick (Fifty et al., ICLR 2025) for the sum of all stages: ``|v| / |x| (1 - 2 r r'
    + 2 v x')`` for unit vectors x and v and r halfway between; `backwards`: its transpose. Rows
    without a direction, or turned right round, keep the identity.
    """
    x_way, x_length, x_scale = _direction(ops, x)
    to_way, to_length, to_scale = _direction(ops, value)
    between, length, scale = _direction(ops, x_way + to_way)
    fine = ops.cast((x_length > 0) & (to_length > 0) & (length * scale > 1e-6), x)
    near = ops.cast(to_scale < x_scale * 1e18, x)  # or the quotient would overflow
    fine = fine * near
    stretch = (to_length / (x_length + (1 - fine))) * (to_scale / (x_scale + (1 - near) * to_scale))
    stretch = fine * stretch + (1 - fine)
    along_between = ops.sum(between * moved, 1)[:, None]
    source, target = (to_way, x_way) if backwards else (x_way, to_way)
    along_source = ops.sum(source * moved, 1)[:, None]
    turned = moved - fine * (2 * between * along_between) + fine * (2 * target * along_source)
    return stretch * turned


def _direction(ops: Ops, rows: Any) -> tuple[Any, Any, Any]:
    """Return unit vectors, and lengths (N, 1) in units of a scale that cannot overflow."""
    scale = ops.max(abs(rows), 1)[:, None]
    scale = scale + ops.cast(scale == 0, rows)
    rows = rows / scale
    length = ops.sum(rows * rows, 1)[:, None] ** 0.5
    return rows / (length + ops.cast(length == 0, rows)), length, scale
