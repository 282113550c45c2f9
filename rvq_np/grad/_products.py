"""Forward and vector-Jacobian product over NumPy arrays: the gradient contract, by hand.

The reference the native shims are tested against, and all that a tape engine needs.  The
formulas, for stage q of L with residual ``r``, ``z = P r + p`` (or ``r``), codeword ``e``, and
``o = O e + o0`` (or ``e``), over the rows that are active at q, C the
dimension of a codeword:

- ``quantized = sum of o``; to x the identity, to O ``sum of g e'``, to o0 ``sum of g``; straight
  through the codeword, with ``h = O' g``, to P ``sum of h r'``, to p ``sum of h``;
- ``penalty = w / L * sum over q of mean |z - e|**2``, e and the residual's past held fixed: with
  ``dz = 2 w (z - e) / (L rows C)``, to P ``sum of dz r'``, to p ``sum of dz``, to x ``P' dz``;
- ``quantization_loss`` likewise, without w, z held fixed: to each codeword ``-sum of 2 (z - e) / (L
  rows C)`` over the rows that chose it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import arrays
from ..codebooks import Codebooks
from ..errors import BackendError, ShapeError
from ..quantizer import ResidualVectorQuantizer
from ..quantizer.layout import QuantizedResult
from ._inputs import check_estimator, check_quantizer
from ._names import StageArrays, codebook_name, map_names
from ._ops import ProductOps, batch_of, rows_of
from ._surrogate import rotated


class _NumpyOps:
    """`ProductOps` of NumPy, where nothing is recorded."""

    shape = staticmethod(np.shape)
    stop = staticmethod(lambda x: x)
    take = staticmethod(lambda codebook, codes: codebook[codes])
    transpose = staticmethod(np.transpose)
    reshape = staticmethod(lambda x, shape: np.reshape(x, shape))
    where = staticmethod(lambda condition, x, y: np.where(condition, x, y))
    sum = staticmethod(lambda x, axis=None: np.sum(x, axis))
    max = staticmethod(lambda x, axis: np.max(x, axis, initial=0))
    cast = staticmethod(lambda x, like: np.asarray(x).astype(like.dtype))
    widen = staticmethod(lambda x: x.astype(np.result_type(x.dtype, np.float32), copy=False))
    product = staticmethod(lambda x, y, z, alpha, beta: alpha * (x @ y) + beta * z)
    add_scaled = staticmethod(lambda x, y, alpha: x + alpha * y)


NUMPY: ProductOps = _NumpyOps()


class Gradients(NamedTuple):
    """The gradients that `Products` returns.

    Attributes
    ----------
    x : numpy.ndarray
        With the shape and dtype of the vectors.
    parameters : dict of str to numpy.ndarray
        Under the names of a state dict: ``vq.layers.0.project_in.weight`` and so on, and
        ``vq.layers.0._codebook.embed`` for the codewords.
    """

    x: np.ndarray
    parameters: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Products:
    """The vector-Jacobian product of one `quantize_vjp`: a value that can be pickled.

    Attributes
    ----------
    x : numpy.ndarray (B, D, T) or (N, D)
        The vectors, zeros where there is padding.
    codes : numpy.ndarray (n_q, N), int32
    active : numpy.ndarray (N,), int
        Number of stages that each row uses; 0 for padding.
    quantized : numpy.ndarray (N, D)
    codebooks : Codebooks
    weight : float
        The commitment weight; 0 in eval, where the penalty is a constant.
    trained : bool
        Whether the losses have gradients.
    estimator : str
    """

    x: np.ndarray
    codes: np.ndarray
    active: np.ndarray
    quantized: np.ndarray
    codebooks: Codebooks
    weight: float
    trained: bool
    estimator: str

    def __call__(
        self, quantized: Any = None, penalty: Any = 0.0, quantization_loss: Any = 0.0
    ) -> Gradients:
        """Return the gradients of a scalar, given its gradients to the outputs.

        Parameters
        ----------
        quantized : array like the vectors, optional
            None: zeros.
        penalty, quantization_loss : float, optional

        Returns
        -------
        gradients : Gradients

        Raises
        ------
        ShapeError
            If `quantized` is not shaped as the vectors.
        """
        given = np.zeros_like(self.x) if quantized is None else np.asarray(quantized)
        if given.shape != self.x.shape:
            raise ShapeError(
                f"vjp: the gradient to quantized has shape {given.shape}; expected {self.x.shape}."
            )
        rows = NUMPY.widen(rows_of(NUMPY, self.x))
        to_rows = rows_of(NUMPY, given).astype(rows.dtype) * (self.active > 0)[:, None]
        to_x, parameters = self._by_stage(rows, to_rows, float(penalty), float(quantization_loss))
        to_x += self._through(rows, to_rows)
        return Gradients(batch_of(NUMPY, to_x, self.x).astype(self.x.dtype), parameters)

    def _through(self, rows: np.ndarray, to_rows: np.ndarray) -> np.ndarray:
        if self.estimator == "straight-through":
            return to_rows
        with np.errstate(over="ignore"):  # a bound beyond the float type bounds nothing, rightly
            return rotated(NUMPY, to_rows, rows, self.quantized.astype(rows.dtype), backwards=True)

    def _by_stage(
        self, rows: np.ndarray, to_rows: np.ndarray, penalty: float, quantization_loss: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        n_q, dtype = len(self.codes), rows.dtype
        stages = self.codebooks.stages[:n_q]
        if not (self.trained or stages[0].project_in):
            return np.zeros_like(rows), {
                codebook_name(q): np.zeros(stage.codebook.shape, dtype)
                for q, stage in enumerate(stages)
            }
        to_x, gradients = pulled_back(
            NUMPY, rows, to_rows, self.active, arrays_of(self.codebooks, n_q, dtype), self.codes,
            trained=self.trained, penalty=self.weight * penalty,
            quantization=quantization_loss or None,
        )  # fmt: skip
        parameters: dict[str, np.ndarray] = {}
        for q, (stage, codes, each) in enumerate(zip(stages, self.codes, gradients, strict=True)):
            to_codewords, *to_maps = each
            parameters.update(zip(map_names(q), to_maps, strict=False))
            to_codebook = np.zeros(stage.codebook.shape, dtype)
            if to_codewords is not None:
                np.add.at(to_codebook, codes, to_codewords)
            parameters[codebook_name(q)] = to_codebook
        return to_x, parameters


def arrays_of(codebooks: Codebooks, n_q: int, dtype: Any) -> list[StageArrays]:
    """Return the arrays of the first `n_q` stages in a float type."""
    return [
        StageArrays(stage.codebook.astype(dtype), *(
            linear and (linear.weight.astype(dtype), linear.bias.astype(dtype))
            for linear in (stage.project_in, stage.project_out)
        ))
        for stage in codebooks.stages[:n_q]
    ]  # fmt: skip


def pulled_back(
    ops: ProductOps,
    rows: Any,
    to_rows: Any,
    active: Any,
    stages: Sequence[StageArrays],
    codes: Any,
    *,
    trained: bool,
    penalty: Any,
    quantization: Any = None,
) -> tuple[Any, list[tuple[Any, ...]]]:
    """Return what the gradients of a pass give to x beside `to_rows`, and to each stage.

    `to_rows` (N, D): the gradient to the vectors, zeros where there is padding. `penalty`: that to
    the commitment loss, times its weight; `quantization`: that to the other, None for zero. Per
    stage: the gradient to the codewords of the rows (N, C) from the latter, or None; then, if it
    has maps, those to the weight and bias in, and to the weight and bias out.
    """
    counts = [int(ops.sum(active > stage)) for stage in range(len(stages))]
    used = max(1, sum(count > 0 for count in counts))
    gradients: list[tuple[Any, ...]] = []
    to_x, left = None, rows
    for stage, (codebook, into, out) in enumerate(stages):
        chosen = codes[stage]
        whole = counts[stage] == rows.shape[0]
        share = None if whole else ops.cast(active > stage, rows)[:, None]
        given = to_rows if whole else to_rows * share
        scale = 2.0 / (used * max(1, counts[stage]) * codebook.shape[1]) * trained
        factor = scale * penalty
        to_codewords = None
        if into is None:
            added = ops.take(codebook, chosen)
            apart = left - added
            pull = apart * factor if whole else apart * factor * share
            if quantization is not None:
                to_codewords = apart * (-scale * quantization) * (1 if whole else share)
            gradients.append((to_codewords,))
            to_x = pull if to_x is None else ops.add_scaled(to_x, pull, 1.0)
        else:
            # Codewords less the bias in, so that a product and a sum are one: `apart` is what is
            # searched less the codewords of the rows.
            moved = ops.take(codebook - into[1], chosen)
            pull = ops.product(left, into[0].T, moved, factor, -factor)
            pull = pull if whole else pull * share
            if quantization is not None:
                turn = scale * quantization
                to_codewords = ops.product(left, into[0].T, moved, -turn, turn)
                to_codewords = to_codewords if whole else to_codewords * share
            to_searched = ops.product(given, out[0], pull, 1.0, 1.0)
            total = ops.sum(given, 0)
            gradients.append(
                (to_codewords, to_searched.T @ left, ops.sum(to_searched, 0),
                 given.T @ moved + total[:, None] * into[1], total)
            )  # fmt: skip
            if codebook.shape[0] < rows.shape[0]:
                added = ops.take(codebook @ out[0].T + out[1], chosen)
            else:  # what the codewords decode to, by way of those moved
                added = ops.product(moved, out[0].T, out[0] @ into[1] + out[1], 1.0, 1.0)
            to_x = pull @ into[0] if to_x is None else ops.product(pull, into[0], to_x, 1.0, 1.0)
        left = left - added if left is rows else ops.add_scaled(left, added, -1.0)
    return to_x, gradients


def quantize_vjp(
    x: np.ndarray,
    rvq: ResidualVectorQuantizer,
    sample_rate: float | None = None,
    bandwidth: float | None = None,
    mask: np.ndarray | None = None,
    *,
    n_q: int | None = None,
    estimator: str = "straight-through",
) -> tuple[QuantizedResult, Products]:
    """Quantize NumPy arrays, and return the function that computes gradients.

    Parameters
    ----------
    x : numpy.ndarray (B, D, T) or (N, D), floating
    rvq : ResidualVectorQuantizer
        In train mode it is trained on the batch, as when called.
    sample_rate, bandwidth, mask, n_q, estimator
        As `rvq_np.grad.quantize`.

    Returns
    -------
    result : QuantizedResult
        The result of a call of `rvq`.
    vjp : Products
        For the gradient g of a scalar with respect to ``result.quantized``, ``vjp(g)`` returns the
        gradients with respect to `x` and the arrays of `rvq`. ``vjp(g, penalty=a)`` adds a times
        the gradient of ``result.penalty``.

    Raises
    ------
    BackendError
        If `x` is not a NumPy array.
    ShapeError, DtypeError, NonFiniteError, ParameterError
        As `rvq_np.ResidualVectorQuantizer.forward`.

    Notes
    -----
    The product needs a few passes over the rows, and ``n_q * N * C * D`` operations with
    projections. It keeps the vectors and codes, not the data of the search.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np import ResidualVectorQuantizer
    >>> from rvq_np.grad import quantize_vjp
    >>> rvq = ResidualVectorQuantizer(4, 4, n_q=2, bins=8, kmeans_init=False, rng=0).eval()
    >>> result, vjp = quantize_vjp(np.ones((3, 4), np.float32), rvq, sample_rate=50)
    >>> vjp(2 * np.ones((3, 4))).x[0]
    array([2., 2., 2., 2.], dtype=float32)
    """
    check_estimator(estimator)
    check_quantizer("quantize_vjp", rvq)
    if not isinstance(x, np.ndarray):
        raise BackendError(
            f"quantize_vjp: got a {type(x).__module__}.{type(x).__qualname__} as x; expected a "
            "numpy.ndarray. Use rvq_np.grad.quantize for arrays of a framework."
        )
    passed = rvq.passed("quantize_vjp", x, sample_rate, bandwidth, mask, n_q)
    kept = batch_of(NUMPY, arrays.to_numpy(passed.batch.rows), x)
    weight = rvq.config.commitment_weight
    products = Products(
        np.array(kept), passed.codes, passed.active(), passed.quantized, passed.codebooks, weight,
        passed.trained, estimator,
    )  # fmt: skip
    return passed.result(rvq.config), products
