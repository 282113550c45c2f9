"""Offline training: k-means stage by stage, on more vectors than memory holds if need be."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import arguments, arrays, backends
from ..codebooks import Codebooks, Linear
from ..codec import core, validation
from ..errors import FewVectorsWarning, ShapeError
from .data import Data, check_finite
from .kmeans import Clusters, lloyd, sample_rows, state_of
from .resume import Checkpoint
from .state import CodebookState, check_projections, usage

POOL = 16  # rows per codeword among which spread first codewords are chosen


class FitProgress(NamedTuple):
    """What `fit` tells its callback after each iteration of k-means.

    ``error`` is the mean squared distance, per number, of what the stage searches to the mean of
    all that chose the same codeword; ``utilisation`` and ``perplexity`` are of this stage's
    codewords, see `usage`.
    """

    stage: int
    n_q: int
    iteration: int
    iterations: int
    error: float
    utilisation: float
    perplexity: float


def fit(
    x: Any,
    n_q: int,
    size: int | Sequence[int],
    iterations: int,
    rng: np.random.Generator,
    *,
    projections: Sequence[tuple[Linear, Linear] | None] | None = None,
    epsilon: float = 1e-5,
    rows_per_codeword: int | None = 256,
    tolerance: float = 1e-4,
    callback: Callable[[FitProgress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> tuple[CodebookState, ...]:
    """Train all stages by k-means, each on what the earlier ones leave over.

    Parameters
    ----------
    x : array or numpy.memmap (N, D), floating, N >= 1
        Read in batches, never copied whole. On a GPU that CuPy computes on it stays there. All
        numbers are looked at once, first of all, whichever rows are drawn later.
    n_q : int
        Stages.
    size : int or sequence of n_q int
        Codewords per stage: the same for all, or one number a stage.
    iterations : int
        Rounds of k-means per stage, at most.
    rng : int or numpy.random.Generator
        Draws the rows to train on, the first codewords, and vectors for unused codewords.
    projections : sequence of (Linear, Linear), optional
        Into and out of the space each stage searches.
    epsilon : float, optional
        Laplace smoothing, as in `ema`.
    rows_per_codeword : int or None, optional
        Train on at most this many random rows per codeword; None: on all.
    tolerance : float, optional
        A stage is finished when an iteration lowers its error by less than this share.
    callback : callable, optional
        Called with a `FitProgress` after each iteration; what it raises ends the fit.
    checkpoint : str or os.PathLike, optional
        A file for the stages that are finished. If it is there, the fit goes on behind them, to
        the same codewords as if it had never stopped; when the fit is done, it is removed.

    Returns
    -------
    states : tuple of n_q CodebookState

    Raises
    ------
    ShapeError, DtypeError, NonFiniteError, BackendError
        If `x` is not (N, D), not floating, or a number in any row is NaN, infinite or beyond
        float32; if projections do not fit.
    ParameterError
        If another argument is not what it may be; it is named.
    ModelFileError, StateError
        If `checkpoint` is no such file, or of another fit.

    Warns
    -----
    FewVectorsWarning
        Once, if the rows to train on hold fewer distinct vectors than there are codewords.

    Notes
    -----
    ``2 * N * size * D`` operations an iteration. Memory: `n_q` codes a row, one batch, the
    codewords.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((500, 4), dtype=np.float32)
    >>> states = fit(x, n_q=2, size=8, iterations=5, rng=rng)
    >>> [state.codebook.shape for state in states]
    [(8, 4), (8, 4)]
    """
    entered = backends.enter(x)
    x = entered.array
    if x.ndim != 2 or 0 in x.shape:
        raise ShapeError(
            f"fit: x has shape {tuple(x.shape)}; expected (N, D) with at least one vector."
        )
    validation.floating("fit", x)
    n_q = arguments.whole("fit", "n_q", n_q, 1)
    sizes = _sizes(size, n_q)
    largest = max(sizes)
    iterations = arguments.whole("fit", "iterations", iterations, 0)
    rng = arguments.generator("fit", "rng", rng)
    check_projections("fit", projections, n_q, x.shape[1])
    epsilon = arguments.number("fit", "epsilon", epsilon, 0)
    if rows_per_codeword is not None:
        rows_per_codeword = arguments.whole("fit", "rows_per_codeword", rows_per_codeword, 1)
    tolerance = arguments.number("fit", "tolerance", tolerance)
    if callback is not None:
        arguments.function("fit", "callback", callback)
    if checkpoint is not None:
        checkpoint = arguments.path("fit", "checkpoint", checkpoint)
    asked = {
        "n_q": n_q, "size": sizes[0] if len(set(sizes)) == 1 else sizes,
        "iterations": iterations, "epsilon": epsilon,
        "rows_per_codeword": rows_per_codeword, "tolerance": tolerance,
        "projections": _reported(projections),
        "widths": [len(pair[0].weight) if pair else x.shape[1]
                   for pair in projections or [None] * n_q],
    }  # fmt: skip
    x = x if core.stays(x) else arrays.to_numpy(x)
    with entered.there():
        check_finite(x)
        kept = Checkpoint(checkpoint, x, rng, asked)
        rows = None
        if rows_per_codeword is not None and x.shape[0] > rows_per_codeword * largest:
            rows = np.sort(sample_rows(x.shape[0], rows_per_codeword * largest, rng))
        data = Data(x, rows, projections or [None] * n_q)
        for state in kept.states:
            data.begin()
            data.end(state)
        kept.resume()
        distinct = data.distinct(sizes[0])
        if distinct < sizes[0]:
            warnings.warn(
                f"fit: x holds {distinct} distinct vectors for {sizes[0]} codewords a stage: the "
                f"other {sizes[0] - distinct} of the first stage can never be chosen. Give more "
                "vectors, or fewer codewords.",
                FewVectorsWarning,
                stacklevel=2,
            )
        for stage in range(len(kept.states), n_q):
            data.begin()
            watch = _Watch(stage, n_q, iterations, data, tolerance, callback)
            found = lloyd(
                data.passes(),
                _first_codewords(data, sizes[stage], rng),
                iterations,
                refill=lambda count: data.read(rng.integers(0, data.n_rows, size=count)),
                watch=watch,
            )
            kept.keep(state_of(found, epsilon))
            data.end(kept.states[-1])
    kept.finish()
    return tuple(kept.states)


def _sizes(size: Any, n_q: int) -> list[int]:
    """Return how many codewords each stage gets."""
    if not isinstance(size, (Sequence, np.ndarray)) or isinstance(size, str):
        return [arguments.whole("fit", "size", size, 1)] * n_q
    sizes = [arguments.whole("fit", "size", each, 1) for each in size]
    if len(sizes) != n_q:
        raise arguments.refused("fit", "size", size, f"a whole number, or {n_q} of them")
    return sizes


def _reported(projections: Sequence[tuple[Linear, Linear] | None] | None) -> str | None:
    """Return what tells projections from others."""
    if projections is None:
        return None
    digest = hashlib.sha256()
    for pair in projections:
        for linear in pair or ():
            digest.update(linear.weight.tobytes() + linear.bias.tobytes())
    return digest.hexdigest()[:16]


def _first_codewords(data: Data, size: int, rng: np.random.Generator) -> np.ndarray:
    """Choose first codewords: random rows, the same drawn towards their mean, or rows far apart.

    Rows of one length in many dimensions are further from each other than from a short codeword, so
    one codeword near the mean takes nearly all of them and Lloyd's algorithm hardly recovers (D =
    128 Gaussian residuals: perplexity 1.2 of 1024). At a quarter of the length directions decide
    instead (1018 of 1024). On heavy-tailed data the plain rows are better, on clusters those far
    apart. One iteration shows it.
    """
    drawn = arrays.to_numpy(data.read(sample_rows(data.n_rows, size, rng)))
    data.check_reach(drawn)
    mean = drawn.mean(axis=0, dtype=np.float64).astype(np.float32)
    starts = [drawn, mean + 0.25 * (drawn - mean), _spread_codewords(data, size, rng)]
    explained = []
    for codewords in starts:
        data.check_reach(codewords)
        found = lloyd(data.passes(), codewords, 1)
        used = found.counts > 0
        explained.append((np.square(found.sums[used]).sum(axis=1) / found.counts[used]).sum())
    return starts[int(np.argmax(explained))]


def _spread_codewords(data: Data, size: int, rng: np.random.Generator) -> np.ndarray:
    """Choose codewords among a sample of rows, each likelier the further from those before it.

    As k-means++ (Arthur and Vassilvitskii, SODA 2007), but an eighth of the codewords at a time, as
    in k-means|| (Bahmani et al., VLDB 2012): eight searches of the sample instead of one a
    codeword.
    """
    pool = data.read(sample_rows(data.n_rows, min(data.n_rows, POOL * size), rng))
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
        self.previous = np.inf
        self.energy = data.energy()
        self.numbers = data.numbers

    def __call__(self, iteration: int, found: Clusters) -> bool:
        # Sum over rows of |x - mean|^2 = sum |x|^2 - sum over codewords of count |mean|^2.
        counts, sums = arrays.to_numpy(found.counts), arrays.to_numpy(found.sums)
        used = counts > 0
        explained = np.square(sums[used]).sum(axis=1) / counts[used]
        error = max(0.0, self.energy - float(explained.sum())) / self.numbers
        settled = iteration > 0 and self.previous - error <= self.tolerance * self.previous
        finished = settled and bool(used.all())
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
