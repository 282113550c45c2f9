"""Encode, decode and tally for NumPy arrays: which kernels, and what both kinds share.

This is what every backend whose arrays live in host memory calls.  Compiled kernels serve where
Numba can be imported, the same functions in plain NumPy elsewhere; both give the same codes.
Importing Numba takes half a second, so the first few small calls of a process are served by
NumPy: a script that encodes one clip is done before Numba would have been there.  `load` makes
an end of that.
"""

import logging
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np

from .. import forks
from . import prebuilt, tables, tiles, totals
from .plain import engine as plain

LEAF = 16384  # rows that a thread adds up before it takes others
WAIVED = 1 << 29  # products done by NumPy, about a tenth of a second, before Numba is loaded

kernels: ModuleType | None = None  # the engine in use, once that is known
_log = logging.getLogger("rvq_np")
_loading = forks.lock()
_waived = 0


def load() -> ModuleType:
    """Return the kernels that serve from now on: compiled, unless Numba cannot be imported."""
    global kernels
    with _loading:
        if kernels is None:
            try:
                from .compiled import engine as compiled

                kernels = compiled
            except ImportError as error:
                _log.info("NumPy is used instead of compiled kernels: %s", error)
                kernels = plain
            except Exception as error:  # a broken Numba must not take the NumPy path down
                _log.warning("The compiled kernels cannot be loaded; NumPy is used: %r", error)
                kernels = plain
    return kernels


def warm(dtype):
    """Run every kernel once on rows of type `dtype`; forks wait for the end of it."""
    with _loading:
        _warm(load(), dtype)


def _warm(using, dtype):
    codewords = np.random.default_rng(0).standard_normal((4, 2)).astype(dtype)
    single = tables.codeword_tables(codewords)
    mapped = replace(single, into=tables.Map(np.eye(2), np.zeros(2)))
    using.project(codewords, mapped)
    for screen in using.SCREENS:
        stages = tables.Stages([mapped] * 2)
        stages.kept["screen"] = screen
        encode(codewords, stages)
        stages = tables.Stages([single] * 2)
        stages.kept["screen"] = screen
        codes = encode(codewords, stages)
        encode(codewords, stages, 2)
        follow(codewords, dtype)(stages[:1])
    longer = tables.Map(np.ones((2, 1), dtype), np.zeros(2, dtype))  # a map that can be folded
    encode(
        codewords[:, :1],
        tables.Stages([replace(single, into=longer, table=codewords[:, :1].copy())]),
    )
    decode(codes, stages)
    tally(codewords, codes, stages)
    for kept in (np.float32, np.float64):
        linear = tables.Map(np.eye(2, dtype=kept), np.zeros(2, kept))
        using.transform(codewords, linear)
        using.transform(codewords.astype(np.float64), linear, dtype)


def kernels_for(products: int) -> Any:
    """Return the kernels for a call of so many products."""
    global _waived
    if kernels is not None:
        return kernels
    _waived += products
    return plain if _waived < WAIVED and prebuilt.library() is None else load()


def working_dtype(like, codewords_dtype):
    """The float type of residuals: the vectors', float32 for half, never below the codewords'."""
    like = np.dtype(like)
    narrow = like.kind != "f" or like.itemsize < 4  # bfloat16 has kind "V"
    return np.result_type(np.float32 if narrow else like, codewords_dtype)


def bits(codes: int) -> Any:
    """Return the functions that turn so many codes into bits and back: compiled or plain."""
    return kernels_for(100 * codes).bits


def prepare(codebooks, dtype):
    """Return the `Tables` of each stage, for vectors of type `dtype`."""
    dtype = working_dtype(dtype, codebooks.dtype)
    measure = (kernels or plain).measure  # whichever is there: no call is too small

    def prepared(stage):
        return tables.search_tables(stage, dtype, measure)

    found = tiles.spread(prepared, codebooks.stages)
    return tables.Stages(
        tables.with_table(each, stage, dtype, mapped_out)
        for each, stage in zip(found, codebooks.stages, strict=True)
    )


FOUND = ("screen", "left", "stays", "exponents")  # what a search finds out about stages
FORGET = 64  # searches after which it is found out again: codebooks that train get better


