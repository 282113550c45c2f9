"""Quantizers of published models, built from their own packages with random weights, on a CPU.

Packages whose ``__init__`` imports sound libraries are entered past it: an empty module with the
right path stands in, so that the quantizer's own files are imported as they are.
"""

import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import faiss
import numpy as np
import torch
import transformers
from espnet2.gan_codec.shared.quantizer.residual_vq import ResidualVectorQuantizer as Espnet
from safetensors.torch import save_file
from transformers.models.xcodec import modeling_xcodec
from vector_quantize_pytorch import GroupedResidualVQ, ResidualVQ

from . import imports

torch.set_num_threads(1)
PAST = {  # where it is not the package itself
    "dac.nn.quantize": ("dac", "dac.nn"),
    "espnet2.gan_codec.hificodec.module": ("espnet2.gan_codec.hificodec",),
}


@dataclass
class Published:
    """A model of some family, and how its own package encodes and decodes.

    `encode` takes vectors (B, C, T) and a number of stages, and gives codes (n, B, T), or a list of
    (B, T / stride); `decode` the other way.
    """

    family: str
    package: str
    tensors: dict[str, torch.Tensor]
    encode: Callable[[torch.Tensor, int], Any]
    decode: Callable[[torch.Tensor], Any]
    dim: int
    sizes: list[int]
    config: dict[str, Any] = field(default_factory=dict)
    metric: str = "euclidean"
    model: Any = None  # where it can save itself
    through: bool = False  # the residual loses z + (codeword - z)
    cdist: bool = False  # distances are torch.cdist's
    asked: bool = False  # the names do not tell the family
    decodes: Sequence[int] = ()  # how many stages its decoder takes; any by default
    content: bytes = b""  # of a family without tensors

    @property
    def version(self) -> str:
        return version(self.package)

    @property
    def strides(self) -> list[int]:
        return self.config.get("vq_strides", [1] * len(self.sizes))

    def save(self, folder: Path) -> Path:
        """Write the checkpoint as users of the package do; return what to load."""
        if self.content:
            (folder / "index.faissindex").write_bytes(self.content)
            return folder / "index.faissindex"
        if self.model is not None:
            self.model.save_pretrained(folder)
            return folder
        save_file(
            {k: v.clone().contiguous() for k, v in self.tensors.items()},
            folder / "model.safetensors",
        )
        if self.config:
            (folder / "config.json").write_text(json.dumps(self.config))
        return folder / "model.safetensors"


def imported(name: str) -> Any:
    return imports.imported(name, *PAST.get(name, (name.partition(".")[0],)))


def random_codewords(books: Any, name: str = "embed") -> None:
    """Give each codebook random codewords, shorter the deeper; only the codewords, as nothing else
    counts.

    What else there is, such as ``embed_avg``, is set to something that would be noticed.
    """
    for stage, book in enumerate(books):
        getattr(book, name).data.copy_(torch.randn_like(getattr(book, name)) * 0.7**stage)
        if hasattr(book, "embed_avg"):
            book.embed_avg.data.copy_(torch.randn_like(book.embed_avg))
            book.cluster_size.data.fill_(3.0)
        if hasattr(book, "inited"):
            book.inited.data.fill_(1.0)


def named(prefix: str, module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in module.state_dict().items()}


def espnet(prefix: str = "codec.generator.quantizer.", width: int = 6) -> Published:
    made = Espnet(6, width, 3, 16, threshold_ema_dead_code=0).eval()
    random_codewords(layer._codebook for layer in made.vq.layers)
    return Published(
        # Without projections and prefix there is nothing to tell it from EnCodec by.
        "espnet" if prefix or width != 6 else "encodec", "espnet", named(prefix, made),
        lambda x, n: made.vq.encode(x, n_q=n), made.decode, 6, [16] * 3,
    )  # fmt: skip


