"""Checkpoints of the families of 2026, and what their own code computes, written by hand.

The arithmetic is read from their repositories and written again in float64, with loops that a
reader can compare: a reference, not the original, which needs torch.  Each case has the tensors by
their published names, the config, and the chains of stages that encode.  The originals are run in
`tests/peers`, `test_checkpoints_of_2026.py` and `test_checkpoints_of_servers.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Layer:
    """One stage: ``codebook`` (K, C), maps as (weight, bias) or None, and how it is searched."""

    codebook: np.ndarray
    into: Any = None
    out: Any = None
    cosine: bool = False


@dataclass
class Chain:
    """Stages one after another, between two maps."""

    layers: list[Layer]
    into: Any = None
    out: Any = None


@dataclass
class Case:
    family: str
    tensors: dict[str, np.ndarray]
    chains: list[Chain]  # side by side, their results added
    config: dict[str, Any] = field(default_factory=dict)
    part: str | None = None
    used: int | None = None  # of all stages
    beside: dict[str, np.ndarray] = field(default_factory=dict)  # network, which does not matter

    @property
    def dim(self):
        chain = self.chains[0]
        if chain.into:
            return chain.into[0].shape[1]
        first = chain.layers[0]
        return first.into[0].shape[1] if first.into else first.codebook.shape[1]


def affine(x, pair):
    if pair is None:
        return x
    weight, bias = pair
    return x @ weight.T.astype(np.float64) + bias


def nearest(z, layer):
    """Return for each row the first codeword of the least distance."""
    searched = layer.codebook.astype(np.float64)
    if layer.cosine:
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
        searched = searched / np.linalg.norm(searched, axis=1, keepdims=True)
    return np.array([np.square(row - searched).sum(axis=1).argmin() for row in z])


def encode(case, x):
    """Return codes (Q, N) of rows (N, D)."""
    codes = []
    for chain in case.chains:
        left = affine(x.astype(np.float64), chain.into)
        for layer in chain.layers:
            codes.append(nearest(affine(left, layer.into), layer))
            left = left - affine(layer.codebook[codes[-1]].astype(np.float64), layer.out)
    return np.stack(codes)[: case.used]


def decode(case, codes):
    """Return rows (N, D)."""
    total, rows = 0.0, list(codes)
    for chain in case.chains:
        some, rows = rows[: len(chain.layers)], rows[len(chain.layers) :]
        if some:
            pairs = zip(some, chain.layers, strict=False)
            inner = sum(
                affine(layer.codebook[row].astype(float), layer.out) for row, layer in pairs
            )
            total = total + affine(inner, chain.out)
    return total


# The files. D numbers of a vector, C of a codeword, K codewords, Q stages.

K, C, D, INNER = 12, 4, 9, 6


class Maker:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape):
        return self.rng.standard_normal(shape).astype(np.float32)

    def map(self, name, outputs, inputs, form="linear", bias=True):
        """Return the tensors of a map, and the map; weight norm has its direction unnormalized."""
        weight = self.normal(outputs, inputs) / np.float32(inputs**0.5)
        offset = 0.1 * self.normal(outputs) if bias else np.zeros(outputs, np.float32)
        named = {f"{name}.bias": offset} if bias else {}
        if form == "linear":
            named[f"{name}.weight"] = weight
        elif form == "conv":
            named[f"{name}.weight"] = weight[:, :, None]
        else:
            scales = np.float32(0.5) + self.rng.random((outputs, 1)).astype(np.float32)
            norms = np.linalg.norm(weight.astype(np.float64), axis=1, keepdims=True)
            names = {"old": ("weight_g", "weight_v"),
                     "new": ("parametrizations.weight.original0",
                             "parametrizations.weight.original1")}[form]  # fmt: skip
            named[f"{name}.{names[0]}"] = scales[:, :, None]
            named[f"{name}.{names[1]}"] = weight[:, :, None]
            weight = scales * weight / norms
        return named, (weight, offset)

    def layers(self, count, name, suffix, dim, width=C, size=K, ways=("in_proj", "out_proj"),
               form="new", cosine=True):  # fmt: skip
        """Return tensors and stages that are mapped at each stage, ``name`` with a number."""
        tensors, made = {}, []
        for q in range(count):
            at = name.format(q)
            codebook = np.float32(0.7**q) * self.normal(size, width)
            tensors[f"{at}.{suffix}"] = codebook
            maps = [None, None]
            if ways:
                for n, (way, shape) in enumerate(
                    zip(ways, ((width, dim), (dim, width)), strict=True)
                ):
                    some, maps[n] = self.map(f"{at}.{way}", *shape, form)
                    tensors |= some
            made.append(Layer(codebook, *maps, cosine))
        return tensors, made

    def averaged(self, book, codebook, flag="inited", sums="embed_avg"):
        """Return what training keeps beside a codebook; it would give other codewords."""
        return {
            f"{book}.{flag}": np.ones(1, np.float32),
            f"{book}.cluster_size": np.full(len(codebook), 2, np.float32),
            f"{book}.{sums}": 3 * codebook + 1,
        }

    def mimi(self, start, first, rest, pattern, sums, counts):
        tensors, chains = {}, []
        for stack, n_q in ((first, counts[0]), (rest, counts[1])):
            layers = []
            for q in range(n_q):
                book = f"{start}{stack}.{pattern.format(q)}"
                usage = np.float32(0.5) + 9 * self.rng.random(K).astype(np.float32)
                usage[1] = 1e-7  # below the least divisor
                stored = self.normal(K, C) * np.maximum(usage, np.float32(1e-5))[:, None]
                tensors |= {f"{book}.{sums}": stored, f"{book}.cluster_usage": usage}
                layers.append(Layer(stored / np.maximum(usage, np.float32(1e-5))[:, None]))
            maps = []
            for way, shape in (("input_proj", (C, D)), ("output_proj", (D, C))):
                some, made = self.map(f"{start}{stack}.{way}", *shape, "conv", bias=False)
                tensors |= some
                maps.append(made)
            chains.append(Chain(layers, *maps))
        return tensors, chains


PORT = ("semantic_residual_vector_quantizer", "acoustic_residual_vector_quantizer",
        "layers.{}.codebook", "embed_sum")  # fmt: skip
OWN = ("rvq_first", "rvq_rest", "vq.layers.{}._codebook", "embedding_sum")


def qwen3_tts(part, *, config=True):
    make = Maker(1)
    encoder, first = make.mimi("encoder.quantizer.", *PORT, (1, 5))
    decoder, second = make.mimi("decoder.quantizer.", *OWN, (1, 2))
    about = {"encoder_valid_num_quantizers": 4} if config else {}
    used = {"encoder": 4 if config else 3, "decoder": None}[part]
    chains = first if part == "encoder" else second
    network = {"encoder.encoder.layers.0.conv.weight": make.normal(2, 2, 2),
               "decoder.pre_conv.conv.weight": make.normal(2, 2)}  # fmt: skip
    return Case("qwen3_tts", encoder | decoder, chains, about, part, used, network)


def moss_audio(kind, *, nested=True, maps=("input_proj", "output_proj"), form="new"):
    make = Maker(2)
    dim = INNER
    tensors, layers = make.layers(
        3, "quantizer.quantizers.{}", "codebook.weight", dim, form=form, cosine="lfq" in kind
    )
    around = [None, None]
    outer = D if len(maps) == 2 else INNER
    for way in maps:
        shape = (dim, outer) if way == "input_proj" else (outer, dim)
        some, around[way == "output_proj"] = make.map(f"quantizer.{way}", *shape, form)
        tensors |= some
    config = {"quantizer_kwargs": {"quantizer_type": kind}} if nested else {"quantizer_type": kind}
    network = {"encoder.1.transformer.norm.weight": make.normal(3)}
    return Case("moss_audio", tensors, [Chain(layers, *around)], config, beside=network)


def higgs_audio(original):
    make = Maker(3)
    ways, suffix = ("project_in", "project_out"), "codebook.embed"
    name = "quantizer.quantizers.{}"
    network = {"fc.weight": make.normal(2, 2)}
    if original:
        name, suffix = "quantizer.vq.layers.{}", "_codebook.embed"
        network = {"fc_prior.weight": make.normal(2, 2), "fc_post1.weight": make.normal(2, 2)}
    tensors, layers = make.layers(4, name, suffix, D, ways=ways, form="linear", cosine=False)
    for q, layer in enumerate(layers):
        book = f"{name.format(q)}.{suffix.rpartition('.')[0]}"
        tensors |= make.averaged(book, layer.codebook)
    return Case("higgs_audio", tensors, [Chain(layers)], beside=network)


def fish_audio(form, start="quantizer."):
    make = Maker(4)
    semantic, first = make.layers(
        1, f"{start}semantic_quantizer.quantizers.{{}}", "codebook.weight", D, size=3 * K, form=form
    )
    acoustic, rest = make.layers(
        3, f"{start}quantizer.quantizers.{{}}", "codebook.weight", D, form=form
    )
    network = {f"{start}{name}.weight": make.normal(2, 2)
               for name in ("downsample.0.0.conv", "pre_module.norm", "upsample.1.0.conv",
                            "post_module.layers.0.attention.wo")}  # fmt: skip
    return Case("fish_audio", semantic | acoustic, [Chain(first + rest)], beside=network)


def mimo_audio():
    make = Maker(5)
    tensors, layers = {}, []
    for q, size in enumerate((20, 20, 5, 5)):
        book = f"encoder.quantizer.vq.layers.{q}._codebook"
        codebook = np.float32(0.7**q) * make.normal(size, D)
        tensors |= {f"{book}.embed": codebook, **make.averaged(book, codebook)}
        layers.append(Layer(codebook))
    network = {"encoder.conv1.weight": make.normal(2, 2), "encoder.layer_norm.bias": make.normal(2)}
    return Case("mimo_audio", tensors, [Chain(layers)], beside=network)


def xy_tokenizer(form, *, ways=()):
    make = Maker(6)
    width = C if ways else INNER
    tensors, layers = make.layers(
        3, "quantizer.quantizers.{}", "codebook", INNER, width, ways=ways, form=form, cosine=False
    )
    for q, layer in enumerate(layers):
        tensors |= make.averaged(f"quantizer.quantizers.{q}", layer.codebook)
    into, around_in = make.map("quantizer.input_proj", INNER, D, form)
    out, around_out = make.map("quantizer.output_proj", D, INNER, form)
    return Case("xy_tokenizer", tensors | into | out, [Chain(layers, around_in, around_out)])


def spectrostream(name="embedding"):
    array = Maker(7).normal(4, K, D)
    return Case("spectrostream", {name: array}, [Chain([Layer(each) for each in array])])


def dualcodec(part):
    make = Maker(8)
    semantic, first = make.layers(
        1, "semantic_vq.quantizers.{}", "codebook.weight", D, size=2 * K, form="old"
    )
    acoustic, rest = make.layers(
        3, "dac.quantizer.quantizers.{}", "codebook.weight", D + 2, form="old"
    )
    network = {"dac.encoder.block.0.weight_v": make.normal(2, 2),
               "convnext_encoder.0.norm.weight": make.normal(2)}  # fmt: skip
    chain = Chain(first if part == "semantic" else rest)
    return Case("dualcodec", semantic | acoustic, [chain], part=part, beside=network)


def onerec():
    make = Maker(9)
    books = [np.float32(0.7**q) * make.normal(K, D) for q in range(3)]
    tensors = {f"centroids.{q}": each for q, each in enumerate(books)}
    return Case("onerec", tensors, [Chain([Layer(each) for each in books])])


def funcodec(*, maps=False):
    make = Maker(10)
    width = C if maps else D
    array = make.normal(3, K, width)
    tensors = {
        "quantizer.rq.model.embed": array,
        "quantizer.rq.model.embed_avg": 3 * array + 1,
        "quantizer.rq.model.cluster_size": np.full((3, K), 2, np.float32),
        "quantizer.rq.model.inited": np.ones((3, 1), np.float32),
    }
    around = [None, None]
    if maps:
        for n, (way, shape) in enumerate((("input_proj", (C, D)), ("output_proj", (D, C)))):
            some, around[n] = make.map(f"quantizer.{way}", *shape)
            tensors |= some
    return Case("funcodec", tensors, [Chain([Layer(each) for each in array], *around)])


def qwen3_tts_25hz():
    array = Maker(11).normal(1, 5 * K, D)
    book = "encoder.audio_quantizer.rvqs.0"
    tensors = {
        f"{book}.embed": array, f"{book}.embed_avg": 3 * array + 1,
        f"{book}.cluster_size": np.ones((1, 5 * K)), f"{book}.inited": np.ones((1, 1)),
    }  # fmt: skip
    network = {"encoder.blocks.0.norm.weight": np.ones(3, np.float32)}
    return Case("qwen3_tts_25hz", tensors, [Chain([Layer(array[0])])], beside=network)


def maskgct(flag=None):
    make = Maker(12)
    tensors, layers = make.layers(
        3, "quantizer.quantizers.{}", "codebook.weight", D, ways=("in_project", "out_project"),
        form="old", cosine=flag is not False,
    )  # fmt: skip
    config = {} if flag is None else {"use_l2_normlize": flag}
    return Case("maskgct", tensors, [Chain(layers)], config)


def nemotron_voicechat():
    make = Maker(13)
    books = [np.float32(0.7**q) * make.normal(K, D) for q in range(3)]
    start = "tts_model.audio_codec.prvq."
    tensors = {f"{start}mus_list.{q}": each for q, each in enumerate(books)}
    tensors |= {f"{start}_variance_list.{q}.variance": np.ones(1) for q in range(3)}
    network = {"tts_model.audio_codec.decoder.layers.0.weight": make.normal(2, 2)}
    return Case(
        "nemotron_voicechat", tensors, [Chain([Layer(each) for each in books])], beside=network
    )


def nemo():
    make = Maker(14)
    tensors, layers = {}, []
    for q in range(3):
        book, codebook = f"vector_quantizer.codebooks.{q}", make.normal(K, D)
        tensors |= {f"{book}.codes": codebook,
                    **make.averaged(book, codebook, "initialized", "codes_avg")}  # fmt: skip
        layers.append(Layer(codebook))
    return Case("nemo", tensors, [Chain(layers)])


def audiodec():
    make = Maker(15)
    tensors, layers = {}, []
    for q in range(3):
        book, codebook = f"quantizer.codebook.layers.{q}", make.normal(K, D)
        tensors |= {
            f"{book}.embed": np.ascontiguousarray(codebook.T),
            f"{book}.embed_avg": 3 * codebook.T,
            f"{book}.cluster_size": np.ones(K),
        }
        layers.append(Layer(codebook))
    return Case("audiodec", tensors, [Chain(layers)])


def wavtokenizer():
    codebook = Maker(16).normal(3 * K, D)
    book = "encoder_model.quantizer.codebook"
    tensors = {f"{book}.embed": codebook, **Maker(17).averaged(book, codebook)}
    network = {"encoder_model.encoder.layers.0.conv.bias": np.ones(2, np.float32)}
    return Case("wavtokenizer", tensors, [Chain([Layer(codebook)])], beside=network)


CASES: dict[str, Callable[[], Case]] = {
    "qwen3_tts, encoder": lambda: qwen3_tts("encoder"),
    "qwen3_tts, encoder without config": lambda: qwen3_tts("encoder", config=False),
    "qwen3_tts, decoder": lambda: qwen3_tts("decoder"),
    "moss_audio, rlfq": lambda: moss_audio("rlfq"),
    "moss_audio, random_prefix_rlfq": lambda: moss_audio("random_prefix_rlfq", form="old"),
    "moss_audio, rvq": lambda: moss_audio("rvq"),
    "moss_audio, spec_rvq": lambda: moss_audio("spec_rvq", nested=False),
    "moss_audio, no maps": lambda: moss_audio("rvq", maps=()),
    "moss_audio, one map": lambda: moss_audio("rlfq", maps=("output_proj",)),
    "higgs_audio": lambda: higgs_audio(original=False),
    "higgs_audio, original": lambda: higgs_audio(original=True),
    "fish_audio": lambda: fish_audio("new"),
    "fish_audio, bare": lambda: fish_audio("old", ""),
    "mimo_audio": mimo_audio,
    "xy_tokenizer": lambda: xy_tokenizer("new"),
    "xy_tokenizer, mapped stages": lambda: xy_tokenizer("old", ways=("in_project", "out_project")),
    "spectrostream": spectrostream,
    "spectrostream, nested": lambda: spectrostream("quantizer.embedding"),
    "dualcodec, semantic": lambda: dualcodec("semantic"),
    "dualcodec, acoustic": lambda: dualcodec("acoustic"),
    "onerec": onerec,
    "funcodec": funcodec,
    "funcodec, mapped": lambda: funcodec(maps=True),
    "qwen3_tts_25hz": qwen3_tts_25hz,
    "maskgct": maskgct,
    "maskgct, cosine": lambda: maskgct(True),
    "maskgct, euclidean": lambda: maskgct(False),
    "nemotron_voicechat": nemotron_voicechat,
    "nemo": nemo,
    "audiodec": audiodec,
    "wavtokenizer": wavtokenizer,
}
REFERENCED = sorted({name.partition(",")[0] for name in CASES})
