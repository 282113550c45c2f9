"""JAX arrays.  Those in host memory are shared with the NumPy kernels, without a copy.

NumPy's exact tiers need float64, which JAX has switched off by default: one more reason to
compute there.  An array on one NVIDIA GPU is shared with CuPy where that is installed; elsewhere it
goes the way of the array API.  Inside ``jax.jit`` there are no values to look at, and that is said
plainly.
"""

import contextlib
from typing import Any

import jax
import numpy as np

from ..errors import BackendError
from . import Entered, _array_api, _dlpack, on_host

ENGINE = _array_api  # of an array that is shared with no other library


def enter(x: Any) -> Entered:
    if isinstance(x, jax.core.Tracer):
        raise BackendError(
            "rvq_np got a traced JAX value: under jax.jit, grad or vmap an array has no values to "
            "search with. Call it outside the transform, or through jax.pure_callback."
        )
    gpu = _gpu(x)
    if gpu and x.dtype == jax.numpy.bfloat16:
        found = _dlpack.enter(x.astype(jax.numpy.float32), *gpu)
        return found._replace(
            back_alike=lambda result: found.out(result).astype(jax.numpy.bfloat16)
        )
    if gpu:
        return _dlpack.enter(x, *gpu)
    devices = x.devices()
    if any(device.platform != "cpu" for device in devices):
        return Entered(_array_api, x, None)
    beside = min(devices, key=lambda device: device.id)  # the array may be on several hosts
    return on_host(np.asarray(x), lambda result: jax.device_put(result, beside))


def _gpu(x: Any) -> Any:
    """Return what `_lent.enter` takes for an array that CuPy can compute on, or None."""
    devices = x.devices()
    device = min(devices, key=lambda each: each.id)
    alone = len(devices) == 1 and device.process_index == jax.process_index()
    if not (alone and device.platform == "gpu" and _dlpack.ready()):
        return None
    return (lambda: _there(device)), _back


@contextlib.contextmanager
def _there(device: Any) -> Any:
    """Queue on CuPy's current stream: by DLPack each side waits for the other's where they meet."""
    import cupy

    with cupy.cuda.Device(device.local_hardware_id):
        yield


def _back(array: Any) -> Any:
    """Return a CuPy array as one of JAX, which has float64 only where that is switched on."""
    if array.dtype == np.float64 and not jax.config.jax_enable_x64:
        array = array.astype(np.float32)
    return jax.numpy.from_dlpack(array)
