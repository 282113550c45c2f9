"""The container for codes: what was written comes back, or an error of ours."""

import io
import itertools
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers import paths, rvq_reader
from helpers.containers import contents, same, written
from hypothesis import given, settings
from hypothesis import strategies as st

import rvq_np
from rvq_np import Codebooks, Grouped, Parallel, Stage, bitstream
from rvq_np.bitstream import _body, _format
from rvq_np.errors import (
    BitstreamError,
    CodeRangeError,
)
from rvq_np.kernels.compiled import bits
from rvq_np.kernels.plain import bits as plain_bits

pytestmark = pytest.mark.quick

FIXTURES = Path(__file__).parent / "data" / "containers"


@pytest.mark.parametrize("numba", [True, False])
@given(case=contents())
def test_what_was_written_comes_back(numba, case):
    codes, arguments = case
    with paths.patched() if numba else paths.without_numba():
        file = written(codes, arguments)
        found = bitstream.read(file)
    same(found.codes, codes)
    assert found.sizes == tuple(arguments["sizes"])
    assert found.strides == tuple(arguments.get("strides", [1] * len(codes)))
    assert found.frame_rate is None
    assert isinstance(found.codes, list) == (max(found.strides) > 1)


@given(case=contents())
def test_both_kinds_of_kernels_write_the_same_bytes(case):
    compiled = written(*case).getvalue()
    with paths.without_numba(), paths.patched((plain_bits, "ROWS", 1)):
        assert written(*case).getvalue() == compiled
        same(bitstream.read(io.BytesIO(compiled)).codes, case[0])


@settings(max_examples=40)
@given(case=contents())
def test_a_reader_made_of_the_page_reads_the_same(case):
    codes, arguments = case
    if max(arguments["sizes"]) > 2000:  # it is slow, and means to be
        arguments = {**arguments, "sizes": [min(each, 2000) for each in arguments["sizes"]]}
        codes = [np.minimum(stage, 1999) for stage in codes]
    header, stages = rvq_reader.read(written(codes, arguments).getvalue())
    batch = np.shape(codes[0])[:-1]
    assert header["batch"] == list(batch)
    for found, expected in zip(stages, codes, strict=True):
        flat = [[-1 if code is None else code for code in stream] for stream in found]
        assert flat == np.reshape(expected, (len(flat), np.shape(expected)[-1])).tolist()


