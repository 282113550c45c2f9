"""Unique IDs from embeddings and codebooks: encode, find candidates, resolve."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import arguments
from ..codebooks import Codebooks, Normalized
from ..codec import core
from ..errors import ParameterError
from ..kernels import dispatch
from . import _codes
from ._free import place
from .candidates import candidates, check, entered, squares
from .resolve import Resolved, resolve

BLOCK = 1 << 24  # numbers of vectors encoded at once
NEAR = 8  # codewords of the last stage where an item may move first
HELD = 1 << 26  # numbers of candidates held at once


def assign(
    x: Any,
    codebooks: Any,
    *,
    capacity: int = 1,
    suffix: bool = False,
    prior: Any = None,
) -> Resolved:
    """Give every embedding an ID that at most `capacity` items share.

    First all embeddings are encoded. If an ID has more than `capacity` items, some of them move to
    one of the 8 nearest codewords of the last stage, as in `resolve`. Items without a free place
    there move to the nearest free ID of all. With `Normalized` codebooks, all codewords of the last
    stage are tried before that.

    Parameters
    ----------
    x : array (N, D), floating
    codebooks : Codebooks, Normalized or array (Q, K, D)
        Without strides.
    capacity : int, optional
        How many items may share an ID.
    suffix : bool, optional
        Add a stage that numbers the items of each ID, instead of moving items.
    prior : array (Q, M), integer, optional
        Published IDs of other items, which count towards the capacity; with a suffix (Q + 1, M).

    Returns
    -------
    resolved : Resolved
        As `resolve`. No item is unplaced.

    Raises
    ------
    ShapeError, DtypeError, NonFiniteError, BackendError, CodeRangeError
        As `rvq_np.encode` and `resolve`. The message names the row that holds NaN.
    ParameterError
        If there are more items than places. The message says how many, and which sizes are enough.

    Notes
    -----
    The nearest free IDs are the results of a beam search that excludes full IDs. Items are placed
    in several passes: the moves with the smallest costs are made first, on a tie that of the lower
    item. Costs are sums of exact products, so the result is the same for any number of threads and
    on every machine. Memory is linear in the number of items.

    Examples
    --------
    >>> import numpy as np
    >>> codebooks = np.float32([[[0], [8]], [[0], [1]]])
    >>> x = np.float32([[0], [0.1], [8.2]])
    >>> assign(x, codebooks).codes
    array([[0, 0, 1],
           [0, 1, 0]], dtype=int32)
    """
    call = "assign"
    x, books = entered(call, x, codebooks)
    capacity = arguments.whole(call, "capacity", capacity, 1)
    codes = np.empty((books.n_q, len(x)), np.int32)
    step = max(1, BLOCK // books.dim)
    for start in range(0, len(x), step):
        block = np.asarray(x[start : start + step])
        check(call, block, books, start)
        codes[:, start : start + step] = core.encode(block, books, books.n_q)
    if suffix:
        return resolve(codes, suffix=True, prior=prior)
    empty = np.empty((books.n_q, 0), np.int32)
    published = empty if prior is None else _codes.checked(call, prior, "prior")
    check_room(call, len(x) + published.shape[1], books.sizes, capacity)
    return _moved(x, codes, books, capacity, published)


def _moved(
    x: np.ndarray,
    codes: np.ndarray,
    books: Codebooks | Normalized,
    capacity: int,
    published: np.ndarray,
) -> Resolved:
    """Return IDs by relocation: along the last stage first, then to the nearest free IDs."""
    crowded = _crowded(codes, published, capacity)
    there = candidates(x, books, min(NEAR, books.sizes[-1]), last=True, items=crowded)
    first = resolve(codes, there, capacity=capacity, prior=published)
    del there
    found, waiting, added = first.codes, first.unplaced, first.added
    plain: Any = books
    rows, apart = x.__getitem__, _distances
    if isinstance(books, Normalized):
        waiting, more = _along_the_last(x, codes, books, capacity, published, found, waiting)
        added += more
        # No sum of codewords is near an item, so what is near is a sum near that of its codes.
        plain = Codebooks([stage for part in books.parts[: books.n_q] for stage in part])
        rows, apart = (lambda items: core.decode(codes[:, items], plain)), _directed
    looking = waiting
    waiting = place(rows, plain, codes, found, looking, capacity, published)
    given = np.setdiff1d(looking, waiting, assume_unique=True)
    step = max(1, BLOCK // books.dim)
    for start in range(0, len(given), step):
        some = given[start : start + step]
        both = [apart(x[some], books, each[:, some]) for each in (found, codes)]
        added += float(np.sort(both[0] - both[1]).sum())
    moved = np.flatnonzero((found != codes).any(axis=0) & (found[0] >= 0))
    return Resolved(found, moved, waiting, added)


def _along_the_last(
    x: np.ndarray,
    codes: np.ndarray,
    books: Normalized,
    capacity: int,
    published: np.ndarray,
    found: np.ndarray,
    waiting: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Give items that wait IDs of their first codes in `found`; return who has none, and cost."""
    left, added, k = [waiting[:0]], 0.0, books.sizes[-1]
    part = max(1, HELD // (k * (books.n_q + 2)))  # all at once would not be linear in memory
    for start in range(0, len(waiting), part):
        some = waiting[start : start + part]
        there = candidates(x, books, k, last=True, items=some)._replace(items=None)
        settled = np.concatenate([published, found[:, found[0] >= 0]], axis=1)
        answer = resolve(codes[:, some], there, capacity=capacity, prior=settled)
        found[:, some] = answer.codes
        added += answer.added
        left.append(some[answer.unplaced])
    return np.concatenate(left), added


def _distances(rows: np.ndarray, books: Any, codes: np.ndarray) -> np.ndarray:
    """Return how far rows are from what codes (Q, n) decode to, squared."""
    apart = np.empty((1, len(rows)))
    dispatch.path_distances(rows, core.tables(rows, books), codes[None], apart)
    return apart[0]


def _directed(rows: np.ndarray, books: Any, codes: np.ndarray) -> np.ndarray:
    """Return how far what the last stage quantizes is from its codeword, squared."""
    rows = rows.astype(np.float64)
    for part, chosen in zip(books.parts, codes, strict=False):
        length = np.sqrt(squares(rows))[:, None]
        rows = rows / np.where(length > 0, length, 1.0) - part[0].codebook[chosen]
    return squares(rows)


def _crowded(codes: np.ndarray, published: np.ndarray, capacity: int) -> np.ndarray:
    """Return the items whose ID has more than its capacity, ascending."""
    both = np.concatenate([published, codes], axis=1)
    ordered = _codes.order(both)
    begin = _codes.starts(both, ordered)
    length = np.diff(begin, append=len(ordered))
    items = ordered[np.repeat(length > capacity, length)] - published.shape[1]
    return np.sort(items[items >= 0])


def check_room(call: str, count: int, sizes: tuple[int, ...], capacity: int) -> None:
    """Raise ParameterError, with sizes that are enough, if there are too few IDs."""
    places = _codes.space(sizes) * capacity
    if count <= places:
        return
    larger = list(sizes)
    while _codes.space(larger) * capacity < count:
        place = larger.index(min(larger))
        larger[place] *= 2
    raise ParameterError(
        f"{call}: there are {count} items, but IDs of the sizes {','.join(map(str, sizes))} with a "
        f"capacity of {capacity} have {places} places; {count - places} are too many. Sizes "
        f"{','.join(map(str, larger))} are enough, or a suffix."
    )
