"""Are codebooks after a fit and after training steps those of the host, bit for bit?"""

from __future__ import annotations

from typing import Any

import numpy as np

import rvq_np

from .codes import Case, drawn
from .context import Context

CASES = (Case(128, 1024, 2, 100000), Case(8, 333, 3, 50000, "float32", "offset"))
DRY = (Case(6, 8, 2, 150),)
STEPS = 3


def ask(context: Context) -> None:
    """Check fits, then steps: initialization, moving averages, dead-code replacement.

    A fit runs a fixed number of iterations: the criterion to stop is a sum whose last bits may
    differ.
    """
    for case in context.size(CASES, DRY):
        x, _ = drawn(case)
        for name, made in (("fit", _fitted), (f"{STEPS} steps", _stepped)):
            label = f"{name}: {case.label}"
            with context.checking(label):
                expected, found = made(case, x), made(case, context.xp.asarray(x))
                off = [
                    key for key, each in expected.items() if each.tobytes() != found[key].tobytes()
                ]
                detail = f"{', '.join(off)} differ" if off else "same bits as NumPy"
                context.check(label, not off, detail)


def _quantizer(case: Case) -> Any:
    return rvq_np.ResidualVectorQuantizer(
        case.dim, case.dim, n_q=case.stages, bins=case.size, kmeans_iters=5, rng=0
    )


def _fitted(case: Case, x: Any) -> dict[str, np.ndarray]:
    return _quantizer(case).fit(x, tolerance=-1.0, refine=False).state_dict()


def _stepped(case: Case, x: Any) -> dict[str, np.ndarray]:
    rvq = _quantizer(case).train()
    for step in range(STEPS):
        rvq(x[step::STEPS], 50)
    return rvq.state_dict()
