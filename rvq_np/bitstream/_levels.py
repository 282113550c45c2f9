"""The codes of one level in one chunk as bytes: packed, or range coded where that is smaller.

The lowest bits of the coding say how: `DROPPED`, symbols are codes plus one and symbol 0 is a code
that was dropped; `CODED`, range coded.  Packed symbols have as many bits as the largest needs, at
least one, lowest bits first.  Range coded ones have their table in front: the number of lanes as a
power of two (a byte), the bits of a share (a byte), the shares of all symbols packed so, which add
up to 2^16, then the state of each lane (8 bytes), then words (4 bytes).
"""

from __future__ import annotations

import numpy as np

from ..errors import BitstreamError
from ..kernels import host

DROPPED, CODED = 1, 2
SLOTS = 1 << 16
MOST_LANES = 9  # as a power of two
USUAL_LANES = 6
PER_LANE = 1 << 12  # codes that pay for the 8 bytes of one more lane
DENSEST = 64  # codes a byte, at most: what a file can claim is bounded by what it holds
START = np.uint64(1 << 31)  # of a range coder


def to_bytes(codes: np.ndarray, size: int, compress: bool) -> tuple[int, bytes]:
    """Return the coding and the bytes of `codes` (n,), int32 in ``[-1, size)``."""
    dropped = DROPPED if len(codes) and codes.min() < 0 else 0
    symbols = size + dropped
    packed = _packed_length(len(codes), symbols)
    if compress and len(codes):
        coded = _encoded(codes, dropped, symbols, packed)
        if coded is not None and len(coded) < packed:
            return dropped | CODED, coded
    return dropped, _pack(codes, dropped, _width(symbols))


def check(count: int, coding: int, length: int, size: int) -> None:
    """Raise unless `length` bytes may hold `count` codes: before anything is allocated."""
    if coding & ~(DROPPED | CODED):
        raise BitstreamError(f"read: a level has coding {coding}, which this release cannot read.")
    if coding & CODED:
        possible = 0 < count <= length * DENSEST
    else:
        possible = length == _packed_length(count, size + (coding & DROPPED))
    if not possible:
        raise BitstreamError(f"read: {length} bytes are said to hold {count} codes: they cannot.")


def from_bytes(data: bytes, coding: int, size: int, codes: np.ndarray) -> None:
    """Write into `codes` (n,), int32, what `check` found possible, or raise."""
    dropped = coding & DROPPED
    symbols = size + dropped
    if coding & CODED:
        _decode(data, dropped, symbols, codes)
        return
    width = _width(symbols)
    if _unpack(data, dropped, width, codes) >= symbols:
        raise BitstreamError(f"read: a code is beyond the {size} words of its level.")
    if len(codes) * width % 8 and data[-1] >> len(codes) * width % 8:
        raise BitstreamError("read: bits behind the last code of a level are not zero.")


def _encoded(codes: np.ndarray, add: int, symbols: int, packed: int) -> bytes | None:
    """Return the range coded bytes; None where that cannot be smaller than `packed`."""
    largest = int(codes.max()) + add
    if largest >= SLOTS:
        return None
    counts = np.bincount(codes + add, minlength=largest + 1)
    used = np.flatnonzero(counts)
    probable = counts[used] / len(codes)
    bits = -float((counts[used] * np.log2(probable)).sum())
    if len(used) > SLOTS // 2 or bits / 8 + symbols / 8 >= packed:  # a share is a bit at least
        return None
    shares = _shares(counts, used)
    width = int(shares.max()).bit_length()
    table = np.zeros(symbols, np.int32)
    table[: len(shares)] = shares
    told = _pack(table, 0, width)
    starts = np.cumsum(shares) - shares
    words = np.empty(len(codes), np.uint32)
    usual = min(USUAL_LANES, max(0, (len(codes) // PER_LANE).bit_length() - 1))
    for power in range(usual, MOST_LANES + 1):  # more where codes would be denser than may be
        states = np.empty(1 << power, np.uint64)
        count = host.bits(len(codes)).encode(codes, add, starts, shares, states, words)
        if (2 + len(told) + 8 * len(states) + 4 * count) * DENSEST >= len(codes):
            ends = states.astype("<u8").tobytes(), words[:count][::-1].astype("<u4").tobytes()
            return b"".join((bytes((power, width)), told, *ends))
    return None


def _shares(counts: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return shares of 2^16, at least one for a symbol that occurs; by whole numbers only."""
    shares = counts * SLOTS // counts.sum()
    shares[used] = np.maximum(shares[used], 1)
    excess = int(shares.sum()) - SLOTS
    order = np.argsort(-shares, kind="stable")
    for symbol in order:  # from the largest, which feel it least
        if excess <= 0:
            break
        less = min(excess, int(shares[symbol]) // 2)
        shares[symbol] -= less
        excess -= less
    shares[order[0]] -= excess
    return shares.astype(np.int64)


def _decode(data: bytes, subtract: int, symbols: int, codes: np.ndarray) -> None:
    power, width = data[0], data[1] if len(data) > 1 else 0
    begin = 2 + _length(symbols, width)
    end = begin + (8 << min(power, 63))
    if power > MOST_LANES or not 1 <= width <= 17 or end > len(data) or (len(data) - end) % 4:
        raise BitstreamError("read: the table of a range coded level is cut off or impossible.")
    table = np.empty(symbols, np.int32)
    _unpack(data[2:begin], 0, width, table)
    shares = table.astype(np.int64)
    if int(shares.sum()) != SLOTS:
        raise BitstreamError("read: the table of a range coded level does not add up.")
    lookup = np.repeat(np.arange(symbols, dtype=np.int32), shares)
    states = np.frombuffer(data[begin:end], "<u8").astype(np.uint64)
    words = np.frombuffer(data[end:], "<u4").astype(np.uint32)
    starts = np.cumsum(shares) - shares
    if (states < START).any() or (states >> np.uint64(63)).any():
        raise BitstreamError("read: a range coder begins in a state that it cannot have.")
    read = host.bits(len(codes)).decode(words, states, lookup, starts, shares, subtract, codes)
    if read != len(words) or (states != START).any():
        raise BitstreamError("read: a range coded level does not end where it should.")


def _width(symbols: int) -> int:
    return max(1, (symbols - 1).bit_length())


def _packed_length(count: int, symbols: int) -> int:
    return _length(count, _width(symbols))


def _length(count: int, width: int) -> int:
    return -(-count * width // 8)


def _pack(values: np.ndarray, add: int, width: int) -> bytes:
    words = np.zeros(-(-len(values) * width // 32), np.uint32)
    host.bits(len(values)).pack(values, add, width, words)
    return words.astype("<u4").tobytes()[: _length(len(values), width)]


def _unpack(data: bytes, subtract: int, width: int, values: np.ndarray) -> int:
    padded = data + bytes(-len(data) % 4)
    words = np.frombuffer(padded, "<u4").astype(np.uint32)
    return int(host.bits(len(values)).unpack(words, subtract, width, values))
