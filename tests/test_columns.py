"""The tables that kernels read have columns with names, and a name is the column it says."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

import rvq_np
from rvq_np.kernels import columns as every
from rvq_np.kernels import cuda, dispatch
from rvq_np.kernels.compiled import columns
from rvq_np.kernels.cuda import columns as gpu

KERNELS = Path(rvq_np.__file__).parent / "kernels"
TABLES = {
    "whole", "real", "side", "folded", "params", "starts", "offs", "spent", "numbers",
}  # fmt: skip


@pytest.fixture
def stages():
    rng = np.random.default_rng(0)
    shapes = {"first": (40, 5), "projected": (7, 3), "single": (1, 5)}
    codebooks = {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    maps = [
        rvq_np.Linear(np.ones((to, of), np.float32), np.zeros(to)) for to, of in ((3, 5), (5, 3))
    ]
    made = [
        rvq_np.Stage(codebook, *(maps if name == "projected" else ()))
        for name, codebook in codebooks.items()
    ]
    return dispatch.prepare(rvq_np.Codebooks(made), np.float32)


@pytest.mark.quick
def test_columns_of_bounds_are_what_the_bounds_are(stages):
    for stage in stages:
        width, bounds = stage.codebook.shape[1], stage.bounds
        squares = np.square(stage.codebook.astype(np.float64)).sum(axis=1)
        assert bounds.shape == (len(every.BOUNDS),)
        np.testing.assert_allclose(bounds[every.LARGEST_HALF], 0.5 * squares.max())
        np.testing.assert_allclose(bounds[every.LARGEST_NORM], np.sqrt(squares.max()), rtol=1e-6)
        assert bounds[every.SHARE] == pytest.approx((width + 8) * 2.0**-24, rel=1e-3)
        assert bounds[every.WIDE_SHARE] == pytest.approx((2 * width + 8) * 2.0**-53, rel=1e-3)
        assert bounds[every.LEAST] == (width + 8) * 2.0**-126
        assert bounds[every.WIDE_LEAST] == (2 * width + 8) * 2.0**-1022
        assert bounds[every.OVERFLOW] == np.finfo(np.float32).max / 8


def test_columns_of_a_plan_are_what_is_in_it(stages):
    from rvq_np.kernels.compiled import packing
    from rvq_np.kernels.compiled.target import LANES, VECTORS

    plan = packing.plan(stages, "float32", LANES, VECTORS, 1)
    whole, real, in_panel = plan.whole, plan.real, LANES * VECTORS
    assert whole.shape == (3, len(columns.WHOLE))
    assert real.shape == (3, len(columns.REAL))
    assert len(plan.side) == len(columns.SIDE)
    np.testing.assert_array_equal(whole[:, columns.SIZE], [40, 7, 1])
    np.testing.assert_array_equal(whole[:, columns.WIDTH], [5, 3, 5])
    np.testing.assert_array_equal(whole[:, columns.STEPS], [5, 3, 5])
    np.testing.assert_array_equal(whole[:, columns.PACKED], [5, 3, 5])
    panels = whole[:, columns.PANELS]
    np.testing.assert_array_equal(panels, [-(-40 // in_panel), -(-7 // in_panel), 1])
    np.testing.assert_array_equal(whole[:, columns.CODEWORDS_AT], [0, 200, 221])
    np.testing.assert_array_equal(whole[:, columns.TABLE_AT], [0, 200, 235])
    np.testing.assert_array_equal(whole[:, columns.HALF_AT], [0, 40, 47])
    before = np.cumsum(panels) - panels
    packed = panels * whole[:, columns.STEPS] * in_panel
    np.testing.assert_array_equal(whole[:, columns.PANELS_AT], np.cumsum(packed) - packed)
    np.testing.assert_array_equal(whole[:, columns.SIDE_AT], before * in_panel)
    np.testing.assert_array_equal(whole[:, columns.MAP_AT], [-1, 0, -1])
    np.testing.assert_array_equal(whole[:, columns.UNIT_ROWS], [0, 0, 0])
    np.testing.assert_array_equal(whole[:, columns.ONLY], [-1, -1, 0])
    np.testing.assert_array_equal(whole[:, columns.FOLDS_AT], [-1, -1, -1])
    np.testing.assert_array_equal(whole[:, columns.FOLDED_AT], [-1, -1, -1])
    np.testing.assert_array_equal(real[:, : len(every.BOUNDS)], [each.bounds for each in stages])
    assert (np.log2(real[:, columns.UNIT]) % 1 == 0).all()
    np.testing.assert_array_equal(real[:, columns.USABLE], [1, 1, 1])
    np.testing.assert_array_equal(real[:, columns.FULL_SCALE], [0, 0, 0])
    for q, stage in enumerate(stages):
        at = whole[q, columns.SIDE_AT]
        side, size = plan.side[:, at : at + len(stage.codebook)], len(stage.codebook)
        assert side[columns.NORM].max() == np.float32(real[q, columns.HEAVIEST])
        np.testing.assert_array_equal(side[columns.STEP], np.ones(size))
        assert (side[columns.LOWERED_HALF] <= 0.5 * np.square(side[columns.NORM])).all()


@pytest.mark.quick
def test_columns_on_a_gpu_are_named_as_in_cuda():
    text = cuda.source("encode.cu")
    found = [
        [name.strip() for name in each.split(",")] for each in re.findall(r"enum \{(.*?)\};", text)
    ]
    whole = next(each for each in found if "CENTRE_AT" in each)
    real = next(each for each in found if "UNIT" in each)
    for names, table in ((whole[:-1], gpu.WHOLE), (real[:-1], gpu.REAL)):
        assert [getattr(gpu, name) for name in names] == list(table)
        assert set(names) <= set(vars(gpu))


@pytest.mark.quick
def test_what_both_kernels_know_has_one_name():
    """A name that both sets have stands for the same thing, each at a place of its own."""
    shared = {"SIZE", "CODEWORDS_AT", "HALF_AT", "CENTRE_AT", "UNIT"}
    names = {each for each in vars(gpu) if each.isupper()} - {"WHOLE", "REAL"}
    assert names & set(vars(columns)) == shared
    assert names - set(vars(columns)) == {"SCREEN_AT", "LARGEST", "REST", "HALF"}


@pytest.mark.quick
@pytest.mark.parametrize("path", sorted(KERNELS.rglob("*.py")), ids=lambda each: each.stem)
def test_no_column_is_a_bare_number(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Subscript):
            name = getattr(node.value, "attr", getattr(node.value, "id", None))
            parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            numbers = [each for each in parts if isinstance(each, ast.Constant)]
            assert name not in TABLES or not numbers, f"line {node.lineno}: {ast.unparse(node)}"
            assert name != "bounds" or len(parts) > 1 or not numbers, f"line {node.lineno}"
