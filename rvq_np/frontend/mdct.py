"""The modified discrete cosine transform with a sine window: samples to vectors, and back.

``X[t, k] = sqrt(2/D) sum_n w[n] x[tD + n] cos(pi/D (n + 1/2 + D/2) (k + 1/2))`` over 2D samples
(Princen and Bradley, 1986).  Windows overlap by half and the aliasing of consecutive windows
cancels, so D coefficients per D samples suffice and the inverse is exact.
"""

import functools

import numpy as np


@functools.cache
def _basis(dim: int) -> np.ndarray:
    """Return the windowed cosines (2D, D)."""
    n, k = np.arange(2 * dim), np.arange(dim)
    window = np.sin(np.pi * (n + 0.5) / (2 * dim))
    cosines = np.cos(np.pi / dim * np.outer(n + 0.5 + dim / 2, k + 0.5))
    return np.sqrt(2 / dim) * cosines * window[:, None]


def forward(samples: np.ndarray, dim: int, offset: int = 0) -> np.ndarray:
    """Return the vectors (T, D), float32, of `samples` (N,), beginning `offset` samples late.

    ``T`` is ``ceil((N + offset) / D) + 1``: half of the first and last windows is outside.
    """
    length = len(samples) + offset
    n_vectors = -(-length // dim) + 1
    padded = np.zeros((n_vectors + 1) * dim)
    padded[dim + offset : dim + length] = samples
    return of_windows(padded, dim)


def of_windows(samples: np.ndarray, dim: int) -> np.ndarray:
    """Return the vectors (T, D), float32, of windows of 2D samples, one every D samples."""
    cut = np.lib.stride_tricks.sliding_window_view(samples, 2 * dim)[::dim]
    return (cut @ _basis(dim)).astype(np.float32)


def inverse(vectors: np.ndarray, length: int) -> np.ndarray:
    """Return `length` samples, float64, from the result of `forward` without offset."""
    dim = vectors.shape[1]
    halves = windows(vectors)
    samples = np.zeros((len(vectors) + 1, dim))
    samples[:-1] += halves[:, :dim]
    samples[1:] += halves[:, dim:]
    return samples.reshape(-1)[dim : dim + length]


def windows(vectors: np.ndarray) -> np.ndarray:
    """Return the windows (T, 2D), float64, whose overlapping sum is the signal."""
    return vectors.astype(np.float64) @ _basis(vectors.shape[1]).T
