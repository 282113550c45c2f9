"""Unique IDs: items move along their candidates, or an ID gets one more code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import arguments
from ..errors import NonFiniteError, ShapeError
from ..kernels import dispatch
from . import _codes
from .candidates import Candidates

PAIRS = 1 << 20  # candidates looked up at once


class Resolved(NamedTuple):
    """Unique IDs, and by how much the items moved.

    Attributes
    ----------
    codes : numpy.ndarray (Q, N), int32
        With a suffix, (Q + 1, N). -1 in all stages of an item that could not be placed.
    moved : numpy.ndarray (n,), int64
        The items whose first Q codes have changed, ascending.
    unplaced : numpy.ndarray (n,), int64
        The items that have no ID, ascending.
    added : float
        Increase of the squared distances, summed over the items that moved.
    """

    codes: np.ndarray
    moved: np.ndarray
    unplaced: np.ndarray
    added: float


def resolve(
    codes: Any,
    candidates: Candidates | None = None,
    *,
    capacity: int = 1,
    suffix: bool = False,
    prior: Any = None,
) -> Resolved:
    """Give every item an ID that at most `capacity` items share.

    Parameters
    ----------
    codes : array (Q, N), integer
        The codes of the items, one row per stage, as `rvq_np.encode` returns them.
    candidates : Candidates, optional
        The IDs that items may move to, from `rvq_np.semantic_ids.candidates`: of all items, or of
        those in ``candidates.items``. Only items of IDs with more than `capacity` items need
        candidates.
    capacity : int, optional
        How many items may share an ID.
    suffix : bool, optional
        Add a stage that numbers the items of each ID from 0. Then every item gets a unique ID, also
        an item that cannot move.
    prior : array (Q, M), integer, optional
        Published IDs of other items: they never change, and count towards the capacity. With a
        suffix, (Q + 1, M): new suffixes continue after the largest published suffix of the ID.

    Returns
    -------
    resolved : Resolved

    Raises
    ------
    ShapeError, DtypeError, CodeRangeError
        If codes, candidates or prior have different numbers of stages, are not valid codes, or
        candidates name items that do not exist.
    NonFiniteError
        If a distance of a candidate is NaN or infinite.
    ParameterError
        If `capacity` is not a whole number from 1.

    Notes
    -----
    If an ID has more items than `capacity`, the items for which moving costs most stay: their next
    candidate has the largest increase of the distance. Of items with equal increases the first ones
    stay. All others move, in the order of the increase of the squared distance, then of the items,
    then of the candidates: each takes its first candidate with a free place. Items of other IDs do
    not move.

    Memory is linear. Time is linear, except for one sort of the candidates of the items that move.

    Examples
    --------
    >>> import numpy as np
    >>> codes = np.array([[0, 0, 1], [5, 5, 2]])
    >>> resolve(codes, suffix=True).codes
    array([[0, 0, 1],
           [5, 5, 2],
           [0, 1, 0]], dtype=int32)
    >>> there = Candidates(np.array([[[0, 0, 1], [5, 5, 2]], [[0, 0, 1], [6, 7, 4]]]),
    ...                    np.array([[1.0, 1.0, 3.0], [4.0, 2.0, 9.0]]))
    >>> resolved = resolve(codes, there)
    >>> resolved.codes, resolved.moved, resolved.added
    (array([[0, 0, 1],
           [5, 7, 2]], dtype=int32), array([1]), 1.0)
    """
    found = _codes.checked("resolve", codes)
    capacity = arguments.whole("resolve", "capacity", capacity, 1)
    published = _prior(prior, len(found), suffix)
    named = _named(candidates, found)
    base = published[: len(found)]
    staying, leaving = _split(found, base, capacity, named)
    chosen = found.copy()
    moved, added = np.empty(0, np.int64), 0.0
    if named is not None and len(leaving):
        items, ids, costs = _relocated(found, base, capacity, staying, leaving, named)
        chosen[:, items] = ids
        moved, added = np.sort(items), float(np.sort(costs).sum())
        leaving = np.setdiff1d(leaving, items, assume_unique=True)
    if suffix:
        return Resolved(_numbered(chosen, published), moved, np.empty(0, np.int64), added)
    chosen[:, leaving] = -1
    return Resolved(chosen, moved, leaving, added)


def _prior(prior: Any, n_q: int, suffix: bool) -> np.ndarray:
    n_q += suffix
    if prior is None:
        return np.empty((n_q, 0), np.int32)
    found = _codes.checked("resolve", prior, "prior")
    if len(found) != n_q:
        with_suffix = ", the suffix among them" if suffix else ""
        raise ShapeError(
            f"resolve: prior has {len(found)} rows; expected {n_q}, one per stage{with_suffix}."
        )
    return found


def _named(candidates: Candidates | None, codes: np.ndarray) -> Candidates | None:
    """Return candidates as kernels take them, or raise; ``items`` is an array then."""
    if candidates is None:
        return None
    arguments.kind("resolve", "candidates", candidates, Candidates)
    n_q, n_items = codes.shape
    items = np.arange(n_items) if candidates.items is None else np.asarray(candidates.items)
    there, distances = np.asarray(candidates.codes), np.asarray(candidates.distances)
    if there.ndim != 3 or there.shape[1:] != (n_q, len(items)) or items.ndim != 1:
        raise ShapeError(
            f"resolve: candidates.codes has shape {there.shape} for {len(items)} items; expected "
            f"(k, {n_q}, {len(items)})."
        )
    if distances.shape != (len(there), len(items)):
        raise ShapeError(
            f"resolve: candidates.distances has shape {distances.shape}; expected "
            f"{(len(there), len(items))}."
        )
    if len(items) and (items.dtype.kind not in "iu" or items.min() < 0 or items.max() >= n_items
                       or len(_codes.distinct(items)) < len(items)):  # fmt: skip
        raise ShapeError(
            f"resolve: candidates.items are not distinct numbers of items from 0 to {n_items - 1}."
        )
    flat = _codes.checked("resolve", there.reshape(len(there), -1), "candidates.codes", True)
    present = there[:, 0] >= 0
    if not np.isfinite(distances[present]).all():
        place, item = np.argwhere(present & ~np.isfinite(distances))[0].tolist()
        raise NonFiniteError(
            f"resolve: candidate {place} of item {items[item]} has the distance "
            f"{distances[place, item]}; expected finite numbers."
        )
    return Candidates(flat.reshape(there.shape), distances.astype(np.float64, copy=False), items)


def _split(
    codes: np.ndarray, prior: np.ndarray, capacity: int, named: Candidates | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return which items stay where they are, and which have to move, ascending."""
    n_prior, both = prior.shape[1], np.concatenate([prior, codes], axis=1)
    ordered = _codes.order(both)  # within an ID: published ones first, then by number
    begin = _codes.starts(both, ordered)
    length = np.diff(begin, append=len(ordered))
    over = length > capacity
    stays = np.ones(codes.shape[1], bool)
    items = ordered[np.repeat(over, length)] - n_prior
    group = np.repeat(np.arange(int(over.sum())), length[over])
    if named is not None and len(items):
        weight = np.full(len(items), -np.inf)  # of published ones: before all others
        own = items >= 0
        weight[own] = -_losses(codes, _of(named, items[own], codes.shape[1]), items[own])
        again = np.lexsort((items, weight, items >= 0, group))
        items = items[again]
    first = np.cumsum(length[over]) - length[over]
    rank = np.arange(len(items)) - np.repeat(first, length[over])
    stays[items[(rank >= capacity) & (items >= 0)]] = False
    return np.flatnonzero(stays), np.flatnonzero(~stays)


