"""The differentiable part, once for all tensor frameworks.

Codes and vectors come from outside the framework.  What is written here has the right gradient
and, for the vectors, the value zero: it is added to them, so that they stay ``decode(codes)``
bit for bit.

==================  ==========================================================================
output              gradient
==================  ==========================================================================
quantized           to x the identity (or the rotation); to project_out that of decode; to
                    project_in, through project_out, as if each word were what it was searched
                    by; to the words none
penalty             to project_in and x that of the distance to the words, at every level; to
                    the words and project_out none
quantization_loss   to the words that of the distance to what was searched; else none
==================  ==========================================================================

Padding receives and gives none.  What reaches project_in stops there: the residual is held fixed,
or x would receive more than the identity.  Without it project_in has the commitment alone, which is
least where everything is mapped to zero: a small autoencoder then ends at three times the error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import ParameterError

ESTIMATORS = ("straight-through", "rotation")


class Ops(NamedTuple):
    """What a framework is asked for beyond operators; each as NumPy's of that name but one."""

    shape: Callable[[Any], Any]
    stop: Callable[[Any], Any]  # the value without its gradient
    take: Callable[[Any, Any], Any]  # rows of a matrix: words[codes]
    transpose: Callable[[Any, tuple[int, ...]], Any]
    reshape: Callable[[Any, tuple[Any, ...]], Any]
    total: Callable[..., Any]  # sum(x), or sum(x, axis)
    largest: Callable[..., Any]  # max(x, axis)
    convert: Callable[[Any, Any], Any]  # to the dtype of another array
    # For gradients by hand: ``alpha x @ y + beta z``, and ``x + alpha y``, perhaps written over x.
    product: Any = None
    sum_into: Any = None


def check_estimator(estimator: Any) -> None:
    """Raise ParameterError unless there is such an estimator."""
    if estimator not in ESTIMATORS:
        raise ParameterError(
            f"quantize: estimator is {estimator!r}; wanted one of {', '.join(ESTIMATORS)}."
        )


def rows_of(ops: Ops, x: Any) -> Any:
    """Return (B, D, T) as (B * T, D), and (N, D) as it is."""
    if len(x.shape) == 2:
        return x
    return ops.reshape(ops.transpose(x, (0, 2, 1)), (-1, ops.shape(x)[1]))


def batch_of(ops: Ops, rows: Any, x: Any) -> Any:
    """Undo `rows_of` for an array of rows shaped like `x`."""
    if len(x.shape) == 2:
        return rows
    batch, dim, time = ops.shape(x)
    return ops.transpose(ops.reshape(rows, (batch, time, dim)), (0, 2, 1))


def attach(
    ops: Ops,
    x: Any,
    quantized: Any,
    codes: Any,
    active: Any,
    entries: Mapping[str, Any],
    n_q: int,
    *,
    losses: bool,
    estimator: str = "straight-through",
) -> tuple[Any, Any, Any]:
    """Return the vectors with their gradient, and two losses: commitment and quantization.

    Parameters
    ----------
    ops : Ops
    x : array (B, D, T) or (N, D), float32 or float64
        The vectors, as the framework's gradient sees them.
    quantized, codes, active
        From `_host.run`; `active` (N,) are the levels that make up each row.
    entries : mapping
        The arrays the codes were found with, by their names in a state dict, in the float type
        of `x`. Only those with gradients of their own are needed for the vectors, the words of
        every level for the losses.
    n_q : int
        Levels in use.
    losses : bool
        False: both losses are zero, and nothing is computed for them.
    estimator : {"straight-through", "rotation"}
    """
    rows, value = rows_of(ops, x), ops.stop(rows_of(ops, quantized))
    codes = ops.reshape(codes, (n_q, -1))
    seen = ops.convert(active > 0, rows)[:, None]
    moved = rows - ops.stop(rows)
    if estimator == "rotation":
        moved = rotated(ops, moved, ops.stop(rows), value)
    through = moved * seen
    commitment = quantization = ops.stop(ops.total(rows[:0]))
    levels = quantization
    left = rows
    projects = "vq.layers.0.project_in.weight" in entries
    for level in range(n_q) if losses or projects else ():
        layer = f"vq.layers.{level}."
        words = ops.take(entries[f"{layer}_codebook.embed"], codes[level])
        share = ops.convert(active > level, rows)
        out = fixed = ops.stop(words)
        if projects:
            near = _linear(ops, ops.stop(left), entries, f"{layer}project_in")
            near = fixed + (near - ops.stop(near))
            out = _linear(ops, near, entries, f"{layer}project_out")
            through = through + share[:, None] * (out - ops.stop(out))
        if losses:
            searched = _linear(ops, left, entries, f"{layer}project_in") if projects else left
            count = ops.total(share)
            used = ops.convert(count > 0, rows)
            weight = share / ((count + (1 - used)) * words.shape[1])
            apart, pull = searched - fixed, words - ops.stop(searched)
            commitment = commitment + ops.total(weight * ops.total(apart * apart, 1))
            quantization = quantization + ops.total(weight * ops.total(pull * pull, 1))
            levels = levels + used
        left = left - ops.stop(out)
    if losses:
        levels = levels + (1 - ops.convert(levels > 0, rows))
        commitment, quantization = commitment / levels, quantization / levels
    return batch_of(ops, value + through, x), commitment, quantization


