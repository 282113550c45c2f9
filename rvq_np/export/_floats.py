"""Numbers of a quantizer in the type that a format has, or a refusal."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ParameterError


def narrowed(call: str, what: str, array: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
    """Return `array` in `dtype`, or raise ParameterError where it would hold infinity."""
    with np.errstate(over="ignore", under="ignore"):
        values = array.astype(dtype)
    if not np.isfinite(values).all():
        raise ParameterError(
            f"{call}: a {what} has numbers beyond {np.dtype(dtype).name}; expected smaller ones."
        )
    return values
