"""Sizes, and data similar to those of residual quantizers of these sizes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Problem(NamedTuple):
    """Encode `rows` vectors of length `dim` by `stages` codebooks of `size` codewords."""

    dim: int
    size: int
    stages: int
    rows: int

    @property
    def flops(self) -> int:
        """A multiplication and an addition per dimension, codeword, stage and row."""
        return 2 * self.rows * self.dim * self.size * self.stages

    @property
    def label(self) -> str:
        return f"D={self.dim}, K={self.size}, Q={self.stages}, N={self.rows}"

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors (N, D) and codebooks (Q, K, D), float32, the same on every call.

        Both are Gaussian. After a stage of K codewords at best ``K**(-2/D)`` of the energy of
        Gaussian vectors remains (Shannon), and its codewords have the rest: with this scale all
        codewords are chosen about equally often and near-ties are as rare as with trained
        codebooks.
        """
        rng = np.random.default_rng(0)
        remaining = self.size ** (-2 / self.dim)
        codebooks = rng.standard_normal((self.stages, self.size, self.dim), dtype=np.float32)
        for q in range(self.stages):
            codebooks[q] *= np.sqrt((1 - remaining) * remaining**q)
        return rng.standard_normal((self.rows, self.dim), dtype=np.float32), codebooks


BATCH = Problem(dim=128, size=1024, stages=8, rows=16384)  # EnCodec, offline
FRAME = BATCH._replace(rows=1)  # the same for streaming: one frame per call
NARROW = Problem(dim=8, size=1024, stages=9, rows=16384)  # DAC: searches in 8 dimensions


class Mapped(NamedTuple):
    """One stage that is searched in another space: maps in and out, each with a bias."""

    codebook: np.ndarray  # (K, C)
    weight_in: np.ndarray  # (C, D)
    bias_in: np.ndarray  # (C,)
    weight_out: np.ndarray  # (D, C)
    bias_out: np.ndarray  # (D,)


def mapped(
    rows: int, dim: int = 1024, width: int = 8, size: int = 1024, stages: int = 9
) -> tuple[np.ndarray, list[Mapped]]:
    """Return vectors (rows, dim) and the stages of a quantizer of DAC's shape.

    The codewords have norm one, so the nearest one has the largest cosine, and for DAC, which
    searches normalized codewords and decodes the others, both are the same.
    """
    rng = np.random.default_rng(4)
    made = []
    for _ in range(stages):
        book = rng.standard_normal((size, width))
        book /= np.linalg.norm(book, axis=1, keepdims=True)
        into = rng.standard_normal((width, dim)) / np.sqrt(dim)
        out = 2.0 * np.linalg.pinv(into)  # about the norm of a projected residual
        biases = 0.01 * rng.standard_normal(width), 0.01 * rng.standard_normal(dim)
        stage = Mapped(book, into, biases[0], out, biases[1])
        made.append(Mapped(*(np.float32(each) for each in stage)))
    return rng.standard_normal((rows, dim), dtype=np.float32), made


def clustered(rows: int, dim: int, centres: int) -> np.ndarray:
    """Return vectors (rows, dim) for k-means: a mixture of Gaussians, similar to embeddings."""
    rng = np.random.default_rng(1)
    means = rng.standard_normal((centres, dim), dtype=np.float32)
    noise = rng.standard_normal((rows, dim), dtype=np.float32)
    return means[rng.integers(0, centres, size=rows)] + 0.7 * noise
