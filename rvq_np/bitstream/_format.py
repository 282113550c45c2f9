"""Every byte of a ``.rvq`` file except the codes; docs/format.md describes them in prose.

    header   magic, version, its own length, frame rate, stages, streams, fingerprints, CRC-32
    slots    two, each with a generation, the offset of the index, CRC-32; written last
    chunks   a header with the lengths and CRC-32s of all stages, then the stages one by one
    index    the offset and the number of frames of each chunk, CRC-32

All numbers are little-endian.  Every value read is checked before it is used or memory is allocated
for it; an invalid one raises `BitstreamError`.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO
from zlib import crc32

from ..errors import BitstreamError
from ..files import kinds

MAGIC = kinds.RVQ  # like PNG's: shows a transfer that changed line ends or bit 8
VERSION = 1
CHUNK, INDEX = b"RVQC", b"RVQI"
PREFIX = struct.Struct("<8sHHI")  # magic, version, zero, length of the header
SLOT = struct.Struct("<QQQI")  # generation, offset of the index, its length, CRC-32
OPENING = struct.Struct("<4sIQ")  # of a chunk: tag, CRC-32 of what follows in its header, frames
STAGE = struct.Struct("<BII")  # coding, bytes, CRC-32
ENTRY = struct.Struct("<QQ")  # of the index: offset of a chunk, its frames
FINGERPRINT_BYTES = 16

MOST_STAGES, MOST_AXES, MOST_CODEWORDS = 65535, 30, 2**31 - 1
MOST_FRAMES = 2**62
HEADER_LIMIT = 1 << 22  # bytes; enough for MOST_STAGES stages with fingerprints


@dataclass(frozen=True)
class Header:
    """The properties of all codes of a file."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    batch: tuple[int, ...] = ()
    frame_rate: Fraction | None = None
    fingerprints: tuple[bytes, ...] = ()  # of the first stage, the first two, and so on; or none

    @property
    def n_q(self) -> int:
        return len(self.sizes)

    @property
    def streams(self) -> int:
        return math.prod(self.batch)

    @property
    def block(self) -> int:
        """The frames of a chunk are a multiple of this."""
        return math.lcm(*self.strides)

    @property
    def opening(self) -> int:
        """Bytes of the header of a chunk."""
        return OPENING.size + self.n_q * STAGE.size

    def to_bytes(self) -> bytes:
        rate = self.frame_rate
        fields = struct.pack(
            f"<QQII{len(self.batch)}Q",
            rate.numerator if rate else 0,
            rate.denominator if rate else 0,
            self.n_q,
            len(self.batch),
            *self.batch,
        )
        fields += b"".join(
            struct.pack("<II", *pair) for pair in zip(self.sizes, self.strides, strict=True)
        )
        fields += struct.pack("<I", len(self.fingerprints)) + b"".join(self.fingerprints)
        length = PREFIX.size + len(fields) + 4
        content = PREFIX.pack(MAGIC, VERSION, 0, length) + fields
        return content + struct.pack("<I", crc32(content))


def read_header(file: BinaryIO) -> tuple[Header, int]:
    """Return the header of a file, and its length in bytes."""
    prefix = exactly(file, PREFIX.size, "the header")
    magic, version, zero, length = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise BitstreamError(
            f"read: the file begins with {magic!r}; expected a .rvq file, {MAGIC!r}."
        )
    if version != VERSION:
        raise BitstreamError(
            f"read: the file has format version {version}; this release reads {VERSION}. Upgrade "
            "rvq_np."
        )
    if zero or not PREFIX.size < length <= HEADER_LIMIT:
        raise BitstreamError(
            f"read: the header has an invalid length, {length} bytes: the file is damaged."
        )
    content = prefix + exactly(file, length - PREFIX.size, "the header")
    if crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):
        raise BitstreamError(
            "read: the checksum of the header does not match: the file is damaged."
        )
    try:
        header = _parse(content[PREFIX.size : -4])
    except (struct.error, ValueError, OverflowError) as error:
        raise BitstreamError(f"read: the header is invalid: {error}.") from error
    return header, length


def _parse(fields: bytes) -> Header:
    place = 0

    def take(form: str) -> tuple[Any, ...]:
        nonlocal place
        values = struct.unpack_from("<" + form, fields, place)
        place += struct.calcsize("<" + form)
        return values

    numerator, denominator, count, axes = take("QQII")
    if not 1 <= count <= MOST_STAGES or axes > MOST_AXES:
        raise ValueError(f"{count} stages, {axes} batch axes")
    batch = take(f"{axes}Q")
    pairs = [take("II") for _ in range(count)]
    (prints,) = take("I")
    if prints not in (0, count):
        raise ValueError(f"{prints} fingerprints for {count} stages")
    fingerprints = tuple(take(f"{FINGERPRINT_BYTES}s")[0] for _ in range(prints))
    if place != len(fields):
        raise ValueError(f"{len(fields) - place} extra bytes at its end")
    if (numerator == 0) != (denominator == 0):
        raise ValueError(f"frame rate {numerator} / {denominator}")
    rate = Fraction(numerator, denominator) if denominator else None
    sizes, strides = (tuple(each) for each in zip(*pairs, strict=True))
    header = Header(sizes, strides, batch, rate, fingerprints)
    check(header)
    return header


