"""Quantizers of 2026 that run here, from their own packages: the same codes and vectors.

Those that servers carry are in test_checkpoints_of_servers.py; all are compared with arithmetic
written by hand as well, in tests/test_checkpoints_of_2026.py.
"""

import sys
import warnings
from importlib import import_module
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import regret
from helpers.imports import imported
from helpers.modules import assert_equal, randomize, saved
from transformers import MimiConfig
from transformers.models.mimi import modeling_mimi
from transformers.models.wavtokenizer import modeling_wavtokenizer

from rvq_np import checkpoints

torch.set_num_threads(1)


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
