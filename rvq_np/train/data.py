"""Vectors on disk, in memory or on a device, read a batch at a time as what one stage quantizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import arrays
from ..codebooks import Codebooks, Linear, Stage
from ..codec import core, validation
from ..errors import NonFiniteError
from .state import CodebookState, codebooks_of

ROWS = 1 << 16  # rows read at once: 32 MB of float32 at D = 128
HELD = 1 << 28  # bytes of what a stage quantizes that are kept in memory instead


class Search(NamedTuple):
    """How the stages of a fit search.

    `spherical`: by direction, among codewords of length one. `normalize`: what each stage gets is
    divided by its length first.
    """

    spherical: bool = False
    normalize: bool = False

    @property
    def metric(self) -> str:
        return "cosine" if self.spherical else "euclidean"


class Data:
    """The vectors of a fit.

    Parameters
    ----------
    x : array (N, D)
        Finite: a NumPy array, a memory map, or of a library that `core.stays` where it is; so
        does what is read of it.
    rows : numpy.ndarray (n,), int, or None
        Which of them to read; None: all.
    projections : sequence of (Linear, Linear) or None
        Into and out of the space each stage searches.
    search : Search, optional
    """

    def __init__(
        self,
        x: Any,
        rows: np.ndarray | None,
        projections: Sequence[tuple[Linear, Linear] | None],
        search: Search = Search(),  # noqa: B008
    ):
        self.x, self.rows, self.search = x, rows, search
        self.n_rows = x.shape[0] if rows is None else len(rows)
        self.projections = projections
        self.norm: float | None = None  # of all that the stage quantizes, and how many numbers
        self.numbers = 0
        self.states: list[CodebookState] = []  # of the finished stages
        self.codes: list[Any] = []  # of those stages, one per row
        self.before: Codebooks | None = None  # those stages
        self.into: Codebooks | None = (
            None  # maps what they leave, or `x`; its codewords mean nothing
        )
        self.held: Any = None  # all that the stage quantizes, if that is not much

    def begin(self) -> None:
        """From now on batches are what the next stage quantizes."""
        pair = self.projections[len(self.states)]
        width = self.x.shape[1] if pair is None else len(pair[0].weight)
        self.held, self.into, self.norm = None, None, None
        if pair is not None or not self.states or self.search.spherical:
            into, out = pair or (None, None)
            blank = np.zeros((1, width), np.float32)
            self.into = Codebooks([Stage(blank, into, out, self.search.metric)])
        if 4 * self.n_rows * width <= HELD:
            self.held = joined(list(self.batches()))

    def energy(self) -> float:
        """Return the sum of the squares of all numbers that the stage quantizes."""
        total, self.numbers = 0.0, 0
        for batch in self.batches():
            total += float(core.energies(batch).sum())
            self.numbers += batch.shape[0] * batch.shape[1]
        if not total < math.inf:  # of numbers that are finite, if not as float32
            raise NonFiniteError(
                "fit: x reaches beyond float32 (3.4e38). Nothing was changed. Scale x down."
            )
        self.norm = math.sqrt(total)
        return total

    def check_reach(self, codewords: np.ndarray) -> None:
        """Raise NonFiniteError if what `codewords` leave of a row may be beyond float32.

        No number is larger than the norm of them all, so there is hardly ever one to look at.
        """
        assert self.norm is not None  # `energy` has been asked for
        largest = float(np.abs(codewords).max())
        if self.norm * (1 + 1e-6) + largest < float(np.finfo(np.float32).max):
            return
        codebooks = Codebooks([codewords])
        for batch in self.batches():
            validation.vectors("fit", batch, codebooks)

    def batches(self) -> Iterator[Any]:
        for start in range(0, self.n_rows, ROWS):
            yield self.read(slice(start, min(start + ROWS, self.n_rows)))

    def distinct(self, most: int) -> int:
        """Return how many distinct vectors there are, or `most` if there are as many or more."""
        return min(len(self.seen(most)), most)

    def seen(self, most: int) -> set[bytes]:
        """Return the bytes of distinct vectors, float32: all, or `most` of them or more."""
        seen: set[bytes] = set()
        start, step = 0, min(ROWS, 2 * most)
        while start < self.n_rows and len(seen) < most:
            part = self._taken(slice(start, min(start + step, self.n_rows)))
            rows = arrays.to_numpy(single(part))
            rows = np.ascontiguousarray(rows) + np.float32(0.0)  # -0.0 equals 0.0
            seen.update(np.unique(rows.view(np.dtype((np.void, rows.strides[0]))).ravel()).tolist())
            start, step = start + step, ROWS
        return seen

    def passes(self) -> Callable[[], Iterator[Any]] | list[Any]:
        """Return the batches as `lloyd` takes them."""
        return self.batches if self.held is None else list(self.batches())

    def trials(self, starts: list[np.ndarray]) -> list[Any]:
        """Return `passes` for one iteration of each of some codewords."""
        return [self.passes() for _ in starts]

    def read(self, places: np.ndarray | slice) -> Any:
        """Return what the current stage quantizes at these places (sorted or not)."""
        if self.held is not None:
            return arrays.take(self.held, places)
        left = single(self._taken(places))
        if self.search.normalize:
            left = core.unit(left)
            for stage, codes in enumerate(self.codes):
                assert self.before is not None
                some = arrays.take(codes, places)[None, :]
                left = core.unit(core.residual(left, some, self.before[stage : stage + 1]))
        elif self.before is not None:
            codes = [arrays.take(each, places) for each in self.codes]
            with arrays.there(codes):
                codes = arrays.namespace(*codes).stack(codes)
            left = core.residual(left, codes, self.before)
        return left if self.into is None else core.searched(left, self.into)

    def apply(self, function: Callable[..., Any], places: np.ndarray, *others: Any) -> Any:
        """Return ``function(rows, *others)`` of what is at these places."""
        return function(self.read(places), *others)

    def end(self, state: CodebookState) -> None:
        """Encode all rows by the finished stage; later batches are what it leaves over."""
        codebooks = Codebooks([state.codebook])
        codes = [core.encode(batch, codebooks, 1)[0, :] for batch in self.batches()]
        self.codes.append(joined(codes))
        self.states.append(state)
        self.before = codebooks_of(self.states, self.projections[: len(self.states)])

    def _taken(self, places: np.ndarray | slice) -> Any:
        return arrays.take(self.x, places if self.rows is None else self.rows[places])


def check_finite(x: Any, call: str = "fit") -> None:
    """Raise NonFiniteError if a number is NaN, infinite or beyond float32, naming the first.

    All of `x` is read, a block of rows at a time: the answer must not depend on which rows are
    drawn later.
    """
    found = first_bad(x)
    if found is not None:
        raise bad_number(*found, call)


def first_bad(x: Any) -> tuple[tuple[int, ...], float] | None:
    """Return place and value of the first number that is NaN, infinite or beyond float32."""
    limit = float(np.finfo(np.float32).max)
    wide = arrays.float_type(x) == np.float64
    for start in range(0, x.shape[0], ROWS):
        batch = x[start : min(start + ROWS, x.shape[0]), ...]
        xp = arrays.namespace(batch)
        fine = xp.abs(batch) <= limit if wide else xp.isfinite(batch)
        if not bool(xp.all(fine)):
            first = tuple(int(i) for i in np.argwhere(~arrays.to_numpy(fine))[0])
            return (start + first[0], *first[1:]), float(batch[first])
    return None


def bad_number(place: tuple[int, ...], value: float, call: str = "fit") -> NonFiniteError:
    """Return the error for what `first_bad` found."""
    if math.isfinite(value):
        return NonFiniteError(
            f"{call}: x holds {value:g} at {place}, beyond float32 (3.4e38). Nothing was changed. "
            "Scale x down."
        )
    return NonFiniteError(
        f"{call}: x holds {value} at {place}; expected finite numbers only. Nothing was changed. "
        "Drop such vectors."
    )


def single(rows: Any) -> Any:
    if isinstance(rows, np.ndarray):
        return np.asarray(rows, dtype=np.float32, order="C")
    xp = arrays.namespace(rows)
    return xp.astype(rows, xp.float32)


def joined(parts: list[Any]) -> Any:
    with arrays.there(parts):
        return arrays.namespace(*parts).concat(parts)
