"""How long a round of k-means takes: the nearest words, and the means of who chose them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rvq_np import backends

from ..problems import clustered
from . import contestants
from .clock import in_turns
from .contestants import BLOCK, OURS, tensor
from .desk import Desk

SIZES = ((65536, 128, 1024), (1 << 20, 128, 1024))  # N, D, K: the host's benchmark, and more
DRY = ((40, 6, 9),)


def ask(desk: Desk) -> None:
    """One round from the same words, each contestant; the last size is the target's."""
    for rows, dim, count in desk.size(SIZES, DRY):
        label = f"N={rows}, D={dim}, K={count}"
        drawn = clustered(rows, dim, count)
        x, words = desk.xp.asarray(drawn), desk.xp.asarray(drawn[:count])
        calls = {}
        expected = _ours(x, words, desk)().get()
        for name, make in ROUNDS.items():
            with desk.fence(name, label):
                again = make(x, words, desk)
                off = float(np.abs(_numpy(again()) - expected).max())
                if off > 0.05 * float(np.abs(expected).max()):  # a near-tie moves a mean a little
                    raise ValueError(f"means differ from ours by up to {off:.3g}")
                calls[name] = [again]
        for name, seconds in in_turns(desk, calls, label).items():
            desk.figure(label, name, seconds, vectors=rows, flops=2 * rows * dim * count)
        calls.clear()
        desk.free()


def _numpy(means: Any) -> np.ndarray:
    return means.get() if hasattr(means, "get") else means.cpu().numpy()


def _ours(x: Any, words: Any, desk: Desk) -> Any:
    assign = backends.engine_of(x).assign(x)

    def again():
        counts, sums = assign(words)
        return (sums / desk.xp.maximum(counts, 1.0)[:, None]).astype(np.float32)

    return again


def _torch(x: Any, words: Any, desk: Desk) -> Any:
    import torch

    rows, given = tensor(x, desk), tensor(words, desk)

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


def _cuvs(x: Any, words: Any, desk: Desk) -> Any:
    from cuvs.cluster.kmeans import KMeansParams, fit

    parameters = KMeansParams(n_clusters=len(words), max_iter=1, init_method="Array")

    def again():
        result = fit(parameters, x, centroids=words.copy())
        return desk.xp.asarray(result[0])

    return again


ROUNDS = {OURS: _ours, contestants.EAGER: _torch, "cuVS k-means": _cuvs}
