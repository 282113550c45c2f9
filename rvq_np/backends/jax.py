"""JAX arrays.  Those in host memory are lent to the NumPy kernels, without a copy.

NumPy's exact tiers need float64, which JAX has switched off by default: one more reason to
compute there.  An array on one NVIDIA card is lent to CuPy where that is installed; elsewhere it
goes the way of the array API.  Inside ``jax.jit`` there are no values to look at, and that is said
plainly.
"""

import contextlib

import jax
import numpy as np

from ..errors import BackendError
from ..kernels import host, tables
from . import _array_api, _lent


def check(x):
    """Refuse a traced value: under ``jax.jit`` there is nothing to look at."""
    if isinstance(x, jax.core.Tracer):
        raise BackendError(
            "rvq_np got a traced JAX value: under jax.jit, grad or vmap an array has no values to "
            "search with. Call it outside the transform, or through jax.pure_callback."
        )


def prepare(codebooks, like):
    other = _elsewhere(like)
    if other is None:
        return host.prepare(codebooks, like.dtype)
    return other.prepare(codebooks, _plain(like))


def prepare_map(linear, like):
    other = _elsewhere(like)
    return tables.map_of(linear) if other is None else other.prepare_map(linear, _plain(like))


def project(x, prepared, dtype):
    other = _elsewhere(x)
    if other is None:
        return _beside(x, host.project(np.asarray(x), prepared, dtype))
    return other.project(_plain(x), prepared, dtype)


def encode(x, prepared, beam_size=1):
    other = _elsewhere(x)
    if other is None:
        return _beside(x, host.encode(np.asarray(x), prepared, beam_size))
    return other.encode(_plain(x), prepared, beam_size)


def decode(codes, prepared):
    other = _elsewhere(codes)
    if other is None:
        return _beside(codes, host.decode(np.asarray(codes), prepared))
    return other.decode(codes, prepared)


def tally(x, codes, prepared):
    other = _elsewhere(x)
    if other is None:
        return host.tally(np.asarray(x), np.asarray(codes), prepared)
    return other.tally(_plain(x), codes, prepared)


def stays(x):
    return _elsewhere(x) not in (None, _array_api)


extent, assign, add_up, walk, searched, residual = _lent.training(
    lambda x: _elsewhere(x), lambda x: _plain(x)
)


def _elsewhere(x):
    """Return what computes on arrays that are not in host memory; None for those that are."""
    devices = x.devices()
    if all(device.platform == "cpu" for device in devices):
        return None
    device = min(devices, key=lambda each: each.id)
    alone = len(devices) == 1 and device.process_index == jax.process_index()
    if not (alone and device.platform == "gpu" and _lent.ready()):
        return _array_api
    return _lent.Card(lambda: _there(device), _back, inside=lambda array: array)


@contextlib.contextmanager
def _there(device):
    """Queue on CuPy's current stream: by DLPack each side waits for the other's where they meet."""
    import cupy

    with cupy.cuda.Device(device.local_hardware_id):
        yield


def _back(array):
    """Return a CuPy array as one of JAX, which has float64 only where that is switched on."""
    if array.dtype == np.float64 and not jax.config.jax_enable_x64:
        array = array.astype(np.float32)
    return jax.numpy.from_dlpack(array)


def _plain(x):
    return x.astype(jax.numpy.float32) if x.dtype == jax.numpy.bfloat16 else x


def _beside(x, result):
    """Return a NumPy array as a JAX array on the device of `x`, one of several hosts' perhaps."""
    return jax.device_put(result, min(x.devices(), key=lambda device: device.id))