def decoded(ops: Ops, value: Any, codes: Any, entries: Mapping[str, Any], start: int) -> Any:
    """Return decoded vectors (B, D, T) or (N, D) with their gradient to words and projections.

    `codes` (n, ...) are of the levels from `start` on; `value` is what they decode to.
    """
    rows, n_q = rows_of(ops, value), ops.shape(codes)[0]
    codes = ops.reshape(codes, (n_q, -1))
    through = ops.stop(rows)
    for level in range(n_q):
        layer = f"vq.layers.{start + level}."
        out = ops.take(entries[f"{layer}_codebook.embed"], codes[level])
        if f"{layer}project_out.weight" in entries:
            out = _linear(ops, out, entries, f"{layer}project_out")
        through = through + (out - ops.stop(out))
    return batch_of(ops, through, value)


def _linear(ops: Ops, rows: Any, entries: Mapping[str, Any], name: str) -> Any:
    return rows @ ops.transpose(entries[f"{name}.weight"], (1, 0)) + entries[f"{name}.bias"]


def rotated(ops: Ops, moved: Any, x: Any, value: Any, *, backwards: bool = False) -> Any:
    """Return what turns and stretches `x` into `value`, applied to `moved`, row by row.

    The rotation trick (Fifty et al., ICLR 2025) for the sum of all levels: ``|v| / |x| (1 - 2 r r'
    + 2 v x')`` for unit vectors x and v and r halfway between; `backwards`: its transpose. Rows
    without a direction, or turned right round, keep the identity.
    """
    x_way, x_length, x_scale = _direction(ops, x)
    to_way, to_length, to_scale = _direction(ops, value)
    between, length, scale = _direction(ops, x_way + to_way)
    fine = ops.convert((x_length > 0) & (to_length > 0) & (length * scale > 1e-6), x)
    near = ops.convert(to_scale < x_scale * 1e18, x)  # or the quotient would overflow
    fine = fine * near
    stretch = (to_length / (x_length + (1 - fine))) * (to_scale / (x_scale + (1 - near) * to_scale))
    stretch = fine * stretch + (1 - fine)
    along_between = ops.total(between * moved, 1)[:, None]
    source, target = (to_way, x_way) if backwards else (x_way, to_way)
    along_source = ops.total(source * moved, 1)[:, None]
    turned = moved - fine * (2 * between * along_between) + fine * (2 * target * along_source)
    return stretch * turned


def _direction(ops: Ops, rows: Any) -> tuple[Any, Any, Any]:
    """Return unit vectors, and lengths (N, 1) in units of a scale that cannot overflow."""
    scale = ops.largest(abs(rows), 1)[:, None]
    scale = scale + ops.convert(scale == 0, rows)
    rows = rows / scale
    length = ops.total(rows * rows, 1)[:, None] ** 0.5
    return rows / (length + ops.convert(length == 0, rows)), length, scale
