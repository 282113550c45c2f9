"""What tests of the kernels share."""

from types import SimpleNamespace

import numpy as np
import pytest

import rvq_np
from rvq_np.kernels import tables
from rvq_np.kernels.compiled import engine as compiled
from rvq_np.kernels.compiled import jit, packing, search
from rvq_np.kernels.compiled import rows as row_kernels
from rvq_np.kernels.compiled import target as processor

EACH_SCREEN = pytest.mark.parametrize("screen", compiled.SCREENS)
IN_PANEL = processor.LANES * processor.VECTORS


@jit.kernel
def _bound(
    rows,
    panels,
    side,
    centres,
    moved,
    whole,
    real,
    quantized,
    params,
    starts,
    norms,
    powers,
    bounds,
):
    count = rows.shape[0]
    row_kernels.quantize(rows, 0, count, centres, moved, whole, real, 0,
                     quantized, params, starts, norms, powers)  # fmt: skip
    search._screen(quantized, count, panels, whole, 0, side, params, bounds)


def stage_of(codewords):
    return tables.Stages([tables.codeword_tables(np.array(codewords))])


def screened(rows, codewords, screen):
    """Return what a screen says of all pairs, and by which numbers.  Kernels are called here only.

    `bounds` (n, K) and those of the `padding`; the same as `stored` (n, panels, vectors, lanes)
    with the `least` over the vectors; `slack`, `norms`, `powers` (n,), `heavy` (K,), `unit`,
    `ratio`, `lowered` and `centre` (C,) as in `pack`; `repeats` (K,).
    """
    plan = packing.plan(
        stage_of(codewords), screen, processor.LANES, processor.VECTORS, processor.PER_STEP[screen]
    )
    group = -(-len(rows) // search.ROWS) * search.ROWS
    quantized, params, starts, norms, powers, bounds, _, moved = search.workspace(plan, group)[:8]
    bounds[:] = np.nan
    _bound(rows, plan.panels, plan.side, plan.centres, moved, plan.whole, plan.real,
           quantized, params, starts, norms, powers, bounds)  # fmt: skip
    n_panels = int(plan.whole[0, 3])
    stored = bounds[: len(rows)].reshape(
        len(rows), n_panels, processor.VECTORS + 1, processor.LANES
    )
    by_codeword = stored[:, :, 1:].reshape(len(rows), n_panels * IN_PANEL)
    real = plan.real[0]
    return SimpleNamespace(
        bounds=by_codeword[:, : len(codewords)], padding=by_codeword[:, len(codewords) :],
        least=stored[:, :, 0],
        stored=stored[:, :, 1:], slack=-params[: len(rows), 1].astype(float),
        norms=norms[: len(rows)], powers=powers[: len(rows)],
        heavy=plan.side[2, : len(codewords)].astype(float), heaviest=real[12],
        unit=real[7], ratio=real[8], lowered=real[9],
        centre=plan.centres if plan.whole[0, 11] >= 0 else np.zeros(codewords.shape[1]),
        repeats=np.isinf(plan.half),
    )  # fmt: skip


def grid(rng, *shape, steps=8):
    """Return multiples of 1/8: sums are exact in any order, so that projections are, too."""
    return rng.integers(-4 * steps, 4 * steps + 1, shape).astype(np.float32) / 8


def projected(rng, n_codewords, width, dim):
    pick = rng.integers(-1, 2, (width, dim)), rng.integers(-1, 2, (dim, width))
    return rvq_np.Stage(
        grid(rng, n_codewords, width),
        rvq_np.Linear(pick[0].astype(np.float64), grid(rng, width).astype(np.float64)),
        rvq_np.Linear(pick[1].astype(np.float64), grid(rng, dim).astype(np.float64)),
    )
