"""What the kernels read from one stage: its words laid out, its norms, its error bounds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from . import exact
from .seen import Seen

PANEL = 16  # columns of a linear map that are computed together: 512 rows of them stay in L1


@dataclass(frozen=True, eq=False)
class Tables:
    """One stage, prepared for NumPy kernels in one float type T."""

    words: np.ndarray  # (K, C) T: what is searched
    half: np.ndarray  # (K,) T: half the squared norms; inf marks a repeat of an earlier word
    half64: np.ndarray  # (K,) float64, finite
    bounds: np.ndarray  # (7,) float64: see `error_bounds`
    table: np.ndarray  # (K, D) T: what a code decodes to; `words` where there is no projection
    weight_in: np.ndarray | None = None  # (D, C) float64, transposed
    bias_in: np.ndarray | None = None  # (C,) float64
    unit: bool = False  # whether rows are divided by their norms, once projected

    @property
    def usable_half(self) -> np.ndarray:
        """Half squared norms (K,), float64; inf marks a repeat."""
        return np.where(np.isinf(self.half), np.inf, self.half64)

    @cached_property
    def seen(self) -> Seen:
        """What the search without Numba reads."""
        return Seen.of(self.words, self.half)

    @cached_property
    def alone(self) -> Stages:
        """The search of this stage as stages of their own: rows come projected."""
        return Stages([Tables(self.words, self.half, self.half64, self.bounds, self.words)])


class Stages(tuple):
    """The `Tables` of all stages, their words in one array; a slice shares all that is kept.

    ``words`` and ``table`` hold those of all stages one after the other, and `kept` is for what
    kernels derive from the whole.
    """

    words: np.ndarray
    table: np.ndarray
    kept: dict[Any, Any]
    whole: Stages
    part: slice

    def __new__(cls, tables: Any) -> Stages:
        tables = list(tables)
        words = np.concatenate([each.words.ravel() for each in tables])
        shared = all(each.table is each.words for each in tables)
        table = words if shared else np.concatenate([each.table.ravel() for each in tables])
        made, words_at, table_at = [], 0, 0
        for each in tables:  # views, so that nothing is held twice
            of_words = words[words_at : words_at + each.words.size].reshape(each.words.shape)
            of_table = table[table_at : table_at + each.table.size].reshape(each.table.shape)
            words_at, table_at = words_at + each.words.size, table_at + each.table.size
            made.append(replace(each, words=of_words, table=of_words if shared else of_table))
        self = super().__new__(cls, made)
        self.words, self.table, self.kept, self.whole, self.part = (
            words, table, {}, self, slice(None),
        )  # fmt: skip
        return self

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        if not isinstance(index, slice) or len(found) == len(self):
            return found if not isinstance(index, slice) else self
        places = range(len(self.whole))[self.part][index]
        some = super().__new__(Stages, found)
        some.words, some.table, some.kept, some.whole = (
            self.words, self.table, self.kept, self.whole,
        )  # fmt: skip
        some.part = slice(places.start, places.stop, places.step)
        return some


def stage_tables(stage, dtype, measure=None):
    """Prepare `stage` (``words``, ``project_in``, ``project_out``) for rows of type `dtype`."""
    words = np.array(stage.words, dtype=dtype, order="C")
    changes: dict[str, Any] = {}
    cosine = stage.metric == "cosine"
    made = word_tables(normalized(words) if cosine else words, measure)
    if cosine:
        # Without a projection there is the identity, so that rows are copied before division.
        changes = {"table": words, "unit": True}
        changes["weight_in"] = np.eye(words.shape[1])
        changes["bias_in"] = np.zeros(words.shape[1])
    if stage.project_in is not None:
        changes["weight_in"] = np.array(stage.project_in.weight.T, dtype=np.float64, order="C")
        changes["bias_in"] = np.array(stage.project_in.bias, dtype=np.float64)
    if stage.project_out is not None:  # folded into the decode table, never into the search
        weight, bias = stage.project_out.weight, stage.project_out.bias
        wide = words.astype(np.float64) @ weight.T.astype(np.float64) + bias
        changes["table"] = np.array(wide, dtype=dtype, order="C")
    return replace(made, **changes)


class Map(NamedTuple):
    """A linear map, in float64."""

    weight: np.ndarray  # (D, C)
    bias: np.ndarray  # (C,)
    panels: np.ndarray  # float32 if it holds all: per `PANEL` columns their weights, then biases


def map_tables(linear):
    """Prepare `linear` (``weight`` (C, D), ``bias``), its columns in panels that stay in cache."""
    weight = np.array(linear.weight.T, dtype=np.float64, order="C")
    bias = np.array(linear.bias, dtype=np.float64)
    parts = []
    for start in range(0, len(bias), PANEL):
        columns = slice(start, start + PANEL)
        parts += [weight[:, columns].ravel(), bias[columns]]
    dtype = np.result_type(linear.weight, linear.bias)  # one frame is as fast as it is read
    return Map(weight, bias, np.concatenate(parts).astype(dtype))


def word_tables(words, measure=None):
    """Return the `Tables` of `words` (K, D), searched and decoded as they are."""
    half64, repeat = (measure or measured)(words)
    half = np.minimum(half64, np.finfo(words.dtype).max).astype(words.dtype)
    bounds = error_bounds(half64, words.shape[1], words.dtype)
    half[repeat] = np.inf
    return Tables(words, half, np.minimum(half64, np.finfo(np.float64).max), bounds, words)


def normalized(rows):
    """Return `rows` (n, C) divided by their norms, in their float type; zeros stay zeros."""
    wide = rows.astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        largest = np.abs(wide).max(axis=1, keepdims=True, initial=0)
        wide /= np.where(largest > 0, largest, 1)
        norms = np.sqrt(np.square(wide).sum(axis=1, keepdims=True))
        return (wide / np.where(norms > 0, norms, 1)).astype(rows.dtype)


def measured(words):
    """Return half the squared norms (K,) of `words` (K, D), float64, and their `repeats`."""
    with np.errstate(over="ignore"):
        return 0.5 * np.square(words, dtype=np.float64).sum(axis=1), repeats(words)


def repeats(words):
    """Return a mask (K,) of the words equal to an earlier one: they can never be chosen.

    Folding them here keeps every tie between repeats (an all-zero codebook is nothing else)
    away from the exact tier.  Linear in ``K * D``.
    """
    plain = np.ascontiguousarray(words + 0.0)  # -0.0 equals 0.0 but has other bytes
    rows = plain.view(np.dtype((np.void, plain.dtype.itemsize * plain.shape[1]))).ravel()
    first: dict[Any, int] = {}
    return np.array([first.setdefault(row, k) != k for k, row in enumerate(rows.tolist())], bool)


def error_bounds(half64, dim, dtype):
    """Return what bounds the error of a computed score, as float64 (7,).

    A score is a sum of the half norm and `dim` products, in whatever order, fused or not, so each
    term passes through at most `dim` additions.  With u the unit roundoff and ``g(n) = n u / (1 -
    n u)`` (Higham, Accuracy and Stability, 2nd ed., 3.1) that is off by at most ``g(dim + 1)
    |row| |word|`` for the products, and for the half norm by its own error on top: two roundings
    where it was summed in float64 for a float32 screen, ``g(dim)`` where the screen is float64 too.
    Comparing with a rounded limit adds u of the result.  Where products underflow, flushed to
    zero or not, the smallest normal number per term is lost at most.  All of that is below ``g(m)
    (|row| |word| + |word|^2 / 2) + m * tiny`` with ``m = dim + 8``, or ``2 dim + 8`` in float64.

    0: largest norm of a word; 1: largest half squared norm; 2, 3: g(m) and m * tiny in T;
    4, 5: the same in float64; 6: above this, T may overflow.
    """
    type_info, wide_info = np.finfo(dtype), np.finfo(np.float64)
    largest = float(half64.max())
    wide_terms = 2 * dim + 8
    terms = wide_terms if np.dtype(dtype) == np.float64 else dim + 8

    def gamma(info, terms):
        share = terms * float(info.eps) / 2
        return share / (1 - share) if share < 0.5 else np.inf

    with np.errstate(over="ignore"):
        return np.array(
            [
                np.sqrt(2.0 * largest + dim * exact.LOST) * (1 + 1e-9),
                largest,
                gamma(type_info, terms),
                terms * float(type_info.tiny),
                gamma(wide_info, wide_terms) * (1 + 1e-9),
                wide_terms * float(wide_info.tiny),
                float(type_info.max) / 8,
            ]
        )
