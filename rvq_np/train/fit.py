"""Offline training: k-means stage by stage, also on more vectors than memory holds."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from .. import arguments, arrays, backends
from ..codebooks import Linear
from ..codec import core, validation
from ..errors import FewVectorsWarning, ParameterError, ShapeError, warn
from . import sources
from .chunked import Chunks
from .data import Search, check_finite
from .kmeans import sample_rows
from .refine import enough
from .refining import Parts, parts, refined_states, way_of
from .resume import Checkpoint
from .stages import FitProgress, Task, by_stages
from .start import start_of
from .state import CodebookState, check_projections
from .tasks import elsewhere


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
    refine: bool | Mapping[str, Any] | None = None,
    start: Any = None,
    freeze: Sequence[int] = (),
    hold: float = 0.9,
    persist: bool | None = None,
    spherical: bool = False,
    normalize_residuals: bool = False,
) -> tuple[CodebookState, ...]:
    """Train all stages by k-means, each on the residuals of the stages before it.

    Parameters
    ----------
    x : array or numpy.memmap (N, D), floating, N >= 1
        Read in batches, never copied whole. An array on a GPU that CuPy supports stays there. All
        numbers are checked first, also those of rows that are not drawn later. A Dask array is read
        by tasks of the scheduler in use, on the workers of a cluster if there is a client.
        Everything that `rvq_np.train.opened` opens is accepted as well: Parquet, zarr, a list of
        ``.npy`` files, an iterator of batches.
    n_q : int
        Number of stages.
    size : int or sequence of n_q int
        Codewords per stage: one number for all stages, or one number per stage.
    iterations : int
        The most iterations of k-means per stage.
    rng : int or numpy.random.Generator
        Draws the rows to train on, the first codewords, and vectors for unused codewords.
    projections : sequence of (Linear, Linear), optional
        Of each stage: the maps to and from the dimensions that it searches.
    epsilon : float, optional
        Laplace smoothing, as in `ema`.
    rows_per_codeword : int or None, optional
        Train on at most this many random rows per codeword; None: on all rows.
    tolerance : float, optional
        A stage is finished when an iteration lowers its error by less than this share.
    callback : callable, optional
        Called with a `FitProgress` after each iteration; an exception that it raises ends the fit.
    checkpoint : str or os.PathLike, optional
        The resume file: it holds the stages that are finished. If the file exists, the fit
        continues after these stages and gives the same codewords as without an interruption. The
        file is removed when the fit is done.
    refine : bool or dict, optional
        Refine all codebooks together afterwards, see `rvq_np.train.refine`; a dictionary holds its
        arguments. K-means then does not use the held-out vectors. If no refined codebooks are
        better by at least two standard errors, those of ``refine=False`` are returned, bit for bit.
        For that k-means runs again, unless the vectors that it does not use were enough to hold
        out. It is an error with projections. By default (None) a short refinement is tried: 10
        iterations with a beam of 4, on 64 vectors per codeword. It needs at least 8,192 vectors,
        and 32 per codeword of all stages; at least 2 stages and at most 4,096 codewords; and no
        projections, `start`, `spherical` or `normalize_residuals`. Its codebooks are returned only
        if, in addition, the held-out error of greedy codes does not rise.
    start : Codebooks or array (Q, K, D), optional
        Earlier codebooks: k-means of each stage starts from their codewords.
    freeze : sequence of int, optional
        Stages of `start` whose codebooks do not change; later stages train on their residuals.
    hold : float from 0 to 1, optional
        With `start`: a codeword stops at this share of the way from its mean back to its old place.
        At 0.9, 98 % of 20,000 vectors that `start` was fitted to kept all codes when 1 % were new.
        0: a codeword moves to its mean. Unused codewords are replaced by other vectors.
    persist : bool, optional
        For a Dask array: whether workers keep the vectors to train on and their residuals, or read
        and encode them again in each iteration. Keeping them needs ``8 * D + 4 * n_q + 12`` bytes
        per vector (``4 * (D + C)`` with projections). By default they are kept if the vectors have
        256 MiB or less. The codewords do not depend on it.
    spherical : bool, optional
        Search by direction, and divide codewords by their lengths in each iteration, as Faiss does
        with ``spherical=True``. The residuals that a stage searches are divided by their lengths,
        too. ``codebooks_of`` the states then has stages with ``metric="cosine"``.
    normalize_residuals : bool, optional
        Divide vectors and residuals by their lengths before each stage. ``codebooks_of`` the states
        is then a `rvq_np.Normalized`, whose codes do not decode to an approximation of the vector.
        Neither `spherical` nor this option can be used with `refine` or `start`.

    Returns
    -------
    states : tuple of n_q CodebookState

    Raises
    ------
    ShapeError, DtypeError, NonFiniteError, BackendError
        If `x` is not (N, D), not floating, or a number in any row is NaN, infinite or beyond
        float32; if projections do not fit.
    ParameterError
        If another argument has an invalid value; the message names it.
    ModelFileError, StateError
        If `checkpoint` is not a resume file, or that of another fit.
    ClusterError
        If a cluster loses its scheduler or too many workers, or their versions differ.

    Warns
    -----
    FewVectorsWarning
        Once, if the rows to train on hold fewer distinct vectors than the first stage has
        codewords; the stages are fitted all the same.
    TooFewVectorsWarning
        With `refine`, if there are fewer vectors to refit to than codewords of all stages; the
        codebooks are not refined then.

    Notes
    -----
    ``2 * N * size * D`` operations per iteration. Memory: `n_q` codes per row, one batch, the
    codewords. The codewords are the same bit for bit for the same rows, in any storage, chunks or
    distribution among workers. This process holds no chunk of a Dask array.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((500, 4), dtype=np.float32)
    >>> states = fit(x, n_q=2, size=8, iterations=5, rng=rng)
    >>> [state.codebook.shape for state in states]
    [(8, 4), (8, 4)]
    """
    x = sources.opened("fit", x)
    entered = backends.uncomputed(x) if isinstance(x, Chunks) else backends.enter(x)
    x = entered.array
    if x.ndim != 2 or 0 in x.shape:
        raise ShapeError(
            f"fit: x has shape {tuple(x.shape)}; expected (N, D) with at least one vector."
        )
    validation.floating("fit", x.meta if isinstance(x, Chunks) else x)
    n_q = arguments.whole("fit", "n_q", n_q, 1)
    every = arguments.sizes("fit", "size", size, n_q)
    sizes = list(every) if isinstance(every, tuple) else [every] * n_q
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
    if persist is not None:
        persist = arguments.flag("fit", "persist", persist)
    asked: dict[str, Any] = {
        "n_q": n_q, "size": sizes[0] if len(set(sizes)) == 1 else sizes,
        "iterations": iterations, "epsilon": epsilon,
        "rows_per_codeword": rows_per_codeword, "tolerance": tolerance,
        "projections": _reported(projections),
        "widths": [len(pair[0].weight) if pair else x.shape[1]
                   for pair in projections or [None] * n_q],
    }  # fmt: skip
    search = Search(
        arguments.flag("fit", "spherical", spherical),
        arguments.flag("fit", "normalize_residuals", normalize_residuals),
    )
    if any(search):
        _check_search(search, refine, start)
        asked["search"] = list(search)
    hold = arguments.number("fit", "hold", hold, 0, 1)
    hold = 0.0 if start is None else hold
    first, frozen = start_of("fit", start, freeze, n_q, sizes, projections, x.shape[1])
    if first is not None:
        asked["start"] = [first.fingerprint, sorted(frozen), hold]
    way = way_of(refine, sizes, projections, 0 if any(search) or first is not None else x.shape[0])
    if way is not None and frozen:
        raise ParameterError(
            "fit: refine moves all stages, but freeze names some; expected one of the two."
        )
    if way is not None:
        asked["refine"] = {**way.as_dict(), "held out": "before k-means"}
        if not enough("fit", x.shape[0], sum(sizes), way):
            way = None
    remote = isinstance(x, Chunks)
    if not remote:
        x = x if core.stays(x) else arrays.to_numpy(x)
    task = Task(
        x, sizes, iterations, projections or [None] * n_q, epsilon, tolerance, callback, persist,
        search, first, frozen, hold,
    )  # fmt: skip
    with entered.there():
        if not remote:  # the tasks of `ChunkedData` look at all numbers when they first read them
            check_finite(x)
        kept = Checkpoint(checkpoint, x, rng, asked)
        # Of many rows NumPy draws with a table of them all, 8 bytes a row.
        drawing = partial(elsewhere, "fit") if remote else _called
        rows = None
        if rows_per_codeword is not None and x.shape[0] > rows_per_codeword * largest:
            rows = np.sort(drawing(sample_rows, x.shape[0], rows_per_codeword * largest, rng))
        drawn, parted = rng.bit_generator.state, Parts(rows)
        if way is not None:  # by a generator of its own, so that k-means draws what it always does
            own = np.random.default_rng(copy.deepcopy(rng).integers(1 << 32, size=2))
            about = way._replace(callback=None)
            parted = drawing(parts, x.shape[0], rows, sum(sizes), about, own)
        data = task.data(parted.cluster)
        for state in kept.states:
            data.begin()
            data.end(state)
        kept.resume()
        distinct = data.distinct(sizes[0])
        if distinct < sizes[0]:
            warn(
                f"fit: x holds {distinct} distinct vectors for {sizes[0]} codewords a stage: the "
                f"other {sizes[0] - distinct} of the first stage can never be chosen. Give more "
                "vectors, or fewer codewords.",
                FewVectorsWarning,
            )
        states = by_stages(task, data, rng, kept)
        if way is not None:
            better = refined_states(x, parted, rows, states, way, own, epsilon, persist)
            if better is not None:
                states = better
            elif parted.cluster is not rows:  # what was held out was of no use
                rng.bit_generator.state = drawn
                states = by_stages(task, task.data(rows), rng, Checkpoint(None, x, rng, asked))
    kept.finish()
    if any(search):
        states = [_searched(state, search) for state in states]
    return tuple(states)


def _called(function: Callable[..., Any], *others: Any) -> Any:
    return function(*others)


def _check_search(search: Search, refine: Any, start: Any) -> None:
    """Raise ParameterError where what else is asked for needs plain stages."""
    name = "spherical" if search.spherical else "normalize_residuals"
    clash = "refine" if refine not in (False, None) else "start" if start is not None else ""
    if clash:
        raise ParameterError(
            f"fit: {name} is asked for, and {clash}, which is for stages that search residuals "
            "by distance; expected one of the two."
        )


def _searched(state: CodebookState, search: Search) -> CodebookState:
    """Return a state that says how its stage searches."""
    parts = state.codebook, state.sums, state.counts, state.initialized
    return CodebookState(*parts, search.metric, search.normalize).knowing(state.placed)


def _reported(projections: Sequence[tuple[Linear, Linear] | None] | None) -> str | None:
    """Return what tells projections from others."""
    if projections is None:
        return None
    digest = hashlib.sha256()
    for pair in projections:
        for linear in pair or ():
            digest.update(linear.weight.tobytes() + linear.bias.tobytes())
    return digest.hexdigest()[:16]
