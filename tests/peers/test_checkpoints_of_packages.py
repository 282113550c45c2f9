"""Checkpoints of the families' own packages: the same codes and the same vectors as theirs.

Their quantizers have random weights, are saved as their users save them, and loaded without a
codeword about the family. Codes may differ from theirs only where float32 cannot tell which
codeword is nearer.
"""

import re

import numpy as np
import pytest
import torch
from helpers import published, regret

import rvq_np
from rvq_np import checkpoints
from rvq_np.errors import CheckpointError

RARE = 0.01  # the share of vectors that may have a near-tie
every_one = pytest.mark.parametrize("name", published.BUILDERS)


@pytest.fixture
def theirs(name):
    return published.build(name)


@pytest.fixture
def loaded(theirs, tmp_path):
    asked = theirs.family if theirs.asked else None
    family, quantizer = checkpoints.load_as(theirs.save(tmp_path), asked)
    assert family == theirs.family
    return quantizer


def as_rows(x):
    return np.moveaxis(np.asarray(x), 1, 2).reshape(-1, x.shape[1])


def flat(codes):
    return [np.asarray(stage).reshape(-1) for stage in codes]


def every_frame(codes, strides):
    return np.stack([np.repeat(*each) for each in zip(flat(codes), strides, strict=False)])


def for_them(codes):
    if isinstance(codes, list):
        return [torch.from_numpy(stage.astype(np.int64)) for stage in codes]
    return torch.from_numpy(codes.astype(np.int64))


