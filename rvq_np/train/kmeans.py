"""Lloyd's algorithm on exact assignments, and the random draws around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import arguments, arrays, backends
from ..codebooks import Codebooks
from ..codec import core, validation
from ..errors import DtypeError, ShapeError
from .ema import smoothed
from .state import CodebookState


class Clusters(NamedTuple):
    """Codewords with the counts and sums of the rows nearest to them, float64."""

    codebook: np.ndarray  # (K, D)
    counts: np.ndarray  # (K,)
    sums: np.ndarray  # (K, D)


def sample_rows(n_rows: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return random row numbers: distinct if there are enough rows, else with repeats.

    Parameters
    ----------
    n_rows : int
        How many rows there are.
    count : int
        How many to draw.
    rng : numpy.random.Generator

    Returns
    -------
    rows : numpy.ndarray (count,), int
    """
    arguments.whole("sample_rows", "n_rows", n_rows, 0)
    arguments.whole("sample_rows", "count", count, 0)
    arguments.kind("sample_rows", "rng", rng, np.random.Generator)
    if n_rows >= count:
        return rng.choice(n_rows, size=count, replace=False, shuffle=True)
    return rng.integers(0, n_rows, size=count)


def kmeans(
    x: Any,
    size: int,
    iterations: int,
    rng: np.random.Generator,
    *,
    epsilon: float = 1e-5,
    start: np.ndarray | None = None,
) -> CodebookState:
    """Make one stage's state from data: `iterations` iterations of Lloyd's algorithm.

    Parameters
    ----------
    x : array (N, C), floating, N >= 1
        What the stage quantizes, of any library.
    size : int
        K, the number of codewords.
    iterations : int
        Number of iterations. An unused codeword does not change.
    rng : int or numpy.random.Generator
        Draws the first codewords: distinct rows, or rows with repeats if N < K.
    epsilon : float, optional
        Laplace smoothing, as in `ema`.
    start : numpy.ndarray (K, C), optional
        First codewords instead of drawn ones.

    Returns
    -------
    state : CodebookState
        Sums are means times counts, so the next `ema` step starts from these codewords. An unused
        codeword keeps its vector, which is one of the data and never the zero vector, and a count
        of one.

    Raises
    ------
    ShapeError
        If there is no row to learn from, or `start` has another shape.
    ParameterError
        If another argument has an invalid value; the message names it.
    BackendError, NonFiniteError, DtypeError
        As `rvq_np.encode`.

    Notes
    -----
    ``2 * N * K * C`` operations per iteration, memory for the codewords. Lloyd, IEEE Trans. IT
    1982.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.float32([[0, 0], [0, 2], [8, 8], [8, 6]])
    >>> state = kmeans(x, 2, 10, np.random.default_rng(1))
    >>> np.sort(state.codebook.round(3), axis=0)
    array([[0., 1.],
           [8., 7.]], dtype=float32)
    """
    entered = backends.enter(x)
    x = entered.array
    if x.ndim != 2 or 0 in x.shape:
        problem = f"x has shape {tuple(x.shape)}; expected (N, C) with at least one vector"
        if x.ndim == 2 and x.shape[0] == 0:
            problem = "got no rows; expected at least one vector to learn from"
        raise ShapeError(f"kmeans: {problem}.")
    size = arguments.whole("kmeans", "size", size, 1)
    iterations = arguments.whole("kmeans", "iterations", iterations, 0)
    epsilon = arguments.number("kmeans", "epsilon", epsilon, 0)
    rng = arguments.generator("kmeans", "rng", rng)
    if start is not None:
        start = arrays.numbers(start)
        if start is None:
            raise DtypeError(f"kmeans: start are no numbers; expected {arrays.FLOATS}.")
        if start.shape != (size, x.shape[1]):
            raise ShapeError(
                f"kmeans: start has shape {start.shape}; expected ({size}, {x.shape[1]}), first "
                "codewords."
            )
    with entered.there():
        return clustered("kmeans", x, size, iterations, rng, epsilon, start)


def clustered(
    call: str,
    x: Any,
    size: int,
    iterations: int,
    rng: np.random.Generator,
    epsilon: float,
    start: np.ndarray | None = None,
) -> CodebookState:
    """Do what `kmeans` does; only the numbers of `x` are looked at, for the call that was made."""
    if start is None:
        start = arrays.to_numpy(arrays.take(x, sample_rows(x.shape[0], size, rng)))
    with np.errstate(over="ignore"):
        first = np.asarray(start, dtype=np.float32)
    # Where a bad number of `x` is drawn, it is `x` that is refused.
    validation.vectors(call, x, Codebooks([np.nan_to_num(first)]))
    return state_of(lloyd([x], first, iterations), epsilon)


