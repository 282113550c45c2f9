"""What is no container, and what cannot be written to one, is refused by name."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from helpers import paths
from helpers.containers import contents, same, written
from hypothesis import given
from hypothesis import strategies as st

from rvq_np import bitstream
from rvq_np.bitstream import _format, _stages
from rvq_np.errors import (
    BitstreamError,
    CodeRangeError,
    DtypeError,
    LevelsError,
    ParameterError,
    ShapeError,
)

pytestmark = pytest.mark.quick


# What is refused.


@given(case=contents(), data=st.data())
def test_a_file_that_ends_anywhere_before_its_end_is_refused(case, data):
    content = written(*case).getvalue()
    end = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(BitstreamError):
        bitstream.read(io.BytesIO(content[:end]))


@given(case=contents(), data=st.data())
def test_a_flipped_bit_is_refused_or_changes_nothing(case, data):
    """It changes nothing in a slot, of which there are two."""
    content = written(*case).getvalue()
    _flip(content, data.draw(st.integers(0, 8 * len(content) - 1)), *case)


def test_no_bit_of_a_file_goes_unchecked():
    """Five codewords take as many bits as with drops: a changed coding would show nowhere else."""
    case = np.array([[4, 0, 3, 1, 2], [0, 299, 1, 17, -1]]), {"sizes": [5, 300], "compress": False}
    content = written(*case).getvalue()
    for at in range(8 * len(content)):
        _flip(content, at, *case)


def _flip(content, at, codes, arguments):
    damaged = bytearray(content)
    damaged[at // 8] ^= 1 << at % 8
    file = io.BytesIO(bytes(damaged))
    slots = len(_format.Header(**_header(codes, arguments)).to_bytes())
    if slots <= at // 8 < slots + 2 * _format.SLOT.size:
        same(bitstream.read(file).codes, codes)
    else:
        with pytest.raises(BitstreamError):
            bitstream.read(file)


def _header(codes, arguments):
    sizes = tuple(arguments["sizes"])
    return {
        "sizes": sizes,
        "strides": tuple(arguments.get("strides", [1] * len(sizes))),
        "batch": np.shape(codes[0])[:-1],
    }


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused(content):
    with pytest.raises(BitstreamError):
        bitstream.read(io.BytesIO(_format.MAGIC + content))
    with pytest.raises(BitstreamError):
        bitstream.read(io.BytesIO(content))


def resealed(content, place, length):
    """Return `content` with the CRC-32 at `place + length` made right for what is before it."""
    sealed = bytearray(content)
    struct.pack_into("<I", sealed, place + length, zlib.crc32(sealed[place : place + length]))
    return bytes(sealed)


def header_with(changes, content):
    """Return the file with bytes of its header changed and its checksum made right."""
    changed = bytearray(content)
    for at, value in changes.items():
        changed[at : at + len(value)] = value
    (length,) = struct.unpack_from("<I", content, 12)
    return resealed(changed, 0, length - 4)


U32, U64 = struct.Struct("<I").pack, struct.Struct("<Q").pack


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: b"RIFF"}, "begins with b'RIFF"),
        ({8: b"\2"}, "format version 2; this release reads 1"),
        ({10: b"\1"}, r"invalid length, \d+ bytes"),
        ({12: U32(16)}, "invalid length, 16 bytes"),
        ({12: U32(2**31)}, "invalid length, 2147483648 bytes"),
        ({16: U64(5)}, "frame rate 5 / 0"),
        ({24: U64(5)}, "frame rate 0 / 5"),
        ({32: U32(0)}, "0 stages, 0 batch axes"),
        ({32: U32(65536)}, "65536 stages, 0 batch axes"),
        ({32: U32(1)}, "header is invalid"),
        ({32: U32(3)}, "header is invalid"),
        ({36: U32(31)}, "2 stages, 31 batch axes"),
        ({36: U32(1)}, "header is invalid"),
        ({40: U32(0)}, r"must be in \[1, 2147483647\], got sizes \(0, 5\)"),
        ({40: U32(2**31)}, r"must be in \[1, 2147483647\], got sizes \(2147483648, 5\)"),
        ({44: U32(0)}, r"strides \(0, 1\)"),
        (
            {44: U32(2**31 - 1), 52: U32(2**31 - 2)},
            "least common multiple of strides must be at most 2147483647",
        ),
        ({56: U32(1)}, "1 fingerprints for 2 stages"),
        ({56: U32(2)}, "header is invalid"),
    ],
)
def test_a_header_that_cannot_be_is_refused(changes, message):
    content = written(np.ones((2, 20), int), {"sizes": [5, 5]}).getvalue()
    with pytest.raises(BitstreamError, match=message):
        bitstream.read(io.BytesIO(header_with(changes, content)))


def crafted(header, chunks, offsets=None, frames=None):
    """Return a file of these chunks, ``(frames, [(coding, bytes)])``, all checksums right."""
    content = header.to_bytes()
    slots = len(content)
    content += bytes(2 * _format.SLOT.size)
    index = []
    for count, stages in chunks:
        index.append((len(content), count))
        content += _format.chunk_header(count, stages) + b"".join(data for _, data in stages)
    entries = [
        _format.Chunk(offset if offsets is None else offsets[n], 0,
                      count if frames is None else frames[n], 0)
        for n, (offset, count) in enumerate(index)
    ]  # fmt: skip
    reported = _format.index_bytes(entries)
    slot = _format.Slot(1, len(content), len(reported)).to_bytes()
    return content[:slots] + 2 * slot + content[slots + 2 * _format.SLOT.size :] + reported


ONE = _format.Header((4,), (1,))
TWO_BITS = [(0, b"\xe4")]  # codes 0, 1, 2, 3


def test_crafted_files_are_files():
    found = bitstream.read(io.BytesIO(crafted(ONE, [(4, TWO_BITS), (4, TWO_BITS)]))).codes
    assert found.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (crafted(ONE, [(5, TWO_BITS)]), "1 bytes cannot hold 5 codes"),
        (crafted(ONE, [(2**40, TWO_BITS)]), "cannot hold 1099511627776 codes"),
        (crafted(ONE, [(2**63, TWO_BITS)]), "9223372036854775808 frames at byte"),
        (crafted(ONE, [(0, [(0, b"")])]), "0 frames at byte"),
        (crafted(ONE, [(3, TWO_BITS)]), "the bits after the last code of a stage are not zero"),
        (crafted(ONE, [(4, [(4, b"\xe4")])]), "coding 4"),
        (crafted(ONE, [(4, [(1, b"\xff\x0f")])]), r"out of range \[0, 4\)"),
        (crafted(_format.Header((3,), (1,)), [(4, TWO_BITS)]), r"out of range \[0, 3\)"),
        (crafted(_format.Header((4,), (2,)), [(3, TWO_BITS)]), "3 frames at byte"),
        (crafted(ONE, [(4, TWO_BITS)] * 2, offsets=[116, 116]), "invalid chunk"),
        (crafted(ONE, [(4, TWO_BITS)] * 2, offsets=[142, 116]), "invalid chunk"),
        (crafted(ONE, [(4, TWO_BITS)] * 2, offsets=[8, 142]), "invalid chunk"),
        (crafted(ONE, [(4, TWO_BITS)], offsets=[2**63]), "invalid chunk"),
        (crafted(ONE, [(4, TWO_BITS)], frames=[8]), r"checksum of the chunk at byte \d+ does not"),
        (crafted(ONE, [(4, [(2, b"\0\x11")])]), "truncated or invalid"),
        (crafted(ONE, [(4, [(2, b"\x0a\x10" + bytes(20000))])]), "truncated or invalid"),
        (crafted(ONE, [(4, [(2, b"\0\0" + bytes(20))])]), "truncated or invalid"),
        (crafted(ONE, [(4, [(2, b"\0\x12" + bytes(20))])]), "truncated or invalid"),
        (crafted(ONE, [(4, [(2, b"\0\x08\x01\x01\x01\x01" + bytes(8))])]), "do not sum to 65536"),
        (crafted(ONE, [(0x41 * 64, [(2, b"\0" * 64)])]), "64 bytes cannot hold 4160 codes"),
    ],
)  # fmt: skip
def test_what_the_checksums_let_through_is_refused(content, message):
    with paths.traced_memory() as peak, pytest.raises(BitstreamError, match=message):
        bitstream.read(io.BytesIO(content))
    assert peak[0] < 1 << 20


def with_index(entries, content):
    """Return a file whose index claims so many entries, its checksum right."""
    changed = bytearray(content)
    (place,) = [n for n in range(len(content)) if content[n : n + 4] == _format.INDEX]
    struct.pack_into("<Q", changed, place + 4, entries)
    return resealed(changed, place, len(content) - place - 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (with_index(2**60, crafted(ONE, [(4, TWO_BITS)])), "checksum of the index does not match"),
        (
            with_index(2**64 - 1, crafted(ONE, [(4, TWO_BITS)])),
            "checksum of the index does not match",
        ),
        (
            crafted(_format.Header((2**31 - 1,), (1,)), [(4, [(2, b"\0\x11" + bytes(99))])]),
            "truncated or invalid",
        ),
        (crafted(_format.Header((4,), (1,), (2**30, 2)), [(4, TWO_BITS)]), "1 bytes cannot hold"),
        (crafted(_format.Header((4,) * 9000, (1,) * 9000), [(4, TWO_BITS * 9000)]), None),
        (crafted(_format.Header((4,), (1,), (0,)), [(2**60, [(0, b"")])]), None),
        (
            crafted(_format.Header((4,), (1,), (0, 2**30)), [(2**60, [(0, b"")])]),
            "no array can have",
        ),
    ],
    ids=["entries", "all ones", "codewords", "streams", "stages", "no stream", "no stream of many"],
)
def test_claims_cost_no_more_than_the_file(content, message):
    with paths.traced_memory() as peak:
        if message is None:
            assert bitstream.read(io.BytesIO(content)).codes.size in (0, 36000)
        else:
            with pytest.raises(BitstreamError, match=message):
                bitstream.read(io.BytesIO(content))
    assert peak[0] < 100_000 + 64 * len(content)


SHARES = np.array([1 << 15, 1 << 14, 1 << 13, 1 << 13])


def ranged(state, codewords, shares=SHARES):
    table = sum(int(share) << (17 * n) for n, share in enumerate(shares))
    return b"".join((b"\0\x11", table.to_bytes(9, "little"), U64(state), *map(U32, codewords)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ranged(0, []), "begins in an invalid state"),
        (ranged(1 << 63, []), "begins in an invalid state"),
        (ranged(1 << 31, []), "does not end where it should"),
        (ranged(1 << 40, [1, 2, 3]), "does not end where it should"),
        (ranged(1 << 31, [], SHARES[::-1] * 0 + 1), "do not sum to 65536"),
    ],
)
def test_range_coded_stages_that_cannot_be_are_refused(data, message):
    for context in (paths.patched, paths.without_numba):
        with context(), pytest.raises(BitstreamError, match=message):
            bitstream.read(io.BytesIO(crafted(ONE, [(200, [(2, data)])])))


def test_a_range_coded_stage_ends_with_its_last_codeword_and_where_it_began(rng):
    codes = (np.minimum(rng.geometric(0.8, 500), 4) - 1).astype(np.int32)
    coding, data = _stages.to_bytes(codes, 4, True)
    assert coding == _stages.CODED
    same(bitstream.read(io.BytesIO(crafted(ONE, [(500, [(coding, data)])]))).codes, codes[None])
    other = data[:-4] + bytes([data[-4] ^ 1]) + data[-3:]
    for spoiled in (data + bytes(4), data[:-4], other):
        content = crafted(ONE, [(500, [(coding, spoiled)])])
        with pytest.raises(BitstreamError, match="does not end where it should"):
            bitstream.read(io.BytesIO(content))


def test_a_range_coded_stage_may_be_as_dense_as_is_said(rng):
    """Constant codes would take nothing; 64 codes a byte is what a reader allows."""
    for count in (1, 63, 64, 1000, 10**6):
        codes = np.full((1, count), 7)
        content = written(codes, {"sizes": [1000]}).getvalue()
        same(bitstream.read(io.BytesIO(content)).codes, codes)
    assert len(content) < 10**6 / 6  # packed they would take 10 bits


def test_coding_is_chosen_for_each_stage_of_each_chunk(rng):
    uneven = np.minimum(rng.geometric(0.2, 5000), 200) - 1
    codes = np.stack([rng.integers(0, 256, 5000), uneven])
    file = written(codes, {"sizes": [256, 256], "chunk_frames": 5000})
    with bitstream.Reader(file) as reader:
        parts = [each.coding for each in reader._parts(reader.index[0])]
    assert parts == [0, _stages.CODED]
    smaller, packed = len(file.getvalue()), 10000
    assert smaller < 0.85 * packed
    never = written(codes, {"sizes": [256, 256], "compress": False}).getvalue()
    assert packed < len(never) < 1.05 * packed


def test_shares_are_whole_and_no_row_is_left_out(rng):
    for trial in range(200):
        counts = rng.integers(0, 3, int(rng.integers(1, 2000))) * rng.integers(1, 10**6)
        counts[int(rng.integers(len(counts)))] += 1 + trial**3
        shares = _stages._frequencies(counts, np.flatnonzero(counts))
        assert shares.sum() == 1 << 16
        assert ((shares > 0) == (counts > 0)).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ParameterError, "got neither sizes nor codebooks; expected one"),
        ({"sizes": 5}, ParameterError, "sizes is 5; expected a sequence of one size per stage"),
        ({"sizes": [5]}, LevelsError, "codes have 2 stages; expected 1, as the file has"),
        ({"sizes": [5, 0]}, ParameterError, r"must be in \[1, 2147483647\], got sizes \(5, 0\)"),
        ({"sizes": [5, 2**31]}, ParameterError, r"got sizes \(5, 2147483648\)"),
        ({"sizes": [5, "a"]}, ParameterError, "must be sequences of integers"),
        ({"sizes": [5, 5], "strides": [1, 0]}, ParameterError, r"strides \(1, 0\)"),
        ({"sizes": [5, 5], "strides": [1, 2]}, ShapeError, "stage 1 have shape"),
        ({"sizes": [5, 5], "strides": [1]}, ParameterError, "got 2 sizes and 1 strides"),
        ({"sizes": [5, 5], "frame_rate": 0}, ParameterError, "frame_rate must be positive, got 0"),
        (
            {"sizes": [5, 5], "frame_rate": -1},
            ParameterError,
            "frame_rate must be positive, got -1",
        ),
        ({"sizes": [5, 5], "frame_rate": (1, 0)}, ParameterError, r"frame_rate is \(1, 0\)"),
        ({"sizes": [5, 5], "frame_rate": float("nan")}, ParameterError, "frame_rate is nan"),
        ({"sizes": [5, 5], "frame_rate": "fast"}, ParameterError, "frame_rate is 'fast'; expected"),
        ({"sizes": [5, 5], "chunk_frames": 0}, ParameterError, "chunk_frames is 0"),
        ({"sizes": [5, 5], "chunk_frames": 1.5}, ParameterError, "chunk_frames is 1.5"),
        (
            {"codebooks": np.ones((1, 5, 3))},
            LevelsError,
            "codes have 2 stages; expected 1, as the file has",
        ),
        ({"codebooks": np.ones((2, 5, 3)), "sizes": [5, 6]}, ParameterError, "Omit both"),
        ({"codebooks": np.ones((2, 5, 3)), "strides": [1, 2]}, ParameterError, "Omit both"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, error, message, tmp_path):
    with pytest.raises(error, match=message):
        bitstream.write(tmp_path / "a.rvq", np.ones((2, 8), int), **arguments)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        (np.ones((2, 4)), DtypeError, "stage 0 have dtype float64; expected integers"),
        (np.full((2, 4), 5), CodeRangeError, r"code 5 at \(0, 0\) is out of range \[0, 5\)"),
        (np.array([[0, 0], [0, -2]]), CodeRangeError, r"code -2 at \(1, 1\) is out of range"),
        (np.uint64([[0], [2**63]]), CodeRangeError, "code 9223372036854775808"),
        ([np.ones(3, int), np.ones(4, int)], ShapeError, "stage 1 have shape"),
        (np.array([1, 2]), ShapeError, "stage 0 have shape"),
        ([], LevelsError, "codes have 0 stages"),
    ],
)
def test_codes_that_cannot_be_are_refused(codes, error, message, tmp_path):
    with pytest.raises(error, match=message):
        bitstream.write(tmp_path / "a.rvq", codes, sizes=[5, 5])
    assert os.listdir(tmp_path) == []
    file = written(np.ones((2, 3), int), {"sizes": [5, 5]})
    before = file.getvalue()
    with pytest.raises(error):
        bitstream.append(file, codes)
    assert file.getvalue() == before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_q": 0}, LevelsError, "n_q is 0; expected 1 to 2"),
        ({"n_q": 3}, LevelsError, "n_q is 3; expected 1 to 2"),
        ({"start": -4}, ShapeError, r"start is -4 and stop is 8; .* <= 8\."),
        ({"stop": 12}, ShapeError, r"start is 0 and stop is 12; .* <= 8\."),
        ({"start": 4, "stop": 0}, ShapeError, "start is 4 and stop is 0"),
        ({"start": 2}, ShapeError, "multiples of 4"),
        ({"stop": 6}, ShapeError, "multiples of 4"),
    ],
)
def test_ranges_that_cannot_be_are_refused(arguments, error, message):
    codes = [np.ones(2, int), np.ones(8, int)]
    file = written(codes, {"sizes": [5, 5], "strides": [4, 1]})
    with pytest.raises(error, match=message):
        bitstream.read(file, **arguments)


def test_a_missing_file_is_the_builtin_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.rvq"):
        bitstream.read(tmp_path / "none.rvq")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        bitstream.append(tmp_path / "none.rvq", np.ones((1, 1), int))
    assert os.listdir(tmp_path) == []


def test_a_file_that_was_never_finished_is_refused():
    header = ONE.to_bytes()
    with pytest.raises(BitstreamError, match="never finished"):
        bitstream.read(io.BytesIO(header + bytes(2 * _format.SLOT.size)))
