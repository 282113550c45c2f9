"""Fingerprints: whether an array holds what it held, at the speed of memory.  Compiled by Numba.

    numbers  (n,)            uint64  in: the bytes of an array, eight at a time
    keys     (BLOCK + SHIFT,) uint64  random, the same for all calls
    out      (blocks, 2)     uint64  out: two hashes of each block of `BLOCK` numbers

The hash is NH of UMAC (Black, Halevi, Krawczyk, Krovetz and Rogaway, CRYPTO 1999): the sum of
products of halves, each with a random number added (here the carry of the lower half goes to the
upper one, which the proof does not mind: it holds the key of the other half fixed).  Two blocks
that differ, in whatever way, have the same hash for one in 2**32 keys, and the same two hashes, the
second by shifted keys, for one in 2**64.  Blocks are not summed up further, so that is all there is
to trust.
"""

import numpy as np

from .jit import kernel

BLOCK = 512  # numbers hashed into one pair: 4 KB, whose keys stay in the nearest cache
SHIFT = 4
LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


@kernel
def fingerprint(numbers, keys, out):
    """Write the hashes of all blocks, of which the last may be shorter."""
    shifted = keys[SHIFT:]
    for block in range(out.shape[0]):
        part = numbers[block * BLOCK : (block + 1) * BLOCK]
        first, second = np.uint64(0), np.uint64(0)
        for i in range(len(part)):
            one, other = part[i] + keys[i], part[i] + shifted[i]
            first += (one & LOW) * (one >> HALF)
            second += (other & LOW) * (other >> HALF)
        out[block, 0] = first
        out[block, 1] = second
