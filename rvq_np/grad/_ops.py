"""What a tensor framework offers to the part that is written once, and rows of its arrays."""

from __future__ import annotations

from typing import Any, Protocol


class Ops(Protocol):
    """The operations of one framework that the differentiable part uses.

    In addition it uses the operators ``+ - * / @ **``, comparisons, ``abs``, ``x.shape``,
    ``x.dtype`` and indexing by numbers, slices and None, which arrays of every framework have. The
    framework's gradients, compilers and transforms must support each operation.
    """

    def shape(self, x: Any, /) -> Any:
        """Return the sizes of `x`; where one is not known yet, an array that will hold it."""

    def stop(self, x: Any, /) -> Any:
        """Return the value of `x` without its gradient."""

    def take(self, codebook: Any, codes: Any, /) -> Any:
        """Return rows of a matrix by codes (N,) int32; a negative one gives any row."""

    def transpose(self, x: Any, axes: tuple[int, ...], /) -> Any:
        """Return `x` with its axes in another order."""

    def reshape(self, x: Any, shape: tuple[Any, ...], /) -> Any:
        """Return `x` in another shape, where -1 stands for the remaining size."""

    def where(self, condition: Any, x: Any, y: Any, /) -> Any:
        """Return `x` where the condition holds, else `y`, a number; no gradient passes there."""

    def sum(self, x: Any, axis: int = ..., /) -> Any:
        """Return the sum of all numbers, or along an axis."""

    def max(self, x: Any, axis: int, /) -> Any:
        """Return the largest number along an axis, of numbers from zero; zero for an empty axis."""

    def cast(self, x: Any, like: Any, /) -> Any:
        """Return `x`, of any type, in the type of `like`."""

    def widen(self, x: Any, /) -> Any:
        """Return float64 as it is and other float types as float32."""


class ProductOps(Ops, Protocol):
    """`Ops`, and what gradients by hand (`_products.pulled_back`) need beyond."""

    def product(self, x: Any, y: Any, z: Any, alpha: Any, beta: Any, /) -> Any:
        """Return ``alpha x @ y + beta z``."""

    def add_scaled(self, x: Any, y: Any, alpha: float, /) -> Any:
        """Return ``x + alpha y``, perhaps written over `x`, which is not needed any more."""


def rows_of(ops: Ops, x: Any, *, channels_last: bool = False) -> Any:
    """Return (B, D, T), or (B, T, D) with the channels last, as (B * T, D); (N, D) as it is."""
    if len(x.shape) == 2:
        return x
    if channels_last:
        return ops.reshape(x, (-1, ops.shape(x)[2]))
    return ops.reshape(ops.transpose(x, (0, 2, 1)), (-1, ops.shape(x)[1]))


def batch_of(ops: Ops, rows: Any, x: Any, *, channels_last: bool = False) -> Any:
    """Undo `rows_of` for an array of rows shaped like `x`."""
    if len(x.shape) == 2:
        return rows
    if channels_last:
        return ops.reshape(rows, tuple(ops.shape(x)))
    batch, dim, time = ops.shape(x)
    return ops.transpose(ops.reshape(rows, (batch, time, dim)), (0, 2, 1))
