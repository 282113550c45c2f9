"""Quantizers of 2026 that run here, from their own packages: the same codes and vectors.

The others are compared with arithmetic written by hand, in tests/test_checkpoints_of_2026.py.
"""

import importlib.util
import sys
import warnings
from importlib import import_module
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import regret
from safetensors.torch import save_file
from transformers import MimiConfig
from transformers.models.mimi import modeling_mimi
from transformers.models.wavtokenizer import modeling_wavtokenizer

import rvq_np
from rvq_np import checkpoints

torch.set_num_threads(1)


def imported(name, *packages):
    """Import a module past the ``__init__`` of packages, which would import sound libraries."""
    for each in packages:
        if each not in sys.modules:
            spec = importlib.util.find_spec(each)
            assert spec is not None, f"{each} is not installed"
            stand_in = ModuleType(each)
            stand_in.__path__ = list(spec.submodule_search_locations or [])
            sys.modules[each] = stand_in
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(name)


def randomize(module, names=("embed", "embed_sum")):
    for name, value in module.state_dict().items():
        last = name.rpartition(".")[2]
        if last in ("inited", "initialized"):
            value.fill_(1)
        elif last in ("cluster_size", "cluster_usage"):
            value.copy_(0.5 + torch.rand_like(value))
        else:
            width = value.shape[1] if value.ndim > 1 and last == "weight" else 1
            value.copy_(torch.randn_like(value) * max(width, 1) ** -0.5)