@given(case=contents(), data=st.data())
def test_any_range_of_frames_and_prefix_of_stages(case, data):
    codes, arguments = case
    file = written(codes, arguments)
    with bitstream.Reader(file) as reader:
        blocks = reader.frames // reader.block
        low = data.draw(st.integers(0, blocks))
        high = data.draw(st.integers(low, blocks))
        n_q = data.draw(st.integers(1, len(codes)))
        found = reader.read(n_q, start=low * reader.block, stop=high * reader.block)
        assert found.sizes == reader.sizes[:n_q]
        expected = [
            stage[..., low * reader.block // stride : high * reader.block // stride]
            for stage, stride in zip(codes[:n_q], reader.strides, strict=False)
        ]
        same(found.codes, expected)
        parts = [part.codes for part in reader]
        for stage in range(len(codes)):
            if parts:
                joined = np.concatenate([part[stage] for part in parts], axis=-1)
                np.testing.assert_array_equal(joined, codes[stage])


class Watched(io.BytesIO):
    """A file that counts the bytes that are read, and gives one at a time if asked to."""

    taken = 0
    one_by_one = False

    def read(self, size=-1):
        content = super().read(1 if self.one_by_one and size else size)
        self.taken += len(content)
        return content


def test_a_prefix_of_the_stages_reads_only_its_bytes(rng):
    codes = rng.integers(0, 1024, (8, 4096 * 4))
    file = Watched(written(codes, {"sizes": [1024] * 8, "chunk_frames": 4096}).getvalue())
    bitstream.read(file, n_q=2)
    assert file.taken < 0.26 * len(file.getvalue())
    file.taken = 0
    bitstream.read(file, start=4096, stop=8192)
    assert file.taken < 0.26 * len(file.getvalue())


def test_short_reads_are_read_to_the_end(rng):
    codes = rng.integers(0, 50, (3, 200))
    file = Watched(written(codes, {"sizes": [50] * 3}).getvalue())
    file.one_by_one = True
    same(bitstream.read(file).codes, codes)


@given(case=contents(), data=st.data())
def test_appended_frames_follow(case, data):
    codes, arguments = case
    file = written(codes, arguments)
    before = file.getvalue()
    for _ in range(data.draw(st.integers(1, 3))):
        bitstream.append(file, codes, chunk_frames=arguments["chunk_frames"])
    times = bitstream.Reader(file).frames // max(1, bitstream.Reader(io.BytesIO(before)).frames)
    expected = [np.concatenate([stage] * max(1, times), axis=-1) for stage in codes]
    same(bitstream.read(file).codes, expected)
    assert file.getvalue()[len(before) :] or not np.size(codes[0])
    slots = _format.read_slots(_at_slots(file))
    assert slots[0] == slots[1]  # so that either may be lost


def _at_slots(file):
    file.seek(0)
    _format.read_header(file)
    return file


def test_either_slot_alone_finds_everything(rng):
    codes = rng.integers(0, 50, (3, 20))
    file = written(codes, {"sizes": [50] * 3})
    bitstream.append(file, codes)
    _at_slots(file)
    place = file.tell()
    for slot in range(2):
        damaged = bytearray(file.getvalue())
        damaged[place + slot * _format.SLOT.size + 9] ^= 1
        found = bitstream.read(io.BytesIO(bytes(damaged)))
        np.testing.assert_array_equal(found.codes, np.concatenate([codes, codes], axis=1))


class Stopped(Exception):
    pass


class Failing(io.BytesIO):
    """A file whose writes stop after so many bytes, in the middle of one if need be."""

    left = None

    def write(self, content):
        if self.left is None:
            return super().write(content)
        some = bytes(content)[: self.left]
        self.left -= len(some)
        super().write(some)
        if len(some) < len(content):
            raise Stopped
        return len(content)

    def truncate(self, size=None):
        if self.left == 0:
            raise Stopped
        return super().truncate(size)


def test_an_append_that_stops_anywhere_leaves_what_was_there(rng):
    codes, more = rng.integers(0, 50, (2, 30)), rng.integers(0, 50, (2, 20))
    content = written(codes, {"sizes": [50, 50]}).getvalue()
    whole = Failing(content)
    bitstream.append(whole, more)
    total = len(whole.getvalue()) - len(content) + 2 * _format.SLOT.size
    both = np.concatenate([codes, more], axis=1)
    seen = set()
    for left in range(total + 1):
        file = Failing(content)
        file.left = left
        try:
            bitstream.append(file, more)
            done = True
        except Stopped:
            done = False
        found = bitstream.read(io.BytesIO(file.getvalue())).codes
        assert found.shape in ((2, 30), (2, 50))
        np.testing.assert_array_equal(found, both[:, : found.shape[1]])
        assert found.shape == (2, 50) or not done
        seen.add((found.shape[1], done))
        file.left = None  # and the next append goes on from what there is
        bitstream.append(file, more)
        after = bitstream.read(io.BytesIO(file.getvalue())).codes
        np.testing.assert_array_equal(after, np.concatenate([found, more], axis=1))
    assert seen == {(30, False), (50, False), (50, True)}


def test_a_writer_takes_codes_as_they_come(rng, tmp_path):
    codes = rng.integers(0, 50, (3, 2, 100))
    path = tmp_path / "a.rvq"
    cuts = [0, 1, 1, 30, 31, 77, 100]
    with bitstream.Writer(path, sizes=[50] * 3, batch=(2,), chunk_frames=16) as writer:
        for low, high in itertools.pairwise(cuts):
            writer.write(codes[..., low:high])
        assert os.listdir(tmp_path) != ["a.rvq"]
    with bitstream.Reader(path) as reader:
        assert (reader.frames, reader.chunks, reader.batch) == (100, 7, (2,))
        np.testing.assert_array_equal(reader.read().codes, codes)
        reader.verify()
    again = tmp_path / "b.rvq"
    bitstream.write(again, codes, sizes=[50] * 3, chunk_frames=16)
    assert path.read_bytes() == again.read_bytes()  # however they came
    assert sorted(os.listdir(tmp_path)) == ["a.rvq", "b.rvq"]


def test_a_writer_that_is_given_up_leaves_the_old_file(rng, tmp_path):
    path = tmp_path / "a.rvq"
    bitstream.write(path, np.ones((2, 5), int), sizes=[5, 5])
    before = path.read_bytes()
    writer = bitstream.Writer(path, sizes=[5, 5], chunk_frames=1)
    writer.write(np.zeros((2, 50), int))
    writer.__exit__(ZeroDivisionError, None, None)
    assert path.read_bytes() == before
    with pytest.raises(CodeRangeError):
        bitstream.write(path, np.full((2, 5), 9), sizes=[5, 5])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.rvq"]


def test_memory_does_not_grow_with_the_file(rng, tmp_path):
    part = rng.integers(0, 1024, (8, 20000)).astype(np.int32)
    with (
        paths.traced_memory() as peak,
        bitstream.Writer(tmp_path / "a.rvq", sizes=[1024] * 8, chunk_frames=20000) as writer,
    ):
        for _ in range(30):
            writer.write(part)
    assert peak[0] < 8 * part.nbytes
    with paths.traced_memory() as peak, bitstream.Reader(tmp_path / "a.rvq") as reader:
        assert sum(each.codes.shape[1] for each in reader) == 30 * 20000
    assert peak[0] < 8 * part.nbytes


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(75, 75), ((44100, 512), Fraction(44100, 512)), (12.5, Fraction(25, 2)),
     (Fraction(1, 3), Fraction(1, 3)), (86.1328125, Fraction(44100, 512))],
)  # fmt: skip
def test_the_frame_rate_is_kept_as_it_is(rate, expected):
    file = written(np.zeros((1, 3), int), {"sizes": [4], "frame_rate": rate})
    assert bitstream.read(file).frame_rate == expected


