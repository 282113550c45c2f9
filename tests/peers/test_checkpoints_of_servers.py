"""Quantizers of 2026 whose original classes PyPI has, in a package of their own or in a server's.

vllm-omni, which deploys most of these codecs, carries the classes of their repositories; the
packages fish-speech, boson-multimodal, nemo-toolkit and magenta-rt are the originals. They are
installed without what they depend on: what a module imports beside torch and einops, and does not
use for quantizing, is stood in for.
"""

import json
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from helpers import regret
from helpers.imports import imported, inside, stand_in
from helpers.modules import assert_equal, randomize, saved

import rvq_np
from rvq_np import checkpoints

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
MODELS = "vllm_omni.model_executor.models."


@pytest.fixture
def x():
    torch.manual_seed(3)
    return torch.randn(2, 10, 150)


def scaled(module):
    """Give maps with weight norm scales that are not the norms of their directions."""
    for name, value in module.state_dict().items():
        if name.endswith(("weight_g", "original0")):
            value.mul_(0.5 + torch.rand_like(value))


def drawn(sizes, *shape):
    return torch.from_numpy(
        np.stack([np.random.default_rng(q).integers(0, n, shape) for q, n in enumerate(sizes)])
    )


@pytest.mark.parametrize("inner", [10, 6])
@pytest.mark.parametrize("kind", ["rlfq", "random_prefix_rlfq", "rvq", "spec_rvq"])
@torch.no_grad()
def test_moss_audio_tokenizer(kind, inner, x, tmp_path):
    module = inside(f"{MODELS}moss_tts.audio_tokenizer_v2")
    lfq = "lfq" in kind
    of = module.MossAudioTokenizerResidualLFQ if lfq else module.MossAudioTokenizerResidualVQ
    made = of(10, inner, 10, num_quantizers=4, codebook_size=24, codebook_dim=4).eval()
    scaled(made)
    (tmp_path / "config.json").write_text(
        json.dumps({"quantizer_kwargs": {"quantizer_type": kind}})
    )
    family, quantizer = checkpoints.load_as(saved(tmp_path, "quantizer.", made))
    assert family == "moss_audio"
    assert {stage.metric for stage in quantizer} == {"cosine" if lfq else "euclidean"}
    lengths = torch.tensor([150, 150])
    codes = made(x, lengths)[1]

    def summed(codes):
        """Return what the stages of `made` add up to: its own method leaves out their maps."""
        each = [stage.out_proj(stage.decode_code(row))
                for stage, row in zip(made.quantizers, codes, strict=True)]  # fmt: skip
        return made.output_proj(torch.stack(each).sum(dim=0))

    assert_equal(quantizer, x, codes, made.decode_codes if lfq else summed, through=lfq)
    if lfq:  # with the tables that it decodes with at last
        made.build_decode_lut(4, dtype=torch.float32)
        some = drawn([24] * 4, 2, 30)
        theirs = np.moveaxis(made.decode_codes(some).numpy(), 1, 2).reshape(-1, 10)
        regret.assert_decodes(theirs, [each.reshape(-1) for each in some.numpy()], quantizer)


@torch.no_grad()
def test_fish_speech(x, tmp_path):
    imported("dac.nn.quantize", "dac", "dac.nn")
    module = inside("fish_speech.models.dac.rvq")
    made = module.DownsampleResidualVectorQuantize(
        10, n_codebooks=3, codebook_dim=4, codebook_size=24, semantic_codebook_size=60,
        downsample_factor=(),
    ).eval()  # fmt: skip
    for name, value in made.state_dict().items():  # which starts near zero
        if name.endswith("weight_v") or name.endswith("original1"):
            value.copy_(torch.randn_like(value))
    scaled(made)
    family, quantizer = checkpoints.load_as(saved(tmp_path, "quantizer.", made))
    assert family == "fish_audio"
    assert quantizer.sizes == (60, 24, 24, 24)
    codes = made(x).codes.transpose(0, 1)
    decode = lambda codes: made.decode(codes.transpose(0, 1))  # noqa: E731
    assert_equal(quantizer, x, codes, decode, through=True)


@torch.no_grad()
def test_mimo_audio_tokenizer(x, tmp_path):
    module = inside(f"{MODELS}mimo_audio.quantization")
    made = module.ResidualVectorQuantizer(10, n_q=4, bins=[40, 40, 16]).eval()
    randomize(made)
    family, quantizer = checkpoints.load_as(saved(tmp_path, "encoder.quantizer.", made))
    assert family == "mimo_audio"
    assert quantizer.sizes == (40, 40, 16, 16)
    codes = made.encode(x.transpose(1, 2))
    assert_equal(quantizer, x, codes, lambda codes: made.decode(codes).transpose(1, 2))
    assert torch.equal(made.encode(x.transpose(1, 2), n_q=2), codes[:2])


