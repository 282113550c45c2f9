"""The nearest free IDs of items whose neighbourhood is crowded, and who gets which.

A distance to a code sequence is a sum of products of the item with codewords, and of codewords
with each other: ``|x - sum c|^2 = |x|^2 + sum (|c_q|^2 - 2 x c_q) + sum 2 c_q c_r``.  So an item is
multiplied with all codewords once, and after that a hypothesis of a beam search costs one addition
a codeword and stage, not a product of vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..codebooks import Codebooks
from ..codec import core
from ..kernels import dispatch, tiles
from . import _codes
from ._products import Products
from .resolve import numbers

WIDTHS = ((16, 16), (32, 64), (64, 256), (256, 1024))  # hypotheses, IDs an item, turn after turn
PAIRS = 1 << 22  # IDs of items that are chosen from at once
ROWS = 1024  # items that a thread takes at once
NUMBERS = 1 << 20  # products that a thread holds at once
TABLE = 1 << 24  # numbers of products of codewords that may be kept


Rows = Callable[[np.ndarray], np.ndarray]  # the vectors (n, D) of the items of these numbers


class Full(NamedTuple):
    """The IDs that have no free place, as a trie; nodes by depth, then by ID."""

    codes: np.ndarray  # (V,) int32
    first: np.ndarray  # (V' + 1,) int64: children of a node above the last depth
    shut: np.ndarray  # (V,) bool: whether all IDs that begin so are full
    roots: int

    @classmethod
    def of(cls, held: np.ndarray, sizes: tuple[int, ...], capacity: int) -> Full:
        """Return the full ones of the IDs (Q, n) that items have, each once an item."""
        ordered = _codes.order(held)
        start = _codes.starts(held, ordered)
        start = start[np.diff(start, append=len(ordered)) >= capacity]
        ids = held[:, ordered[start]]
        n_ids = ids.shape[1]
        places = [np.flatnonzero(new) for new in _codes.beginnings(ids, np.arange(n_ids))]
        codes = [row[place] for row, place in zip(ids, places, strict=True)]
        shut = [np.ones(n_ids, bool)]
        first: list[np.ndarray] = []
        for size, upper, lower in zip(sizes[:0:-1], places[-2::-1], places[:0:-1], strict=True):
            begin = np.searchsorted(lower, upper)
            closed = np.add.reduceat(shut[0], begin, dtype=np.int64) if len(begin) else begin
            shut.insert(0, closed == size)
            first.insert(0, begin)
        before = np.cumsum([len(each) for each in codes])
        moved = [each + nodes for each, nodes in zip(first, before[:-1], strict=True)]
        return cls(
            np.concatenate(codes).astype(np.int32, copy=False),
            np.concatenate([*moved, before[-1:]]).astype(np.int64),
            np.concatenate(shut),
            len(codes[0]),
        )


class Seeker:
    """Finds the free IDs of codebooks that are nearest to items."""

    def __init__(self, books: Codebooks, like: np.ndarray):
        self.sizes = books.sizes
        codewords = np.concatenate([stage.table for stage in core.tables(like, books)])
        self.products = Products(codewords, books.n_q)
        self.begin = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)
        n_q = len(self.sizes)
        self.place = np.zeros((n_q, n_q), np.int64)
        stages, kept, end = np.split(self.products.whole, self.begin[1:-1]), [], 0
        both = list(itertools.combinations(range(n_q), 2))
        self.pairs = np.zeros(1)  # none are asked for, with one stage
        if sum(self.sizes[q] * self.sizes[r] for q, r in both) > TABLE:
            self.pairs = np.empty(0)
        elif both:
            for q, r in both:
                self.place[q, r] = end
                kept.append((2.0 * (stages[q] @ stages[r].T)).ravel())
                end += len(kept[-1])
            self.pairs = np.concatenate(kept)

    def nearest(
        self, rows: Rows, items: np.ndarray, own: np.ndarray, full: Full, few: int, most: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what the `most` nearest free IDs of items add (n, most), and their codes.

        `own` (Q, n): the codes of the items. Codes are (n, most, Q); infinity where there are
        fewer.
        """
        n_q, products = len(self.sizes), self.products
        costs, paths = np.empty((len(items), most)), np.zeros((len(items), most, n_q), np.int32)
        seek = dispatch.ids(len(items) * few).seek

        def some(start: int, stop: int) -> None:
            widest, longest = max(few, most), max(self.sizes)
            vectors, codes = rows(items[start:stop]), own[:, start:stop].T
            each, place = _distinct(vectors, codes)
            cost, path = costs[start:stop], paths[start:stop]
            repeated = len(each) < stop - start
            if repeated:  # one search for equal items, copied to each of them
                vectors, codes = vectors[each], codes[each]
                cost, path = np.empty((len(each), most)), np.zeros((len(each), most, n_q), np.int32)
            seek(
                products.of(vectors), products.squares, self.begin, self.pairs,
                self.place, products.turned, np.ascontiguousarray(codes.T), *full, few,
                cost, path, np.empty(longest), np.empty(longest),
                np.empty(widest), np.empty(widest, np.int64), np.empty((widest, n_q), np.int32),
                np.empty(widest), np.empty(widest, np.int64), np.empty((widest, n_q), np.int32),
            )  # fmt: skip
            if repeated:
                costs[start:stop], paths[start:stop] = cost[place], path[place]

        step = max(1, min(ROWS, NUMBERS // int(self.begin[-1])))
        tiles.over_rows(some, len(items), step)
        return costs, paths


def _distinct(vectors: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the items (m,) that differ from all before them, and for each item which it equals."""
    both = (np.ascontiguousarray(part).view(np.uint8) for part in (vectors, codes))
    rows = np.concatenate(list(both), axis=1)
    _, first, place = np.unique(
        rows.view(f"V{rows.shape[1]}").ravel(), return_index=True, return_inverse=True
    )
    return first, place


def place(
    rows: Rows,
    books: Codebooks,
    codes: np.ndarray,
    found: np.ndarray,
    waiting: np.ndarray,
    capacity: int,
    published: np.ndarray,
) -> np.ndarray:
    """Give items that wait, ascending, a free ID each in `found` (Q, N); return who got none.

    `codes` (Q, N): what `rvq_np.encode` returned. In turns: all items that wait look for the
    nearest free IDs, and the cheapest moves are made first, ties by the item; who finds all of its
    IDs taken meanwhile looks again, for more. So at least one item a turn finds a place, and all do
    while there are free IDs.
    """
    if not len(waiting):
        return waiting
    seeker = Seeker(books, rows(waiting[:1]))
    known = (published < np.array(books.sizes)[:, None]).all(axis=0)
    published = published[:, known]  # others take no place of these codebooks
    for turn in itertools.count():
        few, most = WIDTHS[min(turn, len(WIDTHS) - 1)]
        # In the last turns items that are all alike have an ID for each of a part.
        last = turn >= len(WIDTHS) - 1
        part, left = most if last else max(1, PAIRS // most), []
        for start in range(0, len(waiting), part):
            some = waiting[start : start + part]
            held = np.concatenate([published, found[:, found[0] >= 0]], axis=1)
            full = Full.of(held, books.sizes, capacity)
            near = seeker.nearest(rows, some, np.ascontiguousarray(codes[:, some]), full, few, most)
            who, ids = _given(*near, held, capacity)
            found[:, some[who]] = ids
            left.append(np.delete(some, who))
        before, waiting = len(waiting), np.concatenate([waiting[:0], *left])
        if len(waiting) in (0, before):
            return waiting
    raise AssertionError("unreachable")


def _given(
    costs: np.ndarray, paths: np.ndarray, held: np.ndarray, capacity: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the items (n,) get a free ID, cheapest first, and the codes (Q, n) of it."""
    n_items, most = costs.shape
    usable = np.flatnonzero(np.isfinite(costs.ravel()))
    sequence = np.argsort(costs.ravel()[usable], kind="stable")
    flat = np.ascontiguousarray(paths.reshape(-1, paths.shape[2])[usable].T)
    if capacity == 1:  # what is offered is free
        held = held[:, :0]
    asked, holders = _codes.keys(flat, held)
    ids, free = numbers(asked, [holders], capacity)
    places = np.full(n_items, -1)
    dispatch.ids(len(sequence)).take(sequence, usable // most, ids, free, places)
    who = np.flatnonzero(places >= 0)
    return who, flat[:, places[who]]
