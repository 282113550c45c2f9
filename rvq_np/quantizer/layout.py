"""Between the layouts users have, (B, D, T) or (N, D), and the rows (N, D) the codec works on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from .. import arrays, backends, display
from ..codebooks import Codebooks
from ..codec import validation
from ..errors import DtypeError, ShapeError
from ..train import opened
from ..train.chunked import Chunks
from . import shown

VectorArray = TypeVar("VectorArray")  # of vectors, losses and bandwidths
CodeArray = TypeVar("CodeArray")


@dataclass(eq=False, repr=False)
class QuantizedResult(arrays.WithCodes, Generic[VectorArray, CodeArray]):
    """The result of quantizing a batch; unpacks like the tuple that ESPnet returns.

    Two results are equal if all their arrays have the same shapes and numbers, in any library. To a
    type checker it is ``QuantizedResult[V, C]``: V of vectors and losses, C of codes.

    Attributes
    ----------
    quantized : array (B, D, T) or (N, D)
        In the library, on the device and in the float type of the input: ``decode(codes)``.
    codes : array (n_q, B, T) or (n_q, N), int32
        Codes of all stages in use. Under dropout `quantized` leaves out the stages that a row does
        not use.
    bandwidth : array () or, under dropout in training, (B,)
        kb/s of the stages used; bits per vector where the call had no ``sample_rate``.
    penalty : array ()
        Commitment loss, averaged over the stages used; 0 in eval.
    quantization_loss : array () or None
        The same without the commitment weight; None where the quantizer has no dropout.
    """

    quantized: VectorArray
    codes: CodeArray
    bandwidth: VectorArray
    penalty: VectorArray = None  # type: ignore[assignment]
    quantization_loss: VectorArray | None = None

    def __iter__(self) -> Iterator[Any]:
        yield from (self.quantized, self.codes, self.bandwidth, self.penalty)
        if self.quantization_loss is not None:
            yield self.quantization_loss

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QuantizedResult):
            return NotImplemented
        return len(self) == len(other) and all(map(_same, self, other))

    def __repr__(self) -> str:
        held = ", ".join(f"{name}={said}" for name, said in shown.fields_of(self))
        return f"{type(self).__name__}({held})"

    def _repr_html_(self) -> str:
        return display.table(type(self).__name__, shown.fields_of(self))

    __hash__ = None  # type: ignore[assignment]  # its arrays can change

    def __len__(self) -> int:
        return 4 if self.quantization_loss is None else 5

    def __getitem__(self, place: Any) -> Any:
        return tuple(self)[place]


def _same(ours: Any, theirs: Any) -> bool:
    if ours is theirs:
        return True
    if ours is None or theirs is None:
        return False
    return np.array_equal(arrays.to_numpy(ours), arrays.to_numpy(theirs))


class Batch:
    """A batch of vectors as rows, remembering how to give results back as they came.

    Attributes
    ----------
    rows : array (N, D)
        Vectors, zeros where masked; N = B * T for ``(B, D, T)``.
    valid : numpy.ndarray (N,), bool, or None
        Which rows are no padding; None: all.
    groups : int
        B, or N for ``(N, D)``: the items that quantizer dropout treats alike.
    """

    def __init__(self, call: str, x: Any, codebooks: Codebooks, mask: Any = None):
        entered = backends.enter_all(*((x,) if mask is None else (x, mask)))
        self.entered, self.like = entered[0], entered[0].array
        self.valid: np.ndarray | None = None
        with self.there():
            self.rows = self._checked(call, codebooks, None if mask is None else entered[1].array)
        self.groups = self.like.shape[0]

    def there(self) -> AbstractContextManager[Any]:
        """Return a context in which the device of the batch is the current one."""
        return self.entered.there()

    def _checked(self, call: str, codebooks: Codebooks, mask: Any) -> Any:
        x, dim = self.like, codebooks.dim
        self.time_last = x.ndim == 3
        fits = x.ndim in (2, 3) and x.shape[1] == dim
        if not fits:
            raise ShapeError(
                f"{call}: x has shape {tuple(x.shape)}; expected (B, {dim}, T) or (N, {dim}), "
                f"where {dim} is the dimension of the quantizer."
            )
        self.dtype = validation.floating(call, x)
        self._xp = arrays.namespace(x)
        x = arrays.native(x)
        if mask is not None:
            x, self.valid = self._masked(call, x, mask)
        if 0 not in x.shape:
            validation.finite(call, x, codebooks)
        return as_rows(x)

    @classmethod
    def of_rows(cls, entered: backends.Entered, valid: np.ndarray | None, groups: int) -> Batch:
        """Return a batch of rows that are what the attributes say they are: nothing is checked."""
        batch, rows = cls.__new__(cls), entered.array
        batch.entered, batch.rows, batch.valid, batch.groups = entered, rows, valid, groups
        batch.time_last, batch.like, batch._xp = False, rows, arrays.namespace(rows)
        return batch

    def _masked(self, call: str, x: Any, mask: Any) -> tuple[Any, np.ndarray]:
        xp = self._xp
        expected = (x.shape[0], x.shape[2]) if self.time_last else (x.shape[0],)
        if tuple(mask.shape) != expected:
            raise ShapeError(
                f"{call}: mask has shape {tuple(mask.shape)}; expected {expected}, one per vector."
            )
        if not xp.isdtype(mask.dtype, "bool"):
            raise DtypeError(
                f"{call}: mask has dtype {mask.dtype}; expected bool, True where there is a vector."
            )
        kept = mask[:, None, :] if self.time_last else mask[:, None]
        return xp.where(kept, x, xp.zeros_like(x)), arrays.to_numpy(mask).reshape(-1)

    def vectors(self, rows: Any) -> Any:
        """Return rows (N, D) in the layout, library and float type of the batch."""
        alike = self.entered.back_alike
        dtype = self.like.dtype
        if isinstance(dtype, np.dtype) and not dtype.isnative:
            dtype = self.dtype
        if alike is None and rows.dtype != dtype:
            rows = self._xp.astype(rows, dtype)
        vectors = as_vectors(rows, self._time_shape())
        return self.entered.out(vectors) if alike is None else alike(vectors)

    def codes(self, codes: Any) -> Any:
        """Return codes (n, N) as (n, B, T), or (n, N) where that came, in the library."""
        shape = self._time_shape()
        if shape is not None:
            codes = self._xp.reshape(codes, (codes.shape[0], *shape))
        return self.entered.out(codes)

    def scalar(self, value: Any) -> Any:
        """Return a number or NumPy array in the library of the batch, float32 at least."""
        dtype = np.float64 if self.dtype == np.float64 else np.float32
        with np.errstate(over="ignore"):  # a loss beyond float32 is infinite, and says so
            array = np.asarray(value, dtype=dtype)
        return self.entered.out(arrays.asarray(array, self.like))

    def _time_shape(self) -> tuple[int, int] | None:
        return (self.like.shape[0], self.like.shape[2]) if self.time_last else None


def as_rows(x: Any) -> Any:
    """Return vectors (B, D, T) as rows (N, D), or (N, D) as they are."""
    if x.ndim == 2:
        return x
    xp, x = arrays.namespace(x), arrays.native(x)
    return xp.reshape(xp.permute_dims(x, (0, 2, 1)), (x.shape[0] * x.shape[2], x.shape[1]))


def as_vectors(rows: Any, time_shape: tuple[int, int] | None) -> Any:
    """Return rows (N, D) as (B, D, T), or as they are where `time_shape` is None."""
    if time_shape is None:
        return rows
    xp = arrays.namespace(rows)
    return xp.permute_dims(xp.reshape(rows, (*time_shape, rows.shape[1])), (0, 2, 1))


def later_rows(call: str, later: Any, x: Any, dim: int) -> Any:
    """Return vectors (B, D, T) as (B, T, D), or (N, D) as they are, of arrays computed later."""
    later.check(call, "x", x)
    if x.ndim not in (2, 3) or x.shape[1] != dim:
        raise ShapeError(
            f"{call}: x has shape {tuple(x.shape)}; expected (B, {dim}, T) or (N, {dim}), where "
            f"{dim} is the dimension of the quantizer."
        )
    later.whole(call, "x", x, 1, "the components of a vector")
    return later.moved(x, 1, 2) if x.ndim == 3 else x


def training_rows(call: str, x: Any, dim: int) -> tuple[backends.Entered, Any]:
    """Return what `fit` was given as it came in, and as rows (N, D)."""
    later = backends.chunked(x)
    if later is None or x.ndim == 2:
        x = opened(call, x)
    chunks = later is not None or isinstance(x, Chunks)
    entered = backends.uncomputed(x) if chunks else backends.enter(x)
    x = entered.array
    if x.ndim not in (2, 3) or x.shape[1] != dim:
        raise ShapeError(
            f"{call}: x has shape {tuple(x.shape)}; expected (N, {dim}) or (B, {dim}, T)."
        )
    if chunks:
        return entered, x if x.ndim == 2 else later.rows(later_rows(call, later, x, dim))
    validation.floating(call, x)
    with entered.there():
        return entered, as_rows(x)
