"""Checkpoints that the packages themselves wrote: the same codes and vectors."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers import paths, regret
from helpers.codecs_of_2026 import REFERENCED

import rvq_np
from rvq_np import checkpoints

pytestmark = pytest.mark.quick


GOLDEN = Path(__file__).parent / "data" / "checkpoints"


# What the packages themselves made: see data/checkpoints/make.py.

VERSIONS = json.loads((GOLDEN / "versions.json").read_text())


def test_every_golden_file_tells_what_made_it():
    made = {path.name.partition(".")[0] for path in GOLDEN.glob("*.npz")}
    assert made == set(VERSIONS)
    reported = {each["family"] for each in VERSIONS.values()}
    # Ours: _saving; those that no package on PyPI has: _of_2026.
    assert reported | {"rvq_np"} | set(REFERENCED) == set(checkpoints.families())
    assert all({"package", "version"} <= set(each) for each in VERSIONS.values())


@pytest.mark.parametrize("name", sorted(VERSIONS))
def test_codes_and_vectors_are_those_of_the_package(name, tmp_path):
    path = next(each for each in GOLDEN.glob(f"{name}.*") if each.suffix != ".npz")
    if VERSIONS[name]["config"]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / "config.json").write_text(json.dumps(VERSIONS[name]["config"]))
        path = tmp_path / path.name
    family = VERSIONS[name]["family"]
    found, quantizer = checkpoints.load_as(path, family if VERSIONS[name]["asked"] else None)
    assert found == family
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as golden:
        x, frames, decoded = (golden[key] for key in ("x", "codes", "decoded"))
    codes = frames
    if quantizer.block > 1:  # there is a code for every frame in the file
        codes = [row[::stride] for row, stride in zip(frames, quantizer.strides, strict=True)]
    for n in range(1, len(codes) + 1):
        assert_equal_codes(rvq_np.encode(x, quantizer, n_q=n), codes[:n])
    regret.assert_decodes(decoded, codes, quantizer)
    regret.assert_decodes(rvq_np.decode(codes, quantizer), codes, quantizer)
    with paths.without_numba():
        assert_equal_codes(rvq_np.encode(x, pickle.loads(pickle.dumps(quantizer))), codes)


def assert_equal_codes(mine, expected):
    assert len(mine) == len(expected)
    for stage, row in zip(mine, expected, strict=True):
        np.testing.assert_array_equal(stage, row)


@pytest.mark.parametrize("name", ["snac", "mimi", "grouped-residual-vq-projected"])
def test_the_judge_sees_a_wrong_code_at_any_stage(name, tmp_path):
    """Or codes of a composed quantizer could be anything."""
    (tmp_path / "config.json").write_text(json.dumps(VERSIONS[name]["config"]))
    path = tmp_path / "model.safetensors"
    path.write_bytes((GOLDEN / f"{name}.safetensors").read_bytes())
    quantizer = checkpoints.load(path)
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as golden:
        x = golden["x"]
    codes = [stage.copy() for stage in rvq_np.encode(x, quantizer)]
    regret.assert_nearest(x, codes, quantizer)
    for stage, size in zip(codes, quantizer.sizes, strict=True):
        right, stage[-1] = stage[-1], (stage[-1] + 1) % size
        with pytest.raises(AssertionError):
            regret.assert_nearest(x, codes, quantizer)
        with pytest.raises(AssertionError):
            regret.assert_decodes(golden_decoded(name), codes, quantizer)
        stage[-1] = right
    regret.assert_decodes(golden_decoded(name), codes, quantizer)


def golden_decoded(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as golden:
        return golden["decoded"]