def saved(folder, prefix, module, **beside):
    tensors = {f"{prefix}{name}": value for name, value in module.state_dict().items()} | beside
    tensors = {name: value.clone().contiguous() for name, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors"


def assert_equal(quantizer, x, codes, decode, *, through=False, cdist=False):
    """Assert that codes (Q, B, T) of `x` (B, D, T), and what any decode to, are those of ours."""
    rows = np.moveaxis(x.numpy(), 1, 2)
    mine = rvq_np.encode(rows, quantizer)
    theirs = codes.numpy()
    assert mine.shape == theirs.shape
    flat = rows.reshape(-1, rows.shape[2])
    for each in (mine, theirs):
        some = [stage.reshape(-1) for stage in each]
        regret.assert_nearest(flat, some, quantizer, through=through, cdist=cdist)
    assert (mine != theirs).any(axis=0).mean() <= 0.01
    drawn = np.stack([np.random.default_rng(q).integers(0, size, theirs.shape[1:])
                      for q, size in enumerate(quantizer.sizes)])  # fmt: skip
    with torch.no_grad():
        vectors = np.moveaxis(decode(torch.from_numpy(drawn)).numpy(), 1, 2)
    some = [stage.reshape(-1) for stage in drawn]
    for each in (vectors, rvq_np.decode(drawn, quantizer)):
        regret.assert_decodes(each.reshape(-1, quantizer.dim), some, quantizer)


@pytest.fixture
def x():
    torch.manual_seed(3)
    return torch.randn(2, 10, 150)


@torch.no_grad()
def test_higgs_audio_of_transformers(x, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio", ModuleType("torchaudio"))  # it resamples
    name = "transformers.models.higgs_audio_v2_tokenizer.modeling_higgs_audio_v2_tokenizer"
    higgs = import_module(name)
    config = SimpleNamespace(
        codebook_size=24, codebook_dim=4, num_quantizers=4, frame_rate=25, hidden_size=10
    )
    made = higgs.HiggsAudioV2TokenizerResidualVectorQuantization(config).eval()
    randomize(made)
    path = saved(tmp_path, "quantizer.", made, **{"fc.weight": torch.ones(2, 2)})
    family, quantizer = checkpoints.load_as(path)
    assert family == "higgs_audio"
    assert_equal(quantizer, x, made.encode(x), made.decode)


@torch.no_grad()
def test_wavtokenizer_of_transformers(x, tmp_path):
    config = SimpleNamespace(codebook_size=40, codebook_dim=10)
    made = modeling_wavtokenizer.WavTokenizerVectorQuantization(config).eval()
    randomize(made)
    family, quantizer = checkpoints.load_as(saved(tmp_path, "encoder_model.quantizer.", made))
    assert family == "wavtokenizer"
    assert_equal(quantizer, x, made.encode(x)[None], lambda codes: made.decode(codes[0]))


@pytest.mark.parametrize("part", ["semantic", "acoustic"])
@torch.no_grad()
def test_dualcodec(part, x, tmp_path):
    module = imported("dualcodec.model_codec.dac_quantize", "dualcodec", "dualcodec.model_codec")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that weight_norm has a successor
        semantic, acoustic = (
            module.ResidualVectorQuantize(10, n, size, 4).eval() for n, size in ((1, 64), (3, 24))
        )
    for each in (semantic, acoustic):
        for each_stage in each.quantizers:
            each_stage.in_proj.weight_g.mul_(0.5 + torch.rand_like(each_stage.in_proj.weight_g))
    beside = {f"semantic_vq.{name}": value for name, value in semantic.state_dict().items()}
    path = saved(tmp_path, "dac.quantizer.", acoustic, **beside)
    family, quantizer = checkpoints.load_as(path, part=part)
    assert family == "dualcodec"
    made = semantic if part == "semantic" else acoustic
    codes = made(x)[1].transpose(0, 1)
    assert_equal(
        quantizer, x, codes, lambda codes: made.from_codes(codes.transpose(0, 1))[0], through=True
    )


@pytest.mark.parametrize("width", [10, 4])
@torch.no_grad()
def test_funcodec(width, x, tmp_path):
    past = ("funcodec", "funcodec.models", "funcodec.models.quantizer", "funcodec.modules",
            "funcodec.modules.quantization")  # fmt: skip
    module = imported("funcodec.models.quantizer.costume_quantizer", *past)
    made = module.CostumeQuantizer(10, 24, 3, codec_dim=width, sampling_rate=24000).eval()
    randomize(made)
    family, quantizer = checkpoints.load_as(saved(tmp_path, "quantizer.", made))
    assert family == "funcodec"
    codes = made.rq.encode(
        x if made.input_proj is None else made.input_proj(x.transpose(1, 2)).transpose(1, 2),
        24000, None,
    )  # fmt: skip
    assert_equal(quantizer, x, codes, made.decode)


@torch.no_grad()
def test_the_encoder_of_qwen3_tts_is_the_mimi_of_transformers(x, tmp_path):
    config = MimiConfig(
        hidden_size=10, codebook_size=32, codebook_dim=4, vector_quantization_hidden_dimension=4,
        num_quantizers=6, num_semantic_quantizers=1,
    )  # fmt: skip
    made = modeling_mimi.MimiSplitResidualVectorQuantizer(config).eval()
    randomize(made)
    other = modeling_mimi.MimiSplitResidualVectorQuantizer(config)
    randomize(other)
    renamed = {
        f"decoder.quantizer.{name}": value
        for old, value in other.state_dict().items()
        for name in [
            old.replace("semantic_residual_vector_quantizer", "rvq_first")
            .replace("acoustic_residual_vector_quantizer", "rvq_rest")
            .replace("layers.", "vq.layers.").replace("codebook.", "_codebook.")
            .replace("embed_sum", "embedding_sum")
        ]
        if not name.endswith("initialized")
    }  # fmt: skip
    path = saved(tmp_path, "encoder.quantizer.", made, **renamed)
    (tmp_path / "config.json").write_text('{"encoder_valid_num_quantizers": 4}')
    family, quantizer = checkpoints.load_as(path, part="encoder")
    assert family == "qwen3_tts"
    assert quantizer.n_q == 4
    decode = lambda codes: made.decode(codes.transpose(0, 1))  # noqa: E731
    assert_equal(quantizer, x, made.encode(x, 4), decode, cdist=True)
    decoder = checkpoints.load(path, part="decoder")
    codes = np.stack([np.random.default_rng(q).integers(0, 32, (2, 50)) for q in range(6)])
    theirs = other.decode(torch.from_numpy(codes).transpose(0, 1)).numpy()
    flat = [stage.reshape(-1) for stage in codes]
    regret.assert_decodes(np.moveaxis(theirs, 1, 2).reshape(-1, 10), flat, decoder)
