"""What refitting all codebooks together needs to know of the data: a tally of pairs of codewords.

With the codes fixed, the codewords that leave the smallest squared error are the solution of linear
equations.  Their matrix says how often two codewords were chosen together, their right side is the
sum of the vectors that chose each codeword.  Both are sums over rows, and exact: counts are whole
numbers, and vectors are rounded to a grid so coarse that no sum of them is rounded.  So the same
bits come out however the rows are split, ordered or merged.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from .. import arguments, arrays, backends
from ..codebooks import Codebooks, Stage
from ..codebooks.stage import Value, add_to
from ..codec import core, validation
from ..errors import ParameterError, ShapeError
from ..kernels import steps

BITS = 53  # of a float64: whole numbers below 2**53 add up exactly
LEAST_RIDGE = 1e-6  # without a ridge the equations have no single solution


@dataclass(frozen=True, eq=False, repr=False)
class JointTally(Value):
    """How often two codewords were chosen together, and the sum of the vectors that chose each.

    Parameters
    ----------
    pairs : numpy.ndarray (M, M), float64
        For all M codewords of all stages, one stage after the other. On and above the diagonal: how
        many rows chose both codewords. Below the diagonal: zeros.
    sums : numpy.ndarray (M, D), float64
        For each codeword the sum of the vectors, not of the residuals, that chose it.
    sizes : tuple of int
        Codewords of each stage.
    grid : float
        Vectors are rounded to multiples of this power of two.
    """

    pairs: np.ndarray
    sums: np.ndarray
    sizes: tuple[int, ...]
    grid: float

    def __post_init__(self) -> None:
        for name in ("pairs", "sums"):
            frozen = np.array(getattr(self, name), dtype=np.float64, order="C")
            frozen.setflags(write=False)
            object.__setattr__(self, name, frozen)

    @classmethod
    def of(
        cls, pairs: np.ndarray, sums: np.ndarray, sizes: tuple[int, ...], grid: float
    ) -> JointTally:
        """Return the tally of arrays that are float64 and not shared: `pairs` can be large."""
        self = object.__new__(cls)
        for array in (pairs, sums):
            array.setflags(write=False)
        vars(self).update(pairs=pairs, sums=sums, sizes=sizes, grid=grid)
        return self

    def made_of(self) -> tuple[Any, ...]:
        return self.pairs, self.sums, self.sizes, self.grid

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all of it."""
        digest = hashlib.sha256(f"{self.sizes} {self.grid}".encode())
        for array in (self.pairs, self.sums):
            add_to(digest, array)
        return digest.hexdigest()

    @property
    def rows(self) -> int:
        """Number of vectors in the tally."""
        return int(np.trace(self.pairs[: self.sizes[0], : self.sizes[0]]))

    @property
    def counts(self) -> np.ndarray:
        """How often each codeword was chosen, float64 (M,)."""
        return np.diagonal(self.pairs)

    def __add__(self, other: JointTally) -> JointTally:
        """Return the tally of the rows of both: the same bits in any order.

        Raises
        ------
        ParameterError
            If they are of other codebooks, or rounded to another grid.
        """
        if not isinstance(other, JointTally):
            return NotImplemented
        mine, theirs = ((each.sizes, each.sums.shape, each.grid) for each in (self, other))
        if mine != theirs:
            raise ParameterError(
                f"JointTally: got tallies of {mine} and {theirs} (sizes, shape of sums, grid); "
                "expected the same. Make both with the same codebooks, reach and capacity."
            )
        return self.of(self.pairs + other.pairs, self.sums + other.sums, self.sizes, self.grid)

    def __repr__(self) -> str:
        return f"JointTally({self.rows} rows, {sum(self.sizes)} codewords)"


