"""Products of items with codewords that are the same on every machine, by any BLAS library.

Numbers are rounded to whole ones of some 21 bits, so that no sum of products needs more than the 53
bits of float64: whatever order they are added in, nothing is rounded.
"""

from __future__ import annotations

import numpy as np

FARTHEST = 400  # exponent of an item above that of the codewords


class Products:
    """Codewords (S, D), rounded to whole numbers; products are in units of 4 ** `shift`."""

    def __init__(self, codewords: np.ndarray, added: int = 1):
        """Round codewords; as many as are `added` to each other may be multiplied with others."""
        codewords = codewords.astype(np.float64)
        self.bits = (53 - int(codewords.shape[1] * added).bit_length()) // 2
        self.exponent = int(np.frexp(np.abs(codewords).max(initial=0.0))[1])
        self.whole = np.rint(np.ldexp(codewords, self.bits - self.exponent))
        self.turned = np.ascontiguousarray(self.whole.T)
        self.squares = np.square(self.whole).sum(axis=1)

    @property
    def shift(self) -> int:
        return self.exponent - self.bits

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the products (n, S) of rows (n, D) with all codewords."""
        rows = rows.astype(np.float64)
        exponent = np.frexp(np.abs(rows).max(axis=1, initial=0.0))[1][:, None]
        whole = np.rint(np.ldexp(rows, self.bits - exponent))
        return np.ldexp(whole @ self.turned, np.minimum(exponent - self.exponent, FARTHEST))
