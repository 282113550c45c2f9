"""Vectors in chunks on the workers of a cluster: `Data` for `fit`, by tasks that return statistics.

The rows to train on are cut into blocks of `data.ROWS`, whatever the chunks; a task makes a block
of pieces of chunks.  Tallies of blocks are exact until they all are added, and then rounded once,
as where all rows are in memory: chunks, workers and their deaths never show.  The process
that calls `fit` holds row numbers, codewords and tallies, never a chunk.

A block remembers on its worker what makes the next iteration faster.  It is a cache: a block that
is computed again, on another worker, gives the same codes without it.
"""

from __future__ import annotations

import copy
import itertools
import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import arrays
from ..codebooks import Codebooks, Linear
from ..codec import core, validation
from ..errors import BackendError, NonFiniteError, ShapeError
from ..kernels.totals import NOTHING, ExactSum
from .data import HELD, ROWS, Data, Search, bad_number, first_bad, joined, single
from .state import CodebookState
from .tallies import FOLDED, Block, Tally, Together, tallies
from .tasks import at_home, computed, elsewhere, homes, kept_on_workers, one_key, sharing


class Chunks:
    """A Dask array (N, D) as `fit` sees it: lengths that are known, and one task per chunk.

    Parameters
    ----------
    x : dask.array.Array (N, D)
        Lengths of chunks that are not known are computed.
    """

    def __init__(self, call: str, x: Any):
        if x.ndim != 2:
            raise ShapeError(
                f"{call}: x has shape {tuple(x.shape)}; expected (N, D) with at least one vector."
            )
        if x.numblocks[1] != 1:
            raise ShapeError(
                f"{call}: x has chunks {x.chunks[1]} along axis 1, which holds the components of a "
                "vector; expected one chunk. Call x.rechunk({1: -1}) first."
            )
        self.call, self.dtype, self.ndim, self.meta = call, x.dtype, 2, x._meta
        self.parts = list(x.to_delayed().ravel())
        sizes = x.chunks[0]
        if any(math.isnan(each) for each in sizes):
            import dask

            sizes = computed(call, [dask.delayed(_length)(part) for part in self.parts])
        self.starts = np.cumsum([0, *sizes]).tolist()
        self.shape = (self.starts[-1], x.shape[1])

    def pieces(self, rows: np.ndarray | range) -> list[Any]:
        """Return tasks that give these rows, which ascend, in parts."""
        import dask

        found, piece = [], dask.delayed(_piece)
        first = np.searchsorted(self.starts, rows[0], side="right") - 1
        for chunk in range(int(first), len(self.parts)):
            start, stop = self.starts[chunk : chunk + 2]
            if isinstance(rows, range):
                low, high = (min(max(each - rows.start, 0), len(rows)) for each in (start, stop))
            else:
                low, high = np.searchsorted(rows, (start, stop)).tolist()
            if low < high:
                some = rows[low:high]
                local: Any = slice(some[0] - start, some[-1] + 1 - start)
                if not isinstance(rows, range):
                    local = (np.asarray(some) - start).astype(np.int64)
                found.append(piece(self.parts[chunk], local))
            if high >= len(rows):
                break
        return found

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return these rows (n, D), which ascend, as they are."""
        import dask

        if not len(rows):
            return np.empty((0, self.shape[1]), self.dtype)
        return np.asarray(computed(self.call, [dask.delayed(_here)(self.pieces(rows))])[0])

    def checks(self) -> list[Any]:
        """Return a task per chunk that gives the first number that is not finite, and its place."""
        import dask

        return [dask.delayed(_bad)(part) for part in self.parts]

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the rows of one chunk after the other; a chunk without rows is left out."""
        for start, part in zip(self.starts, self.parts, strict=False):
            rows = arrays.to_numpy(computed(self.call, [part])[0])
            if (bad := first_bad(rows)) is not None:
                place, value = bad
                raise bad_number((start + place[0], *place[1:]), value, self.call)
            if len(rows):
                yield rows

    def refuse(self, bad: Sequence[Any]) -> None:
        """Raise NonFiniteError for the first number that `checks` found."""
        for start, found in zip(self.starts, bad, strict=False):
            if found is not None:
                place, value = found
                raise bad_number((start + place[0], *place[1:]), value, self.call)


