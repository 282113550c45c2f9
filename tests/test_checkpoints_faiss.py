"""Faiss indexes: their codewords, and what is refused."""

import os
import struct

import numpy as np
import pytest
from helpers import paths
from helpers.checkpoint_files import assert_holds, load_or_refuse, numbers, refused
from hypothesis import given
from hypothesis import strategies as st

from rvq_np import checkpoints

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
