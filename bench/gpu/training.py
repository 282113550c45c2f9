"""Are the words after a fit and after steps of training those of the host, bit for bit?"""

from __future__ import annotations

from typing import Any

import numpy as np

import rvq_np

from .codes import Case, drawn
from .desk import Desk

CASES = (Case(128, 1024, 2, 100000), Case(8, 333, 3, 50000, "float32", "offset"))
DRY = (Case(6, 8, 2, 150),)
STEPS = 3


def ask(desk: Desk) -> None:
    """Fits, then steps: first words, moving averages, words replaced.

    A fit goes round as often as it is told to: when to stop is said by a sum whose last bits may
    differ.
    """
    for case in desk.size(CASES, DRY):
        x, _ = drawn(case)
        for name, made in (("fit", _fitted), (f"{STEPS} steps", _stepped)):
            label = f"{name}: {case.label}"
            with desk.checking(label):
                wanted, found = made(case, x), made(case, desk.xp.asarray(x))
                off = [
                    key for key, each in wanted.items() if each.tobytes() != found[key].tobytes()
                ]
                detail = f"{', '.join(off)} differ" if off else "the bits of NumPy"
                desk.check(label, not off, detail)


def _quantizer(case: Case) -> Any:
    return rvq_np.ResidualVectorQuantizer(
        case.dim, case.dim, n_q=case.stages, bins=case.words, kmeans_iters=5, rng=0
    )


def _fitted(case: Case, x: Any) -> dict[str, np.ndarray]:
    return _quantizer(case).fit(x, tolerance=-1.0).state_dict()


def _stepped(case: Case, x: Any) -> dict[str, np.ndarray]:
    rvq = _quantizer(case).train()
    for step in range(STEPS):
        rvq(x[step::STEPS], 50)
    return rvq.state_dict()
