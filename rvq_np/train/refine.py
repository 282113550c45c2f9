"""Joint refinement of all codebooks of a fitted quantizer, checked on held-out rows.

`fit` makes each codebook for the residuals of the stages before it, without regard to later stages.
Refinement alternates between encoding by beam search, which considers all stages, and a refit of
all codewords to the codes (`rvq_np.train.joint`).  Decoding does not change: a sum of codewords.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import arguments, backends
from ..codebooks import Codebooks
from ..codec import validation
from ..errors import ParameterError, ShapeError, TooFewVectorsWarning, warn
from . import joint, sources
from .chunked import Chunks
from .data import check_finite
from .kmeans import Clusters, sample_rows
from .rows import Rows, rows_of
from .start import state_held
from .state import CodebookState
from .tasks import computed, elsewhere

HELD_OUT = 1 << 14  # rows that tell how good codebooks are, at most
STEP = 1.5  # times the way to the refitted codewords: after 8 iterations SIFT is where 12 were
NOISE = 0.25  # of a stage's spread, added to its codewords for the first search, then less
QUIET = 0.8  # share of the iterations after which there is no more noise
SURE = 2.0  # standard errors that the held-out error must have fallen by
PREFIXES = 0.5, 0.3, 0.1  # weights of the shortest prefixes; longer ones have the last of these


class RefineProgress(NamedTuple):
    """What the callback of `refine` gets. Iteration 0 is about the given codebooks.

    ``error`` is the mean squared error of decoded held-out vectors, per number. ``prefixes`` is the
    same for the first stage, the first two stages, and so on. ``best`` says whether these codebooks
    are the best so far.
    """

    iteration: int
    iterations: int
    error: float
    prefixes: tuple[float, ...]
    best: bool


def refine(
    x: Any,
    codebooks: Any,
    *,
    iterations: int = 40,
    beam_size: int = 8,
    ridge: float = 1.0,
    prefixes: Any = None,
    held_out: float = 0.1,
    patience: int = 3,
    rows_per_codeword: int | None = 256,
    rng: Any = 0,
    callback: Callable[[RefineProgress], None] | None = None,
) -> Codebooks:
    """Refine all codebooks together, so that sums of codewords approximate the vectors better.

    Parameters
    ----------
    x : array, numpy.memmap, dask.array.Array (N, D), floating, or files, see `opened`
        Vectors like those to be encoded later. They are read in blocks and never copied whole. A
        Dask array is encoded by tasks of its scheduler; the codebooks are the same as for an array
        in memory.
    codebooks : Codebooks or array (Q, K, D), floating
        Fitted codebooks, without projections, strides or cosine metric.
    iterations : int, optional
        The most iterations of encoding and refitting. More iterations give better codebooks,
        because the noise then decreases more slowly.
    beam_size : int, optional
        Hypotheses kept while encoding. A larger beam gives better codebooks for later beam
        searches, and takes longer.
    ridge : float, optional
        See `refit`.
    prefixes : float or sequence of Q - 1 floats, optional
        See `refit`. By default 0.5 for the prefix of one stage, 0.3 for two, 0.1 for longer
        prefixes. On SIFT this increases the full error by less than 2 %, and prefixes of two stages
        and more have a smaller error than before the refinement.
    held_out : float between 0 and 1, optional
        Share of the vectors that the codebooks are not refitted to, at most 16,384 vectors. Their
        error decides which codebooks are returned.
    patience : int, optional
        Stop after this many consecutive iterations without a smaller error. Only the last fifth of
        `iterations` counts: before it, noise is added to the codebooks for the search.
    rows_per_codeword : int or None, optional
        Use at most this many random vectors per codeword of all stages; None: all vectors.
    rng : int or numpy.random.Generator, optional
        Draws which vectors are used, and which are held out.
    callback : callable, optional
        Called with a `RefineProgress`; an exception that it raises ends the refinement.

    Returns
    -------
    codebooks : Codebooks
        Those with the smallest error of the held-out vectors. The given codebooks are returned if
        none are better by at least two standard errors, because a smaller difference may be due to
        the choice of the vectors.

    Raises
    ------
    ShapeError, DtypeError, NonFiniteError, BackendError
        If `x` is not (N, D), not floating, or a number in any row is NaN, infinite or beyond
        float32.
    ParameterError
        If another argument has an invalid value; the message names it.

    Warns
    -----
    TooFewVectorsWarning
        If there are fewer vectors to refit to than codewords; nothing is refined then.

    Notes
    -----
    An iteration encodes with `beam_size` and refits once. Statistics are exact sums, so they do not
    depend on block sizes and threads. Memory: three times M squared float64 for M codewords of all
    stages, and a block of vectors. The refit is that of additive quantization (Babenko and
    Lempitsky, CVPR 2014), with each step 1.5 times as long (`STEP`).

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> parts = rng.standard_normal((3, 12, 8), dtype=np.float32)
    >>> x = sum(part[rng.integers(12, size=3000)] for part in parts)
    >>> from rvq_np.train import fit
    >>> states = fit(x[:2000], 3, 12, 10, 0)
    >>> plain = np.stack([state.codebook for state in states])
    >>> better = refine(x[:2000], plain)
    >>> from rvq_np import decode, encode
    >>> def error(books):
    ...     return np.square(x[2000:] - decode(encode(x[2000:], books, beam_size=8), books)).mean()
    >>> bool(error(better) < 0.9 * error(plain))
    True
    """
    codebooks = joint.plain("refine", codebooks)
    x = sources.opened("refine", x)
    remote = isinstance(x, Chunks)
    entered = backends.uncomputed(x) if remote else backends.enter(x)
    x = entered.array
    if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] != codebooks.dim:
        raise ShapeError(
            f"refine: x has shape {tuple(x.shape)}; expected (N, {codebooks.dim}) with at least "
            "one vector."
        )
    validation.floating("refine", x.meta if remote else x)
    way = options("refine", codebooks.n_q, {
        "iterations": iterations, "beam_size": beam_size, "ridge": ridge, "prefixes": prefixes,
        "held_out": held_out, "patience": patience, "rows_per_codeword": rows_per_codeword,
        "callback": callback,
    })  # fmt: skip
    rng = arguments.generator("refine", "rng", rng)
    with entered.there():
        if remote:
            x.refuse(computed("refine", x.checks()))
        else:
            check_finite(x, "refine")
        return refined("refine", x, codebooks, way, rng)


class Way(NamedTuple):
    """How to refine: the arguments of `refine`, checked."""

    iterations: int = 40
    beam_size: int = 8
    ridge: float = 1.0
    weights: Any = None  # (Q,), of the prefixes
    held_out: float = 0.1
    patience: int = 3
    rows_per_codeword: int | None = 256
    callback: Callable[[RefineProgress], None] | None = None
    greedy: bool = False  # whether the error of codes of a greedy search must not rise either

    def as_dict(self) -> dict[str, Any]:
        """Return what the result depends on."""
        return {**self._asdict(), "callback": None}


def options(call: str, n_q: int, given: Mapping[str, Any]) -> Way:
    """Return checked arguments of `refine`, defaults where one is not given."""
    known = {*Way._fields, "prefixes"} - {"weights", "greedy"}
    for name in given:
        if name not in known:
            raise ParameterError(
                f"{call}: refine has no argument {name!r}; expected some of {sorted(known)}."
            )
    values = {**Way()._asdict(), "prefixes": None, **given}
    if values["prefixes"] is None:
        values["prefixes"] = [PREFIXES[min(n, 2)] for n in range(n_q - 1)]
    rows = values["rows_per_codeword"]
    if rows is not None:
        rows = arguments.whole(call, "rows_per_codeword", rows, 1)
    if values["callback"] is not None:
        arguments.function(call, "callback", values["callback"])
    held_out = arguments.number(call, "held_out", values["held_out"], 0, 1)
    if not 0 < held_out < 1:
        raise arguments.refused(
            call, "held_out", held_out,
            "a share of the vectors above 0 and below 1: the held-out vectors decide when to "
            "stop",
        )  # fmt: skip
    return Way(
        arguments.whole(call, "iterations", values["iterations"], 0),
        arguments.whole(call, "beam_size", values["beam_size"], 1),
        arguments.number(call, "ridge", values["ridge"], joint.LEAST_RIDGE),
        joint.prefix_weights(call, values["prefixes"], n_q),
        held_out,
        arguments.whole(call, "patience", values["patience"], 1),
        rows,
        values["callback"],
    )


def refined(
    call: str, x: Any, codebooks: Codebooks, way: Way, rng: np.random.Generator
) -> Codebooks:
    """Do what `refine` does, without a look at its arguments."""
    most = sum(codebooks.sizes)
    if not enough(call, x.shape[0], most, way):
        return codebooks
    asked_for = (x.shape[0], most, way._replace(callback=None), rng)
    # Of many rows NumPy draws with a table of them all, 8 bytes a row.
    drawn = elsewhere(call, _parted, *asked_for) if isinstance(x, Chunks) else _parted(*asked_for)
    judge, learn = (rows_of(call, x, rows, codebooks.n_q, None) for rows in drawn)
    return moved(judge, learn, codebooks, way, rng)


def counts_of(total: int, most: int, way: Way) -> tuple[int, int]:
    """Return how many of `total` rows are used for `most` codewords, and how many held out."""
    used = total if way.rows_per_codeword is None else min(total, way.rows_per_codeword * most)
    return used, min(HELD_OUT, round(way.held_out * used))


def enough(call: str, total: int, most: int, way: Way) -> bool:
    """Return whether so many rows may refine `most` codewords; warn otherwise."""
    used, count = counts_of(total, most, way)
    if count and used - count >= most:
        return True
    warn(
        f"{call}: there are {used - count} vectors to refit {most} codewords to, and "
        f"{count} held out; expected at least {most} and 1. The codebooks are not refined. "
        "Pass more vectors, or fit fewer codewords.",
        TooFewVectorsWarning,
    )
    return False


def _parted(
    total: int, most: int, way: Way, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the rows that are held out, and those to refit to; both ascend."""
    used, count = counts_of(total, most, way)
    rows = np.arange(total) if used == total else sample_rows(total, used, rng)
    rows = rng.permutation(rows)
    return np.sort(rows[:count]), np.sort(rows[count:])


