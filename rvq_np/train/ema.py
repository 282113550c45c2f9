"""Exponential moving averages, and dead-code replacement."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import arguments, arrays
from ..errors import ShapeError
from ..kernels import steps
from ..kernels.totals import ExactSum
from .state import CodebookState, check_plain, check_states

SHARE = 0.03  # of the mean count, below which a codeword is dead where no threshold is given
GRACE = 1.5  # times that: what a new codeword starts with; unused, it lasts 40 steps at decay 0.99


def smoothed(counts: np.ndarray, epsilon: float) -> np.ndarray:
    """Return Laplace-smoothed counts (K,): each gains `epsilon`, their total is unchanged."""
    counts = np.asarray(counts, dtype=np.float64)
    total = counts.sum()
    return (counts + epsilon) / (total + len(counts) * epsilon) * total


def ema(
    state: CodebookState, counts: np.ndarray, sums: Any, decay: float, epsilon: float = 1e-5
) -> CodebookState:
    """Update a stage with one batch, by exponential moving averages.

    Parameters
    ----------
    state : CodebookState
    counts : numpy.ndarray (K,)
        Counts of the batch's tally for this stage.
    sums : numpy.ndarray (K, C) or rvq_np.codec.ExactSum
        Sums of that tally; or float64 of another library, which then computes on its device.
    decay : float in [0, 1]
        Share of its value that each moving average keeps.
    epsilon : float, optional
        Laplace smoothing of the counts.

    Returns
    -------
    state : CodebookState
        ``counts`` and ``sums`` are moving averages; codewords are sums divided by smoothed counts.

    Raises
    ------
    ShapeError
        If `counts` or `sums` are not of the state's shapes.
    ParameterError
        If another argument has an invalid value; the message names it.

    Notes
    -----
    As ESPnet from 202511 on, computed in float64, with two corrections. Where a count is exactly
    zero, the sum is taken as zero; a new ESPnet state has other sums there, and its codewords
    become very large. A codeword whose count is below ``100 * epsilon`` does not change: smoothing
    would shrink it to the zero vector.

    Examples
    --------
    >>> import numpy as np
    >>> old = CodebookState(np.float32([[1, 1]]), np.float32([[4, 4]]), np.float32([4]), True)
    >>> ema(old, np.array([4.0]), np.array([[8.0, 8.0]]), decay=0.5).codebook
    array([[1.5, 1.5]], dtype=float32)
    """
    arguments.kind("ema", "state", state, CodebookState)
    check_plain("ema", state)
    _check_tally("ema", state, counts, sums)
    decay = arguments.number("ema", "decay", decay, 0, 1)
    epsilon = arguments.number("ema", "epsilon", epsilon, 0)
    moved = _state(*_averaged(state, counts, sums, decay, epsilon), state.initialized)
    return moved.knowing(_decayed(state, decay))


def _decayed(state: CodebookState, decay: float) -> np.ndarray:
    """Return what is left of the counts that no vector stands for, rounded as counts are."""
    return (decay * state.placed.astype(np.float64)).astype(np.float32)


def _check_tally(call: str, state: CodebookState, counts: Any, sums: Any) -> None:
    """Raise ShapeError unless counts and sums are those of a state's codewords."""
    for name, given, own in (("counts", counts, state.counts), ("sums", sums, state.sums)):
        if isinstance(given, steps.Tally):
            continue
        shape = tuple(getattr(given, "shape", ())) or np.shape(given)
        if shape != own.shape:
            raise ShapeError(f"{call}: {name} have shape {shape}; expected {own.shape}.")


class _Averaging(NamedTuple):
    """How the averages of a stage move: (K,) each, but for the last."""

    empty: np.ndarray  # whose past counts for nothing
    held: np.ndarray  # codewords that stay where they are
    share: np.ndarray  # what sums are divided by
    decay: float


def _counted(
    state: CodebookState, counts: np.ndarray, decay: float, epsilon: float
) -> tuple[np.ndarray, _Averaging]:
    """Return the counts as `ema` moves them, float32, and what they say of sums and codewords."""
    new_counts = decay * state.counts.astype(np.float64) + (1 - decay) * np.asarray(counts)
    held = new_counts <= 100 * epsilon
    share = np.where(held, 1.0, smoothed(new_counts, epsilon))
    with np.errstate(over="ignore"):
        narrow = new_counts.astype(np.float32)
    return narrow, _Averaging(~(state.counts > 0), held, share, float(decay))