class ChunkedData:
    """What `Data` is, for `Chunks`.

    Parameters
    ----------
    x : Chunks
    rows : numpy.ndarray (n,), int, or None
        Which of them to read, ascending; None: all.
    projections : sequence of (Linear, Linear) or None
        Into and out of the space each stage searches.
    keep : bool or None
        Whether workers keep what a stage quantizes, or make it again, from `x` on, for each
        iteration.  None: keep it if it is `data.HELD` bytes or less.
    search : Search, optional
    """

    def __init__(
        self,
        x: Chunks,
        rows: np.ndarray | None,
        projections: Sequence[tuple[Linear, Linear] | None],
        keep: bool | None,
        search: Search = Search(),  # noqa: B008
    ):
        self.x, self.rows, self.projections = x, rows, list(projections)
        self.search = search
        self.n_rows = x.shape[0] if rows is None else len(rows)
        self.keep = 4 * self.n_rows * x.shape[1] <= HELD if keep is None else keep
        self.states: list[CodebookState] = []
        self.norm: float | None = None
        self.numbers = 0
        self.together: Together | None = None
        self.blocks: list[Any] = []  # tasks
        self.advanced = 0  # stages that the blocks have behind them

    def begin(self) -> None:
        """From now on blocks are what the next stage quantizes."""
        import dask

        self.norm, self.together, fresh = None, None, not self.blocks
        if fresh:
            self.blocks = self._fresh()
        if not self.keep:
            if fresh:
                self.x.refuse(computed("fit", self.x.checks()))
            if self.states:
                self.blocks = self._fresh()
            return
        for state in self.states[self.advanced :]:
            shared = one_key(state)
            self.blocks = self.each(dask.delayed(_advanced), shared)
        self.advanced = len(self.states)
        checks = self.x.checks() if fresh else []
        kept = kept_on_workers("fit", [*self.blocks, *checks])
        self.blocks = kept[: len(self.blocks)]
        if fresh:
            self.x.refuse(computed("fit", kept[len(self.blocks) :]))

    def end(self, state: CodebookState) -> None:
        """Take over the finished stage; later blocks are what it leaves over."""
        self.states.append(state)

    def energy(self) -> float:
        """Return the sum of the squares of all numbers that the stage quantizes."""
        import dask

        total, self.numbers, together = 0.0, 0, (NOTHING, 0)
        for energy, numbers, (extent, rows) in computed("fit", self.each(dask.delayed(_energy))):
            total += energy
            self.numbers += numbers
            together = together[0] | extent, together[1] + rows
        self.together = together
        if not total < math.inf:
            raise NonFiniteError(
                "fit: x reaches beyond float32 (3.4e38). Nothing was changed. Scale x down."
            )
        self.norm = math.sqrt(total)
        return total

    def check_reach(self, codewords: np.ndarray) -> None:
        """Raise NonFiniteError if what `codewords` leave of a row may be beyond float32."""
        import dask

        assert self.norm is not None  # `energy` has been asked for
        largest = float(np.abs(codewords).max())
        if self.norm * (1 + 1e-6) + largest < float(np.finfo(np.float32).max):
            return
        shared = one_key(codewords)
        computed("fit", self.each(dask.delayed(_within), shared))

    def distinct(self, most: int) -> int:
        """Return how many distinct vectors there are, or `most` if there are as many or more."""
        import dask

        if not self.blocks:
            self.begin()  # bad numbers come first
        tasks = self.each(dask.delayed(_seen), most)
        seen: set[bytes] = set()
        for some in (tasks[:1], *(tasks[n : n + FOLDED] for n in range(1, len(tasks), FOLDED))):
            seen.update(*computed("fit", some))
            if len(seen) >= most:
                return most
        return len(seen)

    def passes(self) -> list[Callable[[np.ndarray], tuple[np.ndarray, ExactSum]]]:
        """Return a function of codewords that gives the counts and exact sums of all rows."""
        following = uuid.uuid4().hex
        return [lambda codewords: self._tallies([codewords], following)[0]]

    def trials(self, starts: list[np.ndarray]) -> list[list[Callable[..., Any]]]:
        """Return, for each of some codewords, passes that give what they give in one iteration.

        The tasks of all of them run at once.
        """
        return [[lambda _, found=found: found] for found in self._tallies(starts, None)]

    def _tallies(self, trials: list[np.ndarray], following: str | None) -> list[Tally]:
        """Return the counts and exact sums of all rows by each of some codewords."""
        assert self.together is not None  # `energy` has been asked for
        slots = self._homes()
        groups = [(slots[n % len(slots)], [block]) for n, block in enumerate(self.blocks)]
        if slots != [None]:
            groups = [
                (slot, self.blocks[n :: len(slots)])
                for n, slot in enumerate(slots[: len(self.blocks)])
            ]
        return tallies(groups, trials, self.together, following)

    def read(self, places: np.ndarray) -> np.ndarray:
        """Return what the current stage quantizes at these places (sorted or not)."""
        return np.asarray(computed("fit", [self._rows_at(places)])[0])

    def apply(self, function: Callable[..., Any], places: np.ndarray, *others: Any) -> Any:
        """Return ``function(rows, *others)``, by a task, of what is at these places.

        The last of `others` is a generator, which goes on from where the task left it.
        """
        return elsewhere("fit", function, self._rows_at(places), *others)

    def each(self, task: Callable[..., Any], *others: Any) -> list[Any]:
        """Return a task for each block, on the worker where that block is."""
        made, slots = [], self._homes()
        for number, block in enumerate(self.blocks):
            with at_home(slots[number % len(slots)]):
                made.append(task(block, *others))
        return made

    def _homes(self) -> list[Any]:
        """Return where blocks are kept; what is made again is made where its chunks are."""
        return homes() if self.keep else [None]

    def _fresh(self) -> list[Any]:
        """Return tasks that make all blocks, of what is on disk or wherever `x` comes from."""
        made, slots = [], self._homes()
        for number, start in enumerate(range(0, self.n_rows, ROWS)):
            places = range(start, min(start + ROWS, self.n_rows))
            rows = places if self.rows is None else self.rows[places.start : places.stop]
            made.append(self._made(rows, slots[number % len(slots)]))
        return made

    def _made(self, rows: np.ndarray | range, home: Any = None) -> Any:
        """Return a task that makes these rows a block; pieces of chunks are cut where those are."""
        import dask

        states = one_key(self.states) if self.states else []
        pieces, how = self.x.pieces(rows), one_key((self.projections, self.search))
        with at_home(home):
            return dask.delayed(_block)(pieces, how, states)

    def _rows_at(self, places: np.ndarray) -> Any:
        """Return a task that gives what is at these places."""
        import dask

        unique, back = np.unique(places, return_inverse=True)
        some = dask.delayed(_some)
        if not self.keep:
            made = self._made(unique if self.rows is None else self.rows[unique])
            return dask.delayed(_put)([some(made, slice(None))], back)
        ends = np.searchsorted(unique, np.arange(0, self.n_rows + ROWS, ROWS))
        parts = [
            some(self.blocks[number], unique[low:high] - number * ROWS)
            for number, (low, high) in enumerate(itertools.pairwise(ends.tolist()))
            if low < high
        ]
        return dask.delayed(_put)(parts, back)