def moved(
    judge: Rows, learn: Rows, codebooks: Codebooks, way: Way, rng: np.random.Generator
) -> Codebooks:
    """Return the best codebooks of a refinement to the rows of `learn`, judged by others."""
    given = best = codebooks
    first = least = judge.errors(codebooks, way.beam_size)
    _tell(way, 0, first, True)
    grid = joint.grid_of(learn.reach(), learn.n_rows)
    idle = 0
    for iteration in range(1, way.iterations + 1):
        shaken = _shaken(codebooks, iteration - 1, way.iterations, rng)
        tally = learn.tally(shaken, way.beam_size, grid)
        old = np.concatenate([stage.codebook.astype(np.float64) for stage in codebooks])
        solved = joint.solved(tally, old, way.ridge, way.weights)
        noisy = shaken is not codebooks
        codebooks = joint.with_codewords(old + STEP * (solved - old), codebooks)
        errors = judge.errors(codebooks, way.beam_size)
        better = errors.mean[-1] < least.mean[-1]
        if better:
            best, least = codebooks, errors
        idle = 0 if better or noisy else idle + 1
        _tell(way, iteration, errors, better)
        if idle == way.patience:
            break
    if not _surely_less(least.rows, first.rows):
        return given
    if way.greedy and judge.errors(best, 1).mean[-1] > judge.errors(given, 1).mean[-1]:
        return given
    return best


