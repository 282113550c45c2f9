"""`given`, as the kit uses it: without a deadline, so that slow is never taken for wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, settings

Case = tuple[np.ndarray, np.ndarray]


def given(
    *strategies: Any, examples: float = 1, bounds: tuple[float, float] | None = None
) -> Callable[[Any], Any]:
    """Return a decorator as `hypothesis.given`, with `examples` times as many as usual.

    `bounds`: only cases, the first of what is drawn, that are `within` them.
    """
    if bounds is not None:
        kept = bounds
        strategies = (strategies[0].filter(lambda case: within(case, kept)), *strategies[1:])

    def decorated(test: Any) -> Any:
        usual = settings.default
        suppressed = [*usual.suppress_health_check, HealthCheck.filter_too_much]
        chosen = settings(
            deadline=None, max_examples=max(1, int(examples * usual.max_examples)),
            suppress_health_check=suppressed if bounds else usual.suppress_health_check,
        )  # fmt: skip
        return chosen(hypothesis.given(*strategies)(test))

    return decorated


def within(case: Case, bounds: tuple[float, float]) -> bool:
    """Return whether all numbers of a case that are not zero are within bounds, in size."""
    sizes = np.abs(np.concatenate([np.ravel(each).astype(np.float64) for each in case]))
    sizes = sizes[sizes > 0]
    return bool(((sizes >= bounds[0]) & (sizes <= bounds[1])).all())