# What tasks do.


def _length(chunk: Any) -> int:
    return int(chunk.shape[0])


def _piece(chunk: Any, rows: Any) -> Any:
    return arrays.take(chunk, rows)


def _here(pieces: list[Any]) -> np.ndarray:
    return np.concatenate([arrays.to_numpy(each) for each in pieces])


def _bad(chunk: Any) -> tuple[tuple[int, ...], float] | None:
    return first_bad(chunk)


def _block(pieces: list[Any], how: Any, states: list[CodebookState]) -> Block:
    _one_library(pieces)
    with np.errstate(over="ignore"):  # the checks of the chunks find such numbers
        rows = joined([single(each) for each in pieces])
    data = Data(rows, None, *how)
    with sharing():
        for state in states:
            data.begin()
            data.end(state)
        data.begin()
    return Block(data)


def _one_library(pieces: list[Any]) -> None:
    kinds = {f"{type(each).__module__}.{type(each).__qualname__}" for each in pieces}
    if len({kind.partition(".")[0] for kind in kinds}) > 1:
        raise BackendError(
            f"fit: chunks of x hold arrays of kinds {', '.join(sorted(kinds))}; expected one "
            "library. Call x.map_blocks(numpy.asarray) first."
        )


def _advanced(block: Block, state: CodebookState) -> Block:
    data = copy.copy(block.data)
    data.states, data.codes = list(data.states), list(data.codes)
    with sharing():
        data.end(state)
        data.begin()
    return Block(data)


def _energy(block: Block) -> tuple[float, int, Together]:
    rows = block.data.read(slice(None))
    return float(core.energies(rows).sum()), rows.shape[0] * rows.shape[1], block.extent()


def _seen(block: Block, most: int) -> set[bytes]:
    return block.data.seen(most)


def _within(block: Block, codewords: np.ndarray) -> None:
    validation.vectors("fit", block.data.read(slice(None)), Codebooks([codewords]))


def _some(block: Block, places: np.ndarray) -> np.ndarray:
    return arrays.to_numpy(block.data.read(places))


def _put(parts: list[np.ndarray], order: np.ndarray) -> np.ndarray:
    return np.concatenate(parts)[order]
