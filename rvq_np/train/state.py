"""What one stage remembers between steps, and what its counts say about its use."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .. import arrays, display
from ..codebooks import Codebooks, Linear, Normalized, Stage
from ..codebooks.stage import Value, add_to, freeze
from ..errors import DtypeError, NonFiniteError, ParameterError, ShapeError
from ..kernels.tables import repeats


@dataclass(frozen=True, eq=False, repr=False)
class CodebookState(Value):
    """The training state of one stage: a frozen value, float32 as ESPnet stores it.

    Parameters
    ----------
    codebook : numpy.ndarray (K, C)
        The codebook.
    sums : numpy.ndarray (K, C)
        Moving average of the sum of the vectors that chose each codeword.
    counts : numpy.ndarray (K,)
        Moving average of the number of vectors that chose each codeword.
    initialized : bool
        Whether the codewords came from data or a file, or were made random on request.
    metric : {"euclidean", "cosine"}, optional
        How the stage is searched, see `rvq_np.Stage`.
    normalized : bool, optional
        Whether residuals are divided by their lengths before this stage, see `rvq_np.Normalized`.

    Raises
    ------
    DtypeError
        If an array does not hold numbers, or holds long doubles.
    NonFiniteError
        If a number is NaN or infinite in float32.
    """

    codebook: np.ndarray
    sums: np.ndarray
    counts: np.ndarray
    initialized: bool
    metric: str = "euclidean"
    normalized: bool = False

    def __post_init__(self) -> None:
        for name in ("codebook", "sums", "counts"):
            given = arrays.numbers(getattr(self, name))
            if given is None:
                raise DtypeError(
                    f"CodebookState: {name} have dtype {np.asarray(getattr(self, name)).dtype}; "
                    f"expected {arrays.FLOATS}. Convert with .astype(numpy.float32)."
                )
            with np.errstate(over="ignore"):
                frozen = np.array(given, dtype=np.float32, order="C")
            if frozen.size and not (np.isfinite(frozen.min()) and np.isfinite(frozen.max())):
                raise NonFiniteError(
                    f"CodebookState: {name} are beyond float32 (3.4e38). Nothing was changed. "
                    "Scale the vectors down."
                )
            object.__setattr__(self, name, freeze(frozen))

    @classmethod
    def of(
        cls, codebook: np.ndarray, sums: np.ndarray, counts: np.ndarray, initialized: bool
    ) -> CodebookState:
        """Return the state of arrays that are known to be finite, float32 and not shared."""
        self = object.__new__(cls)
        for name, array in (("codebook", codebook), ("sums", sums), ("counts", counts)):
            object.__setattr__(self, name, freeze(array))
        object.__setattr__(self, "initialized", initialized)
        return self

    def made_of(self) -> tuple[Any, ...]:
        return (
            self.codebook, self.sums, self.counts, self.initialized, self.metric, self.normalized
        )  # fmt: skip

    @property
    def plain(self) -> bool:
        """Whether the stage searches residuals by distance, without dividing them by lengths."""
        return self.metric == "euclidean" and not self.normalized

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (*self.made_of()[:4], vars(self).get("placed"), *self.made_of()[4:])

    def knowing(self, placed: np.ndarray) -> CodebookState:
        """Return the state itself, which is new, with its `placed` set."""
        vars(self)["placed"] = freeze(np.array(placed, dtype=np.float32))
        return self

    @cached_property
    def placed(self) -> np.ndarray:
        """How much of each count no vector stands for, float32 (K,).

        A codeword that is placed, not chosen, starts with a count all the same: ESPnet's arrays
        have no other place for "not yet", and averages need one. Training carries this along. Of
        arrays from elsewhere it is what they let one find: a count of exactly one with a sum
        that is exactly the codeword, or a codeword that repeats an earlier one and never wins.
        """
        if not self.initialized:
            return self.counts
        alone = (self.sums == self.counts[:, None] * self.codebook).all(axis=1)
        alone &= (self.counts == 1) & self.codebook.any(axis=1) & bool((self.counts != 1).any())
        return freeze(np.where(alone | repeats(self.codebook), self.counts, np.float32(0)))

    @property
    def chosen(self) -> np.ndarray:
        """Moving average of how often vectors chose each codeword: `counts` minus `placed`."""
        return np.maximum(self.counts - self.placed, 0)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the three arrays and whether they are initialized."""
        about = "" if self.plain else f"{self.metric} {self.normalized}"
        digest = hashlib.sha256(f"{bool(self.initialized)}{about}".encode())
        for array in (self.codebook, self.sums, self.counts):
            add_to(digest, array)
        return digest.hexdigest()

    def __repr__(self) -> str:
        shape = " of ".join(str(length) for length in self.codebook.shape)
        return f"CodebookState({shape}, {'' if self.initialized else 'not '}initialized)"


def _again(
    codebook: np.ndarray, sums: np.ndarray, counts: np.ndarray, initialized: bool,
    placed: np.ndarray | None, metric: str = "euclidean", normalized: bool = False,
) -> CodebookState:  # fmt: skip
    """Return a state that was pickled."""
    state = CodebookState(codebook, sums, counts, initialized, metric, normalized)
    return state if placed is None else state.knowing(placed)


def random_state(size: int, dim: int, rng: np.random.Generator, initialized: bool) -> CodebookState:
    """Return small random codewords, each with a count of one.

    Uniform within ``sqrt(6 / dim)``, as ESPnet without k-means.  Its counts start at zero, and
    the first step then divides by about nothing (2.1 becomes 190 000); here they start at one.
    """
    bound = np.sqrt(6.0 / dim)
    codebook = rng.uniform(-bound, bound, (size, dim)).astype(np.float32)
    return CodebookState(codebook, codebook, np.ones(size), initialized).knowing(np.ones(size))