def test_dropped_codes_are_not_codeword_zero():
    codes = np.array([[0, -1, 0, -1], [1, 1, -1, 0]])
    file = written(codes, {"sizes": [1, 2]})
    same(bitstream.read(file).codes, codes)


# Which codebooks: their fingerprints.


def quantizer(rng, n_q=3):
    return Codebooks(rng.standard_normal((n_q, 16, 4)).astype(np.float32))


def test_codes_are_not_read_for_other_codebooks(rng):
    books, others = quantizer(rng), quantizer(rng)
    codes = rng.integers(0, 16, (3, 20))
    file = written(codes, {"codebooks": books})
    same(bitstream.read(file, codebooks=books).codes, codes)
    mixed = Codebooks([*books.stages[:2], others.stages[2]])
    with pytest.raises(BitstreamError, match="are of other codebooks"):
        bitstream.read(file, codebooks=mixed)
    same(bitstream.read(file, 2, codebooks=mixed).codes, codes[:2])  # which are the same
    same(bitstream.read(file, 2, codebooks=books[:2]).codes, codes[:2])
    with pytest.raises(
        BitstreamError, match=r"sizes \(16, 16, 16\); got codebooks with sizes \(16, 16\)"
    ):
        bitstream.read(file, 3, codebooks=books[:2])
    with pytest.raises(
        BitstreamError, match=r"sizes \(16, 16, 16\); got codebooks with sizes \(8, 8, 8\)"
    ):
        bitstream.read(file, codebooks=np.ones((3, 8, 4), np.float32))
    unknown = written(codes, {"sizes": [16] * 3})
    same(bitstream.read(unknown, codebooks=others).codes, codes)


