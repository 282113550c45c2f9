"""Faiss indexes written without Faiss: their bytes, and what they cannot hold.

Faiss itself reads and searches them in tests/peers/test_export_to_faiss.py.
"""

import os
import struct
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rvq_np
from rvq_np import Codebooks, Grouped, Linear, Parallel, Projected, Stage, checkpoints, cli, export
from rvq_np.errors import CodeRangeError, NonFiniteError, ParameterError, ShapeError

pytestmark = pytest.mark.quick

BOOKS = Codebooks([np.float32([[1, 2], [3, 4], [5, 6], [7, 8]]), np.float32([[0, 0], [10, 20]])])
CODES = np.array([[3, 0, 2], [1, 0, 1]])
HEADER = struct.pack("<iqqqBi", 2, 3, 1 << 20, 1 << 20, 1, 1)
ADDITIVE = struct.pack("<QQQQQBQ12f", 2, 2, 2, 2, 1, 1, 12, *range(1, 9), 0, 0, 10, 20)
# What codes decode to: (17, 28), (1, 2), (15, 26); their squared norms.
SQUARES = [17.0**2 + 28**2, 5.0, 15.0**2 + 26**2]


def written(folder, *arguments, **options):
    export.faiss(folder / "a.faissindex", *arguments, **options)
    return (folder / "a.faissindex").read_bytes()


def test_the_bytes_of_an_index_without_norms(tmp_path):
    expected = b"IxRq" + HEADER + ADDITIVE + struct.pack("<iff", 0, 0, 0)
    expected += struct.pack("<iiQQ", 2049, 5, 1, 3) + bytes([3 + 4, 0, 2 + 4])
    assert written(tmp_path, BOOKS, CODES, "none") == expected


def test_the_bytes_of_float_norms_follow_the_codes(tmp_path):
    content = written(tmp_path, BOOKS, CODES, norms="float")
    before = b"IxRq" + HEADER + ADDITIVE + struct.pack("<iff", 3, 0, 0)
    before += struct.pack("<iiQQ", 2049, 5, 5, 15)
    assert content[: len(before)] == before
    for place, (codes, square) in enumerate(zip([7, 0, 6], SQUARES, strict=True)):
        (bits,) = struct.unpack("<I", struct.pack("<f", square))
        packed = int.from_bytes(content[len(before) + 5 * place :][:5], "little")
        assert packed == codes | bits << 3


def test_norms_of_8_bits_are_on_a_scale_between_the_least_and_the_largest(tmp_path):
    content = written(tmp_path, BOOKS, CODES)
    before = b"IxRq" + HEADER + ADDITIVE
    assert content[: len(before)] == before
    assert struct.unpack("<iff", content[len(before) :][:12]) == (4, 5.0, SQUARES[0])
    step = int((SQUARES[2] - 5) / (SQUARES[0] - 5) * 256)
    packed = [int.from_bytes(content[-6:][2 * n :][:2], "little") for n in range(3)]
    assert packed == [7 | 255 << 3, 0, 6 | step << 3]


def test_the_bytes_of_inverted_lists(tmp_path):
    lists = np.float32([[1, 0], [0, 1], [9, 9]])
    content = written(tmp_path, BOOKS, np.array([[2, 0, 2], *CODES]), "none", lists)
    expected = b"IwRQ" + HEADER + struct.pack("<QQ", 3, 1)
    expected += b"IxF2" + struct.pack("<iqqqBi", 2, 3, 1 << 20, 1 << 20, 1, 1)
    expected += struct.pack("<Q6f", 6, 1, 0, 0, 1, 9, 9) + struct.pack("<bQQ", 0, 0, 1)
    expected += ADDITIVE + struct.pack("<iff", 0, 0, 0) + struct.pack("<ii", 2049, 5)
    expected += struct.pack("<Bi", 1, 0) + b"ilar" + struct.pack("<QQ", 3, 1) + b"full"
    expected += struct.pack("<QQQQ", 3, 1, 0, 2)
    expected += bytes([0]) + struct.pack("<q", 1)
    expected += bytes([7, 6]) + struct.pack("<qq", 0, 2)
    assert content == expected


