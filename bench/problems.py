"""Sizes, and data that looks like what a residual quantizer meets at those sizes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Problem(NamedTuple):
    """Encode `rows` vectors of length `dim` by `stages` codebooks of `words` words."""

    dim: int
    words: int
    stages: int
    rows: int

    @property
    def flops(self) -> int:
        """A multiplication and an addition per number, word, stage and row."""
        return 2 * self.rows * self.dim * self.words * self.stages

    @property
    def label(self) -> str:
        return f"D={self.dim}, K={self.words}, Q={self.stages}, N={self.rows}"

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors (N, D) and codebooks (Q, K, D), float32, the same on every call.

        Both are Gaussian. A stage of K words leaves at best ``K**(-2/D)`` of the energy of
        Gaussian vectors (Shannon), and its words hold the rest: so scaled, about every word is
        chosen as often as any other and near-ties are as rare as with trained codebooks.
        """
        rng = np.random.default_rng(0)
        left = self.words ** (-2 / self.dim)
        codebooks = rng.standard_normal((self.stages, self.words, self.dim), dtype=np.float32)
        for q in range(self.stages):
            codebooks[q] *= np.sqrt((1 - left) * left**q)
        return rng.standard_normal((self.rows, self.dim), dtype=np.float32), codebooks


BATCH = Problem(dim=128, words=1024, stages=8, rows=16384)  # EnCodec, offline
FRAME = BATCH._replace(rows=1)  # the same while streaming: one frame a call
NARROW = Problem(dim=8, words=1024, stages=9, rows=16384)  # DAC: searches in 8 dimensions


class Mapped(NamedTuple):
    """One level that is searched in another space: maps in and out, each with a bias."""

    words: np.ndarray  # (K, C)
    weight_in: np.ndarray  # (C, D)
    bias_in: np.ndarray  # (C,)
    weight_out: np.ndarray  # (D, C)
    bias_out: np.ndarray  # (D,)


def mapped(
    rows: int, dim: int = 1024, width: int = 8, words: int = 1024, levels: int = 9
) -> tuple[np.ndarray, list[Mapped]]:
    """Return vectors (rows, dim) and the levels of a quantizer of DAC's shape.

    The words have norm one. So the nearest word is the one of the largest cosine, and DAC, which
    searches with normalised words and decodes the others, decodes what it searched with.
    """
    rng = np.random.default_rng(4)
    made = []
    for _ in range(levels):
        book = rng.standard_normal((words, width))
        book /= np.linalg.norm(book, axis=1, keepdims=True)
        into = rng.standard_normal((width, dim)) / np.sqrt(dim)
        out = 2.0 * np.linalg.pinv(into)  # the length of a projected residual is about that
        biases = 0.01 * rng.standard_normal(width), 0.01 * rng.standard_normal(dim)
        level = Mapped(book, into, biases[0], out, biases[1])
        made.append(Mapped(*(np.float32(each) for each in level)))
    return rng.standard_normal((rows, dim), dtype=np.float32), made


def clustered(rows: int, dim: int, centres: int) -> np.ndarray:
    """Return vectors (rows, dim) for k-means: a mixture, as embeddings are, not one cloud."""
    rng = np.random.default_rng(1)
    means = rng.standard_normal((centres, dim), dtype=np.float32)
    noise = rng.standard_normal((rows, dim), dtype=np.float32)
    return means[rng.integers(0, centres, size=rows)] + 0.7 * noise