def test_fewer_stages_of_composed_codebooks_have_their_fingerprint(rng):
    halves = [quantizer(rng, 2), quantizer(rng, 3)]
    for whole in (Parallel(halves), Grouped(halves)):
        codes = rng.integers(0, 16, (5, 20))
        file = written(codes, {"codebooks": whole})
        for n in range(1, 6):
            some = bitstream.read(file, n, codebooks=whole[:n])
            same(some.codes, codes[:n])
            assert bitstream.read(written(codes[:n], {"codebooks": whole})).sizes == (16,) * n
        with pytest.raises(BitstreamError, match="other codebooks"):
            bitstream.read(file, codebooks=type(whole)(halves[::-1]))


def test_codes_of_a_quantizer_with_strides_take_them_from_it(rng):
    codewords = rng.standard_normal((2, 8, 3)).astype(np.float32)
    books = Codebooks([Stage(codewords[0], stride=4), Stage(codewords[1], stride=2)])
    codes = rvq_np.encode(rng.standard_normal((2, 40, 3)).astype(np.float32), books)
    found = bitstream.read(written(codes, {"codebooks": books}), codebooks=books)
    assert found.strides == (4, 2)
    same(found.codes, codes)
    assert rvq_np.decode(found.codes, books).shape == (2, 40, 3)


# What was written by version 1, and is read for ever.


@pytest.mark.parametrize("name", sorted(path.stem for path in FIXTURES.glob("*.rvq")))
def test_committed_files_are_read_as_they_were(name):
    with np.load(FIXTURES / f"{name}.npz") as archive:
        expected = [archive[f"level_{n}"] for n in range(len(archive.files))]
    if name == "dropped":  # which was appended to itself
        expected = [np.concatenate([stage, stage], axis=-1) for stage in expected]
    same(bitstream.read(FIXTURES / f"{name}.rvq").codes, expected)


def test_committed_files_are_written_again_byte_by_byte():
    with np.load(FIXTURES / "coded.npz") as archive:
        codes = np.stack([archive["level_0"], archive["level_1"]])
    file = written(codes, {"sizes": [40, 64], "frame_rate": 75})
    assert file.getvalue() == (FIXTURES / "coded.rvq").read_bytes()
    names = {"packed", "dropped", "coded", "strided", "fingerprint", "empty", "large"}
    assert {path.stem for path in FIXTURES.glob("*.rvq")} == names


# The kernels.


@given(st.integers(1, 32), st.integers(0, 1), st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_packing_is_the_same_with_and_without_numba(width, add, count, seed):
    highest = min((1 << width) - 1 - add, 2**31 - 2)
    if highest < 0:
        return
    codes = np.random.default_rng(seed).integers(-add, highest + 1, count).astype(np.int32)
    content = 0
    for n, code in enumerate(codes.tolist()):
        content |= (code + add) << (n * width)
    expected = content.to_bytes(-(-count * width // 32) * 4, "little")
    for module in (bits, plain_bits):
        with paths.patched((plain_bits, "ROWS", 2)):
            codewords = np.zeros(-(-count * width // 32), np.uint32)
            module.pack(codes, add, width, codewords)
            assert codewords.tobytes() == expected
            back = np.empty_like(codes)
            largest = module.unpack(codewords, add, width, back)
        np.testing.assert_array_equal(back, codes)
        assert largest == max(codes.tolist(), default=-add) + add


def test_chunks_hold_as_many_codes_as_is_said():
    assert _body.CODES == 1 << 18
    cases = ((1, (1,), 1 << 18), (4, (1, 1), 1 << 16), (1, (4, 2), 1 << 19))
    for streams, strides, frames in cases:
        header = _format.Header((4,) * len(strides), strides, (streams,))
        assert _body._chunk_frames(header, None) == frames
