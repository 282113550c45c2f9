"""Model files: what was saved comes back, and nothing else is ever taken for it."""

import json
import os
import struct

import numpy as np
import pytest
from helpers import paths
from hypothesis import given
from hypothesis import strategies as st

from rvq_np import ResidualVectorQuantizer
from rvq_np.errors import ModelFileError, RvqError

pytestmark = pytest.mark.quick


def make(**options):
    arguments = {"dimension": 4, "codebook_dim": 3, "n_q": 2, "bins": 5, "rng": 0}
    rvq = ResidualVectorQuantizer(**{**arguments, **options})
    rvq(np.random.default_rng(1).standard_normal((2, 4, 45)).astype(np.float32), 50)
    return rvq


@pytest.fixture
def path(tmp_path):
    make(decay=0.5, quantizer_dropout=0.25).save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_what_was_saved_comes_back(path):
    saved, loaded = make(decay=0.5, quantizer_dropout=0.25), ResidualVectorQuantizer.load(path)
    assert loaded.config == saved.config
    assert not loaded.training
    for name, value in saved.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], value)
    x = np.random.default_rng(2).standard_normal((2, 4, 9)).astype(np.float32)
    np.testing.assert_array_equal(loaded.encode(x, 50), saved.encode(x, 50))
    assert loaded.codebooks.fingerprint == saved.codebooks.fingerprint


def test_training_goes_on_where_it_was_saved(path):
    x = np.random.default_rng(2).standard_normal((2, 4, 9)).astype(np.float32)
    saved = make(decay=0.5, quantizer_dropout=0.25)
    loaded = ResidualVectorQuantizer.load(path, rng=7).train()
    saved._rng = np.random.default_rng(7)
    for _ in range(3):
        saved(x, 50)
        loaded(x, 50)
    for name, value in saved.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], value)


def test_vectors_that_wait_are_not_saved(tmp_path):
    x = np.random.default_rng(2).standard_normal((9, 4)).astype(np.float32)
    waiting = ResidualVectorQuantizer(4, 4, n_q=1, bins=4, rng=0)
    waiting(x, 50)
    waiting.save(tmp_path / "model.safetensors")
    loaded = ResidualVectorQuantizer.load(tmp_path / "model.safetensors").train()
    assert (waiting.vectors_awaited, loaded.vectors_awaited) == (4 * 16 - 9, 0)
    assert loaded.codebooks == waiting.codebooks


def test_a_fresh_quantizer_comes_back_uninitialised(tmp_path):
    rvq = ResidualVectorQuantizer(4, 4, n_q=1, bins=4)
    rvq.save(tmp_path / "fresh.safetensors")
    assert not ResidualVectorQuantizer.load(tmp_path / "fresh.safetensors").is_initialized


