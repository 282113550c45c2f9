"""Who competes on the card: each takes codebooks (Q, K, D), float32, and gives a `Contestant`.

What depends on the codebooks alone is done beforehand. What is timed begins with vectors on the
card and ends with codes there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import rvq_np
from rvq_np import backends

from .. import peers
from .desk import Desk

BLOCK = 1 << 18  # rows of rivals at a time, whose products would not fit otherwise

OURS = "rvq_np"
KERNELS = "rvq_np, kernel only"
EAGER = "torch eager"
EAGER_TF32 = "torch eager, TF32 (inexact)"
COMPILED = "torch.compile"
CUBLAS = "CuPy: cuBLAS product + argmin"
FAISS = "Faiss on the GPU"
CUVS = "cuVS brute force"


class Contestant(NamedTuple):
    """``run(put(x))`` is timed but for the `put`; ``get`` makes NumPy codes (Q, N) of it."""

    put: Callable[[Any], Any]
    run: Callable[[Any], Any]
    get: Callable[[Any], np.ndarray]


def ours(books: np.ndarray, desk: Desk) -> Contestant:
    """`rvq_np.encode` as it comes, checks of its input included."""
    stages = rvq_np.Codebooks(books)
    return Contestant(_same, lambda x: rvq_np.encode(x, stages), lambda codes: codes.get())


def kernels(books: np.ndarray, desk: Desk) -> Contestant:
    """The search alone, behind all checks: it does not look whether all numbers are finite."""
    backend, prepared = prepared_for(rvq_np.Codebooks(books), desk)
    return Contestant(_same, lambda x: backend.encode(x, prepared), lambda codes: codes.get())


def prepared_for(stages: rvq_np.Codebooks, desk: Desk) -> tuple[Any, Any]:
    """Return the backend of the card's arrays, and what it keeps of the stages."""
    like = desk.xp.zeros((1, stages.dim), np.float32)
    backend = backends.engine_of(like)
    return backend, stages.prepared(backend, like)


def torch_eager(books: np.ndarray, desk: Desk) -> Contestant:
    """EnCodec's formula in torch (``encodec/quantization/core_vq.py``), TF32 off."""
    return _torch(books, desk, "highest", False)


def torch_tf32(books: np.ndarray, desk: Desk) -> Contestant:
    """The same with products of ten-bit numbers: codes differ near ties."""
    return _torch(books, desk, "high", False)


def torch_compiled(books: np.ndarray, desk: Desk) -> Contestant:
    """The same function through ``torch.compile``, compiled for each number of rows."""
    return _torch(books, desk, "highest", True)


def _torch(books: np.ndarray, desk: Desk, precision: str, compiled: bool) -> Contestant:
    import torch

    block = peers.encodec_formula(tensor(books, desk))

    if compiled:
        # It keeps a few compiled forms of a function and then compiles no more, without a word.
        torch._dynamo.reset()
        block = torch.compile(block, dynamic=False, backend=desk.size("inductor", "eager"))

    def run(x):
        torch.set_float32_matmul_precision(precision)
        with torch.inference_mode():
            if len(x) <= BLOCK:
                return block(x)
            return torch.cat([block(part) for part in x.split(BLOCK)], dim=1)

    return Contestant(lambda x: tensor(x, desk), run, lambda codes: codes.cpu().numpy())


def tensor(array: Any, desk: Desk) -> Any:
    """Return an array as a torch tensor on the card, without a copy if it is there."""
    import torch

    if desk.dry:
        return torch.from_numpy(array if isinstance(array, np.ndarray) else array.get())
    return torch.from_dlpack(desk.xp.asarray(array))


def cublas(books: np.ndarray, desk: Desk) -> Contestant:
    """What one writes with CuPy in five minutes: a product and an argmin per stage."""
    xp = desk.xp
    words = [xp.asarray(each) for each in books]
    halves = [0.5 * (each * each).sum(axis=1) for each in words]

    def run(x):
        found = []
        for start in range(0, len(x), BLOCK):
            residual, codes = x[start : start + BLOCK], []
            for each, half in zip(words, halves, strict=True):
                # The argmax of what is taken away saves the sign.
                code = xp.argmax(xp.matmul(residual, each.T) - half, axis=1)
                residual = residual - each[code]
                codes.append(code)
            found.append(xp.stack(codes))
        return found[0] if len(found) == 1 else xp.concatenate(found, axis=1)

    return Contestant(_same, run, lambda codes: codes.get())


def faiss_gpu(books: np.ndarray, desk: Desk) -> Contestant:
    """Faiss's exact search of the nearest word per stage, on torch tensors."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        raise ImportError("this Faiss is built without GPU support")
    import faiss.contrib.torch_utils
    import torch

    resources = faiss.StandardGpuResources()
    resources.setDefaultNullStreamAllDevices()  # where the events are
    words = tensor(books, desk)

    def run(x):
        residual, codes = x, []
        for each in words:
            _, code = faiss.knn_gpu(resources, residual, each, 1)
            residual = residual - torch.nn.functional.embedding(code[:, 0], each)
            codes.append(code[:, 0])
        return torch.stack(codes)

    return Contestant(lambda x: tensor(x, desk), run, lambda codes: codes.cpu().numpy())


def cuvs(books: np.ndarray, desk: Desk) -> Contestant:
    """cuVS's exact search of the nearest word per stage, on CuPy arrays."""
    from cuvs.common import Resources
    from cuvs.neighbors import brute_force

    xp = desk.xp
    resources = Resources(stream=xp.cuda.Stream.null.ptr)  # where the events are
    words = [xp.asarray(each) for each in books]
    indices = [brute_force.build(each, metric="sqeuclidean", resources=resources) for each in words]

    def run(x):
        residual, codes = x, []
        for each, index in zip(words, indices, strict=True):
            _, code = brute_force.search(index, residual, 1, resources=resources)
            code = xp.asarray(code)[:, 0]
            residual = residual - each[code]
            codes.append(code)
        return xp.stack(codes)

    return Contestant(_same, run, lambda codes: codes.get())


def _same(x: Any) -> Any:
    return x


CONTESTANTS: dict[str, Callable[[np.ndarray, Desk], Contestant]] = {
    OURS: ours,
    KERNELS: kernels,
    EAGER: torch_eager,
    EAGER_TF32: torch_tf32,
    COMPILED: torch_compiled,
    CUBLAS: cublas,
    FAISS: faiss_gpu,
    CUVS: cuvs,
}
