"""Torch tensors.  Those in host memory are lent to the NumPy kernels, without a copy.

A tensor on an NVIDIA card is lent to CuPy where that is installed, on torch's current stream; on
another device it goes the way of the array API: scores there, near-ties settled here.  bfloat16
cannot cross to NumPy or CuPy, so it is widened to float32 first.  Nothing is recorded for
autograd: gradients are the business of `rvq_np.grad`.
"""

import contextlib

import numpy as np
import torch

from ..kernels import host, tables
from . import _array_api, _lent


def stays(x):
    return _elsewhere(x) not in (None, _array_api)


def prepare(codebooks, like):
    other = _elsewhere(like)
    if other is None:
        return host.prepare(codebooks, _numpy_dtype(like))
    return other.prepare(codebooks, _plain(like))


def prepare_map(linear, like):
    other = _elsewhere(like)
    return tables.map_of(linear) if other is None else other.prepare_map(linear, _plain(like))


def project(x, prepared, dtype):
    other = _elsewhere(x)
    if other is None:
        return torch.from_numpy(host.project(_here(x), prepared, dtype))
    return other.project(_plain(x), prepared, dtype)


def encode(x, prepared, beam_size=1):
    other = _elsewhere(x)
    if other is None:
        return torch.from_numpy(host.encode(_here(x), prepared, beam_size))
    return other.encode(_plain(x), prepared, beam_size)


def decode(codes, prepared):
    other = _elsewhere(codes)
    if other is None:
        return torch.from_numpy(host.decode(_here(codes), prepared))
    return other.decode(codes, prepared)


def tally(x, codes, prepared):
    other = _elsewhere(x)
    if other is None:
        return host.tally(_here(x), _here(codes), prepared)
    return other.tally(_plain(x), codes, prepared)


extent, assign, add_up, walk, searched, residual = _lent.training(
    lambda x: _elsewhere(x), lambda x: _plain(x)
)


def _elsewhere(x):
    """Return what computes on tensors that are not in host memory; None for those that are."""
    if x.device.type == "cpu":
        return None
    if x.device.type != "cuda" or torch.version.cuda is None or not _lent.ready():
        return _array_api
    return _lent.Card(lambda: _there(x.device), torch.from_dlpack)


@contextlib.contextmanager
def _there(device):
    import cupy

    queue = torch.cuda.current_stream(device).cuda_stream
    with cupy.cuda.Device(device.index), cupy.cuda.ExternalStream(queue):
        yield


def _here(tensor):
    return _plain(tensor).numpy()


def _plain(tensor):
    tensor = tensor.detach()
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def _numpy_dtype(tensor):
    wide = {torch.float64: np.float64, torch.float16: np.float16}
    return np.dtype(wide.get(tensor.dtype, np.float32))