def joint_tally(
    x: Any, codes: Any, codebooks: Any, *, reach: float, capacity: int = 1 << 28
) -> JointTally:
    """Count how often codewords were chosen together, and sum the vectors that chose each.

    Parameters
    ----------
    x : array (N, D), floating
        The vectors that were encoded.
    codes : array (Q, N), integer
        Their codes, for all stages.
    codebooks : Codebooks or array (Q, K, D), floating
        Stages without projections, strides or cosine metric.
    reach : float
        The largest absolute number of all vectors, here and in tallies to be added, or more.
    capacity : int, optional
        The number of vectors in all these tallies together, or more. Numbers are rounded to a grid
        of about ``reach * capacity * 2**-53``: at the default half the spacing of float32 at
        `reach`. Smaller values give a finer grid.

    Returns
    -------
    tally : JointTally
        Tallies of the same codebooks, `reach` and `capacity` add up exactly with ``+``: any split
        of the rows and any order of addition gives the same bits.

    Raises
    ------
    BackendError, ShapeError, DtypeError, NonFiniteError, LevelsError, CodeRangeError
        As `rvq_np.codec.tally`.
    ParameterError
        If the codebooks have projections, strides or cosine metric, `reach` is below a number of
        `x`, or `capacity` is below N.

    Notes
    -----
    ``N * Q**2 / 2`` additions for the pairs, ``N * Q * D`` for the sums. Memory: the tally.

    Examples
    --------
    >>> import numpy as np
    >>> codewords = np.float32([[[0, 0], [4, 4]], [[0, 0], [1, 0]]])
    >>> x = np.float32([[5, 4], [0, 1], [4, 4]])
    >>> made = joint_tally(x, np.int32([[1, 0, 1], [1, 0, 0]]), codewords, reach=8)
    >>> made.pairs
    array([[1., 0., 1., 0.],
           [0., 2., 1., 1.],
           [0., 0., 2., 0.],
           [0., 0., 0., 1.]])
    """
    codebooks = plain("joint_tally", codebooks)
    entered, given = backends.enter_all(x, codes)
    x, codes = entered.array, given.array
    with entered.there():
        validation.vectors("joint_tally", x, codebooks)
        validation.codes("joint_tally", codes, codebooks)
        x, codes = arrays.to_numpy(x), arrays.to_numpy(codes)
    if x.ndim != 2 or codes.shape != (codebooks.n_q, len(x)):
        raise ShapeError(
            f"joint_tally: x has shape {x.shape}, codes {codes.shape}; expected (N, D) and "
            f"({codebooks.n_q}, N), the codes of all stages."
        )
    reach = arguments.number("joint_tally", "reach", reach, 0)
    capacity = arguments.whole("joint_tally", "capacity", capacity, max(1, len(x)))
    largest = float(np.abs(x).max(initial=0))
    if largest > reach:
        raise ParameterError(
            f"joint_tally: reach is {reach:g}, but x holds {largest:g}; expected the "
            "largest number of all vectors, or more."
        )
    return tallied(x, codes, codebooks.sizes, grid_of(reach, capacity))


def grid_of(reach: float, capacity: int) -> float:
    """Return the spacing at which `capacity` numbers up to `reach` add up exactly."""
    if reach == 0:
        return 1.0
    power = math.frexp(reach)[1] + (capacity - 1).bit_length() - BITS
    return math.ldexp(1.0, max(power, -1022))


def tallied(x: np.ndarray, codes: np.ndarray, sizes: Sequence[int], grid: float) -> JointTally:
    """Do what `joint_tally` does, without a look at its arguments."""
    adder = Adder(sizes, x.shape[1], grid)
    adder.add(x, codes)
    return adder.tally()


class Adder:
    """A joint tally under way: blocks are added in place."""

    def __init__(self, sizes: Sequence[int], dim: int, grid: float):
        self.sizes, self.grid = tuple(sizes), grid
        self.starts = [0, *accumulate(self.sizes)]
        self.pairs = np.zeros((self.starts[-1], self.starts[-1]))
        self.sums = np.zeros((self.starts[-1], dim))

    def add(self, x: np.ndarray, codes: np.ndarray) -> None:
        """Add vectors (n, D) and their codes (Q, n)."""
        self.add_sums(x, codes)
        self.add_pairs(codes)

    def add_sums(self, x: np.ndarray, codes: np.ndarray) -> None:
        """Add vectors to the sums only."""
        rounded = np.rint(x.astype(np.float64) / self.grid) * self.grid
        chosen = np.ascontiguousarray(codes, dtype=np.int32)
        of = steps.extent(rounded)
        for q, size in enumerate(self.sizes):
            own = slice(self.starts[q], self.starts[q + 1])
            self.sums[own] += steps.exact_sum(rounded, chosen[q], size, of).rounded()

    def add_pairs(self, codes: np.ndarray) -> None:
        """Count which codewords were chosen together, and no more."""
        chosen = codes.astype(np.int64)
        for q, size in enumerate(self.sizes):
            own = slice(self.starts[q], self.starts[q + 1])
            counts = np.bincount(chosen[q], minlength=size)
            self.pairs[own, own][np.diag_indices(size)] += counts
            for p, other in enumerate(self.sizes[:q]):
                both = chosen[p] * size + chosen[q]
                met = np.bincount(both, minlength=other * size).reshape(other, size)
                self.pairs[self.starts[p] : self.starts[p + 1], own] += met

    def tally(self) -> JointTally:
        """Return the tally of all that was added; nothing can be added then."""
        return JointTally.of(self.pairs, self.sums, self.sizes, self.grid)


class Errors(NamedTuple):
    """Squared errors of some rows."""

    rows: np.ndarray  # (n,), of all stages, summed over the numbers of a row
    mean: tuple[float, ...]  # of each prefix, per number

    @classmethod
    def of(cls, energies: np.ndarray, dim: int) -> Errors:
        """Return the errors of what `energies_left` gave of all rows."""
        numbers = energies.shape[1] * dim
        return cls(energies[-1], tuple(math.fsum(prefix.tolist()) / numbers for prefix in energies))


def energies_left(x: np.ndarray, codes: np.ndarray, codebooks: Codebooks) -> np.ndarray:
    """Return (Q, n): the squared length of what each prefix of the codes leaves of each row."""
    left, found = x.astype(np.float64), []
    for stage, chosen in zip(codebooks, codes, strict=True):
        left -= stage.codebook[chosen]
        found.append(core.energies(left))
    return np.array(found)


