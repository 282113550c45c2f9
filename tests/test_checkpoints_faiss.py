"""Faiss indexes: their codewords, and what is refused."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers import paths
from helpers.checkpoint_files import assert_holds, load_or_refuse, numbers, refused
from hypothesis import given
from hypothesis import strategies as st

import rvq_np
from rvq_np import checkpoints, export

FAISS = Path(__file__).parent / "data" / "faiss"  # written by Faiss itself

pytestmark = pytest.mark.quick


# Faiss.


def faiss(bits=(2, 3), dim=3, search=0, metric=1, codewords=None, trained=1, **claims):
    """Return an index as ``faiss.write_index`` writes it, and its codewords by stage."""
    stages = (
        [numbers(9 * m, 1 << b, dim) for m, b in enumerate(bits)]
        if codewords is None
        else codewords
    )
    flat = np.concatenate(stages).astype("<f4")
    content = b"IxRq" + struct.pack("<iqqqBi", dim, 3, 1 << 20, 1 << 20, trained, metric)
    if metric > 1:
        content += struct.pack("<f", 1.5)
    content += struct.pack("<QQ", claims.get("width", dim), claims.get("stages", len(bits)))
    reported = claims.get("reported", bits)
    content += struct.pack(f"<Q{len(reported)}Q", len(reported), *reported) + bytes([trained])
    content += struct.pack("<Q", claims.get("count", flat.size)) + flat.tobytes()
    content += struct.pack("<iff", search, 0.0, 1.0)
    before = len(content)
    content += struct.pack("<iiQ", 1, 5, 1) + struct.pack("<Q", 3) + bytes(3)
    return content, stages, before


@pytest.mark.parametrize("metric", [0, 1, 4])
@pytest.mark.parametrize("search", range(6))
def test_a_faiss_index_gives_its_codewords(metric, search, tmp_path):
    content, stages, _ = faiss(metric=metric, search=search)
    (tmp_path / "a.faissindex").write_bytes(content)
    family, codebooks = checkpoints.load_as(tmp_path / "a.faissindex")
    assert family == "faiss"
    assert_holds(codebooks, [(each, None, None) for each in stages])
    assert checkpoints.load(tmp_path / "a.faissindex", "faiss").sizes == (4, 8)
    refused(tmp_path / "a.faissindex", "not a safetensors file", family="encodec")


def test_a_faiss_index_that_ends_too_early_is_refused(tmp_path):
    content, _, before = faiss()
    path = tmp_path / "a.faissindex"
    for length in range(4, before - 8):  # what is behind is not read
        path.write_bytes(content[:length])
        refused(path, "is a truncated Faiss index: expected")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"search": 6}, "search type 6"),
        ({"search": -1}, "search type -1"),
        ({"width": 4}, "stages and dimension 3"),
        ({"stages": 3}, "of 3 stages"),
        ({"stages": 1 << 60}, "stages"),
        ({"reported": (2, 2)}, "expected 24"),
        ({"reported": (2, 63)}, "values; expected"),
        ({"reported": (1 << 63, 3)}, "values; expected"),
        ({"reported": (), "stages": 0}, "values; expected"),
        ({"reported": (3,), "stages": 1}, "expected 24"),
        ({"count": 1 << 62}, "truncated Faiss index"),
        ({"count": (1 << 64) - 1}, "truncated Faiss index"),
        ({"dim": 0, "codewords": [np.ones((0, 0))]}, "values; expected"),
        ({"dim": -1, "width": 1, "codewords": [np.ones((12, 1))]}, "values; expected"),
        ({"codewords": [np.full((4, 3), np.nan), np.ones((8, 3))]}, "finite"),
        ({"codewords": [np.ones((0, 3))]}, "codebooks have 0 values"),
    ],
    ids=str,
)
def test_a_faiss_index_that_contradicts_itself_is_refused(arguments, message, tmp_path):
    path = tmp_path / "a.faissindex"
    path.write_bytes(faiss(**arguments)[0])
    refused(path, message)


def test_the_vectors_in_a_faiss_index_are_not_read(tmp_path):
    path = tmp_path / "a.faissindex"
    content, _, before = faiss()
    path.write_bytes(content[:before])
    os.truncate(path, 100 << 20)
    with paths.traced_memory() as peak:
        checkpoints.load(path)
    assert peak[0] < 2 << 20


@given(data=st.data())
def test_a_mutated_faiss_index_loads_or_is_a_checkpoint_error(data, tmp_path_factory):
    content = bytearray(faiss()[0])
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(4, len(content) - 1))
        content[where] = data.draw(st.integers(0, 255))
    load_or_refuse(tmp_path_factory, bytes(content))


# Indexes around such, and other kinds. Faiss's own files: tests/peers/test_checkpoints_of_faiss.py.


def around(kind, content, dim=3, extra=b""):
    return kind + struct.pack("<iqqqBi", dim, 3, 1 << 20, 1 << 20, 1, 1) + extra + content


def transform(weight, bias=None, kind=b"LTra", before=b""):
    weight = np.asarray(weight, "<f4")
    vector = np.asarray([] if bias is None else bias, "<f4")
    content = kind + before + bytes([bias is not None])
    for each in (weight.ravel(), vector):
        content += struct.pack("<Q", each.size) + each.tobytes()
    return content + struct.pack("<iiB", weight.shape[1], weight.shape[0], 1)


ROTATION = np.float32([[0, 1, 0, 0], [0, 0, 0, -1], [1, 0, 0, 0]])  # of 4 numbers, 3 are kept
CENTRE = b"VCnt" + struct.pack("<Q4fiiB", 4, 1, 2, 3, 4, 4, 4, 1)
PCA = transform(ROTATION, [5, 6, 7], b"Pcam", struct.pack("<ffBiQQQ", 0, 0, 0, 0, 0, 0, 0))


@pytest.mark.parametrize("kind", [b"IxMp", b"IxM2", b"IxRF"])
def test_what_is_around_an_index_without_changing_vectors_is_passed(kind, tmp_path):
    content, stages, _ = faiss()
    (tmp_path / "a.faissindex").write_bytes(around(kind, around(b"IxMp", content)))
    family, codebooks = checkpoints.load_as(tmp_path / "a.faissindex")
    assert family == "faiss"
    assert_holds(codebooks, [(each, None, None) for each in stages])


@pytest.mark.parametrize("maps", [[PCA], [CENTRE, transform(ROTATION)], []])
def test_maps_before_an_index_are_around_its_codebooks(maps, tmp_path):
    content, stages, _ = faiss()
    chain = struct.pack("<i", len(maps)) + b"".join(maps)
    dim = 4 if maps else 3
    (tmp_path / "a.faissindex").write_bytes(around(b"IxPT", content, dim, chain))
    quantizer = checkpoints.load(tmp_path / "a.faissindex")
    assert quantizer.dim == dim
    x = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    inside = {1: x @ ROTATION.T + [5, 6, 7], 2: (x - [1, 2, 3, 4]) @ ROTATION.T, 0: x[:, :3]}
    books = rvq_np.Codebooks(stages)
    expected = rvq_np.encode(inside[len(maps)].astype(np.float32), books)
    codes = rvq_np.encode(x if maps else x[:, :3], quantizer)
    np.testing.assert_array_equal(codes, expected)
    inner = rvq_np.decode(codes, books)
    back = {1: (inner - [5, 6, 7]) @ ROTATION, 2: inner @ ROTATION + [1, 2, 3, 4], 0: inner}
    np.testing.assert_allclose(rvq_np.decode(codes, quantizer), back[len(maps)], atol=1e-5)


def test_inverted_lists_and_groups_come_back_as_they_went(tmp_path):
    path = tmp_path / "a.faissindex"
    books = rvq_np.Codebooks([numbers(1, 4, 4), numbers(2, 8, 4)])
    lists = numbers(3, 5, 4)
    export.faiss(path, books, lists=lists)
    assert checkpoints.load(path) == rvq_np.Codebooks([lists, *books])
    content = bytearray(path.read_bytes())
    at = content.index(b"ilar") - 5
    content[at] = 0  # by residual
    path.write_bytes(content)
    assert checkpoints.load(path) == books
    halves = rvq_np.Grouped([numbers(4, 8, 2).reshape(2, 4, 2), numbers(5, 8, 2).reshape(2, 4, 2)])
    export.faiss(path, halves)
    assert checkpoints.load(path) == halves
    export.faiss(path, halves, lists=lists)
    refused(path, "a product quantizer within inverted lists; expected a residual quantizer")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (around(b"IxFI", b""), "of kind IndexFlatIP; expected a residual"),
        (
            around(b"IxMp", around(b"IwPQ", b"")),
            "of kind IndexIDMap, around one of kind IndexIVFPQ",
        ),
        (around(b"IxMp", b"nope"), "of kind IndexIDMap, around one of kind 'nope'; expected"),
        (around(b"IxPT", b"", 3, struct.pack("<i", -1)), "with -1 maps; expected 0 to 8"),
        (around(b"IxPT", b"", 3, struct.pack("<i", 1) + b"VNrm"), "transform of kind 'VNrm'"),
        (around(b"IxPT", b"", 3, struct.pack("<i", 1) + transform(2 * ROTATION)), "orthonormal"),
        (around(b"IxPT", b"", 3, struct.pack("<i", 1) + transform(ROTATION, [1])), "map from 4 to"),
        (around(b"IxPT", faiss()[0], 3, struct.pack("<i", 1) + PCA), "dimension 3 around one of 4"),
        (around(b"IxMp", faiss()[0], 5), "dimension 5 around one of 3"),
    ],
)
def test_other_kinds_are_refused_by_name(content, message, tmp_path):
    path = tmp_path / "a.faissindex"
    path.write_bytes(content)
    refused(path, message)


@pytest.mark.parametrize("place", [33, 86])  # the metric of the index, and that of its lists
def test_lists_chosen_by_inner_product_are_refused(place, tmp_path):
    content = bytearray((FAISS / "IVF4-RQ3x3.faissindex").read_bytes())
    assert content[place : place + 4] == struct.pack("<i", 1)
    content[place : place + 4] = struct.pack("<i", 0)
    (tmp_path / "a.faissindex").write_bytes(content)
    refused(tmp_path / "a.faissindex", "lists are chosen by inner product")


def test_wrappers_without_end_are_refused(tmp_path):
    content = faiss()[0]
    for _ in range(5000):
        content = around(b"IxMp", content)
    path = tmp_path / "a.faissindex"
    path.write_bytes(content)
    refused(path, "around one of kind IndexIDMap; expected .*, at most 8 of these")


@given(data=st.data())
def test_a_mutated_wrapper_loads_or_is_a_checkpoint_error(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "whole.faissindex"
    books = rvq_np.Codebooks([numbers(1, 4, 4), numbers(2, 2, 4)])
    kind = data.draw(st.sampled_from(["lists", "groups", "maps"]))
    if kind == "lists":
        export.faiss(path, books, lists=numbers(3, 3, 4))
    elif kind == "groups":
        export.faiss(path, rvq_np.Grouped([books, books]))
    else:
        path.write_bytes(around(b"IxPT", faiss()[0], 4, struct.pack("<i", 1) + PCA))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    load_or_refuse(tmp_path_factory, bytes(content[: data.draw(st.integers(4, len(content)))]))
