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
    if _on_host(like):
        return host.prepare(codebooks, like.dtype)
    return _elsewhere(like).prepare(codebooks, _plain(like))


def prepare_map(linear, like):
    return (
        tables.map_tables(linear) if _on_host(like) else _elsewhere(like).prepare_map(linear, like)
    )


def project(x, prepared, dtype):
    if _on_host(x):
        return _beside(x, host.project(np.asarray(x), prepared, dtype))
    return _elsewhere(x).project(_plain(x), prepared, dtype)


def encode(x, prepared, beam_size=1):
    if _on_host(x):
        return _beside(x, host.encode(np.asarray(x), prepared, beam_size))
    return _elsewhere(x).encode(_plain(x), prepared, beam_size)


def decode(codes, prepared):
    if _on_host(codes):
        return _beside(codes, host.decode(np.asarray(codes), prepared))
    return _elsewhere(codes).decode(codes, prepared)


def tally(x, codes, prepared):
    if _on_host(x):
        return host.tally(np.asarray(x), np.asarray(codes), prepared)
    return _elsewhere(x).tally(_plain(x), codes, prepared)


def stays(x):
    return not _on_host(x) and _elsewhere(x) is not _array_api


def extent(x):
    return _elsewhere(x).extent(_plain(x))


def assign(x):
    return _elsewhere(x).assign(_plain(x))


def walk(x, codes, prepared):
    return _elsewhere(x).walk(_plain(x), codes, prepared)


def searched(x, prepared):
    return _elsewhere(x).searched(_plain(x), prepared)


def residual(x, codes, prepared):
    return _elsewhere(x).residual(_plain(x), codes, prepared)


def _on_host(x):
    return all(device.platform == "cpu" for device in x.devices())


def _elsewhere(x):
    """Return what computes on arrays that are not in host memory."""
    devices = x.devices()
    here = {(device.platform, device.process_index) for device in devices}
    if len(devices) > 1 or here != {("gpu", jax.process_index())} or not _lent.ready():
        return _array_api
    (device,) = devices
    return _lent.Card(lambda: _there(device), jax.dlpack.from_dlpack)


@contextlib.contextmanager
def _there(device):
    """Queue on CuPy's current stream: by DLPack each side waits for the other's where they meet."""
    import cupy

    with cupy.cuda.Device(device.local_hardware_id):
        yield


def _plain(x):
    return x.astype(jax.numpy.float32) if x.dtype == jax.numpy.bfloat16 else x


def _beside(x, result):
    """Return a NumPy array as a JAX array on the device of `x`, one of several hosts' perhaps."""
    return jax.device_put(result, min(x.devices(), key=lambda device: device.id))