def _shaken(
    codebooks: Codebooks, iteration: int, iterations: int, rng: np.random.Generator
) -> Codebooks:
    """Return codebooks with noise for the search, the less the later; themselves in the end.

    Rows then choose codewords that they would not choose otherwise, and the refit finds codebooks
    that are better for all rows, as stochastic relaxation in LSQ++ (Martinez et al., ECCV 2018).
    """
    share = NOISE * (1.0 - iteration / (QUIET * iterations))
    if share <= 0:
        return codebooks
    shaken = []
    for stage in codebooks:
        spread = stage.codebook.std(axis=0, dtype=np.float64)
        shaken.append(stage.codebook + share * spread * rng.standard_normal(stage.codebook.shape))
    return joint.with_codewords(np.concatenate(shaken), codebooks)


def _surely_less(these: np.ndarray, those: np.ndarray) -> bool:
    """Return whether errors of the same rows are smaller, and not by the choice of the rows."""
    less = those - these
    return bool(less.mean() > SURE * less.std() / math.sqrt(len(less)))


def states_of(
    codebooks: Codebooks, counts: list[np.ndarray], epsilon: float
) -> list[CodebookState]:
    """Return the states of refined codebooks, with the counts of a greedy search.

    An `ema` step on the same counts starts from these codewords.
    """
    return [
        state_held(Clusters(stage.codebook, total, total), epsilon)
        for stage, total in zip(codebooks, counts, strict=True)
    ]


def _tell(way: Way, iteration: int, errors: joint.Errors, best: bool) -> None:
    if way.callback is not None:
        way.callback(RefineProgress(iteration, way.iterations, errors.mean[-1], errors.mean, best))