def search_again(rows, stage, codes, found):
    """Return `rows` as the stage searches them, and write their codes (n,).

    For a stage whose codewords have moved a little since the last call.

    `found`, a dictionary, carries on which screen served: one that leaves too many codewords is
    given up after some hundred rows, which each step of a training would find out again; and the
    size of codewords.  Neither shows in the codes.
    """
    searches = found.pop("searches", 0) + 1
    if searches % FORGET:
        stage.alone.kept.update(found)
    products = len(rows) * stage.codebook.size
    searched = kernels_for(products).project_and_search(rows, stage, codes)
    found.clear()
    found.update({name: stage.alone.kept[name] for name in FOUND if name in stage.alone.kept})
    found["searches"] = searches
    return searched


def encode(x, stages, beam_size=1, codes=None):
    """Return int32 codes (Q, N) of `x` (N, D), finite, of any float type; in `codes`, if given."""
    if codes is None:
        codes = np.empty((len(stages), len(x)), np.int32)
    using = kernels or kernels_for(len(x) * len(stages) * stages[0].codebook.size)
    if beam_size > 1:
        using.search_beams(x, stages, beam_size, codes[None])
    else:
        using.encode(x, stages, codes)
    return codes


def paths(x, stages, count):
    """Return int32 codes (count, Q, N): all hypotheses of a beam search, best first.

    `x` (N, D), finite, of any float type.  -1 where a row has fewer than `count` hypotheses.
    """
    codes = np.empty((count, len(stages), len(x)), np.int32)
    products = count * len(x) * len(stages) * stages[0].codebook.size
    kernels_for(products).search_beams(x, stages, count, codes)
    return codes


def path_distances(x, stages, codes, out):
    """Write into `out` (K, N) how far rows are from what each of their paths decodes to, squared.

    `x` (N, D), of any float type; `codes` (K, Q, N) int32, -1 where a row has fewer paths: infinity
    there.  What is left is rounded at each stage, as in a search; its squares are added in their
    order, in float64: the same number on every machine.
    """
    rows = _as_working(x, stages)
    kernels_for(codes.size * rows.shape[1]).path_distances(rows, stages, codes, out)


def ids(numbers: int) -> Any:
    """Return the functions of semantic IDs for so many numbers: compiled or plain.

    Plain ones are loops in Python: a number costs as much as some thousand products.
    """
    return kernels_for(10_000 * numbers).ids


def follow(x, dtype):
    """Return ``encode(stages)`` for rows `x` (N, D) and a stage whose codewords move a little."""
    x = np.ascontiguousarray(x, dtype=working_dtype(x.dtype, dtype))
    return load().follow(x)


def nearest(rows, stage, codes):
    """Write into `codes` (n,) the codeword of one stage nearest to each of `rows` (n, C)."""
    kernels_for(len(rows) * stage.codebook.size).nearest(rows, stage, codes)


def extent_later(x, by_row=False):
    """Return what gives the ends of all of `x` (2,), or of each entry of its first axis (2, n).

    They are known at once; NaN comes through both.
    """
    if by_row:
        rows = x.reshape(len(x), -1)
        ends = rows.min(axis=1), rows.max(axis=1)
    else:
        ends = x.min(), x.max()
    return lambda: ends


def project(x, prepared, dtype):
    """Return ``x @ weight + bias`` (N, C) of a `tables.Map`.

    In the float type of residuals between vectors of the type of `x` and codewords of type `dtype`.
    Compiled, the bits of a row do not depend on the other rows.
    """
    rows = np.ascontiguousarray(x, dtype=working_dtype(x.dtype, dtype))
    return transform(rows, prepared, rows.dtype)


def transform(rows, linear, dtype):
    """Return ``rows @ weight + bias`` (N, C) of a `tables.Map`, of type `dtype`."""
    rows = rows if rows.flags.writeable else rows.copy()  # read-only: another type to Numba
    return kernels_for(len(rows) * linear.shape[0] * linear.shape[1]).transform(rows, linear, dtype)


def mapped_out(rows, linear, dtype):
    """Return codewords `rows` through the map out of a stage, of type `dtype`.

    Where sums are not in float64 NumPy's bits are others: then one kind of kernels serves all.
    """
    if rows.dtype != np.float64:
        load()
    return transform(rows, linear, dtype)


