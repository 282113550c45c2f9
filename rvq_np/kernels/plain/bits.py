"""The functions of `compiled.bits` without Numba: the same arguments, the same bytes."""

import numpy as np

SLOTS = 16
LOWEST = 1 << 31
GROUP = 32  # codes that fill whole words together, whatever their width
ROWS = 1 << 15  # groups at once


def pack(codes, add, width, words):
    """Write ``codes + add``, `width` bits each (1 to 32), into `words`, which are zero."""
    for start in range(0, len(codes), GROUP * ROWS):
        some = codes[start : start + GROUP * ROWS]
        symbols = np.zeros((-(-len(some) // GROUP), GROUP), np.uint64)
        symbols.ravel()[: len(some)] = some.astype(np.int64) + add
        symbols = np.ascontiguousarray(symbols.T)
        packed = np.zeros((width + 1, symbols.shape[1]), np.uint64)
        for place in range(GROUP):
            word, shift = divmod(place * width, 32)
            packed[word] |= (symbols[place] << np.uint64(shift)) & np.uint64(0xFFFFFFFF)
            packed[word + 1] |= symbols[place] >> np.uint64(32 - shift)
        flat = packed[:width].T.astype(np.uint32).ravel()
        first = start // GROUP * width
        space = words[first : first + len(flat)]
        space[...] = flat[: len(space)]


def unpack(words, subtract, width, codes):
    """Write the inverse of `pack` into `codes`; return the largest symbol there was."""
    largest, mask = 0, np.uint64((1 << width) - 1)
    for start in range(0, len(codes), GROUP * ROWS):
        out = codes[start : start + GROUP * ROWS]
        groups = -(-len(out) // GROUP)
        first = start // GROUP * width
        some = words[first : first + groups * width]
        packed = np.zeros((groups, width), np.uint64)
        packed.ravel()[: len(some)] = some
        packed = np.ascontiguousarray(packed.T)
        symbols = np.empty((GROUP, groups), np.uint64)
        for place in range(GROUP):
            word, shift = divmod(place * width, 32)
            value = packed[word] >> np.uint64(shift)
            if shift + width > 32:
                value = value | (packed[word + 1] << np.uint64(32 - shift))
            symbols[place] = value & mask
        flat = symbols.T.ravel()[: len(out)]
        largest = max(largest, int(flat.max(initial=0)))
        out[...] = flat.astype(np.int64) - subtract
    return largest


def encode(codes, add, starts, shares, states, words):
    """Code all codes, the last one first; return how many of `words` were written, in reverse."""
    lanes, place = len(states), 0
    states[...] = LOWEST
    starts, shares = starts.astype(np.uint64), shares.astype(np.uint64)
    for first in reversed(range(0, len(codes), lanes)):
        symbols = codes[first : first + lanes] + add
        share, state = shares[symbols], states[: len(symbols)]
        full = state >= share << np.uint64(63 - SLOTS)
        some = (state[full] & np.uint64(0xFFFFFFFF)).astype(np.uint32)[::-1]
        words[place : place + len(some)] = some
        place += len(some)
        state = np.where(full, state >> np.uint64(32), state)
        whole, rest = np.divmod(state, share)
        states[: len(symbols)] = (whole << np.uint64(SLOTS)) + rest + starts[symbols]
    return place


def decode(words, states, lookup, starts, shares, subtract, codes):
    """Write the codes; return how many of `words` were read, or -1 where there were too few."""
    lanes, place = len(states), 0
    starts, shares = starts.astype(np.uint64), shares.astype(np.uint64)
    for first in range(0, len(codes), lanes):
        out = codes[first : first + lanes]
        state = states[: len(out)]
        slots = state & np.uint64((1 << SLOTS) - 1)
        symbols = lookup[slots]
        state = shares[symbols] * (state >> np.uint64(SLOTS)) + slots - starts[symbols]
        low = np.flatnonzero(state < LOWEST)
        if place + len(low) > len(words):
            return -1
        state[low] = (state[low] << np.uint64(32)) | words[place : place + len(low)]
        place += len(low)
        states[: len(out)] = state
        out[...] = symbols - subtract
    return place