def test_others_can_read_the_file(path):
    """A safetensors header: eight bytes of length, then JSON."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    metadata = header.pop("__metadata__")
    assert list(metadata) == ["rvq_np"]
    about = json.loads(metadata["rvq_np"])
    assert about["version"] == 1
    assert about["config"]["decay"] == 0.5
    assert header["vq.layers.1._codebook.embed"]["shape"] == [5, 3]
    assert header["vq.layers.1._codebook.embed"]["dtype"] == "F32"


def test_saving_replaces_the_old_file_whole_or_not_at_all(path, monkeypatch):
    before = path.read_bytes()

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk is full"):
        make().save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]  # no temporary file stays behind
    monkeypatch.undo()
    make().save(path)
    assert path.read_bytes() != before


def test_a_saved_file_is_readable_by_the_group_as_the_umask_says(path):
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def refused(path, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        ResidualVectorQuantizer.load(path)
    assert isinstance(caught.value, (RvqError, ValueError))
    assert str(path.name) in str(caught.value)


def test_no_file_is_the_builtin_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        ResidualVectorQuantizer.load(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, 2000])
def test_a_truncated_file_is_refused(path, length):
    content = path.read_bytes()
    assert length < len(content)
    path.write_bytes(content[:length])
    refused(path, "not a readable safetensors file.*may be truncated")


@given(cut=st.integers(1, 2000))
def test_any_truncation_is_refused(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "m.safetensors"
    make().save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    refused(path, "may be truncated")


def test_a_file_with_more_than_its_tensors_is_refused(path):
    path.write_bytes(path.read_bytes() + b"\0")
    refused(path, "its data do not end with its tensors")


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04" + bytes(200), bytes(100), b"\x80\x04pickle" * 30, b"\xff" * 64]
)
def test_a_foreign_file_is_refused(path, content):
    path.write_bytes(content)
    refused(path, "not a readable safetensors file")


def rewrite(path, change):
    """Write the file again with a changed header, keeping its data as it is."""
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:end])
    change(header)
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + content[end:])


def test_a_safetensors_file_of_another_program_is_refused(path):
    rewrite(path, lambda header: header.pop("__metadata__"))
    refused(path, "of another program; expected one written by save")


def claim(**changes):
    """Return a change of the header that makes these claims in its metadata."""

    def change(header):
        about = json.loads(header["__metadata__"]["rvq_np"])
        about["config"].update(changes.pop("config", {}))
        header["__metadata__"]["rvq_np"] = json.dumps({**about, **changes})

    return change


def test_a_later_version_is_refused(path):
    rewrite(path, claim(version=2))
    refused(path, "format version 2; this release reads 1. Upgrade")


def test_the_same_model_is_the_same_bytes(path):
    content = path.read_bytes()
    for _ in range(5):
        ResidualVectorQuantizer.load(path).save(path)
        assert path.read_bytes() == content


EMBED = "vq.layers.0._codebook.embed"


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (lambda h: h[EMBED].update(shape=[500, 3]), "not a readable safetensors file"),
        (lambda h: h[EMBED].update(shape=[3, 5]), r"contradicts itself.*shape \(3, 5\), expected"),
        (lambda h: h[EMBED].update(data_offsets=[0, 10**12]), "not a readable safetensors file"),
        (lambda h: h[EMBED].update(dtype="F64"), "not a readable safetensors file"),
        (
            # safetensors reads bfloat16 where some other code has imported ml_dtypes.
            lambda h: h[EMBED].update(dtype="BF16", shape=[10, 3]),
            r"not a readable safetensors file|contradicts itself.*shape \(10, 3\)",
        ),
        (lambda h: h["__metadata__"].update(rvq_np="{"), "not a readable safetensors file"),
        (lambda h: h["__metadata__"].update(rvq_np="[]"), "has no entry 'version' in its metadata"),
        (
            lambda h: h["__metadata__"].update(rvq_np='{"version": 1}'),
            "has no entry 'config' in its metadata",
        ),
        (
            lambda h: h["__metadata__"].update(rvq_np='{"version": 1, "config": {}}'),
            "contradicts itself.*bins",
        ),
        (
            lambda h: h["__metadata__"].update(rvq_np='{"version": 1, "config": [1]}'),
            "contradicts itself",
        ),
    ],
    ids=[
        "larger",
        "transposed",
        "offsets",
        "dtype",
        "bfloat16",
        "json",
        "list",
        "none",
        "empty",
        "two",
    ],
)
def test_a_header_that_lies_is_refused(path, lie, message):
    rewrite(path, lie)
    refused(path, message)


@pytest.mark.parametrize("name", ["bins", "n_q", "dimension", "codebook_dim"])
def test_a_config_that_lies_about_sizes_is_refused(path, name):
    rewrite(path, claim(config={name: 9}))
    refused(path, "contradicts itself: load_state_dict: ")


def test_a_config_with_arguments_out_of_range_is_refused(path):
    rewrite(path, claim(config={"decay": 7}))
    refused(path, "contradicts itself: ResidualVectorQuantizer: decay is 7")


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_never_crashes(tmp_path_factory, place, bit):
    path = tmp_path_factory.mktemp("flip") / "m.safetensors"
    make().save(path)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(bytes(content))
    try:
        rvq = ResidualVectorQuantizer.load(path)
    except ModelFileError:
        return
    assert rvq.codebooks.n_q >= 1  # a bit of a codeword: a model all the same


def test_a_lie_about_sizes_reserves_no_memory(path):
    """The sizes of the config are compared with the file before anything is made from them."""
    for claims in ({"bins": 10**9, "n_q": 1000}, {"n_q": 10**5}, {"dimension": 2**62}):
        rewrite(path, claim(config=claims))
        with paths.traced_memory() as peak:
            refused(path, "contradicts itself")
        assert peak[0] < 1 << 20


@pytest.mark.parametrize(("about", "message"), [
    ({"version": "1"}, "no entry 'config'"), ({"config": {}}, "no entry 'version'"),
    ([], "no entry 'version'"),
    ({"version": "1", "config": ["a"]}, "config is a list; expected a mapping"),
    ({"version": "1", "config": 3}, "config is a int; expected a mapping"),
    ({"version": "1", "config": {"n_q": 2}}, "bins, .*missing or unknown"),
])  # fmt: skip
def test_metadata_that_is_not_ours_is_named(about, message, tmp_path):
    """A list was compared with names: "'<' not supported"."""
    from rvq_np.files import safetensors

    if isinstance(about, dict) and "version" in about:
        about = {**about, "version": safetensors.VERSION}
    path = tmp_path / "model.safetensors"
    safetensors.write(path, {"a": np.zeros(1, np.float32)}, {safetensors.KEY: json.dumps(about)})
    with pytest.raises(ModelFileError, match=message):
        ResidualVectorQuantizer.load(path)
