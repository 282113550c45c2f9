"""The best few code sequences of each item, with their squared distances."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import arguments, arrays, backends
from ..codebooks import Codebooks, Normalized, Quantizer
from ..codec import core, validation
from ..errors import NonFiniteError, ShapeError
from ..kernels import dispatch

NUMBERS = 1 << 22  # of vectors and hypotheses, held at once


class Candidates(NamedTuple):
    """The best code sequences of each item, best first: IDs that the item may get.

    Attributes
    ----------
    codes : numpy.ndarray (k, Q, n), int32
        -1 in all stages where an item has fewer than k.
    distances : numpy.ndarray (k, n), float64
        Squared distance of the item to its decoded codes; infinite where codes are -1.
    items : numpy.ndarray (n,), int64, optional
        The items that these candidates belong to; None: all items, in order.
    """

    codes: np.ndarray
    distances: np.ndarray
    items: np.ndarray | None = None


def candidates(
    x: Any, codebooks: Any, k: int, *, last: bool = False, items: Any = None
) -> Candidates:
    """Find the k best code sequences of each item.

    Parameters
    ----------
    x : array (N, D), floating
        Embeddings.
    codebooks : Codebooks, Normalized or array (Q, K, D)
        Without strides.
    k : int
        Number of candidates of each item, from 1.
    last : bool, optional
        True: keep the codes of `rvq_np.encode` for all stages but the last, and take the k best
        codewords of the last stage. An item that moves then keeps its prefix, and the cost is
        little more than that of `encode`. False, the default: the candidates are the results of a
        beam search with `k` hypotheses, at about k times the cost. `Normalized` codebooks are
        always treated as with True, because they have no beam search.
    items : array (n,), integer, optional
        Use only these rows of `x`.

    Returns
    -------
    candidates : Candidates
        Ordered by the exact distances of the last stage; ties by the hypothesis, then by the
        codeword. The first candidate is the result of `encode` with ``last=True``, otherwise that
        of ``encode(beam_size=k)``. Codewords that repeat an earlier codeword are not candidates.

    Raises
    ------
    ShapeError, DtypeError, NonFiniteError, BackendError
        As `rvq_np.encode`; also if `items` are not row numbers.
    ParameterError
        If `k` is not a whole number from 1, or the codebooks have strides.

    Notes
    -----
    A distance is the sum of the squares of the residual after the last stage, added in order in
    float64. Rows are processed in blocks; the memory used beside the result does not grow with N.

    Examples
    --------
    >>> import numpy as np
    >>> codebooks = np.float32([[[0, 0], [4, 4]], [[0, 0], [1, 0]]])
    >>> found = candidates(np.float32([[4.5, 4.25]]), codebooks, 2)
    >>> found.codes[:, :, 0], found.distances[:, 0]
    (array([[1, 0],
           [1, 1]], dtype=int32), array([0.3125, 0.3125]))
    """
    call = "candidates"
    x, books = entered(call, x, codebooks)
    k = arguments.whole(call, "k", k, 1)
    arguments.kind(call, "last", last, bool)
    rows = None if items is None else rows_of(call, items, len(x))
    count = len(x) if rows is None else len(rows)
    codes = np.empty((k, books.n_q, count), np.int32)
    distances = np.empty((k, count))
    step = max(1, NUMBERS // (books.dim * (1 if last else k)))
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        block = x[part] if rows is None else x[rows[part]]
        check(call, block, books, start if rows is None else rows[part])
        paths(block, books, codes[:, :, part], distances[:, part], last)
    return Candidates(codes, distances, rows)


def rows_of(call: str, items: Any, n_rows: int) -> np.ndarray:
    """Return numbers of rows as int64, or raise."""
    rows = np.asarray(items)
    if rows.size == 0:
        rows = rows.astype(np.int64)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise ShapeError(
            f"{call}: items is {rows.dtype} of shape {rows.shape}; expected numbers of rows (n,)."
        )
    if rows.size and (rows.min() < 0 or rows.max() >= n_rows):
        raise ShapeError(
            f"{call}: items reach from {rows.min()} to {rows.max()}; expected 0 to {n_rows - 1}."
        )
    return rows.astype(np.int64)


def entered(call: str, x: Any, codebooks: Any) -> tuple[np.ndarray, Any]:
    """Return embeddings (N, D) in host memory and codebooks without strides, or raise."""
    x = arrays.to_numpy(backends.enter(x).array)
    books: Any = codebooks
    if not isinstance(books, Normalized):
        books = validation.plain(call, Codebooks.of(codebooks))
    if x.ndim != 2 or x.shape[1] != books.dim:
        raise ShapeError(f"{call}: x has shape {x.shape}; expected (N, {books.dim}).")
    return x, books


def check(call: str, block: np.ndarray, books: Quantizer, rows: Any) -> None:
    """Raise as `validation.vectors`, but name the row of `x` that holds a bad number.

    `rows`: the number of the first row of the block, or of each.
    """
    try:
        validation.vectors(call, block, books)
    except NonFiniteError as error:
        bad = ~np.isfinite(block).all(axis=1)
        if not bad.any():  # residuals may overflow
            raise
        first = int(np.argmax(bad))
        row = int(rows[first]) if isinstance(rows, np.ndarray) else rows + first
        raise NonFiniteError(
            f"{call}: row {row} of x holds NaN or infinity; expected finite numbers only. Drop "
            "such items."
        ) from error


def paths(
    block: np.ndarray, books: Any, codes: np.ndarray, distances: np.ndarray, last: bool
) -> None:
    """Write the best codes (k, Q, n) of a block of valid rows, and their distances (k, n)."""
    k, own = len(codes), codes
    if isinstance(books, Normalized):
        rows, stages = block, core.tables(block, books.parts[books.n_q - 1])
        for stage, (searched, chosen) in enumerate(core.directions(block, books, books.n_q)):
            rows, codes[:, stage] = searched, chosen
        own = codes[:, -1:]
    elif last and books.n_q > 1:
        codes[:, :-1] = core.encode(block, books[:-1], books.n_q - 1)
        rows = core.residual(block, codes[0, :-1], books[:-1])
        stages, own = core.tables(rows, books)[books.n_q - 1 :], codes[:, -1:]
    else:
        rows, stages = block, core.tables(block, books)
    found = dispatch.paths(rows, stages, k)
    own[:] = found
    codes[np.broadcast_to(found[:, :1] < 0, codes.shape)] = -1
    near = np.empty(distances.shape)
    dispatch.path_distances(rows, stages, found, near)
    distances[:] = near


def squares(rows: np.ndarray) -> np.ndarray:
    """Return the squared length (n,) of each row, float64: the same sum on every machine."""
    total = np.zeros(len(rows))
    for column in np.ascontiguousarray(rows.T):
        wide = column.astype(np.float64)
        total += wide * wide
    return total
