"""Realistic quantizers: fitted codebooks with dead codewords, on data like their training data.

The Gaussian codebooks of `problems` are hard for every search; fitted ones differ. Their codewords
are where vectors are, some are chosen often and some never, and residuals are smaller in some
directions than in others.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from .problems import clustered

FITTED_ON = 4096  # vectors
ITERATIONS = 3  # of k-means
DEAD = 20  # one codeword in 20 is dead: far away, where vectors may have been earlier
LATENT = 32  # dimensions that hold nearly all of the energy, at most


class Shape(NamedTuple):
    """A quantizer from `dim` to `codebook_dim`, of `stages` codebooks of `size` codewords."""

    dim: int
    codebook_dim: int
    stages: int
    size: int

    @property
    def label(self) -> str:
        return f"{self.dim} -> {self.codebook_dim}, n_q={self.stages}, bins={self.size}"

    @property
    def arguments(self) -> tuple[int, int, int, int]:
        """The first arguments of ESPnet's class and ours."""
        return self.dim, self.codebook_dim, self.stages, self.size


DEFAULTS = Shape(256, 512, 8, 1024)  # the defaults of ESPnet's class and ours
PLAIN = Shape(256, 256, 8, 1024)  # the same without projections
SOUNDSTREAM = Shape(32, 512, 4, 32)  # of a small SoundStream, with the default codebook_dim
DAC = Shape(1024, 8, 9, 1024)
SNAC = Shape(768, 8, 3, 4096)


def vectors(rows: int, dim: int, seed: int) -> np.ndarray:
    """Return vectors (rows, dim), float32: clusters in few dimensions of falling energy, and noise.

    Other seeds give other vectors of the same clusters.
    """
    few = min(LATENT, dim)
    basis = np.random.default_rng(7).standard_normal((few, dim))
    basis *= (0.9 ** np.arange(few))[:, None]
    start = seed * rows
    latent = clustered(start + rows, few, 512)[start:]
    noise = np.random.default_rng((8, seed)).standard_normal((rows, dim))
    return (latent @ basis / np.sqrt(few) + 0.05 * noise).astype(np.float32)


def state(shape: Shape, rows: int) -> dict[str, np.ndarray]:
    """Return the state dict, under ESPnet's names, of a quantizer trained on batches of `rows`."""
    entries = dict(_fitted(shape))
    for name in [name for name in entries if name.endswith(".cluster_size")]:
        entries[name] = (entries[name] * (rows / FITTED_ON)).astype(np.float32)
        codewords = entries[name.replace("cluster_size", "embed")]
        entries[name.replace("cluster_size", "embed_avg")] = codewords * entries[name][:, None]
    return entries


@functools.lru_cache(maxsize=8)
def _fitted(shape: Shape) -> dict[str, np.ndarray]:
    """Return a state dict whose counts are of `FITTED_ON` vectors.

    The projections of a stage are a random map and its pseudo-inverse: with two independent maps,
    as in a new quantizer of ESPnet, no stage would reduce the residual.
    """
    rng = np.random.default_rng(6)
    entries = {}
    residual = vectors(FITTED_ON, shape.dim, 0)
    for stage in range(shape.stages):
        layer = f"vq.layers.{stage}."
        searched = residual
        if shape.codebook_dim != shape.dim:
            into = rng.standard_normal((shape.codebook_dim, shape.dim)) / np.sqrt(shape.dim)
            maps = {"project_in": into, "project_out": np.linalg.pinv(into)}
            for name, weight in maps.items():
                entries[f"{layer}{name}.weight"] = weight.astype(np.float32)
                bias = 0.01 * rng.standard_normal(len(weight))
                entries[f"{layer}{name}.bias"] = bias.astype(np.float32)
            searched = _mapped(residual, entries, f"{layer}project_in")
        codewords, codes, counts = _kmeans(searched, shape.size, rng)
        chosen = codewords[codes]
        if f"{layer}project_out.weight" in entries:
            chosen = _mapped(chosen, entries, f"{layer}project_out")
        residual = residual - chosen
        book = f"{layer}_codebook."
        entries[f"{book}embed"], entries[f"{book}cluster_size"] = codewords, counts
        entries[f"{book}inited"] = np.ones(1, np.float32)
    return entries


def batch(shape: Shape, items: int, length: int, seed: int = 1) -> np.ndarray:
    """Return a batch (items, dim, length) that the quantizer of `state` has not seen."""
    rows = vectors(items * length, shape.dim, seed)
    return np.ascontiguousarray(rows.reshape(items, length, -1).swapaxes(1, 2))


def _mapped(rows: np.ndarray, entries: dict[str, np.ndarray], name: str) -> np.ndarray:
    return rows @ entries[f"{name}.weight"].T + entries[f"{name}.bias"]


def _kmeans(
    rows: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codewords, the code of each row, and counts; with neither rvq_np nor a baseline."""
    codewords = rows[rng.choice(len(rows), count, replace=False)]
    for turn in range(ITERATIONS + 1):
        if turn == ITERATIONS:
            codewords[rng.choice(count, -(-count // DEAD), replace=False)] *= 10
        codes = np.argmin(0.5 * np.square(codewords).sum(axis=1) - rows @ codewords.T, axis=1)
        counts = np.bincount(codes, minlength=count)
        if turn < ITERATIONS:
            sums = np.zeros_like(codewords)
            order = np.argsort(codes, kind="stable")
            taken = np.flatnonzero(counts)
            starts = np.concatenate([[0], np.cumsum(counts[taken])[:-1]])
            sums[taken] = np.add.reduceat(rows[order], starts)
            codewords[taken] = sums[taken] / counts[taken, None]
    return codewords, codes, counts
