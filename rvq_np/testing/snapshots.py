"""The state of a quantizer in training that is compared: copies of its codebooks and counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Snapshot(NamedTuple):
    """Copies of the codebooks (Q, K, D) and counts (Q, K) of a `Trainee`."""

    codebooks: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, trainee: Any) -> Snapshot:
        return cls(np.array(trainee.codebooks()), np.array(trainee.counts()))

    def same_as(self, trainee: Any) -> None:
        """Assert that the codebooks and counts of `trainee` are these, bit for bit."""
        other = Snapshot.of(trainee)
        np.testing.assert_array_equal(other.codebooks, self.codebooks)
        np.testing.assert_array_equal(other.counts, self.counts)


def box(x: np.ndarray) -> np.ndarray:
    """Return the minimum and maximum of the vectors in each dimension (2, D)."""
    return np.stack([x.min(axis=0), x.max(axis=0)]).astype(np.float64)


def inside(codewords: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return whether each codeword is within the box, with a tolerance of 1e-3: bool (K,)."""
    tolerance = 1e-3 * np.abs(limits).max()
    return np.asarray(
        ((codewords >= limits[0] - tolerance) & (codewords <= limits[1] + tolerance)).all(axis=1)
    )