@torch.no_grad()
def test_higgs_audio_by_its_original_names(x, tmp_path, monkeypatch):
    stand_in(monkeypatch, "omegaconf", OmegaConf=None)
    made = inside("boson_multimodal.audio_processing.quantization.vq").ResidualVectorQuantizer(
        10, codebook_dim=4, n_q=4, bins=24
    ).eval()  # fmt: skip
    randomize(made)
    beside = {f"{name}.weight": torch.ones(2, 2) for name in ("fc_prior", "fc_post1", "fc_post2")}
    family, quantizer = checkpoints.load_as(saved(tmp_path, "quantizer.", made, **beside))
    assert family == "higgs_audio"
    assert_equal(quantizer, x, made.encode(x, 25), made.decode)


@pytest.mark.parametrize("cosine", [True, False])
@torch.no_grad()
def test_maskgct_as_indextts2_carries_it(cosine, x, tmp_path):
    made = inside(f"{MODELS}indextts2.utils.maskgct.quantize").ResidualVQ(
        10, 3, 24, 4, use_l2_normalize=cosine
    ).eval()  # fmt: skip
    scaled(made)
    (tmp_path / "config.json").write_text(json.dumps({"use_l2_normalize": cosine}))
    family, quantizer = checkpoints.load_as(saved(tmp_path, "quantizer.", made))
    assert family == "maskgct"
    assert_equal(quantizer, x, made(x)[1], made.vq2emb, through=True)


@torch.no_grad()
def test_the_decoder_of_qwen3_tts(tmp_path, monkeypatch):
    stand_in(monkeypatch, "vllm")
    stand_in(monkeypatch, "vllm.logger", init_logger=lambda name: None)
    stand_in(monkeypatch, f"{MODELS}common.snake_activation", SnakeBeta=torch.nn.Identity)
    module = inside(f"{MODELS}qwen3_tts.tokenizer_12hz.modeling_qwen3_tts_tokenizer_v2")
    made = module.SplitResidualVectorQuantizer(
        n_q=5, n_q_semantic=1, dimension=4, input_dimension=10, output_dimension=10, bins=24
    ).eval()
    for name, value in made.state_dict().items():
        if "cluster_usage" in name:
            value.copy_(0.5 + torch.rand_like(value))
        elif "embedding_sum" in name:
            value.copy_(torch.randn_like(value))
    for layer in [*made.rvq_first.vq.layers, *made.rvq_rest.vq.layers]:
        layer._codebook.cluster_usage[2] = 1e-7  # below the least divisor
        layer._codebook.embedding_sum[2] *= 1e-5
    path = saved(tmp_path, "decoder.quantizer.", made)
    quantizer = checkpoints.load(path, "qwen3_tts", part="decoder")
    codes = drawn([24] * 5, 2, 50)
    theirs = np.moveaxis(made.decode(codes.transpose(0, 1)).numpy(), 1, 2).reshape(-1, 10)
    regret.assert_decodes(theirs, [each.reshape(-1) for each in codes.numpy()], quantizer)


@torch.no_grad()
def test_the_25_hz_tokenizer_of_qwen3_tts(x, tmp_path, monkeypatch):
    stand_in(monkeypatch, "vllm")
    stand_in(monkeypatch, "vllm.logger", init_logger=lambda name: None)
    module = inside(f"{MODELS}qwen3_tts.tokenizer_25hz.vq.core_vq")
    made = module.DistributedGroupResidualVectorQuantization(
        num_groups=1, num_quantizers=1, dim=10, codebook_size=50, codebook_dim=None,
        kmeans_init=True,
    ).eval()  # fmt: skip
    randomize(made)
    family, quantizer = checkpoints.load_as(saved(tmp_path, "encoder.audio_quantizer.", made))
    assert family == "qwen3_tts_25hz"
    (inner,) = made.rvqs
    codes = inner.encode(x.transpose(1, 2))
    assert_equal(quantizer, x, codes, lambda codes: inner.decode(codes).transpose(1, 2))


@torch.no_grad()
def test_nemotron_voicechat(x, tmp_path, monkeypatch):
    stand_in(monkeypatch, "omegaconf", DictConfig=dict)
    stand_in(monkeypatch, "librosa", filters=MagicMock())
    name = f"{MODELS}nemotron_voicechat.nemo_vendored.ear_tts_vae_codec"
    made = inside(name).PreTrainedProbabilisticVQ(10, 24, 4).eval()
    path = saved(tmp_path, "tts_model.audio_codec.prvq.", made)
    family, quantizer = checkpoints.load_as(path)
    assert family == "nemotron_voicechat"
    codes = torch.stack(made.encode(x.transpose(1, 2)))
    assert_equal(quantizer, x, codes, lambda codes: made.decode(list(codes)).transpose(1, 2))