def refit(
    tally: JointTally, codebooks: Any, *, ridge: float = 1.0, prefixes: Any = 0.0
) -> Codebooks:
    """Return the codewords of all stages that give the smallest error for given codes.

    Parameters
    ----------
    tally : JointTally
        The tally of the vectors and their codes.
    codebooks : Codebooks or array (Q, K, D), floating
        The codebooks that the codes name.
    ridge : float, optional
        Weight of the squared distance to the old codewords, in rows: a codeword moves as if `ridge`
        additional rows equal to its old place had chosen it. At least 1e-6.
    prefixes : float or sequence of Q - 1 floats, optional
        Weight of the squared error of each shorter prefix, ``decode(codes[:n])`` for n from 1 to Q
        - 1; the weight of all stages is 1. Larger weights give a smaller error of prefixes and a
        larger error of all stages.

    Returns
    -------
    codebooks : Codebooks
        Codewords that no row chose are unchanged.

    Raises
    ------
    ParameterError
        If an argument has an invalid value; the message names it.
    ShapeError
        If tally and codebooks have different sizes.

    Notes
    -----
    Minimizes ``sum over rows and n of weight_n * |x - decode(codes[:n])|**2 + ridge * |c -
    old|**2``. ``2 * M**3 / 3`` operations for M codewords of all stages, memory for three (M, M).
    Babenko and Lempitsky, Additive Quantization, CVPR 2014.

    Examples
    --------
    >>> import numpy as np
    >>> codewords = np.float32([[[0.0], [4.0]], [[0.0], [1.0]]])
    >>> x, codes = np.float32([[0.0], [2.0], [5.0], [7.0]]), np.int32([[0, 0, 1, 1], [0, 1, 0, 1]])
    >>> better = refit(joint_tally(x, codes, codewords, reach=8), codewords, ridge=1e-6)
    >>> from rvq_np import decode
    >>> decode(codes, better).round(3).tolist()
    [[0.0], [2.0], [5.0], [7.0]]
    """
    arguments.kind("refit", "tally", tally, JointTally)
    codebooks = plain("refit", codebooks)
    if tally.sizes != codebooks.sizes or tally.sums.shape[1] != codebooks.dim:
        raise ShapeError(
            f"refit: tally is of codebooks of sizes {tally.sizes} and dimension "
            f"{tally.sums.shape[1]}; expected {codebooks.sizes} and {codebooks.dim}."
        )
    ridge = arguments.number("refit", "ridge", ridge, LEAST_RIDGE)
    old = np.concatenate([stage.codebook.astype(np.float64) for stage in codebooks])
    moved = solved(tally, old, ridge, prefix_weights("refit", prefixes, codebooks.n_q))
    return with_codewords(moved, codebooks)


def prefix_weights(call: str, prefixes: Any, n_q: int) -> np.ndarray:
    """Return the weight of each prefix (n_q,), the last 1, or raise ParameterError."""
    if np.ndim(prefixes) == 0:
        prefixes = [arguments.number(call, "prefixes", prefixes, 0)] * (n_q - 1)
    if len(prefixes) != n_q - 1:
        raise arguments.refused(
            call, "prefixes", prefixes, f"a number, or {n_q - 1} numbers, one per prefix"
        )
    given = [arguments.number(call, f"prefixes[{n}]", each, 0) for n, each in enumerate(prefixes)]
    return np.array([*given, 1.0])


def solved(tally: JointTally, old: np.ndarray, ridge: float, weights: np.ndarray) -> np.ndarray:
    """Return the codewords (M, D), float64, for a weight (Q,) of each prefix."""
    # Stage q counts in all prefixes that are longer than q; two stages in those of the later one.
    later = np.repeat(np.cumsum(weights[::-1])[::-1], tally.sizes)
    matrix = tally.pairs + np.triu(tally.pairs, 1).T
    matrix *= np.minimum(later[:, None], later[None, :])
    # For the change, not for the codewords: rounding then is a share of the change.
    right = tally.sums * later[:, None] - matrix @ old
    matrix[np.diag_indices(len(matrix))] += ridge
    return old + np.linalg.solve(matrix, right)


def with_codewords(codewords: np.ndarray, like: Codebooks) -> Codebooks:
    """Return codebooks of these codewords (M, D), of the sizes and float types of others."""
    parts = np.split(codewords, list(accumulate(like.sizes))[:-1])
    pairs = zip(parts, like, strict=True)
    return Codebooks([Stage(part.astype(stage.codebook.dtype)) for part, stage in pairs])


def plain(call: str, codebooks: Any) -> Codebooks:
    """Return codebooks whose decoding is a plain sum of codewords, or raise ParameterError."""
    codebooks = validation.plain(call, Codebooks.of(codebooks))
    for q, stage in enumerate(codebooks):
        if stage.project_in is not None or stage.project_out is not None:
            kind = "projections"
        elif stage.metric != "euclidean":
            kind = f"the metric {stage.metric}"
        else:
            continue
        raise ParameterError(
            f"{call}: stage {q} has {kind}; expected stages whose codewords are added up as they "
            "are. Train such stages with fit or a training step."
        )
    return codebooks
