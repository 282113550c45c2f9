"""The codes of one stage in one chunk as bytes: packed, or range coded where that is smaller.

The lowest bits of the coding say how: `DROPPED`, symbols are codes plus one and symbol 0 is a
dropped code; `CODED`, range coded.  Packed symbols have as many bits as the largest needs, at
least one, lowest bits first.  Range coded symbols are preceded by their table: the logarithm to
base 2 of the number of lanes (a byte), the bits of a frequency (a byte), the packed frequencies of
all symbols, which sum to 2^16, then the state of each lane (8 bytes), then uint32 values.
"""

from __future__ import annotations

import numpy as np

from ..errors import BitstreamError
from ..kernels import dispatch

DROPPED, CODED = 1, 2
SLOTS = 1 << 16
MOST_LANES = 9  # logarithm to base 2
USUAL_LANES = 6
PER_LANE = 1 << 12  # codes that make up for the 8 bytes of one more lane
DENSEST = 64  # codes per byte, at most: bounds the memory by the size of the file
START = np.uint64(1 << 31)  # state at the start of a range coder


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
    """Raise unless `length` bytes can hold `count` codes; called before memory is allocated."""
    if coding & ~(DROPPED | CODED):
        raise BitstreamError(f"read: a stage has coding {coding}, which this release cannot read.")
    if coding & CODED:
        possible = 0 < count <= length * DENSEST
    else:
        possible = length == _packed_length(count, size + (coding & DROPPED))
    if not possible:
        raise BitstreamError(
            f"read: {length} bytes cannot hold {count} codes: the file is damaged."
        )


def from_bytes(data: bytes, coding: int, size: int, codes: np.ndarray) -> None:
    """Decode `data`, which passed `check`, into `codes` (n,), int32, or raise."""
    dropped = coding & DROPPED
    symbols = size + dropped
    if coding & CODED:
        _decode(data, dropped, symbols, codes)
        return
    width = _width(symbols)
    if _unpack(data, dropped, width, codes) >= symbols:
        raise BitstreamError(f"read: a code is out of range [0, {size}) of its stage.")
    if len(codes) * width % 8 and data[-1] >> len(codes) * width % 8:
        raise BitstreamError("read: the bits after the last code of a stage are not zero.")


def _encoded(codes: np.ndarray, add: int, symbols: int, packed: int) -> bytes | None:
    """Return the range coded bytes; None where that cannot be smaller than `packed`."""
    largest = int(codes.max()) + add
    if largest >= SLOTS:
        return None
    counts = np.bincount(codes + add, minlength=largest + 1)
    used = np.flatnonzero(counts)
    probable = counts[used] / len(codes)
    bits = -float((counts[used] * np.log2(probable)).sum())
    # A frequency takes at least one bit.
    if len(used) > SLOTS // 2 or bits / 8 + symbols / 8 >= packed:
        return None
    frequencies = _frequencies(counts, used)
    width = int(frequencies.max()).bit_length()
    table = np.zeros(symbols, np.int32)
    table[: len(frequencies)] = frequencies
    table_bytes = _pack(table, 0, width)
    starts = np.cumsum(frequencies) - frequencies
    uint32s = np.empty(len(codes), np.uint32)
    usual = min(USUAL_LANES, max(0, (len(codes) // PER_LANE).bit_length() - 1))
    # More lanes than usual only where there would be more than DENSEST codes per byte.
    for power in range(usual, MOST_LANES + 1):
        states = np.empty(1 << power, np.uint64)
        count = dispatch.bits(len(codes)).encode(codes, add, starts, frequencies, states, uint32s)
        if (2 + len(table_bytes) + 8 * len(states) + 4 * count) * DENSEST >= len(codes):
            ends = states.astype("<u8").tobytes(), uint32s[:count][::-1].astype("<u4").tobytes()
            return b"".join((bytes((power, width)), table_bytes, *ends))
    return None


def _frequencies(counts: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return frequencies that sum to 2^16, at least 1 for a symbol that occurs; integers only."""
    frequencies = counts * SLOTS // counts.sum()
    frequencies[used] = np.maximum(frequencies[used], 1)
    excess = int(frequencies.sum()) - SLOTS
    order = np.argsort(-frequencies, kind="stable")
    for symbol in order:  # from the largest, where it costs least
        if excess <= 0:
            break
        less = min(excess, int(frequencies[symbol]) // 2)
        frequencies[symbol] -= less
        excess -= less
    frequencies[order[0]] -= excess
    return frequencies.astype(np.int64)


def _decode(data: bytes, subtract: int, symbols: int, codes: np.ndarray) -> None:
    power, width = data[0], data[1] if len(data) > 1 else 0
    begin = 2 + _length(symbols, width)
    end = begin + (8 << min(power, 63))
    if power > MOST_LANES or not 1 <= width <= 17 or end > len(data) or (len(data) - end) % 4:
        raise BitstreamError("read: the table of a range coded stage is truncated or invalid.")
    table = np.empty(symbols, np.int32)
    _unpack(data[2:begin], 0, width, table)
    frequencies = table.astype(np.int64)
    if int(frequencies.sum()) != SLOTS:
        raise BitstreamError("read: the frequencies of a range coded stage do not sum to 65536.")
    lookup = np.repeat(np.arange(symbols, dtype=np.int32), frequencies)
    states = np.frombuffer(data[begin:end], "<u8").astype(np.uint64)
    uint32s = np.frombuffer(data[end:], "<u4").astype(np.uint32)
    starts = np.cumsum(frequencies) - frequencies
    if (states < START).any() or (states >> np.uint64(63)).any():
        raise BitstreamError("read: a range coder begins in an invalid state.")
    read = dispatch.bits(len(codes)).decode(
        uint32s, states, lookup, starts, frequencies, subtract, codes
    )
    if read != len(uint32s) or (states != START).any():
        raise BitstreamError("read: a range coded stage does not end where it should.")


def _width(symbols: int) -> int:
    return max(1, (symbols - 1).bit_length())


def _packed_length(count: int, symbols: int) -> int:
    return _length(count, _width(symbols))


def _length(count: int, width: int) -> int:
    return -(-count * width // 8)


def _pack(values: np.ndarray, add: int, width: int) -> bytes:
    uint32s = np.zeros(-(-len(values) * width // 32), np.uint32)
    dispatch.bits(len(values)).pack(values, add, width, uint32s)
    return uint32s.astype("<u4").tobytes()[: _length(len(values), width)]


def _unpack(data: bytes, subtract: int, width: int, values: np.ndarray) -> int:
    padded = data + bytes(-len(data) % 4)
    uint32s = np.frombuffer(padded, "<u4").astype(np.uint32)
    return int(dispatch.bits(len(values)).unpack(uint32s, subtract, width, values))