def of_nemo(monkeypatch):
    """Return NeMo's module of quantizers, whose types of tensors and distribution do not matter."""
    every = "nemo.collections.tts.modules.audio_codec_modules nemo.core.neural_types.elements "
    every += "nemo.core.neural_types.neural_type nemo.collections.tts.losses.audio_codec_loss "
    every += "nemo.collections.tts.parts.utils.distributed nemo.utils"
    for name in every.split():
        monkeypatch.setitem(sys.modules, name, MagicMock())
    unchecked = lambda *_, **__: lambda function: function  # noqa: E731
    stand_in(monkeypatch, "nemo.core.classes.common", typecheck=unchecked)
    stand_in(monkeypatch, "nemo.core.classes.module", NeuralModule=torch.nn.Module)
    stand_in(
        monkeypatch, "nemo.collections.common.parts.utils",
        mask_sequence_tensor=lambda tensor, lengths: tensor,
    )  # fmt: skip
    base = sys.modules["nemo.collections.tts.modules.audio_codec_modules"]
    base.VectorQuantizerBase = torch.nn.Module
    return inside("nemo.collections.tts.modules.encodec_modules")


@pytest.mark.parametrize("groups", [1, 2])
@torch.no_grad()
def test_nemo(groups, x, tmp_path, monkeypatch):
    module = of_nemo(monkeypatch)
    options = {"codebook_size": 24, "codebook_dim": 10, "num_codebooks": 4}
    if groups == 1:
        made = module.ResidualVectorQuantizer(**options).eval()
    else:
        made = module.GroupResidualVectorQuantizer(num_groups=groups, **options).eval()
    randomize(made, ("codes",))
    family, quantizer = checkpoints.load_as(saved(tmp_path, "vector_quantizer.", made))
    assert family == "nemo"
    lengths = torch.tensor([150, 150])
    theirs = made.encode(inputs=x, input_len=lengths)  # group by group, ours take turns
    codes = theirs.reshape(groups, 4 // groups, 2, 150).transpose(0, 1).reshape(4, 2, 150)

    def decode(codes):
        apart = codes.reshape(4 // groups, groups, *codes.shape[1:]).transpose(0, 1)
        return made.decode(indices=apart.reshape(codes.shape), input_len=lengths)

    assert_equal(quantizer, x, codes, decode)


def test_spectrostream_of_magenta_rt(x, tmp_path, monkeypatch):
    import jax.numpy as jnp

    found = imported("magenta_rt._vendor", "magenta_rt", "magenta_rt._vendor")
    monkeypatch.syspath_prepend(f"{next(iter(found.__path__))}/sequence-layers")
    # Of layers that are not used, and of annotations.
    for name in ("recurrentgemma", "recurrentgemma.jax", "jaxtyping"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    module = inside("magenta_rt.jax.spectrostream")
    config = module.ResidualVectorQuantizer.Config(
        4, 24, 10, use_unique_codes=False, beta=0.25, dynamic_masking=False,
        target_num_quantizers=(), full_quantizer_dropout_rate=0.0, full_quantizer_commitment=0.0,
    )  # fmt: skip
    books = np.random.default_rng(0).standard_normal((4, 24, 10)).astype(np.float32)
    made = config.make().bind({"params": {"embedding": jnp.asarray(books)}})
    rows = np.moveaxis(x.numpy(), 1, 2)
    mask = jnp.ones(rows.shape[:2], bool)
    codes = made.embeddings_to_codes(module.sl.Sequence(jnp.asarray(rows), mask)).values
    path = saved(tmp_path, "", SimpleNamespace(state_dict=lambda: {
        "embedding": torch.from_numpy(books)
    }))  # fmt: skip
    family, quantizer = checkpoints.load_as(path)
    assert family == "spectrostream"

    def decode(codes):
        last = jnp.asarray(np.moveaxis(codes.numpy(), 0, 2).astype(np.int32))
        vectors = made.codes_to_embeddings(module.sl.Sequence(last, mask)).values
        return torch.from_numpy(np.array(vectors)).transpose(1, 2)

    theirs = torch.from_numpy(np.moveaxis(np.array(codes), 2, 0).astype(np.int64))
    assert_equal(quantizer, x, theirs, decode)
    assert rvq_np.encode(rows, quantizer).shape == (4, 2, 150)
