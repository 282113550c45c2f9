"""The time of an iteration of k-means: the nearest codewords, and the means of their vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from rvq_np import backends

from ..problems import clustered
from . import implementations
from .clock import in_turns
from .context import Context
from .implementations import BLOCK, OURS, tensor

SIZES = ((65536, 128, 1024), (1 << 20, 128, 1024))  # N, D, K: the host's benchmark, and more
DRY = ((40, 6, 9),)


def ask(context: Context) -> None:
    """Measure one iteration from the same codebook; the last size is that of the target."""
    for rows, dim, count in context.size(SIZES, DRY):
        label = f"N={rows}, D={dim}, K={count}"
        drawn = clustered(rows, dim, count)
        x, codebook = context.xp.asarray(drawn), context.xp.asarray(drawn[:count])
        calls = {}
        expected = _ours(x, codebook, context)().get()
        for name, make in KMEANS.items():
            with context.fence(name, label):
                again = make(x, codebook, context)
                off = float(np.abs(_numpy(again()) - expected).max())
                if off > 0.05 * float(np.abs(expected).max()):  # a near-tie changes a mean a little
                    raise ValueError(f"means differ from ours by up to {off:.3g}")
                calls[name] = [again]
        for name, seconds in in_turns(context, calls, label).items():
            context.figure(label, name, seconds, vectors=rows, flops=2 * rows * dim * count)
        calls.clear()
        context.free()


def _numpy(means: Any) -> np.ndarray:
    return means.get() if hasattr(means, "get") else means.cpu().numpy()


def _ours(x: Any, codebook: Any, context: Context) -> Any:
    assign = backends.engine_of(x).assign(x)

    def again():
        counts, sums = assign(codebook)
        means = sums.rounded() / context.xp.maximum(counts, 1.0)[:, None]
        return means.astype(np.float32)

    return again


def _torch(x: Any, codebook: Any, context: Context) -> Any:
    import torch

    rows, given = tensor(x, context), tensor(codebook, context)

    def again():
        torch.set_float32_matmul_precision("highest")
        with torch.inference_mode():
            half = 0.5 * given.pow(2).sum(1)
            sums = torch.zeros_like(given)
            counts = torch.zeros(len(given), device=given.device)
            for part in rows.split(BLOCK):
                code = (half - part @ given.t()).argmin(dim=1)
                sums.index_add_(0, code, part)
                counts.index_add_(0, code, torch.ones_like(part[:, 0]))
            return sums / counts.clamp(min=1.0)[:, None]

    return again


def _cuvs(x: Any, codebook: Any, context: Context) -> Any:
    from cuvs.cluster.kmeans import KMeansParams, fit

    parameters = KMeansParams(n_clusters=len(codebook), max_iter=1, init_method="Array")

    def again():
        result = fit(parameters, x, centroids=codebook.copy())
        return context.xp.asarray(result[0])

    return again


KMEANS = {OURS: _ours, implementations.EAGER: _torch, "cuVS k-means": _cuvs}
