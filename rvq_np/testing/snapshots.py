"""What is compared of a quantizer in training: copies of its words and counts, and their place."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Snapshot(NamedTuple):
    """Copies of the words (Q, K, D) and counts (Q, K) of a `Trainee`."""

    words: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, trainee: Any) -> Snapshot:
        return cls(np.array(trainee.words()), np.array(trainee.counts()))

    def same_as(self, trainee: Any) -> None:
        """Assert that the words and counts of `trainee` are these, bit for bit."""
        other = Snapshot.of(trainee)
        np.testing.assert_array_equal(other.words, self.words)
        np.testing.assert_array_equal(other.counts, self.counts)


def box(x: np.ndarray) -> np.ndarray:
    """Return the least and largest of each number of the vectors (2, D)."""
    return np.stack([x.min(axis=0), x.max(axis=0)]).astype(np.float64)


def inside(words: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return whether each word is within the box, give or take a thousandth: bool (K,)."""
    slack = 1e-3 * np.abs(limits).max()
    return np.asarray(((words >= limits[0] - slack) & (words <= limits[1] + slack)).all(axis=1))