def lloyd(
    batches: Callable[[], Iterable[Any]] | Sequence[Any],
    codewords: np.ndarray,
    iterations: int,
    *,
    refill: Callable[[int], np.ndarray] | None = None,
    watch: Callable[[int, Clusters], bool] | None = None,
    hold: float = 0.0,
    unit: bool = False,
) -> Clusters:
    """Alternate between assigning every row to its nearest codeword and moving codewords to the
    means.

    `batches` are arrays of rows, finite, or a function that gives them again for each iteration; or
    functions of codewords that give the counts and exact sums of rows that are elsewhere. Of arrays
    in memory most rows need no search in later iterations, and those on a device whose library can
    do all of it stay there, codewords and sums included; see `core.assign`. Sums are exact until
    all are added, so neither batches nor the order of the rows show in the codewords.
    ``refill(n)`` gives vectors, of any library, for n unused codewords; without it they keep what
    they have. ``watch(iteration, clusters)`` sees each iteration and may end it by returning True.
    `hold`: share of the way from the mean back to its first codeword that a codeword goes.
    `unit`: codewords are means divided by their lengths; one whose mean is zero stays.
    """
    codewords = np.array(codewords, dtype=np.float32)
    anchors, held = codewords.astype(np.float64), np.full((len(codewords), 1), hold)
    found = Clusters(codewords, np.zeros(len(codewords)), np.zeros(codewords.shape))
    passes = []
    if not callable(batches):
        together = core.extents(batches)
        passes = [each if callable(each) else core.assign(each, together) for each in batches]
    for iteration in range(iterations):
        before = codewords
        if callable(batches):
            parts = _once(batches(), codewords)
        else:
            parts = iter([again(codewords) for again in passes])
        counts, sums = next(parts)
        for more, others in parts:
            counts, sums = counts + more, sums + others
        sums = sums.rounded()
        with arrays.there(counts):
            xp = arrays.namespace(counts)
            used = counts > 0
            means = sums / xp.where(used, counts, 1.0)[:, None]
            if hold:
                back = arrays.asarray(held, counts)
                means = means + back * (arrays.asarray(anchors, counts) - means)
            if unit:
                lengths = xp.sqrt(core.energies(means))
                used = used & (lengths > 0)
                means = means / xp.where(used, lengths, xp.ones_like(lengths))[:, None]
            if not isinstance(counts, np.ndarray) and isinstance(codewords, np.ndarray):
                codewords = arrays.asarray(codewords.astype(np.float64), counts)
            codewords = xp.where(used[:, None], means, codewords)
            if isinstance(codewords, np.ndarray):
                codewords = codewords.astype(np.float32)  # elsewhere the search rounds them
        found = Clusters(codewords, counts, sums)
        # Codewords that stay to the bit stay for ever: so do counts and sums.
        still = refill is None and _same(codewords, before)
        last = iteration == iterations - 1 or still
        if (watch is not None and watch(iteration, found)) or last:
            break
        if refill is not None:
            held[~arrays.to_numpy(used)] = 0.0  # they are others from now on
            codewords = _refilled(codewords, arrays.to_numpy(used), refill)
    codewords, counts, sums = (arrays.to_numpy(each) for each in found)
    return Clusters(codewords.astype(np.float32), counts, sums)


def _same(codewords: Any, before: Any) -> bool:
    """Return whether codewords in host memory are equal to the bit; False elsewhere."""
    here = isinstance(codewords, np.ndarray) and isinstance(before, np.ndarray)
    return here and np.array_equal(codewords, before)


def _refilled(codewords: Any, used: np.ndarray, refill: Callable[[int], Any]) -> Any:
    if used.all():
        return codewords
    full = arrays.to_numpy(codewords).copy()
    full[~used] = arrays.to_numpy(refill(int((~used).sum())))
    return arrays.asarray(full, codewords)


def _once(batches: Iterable[Any], codewords: np.ndarray) -> Iterator[tuple[Any, Any]]:
    """Yield the counts and sums of batches that are gone after the iteration."""
    codebooks = Codebooks([codewords])
    for batch in batches:
        counts, sums = core.exact_tally(batch, core.encode(batch, codebooks, 1), codebooks)
        yield counts[0], sums[0].host()


def state_of(found: Clusters, epsilon: float) -> CodebookState:
    """Return the state for these clusters: an unused codeword holds its vector, count one."""
    used = found.counts > 0
    counts = np.where(used, found.counts, 1.0)
    sums = np.where(used[:, None], found.sums, found.codebook)
    codewords = sums / smoothed(counts, epsilon)[:, None]
    codewords[~used] = found.codebook[~used]
    made = CodebookState(codewords, sums, counts, initialized=True)
    return made.knowing(np.where(used, 0.0, 1.0))
