"""Decoding, tallies, residuals and linear maps are those of NumPy."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import paths
from helpers.kernel_cases import IN_PANEL, grid, projected

import rvq_np
from rvq_np.kernels import dispatch, tables
from rvq_np.kernels.compiled import engine as compiled
from rvq_np.kernels.compiled import gather, maps
from rvq_np.kernels.compiled import target as processor
from rvq_np.kernels.plain import engine as plain

# Tiles, blocks, panels, threads


@pytest.fixture(params=[True, False], ids=["large map", "small map"])
def large_map(request, monkeypatch):
    """All maps are taken for large, or for small: float32 rows are summed in float32, or wider."""
    monkeypatch.setattr(tables, "LARGE", 1 if request.param else 1 << 60)
    return request.param


def filled(kind, *shape):
    """Return an array within a larger one, and whether that is untouched."""
    whole = np.full((shape[0] + 2, *shape[1:]), 3, kind)
    return whole[1:-1], lambda: (whole[0] == 3).all() and (whole[-1] == 3).all()


# Decode, tally, subtract, project


WIDTHS = [1, 2, 3, 7, 15, 16, 17, 31, 33, 63, 127, 128, 129, 255, 257]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", WIDTHS)
def test_codewords_are_looked_up_and_added_as_numpy_does(dtype, dim, rng):
    """Bit for bit; and not a number is written behind the last row."""
    sizes = (5, 1, 40)
    stages = dispatch.prepare(
        rvq_np.Codebooks(
            [rvq_np.Stage(rng.standard_normal((k, dim)).astype(dtype)) for k in sizes]
        ),
        dtype,
    )
    codes = np.stack([rng.integers(0, k, 37) for k in sizes]).astype(np.int32)

    for n in range(4):
        for part in (stages, stages[: max(n, 1)]):
            ours, untouched = filled(dtype, 37, dim)
            theirs = np.empty((37, dim), dtype)
            compiled.decode(codes[:n], part, ours)
            plain.decode(codes[:n], part, theirs)
            np.testing.assert_array_equal(ours, theirs)
            assert untouched()
    middle = stages[1:]  # a slice knows where its codewords begin
    compiled.decode(codes[1:], middle, ours)
    plain.decode(codes[1:], middle, theirs)
    np.testing.assert_array_equal(ours, theirs)

    rows, untouched = filled(dtype, 37, dim)
    rows[:] = rng.standard_normal((37, dim))
    for n_grids in (1, 2, 3):  # grids that sums are made on
        magic = 1.5 * 2.0 ** np.array([50 - 20 * g for g in range(n_grids - 1)])
        sums, untouched_sums = filled(np.float64, n_grids * 40, dim)
        sums = sums.reshape(n_grids, 40, dim)
        sums[:] = 0
        expected = np.zeros(sums.shape)
        compiled.tally(rows, codes[2], magic, sums)
        plain.tally(rows, codes[2], magic, expected)
        np.testing.assert_array_equal(sums, expected)
        threaded = np.zeros(sums.shape)
        compiled.add_rows(rows, codes[2], magic, threaded)
        np.testing.assert_array_equal(threaded, expected)
        assert untouched_sums()
    assert compiled.ends(rows) == plain.ends(rows)

    plainly = rows.copy()
    plain.subtract(plainly, stages[2].table, codes[2])
    gather.subtract(rows, stages[2].table, codes[2])
    np.testing.assert_array_equal(rows, plainly)
    assert untouched()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", WIDTHS)
def test_rows_are_projected_as_numpy_does(dtype, dim, large_map, rng):
    """On a grid, where sums in float64 are exact; elsewhere within what a sum may be off."""
    for width in (1, 3, 8, 16, 21, 130):
        stage = dispatch.prepare(rvq_np.Codebooks([projected(rng, 2, width, dim)]), dtype)[0]
        rows = grid(rng, 9, dim).astype(dtype)
        np.testing.assert_array_equal(compiled.project(rows, stage), plain.project(rows, stage))
        weight, bias = rng.standard_normal((width, dim)), rng.standard_normal(width)
        stage = replace(stage, into=tables.Map(weight.astype(dtype), bias.astype(dtype)))
        rows = rng.standard_normal((9, dim)).astype(dtype)
        size = np.abs(rows) @ np.abs(stage.weight_in) + np.abs(stage.bias_in)
        off = 2 * (dim + 2) * 2.0**-53 * size
        if large_map:  # one sum in the type of the rows, see `regret`
            off = (dim + 1) * np.finfo(dtype).eps * size
        ours, theirs = compiled.project(rows, stage), plain.project(rows, stage)
        rounding = np.finfo(dtype).eps * np.abs(theirs)
        assert (np.abs(ours.astype(float) - theirs) <= off + rounding).all()


LANES = processor.LANES
COLUMNS = sorted({1, 7, LANES, LANES + 1, IN_PANEL - 1, IN_PANEL, IN_PANEL + 1, 3 * IN_PANEL + 5})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kept", [np.float32, np.float64])
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.usefixtures("large_map")
def test_maps_are_numpys_on_a_grid(dtype, kept, columns, rng):
    """Where sums are exact; nothing beside the outputs is written."""
    linear = tables.Map(grid(rng, columns, 33).astype(kept), grid(rng, columns).astype(kept))
    for count in range(1, 2 * maps.ROWS + 2):
        rows = grid(rng, count, 33).astype(dtype)
        expected = plain.transform(rows, linear)
        np.testing.assert_array_equal(compiled.transform(rows, linear), expected)
        out, untouched = filled(dtype, count, columns)
        maps.transform(rows, maps.panels_of(linear, dtype), out, 0, count)
        np.testing.assert_array_equal(out, expected)
        assert untouched()
    wide = compiled.transform(rows.astype(np.float64), linear, np.float32)
    np.testing.assert_array_equal(wide, expected)
    assert wide.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", [1, 2, 33, 300])
@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.usefixtures("large_map")
def test_a_mapped_row_does_not_depend_on_the_rows_or_columns_beside(dtype, dim, columns, rng):
    """Bit for bit: alone, among few or many, whichever panel a column falls into."""
    weight, bias = rng.standard_normal((columns, dim)), rng.standard_normal(columns)
    linear = tables.Map(weight.astype(dtype), bias.astype(dtype))
    rows = rng.standard_normal((3 * maps.ROWS + maps.FEW, dim)).astype(dtype)
    whole = compiled.transform(rows, linear)
    for count in range(1, maps.ROWS + 2):
        for start in (0, 1, len(rows) - count):
            some = compiled.transform(rows[start : start + count].copy(), linear)
            np.testing.assert_array_equal(some, whole[start : start + count])
    last = tables.Map(weight[-1:].astype(dtype), bias[-1:].astype(dtype))
    np.testing.assert_array_equal(compiled.transform(rows, last)[:, 0], whole[:, -1])


def test_a_map_is_summed_in_the_order_of_the_dimensions(large_map):
    """2^24 + 1 - 2^24 is 0 in float32 if added in turn: the order is part of the answer."""
    linear = tables.Map(np.float32([[2.0**24, 1.0, -(2.0**24)]] * 5), np.zeros(5, np.float32))
    rows = np.ones((maps.ROWS, 3), np.float32)
    np.testing.assert_array_equal(compiled.transform(rows, linear), 0 if large_map else 1)
    np.testing.assert_array_equal(compiled.transform(rows[:1], linear), 0 if large_map else 1)
    np.testing.assert_array_equal(compiled.transform(rows.astype(np.float64), linear), 1)


@pytest.mark.usefixtures("large_map")
def test_a_weight_beyond_float32_makes_no_nan_of_zeros():
    linear = tables.Map(np.float64([[1e300]]), np.float64([3.0]))
    np.testing.assert_array_equal(compiled.transform(np.zeros((2, 1), np.float32), linear), 3)


def test_a_beam_over_projections_does_not_depend_on_the_rows_beside(rng):
    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    def maps():
        return rvq_np.Linear(normal(5, 40), normal(5)), rvq_np.Linear(normal(40, 5), normal(40))

    books = rvq_np.Codebooks([rvq_np.Stage(normal(30, 5), *maps()) for _ in range(3)])
    x = normal(50, 40)
    kept = []
    project = compiled.project

    def watched(rows, stage):
        kept.append((rows.copy(), project(rows, stage)))
        return kept[-1][1]

    with paths.patched((compiled, "project", watched)):
        whole = rvq_np.encode(x, books, beam_size=4)
    assert len(kept) == 3
    stages = dispatch.prepare(books, np.float32)
    for (rows, mapped), stage in zip(kept, stages, strict=True):
        for n in (0, 3, 49):
            np.testing.assert_array_equal(mapped[n : n + 1], project(rows[n : n + 1], stage))
    for n in range(len(x)):
        np.testing.assert_array_equal(
            rvq_np.encode(x[n : n + 1], books, beam_size=4)[:, 0], whole[:, n]
        )
