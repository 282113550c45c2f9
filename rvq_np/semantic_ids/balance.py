"""A stage whose codewords have a capacity: a deterministic auction, in blocks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import arguments
from ..codebooks import Codebooks, Stage
from ..codec import core, validation
from ..errors import ParameterError
from ..kernels import dispatch, tiles
from ._products import Products
from .candidates import check, entered, squares

NEAR = 16  # codewords an item knows at a time
BLOCK = 1 << 22  # numbers of vectors, and of codewords by items, held at once
PATIENCE = 20  # offers an item, on average, before the auction gets coarser
COARSER = 1.01  # by so much every time that items look for more codewords
ROWS = 2048  # items that a thread takes at once


class Balanced(NamedTuple):
    """The codes that `balance` assigned, and their error.

    Attributes
    ----------
    codes : numpy.ndarray (Q, N), int32
    counts : numpy.ndarray (K,), int64
        Number of items of each codeword of the balanced stage; at most the capacity.
    error : float
        Mean squared distance of an item to its decoded codes, up to the balanced stage.
    free_error : float
        The same if every item gets the nearest codeword.
    """

    codes: np.ndarray
    counts: np.ndarray
    error: float
    free_error: float


def balance(
    x: Any,
    codebooks: Any,
    capacity: int | None = None,
    *,
    stage: int = -1,
    epsilon: float = 0.02,
) -> Balanced:
    """Assign items to the codewords of a stage so that none gets more than `capacity`.

    Parameters
    ----------
    x : array (N, D), floating
        Embeddings.
    codebooks : Codebooks or array (Q, K, D)
        Without projections and strides.
    capacity : int, optional
        The most items that a codeword may get; by default ``ceil(N / K)``, the smallest possible
        capacity.
    stage : int, optional
        Which stage, by default the last. Earlier stages take the nearest codewords; later stages
        those nearest to the residual of the balanced stage.
    epsilon : float, optional
        How much larger than the minimum the mean error of an item may be, as a share of the mean
        squared distance without capacities. Smaller values take longer.

    Returns
    -------
    balanced : Balanced

    Raises
    ------
    ShapeError, DtypeError, NonFiniteError, BackendError
        As `rvq_np.encode`.
    ParameterError
        If `capacity` is too small for all items, or another argument has an invalid value. The
        message names the smallest capacity.

    Notes
    -----
    The method is an auction (Bertsekas, 1988). Each item makes an offer for the codeword with the
    smallest sum of squared distance and price. A codeword keeps the highest offers, and its price
    rises. The 16 best codewords of each item are stored, and others are searched only when prices
    require it, so memory is linear in items and codewords, not in their product. Offers are made in
    the order of the items, and all numbers are float64, added in a fixed order: the result is the
    same on every machine and for any number of threads. In a long auction `epsilon` grows: it
    doubles after every 20 offers per item, and grows by 1 % every time that items search more
    codewords. The error is reported in every case.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.float32([[0], [0.1], [0.2], [5]])
    >>> found = balance(x, np.float32([[[0], [4]]]), 2)
    >>> found.codes, found.counts
    (array([[0, 0, 1, 1]], dtype=int32), array([2, 2]))
    """
    call = "balance"
    x, books = entered(call, x, validation.plain(call, Codebooks.of(codebooks)))
    if any(each.project_in is not None for each in books):
        raise ParameterError(f"{call}: the codebooks have projections; expected none.")
    place = arguments.whole(call, "stage", stage, -books.n_q, books.n_q - 1) % books.n_q
    size = books.sizes[place]
    epsilon = arguments.number(call, "epsilon", epsilon, 1e-9)
    capacity = _capacity(call, capacity, len(x), size)
    step = max(1, BLOCK // books.dim)
    codes = np.empty((books.n_q, len(x)), np.int32)
    for start in range(0, len(x), step):
        block = x[start : start + step]
        check(call, block, books, start)
        if place:
            codes[:place, start : start + step] = core.encode(block, books[:place], place)
    market = _Market(x, codes[:place], books, place, capacity)
    assigned, error, free = market.run(epsilon)
    codes[place] = assigned
    for start in range(0, len(x) if place + 1 < books.n_q else 0, step):
        part = slice(start, start + step)
        given = np.ascontiguousarray(codes[: place + 1, part])
        left = core.residual(x[part], given, books[: place + 1])
        codes[place + 1 :, part] = core.encode(left, books[place + 1 :], books.n_q - place - 1)
    return Balanced(codes, np.bincount(assigned, minlength=size), error, free)


def _capacity(call: str, capacity: int | None, count: int, size: int) -> int:
    """Return how many of the items a codeword may get, or raise ParameterError."""
    least = -(-count // size)
    if capacity is None:
        return max(1, least)
    capacity = arguments.whole(call, "capacity", capacity, 1)
    if capacity < least:
        raise ParameterError(
            f"{call}: capacity is {capacity} for {size} codewords and {count} items; expected "
            f"at least {least}."
        )
    return min(capacity, max(1, count))


class _Market:
    """The items, what they know of the codewords, and their prices."""

    def __init__(
        self, x: np.ndarray, before: np.ndarray, books: Codebooks, place: int, capacity: int
    ):
        self.x, self.before, self.books, self.place = x, before, books, place
        self.codebook, self.capacity = books[place].codebook, capacity
        self.tables = core.tables(self.rows(np.arange(0)), Codebooks([Stage(self.codebook)]))
        self.n_near = min(NEAR, len(self.codebook))
        self.near = np.empty((len(x), self.n_near), np.int32)
        self.apart = np.empty((len(x), self.n_near))
        self.bounds = np.empty(len(x))
        self.prices = np.zeros(len(self.codebook))
        self.products = Products(self.codebook)

    def run(self, epsilon: float) -> tuple[np.ndarray, float, float]:
        """Return the codeword (N,) of each item, the mean error, and that without capacities."""
        n_items, size = len(self.x), len(self.codebook)
        if n_items == 0:
            return np.empty(0, np.int32), 0.0, 0.0
        self.look(np.arange(n_items))
        free = float(self.apart.min(axis=1).mean())
        scale = free or float(self.apart.max()) or 1.0
        heap, offers = np.zeros((size, self.capacity), np.int64), np.zeros((size, self.capacity))
        filled, left = np.zeros(size, np.int64), np.empty(n_items, np.int64)
        queue, state = np.arange(n_items), np.array([0, n_items, 0])
        bids, grain = PATIENCE * n_items, epsilon * scale
        auction = dispatch.ids(PATIENCE * n_items).auction
        while state[1]:
            lost = auction(
                queue, state, self.near, self.apart, self.bounds, self.prices, self.capacity, grain,
                heap, offers, filled, bids, left,
            )  # fmt: skip
            if state[2] >= bids:
                grain, bids = 2 * grain, bids + PATIENCE * n_items
            if lost:
                again = left[:lost].copy()
                self.look(again)
                grain *= COARSER
                places = (state[0] + state[1] + np.arange(lost)) % n_items
                queue[places] = again
                state[1] += lost
        assigned = np.empty(n_items, np.int32)
        for codeword in range(size):
            assigned[heap[codeword, : filled[codeword]]] = codeword
        return assigned, self.error(assigned), free

    def look(self, items: np.ndarray) -> None:
        """Let items know the codewords with the smallest sums of distance and price."""
        step = max(1, min(ROWS, BLOCK // max(self.codebook.shape)))
        tiles.over_rows(lambda *part: self.look_at(items[slice(*part)]), len(items), step)

    def look_at(self, items: np.ndarray) -> None:
        rows, most = self.rows(items), self.n_near
        # Products are rounded a little, so it is near the last of those listed that one may be
        # missed; what is listed has its exact distance.
        values = self.products.squares - 2 * self.products.of(rows)
        values = np.ldexp(values, 2 * self.products.shift) + self.prices
        highest = np.partition(values, most - 1, axis=1)[:, most - 1 : most]
        listed, equal = values < highest, values == highest
        more = most - listed.sum(axis=1, keepdims=True)  # of equal ones the first
        listed |= equal & (np.cumsum(equal, axis=1) <= more)
        found = np.nonzero(listed)[1].reshape(-1, most).astype(np.int32)
        near = np.empty(found.T.shape)
        dispatch.path_distances(rows, self.tables, np.ascontiguousarray(found.T)[:, None], near)
        self.near[items], self.apart[items] = found, near.T
        # The largest, as a second best value above its bound would be looked for again and again.
        highest = (near.T + self.prices[found]).max(axis=1)
        self.bounds[items] = np.inf if most == len(self.codebook) else highest

    def rows(self, items: np.ndarray) -> np.ndarray:
        """Return what the stage quantizes of some items."""
        block = self.x[items]
        if not self.place:
            return block.astype(np.result_type(np.float32, block.dtype, self.books.dtype))
        before = np.ascontiguousarray(self.before[:, items])
        return np.asarray(core.residual(block, before, self.books[: self.place]))

    def error(self, assigned: np.ndarray) -> float:
        """Return the mean squared distance of the items to their codewords."""
        total, step = 0.0, max(1, BLOCK // self.books.dim)
        for start in range(0, len(assigned), step):
            items = np.arange(start, min(start + step, len(assigned)))
            total += float(squares(self.rows(items) - self.codebook[assigned[items]]).sum())
        return total / len(assigned)


def fit_balanced(
    x: Any,
    codebooks: Any,
    capacity: int | None = None,
    *,
    iterations: int = 5,
    epsilon: float = 0.02,
) -> Codebooks:
    """Train the codebook of the last stage for the assignments of `balance`.

    Parameters
    ----------
    x : array (N, D), floating
    codebooks : Codebooks or array (Q, K, D)
        Fitted codebooks; the last stage is trained further.
    capacity, epsilon : int and float, optional
        As in `balance`.
    iterations : int, optional
        Number of iterations. Each assigns the items and moves every codeword to the mean of its
        items.

    Returns
    -------
    codebooks : Codebooks
        Those with the smallest balanced error; a codeword without items does not change.

    Raises
    ------
    ShapeError, DtypeError, NonFiniteError, BackendError, ParameterError
        As `balance`; also if `iterations` is not a whole number from 0.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.float32([[0], [1], [2], [9]])
    >>> found = fit_balanced(x, np.float32([[[0], [9]]]), 2)
    >>> found[0].codebook.ravel()
    array([0.5, 5.5], dtype=float32)
    """
    call = "fit_balanced"
    iterations = arguments.whole(call, "iterations", iterations, 0)
    rows, books = entered(call, x, validation.plain(call, Codebooks.of(codebooks)))
    found = balance(rows, books, capacity, epsilon=epsilon)
    before, assigned, best = found.codes[:-1], found.codes[-1], (found.error, books)
    capacity = _capacity(call, capacity, len(rows), books.sizes[-1])
    step = max(1, BLOCK // books.dim)
    for _ in range(iterations):
        stage, dtype = books[-1], books[-1].codebook.dtype
        sums = np.zeros(stage.codebook.shape)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            left = rows[part]
            if books.n_q > 1:
                left = core.residual(left, np.ascontiguousarray(before[:, part]), books[:-1])
            sums += core.tally(left, assigned[None, part], Codebooks([stage]))[1][0]
        counts = np.bincount(assigned, minlength=len(sums))
        used = counts > 0
        codebook = stage.codebook.copy()
        codebook[used] = (sums[used] / counts[used, None]).astype(dtype)
        books = Codebooks([*books.stages[:-1], Stage(codebook)])
        # Only the last stage moves: what the others chose stays.
        assigned, error, _ = _Market(rows, before, books, books.n_q - 1, capacity).run(epsilon)
        if error < best[0]:
            best = (error, books)
    return best[1]