def _of(named: Candidates, items: np.ndarray, n_items: int) -> Candidates:
    """Return the candidates of those of some items that have any."""
    having = np.asarray(named.items)
    column = np.full(n_items, -1)
    column[having] = np.arange(len(having))
    columns = column[items]
    columns = columns[columns >= 0]
    return Candidates(named.codes[:, :, columns], named.distances[:, columns], having[columns])


def _own(codes: np.ndarray, named: Candidates) -> tuple[np.ndarray, np.ndarray]:
    """Return which candidates (k, n) are the ID that an item has, and its distance (n,).

    An ID that is not among the candidates counts as near as the nearest of them.
    """
    same = np.ones(named.distances.shape, bool)
    mine = codes[:, named.items]
    for stage, row in enumerate(mine):
        same &= named.codes[:, stage] == row
    distance = np.where(same, named.distances, np.inf).min(axis=0, initial=np.inf)
    nearest = np.where(named.codes[:, 0] >= 0, named.distances, np.inf).min(axis=0, initial=np.inf)
    return same, np.where(np.isfinite(distance), distance, nearest)


def _losses(codes: np.ndarray, named: Candidates, items: np.ndarray) -> np.ndarray:
    """Return how much each of some items loses if it moves: infinitely much if it cannot."""
    loss = np.full(codes.shape[1], np.inf)
    same, own = _own(codes, named)
    other = np.where(same | (named.codes[:, 0] < 0), np.inf, named.distances)
    other = other.min(axis=0, initial=np.inf)
    with np.errstate(invalid="ignore"):
        loss[named.items] = np.where(np.isfinite(other), other - own, np.inf)
    return loss[items]


