"""JAX arrays.  Those in host memory are lent to the NumPy kernels, without a copy.

NumPy's exact tiers need float64, which JAX has switched off by default: one more reason to
compute there.  An array on a device goes the way of the array API.  Inside ``jax.jit`` there are
no values to look at, and that is said plainly.
"""

import jax
import numpy as np

from ..errors import BackendError
from ..kernels import host, tables
from . import _array_api


def check(x):
    """Refuse a traced value: under ``jax.jit`` there is nothing to look at."""
    if isinstance(x, jax.core.Tracer):
        raise BackendError(
            "rvq_np got a traced JAX value: under jax.jit, grad or vmap an array has no values to "
            "search with. Call it outside the transform, or through jax.pure_callback."
        )


def prepare(codebooks, like):
    if _on_host(like):
        return host.prepare(codebooks, like.dtype)
    return _array_api.prepare(codebooks, like)


def prepare_map(linear, like):
    return tables.map_tables(linear) if _on_host(like) else _array_api.prepare_map(linear, like)


def project(x, prepared, dtype):
    if _on_host(x):
        return _beside(x, host.project(np.asarray(x), prepared, dtype))
    return _array_api.project(x, prepared, dtype)


def encode(x, prepared, beam_size=1):
    if _on_host(x):
        return _beside(x, host.encode(np.asarray(x), prepared, beam_size))
    return _array_api.encode(x, prepared, beam_size)


def decode(codes, prepared):
    if _on_host(codes):
        return _beside(codes, host.decode(np.asarray(codes), prepared))
    return _array_api.decode(codes, prepared)


def tally(x, codes, prepared):
    if _on_host(x):
        return host.tally(np.asarray(x), np.asarray(codes), prepared)
    return _array_api.tally(x, codes, prepared)


def _on_host(x):
    return all(device.platform == "cpu" for device in x.devices())


def _beside(x, result):
    """Return a NumPy array as a JAX array on the device of `x`, one of several hosts' perhaps."""
    return jax.device_put(result, min(x.devices(), key=lambda device: device.id))