def vectors(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


@every_one
def test_the_loaded_quantizer_has_the_sizes_of_the_model(theirs, loaded):
    assert loaded.dim == theirs.dim
    assert list(loaded.sizes) == theirs.sizes
    assert list(loaded.strides) == theirs.strides
    assert {stage.metric for stage in loaded} == {theirs.metric}
    assert loaded.dtype == np.float32


@every_one
@pytest.mark.parametrize(("batch", "length"), [(1, 400), (3, 131), (2, 1)])
@pytest.mark.parametrize("stages", [1, 2, None])
def test_codes_are_those_of_the_model(theirs, loaded, batch, length, stages, rng):
    length *= loaded.block
    x = vectors(rng, batch, theirs.dim, length)
    n = stages or len(theirs.sizes)
    with torch.no_grad():
        yours = theirs.encode(torch.from_numpy(x), n)
    mine = rvq_np.encode(np.moveaxis(x, 1, 2), loaded, n_q=n)
    assert len(mine) == len(yours) == n
    for stage, stride in enumerate(theirs.strides[:n]):
        assert mine[stage].shape == tuple(yours[stage].shape) == (batch, length // stride)
    rows = as_rows(x)
    regret.assert_nearest(rows, flat(mine), loaded)
    regret.assert_nearest(rows, flat(yours), loaded, through=theirs.through, cdist=theirs.cdist)
    parted = every_frame(mine, theirs.strides) != every_frame(yours, theirs.strides)
    assert parted.any(axis=0).mean() <= RARE


@every_one
def test_codes_decode_to_the_vectors_of_the_model(theirs, loaded, rng):
    """Of any codes, whoever chose them, and of a prefix of the stages."""
    for n in theirs.decodes or range(1, len(theirs.sizes) + 1):
        codes = [
            rng.integers(0, size, (2, 37 * loaded.block // stride))
            for size, stride in zip(theirs.sizes[:n], theirs.strides, strict=False)
        ]
        codes = codes if loaded.block > 1 else np.stack(codes)
        with torch.no_grad():
            yours = np.asarray(theirs.decode(for_them(codes)))
        mine = np.moveaxis(rvq_np.decode(codes, loaded), 2, 1)
        assert mine.shape == yours.shape
        for each in (mine, yours):
            regret.assert_decodes(as_rows(each), flat(codes), loaded)


@every_one
def test_the_model_decodes_our_codes(theirs, loaded, rng):
    x = vectors(rng, 2, theirs.dim, 53 * loaded.block)
    codes = rvq_np.encode(np.moveaxis(x, 1, 2), loaded)
    with torch.no_grad():
        yours = np.asarray(theirs.decode(for_them(codes)))
    regret.assert_decodes(as_rows(yours), flat(codes), loaded)


def test_quantizers_are_put_together_as_in_the_models(tmp_path):
    made = {}
    for name in ("mimi", "mimi-hf-without-maps", "hificodec", "grouped-residual-vq-projected",
                 "residual-vq-projected", "residual-vq-shared"):  # fmt: skip
        (tmp_path / name).mkdir()
        made[name] = checkpoints.load(published.build(name).save(tmp_path / name))
    assert repr(made["mimi"]) == (
        "Parallel(Projected(Codebooks(1 stage, 32 codewords of 6), for vectors of 10), "
        "Projected(Codebooks(3 stages, 32 codewords of 6), for vectors of 10))"
    )
    assert repr(made["mimi-hf-without-maps"]) == (
        "Parallel(Codebooks(1 stage, 16 codewords of 8), Codebooks(3 stages, 16 codewords of 8))"
    )
    half = "Codebooks(2 stages, 8 codewords of 512 for vectors of 256)"
    assert repr(made["hificodec"]) == f"Grouped({half}, {half})"
    one = "Projected(Codebooks(3 stages, 24 codewords of 3), for vectors of 4)"
    assert repr(made["grouped-residual-vq-projected"]) == f"Grouped({one}, {one})"
    assert repr(made["residual-vq-projected"]) == (
        "Projected(Codebooks(3 stages, 24 codewords of 5), for vectors of 8)"
    )
    first, *others = made["residual-vq-shared"].stages
    assert all(each is first for each in others)


@pytest.mark.parametrize(
    "name",
    ["encodec", "dac", "espnet-projected", "residual-vq", "snac", "mimi", "grouped-residual-vq"],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_exactly(theirs, dtype, tmp_path):
    theirs.tensors = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in theirs.tensors.items()
    }
    halves = checkpoints.load(theirs.save(tmp_path))
    theirs.tensors = {
        name: value.float() if value.is_floating_point() else value
        for name, value in theirs.tensors.items()
    }
    assert halves.fingerprint == checkpoints.load(theirs.save(tmp_path)).fingerprint


@pytest.mark.parametrize("name", ["encodec-hf", "dac-hf", "mimi-hf"])
def test_shards_as_transformers_writes_them_are_one_checkpoint(theirs, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    expected = checkpoints.load(theirs.save(whole)).fingerprint
    theirs.model.save_pretrained(parts, max_shard_size="5KB")
    assert len(list(parts.glob("model-*.safetensors"))) > 2
    assert checkpoints.load(parts).fingerprint == expected
    assert checkpoints.load(parts / "model.safetensors.index.json").fingerprint == expected


@pytest.mark.parametrize("name", ["encodec", "dac", "speechtokenizer"])
def test_a_pickle_is_refused_with_code_that_converts_it(theirs, tmp_path, monkeypatch):
    """DAC's own files keep the tensors under ``state_dict``, the others at the top."""
    state = theirs.tensors
    if theirs.family == "dac":
        state = {"state_dict": state, "metadata": {"kwargs": {"n_codebooks": 4}}}
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="can run code and is not opened") as caught:
        checkpoints.load(tmp_path / "weights.pth")
    code = re.sub(r"^    ", "", str(caught.value).partition("\n")[2], flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "conversion", "exec"), {})
    family, converted = checkpoints.load_as("model.safetensors")
    assert family == theirs.family
    expected = tmp_path / "expected"
    expected.mkdir()
    assert converted.fingerprint == checkpoints.load(theirs.save(expected)).fingerprint


def test_a_residual_vq_that_is_not_served_is_refused(tmp_path):
    made = published.ResidualVQ(
        dim=8, num_quantizers=2, codebook_size=8, implicit_neural_codebook=True
    )
    published.save_file(made.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"mlps\.\*"):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize("kind", ["RQ2x8_Ncqint8", "RQ2x4_Ncqint4"])
def test_a_faiss_index_with_tables_of_norms_is_refused(kind, rng, tmp_path):
    index = published.faiss.index_factory(6, kind)
    index.train(vectors(rng, 700, 6) if "x4" in kind else vectors(rng, 10000, 6))
    published.faiss.write_index(index, str(tmp_path / "a.faissindex"))
    with pytest.raises(CheckpointError, match=r"search type [67], whose tables"):
        checkpoints.load(tmp_path / "a.faissindex")


def test_an_untrained_faiss_index_is_refused(tmp_path):
    published.faiss.write_index(
        published.faiss.IndexResidualQuantizer(6, 3, 4), str(tmp_path / "a.faissindex")
    )
    with pytest.raises(CheckpointError, match=r"a\.faissindex.*codebooks have 0 values"):
        checkpoints.load(tmp_path / "a.faissindex")