def random_projections(wide: int, narrow: int, rng: np.random.Generator) -> tuple[Linear, Linear]:
    """Return a random linear map from `wide` numbers to `narrow`, and its pseudo-inverse.

    The first is drawn as ESPnet draws it.  ESPnet draws the second independently, so a quantizer
    with untrained projections destroys its input; here the pair loses only what does not fit.
    """
    bound = 1.0 / np.sqrt(wide)
    weight = rng.uniform(-bound, bound, (narrow, wide))
    bias = rng.uniform(-bound, bound, narrow)
    back = np.linalg.pinv(weight)
    return (
        Linear(weight.astype(np.float32), bias.astype(np.float32)),
        Linear(back.astype(np.float32), (-back @ bias).astype(np.float32)),
    )


def codebooks_of(
    states: Sequence[CodebookState],
    projections: Sequence[tuple[Linear, Linear] | None] | None = None,
    before: Codebooks | None = None,
) -> Any:
    """Return the frozen codebooks of `states`, one stage per state.

    `before`: the codebooks that a training step started from. For states that `fit` made with
    ``normalize_residuals`` the result is a `rvq_np.Normalized`.
    """
    maps = projections or [None] * len(states)
    stages = [
        Stage.of_state(state.codebook, pair)
        if state.metric == "euclidean" and _fits(state, pair)
        else Stage(state.codebook, *(pair or (None, None)), state.metric)  # type: ignore[call-arg]
        for state, pair in zip(states, maps, strict=True)
    ]
    if any(state.normalized for state in states):
        return Normalized(stages)
    return Codebooks.trained(stages, before)


def _fits(state: CodebookState, pair: tuple[Linear, Linear] | None) -> bool:
    if state.codebook.ndim != 2 or 0 in state.codebook.shape:
        return False
    width = (state.codebook.shape[1],)
    return pair is None or pair[0].bias.shape == width == pair[1].weight.shape[1:]


def check_states(call: str, states: Any) -> None:
    """Raise ParameterError unless `states` is a sequence of `CodebookState`, one at least."""
    fits = isinstance(states, Sequence) and len(states) > 0
    if not fits or not all(isinstance(each, CodebookState) for each in states):
        raise ParameterError(
            f"{call}: states is a {type(states).__name__}; expected a list of CodebookState, one "
            "a stage."
        )
    for each in states:
        check_plain(call, each)


def check_plain(call: str, state: CodebookState) -> None:
    """Raise ParameterError for a state that moving averages would take out of its space."""
    if not state.plain:
        raise ParameterError(
            f"{call}: got a state of fit with spherical or normalize_residuals; expected states of "
            "plain k-means. Fit again instead."
        )


def check_projections(call: str, projections: Any, n_q: int, dim: int | None = None) -> None:
    """Raise unless `projections` is None, or for each stage None or a pair of `Linear`.

    `dim`: the length of the vectors, if that is known.
    """
    if projections is None:
        return
    if not isinstance(projections, Sequence) or len(projections) != n_q:
        count = f" of {len(projections)}" if isinstance(projections, Sequence) else ""
        raise ParameterError(
            f"{call}: projections is a {type(projections).__name__}{count}; expected None or a "
            f"list with one pair of Linear, or None, for each of {n_q} stages."
        )
    for stage, pair in enumerate(projections):
        if pair is None:
            continue
        if not (isinstance(pair, Sequence) and len(pair) == 2
                and all(isinstance(each, Linear) for each in pair)):  # fmt: skip
            raise ParameterError(
                f"{call}: projections[{stage}] is a {type(pair).__name__}; expected a pair of "
                "Linear, or None."
            )
        into, out = pair[0].weight.shape, pair[1].weight.shape
        if into[::-1] != out or dim not in (None, into[1]):
            raise ShapeError(
                f"{call}: projections[{stage}] have weights {into} and {out}; expected (C, D) and "
                f"(D, C){'' if dim is None else f' with D = {dim}'}."
            )


class Usage(NamedTuple):
    """Utilisation and perplexity of a codebook, as a pair of numbers."""

    utilisation: float  # the share of codewords chosen at all
    perplexity: float  # how many would carry as much if all were chosen equally often


class Usages(list[Usage]):
    """The `Usage` of each stage: a list that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        rows = [(q, f"{each.utilisation:.1%}", f"{each.perplexity:.1f}")
                for q, each in enumerate(self)]  # fmt: skip
        columns = ("stage", "codewords used", "perplexity")
        return display.table("Usage of codewords", [], columns, rows, shut=False)


def usage(counts: np.ndarray) -> Usage:
    """Return utilisation and perplexity of a codebook from how often each codeword was chosen.

    Parameters
    ----------
    counts : array (K,)

    Returns
    -------
    usage : Usage
        ``(utilisation, perplexity)``, also by name: the share of codewords that were chosen, and
        ``exp`` of the entropy. Both are 0 if no codeword was chosen.

    Examples
    --------
    >>> import numpy as np
    >>> usage(np.array([4.0, 4.0, 0.0, 0.0]))
    Usage(utilisation=0.5, perplexity=2.0)
    """
    total = float(np.sum(counts, dtype=np.float64))
    if total <= 0:
        return Usage(0.0, 0.0)
    shares = np.asarray(counts, dtype=np.float64)[np.asarray(counts) > 0] / total
    perplexity = float(np.exp(-(shares * np.log(shares)).sum()))
    return Usage(len(shares) / len(counts), perplexity)
