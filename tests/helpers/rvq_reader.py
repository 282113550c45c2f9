"""A reader of .rvq files made of docs/format.md: its tables say what the fields are.

Nothing of ours is imported.
"""

import functools
import re
import struct
import zlib
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "format.md"
KINDS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q"}


@functools.cache
def tables():
    """Return the fields of each section of the page: name, type and what counts them."""
    found = {}
    for section in re.split(r"^##+ ", PAGE.read_text(), flags=re.M)[1:]:
        rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", section, re.M)
        fields = [row for row in rows if row[0] not in ("field", "---")]
        if fields and any(kind.split()[0].strip("(,") in (*KINDS, "bytes") for _, kind in fields):
            found[section.splitlines()[0]] = fields
    return found


def parse(content, place, fields, counts=()):
    """Return the values of `fields` by name, and where they end."""
    values = dict(counts)
    for name, kind in fields:
        each, _, count = kind.partition(" \u00d7 ")
        repeated = values[count] if count else 1
        if each.startswith("bytes"):
            form = f"{each.split()[1]}s"
        else:
            form = "".join(KINDS[part] for part in re.findall(r"u\d+", each))
        size = struct.calcsize("<" + form)
        read = [struct.unpack_from("<" + form, content, place + n * size) for n in range(repeated)]
        place += repeated * size
        plain = [row[0] if len(row) == 1 else row for row in read]
        values[name] = plain if count else plain[0]
    return values, place


def bits(content, start, width):
    """Return `width` bits from bit `start` on, lowest first."""
    total = 0
    for n in range(width):
        bit = start + n
        total |= (content[bit // 8] >> bit % 8 & 1) << n
    return total


def read(content):
    """Return (header, list of stages), a stage as a list of streams of codes, None for dropped."""
    known = tables()
    header, place = parse(content, 0, known["Header"])
    assert header["magic"] == b"\x89RVQ\r\n\x1a\n"
    assert place == header["length"]
    assert zlib.crc32(content[: place - 4]) == header["checksum"]
    slots = []
    for _ in range(2):
        begin = place
        slot, place = parse(content, place, known["Slot"])
        if zlib.crc32(content[begin : place - 4]) == slot["checksum"] and slot["generation"]:
            slots.append(slot)
    slot = max(slots, key=lambda each: each["generation"])
    index, end = parse(content, slot["offset"], known["Index"])
    assert end == slot["offset"] + slot["length"]
    assert zlib.crc32(content[slot["offset"] : end - 4]) == index["checksum"]
    streams = 1
    for length in header["batch"]:
        streams *= length
    stages = [[[] for _ in range(streams)] for _ in range(header["stages"])]
    for offset, frames in index["offset and frames"]:
        chunk, place = parse(content, offset, known["Chunk"], {"stages": header["stages"]})
        assert zlib.crc32(content[offset + 8 : place]) == chunk["checksum"]
        assert chunk["frames"] == frames
        for stage, (coding, length, checksum) in enumerate(chunk["coding, bytes, checksum"]):
            size, stride = header["sizes and strides"][stage]
            data, place = content[place : place + length], place + length
            assert zlib.crc32(data) == checksum
            count = frames // stride
            decode = range_decoded if coding & 2 else packed
            symbols = decode(data, size + (coding & 1), streams * count)
            codes = [s - 1 if s else None for s in symbols] if coding & 1 else symbols
            for stream in range(streams):
                stages[stage][stream] += codes[stream * count : (stream + 1) * count]
    return header, stages


def packed(data, symbols, count):
    width = max(1, (symbols - 1).bit_length())
    assert len(data) == -(-count * width // 8)
    found = [bits(data, n * width, width) for n in range(count)]
    assert not any(bits(data, n, 1) for n in range(count * width, 8 * len(data)))
    return found


def range_decoded(data, symbols, count):
    lanes, width = 1 << data[0], data[1]
    place = 2 + -(-symbols * width // 8)
    shares = [bits(data[2:place], n * width, width) for n in range(symbols)]
    assert sum(shares) == 65536
    starts = [sum(shares[:n]) for n in range(symbols)]
    states = list(struct.unpack_from(f"<{lanes}Q", data, place))
    rest = data[place + 8 * lanes :]
    codewords = list(struct.unpack(f"<{len(rest) // 4}I", rest))[::-1]
    found = []
    for n in range(count):
        state = states[n % lanes]
        slot = state & 65535
        symbol = max(s for s in range(symbols) if starts[s] <= slot and shares[s])
        state = shares[symbol] * (state >> 16) + slot - starts[symbol]
        if state < 1 << 31:
            state = state << 32 | codewords.pop()
        states[n % lanes] = state
        found.append(symbol)
    assert not codewords
    assert states == [1 << 31] * lanes
    return found
