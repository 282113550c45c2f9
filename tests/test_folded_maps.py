"""A map folded into the codewords is a screen like others: it never shows in the codes."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import paths
from hypothesis import given
from hypothesis import strategies as st

import rvq_np
from rvq_np import Linear, Stage
from rvq_np.kernels import dispatch, tables
from rvq_np.kernels.compiled import engine as compiled
from rvq_np.kernels.compiled import packing
from rvq_np.kernels.plain import fold


def codes_of(x, books):
    """Return the codes with the maps folded and without, and the stages that were."""
    prepared = dispatch.prepare(books, x.dtype)
    assert compiled.packed(prepared) is prepared.kept[packing.FOLDED]
    ours = np.empty((len(prepared), len(x)), np.int32)
    compiled.encode(x, prepared, ours)
    theirs = np.empty_like(ours)
    with paths.patched((compiled, "FOLDING", False)):
        compiled.encode(x, dispatch.prepare(books, x.dtype), theirs)
    return ours, theirs, prepared


@st.composite
def quantizers(draw):
    """Draw ``(x, books)`` whose maps make rows longer, where it is hard to tell what is nearest.

    Whole numbers: ties everywhere, and maps that are exact. Codewords a few steps of float32 apart:
    their order is that of how a map was rounded. Sizes and offsets that a screen must allow for.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim, size, rows = draw(st.integers(1, 9)), draw(st.integers(1, 40)), draw(st.integers(1, 30))
    width = dim + draw(st.integers(1, 9))
    kind = draw(st.sampled_from(["whole", "normal", "close", "near", "far", "repeated"]))
    scale = np.float32(10.0 ** draw(st.sampled_from([-20, -6, 0, 0, 0, 6, 12])))
    offset = np.float32(draw(st.sampled_from([0, 0, 1, 100])))

    def numbers(*shape):
        if kind == "whole":
            return rng.integers(-3, 4, shape).astype(np.float32)
        return rng.standard_normal(shape).astype(np.float32)

    stages = []
    for _ in range(draw(st.integers(1, 3))):
        codewords = numbers(size, width)
        if kind == "close":
            codewords = np.tile(codewords[:1], (size, 1))
            steps = rng.integers(-2, 3, codewords.shape).astype(np.float32)
            codewords = codewords * (1 + steps * np.float32(2.0**-23))
        if kind == "near":
            codewords = codewords[:1] + np.float32(1e-4) * codewords
        if kind == "far":  # what maps make of rows is as far
            codewords += np.float32(300)
            offset = np.float32(300)
        if kind == "repeated":
            codewords[size // 2 :] = codewords[: size - size // 2]
        maps = (
            Linear(numbers(width, dim), numbers(width) + offset),
            Linear(numbers(dim, width), numbers(dim)),
        )
        maps = Linear(maps[0].weight, maps[0].bias * scale), maps[1]
        stages.append(Stage(codewords * scale, *maps))
    return numbers(rows, dim) * scale, rvq_np.Codebooks(stages)


@given(quantizers(), st.sampled_from([1, tables.LARGE]))
def test_codes_are_those_of_maps_that_are_not_folded(case, large):
    """By maps that are summed in float32, as large ones are, and in float64."""
    x, books = case
    with paths.patched((tables, "LARGE", large)):
        ours, theirs, _ = codes_of(x, books)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("dim", "bias", "margin"),
    [(200, 0.0, 0.0), (400, 0.0, 5e-6), (200, 3e4, 0.0), (200, 3e4, 6e-3)],
)
def test_what_a_map_rounds_decides_between_codewords_at_one_distance(dim, bias, margin, rng):
    """Rows of equal numbers, two outputs whose weights have one sum: equal, but for rounding.

    Codewords that differ in these outputs alone are equally near to what the map is in exact
    arithmetic, or the second is farther by a margin that is less than what rounding moves. What is
    quantized is the rounded row: a screen may not decide for itself.
    """
    weight = np.zeros((dim + 2, dim), np.float32)
    codewords = np.zeros((2, dim + 2), np.float32)
    codewords[0, 0] = codewords[1, 1] = 1
    codewords[1, 2] = np.sqrt(2 * margin)
    out = Linear(np.zeros((dim, dim + 2), np.float32), np.zeros(dim, np.float32))
    differ = 0
    for _ in range(10):
        weight[0] = 1 + 0.1 * rng.random(dim)
        weight[1] = rng.permutation(weight[0])
        x = np.repeat(rng.standard_normal((100, 1)).astype(np.float32), dim, axis=1)
        if bias:  # beside which each product is rounded alone
            mean, apart = rng.integers(900, 1100, dim // 2), rng.integers(1, 100, dim // 2)
            weight[0] = np.stack([mean + apart, mean - apart]).ravel() / 1024
            weight[1] = np.tile(mean, 2) / 1024
            x = np.round(x * 256) / 256
        assert weight.size >= tables.LARGE
        into = Linear(weight, np.float32([bias, bias, *[0] * dim]))
        books = rvq_np.Codebooks([Stage(codewords, into, out)])
        ours, theirs, _ = codes_of(x, books)
        np.testing.assert_array_equal(ours, theirs)
        differ += int((ours == 1).sum())
    assert 20 < differ < 980  # both are found: rounding decides


def large(rng, n_q=2):
    def numbers(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    return rvq_np.Codebooks(
        Stage(numbers(200, 90), Linear(numbers(90, 33) / 6, numbers(90)),
              Linear(numbers(33, 90) / 9, numbers(33)))
        for _ in range(n_q)
    )  # fmt: skip


def test_the_bounds_hold_and_leave_few(rng):
    """`away` and `apart` hold what float32 makes of the maps, and are not much more."""
    books = large(rng, 1)
    stage = dispatch.prepare(books, np.float32)[0]
    found = fold.folded(stage)
    x = rng.standard_normal((300, 33)).astype(np.float32)
    mapped = compiled.project(x, stage).astype(np.float64)
    codewords = stage.codebook.astype(np.float64)
    exact = 0.5 * np.square(codewords).sum(axis=1) - mapped @ codewords.T
    folded = found.scores - x.astype(np.float64) @ found.codebook.T.astype(np.float64)
    off = (exact - folded) - (exact - folded).mean(axis=1, keepdims=True)
    allowed = np.linalg.norm(x, axis=1)[:, None] * found.away + found.apart
    assert (np.abs(off) <= 2 * allowed).all()
    gaps = np.diff(np.sort(exact, axis=1)[:, :2], axis=1)
    assert np.median(gaps) > 100 * allowed.max()


def test_most_rows_are_never_mapped(rng, monkeypatch):
    books = large(rng)
    x = rng.standard_normal((600, 33)).astype(np.float32)
    ours, theirs, prepared = codes_of(x, books)
    np.testing.assert_array_equal(ours, theirs)
    assert prepared.kept["screen"] == packing.FOLDED
    spent = np.zeros(2, np.int64)
    compiled.run(x.copy(), compiled.packed(prepared), ours, 0, spent)
    assert spent[0] == 1200
    assert spent[1] < 3 * spent[0]


@pytest.mark.parametrize(("offset", "reach"), [(0, 1e-4), (30, 1)])
def test_most_rows_are_never_mapped_where_codewords_share_much(offset, reach, rng):
    """What all codewords share is no part of what a folded screen must allow for."""
    books = large(rng)
    stages = []
    for each in books.stages:
        point = offset + each.codebook[:1]
        into = Linear(each.project_in.weight, each.project_in.bias + np.float32(offset))
        codewords = point + np.float32(reach) * each.codebook
        stages.append(replace(each, codebook=codewords, project_in=into))
    x = rng.standard_normal((600, 33)).astype(np.float32)
    with paths.patched((tables, "LARGE", 1)):  # summed in float32, as large maps are
        ours, theirs, prepared = codes_of(x, rvq_np.Codebooks(stages))
    np.testing.assert_array_equal(ours, theirs)
    assert prepared.kept["screen"] == packing.FOLDED
    spent = np.zeros(2, np.int64)
    compiled.run(x.copy(), compiled.packed(prepared), ours, 0, spent)
    assert spent[0] == 1200
    assert spent[1] < 3 * spent[0]


def test_a_screen_that_leaves_many_rows_to_be_mapped_is_given_up(rng):
    """An offset of the map itself, beside which float32 rounds what tells codewords apart."""
    stage = large(rng, 1).stages[0]
    into = Linear(stage.project_in.weight, stage.project_in.bias + np.float32(2e4))
    books = rvq_np.Codebooks(
        [replace(stage, codebook=stage.codebook + np.float32(2e4), project_in=into)]
    )
    x = rng.standard_normal((600, 33)).astype(np.float32)
    with paths.patched((tables, "LARGE", 1)):
        ours, theirs, prepared = codes_of(x, books)
    np.testing.assert_array_equal(ours, theirs)
    assert prepared.kept["screen"] != packing.FOLDED


def test_stages_beside_each_other_need_not_all_be_folded(rng):
    books = large(rng)
    plain = Stage(rng.standard_normal((50, 33)).astype(np.float32))
    narrow = Stage(
        rng.standard_normal((50, 8)).astype(np.float32),
        Linear(rng.standard_normal((8, 33)).astype(np.float32), np.ones(8, np.float32)),
        Linear(rng.standard_normal((33, 8)).astype(np.float32) / 9, np.ones(33, np.float32)),
    )
    only = replace(books.stages[0], codebook=np.ones((1, 90), np.float32))
    mixed = rvq_np.Codebooks([plain, books.stages[0], narrow, only, books.stages[1]])
    ours, theirs, prepared = codes_of(rng.standard_normal((100, 33)).astype(np.float32), mixed)
    np.testing.assert_array_equal(ours, theirs)
    assert (prepared.kept[packing.FOLDED].whole[:, 14] >= 0).tolist() == [0, 1, 0, 0, 1]
    part = np.empty((3, 7), np.int32)  # a slice knows where its stages begin
    x = rng.standard_normal((7, 33)).astype(np.float32)
    compiled.encode(x, prepared[2:], part)
    np.testing.assert_array_equal(part, dispatch.encode(x, dispatch.prepare(mixed, np.float32)[2:]))


def test_huge_rows_are_mapped_and_found(rng):
    books = large(rng)
    x = rng.standard_normal((9, 33)).astype(np.float32) * np.float32(1e25)
    x[3] = 1
    ours, theirs, _ = codes_of(x, books)
    np.testing.assert_array_equal(ours, theirs)


def test_what_is_not_folded(rng):
    """Float64, directions, maps that make rows shorter."""
    stage = large(rng, 1).stages[0]
    wide = replace(stage, codebook=stage.codebook.astype(np.float64))
    assert fold.foldable(tables.search_tables(stage, np.dtype(np.float32)))
    assert not fold.foldable(tables.search_tables(wide, np.dtype(np.float64)))
    cosine = tables.search_tables(replace(stage, metric="cosine"), np.dtype(np.float32))
    assert not fold.foldable(cosine)
