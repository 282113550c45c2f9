"""What `fit` does of each stage: first codewords, k-means until nothing is gained, what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import arrays
from ..codebooks import Codebooks, Linear
from ..codec import core
from .chunked import ChunkedData, Chunks
from .data import Data, Search
from .kmeans import Clusters, lloyd, sample_rows, state_of
from .resume import Checkpoint
from .start import counted, reachable, state_held
from .state import CodebookState, usage

NOTHING = 1e-12  # share of the energy that is rounding: codewords are float32
STUCK = 5  # iterations running that lower the error by nothing at all
POOL = 16  # rows per codeword among which spread first codewords are chosen


class FitProgress(NamedTuple):
    """What the callback of `fit` gets after each iteration of k-means.

    ``error`` is the mean squared distance, per number, of the residuals that the stage searches to
    the mean of all that chose the same codeword. ``utilisation`` and ``perplexity`` are those of
    this stage's codebook, see `usage`.
    """

    stage: int
    n_q: int
    iteration: int
    iterations: int
    error: float
    utilisation: float
    perplexity: float


class Task(NamedTuple):
    """The checked arguments of a fit that each stage needs."""

    x: Any
    sizes: list[int]
    iterations: int
    projections: Sequence[tuple[Linear, Linear] | None]
    epsilon: float
    tolerance: float
    callback: Callable[[FitProgress], None] | None
    persist: bool | None
    search: Search
    first: Codebooks | None
    frozen: frozenset[int]
    hold: float

    def data(self, rows: np.ndarray | None) -> Any:
        """Return these rows, None: all, as stages read them."""
        if isinstance(self.x, Chunks):
            return ChunkedData(self.x, rows, self.projections, self.persist, self.search)
        return Data(self.x, rows, self.projections, self.search)


def by_stages(
    task: Task, data: Any, rng: np.random.Generator, kept: Checkpoint
) -> list[CodebookState]:
    """Do k-means for each stage that is not finished, and keep it."""
    for stage in range(len(kept.states), len(task.sizes)):
        data.begin()
        watch = _Watch(stage, len(task.sizes), task.iterations, data, task.tolerance, task.callback)
        if stage in task.frozen:
            assert task.first is not None
            kept.keep(counted(data, task.first[stage].codebook, task.epsilon))
            data.end(kept.states[-1])
            continue
        found = lloyd(
            data.passes(),
            _first_codewords(data, task.sizes[stage], rng, task.search.spherical)
            if task.first is None
            else reachable(data, task.first[stage].codebook),
            task.iterations,
            refill=lambda count: data.read(rng.integers(0, data.n_rows, size=count)),
            watch=watch,
            hold=task.hold,
            unit=task.search.spherical,
        )
        moved = task.hold or task.search.spherical  # codewords are not the means
        kept.keep(state_held(found, task.epsilon) if moved else state_of(found, task.epsilon))
        data.end(kept.states[-1])
    return kept.states


def _first_codewords(
    data: Data, size: int, rng: np.random.Generator, unit: bool = False
) -> np.ndarray:
    """Choose first codewords: random rows, the same drawn towards their mean, or rows far apart.

    Rows of one length in many dimensions are further from each other than from a short codeword, so
    one codeword near the mean takes nearly all of them and Lloyd's algorithm hardly recovers (D =
    128 Gaussian residuals: perplexity 5 of 1024). At a quarter of the length directions decide
    instead (1017 of 1024). On heavy-tailed data the plain rows are better, on clusters those far
    apart. One iteration shows it.
    """
    drawn = arrays.to_numpy(data.read(sample_rows(data.n_rows, size, rng)))
    data.check_reach(drawn)
    mean = drawn.mean(axis=0, dtype=np.float64).astype(np.float32)
    starts = [drawn, mean + 0.25 * (drawn - mean), _spread_codewords(data, size, rng)]
    starts = [core.unit(each) for each in starts] if unit else starts
    for codewords in starts:
        data.check_reach(codewords)
    explained = []
    for codewords, passes in zip(starts, data.trials(starts), strict=True):
        found = lloyd(passes, codewords, 1)
        used = found.counts > 0
        explained.append((np.square(found.sums[used]).sum(axis=1) / found.counts[used]).sum())
    return starts[int(np.argmax(explained))]


def _spread_codewords(data: Data, size: int, rng: np.random.Generator) -> np.ndarray:
    """Choose codewords among a sample of rows, each likelier the further from those before it.

    As k-means++ (Arthur and Vassilvitskii, SODA 2007), but an eighth of the codewords at a time, as
    in k-means|| (Bahmani et al., VLDB 2012): eight searches of the sample instead of one a
    codeword.
    """
    places = sample_rows(data.n_rows, min(data.n_rows, POOL * size), rng)
    return np.asarray(data.apply(_spread_among, places, size, rng))


def _spread_among(pool: Any, size: int, rng: np.random.Generator) -> np.ndarray:
    step = -(-size // 8)
    codewords = arrays.to_numpy(arrays.take(pool, slice(step)))
    while len(codewords) < size:
        codebooks = Codebooks([codewords])
        rows, chosen = next(core.walk(pool, core.encode(pool, codebooks, 1), codebooks))
        far = arrays.to_numpy(core.energies(rows - chosen))
        count = min(step, size - len(codewords))
        if np.count_nonzero(far) < count:  # fewer distinct rows than codewords
            more = rng.integers(0, len(far), size=count)
        else:
            more = rng.choice(len(far), size=count, replace=False, p=far / far.sum())
        codewords = np.concatenate([codewords, arrays.to_numpy(arrays.take(pool, more))])
    return codewords


class _Watch:
    """Measures each iteration, tells the callback, and says when a stage is finished."""

    def __init__(
        self,
        stage: int,
        n_q: int,
        iterations: int,
        data: Data,
        tolerance: float,
        callback: Callable[[FitProgress], None] | None,
    ):
        self.stage, self.n_q, self.iterations = stage, n_q, iterations
        self.tolerance, self.callback = tolerance, callback
        self.previous, self.stuck = np.inf, 0
        self.energy = data.energy()
        self.numbers = data.numbers

    def __call__(self, iteration: int, found: Clusters) -> bool:
        # Sum over rows of |x - mean|^2 = sum |x|^2 - sum over codewords of count |mean|^2.
        counts, sums = arrays.to_numpy(found.counts), arrays.to_numpy(found.sums)
        used = counts > 0
        explained = np.square(sums[used]).sum(axis=1) / counts[used]
        error = max(0.0, self.energy - float(explained.sum())) / self.numbers
        settled = iteration > 0 and self.previous - error <= self.tolerance * self.previous
        # Unused codewords get other vectors, which may help, but not where nothing is left.
        self.stuck = self.stuck + 1 if error >= self.previous else 0
        nothing = error * self.numbers <= NOTHING * self.energy or self.stuck == STUCK
        finished = (settled and bool(used.all())) or nothing
        self.previous = error
        if self.callback is not None:
            utilisation, perplexity = usage(counts)
            self.callback(
                FitProgress(
                    self.stage,
                    self.n_q,
                    self.iterations if finished else iteration + 1,
                    self.iterations,
                    error,
                    utilisation,
                    perplexity,
                )
            )
        return finished