def _averaged(
    state: CodebookState, counts: np.ndarray, sums: Any, decay: float, epsilon: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return codewords, sums and counts as `ema` makes them, float32, and the largest number."""
    new_counts, averaging = _counted(state, counts, decay, epsilon)
    if isinstance(sums, steps.Tally):
        sums = sums.sums()
    elif isinstance(sums, ExactSum):
        sums = sums.rounded()
    if isinstance(sums, np.ndarray):
        sums = np.ascontiguousarray(sums, dtype=np.float64)
        codewords, new_sums, largest = steps.average(state.codebook, state.sums, sums, *averaging)
    else:
        codewords, new_sums, largest = _averaged_there(state, sums, *averaging)
    return codewords, new_sums, new_counts, max(largest, float(new_counts.max(initial=0)))


def _averaged_there(
    state: CodebookState, sums: Any, empty: np.ndarray, held: np.ndarray, share: np.ndarray,
    decay: float,
) -> tuple[np.ndarray, np.ndarray, float]:  # fmt: skip
    """As `steps.average`, for `sums` of another library, which computes on its device."""
    past = np.where(empty[:, None], 0.0, state.sums).astype(np.float64)
    with arrays.there(sums):
        xp = arrays.namespace(sums)

        def put(array: np.ndarray) -> Any:
            return arrays.asarray(array, sums)

        new_sums = decay * put(past) + (1 - decay) * sums
        moved = new_sums / put(share)[:, None]
        codewords = xp.where(put(held)[:, None], put(state.codebook.astype(np.float64)), moved)
        found = arrays.to_numpy(codewords), arrays.to_numpy(new_sums)
    with np.errstate(over="ignore"):
        new_codewords, narrow = (each.astype(np.float32) for each in found)
    return new_codewords, narrow, max(float(np.abs(each).max()) for each in (new_codewords, narrow))


def _state(
    codewords: np.ndarray, sums: np.ndarray, counts: np.ndarray, largest: float, initialized: bool
) -> CodebookState:
    if largest < np.inf:
        return CodebookState.of(codewords, sums, counts, initialized)
    return CodebookState(codewords, sums, counts, initialized)  # says what is beyond float32


def expire(
    state: CodebookState,
    vectors: Any,
    threshold: float | None,
    *,
    relative: float | None = None,
) -> CodebookState:
    """Replace each codeword whose count is below the threshold, with its sum and count.

    Parameters
    ----------
    state : CodebookState
    vectors : callable
        ``vectors(n)`` returns n vectors (n, C) of the batch, as `numpy.ndarray`.
    threshold : float or None
        The least moving average of how often a codeword is chosen per step. A new codeword starts
        with this count. 0: never replace. None: 3 % of the mean count, which suits batches of any
        size; a new codeword starts with 4.5 % of the mean count, and if it is never chosen, it is
        replaced after 40 steps at a decay of 0.99.
    relative : float, optional
        Instead of `threshold`: this share of the mean count; a new codeword starts with the mean
        count. An absolute threshold of 2 replaces 45 of 64 codewords at every step if a batch has
        one vector per codeword; 0.1 of the mean (Moshi) does not.

    Returns
    -------
    state : CodebookState
        The same object if no codeword is replaced.

    Raises
    ------
    ParameterError
        If an argument has an invalid value; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> state = CodebookState(np.eye(2), 3 * np.eye(2), np.float32([3, 1]), True)
    >>> expire(state, lambda n: np.full((n, 2), 7.0), threshold=2).codebook
    array([[1., 0.],
           [7., 7.]], dtype=float32)
    """
    arguments.kind("expire", "state", state, CodebookState)
    check_plain("expire", state)
    arguments.function("expire", "vectors", vectors)
    threshold = _threshold("expire", threshold)
    if relative is not None:
        relative = arguments.number("expire", "relative", relative, 0)
    codewords, sums, counts = state.codebook.copy(), state.sums.copy(), state.counts.copy()
    placed = state.placed.copy()
    largest = _replace(codewords, sums, counts, placed, vectors, threshold, relative)
    if largest is None:
        return state
    return _state(codewords, sums, counts, largest, state.initialized).knowing(placed)


def _threshold(call: str, value: Any) -> float | None:
    return None if value is None else arguments.number(call, "threshold", value, 0)


def _replace(
    codewords: np.ndarray,
    sums: np.ndarray,
    counts: np.ndarray,
    placed: np.ndarray,
    vectors: Any,
    threshold: float | None,
    relative: float | None,
) -> float | None:
    """Do in place what `expire` does; return the largest number written, or None."""
    dead, start = _expired(counts, threshold, relative)
    if not len(dead):
        return None
    placed[dead] = start
    fresh = np.ascontiguousarray(vectors(len(dead)))
    fresh = fresh if fresh.dtype in (np.float32, np.float64) else fresh.astype(np.float64)
    return max(float(steps.replace(codewords, sums, dead, fresh, start)), start)


class Drawn(NamedTuple):
    """Vectors for dead codewords: rows of a batch, by their numbers.  A call gives as many."""

    rows: Any  # (n, C)
    choose: Callable[[int], np.ndarray]  # that many row numbers

    def __call__(self, count: int) -> np.ndarray:
        return arrays.to_numpy(arrays.take(self.rows, self.choose(count)))


def _expired(
    counts: np.ndarray, threshold: float | None, relative: float | None
) -> tuple[np.ndarray, float]:
    """Return which codewords are dead, and the count they start with, written already."""
    if relative is not None:
        start = float(counts.mean(dtype=np.float64))
        threshold = relative * start
    elif threshold is not None:
        start = float(threshold)
    else:
        threshold = SHARE * float(counts.mean(dtype=np.float64))
        start = GRACE * threshold
    dead = np.flatnonzero(counts < threshold)
    counts[dead] = start
    return dead, start


def replaced(state: CodebookState, counts: np.ndarray, rule: Mapping[str, Any]) -> int:
    """Return how many codewords `step_of` replaces by a rule: its four keyword arguments."""
    moved, _ = _counted(state, counts, rule["decay"], rule["epsilon"])
    return len(_expired(moved, rule["threshold"], rule["relative"])[0])


def step(
    states: Sequence[CodebookState],
    counts: Sequence[np.ndarray],
    sums: Sequence[np.ndarray],
    draw: Callable[[int, int], Any],
    *,
    decay: float,
    epsilon: float = 1e-5,
    threshold: float | None = 2,
    relative: float | None = None,
) -> tuple[CodebookState, ...]:
    """Update every stage that was used with one batch, then replace its dead codewords.

    Parameters
    ----------
    states : sequence of CodebookState
        All stages.
    counts, sums : sequence of numpy.ndarray
        The batch's `rvq_np.codec.tally`, exact or not, for the first stages.
    draw : callable
        ``draw(stage, n)`` returns n vectors (n, C) that the stage quantized in this batch.
    decay, epsilon, threshold, relative
        See `ema` and `expire`.

    Returns
    -------
    states : tuple of CodebookState
        Stages beyond ``len(counts)`` are returned unchanged.
    """
    check_states("step", states)
    for name, value in (("counts", counts), ("sums", sums)):
        if not hasattr(value, "__len__"):
            raise arguments.refused("step", name, value, "a list with one array per stage")
    if len(counts) != len(sums) or len(counts) > len(states):
        raise ShapeError(
            f"step: counts are of {len(counts)} stages, sums of {len(sums)}; expected as many of "
            f"both, {len(states)} at most."
        )
    for stage, state in enumerate(states[: len(counts)]):
        _check_tally("step", state, counts[stage], sums[stage])
    arguments.function("step", "draw", draw)
    decay = arguments.number("step", "decay", decay, 0, 1)
    epsilon = arguments.number("step", "epsilon", epsilon, 0)
    threshold = _threshold("step", threshold)
    if relative is not None:
        relative = arguments.number("step", "relative", relative, 0)
    moved = []
    for stage, state in enumerate(states):
        if stage < len(counts):
            state = step_of(
                state, counts[stage], sums[stage], functools.partial(draw, stage),
                decay=decay, epsilon=epsilon, threshold=threshold, relative=relative,
            )  # fmt: skip
        moved.append(state)
    return tuple(moved)


def step_of(
    state: CodebookState,
    counts: np.ndarray,
    sums: Any,
    vectors: Callable[[int], Any] | Drawn,
    *,
    decay: float,
    epsilon: float,
    threshold: float | None,
    relative: float | None,
) -> CodebookState:
    """Do for one stage what `step` does for all: `ema`, then `expire`, in one set of arrays."""
    placed = _decayed(state, decay)
    if isinstance(sums, steps.Tally) and sums.small and isinstance(vectors, Drawn):
        new_counts, averaging = _counted(state, counts, decay, epsilon)
        dead, start = _expired(new_counts, threshold, relative)
        chosen = vectors.choose(len(dead)) if len(dead) else dead
        codewords, new_sums, largest = steps.move(
            state.codebook, state.sums, sums, averaging, dead, vectors.rows, chosen, start
        )
        largest = max(largest, float(new_counts.max(initial=0)))
        placed[dead] = start
        moved = _state(codewords, new_sums, new_counts, largest, state.initialized)
        return moved.knowing(placed)
    codewords, new_sums, new_counts, largest = _averaged(state, counts, sums, decay, epsilon)
    if largest < np.inf:
        most = _replace(codewords, new_sums, new_counts, placed, vectors, threshold, relative)
        largest = max(largest, most or 0.0)
    moved = _state(codewords, new_sums, new_counts, largest, state.initialized)
    return moved.knowing(placed)