def test_groups_are_packed_one_after_another_though_their_stages_take_turns(tmp_path):
    one = np.float32([[[1], [2]], [[3], [4]]])
    content = written(tmp_path, Grouped([one, one]), np.array([[1], [0], [1], [0]]), "none")
    assert content[:4] == b"IxPR"
    assert content[-1] == 0b0011  # 1, 1 of the first group and 0, 0 of the other


@given(
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=4), rows=st.integers(0, 40),
    seed=st.integers(0, 9), norms=st.sampled_from(["none", "float", "qint8"]),
)  # fmt: skip
def test_any_codes_are_a_string_of_bits(sizes, rows, seed, norms, tmp_path_factory):
    rng = np.random.default_rng(seed)
    books = Codebooks([rng.standard_normal((size, 3)).astype(np.float32) for size in sizes])
    codes = np.stack([rng.integers(0, size, rows) for size in sizes])
    content = written(tmp_path_factory.getbasetemp(), books, codes, norms)
    bits = [max(1, int(np.ceil(np.log2(size)))) for size in sizes]
    size = -(-(sum(bits) + {"none": 0, "float": 32, "qint8": 8}[norms]) // 8)
    tail = content[len(content) - rows * size :]
    assert struct.unpack("<QQ", content[: len(content) - rows * size][-16:]) == (size, rows * size)
    for row in range(rows):
        number = int.from_bytes(tail[row * size :][:size], "little")
        for q, width in enumerate(bits):
            assert number & ((1 << width) - 1) == codes[q, row]
            number >>= width


def test_pieces_are_one_string(monkeypatch, tmp_path, rng):
    codes = np.stack([rng.integers(0, 4, 50), rng.integers(0, 2, 50)])
    lists = np.float32([[1, 0], [0, 1]])
    both = np.concatenate([rng.integers(0, 2, (1, 50)), codes])
    expected = written(tmp_path, BOOKS, codes), written(tmp_path, BOOKS, both, None, lists)
    monkeypatch.setattr(export._faiss, "ROWS", 7)
    assert written(tmp_path, BOOKS, codes) == expected[0]
    assert written(tmp_path, BOOKS, both, None, lists) == expected[1]


def test_an_index_comes_back_as_it_went(tmp_path):
    assert written(tmp_path, BOOKS)[:4] == b"IxRq"
    assert checkpoints.load(tmp_path / "a.faissindex").fingerprint == BOOKS.fingerprint


def test_a_size_that_is_no_power_of_two_is_filled_up_far_away(tmp_path):
    books = Codebooks([np.float32([[1, 2], [3, -40], [5, 6]])])
    written(tmp_path, books)
    loaded = checkpoints.load(tmp_path / "a.faissindex").stages[0].codebook
    np.testing.assert_array_equal(loaded[:3], books.stages[0].codebook)
    np.testing.assert_array_equal(loaded[3], [40 * 2.0**20] * 2)


MAP = Linear(np.ones((2, 2)), np.zeros(2))


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [
        (Parallel([BOOKS]), "cannot hold Parallel.*expected Codebooks, or Grouped"),
        (Projected(BOOKS, MAP, MAP), "cannot hold Projected.*map vectors in and out"),
        (Codebooks([Stage(np.ones((4, 2)), metric="cosine")]), "by cosine.* at stage 0"),
        (Codebooks([Stage(np.ones((4, 2)), stride=2)]), "every 2 frames"),
        (Codebooks([np.ones((4, 2)), Stage(np.ones((4, 2)), MAP, MAP)]), "at stage 1; expected"),
        (Grouped([np.ones((1, 4, 3)), np.ones((1, 4, 2))]), "expected parts of one length"),
        (Grouped([BOOKS, BOOKS])[:1], "each with a stage"),
        (Grouped([Parallel([BOOKS]), BOOKS]), "cannot hold Parallel"),
        (np.full((1, 4, 2), 1e39), "beyond float32"),
        (np.full((1, 3, 2), 1e9), r"up to 1e\+09; expected 2\*\*2 codewords"),
    ],
)
def test_what_an_index_cannot_hold_is_refused(quantizer, message, tmp_path):
    with pytest.raises(ParameterError, match=message):
        written(tmp_path, quantizer)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"norms": "int8"}, ParameterError, "norms is 'int8'; expected one of none, float, qint8"),
        ({"norms": "qint8"}, ParameterError, "codes with 'qint8'"),
        ({"codes": CODES[0]}, ShapeError, r"codes has shape \(3,\); expected \(2, ...\)"),
        ({"codes": CODES[:1]}, ShapeError, "one row per stage"),
        ({"codes": CODES, "lists": np.ones((3, 2))}, ShapeError, "behind the row of lists"),
        ({"codes": CODES + 1}, CodeRangeError, "export.faiss"),
        ({"codes": CODES - 1}, CodeRangeError, "code -1 at .* names no codeword"),
        ({"norms": ["none"]}, ParameterError, "expected one of none, float, qint8"),
        ({"lists": np.full((3, 2), 1e39)}, ParameterError, "a centroid has numbers beyond float32"),
        ({"lists": np.full((3, 2), np.nan)}, NonFiniteError, "holds nan"),
        ({"lists": np.ones((3, 3))}, ShapeError, r"lists has shape \(3, 3\); expected the cent"),
        ({"codes": [[3], [0], [0]], "lists": np.ones((3, 2))}, CodeRangeError, "export.faiss"),
    ],
)
def test_codes_and_options_that_do_not_fit_are_refused(options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        written(tmp_path, BOOKS, **options)
    assert os.listdir(tmp_path) == []


def test_one_norm_or_none_has_a_scale_with_a_width(tmp_path):
    for codes, low in ((CODES[:, 1:2], 5.0), (CODES[:, :0], 0.0)):
        content = written(tmp_path, BOOKS, codes)
        search, least, largest = struct.unpack_from("<iff", content, 4 + len(HEADER + ADDITIVE))
        assert (search, least) == (4, low)
        assert largest > low


@pytest.mark.parametrize("norms", ["qint8", "float"])
def test_norms_beyond_float32_are_refused(norms, tmp_path):
    books = Codebooks([np.float32([[1, 1], [1e20, 1]])])
    with pytest.raises(ParameterError, match="a squared norm has numbers beyond float32"):
        written(tmp_path, books, np.array([[0, 1]]), norms)
    assert os.listdir(tmp_path) == []
    assert written(tmp_path, books, np.array([[0, 1]]), "none")


@pytest.mark.parametrize("name", ["c.rvq", "c.npy"])
def test_convert_writes_an_index_with_codes(name, tmp_path, rng, capsys):
    x = 5 * rng.standard_normal((60, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    checkpoints.save(tmp_path / "m.safetensors", BOOKS)
    model, out = str(tmp_path / "m.safetensors"), tmp_path / "o.faissindex"
    codes = str(tmp_path / name)
    assert cli.main(["encode", str(tmp_path / "x.npy"), "-m", model, "-o", codes]) == 0
    line = ["convert", model, "-o", str(out), "--to", "faiss", "--codes", codes, "--norms", "float"]
    assert cli.main(line) == 0
    assert out.read_bytes() == written(tmp_path, BOOKS, rvq_np.encode(x, BOOKS), "float")
    assert f"{out.stat().st_size:,} bytes, faiss format" in capsys.readouterr().out
    assert cli.main(line[:6]) == 0
    assert out.read_bytes() == written(tmp_path, BOOKS)


def test_without_the_package_onnx_what_to_install_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        ImportError, match=r"needs the package onnx: pip install 'rvq-np\[export\]'"
    ):
        export.onnx(tmp_path / "a.onnx", BOOKS)
    assert os.listdir(tmp_path) == []