def hificodec(prefix: str = "codec.generator.quantizer.") -> Published:
    module = imported("espnet2.gan_codec.hificodec.module")
    made = module.GroupResidualVectorQuantization(
        None, 256, 2, 8, 0.99, False, 1, 0
    ).eval()  # 512 channels are written into its code
    for half in (made.quantizer0, made.quantizer1):
        random_codewords(layer._codebook for layer in half.vq.layers)

    def encode(x, n):  # theirs are (stages, 2 B, T)
        made.target_bandwidths = [(n + 1) // 2 * 3.0]  # 8 codewords at 1 kHz
        codes = made.encode(x, 1000)
        return codes.reshape(-1, len(x), x.shape[2])[:n]

    def decode(codes):  # theirs takes one signal
        each = codes.reshape(len(codes) // 2, 2, *codes.shape[1:]).unbind(2)
        return torch.cat([made.decode(signal) for signal in each])

    return Published(
        "espnet", "espnet", named(prefix, made), encode, decode, 512, [8] * 4, decodes=[2, 4]
    )


def audiocraft() -> Published:
    sys.modules.setdefault("flashy", ModuleType("flashy"))  # which only training calls
    made = imported("audiocraft.quantization").ResidualVectorQuantizer(8, 4, bins=32).eval()
    random_codewords(layer._codebook for layer in made.vq.layers)

    def encode(x, n):
        made.set_num_codebooks(n)
        return made.encode(x).transpose(0, 1)

    return Published(
        "audiocraft", "audiocraft", named("quantizer.", made), encode,
        lambda codes: made.decode(codes.transpose(0, 1)), 8, [32] * 4, asked=True,
    )  # fmt: skip


def encodec() -> Published:
    made = imported("encodec.quantization").ResidualVectorQuantizer(8, 4, 32).eval()
    random_codewords(layer._codebook for layer in made.vq.layers)
    return Published(
        "encodec", "encodec", named("quantizer.", made), lambda x, n: made.vq.encode(x, n_q=n),
        made.decode, 8, [32] * 4,
    )  # fmt: skip


def speechtokenizer() -> Published:
    made = imported("speechtokenizer.quantization").ResidualVectorQuantizer(8, 3, 20).eval()
    random_codewords(layer._codebook for layer in made.vq.layers)
    tensors = named("quantizer.", made) | named("transform.", torch.nn.Linear(8, 5))
    return Published(
        "speechtokenizer", "speechtokenizer", tensors, lambda x, n: made.encode(x, n_q=n),
        made.decode, 8, [20] * 3,
    )  # fmt: skip


def encodec_hf() -> Published:
    config = transformers.EncodecConfig(
        num_filters=2, upsampling_ratios=[2, 2], num_lstm_layers=1, hidden_size=8,
        codebook_size=16, codebook_dim=8, target_bandwidths=[24.0, 96.0], sampling_rate=24000,
    )  # fmt: skip
    made = transformers.EncodecModel(config).eval()
    inner = made.quantizer
    random_codewords(layer.codebook for layer in inner.layers)
    per_stage = 4 * inner.frame_rate / 1000  # 16 codewords
    n_q = len(inner.layers)
    return Published(
        "encodec", "transformers", named("quantizer.", inner),
        lambda x, n: inner.encode(x, (n + 0.5) * per_stage), inner.decode, 8, [16] * n_q,
        model=made,
    )  # fmt: skip


def xcodec() -> Published:
    class Config:
        codebook_size, codebook_dim, num_quantizers, frame_rate = 24, 8, 4, 50

    made = modeling_xcodec.XcodecResidualVectorQuantization(Config()).eval()
    random_codewords(each.codebook for each in made.quantizers)
    per_stage = made.get_bandwidth_per_quantizer()
    return Published(
        "xcodec", "transformers", named("quantizer.", made),
        lambda x, n: made.encode(x, (n + 0.5) * per_stage), made.decode, 8, [24] * 4,
    )  # fmt: skip


def dac() -> Published:
    made = imported("dac.nn.quantize").ResidualVectorQuantize(16, 4, 32, 5).eval()
    for each in made.quantizers:  # at first g is |v|, and every weight is its direction
        for way in (each.in_proj, each.out_proj):
            way.weight_g.data.mul_(0.5 + torch.rand_like(way.weight_g))
    random_codewords((each.codebook for each in made.quantizers), "weight")
    return Published(
        "dac", "descript-audio-codec", named("quantizer.", made),
        lambda x, n: made(x, n)[1].transpose(0, 1),
        lambda codes: made.from_codes(codes.transpose(0, 1))[0],
        16, [32] * 4, metric="cosine", through=True,
    )  # fmt: skip


def snac(*strides: int) -> Published:
    made = imported("snac.vq").ResidualVectorQuantize(12, 32, 5, list(strides)).eval()
    for each in made.quantizers:
        for way in (each.in_proj, each.out_proj):
            scale = way.parametrizations.weight.original0
            scale.data.mul_(0.5 + torch.rand_like(scale))
    random_codewords((each.codebook for each in made.quantizers), "weight")
    return Published(
        "snac", "snac", named("quantizer.", made), lambda x, n: made(x)[1][:n], made.from_codes,
        12, [32] * len(strides), {"vq_strides": list(strides)}, "cosine", through=True,
        decodes=[len(strides)],
    )  # fmt: skip


def random_sums(books: Any, name: str, flag: str) -> None:
    """Give codebooks sums over counts for codewords, one of which is below the least divisor."""
    for stage, book in enumerate(books):
        usage = 0.5 + 9 * torch.rand_like(book.cluster_usage)
        usage[3] = 1e-7
        codewords = torch.randn_like(getattr(book, name)) * 0.7**stage
        getattr(book, name).data.copy_(codewords * usage.clamp(min=1e-5)[:, None])
        book.cluster_usage.data.copy_(usage)
        getattr(book, flag).data.fill_(1.0)


def mimi(*, legacy: bool = False, semantic: int = 1) -> Published:
    made = imported("moshi.quantization").SplitResidualVectorQuantizer(
        n_q=4, n_q_semantic=semantic, dimension=6, input_dimension=10, output_dimension=10, bins=32
    ).eval()  # fmt: skip
    for stack in (made.rvq_first, made.rvq_rest):
        books = (layer._codebook for layer in stack.vq.layers)
        random_sums(books, "embedding_sum", "_initialized")
    tensors = named("", made)
    if legacy:  # the names before, which it still takes
        old = {
            "_initialized": "inited",
            "cluster_usage": "cluster_size",
            "embedding_sum": "embed_avg",
        }
        for new, name in old.items():
            tensors = {key.replace(f".{new}", f".{name}"): tensors[key] for key in tensors}
        made.load_state_dict(dict(tensors))

    def encode(x, n):
        made.set_num_codebooks(max(n, semantic))
        return made.encode(x).transpose(0, 1)[:n]

    return Published(
        "mimi", "moshi", {f"quantizer.{key}": value for key, value in tensors.items()}, encode,
        lambda codes: made.decode(codes.transpose(0, 1)), 10, [32] * 4, cdist=True,
        decodes=range(semantic, 5),
    )  # fmt: skip


def mimi_hf(*, semantic: int = 1, inner: int = 6) -> Published:
    config = transformers.MimiConfig(
        hidden_size=8, num_filters=2, upsampling_ratios=[2, 2], codebook_size=16,
        codebook_dim=inner, vector_quantization_hidden_dimension=inner, num_quantizers=4,
        num_semantic_quantizers=semantic, num_hidden_layers=1, intermediate_size=8,
        num_attention_heads=2, num_key_value_heads=2, head_dim=4, upsample_groups=8,
    )  # fmt: skip
    model = transformers.MimiModel(config).eval()
    made = model.quantizer
    stacks = (made.semantic_residual_vector_quantizer, made.acoustic_residual_vector_quantizer)
    for stack in stacks:
        random_sums((layer.codebook for layer in stack.layers), "embed_sum", "initialized")
        for way in (stack.input_proj, stack.output_proj):
            if way is not None:
                way.weight.data.normal_(0, way.weight.shape[1] ** -0.5)
    return Published(
        "mimi", "transformers", named("quantizer.", made),
        lambda x, n: made.encode(x, max(n, semantic))[:n],
        lambda codes: made.decode(codes.transpose(0, 1)), 8, [16] * 4, model=model, cdist=True,
        decodes=range(semantic, 5),
    )  # fmt: skip


def dac_hf(*, weight_norm: bool = False) -> Published:
    config = transformers.DacConfig(
        encoder_hidden_size=4, downsampling_ratios=[2, 2], decoder_hidden_size=8, n_codebooks=4,
        codebook_size=32, codebook_dim=5,
    )  # fmt: skip
    made = transformers.DacModel(config).eval()
    inner = made.quantizer
    random_codewords((each.codebook for each in inner.quantizers), "weight")
    for each in inner.quantizers:  # the model starts with weights near zero
        for way in (each.in_proj, each.out_proj):
            way.weight.data.normal_(0, way.weight.shape[1] ** -0.5)
            way.bias.data.normal_(0, 0.1)
    if weight_norm:
        made.apply_weight_norm()
    return Published(
        "dac", "transformers", named("quantizer.", inner),
        lambda x, n: inner(x, n)[1].transpose(0, 1),
        lambda codes: inner.from_codes(codes.transpose(0, 1))[0],
        16, [32] * 4, metric="cosine", through=True, model=made,
    )  # fmt: skip


def residual_vq(*, cosine: bool = False, **options: Any) -> Published:
    made = ResidualVQ(
        dim=8, num_quantizers=3, codebook_size=24, use_cosine_sim=cosine,
        quantize_dropout=True,  # or it would not decode fewer stages
        **options,
    ).eval()  # fmt: skip
    if not cosine:  # the codewords of a cosine codebook have norm 1 from the start
        random_codewords(layer._codebook for layer in made.layers)

    def encode(x, n):
        return made(x.transpose(1, 2))[1].movedim(-1, 0)[:n]

    def decode(codes):
        return made.get_output_from_indices(codes.movedim(0, -1)).transpose(1, 2)

    return Published(
        "vector_quantize_pytorch", "vector-quantize-pytorch", named("", made), encode, decode,
        8, [24] * 3, {"use_cosine_sim": True} if cosine else {},
        "cosine" if cosine else "euclidean",
    )  # fmt: skip


def grouped_residual_vq(**options: Any) -> Published:
    groups, stages = 2, 3
    made = GroupedResidualVQ(
        dim=8, groups=groups, num_quantizers=stages, codebook_size=24, quantize_dropout=True,
        **options,
    ).eval()  # fmt: skip
    for each in made.rvqs:
        random_codewords(layer._codebook for layer in each.layers)

    def encode(x, n):  # theirs are (groups, B, T, stages)
        codes = made(x.transpose(1, 2))[1].movedim(-1, 0)
        return codes.reshape(groups * stages, *codes.shape[2:])[:n]

    def decode(codes):
        apart = codes.reshape(len(codes) // groups, groups, *codes.shape[1:])
        return made.get_output_from_indices(apart.movedim(0, -1)).transpose(1, 2)

    return Published(
        "vector_quantize_pytorch", "vector-quantize-pytorch", named("", made), encode, decode,
        8, [24] * groups * stages, decodes=range(groups, groups * stages + 1, groups),
    )  # fmt: skip


def faiss_index(*, name: str = "") -> Published:
    rng = np.random.default_rng(5)
    index = (
        faiss.index_factory(6, f"RQ2x4{name}") if name else faiss.IndexResidualQuantizer(6, 3, 4)
    )
    index.rq.max_beam_size = 1
    index.train(rng.standard_normal((700, 6)).astype(np.float32))
    index.add(rng.standard_normal((3, 6)).astype(np.float32))
    bits = faiss.vector_to_array(index.rq.nbits)

    def encode(x, n):  # a code of 4 bits a stage, the lowest bits first; then a norm, if any
        rows = np.ascontiguousarray(x.transpose(1, 2).reshape(-1, 6).numpy())
        found = index.rq.compute_codes(rows).astype(np.uint64)
        numbers = (found << (8 * np.arange(found.shape[1], dtype=np.uint64))).sum(axis=1)
        codes = [(numbers >> np.uint64(4 * q)) & np.uint64(15) for q in range(len(bits))]
        return np.stack(codes)[:n].astype(np.int64).reshape(n, x.shape[0], x.shape[2])

    def decode(codes):
        n, batch, length = codes.shape
        whole = torch.cat([codes, torch.zeros(len(bits) - n, batch, length, dtype=codes.dtype)])
        rows = whole.numpy().reshape(len(whole), -1).astype(np.uint64)
        numbers = (rows << (4 * np.arange(len(rows), dtype=np.uint64))[:, None]).sum(axis=0)
        places = 8 * np.arange(index.rq.code_size, dtype=np.uint64)
        found = (numbers[:, None] >> places) & np.uint64(255)
        rows = index.rq.decode(found.astype(np.uint8))
        return rows.reshape(batch, length, 6).swapaxes(1, 2)

    return Published(
        "faiss", "faiss-cpu", {}, encode, decode, 6, [16] * len(bits), decodes=[len(bits)],
        content=faiss.serialize_index(index).tobytes(),
    )  # fmt: skip


BUILDERS: dict[str, Callable[[], Published]] = {
    "espnet": espnet,
    "espnet-projected": lambda: espnet(width=4),
    "espnet-bare": lambda: espnet("", 6),
    "espnet-bare-projected": lambda: espnet("", 4),
    "hificodec": hificodec,
    "hificodec-bare": lambda: hificodec(""),
    "encodec": encodec,
    "audiocraft": audiocraft,
    "encodec-hf": encodec_hf,
    "speechtokenizer": speechtokenizer,
    "xcodec": xcodec,
    "dac": dac,
    "dac-hf": dac_hf,
    "dac-hf-weight-norm": lambda: dac_hf(weight_norm=True),
    "snac": lambda: snac(4, 2, 1),
    "snac-44khz": lambda: snac(8, 4, 2, 1),
    "mimi": mimi,
    "mimi-legacy": lambda: mimi(legacy=True),
    "mimi-two-semantic": lambda: mimi(semantic=2),
    "mimi-hf": mimi_hf,
    "mimi-hf-two-semantic": lambda: mimi_hf(semantic=2),
    "mimi-hf-without-maps": lambda: mimi_hf(inner=8),
    "residual-vq": residual_vq,
    "residual-vq-projected": lambda: residual_vq(codebook_dim=5),
    "residual-vq-shared": lambda: residual_vq(shared_codebook=True),
    "grouped-residual-vq": grouped_residual_vq,
    "grouped-residual-vq-projected": lambda: grouped_residual_vq(codebook_dim=3),
    "residual-vq-cosine": lambda: residual_vq(cosine=True),
    "faiss": faiss_index,
    "faiss-norms": lambda: faiss_index(name="_Nqint8"),
}


def build(name: str, seed: int = 0) -> Published:
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that weight_norm has a successor
        torch.manual_seed(seed)
        return BUILDERS[name]()