def check(header: Header) -> None:
    """Raise ValueError unless all values of a header are valid."""
    if not 1 <= len(header.sizes) == len(header.strides) <= MOST_STAGES:
        raise ValueError(
            f"sizes and strides must have one value per stage, 1 to {MOST_STAGES} stages; got "
            f"{len(header.sizes)} sizes and {len(header.strides)} strides"
        )
    if len(header.batch) > MOST_AXES or any(each < 0 for each in header.batch):
        raise ValueError(
            f"batch must have at most {MOST_AXES} axes, none negative, got {header.batch}"
        )
    if not all(1 <= each <= MOST_CODEWORDS for each in (*header.sizes, *header.strides)):
        raise ValueError(
            f"sizes and strides must be in [1, {MOST_CODEWORDS}], got sizes {header.sizes[:4]} and "
            f"strides {header.strides[:4]}"
        )
    block = 1
    for stride in header.strides:
        block = math.lcm(block, stride)
        if block > MOST_CODEWORDS:
            raise ValueError(
                f"the least common multiple of strides must be at most {MOST_CODEWORDS}, got "
                f"strides {header.strides[:8]}"
            )
    if header.streams * max(header.batch, default=1) > MOST_FRAMES:
        raise ValueError(f"batch is too large: {header.batch}")


@dataclass(frozen=True)
class Slot:
    """Where the index of one generation of the file is."""

    generation: int
    offset: int
    length: int

    def to_bytes(self) -> bytes:
        fields = struct.pack("<QQQ", self.generation, self.offset, self.length)
        return fields + struct.pack("<I", crc32(fields))


def read_slots(file: BinaryIO) -> list[Slot | None]:
    """Return both slots; None for one that was not written, or only in part."""
    content = exactly(file, 2 * SLOT.size, "the place of the index")
    slots: list[Slot | None] = []
    for start in (0, SLOT.size):
        fields = content[start : start + SLOT.size]
        generation, offset, length, checksum = SLOT.unpack(fields)
        good = checksum == crc32(fields[:-4]) and generation > 0
        slots.append(Slot(generation, offset, length) if good else None)
    return slots


@dataclass(frozen=True)
class Chunk:
    """Where a chunk is, how many frames it has, and how many are before it."""

    offset: int
    end: int  # its bytes end before this offset
    frames: int
    first: int


def index_bytes(chunks: list[Chunk]) -> bytes:
    content = INDEX + struct.pack("<Q", len(chunks))
    content += b"".join(ENTRY.pack(each.offset, each.frames) for each in chunks)
    return content + struct.pack("<I", crc32(content))


def read_index(file: BinaryIO, slot: Slot, start: int, size: int, block: int) -> list[Chunk]:
    """Return the chunks in order; each begins after the one before."""
    if slot.offset < start or slot.offset + slot.length > size or slot.length < 16:
        raise BitstreamError(
            f"read: the index should be at bytes {slot.offset} to {slot.offset + slot.length}, but "
            f"the file has {size} bytes: it is truncated or damaged."
        )
    file.seek(slot.offset)
    content = exactly(file, slot.length, "the index")
    (count,) = struct.unpack_from("<Q", content, 4)
    whole = content[:4] == INDEX and slot.length == 16 + count * ENTRY.size
    if not whole or crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):
        raise BitstreamError("read: the checksum of the index does not match: the file is damaged.")
    entries = list(ENTRY.iter_unpack(content[12:-4]))
    ends = [offset for offset, _ in entries[1:]] + [slot.offset]
    chunks, first, least = [], 0, start
    for (offset, frames), end in zip(entries, ends, strict=False):
        if not least <= offset < end or not 0 < frames <= MOST_FRAMES - first or frames % block:
            raise BitstreamError(
                f"read: the index has an invalid chunk, {frames} frames at byte {offset}: the file "
                "is damaged."
            )
        chunks.append(Chunk(offset, end, frames, first))
        first, least = first + frames, offset
    return chunks


@dataclass(frozen=True)
class Part:
    """One stage of a chunk: its coding, offset, length and checksum."""

    coding: int
    offset: int
    length: int
    checksum: int


def chunk_header(frames: int, stages: list[tuple[int, bytes]]) -> bytes:
    rest = struct.pack("<Q", frames)
    rest += b"".join(STAGE.pack(coding, len(data), crc32(data)) for coding, data in stages)
    return CHUNK + struct.pack("<I", crc32(rest)) + rest


def read_chunk(file: BinaryIO, header: Header, chunk: Chunk) -> list[Part]:
    """Return where the stages of a chunk are; checked to end before the chunk does."""
    where = f"the chunk at byte {chunk.offset}"
    if chunk.offset + header.opening > chunk.end:
        raise BitstreamError(f"read: {where} overlaps what follows it: the file is damaged.")
    file.seek(chunk.offset)
    content = exactly(file, header.opening, where)
    tag, checksum, frames = OPENING.unpack_from(content)
    if tag != CHUNK or checksum != crc32(content[8:]) or frames != chunk.frames:
        raise BitstreamError(f"read: the checksum of {where} does not match: the file is damaged.")
    parts, offset = [], chunk.offset + header.opening
    for coding, length, stage_checksum in STAGE.iter_unpack(content[OPENING.size :]):
        parts.append(Part(coding, offset, length, stage_checksum))
        offset += length
    if offset > chunk.end:
        raise BitstreamError(f"read: {where} overlaps what follows it: the file is damaged.")
    return parts


def exactly(file: BinaryIO, size: int, what: str) -> bytes:
    """Return `size` bytes, by several reads if needed, or raise."""
    content = file.read(size)
    while content is not None and len(content) < size:
        more = file.read(size - len(content))
        if not more:
            break
        content += more
    if content is None or len(content) < size:
        raise BitstreamError(f"read: the file ends within {what}: it is truncated.")
    return content
