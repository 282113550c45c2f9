"""Torch tensors.  Those in host memory are lent to the NumPy kernels, without a copy.

A tensor on a device goes the way of the array API: scores there, near-ties settled here.
bfloat16 cannot cross to NumPy, so it is widened to float32 first.  Nothing is recorded for
autograd: gradients are the business of `rvq_np.grad`.
"""

import numpy as np
import torch

from ..kernels import host, tables
from . import _array_api


def prepare(codebooks, like):
    if like.device.type == "cpu":
        return host.prepare(codebooks, _numpy_dtype(like))
    return _array_api.prepare(codebooks, like.detach())


def prepare_map(linear, like):
    if like.device.type == "cpu":
        return tables.map_tables(linear)
    return _array_api.prepare_map(linear, like.detach())


def project(x, prepared, dtype):
    if x.device.type == "cpu":
        return torch.from_numpy(host.project(_lent(x), prepared, dtype))
    return _array_api.project(x.detach(), prepared, dtype)


def encode(x, prepared, beam_size=1):
    if x.device.type == "cpu":
        return torch.from_numpy(host.encode(_lent(x), prepared, beam_size))
    return _array_api.encode(x.detach(), prepared, beam_size)


def decode(codes, prepared):
    if codes.device.type == "cpu":
        return torch.from_numpy(host.decode(_lent(codes), prepared))
    return _array_api.decode(codes, prepared)


def tally(x, codes, prepared):
    if x.device.type == "cpu":
        return host.tally(_lent(x), _lent(codes), prepared)
    return _array_api.tally(x.detach(), codes, prepared)


def _lent(tensor):
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _numpy_dtype(tensor):
    wide = {torch.float64: np.float64, torch.float16: np.float16}
    return np.dtype(wide.get(tensor.dtype, np.float32))
