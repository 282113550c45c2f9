"""Implementations of encoding on the GPU: codebooks (Q, K, D), float32, to an `Implementation`.

What depends only on the codebooks is computed before. The timed part is from vectors on the GPU to
codes on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import rvq_np
from rvq_np import backends

from .. import peers
from .context import Context

BLOCK = 1 << 18  # rows at a time for baselines, whose products would not fit otherwise

OURS = "rvq_np"
KERNELS = "rvq_np, kernel only"
EAGER = "torch eager"
EAGER_TF32 = "torch eager, TF32 (inexact)"
COMPILED = "torch.compile"
CUBLAS = "CuPy: cuBLAS product + argmin"
FAISS = "Faiss on the GPU"
CUVS = "cuVS brute force"


class Implementation(NamedTuple):
    """``run(put(x))`` is timed without `put`; ``get`` returns its codes (Q, N) as NumPy."""

    put: Callable[[Any], Any]
    run: Callable[[Any], Any]
    get: Callable[[Any], np.ndarray]


def ours(books: np.ndarray, context: Context) -> Implementation:
    """`rvq_np.encode` with its defaults, with validation of its input."""
    stages = rvq_np.Codebooks(books)
    return Implementation(_same, lambda x: rvq_np.encode(x, stages), lambda codes: codes.get())


def kernels(books: np.ndarray, context: Context) -> Implementation:
    """The search only, after validation: without the check for NaN and infinity."""
    backend, prepared = prepared_for(rvq_np.Codebooks(books), context)
    return Implementation(_same, lambda x: backend.encode(x, prepared), lambda codes: codes.get())


def prepared_for(stages: rvq_np.Codebooks, context: Context) -> tuple[Any, Any]:
    """Return the backend of GPU arrays, and the stages as it prepares them."""
    like = context.xp.zeros((1, stages.dim), np.float32)
    backend = backends.engine_of(like)
    return backend, stages.prepared(backend, like)


def torch_eager(books: np.ndarray, context: Context) -> Implementation:
    """EnCodec's formula in torch (``encodec/quantization/core_vq.py``), TF32 off."""
    return _torch(books, context, "highest", False)


def torch_tf32(books: np.ndarray, context: Context) -> Implementation:
    """The same with products of 10-bit mantissas: codes differ near ties."""
    return _torch(books, context, "high", False)


def torch_compiled(books: np.ndarray, context: Context) -> Implementation:
    """The same function through ``torch.compile``, compiled for each number of rows."""
    return _torch(books, context, "highest", True)


def _torch(books: np.ndarray, context: Context, precision: str, compiled: bool) -> Implementation:
    import torch

    block = peers.encodec_formula(tensor(books, context))

    if compiled:
        # torch silently stops compiling after a few compiled variants of a function.
        torch._dynamo.reset()
        block = torch.compile(block, dynamic=False, backend=context.size("inductor", "eager"))

    def run(x):
        torch.set_float32_matmul_precision(precision)
        with torch.inference_mode():
            if len(x) <= BLOCK:
                return block(x)
            return torch.cat([block(part) for part in x.split(BLOCK)], dim=1)

    return Implementation(lambda x: tensor(x, context), run, lambda codes: codes.cpu().numpy())


def tensor(array: Any, context: Context) -> Any:
    """Return an array as a torch tensor on the GPU, without a copy if it is there."""
    import torch

    if context.dry:
        return torch.from_numpy(array if isinstance(array, np.ndarray) else array.get())
    return torch.from_dlpack(context.xp.asarray(array))


def cublas(books: np.ndarray, context: Context) -> Implementation:
    """The simplest CuPy code: a product and an argmin per stage."""
    xp = context.xp
    codebooks = [xp.asarray(each) for each in books]
    halves = [0.5 * (each * each).sum(axis=1) for each in codebooks]

    def run(x):
        found = []
        for start in range(0, len(x), BLOCK):
            residual, codes = x[start : start + BLOCK], []
            for each, half in zip(codebooks, halves, strict=True):
                # The argmax saves a change of sign.
                code = xp.argmax(xp.matmul(residual, each.T) - half, axis=1)
                residual = residual - each[code]
                codes.append(code)
            found.append(xp.stack(codes))
        return found[0] if len(found) == 1 else xp.concatenate(found, axis=1)

    return Implementation(_same, run, lambda codes: codes.get())


def faiss_gpu(books: np.ndarray, context: Context) -> Implementation:
    """Faiss's exact search of the nearest codeword per stage, on torch tensors."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        raise ImportError("this Faiss is built without GPU support")
    import faiss.contrib.torch_utils
    import torch

    resources = faiss.StandardGpuResources()
    resources.setDefaultNullStreamAllDevices()  # where the events are
    codebooks = tensor(books, context)

    def run(x):
        residual, codes = x, []
        for each in codebooks:
            _, code = faiss.knn_gpu(resources, residual, each, 1)
            residual = residual - torch.nn.functional.embedding(code[:, 0], each)
            codes.append(code[:, 0])
        return torch.stack(codes)

    return Implementation(lambda x: tensor(x, context), run, lambda codes: codes.cpu().numpy())


def cuvs(books: np.ndarray, context: Context) -> Implementation:
    """cuVS's exact search of the nearest codeword per stage, on CuPy arrays."""
    from cuvs.common import Resources
    from cuvs.neighbors import brute_force

    xp = context.xp
    resources = Resources(stream=xp.cuda.Stream.null.ptr)  # where the events are
    codebooks = [xp.asarray(each) for each in books]
    indices = [
        brute_force.build(each, metric="sqeuclidean", resources=resources) for each in codebooks
    ]

    def run(x):
        residual, codes = x, []
        for each, index in zip(codebooks, indices, strict=True):
            _, code = brute_force.search(index, residual, 1, resources=resources)
            code = xp.asarray(code)[:, 0]
            residual = residual - each[code]
            codes.append(code)
        return xp.stack(codes)

    return Implementation(_same, run, lambda codes: codes.get())


def _same(x: Any) -> Any:
    return x


IMPLEMENTATIONS: dict[str, Callable[[np.ndarray, Context], Implementation]] = {
    OURS: ours,
    KERNELS: kernels,
    EAGER: torch_eager,
    EAGER_TF32: torch_tf32,
    COMPILED: torch_compiled,
    CUBLAS: cublas,
    FAISS: faiss_gpu,
    CUVS: cuvs,
}
