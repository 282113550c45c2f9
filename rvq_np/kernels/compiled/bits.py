"""Codes as bits: packed at a fixed width, or range coded.  Compiled by Numba.

    codes    (n,)  int32   in order
    words    (m,)  uint32  little-endian words of the result, lowest bits first
    states   (L,)  uint64  one range coder a lane; code i is lane ``i % L``'s
    starts   (A,)  int64   where each symbol's share of the 2^16 slots begins
    shares   (A,)  int64   how many slots it has; zero for symbols that do not occur
    lookup   (2^16,)       the symbol of each slot

`plain.bits` has the same functions in NumPy, and they give the same bytes.  The range coder is rANS
(Duda, arXiv 1311.2540) with 64-bit states and 32-bit words, in lanes as Giesen has them (arXiv
1402.3392): lanes share one stream of words and read it in the order of the lanes.
"""

import numpy as np

from .jit import kernel

SLOTS = 16  # bits
LOWEST = np.uint64(1) << np.uint64(31)  # of a state between two symbols


@kernel
def pack(codes, add, width, words):
    """Write ``codes + add``, `width` bits each (1 to 32), into `words`, which are zero."""
    held, count, place = np.uint64(0), np.uint64(0), 0
    bits = np.uint64(width)
    for n in range(codes.shape[0]):
        held |= np.uint64(np.int64(codes[n]) + add) << count
        count += bits
        if count >= 32:
            words[place] = np.uint32(held & np.uint64(0xFFFFFFFF))
            place += 1
            held >>= np.uint64(32)
            count -= np.uint64(32)
    if count > 0:
        words[place] = np.uint32(held)


@kernel
def unpack(words, subtract, width, codes):
    """Write the inverse of `pack` into `codes`; return the largest symbol there was."""
    held, count, place = np.uint64(0), np.uint64(0), 0
    bits, largest = np.uint64(width), np.uint64(0)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    for n in range(codes.shape[0]):
        if count < bits:
            held |= np.uint64(words[place]) << count
            place += 1
            count += np.uint64(32)
        symbol = held & mask
        held >>= bits
        count -= bits
        largest = max(largest, symbol)
        codes[n] = np.int32(np.int64(symbol) - subtract)
    return largest


@kernel
def encode(codes, add, starts, shares, states, words):
    """Code all codes, the last one first; return how many of `words` were written, in reverse.

    The caller turns the words around: a decoder begins where this ends.
    """
    lanes, place = states.shape[0], 0
    for lane in range(lanes):
        states[lane] = LOWEST
    for n in range(codes.shape[0] - 1, -1, -1):
        symbol = codes[n] + add
        share, state = np.uint64(shares[symbol]), states[n % lanes]
        if state >= share << np.uint64(63 - SLOTS):
            words[place] = np.uint32(state & np.uint64(0xFFFFFFFF))
            place += 1
            state >>= np.uint64(32)
        whole = state // share
        rest = state - whole * share
        states[n % lanes] = (whole << np.uint64(SLOTS)) + rest + np.uint64(starts[symbol])
    return place


@kernel
def decode(words, states, lookup, starts, shares, subtract, codes):
    """Write the codes; return how many of `words` were read, or -1 where there were too few."""
    lanes, place = states.shape[0], 0
    mask = np.uint64((1 << SLOTS) - 1)
    for n in range(codes.shape[0]):
        state = states[n % lanes]
        slot = state & mask
        symbol = lookup[slot]
        state = np.uint64(shares[symbol]) * (state >> np.uint64(SLOTS)) + slot
        state -= np.uint64(starts[symbol])
        if state < LOWEST:
            if place == words.shape[0]:
                return -1
            state = (state << np.uint64(32)) | np.uint64(words[place])
            place += 1
        states[n % lanes] = state
        codes[n] = symbol - subtract
    return place
