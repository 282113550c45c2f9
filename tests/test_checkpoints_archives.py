"""Checkpoints in NumPy archives: the same names, the same quantizers, never a pickle."""

import contextlib
import io
import zipfile

import numpy as np
import pytest
from helpers import codecs_of_2026 as reference
from helpers.checkpoint_files import refused, write
from hypothesis import given
from hypothesis import strategies as st

from rvq_np import checkpoints
from rvq_np.errors import CheckpointError

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name", ["onerec", "moss_audio, rvq", "dualcodec, acoustic", "funcodec"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_is_read_as_the_same_tensors(name, save, tmp_path):
    case = reference.CASES[name]()
    (tmp_path / "config.json").write_text(str(case.config).replace("'", '"'))
    expected = checkpoints.load(write(tmp_path, case.tensors), part=case.part)
    save(tmp_path / "a.npz", **{each: np.float32(value) for each, value in case.tensors.items()})
    family, quantizer = checkpoints.load_as(tmp_path / "a.npz", part=case.part)
    assert family == case.family
    assert quantizer == expected


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_float_types_are_kept_or_widened(dtype, tmp_path):
    books = [np.random.default_rng(q).standard_normal((4, 3)).astype(dtype) for q in range(2)]
    np.savez(tmp_path / "a.npz", **{f"centroids.{q}": each for q, each in enumerate(books)})
    quantizer = checkpoints.load(tmp_path / "a.npz")
    for stage, codebook in zip(quantizer, books, strict=True):
        np.testing.assert_array_equal(stage.codebook, codebook)
    assert quantizer.dtype == (np.float64 if dtype == np.float64 else np.float32)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([{"a": 1}], object), "of objects"),
        (np.ones((3, 4), ">f4"), "another byte order"),
        (np.asfortranarray(np.ones((3, 4), np.float32)), "column by column"),
        (np.ones((3, 4), int), "has type I64; expected floats"),
        (np.full((3, 4), np.nan), "holds NaN or infinity"),
    ],
)
def test_arrays_that_cannot_be_codebooks_are_refused(value, message, tmp_path):
    np.savez(tmp_path / "a.npz", **{"centroids.0": value})
    refused(tmp_path / "a.npz", message, tensor="'centroids.0'")


@pytest.mark.parametrize("content", [b"", b"PK\3\4nothing", bytes(99)])
def test_what_is_no_archive_is_refused(content, tmp_path):
    (tmp_path / "a.npz").write_bytes(content)
    refused(tmp_path / "a.npz", "is not a readable .npz archive")


def test_an_array_that_claims_more_than_it_has_is_refused(tmp_path):
    file = io.BytesIO()
    np.save(file, np.ones((3, 4), np.float32))
    content = file.getvalue().replace(b"(3, 4)", b"(3, 9)")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("centroids.0.npy", content)
    refused(tmp_path / "a.npz", r"shape \(3, 9\) in 48 bytes; the archive is damaged")


@given(data=st.data())
def test_a_mutated_archive_loads_or_is_a_checkpoint_error(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "mutated.npz"
    np.savez(path, **{f"centroids.{q}": np.ones((3, 4), np.float32) for q in range(2)})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):  # anything else is a defect
        assert checkpoints.load(path).n_q >= 1


def test_a_wrong_checksum_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **{"centroids.0": np.ones((3, 4), np.float32)})
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[content.rindex(b"\x80\x3f", 0, content.index(b"PK\1\2"))] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    refused(tmp_path / "a.npz", "CRC")
