"""Half squared norms of codewords, and which repeat an earlier one.  Compiled by Numba.

    codewords   (K, C)  T        float32 or float64, finite
    half    (K,)    float64  out: half the squared norms
    repeat  (K,)    bool     out: whether an earlier codeword is equal, number by number

Linear in K * C: codewords that are equal have the same hash, a sum of their bits times odd numbers
modulo 2^64, and those of one hash are compared.
"""

import numpy as np

from .jit import kernel
from .simd import dot, item


@kernel
def measure(codewords, bits, factors, first, hashes, half, repeat):
    """Write `half` and `repeat`; `bits` (K * C,) are those of the codewords, uint32 or uint64.

    `factors`, `first` and `hashes` are a `workspace`.
    """
    n_codewords, width = codewords.shape
    state = np.uint64(0)
    for d in range(width):  # splitmix64 (Steele, Lea, Flood, OOPSLA 2014)
        state += np.uint64(0x9E3779B97F4A7C15)
        z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        factors[d] = z | np.uint64(1)
    space = first.shape[0]
    for k in range(n_codewords):
        half[k] = 0.5 * dot(codewords, k * width, codewords, k * width, width)
        hashes[k] = _hash(bits, np.uint64(k) * np.uint64(width), factors)
        place = np.int64(hashes[k] >> np.uint64(17)) & (space - 1)
        repeat[k] = False
        while first[place] >= 0:
            other = first[place]
            if hashes[other] == hashes[k] and same(codewords, other * width, k * width, width):
                repeat[k] = True
                break
            place = (place + 1) & (space - 1)
        if not repeat[k]:
            first[place] = k


def workspace(n_codewords, width):
    """Return what `measure` writes into besides its results."""
    space = 1 << max(1, (2 * n_codewords - 1).bit_length())
    first = np.full(space, -1, np.int64)  # the codewords that were there first, by hash
    return np.empty(width, np.uint64), first, np.empty(n_codewords, np.uint64)


@kernel(inner=True)
def _hash(bits, at, factors):
    total = np.uint64(0)
    sign = np.uint64(1) << np.uint64(8 * bits.itemsize - 1)
    for d in range(np.uint64(factors.shape[0])):  # unsigned: or indices are looked up from the end
        number = np.uint64(bits[at + d])
        if number == sign:  # -0.0 equals 0.0 but has other bits
            number = np.uint64(0)
        total += (number ^ (number >> np.uint64(29))) * factors[d]
    return total ^ (total >> np.uint64(32))


@kernel(inner=True)
def same(numbers, a, b, width):
    """Return whether `width` numbers from element a on are those from element b on."""
    for d in range(width):
        if item(numbers, a + d) != item(numbers, b + d):
            return False
    return True