def decode(codes, stages, out=None):
    """Return the sum, in stage order, of the codewords that `codes` (n, N) name: (N, D)."""
    dtype, dim = stages[0].table.dtype, stages[0].table.shape[1]
    if codes.dtype != np.int32 or not codes.flags.c_contiguous or not codes.flags.writeable:
        codes = np.array(codes, dtype=np.int32, order="C")  # one type for the compiled kernels
    if out is None:
        out = np.empty((codes.shape[1], dim), dtype)
    kernels_for(codes.size * dim).decode(codes, stages, out)
    return out


def tally(x, codes, stages):
    """Return per stage how often each codeword was chosen and the sum of what chose it, float64.

    ``(counts, sums)``: one array (K,) and one (K, C) a stage.  Sums are exact, rounded once: the
    same bits for any order of the rows and any number of threads.
    """
    counts, sums = add_up(x, codes, stages)
    return counts, [each.rounded() for each in sums]


def add_up(x, codes, stages):
    """As `tally`, but sums are `totals.ExactSum`."""
    if codes.dtype != np.int32 or not codes.flags.c_contiguous or not codes.flags.writeable:
        codes = np.array(codes, dtype=np.int32, order="C")
    using = kernels_for(codes.size * x.shape[1])
    starts = range(0, len(x), LEAF)

    def rows_at(start, copy):
        rows = x[start : start + LEAF]
        return _working_copy(rows, stages) if copy else _as_working(rows, stages)

    def extent_of(rows):
        return totals.extent_of(using.ends(rows), rows.dtype)

    left = totals.NOTHING
    for start in starts:
        left |= extent_of(rows_at(start, False))
    extents = [left]
    for stage in stages[:-1]:
        left = left.less(extent_of(_as_working(stage.table, stages)))
        extents.append(left)
    mapped = [stage.into is not None for stage in stages]

    def some(first):
        """Return the tally of every so many leaves."""
        counts = [np.zeros(len(stage.codebook)) for stage in stages]
        sums = [
            totals.ExactSum.zeros(extent, len(x), stage.codebook.shape)
            for extent, stage in zip(extents, stages, strict=True)
        ]
        for start in starts[first::workers]:
            rows = rows_at(start, len(stages) > 1)
            for q, stage in enumerate(stages):
                chosen = codes[q, start : start + LEAF]
                counts[q] += np.bincount(chosen, minlength=len(stage.codebook))
                searched, to = using.project(rows, stage), sums[q]
                if mapped[q]:
                    to = totals.ExactSum.zeros(extent_of(searched), len(searched), to.shape)
                using.tally(searched, chosen, to.magic, to.pieces)
                if mapped[q]:
                    sums[q] = to if start == starts[first] else sums[q] + to
                if q + 1 < len(stages):
                    using.subtract(rows, stage.table, chosen)
        return counts, sums

    workers = max(1, min(tiles.threads(), len(starts)))
    (counts, sums), *others = tiles.spread(some, range(workers))
    for more, parts in others:
        for q, (count, part) in enumerate(zip(more, parts, strict=True)):
            counts[q] += count
            if mapped[q]:
                sums[q] = sums[q] + part
            else:
                sums[q].pieces += part.pieces
    return counts, sums


def walk(x, codes, stages):
    """Yield per stage what it quantized, rows (N, C), and the codewords (N, C) its codes name."""
    rows = _working_copy(x, stages)
    for stage, row_codes in zip(stages[: len(codes)], codes, strict=True):
        yield kernels_for(0).project(rows, stage), stage.codebook[row_codes]
        rows = rows.copy()
        chosen = np.ascontiguousarray(row_codes, dtype=np.int32)
        kernels_for(0).subtract(rows, stage.table, chosen)


def _as_working(x, stages):
    """Return `x` itself if kernels can take it as it is; not for writing."""
    return as_type(x, stages[0].codebook.dtype)


def as_type(x, dtype):
    """Return `x` itself if kernels can take it as it is and it is of that type; not for writing."""
    rows = np.ascontiguousarray(x, dtype=dtype)
    return rows if rows.flags.writeable else rows.copy()  # read-only: another type to Numba


def _working_copy(x, stages):
    return np.array(x, dtype=stages[0].codebook.dtype, order="C")
