"""Arrays of any library: their namespace, the way here and the way back.

No library is imported that the array did not bring.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import BackendError


def namespace(*arrays: Any) -> Any:
    """Return the array API namespace of `arrays`, which must be of one library.

    Raises
    ------
    BackendError
        If they are of several libraries.
    """
    if all(isinstance(each, np.ndarray) for each in arrays):
        return np
    from array_api_compat import array_namespace

    try:
        return array_namespace(*arrays)
    except TypeError as error:
        kinds = ", ".join(f"{type(each).__module__}.{type(each).__qualname__}" for each in arrays)
        raise BackendError(
            f"rvq_np got arrays of kinds {kinds}; wanted one library that follows the array API "
            "standard. Convert them to the kind of x first."
        ) from error


def asarray(values: np.ndarray, like: Any) -> Any:
    """Return the NumPy array `values` as an array of the library and on the device of `like`."""
    if isinstance(like, np.ndarray):
        return values
    from array_api_compat import device

    xp = namespace(like)
    try:
        return xp.asarray(values, device=device(like))
    except ValueError:  # JAX names a way of sharding here, which need not fit this array
        return xp.asarray(values)


def detached(x: Any) -> Any:
    """Return `x` without the record of where it came from that an autograd framework keeps."""
    return x.detach() if hasattr(x, "detach") else x


def to_numpy(x: Any) -> np.ndarray:
    """Return `x` as a NumPy array, copied off its device if it is on one; bfloat16 as float32."""
    x = detached(x)
    if "bfloat16" in str(getattr(x, "dtype", "")) and not isinstance(x, np.ndarray):
        xp = namespace(x)
        x = xp.astype(x, xp.float32)
    try:
        return np.asarray(x)
    except (TypeError, RuntimeError, ValueError):
        return np.from_dlpack(x, device="cpu", copy=True)
