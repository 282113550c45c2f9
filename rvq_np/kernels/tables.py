"""What the kernels read from one stage: its codewords laid out, its norms, its error bounds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from . import columns
from .plain import exact
from .plain.seen import Seen

LARGE = 1 << 15  # numbers of a map from which float32 rows are summed in float32


@dataclass(frozen=True, eq=False)
class Tables:
    """One stage, prepared for NumPy kernels in one float type T."""

    codebook: np.ndarray  # (K, C) T: what is searched
    half: np.ndarray  # (K,) T: half the squared norms; inf marks a repeat of an earlier codeword
    half64: np.ndarray  # (K,) float64, finite
    bounds: np.ndarray  # (7,) float64: see `error_bounds` and `columns.BOUNDS`
    table: np.ndarray  # (K, D) T: what a code decodes to; `codewords` where there is no projection
    into: Map | None = None  # from a row (D,) to what is searched (C,)
    unit: bool = False  # whether rows are divided by their norms, once projected

    @property
    def usable_half(self) -> np.ndarray:
        """Half squared norms (K,), float64; inf marks a repeat."""
        return np.where(np.isinf(self.half), np.inf, self.half64)

    @property
    def weight_in(self) -> np.ndarray | None:
        """The weight of `into`, (D, C) float64."""
        return None if self.into is None else self.into.weight

    @property
    def bias_in(self) -> np.ndarray | None:
        return None if self.into is None else self.into.bias

    @cached_property
    def seen(self) -> Seen:
        """What the search without Numba reads."""
        return Seen.of(self.codebook, self.half)

    @cached_property
    def alone(self) -> Stages:
        """The search of this stage as stages of their own: rows come projected."""
        return Stages([Tables(self.codebook, self.half, self.half64, self.bounds, self.codebook)])


class Stages(tuple):
    """The `Tables` of all stages, their codewords in one array; a slice shares all that is kept.

    ``codewords`` and ``table`` hold those of all stages one after the other, and `kept` is for what
    kernels derive from the whole.
    """

    codebook: np.ndarray
    table: np.ndarray
    kept: dict[Any, Any]
    whole: Stages
    part: slice

    def __new__(cls, tables: Any) -> Stages:
        tables = list(tables)
        if len(tables) == 1 and tables[0].table is tables[0].codebook:
            codewords = tables[0].codebook.ravel()  # a view: nothing is joined
        else:
            codewords = np.concatenate([each.codebook.ravel() for each in tables])
        shared = all(each.table is each.codebook for each in tables)
        table = codewords if shared else np.concatenate([each.table.ravel() for each in tables])
        made, codewords_at, table_at = [], 0, 0
        for each in tables:  # views, so that nothing is held twice
            of_codewords = codewords[codewords_at : codewords_at + each.codebook.size].reshape(
                each.codebook.shape
            )
            of_table = table[table_at : table_at + each.table.size].reshape(each.table.shape)
            codewords_at, table_at = codewords_at + each.codebook.size, table_at + each.table.size
            made.append(
                replace(each, codebook=of_codewords, table=of_codewords if shared else of_table)
            )
        self = super().__new__(cls, made)
        self.codebook, self.table, self.kept, self.whole, self.part = (
            codewords, table, {}, self, slice(None),
        )  # fmt: skip
        return self

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        if not isinstance(index, slice) or len(found) == len(self):
            return found if not isinstance(index, slice) else self
        places = range(len(self.whole))[self.part][index]
        some = super().__new__(Stages, found)
        some.codebook, some.table, some.kept, some.whole = (
            self.codebook, self.table, self.kept, self.whole,
        )  # fmt: skip
        some.part = slice(places.start, places.stop, places.step)
        return some


class Map:
    """A linear map of rows, ``weight @ row + bias``, and what kernels made of it."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray):
        self.given = weight, bias  # (C, D) and (C,), as they came
        self.kept: dict[Any, Any] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """D and C."""
        columns, dim = self.given[0].shape
        return dim, columns

    def summed(self, dtype: Any) -> Any:
        """Return the type in which rows of type `dtype` are summed."""
        return np.float64 if self.given[0].size < LARGE else dtype

    @cached_property
    def weight(self) -> np.ndarray:
        """(D, C), float64."""
        return np.array(self.given[0].T, dtype=np.float64, order="C")

    @cached_property
    def bias(self) -> np.ndarray:
        """(C,), float64."""
        return np.array(self.given[1], dtype=np.float64)


def map_of(linear: Any) -> Map:
    """Return the `Map` of `linear` (``weight``, ``bias``), kept with it for as long as it lives."""
    kept = vars(linear)
    return kept.get("_map") or kept.setdefault("_map", Map(linear.weight, linear.bias))


def as_writable(array: np.ndarray) -> np.ndarray:
    """Return a view of a frozen array that says it may be written to; whoever takes it only reads.

    To compiled kernels, and to torch, a read-only array is another type or none at all.
    """
    about = dict(array.__array_interface__, data=(array.__array_interface__["data"][0], False))
    return np.asarray(SimpleNamespace(__array_interface__=about, array=array))


class WayIn(NamedTuple):
    """How rows become what a stage searches with: all that mapping them needs of its tables."""

    into: Map | None
    unit: bool


