"""Several processes that train one quantizer: what they add up, and how they agree on draws.

Every process calls the hook the same number of times, whatever its data: once for the seed and
the number of rows, twice for the statistics of all stages, once for each stage that replaces
codewords.  What is added up is never rounded, so the codebooks are those of one process with all
rows, bit for bit.  What is decided by chance is drawn from the seed of the first process, among the
rows of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import arguments
from ..errors import ParameterError
from ..kernels.totals import ExactSum, Extent


@dataclass(frozen=True)
class AllReduce:
    """A function that adds up arrays over the processes of distributed training, and the rank.

    Parameters
    ----------
    function : callable
        Takes a numpy.ndarray (n,), float64, and returns its sum over all processes, with the same
        bits in each. It may overwrite its argument.
    rank : int
        The rank of this process, from 0.
    size : int
        The number of processes.

    Raises
    ------
    ParameterError
        If `rank` is not in ``[0, size)``.

    Examples
    --------
    With mpi4py ``AllReduce(comm.allreduce, comm.rank, comm.size)``; alone:

    >>> import numpy as np
    >>> AllReduce(lambda buffer: buffer, rank=0, size=1)(np.ones(2))
    array([1., 1.])
    """

    function: Callable[[np.ndarray], Any]
    rank: int
    size: int

    def __post_init__(self) -> None:
        rank, size = map(arguments.whole_of, (self.rank, self.size))
        fits = rank is not None and size is not None and 0 <= rank < size
        if not (callable(self.function) and fits):
            raise ParameterError(
                f"AllReduce: got function {self.function!r}, rank {self.rank!r} of {self.size!r}; "
                "expected a callable and a rank from 0 to size - 1."
            )
        object.__setattr__(self, "rank", rank)
        object.__setattr__(self, "size", size)

    def __call__(self, buffer: np.ndarray) -> np.ndarray:
        summed = np.asarray(self.function(np.ascontiguousarray(buffer, dtype=np.float64)))
        if summed.shape != buffer.shape:
            raise ParameterError(
                f"all_reduce: got an array {buffer.shape} and returned {summed.shape}; expected "
                "the sum over all processes, of the same shape."
            )
        return summed


ALONE = AllReduce(lambda buffer: buffer, 0, 1)


@dataclass(frozen=True)
class Ranks:
    """The rows of one batch that all processes hold together.

    Attributes
    ----------
    all_reduce : AllReduce
    counts : numpy.ndarray (size,), int
        Rows of each process.
    seed : tuple of int
        Of the first process.
    """

    all_reduce: AllReduce
    counts: np.ndarray
    seed: tuple[int, ...]

    @classmethod
    def meet(cls, n_rows: int, seed: tuple[int, ...], all_reduce: AllReduce) -> Ranks:
        """Tell the others how many rows are here, and take over the seed of the first process.

        `seed` are two numbers below 2**32.
        """
        mine = np.zeros(all_reduce.size + len(seed))
        mine[all_reduce.rank] = n_rows
        if all_reduce.rank == 0:
            mine[all_reduce.size :] = seed
        everyone = all_reduce(mine)
        return cls(
            all_reduce,
            everyone[: all_reduce.size].astype(np.int64),
            tuple(int(part) for part in everyone[all_reduce.size :]),
        )

    @property
    def total(self) -> int:
        """Rows of all processes."""
        return int(self.counts.sum())

    def generator(self, purpose: int) -> np.random.Generator:
        """Return a generator that draws the same everywhere, one for each purpose in a step."""
        return np.random.default_rng([*self.seed, purpose])

    def rows(
        self, chosen: np.ndarray, width: int, take: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Return the chosen rows (n, width) of all, whoever holds them, float64.

        `chosen` are numbers below `total`; ``take(rows)`` gives rows of this process.
        """
        first = int(self.counts[: self.all_reduce.rank].sum())
        here = (chosen >= first) & (chosen < first + self.counts[self.all_reduce.rank])
        found = np.zeros((len(chosen), width))
        if here.any():
            found[here] = take(chosen[here] - first)
        return self.all_reduce(found.ravel()).reshape(found.shape)

    def add_up(
        self, counts: Sequence[np.ndarray], sums: Sequence[ExactSum]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the counts and sums of all stages over all processes, by two calls of the hook.

        By the first all processes agree on the grids of the sums; numbers on the same grids add up
        without rounding, so the second gives the bits that one process with all rows has.
        """
        extents = np.zeros((self.all_reduce.size, len(sums), 2))
        extents[self.all_reduce.rank] = [each.extent for each in sums]
        extents = self.all_reduce(extents.ravel()).reshape(extents.shape)
        tops, bottoms = extents[..., 0].max(axis=0), extents[..., 1].min(axis=0)
        exact = [
            each.onto(Extent(int(top), int(bottom)), self.total)
            for each, top, bottom in zip(sums, tops, bottoms, strict=True)
        ]
        arrays = [*counts, *(each.pieces for each in exact)]
        packed = self.all_reduce(np.concatenate([np.ravel(each) for each in arrays]))
        ends = np.cumsum([each.size for each in arrays])
        parts = [
            part.reshape(each.shape)
            for part, each in zip(np.split(packed, ends[:-1]), arrays, strict=True)
        ]
        found = [
            ExactSum(part, each.extent, each.rows).rounded()
            for part, each in zip(parts[len(counts) :], exact, strict=True)
        ]
        return parts[: len(counts)], found