def _relocated(
    codes: np.ndarray,
    prior: np.ndarray,
    capacity: int,
    staying: np.ndarray,
    leaving: np.ndarray,
    named: Candidates,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which items found an ID, the codes (Q, n) of it, and what it adds to the distance."""
    k, some = len(named.codes), _of(named, leaving, codes.shape[1])
    items = np.asarray(some.items)
    same, own = _own(codes, some)
    usable = np.flatnonzero((~same & (some.codes[:, 0] >= 0)).T.ravel())  # by item, then candidate
    costs = (some.distances - own).T.ravel()[usable]
    sequence = np.argsort(costs, kind="stable")
    flat = some.codes.transpose(1, 2, 0).reshape(len(codes), -1)  # (Q, items times k)
    taken, asked, holders = _codes.keys(codes[:, staying], flat[:, usable], prior)
    ids, free = numbers(asked, [taken, holders], capacity)
    places = np.full(len(items), -1)
    dispatch.ids(len(sequence)).take(sequence, usable // k, ids, free, places)
    found = np.flatnonzero(places >= 0)
    return items[found], flat[:, usable[places[found]]], costs[places[found]]


def numbers(
    asked: np.ndarray, holders: Sequence[np.ndarray], capacity: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for each ID that is `asked` for, and the free places of each number.

    IDs are int64, `holders` are arrays of those that items have.
    """
    ordered = np.argsort(asked)
    ascending = asked[ordered]
    new = np.ones(len(asked), bool)
    new[1:] = ascending[1:] != ascending[:-1]
    once = ascending[new]
    ids = np.empty(len(asked), np.int64)
    ids[ordered] = np.cumsum(new) - 1
    held = np.zeros(len(once), np.int64)
    for each in holders if len(asked) else ():
        for start in range(0, len(each), PAIRS):
            part = each[start : start + PAIRS]
            place = np.searchsorted(once, part)
            hit = once[np.minimum(place, len(once) - 1)] == part
            held += np.bincount(place[hit], minlength=len(once))
    return ids, np.maximum(capacity - held, 0)


def _numbered(codes: np.ndarray, published: np.ndarray) -> np.ndarray:
    """Return codes with one more stage: which of the items of its ID an item is."""
    n_prior = published.shape[1]
    both = np.concatenate([published[:-1], codes], axis=1)
    ordered = _codes.order(both)
    begin = _codes.starts(both, ordered)
    length = np.diff(begin, append=len(ordered))
    held = np.full(both.shape[1], -1, np.int64)  # the suffixes there are
    held[:n_prior] = published[-1]
    after = np.maximum.reduceat(held[ordered], begin) + 1 if len(begin) else held[:0]
    new = ordered >= n_prior
    before = np.cumsum(new) - new  # new items before, from the first ID on
    suffixes = np.empty(both.shape[1], np.int64)
    suffixes[ordered] = np.repeat(after, length) + before - np.repeat(before[begin], length)
    return np.concatenate([codes, suffixes[None, n_prior:].astype(np.int32)])