def way_in(stage):
    """Return the `WayIn` of a stage; nothing is computed of its codewords."""
    if stage.project_in is not None:
        return WayIn(map_of(stage.project_in), stage.metric == "cosine")
    if stage.metric != "cosine":
        return WayIn(None, False)
    width = stage.codebook.shape[1]  # the identity, so that rows are copied before division
    return WayIn(Map(np.eye(width), np.zeros(width)), True)


def search_tables(stage, dtype, measure=None):
    """Prepare the search of `stage` for rows of type `dtype`; codes decode to `codewords`."""
    codewords = stage.codebook
    if codewords.dtype == dtype and codewords.flags.c_contiguous:
        codewords = as_writable(codewords)
    else:
        codewords = np.array(codewords, dtype=dtype, order="C")
    if stage.metric == "cosine":
        made = replace(codeword_tables(normalized(codewords), measure), table=codewords, unit=True)
    else:
        made = codeword_tables(codewords, measure)
    into = way_in(stage).into
    return made if into is None else replace(made, into=into)


def with_table(made, stage, dtype, transform):
    """Return `search_tables` of a stage with what all its codes decode to.

    ``transform(rows, map, dtype)`` maps rows by a `Map`.
    """
    if stage.project_out is None:
        return made
    # folded into the decode table, never into the search
    return replace(made, table=decoded(stage, slice(None), dtype, transform))


def decoded(stage, codes, dtype, transform):
    """Return what `codes` decode to (n, D), in the order of `codes`: no row depends on others."""
    codewords = stage.codebook[codes]
    if stage.project_out is None:
        return codewords.astype(dtype, copy=False)
    out = map_of(stage.project_out)
    return transform(codewords.astype(out.summed(dtype), copy=False), out, dtype)


def codeword_tables(codewords, measure=None):
    """Return the `Tables` of `codebook` (K, D), searched and decoded as they are."""
    half64, repeat = (measure or measured)(codewords)
    half = np.minimum(half64, np.finfo(codewords.dtype).max).astype(codewords.dtype)
    bounds = error_bounds(half64, codewords.shape[1], codewords.dtype)
    half[repeat] = np.inf
    return Tables(codewords, half, np.minimum(half64, np.finfo(np.float64).max), bounds, codewords)


def normalized(rows):
    """Return `rows` (n, C) divided by their norms, in their float type; zeros stay zeros."""
    wide = rows.astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        largest = np.abs(wide).max(axis=1, keepdims=True, initial=0)
        wide /= np.where(largest > 0, largest, 1)
        norms = np.sqrt(np.square(wide).sum(axis=1, keepdims=True))
        return (wide / np.where(norms > 0, norms, 1)).astype(rows.dtype)


def measured(codewords):
    """Return half the squared norms (K,) of `codebook` (K, D), float64, and their `repeats`."""
    with np.errstate(over="ignore"):
        return 0.5 * np.square(codewords, dtype=np.float64).sum(axis=1), repeats(codewords)


def repeats(codewords):
    """Return a mask (K,) of the codewords equal to an earlier one: they can never be chosen.

    Folding them here keeps every tie between repeats (an all-zero codebook is nothing else)
    away from the exact tier.  Linear in ``K * D``.
    """
    plain = np.ascontiguousarray(codewords + 0.0)  # -0.0 equals 0.0 but has other bytes
    rows = plain.view(np.dtype((np.void, plain.dtype.itemsize * plain.shape[1]))).ravel()
    first: dict[Any, int] = {}
    return np.array([first.setdefault(row, k) != k for k, row in enumerate(rows.tolist())], bool)


def error_bounds(half64, dim, dtype):
    """Return what bounds the error of a computed score, as float64 (7,).

    A score is a sum of the half norm and `dim` products, in whatever order, fused or not, so each
    term passes through at most `dim` additions.  With u the unit roundoff and ``g(n) = n u / (1 -
    n u)`` (Higham, Accuracy and Stability, 2nd ed., 3.1) that is off by at most ``g(dim + 1)
    |row| |codeword|`` for the products, and for the half norm by its own error on top: two
    roundings where it was summed in float64 for a float32 screen, ``g(dim)`` where the screen is
    float64 too. Comparing with a rounded limit adds u of the result.  Where products underflow,
    flushed to zero or not, the smallest normal number per term is lost at most.  All of that is
    below ``g(m) (|row| |codeword| + |codeword|^2 / 2) + m * tiny`` with ``m = dim + 8``, or ``2 dim
    + 8`` in float64.

    `columns.BOUNDS` names the numbers.
    """
    type_info, wide_info = np.finfo(dtype), np.finfo(np.float64)
    largest = float(half64.max())
    wide_terms = 2 * dim + 8
    terms = wide_terms if np.dtype(dtype) == np.float64 else dim + 8

    def gamma(info, terms):
        share = terms * float(info.eps) / 2
        return share / (1 - share) if share < 0.5 else np.inf

    with np.errstate(over="ignore"):
        bounds = np.empty(len(columns.BOUNDS))
        bounds[columns.LARGEST_NORM] = np.sqrt(2.0 * largest + dim * exact.LOST) * (1 + 1e-9)
        bounds[columns.LARGEST_HALF] = largest
        bounds[columns.SHARE] = gamma(type_info, terms)
        bounds[columns.LEAST] = terms * float(type_info.tiny)
        bounds[columns.WIDE_SHARE] = gamma(wide_info, wide_terms) * (1 + 1e-9)
        bounds[columns.WIDE_LEAST] = wide_terms * float(wide_info.tiny)
        bounds[columns.OVERFLOW] = float(type_info.max) / 8
    return bounds
