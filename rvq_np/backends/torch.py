"""Torch tensors.  Those in host memory are shared with the NumPy kernels, without a copy.

A tensor on an NVIDIA GPU is shared with CuPy where that is installed, on torch's current stream; on
another device it goes the way of the array API: scores there, near-ties resolved on the host.
bfloat16 cannot cross to NumPy or CuPy, so it is widened to float32 first.  Nothing is recorded for
autograd: gradients are the business of `rvq_np.grad`.
"""

import contextlib
from typing import Any

import torch

from ..errors import BackendError
from . import Entered, _array_api, _dlpack, on_host

ENGINE = _array_api  # of a tensor that is shared with no other library


def enter(x: Any) -> Entered:
    gpu, tensor, alike = _gpu(x), x.detach(), None
    half = tensor.dtype == torch.bfloat16
    if half and (gpu or tensor.device.type == "cpu"):
        tensor = tensor.float()
    if gpu:
        found = _dlpack.enter(tensor, *gpu)
    elif tensor.device.type == "cpu":
        found = on_host(_numpy(tensor), torch.from_numpy)
    else:
        return Entered(_array_api, tensor, None)
    if half:
        alike = lambda result: found.out(result).bfloat16()  # noqa: E731
    return found._replace(back_alike=alike)


def _numpy(tensor: Any) -> Any:
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantized, or of a type NumPy lacks
        raise BackendError(
            f"rvq_np cannot compute on a torch.Tensor of layout {tensor.layout} and dtype "
            f"{tensor.dtype}: {error} Pass a dense tensor of floats, e.g. x.to_dense().float()."
        ) from error


def _gpu(x: Any) -> Any:
    """Return what `_lent.enter` takes for a tensor that CuPy can compute on, or None."""
    if x.device.type != "cuda" or torch.version.cuda is None or not _dlpack.ready():
        return None
    return (lambda: _there(x.device)), torch.from_dlpack


@contextlib.contextmanager
def _there(device: Any) -> Any:
    import cupy

    queue = torch.cuda.current_stream(device).cuda_stream
    with cupy.cuda.Device(device.index), cupy.cuda.ExternalStream(queue):
        yield
