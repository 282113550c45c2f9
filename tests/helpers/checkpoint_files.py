"""Checkpoints of every family, written byte by byte without the families' packages."""

import json
import math
import struct

import numpy as np
import pytest

from rvq_np import checkpoints
from rvq_np.errors import CheckpointError, RvqError

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "U8": "u1", "BOOL": "u1"}


K, D, C = 5, 4, 3  # codewords, numbers of a codeword, of a vector


def packed(array, dtype):
    if dtype == "BF16":  # the upper half of a float32; the arrays here have nothing below it
        return (np.asarray(array, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return np.asarray(array).astype(TYPES[dtype]).tobytes()


def assembled(tensors, dtype="F32", change=lambda header: None):
    """Return a safetensors file; a value is an array, or a pair of an array and its type.

    `change` edits the header.
    """
    header, data = {}, b""
    for name, value in tensors.items():
        array, kind = value if isinstance(value, tuple) else (value, dtype)
        content = packed(array, kind)
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": kind, "shape": list(np.shape(array)), "data_offsets": offsets}
        data += content
    change(header)
    return headed(json.dumps(header).encode(), data)


def headed(header, data=b""):
    return struct.pack("<Q", len(header)) + header + data


def write(folder, tensors, name="model.safetensors", **options):
    (folder / name).write_bytes(assembled(tensors, **options))
    return folder / name


def numbers(seed, *shape):
    """Return numbers that even bfloat16 holds: eight bits each."""
    values = np.random.default_rng(seed).integers(1, 256, shape) / 64
    return (values * np.random.default_rng(seed + 1).choice([-1, 1], shape)).astype(np.float32)


def book(prefix, codewords):
    """Return one codebook as EnCodec has it; averages that would give other codewords."""
    return {
        f"{prefix}.inited": np.ones(1),
        f"{prefix}.cluster_size": np.full(len(codewords), 2.0),
        f"{prefix}.embed": codewords,
        f"{prefix}.embed_avg": 3 * codewords + 1,
    }


def stack(pattern, n_q=3, width=D):
    """Return the tensors of a stack of codebooks, and its codewords."""
    codewords = [numbers(10 * stage, K, width) for stage in range(n_q)]
    tensors = {}
    for stage in reversed(range(n_q)):  # files sort names as they like
        tensors |= book(pattern.format(stage), codewords[stage])
    return tensors, [(each, None, None) for each in codewords]


def projected(layers):
    """Return an ESPnet with linear maps: C numbers a codeword, D a vector."""
    tensors, stages = stack(layers + "vq.layers.{}._codebook", width=C)
    for stage in range(len(stages)):
        into, out = (numbers(50 + stage, C, D), numbers(1, C)), (numbers(2, D, C), numbers(3, D))
        layer = f"{layers}vq.layers.{stage}"
        for way, (weight, bias) in (("project_in", into), ("project_out", out)):
            tensors |= {f"{layer}.{way}.weight": weight, f"{layer}.{way}.bias": bias}
        stages[stage] = (stages[stage][0], into, out)
    return tensors, stages


def normed(g, v):
    """Return ``g v / |v|`` a row, by sums that round once."""
    rows = [
        [
            float(scale) * float(each) / math.sqrt(math.fsum(float(n) ** 2 for n in row))
            for each in row
        ]
        for scale, row in zip(g, v, strict=True)
    ]
    return np.float32(rows)


def dac(form, prefix="quantizer.", n_q=3):
    """Return a DAC with its weights in one of three forms."""
    tensors, stages = {}, []
    for stage in range(n_q):
        codewords, maps = numbers(20 * stage, K, C), []
        name = f"{prefix}quantizers.{stage}"
        for way, (outputs, inputs) in (("in_proj", (C, D)), ("out_proj", (D, C))):
            g, v = numbers(stage, outputs), numbers(7 + stage, outputs, inputs)
            bias = numbers(30 + stage, outputs)
            at = f"{name}.{way}"
            if form == "plain":
                weight = v
                tensors[f"{at}.weight"] = v[:, :, None]
            else:
                weight = normed(g, v)
                scale, direction = {
                    "old": ("weight_g", "weight_v"),
                    "new": (
                        "parametrizations.weight.original0",
                        "parametrizations.weight.original1",
                    ),
                }[form]
                tensors[f"{at}.{scale}"] = g[:, None, None]
                tensors[f"{at}.{direction}"] = v[:, :, None]
            tensors[f"{at}.bias"] = bias
            maps.append((weight, bias))
        tensors[f"{name}.codebook.weight"] = codewords
        stages.append((codewords, *maps))
    return tensors, stages


def residual_vq(prefix=""):
    tensors, stages = {}, []
    for stage in range(3):
        codewords = numbers(40 * stage, K, D)
        name = f"{prefix}layers.{stage}._codebook"
        tensors |= {
            f"{name}.initted": (np.array(True), "BOOL"),
            f"{name}.cluster_size": np.ones((1, K)),
            f"{name}.embed": codewords[None],
            f"{name}.embed_avg": 3 * codewords[None] + 1,
        }
        stages.append((codewords, None, None))
    return tensors, stages


def mimi(first, rest, pattern, names, prefix="quantizer."):
    """Return a Mimi of one and two stages, its stages, and the maps around each stack."""
    flag, usage, sums = names
    tensors, stages, maps = {}, [], []
    for stack, (part, n_q) in enumerate(((first, 1), (rest, 2))):
        for stage in range(n_q):
            codewords, count = numbers(60 * stack + stage, K, D), np.float32([1, 2, 4, 0.5, 1e-6])
            name = f"{prefix}{part}.{pattern.format(stage)}"
            tensors[f"{name}.{flag}"] = np.ones(1)
            tensors[f"{name}.{usage}"] = count
            tensors[f"{name}.{sums}"] = codewords
            least = np.maximum(count.astype(np.float64), 1e-5)
            stages.append((np.float32(codewords / least[:, None]), None, None))
        weights = numbers(5 + stack, D, C), numbers(8 + stack, C, D)
        for way, weight in zip(("input_proj", "output_proj"), weights, strict=True):
            tensors[f"{prefix}{part}.{way}.weight"] = weight[:, :, None]
        maps.append(weights)
    return tensors, stages, maps


KYUTAI = ("rvq_first", "rvq_rest", "vq.layers.{}._codebook",
          ("_initialized", "cluster_usage", "embedding_sum"))  # fmt: skip


MIMI_BEFORE = (*KYUTAI[:3], ("inited", "cluster_size", "embed_avg"))


MIMI_PORT = ("semantic_residual_vector_quantizer", "acoustic_residual_vector_quantizer",
             "layers.{}.codebook", ("initialized", "cluster_usage", "embed_sum"))  # fmt: skip


def hificodec(prefix):
    """Return two stacks for halves of the channels, and their stages as stages take turns."""
    lower, first = stack(prefix + "quantizer0.vq.layers.{}._codebook")
    upper, second = stack(prefix + "quantizer1.vq.layers.{}._codebook")
    second = [(codewords + 1, None, None) for codewords, _, _ in second]
    upper |= {name: value + 1 for name, value in upper.items() if name.endswith(".embed")}
    return {**upper, **lower}, [each for pair in zip(first, second, strict=True) for each in pair]


def grouped_residual_vq(prefix=""):
    (one, first), (two, second) = (residual_vq(f"{prefix}rvqs.{group}.") for group in (0, 1))
    two |= {name: value + 1 for name, value in two.items() if name.endswith(".embed")}
    second = [(codewords + 1, None, None) for codewords, _, _ in second]
    return {**two, **one}, [each for pair in zip(first, second, strict=True) for each in pair]


ORIGINAL, PORT = "quantizer.vq.layers.{}._codebook", "quantizer.layers.{}.codebook"


WHOLE = "codec.generator.quantizer."


def speechtokenizer():
    tensors, stages = stack(ORIGINAL)
    return {
        **tensors,
        "transform.weight": numbers(1, 6, D),
        "transform.bias": numbers(1, 6),
    }, stages


FORMS = {
    "espnet, whole": ("espnet", lambda: stack(WHOLE + "vq.layers.{}._codebook")),
    "espnet, whole, projected": ("espnet", lambda: projected(WHOLE)),
    "espnet, bare, projected": ("espnet", lambda: projected("")),
    # Nothing tells it from EnCodec, and nothing has to.
    "espnet, bare": ("encodec", lambda: stack("vq.layers.{}._codebook")),
    "encodec, original": ("encodec", lambda: stack(ORIGINAL)),
    "encodec, port": ("encodec", lambda: stack(PORT)),
    "encodec, port, bare": ("encodec", lambda: stack("layers.{}.codebook")),
    "encodec, twelve stages": ("encodec", lambda: stack(ORIGINAL, 12)),
    "speechtokenizer": ("speechtokenizer", speechtokenizer),
    "xcodec": ("xcodec", lambda: stack("quantizer.quantizers.{}.codebook")),
    "dac, plain": ("dac", lambda: dac("plain")),
    "dac, weight_g": ("dac", lambda: dac("old")),
    "dac, parametrizations": ("dac", lambda: dac("new")),
    "dac, bare": ("dac", lambda: dac("old", "")),
    "residual_vq": ("vector_quantize_pytorch", residual_vq),
    "residual_vq, nested": ("vector_quantize_pytorch", lambda: residual_vq("model.rvq.")),
    "residual_vq, grouped": ("vector_quantize_pytorch", grouped_residual_vq),
    "residual_vq, grouped, nested": (
        "vector_quantize_pytorch", lambda: grouped_residual_vq("model.")
    ),
    "hificodec, whole": ("espnet", lambda: hificodec(WHOLE)),
    "hificodec, bare": ("espnet", lambda: hificodec("")),
    "mimi, kyutai": ("mimi", lambda: mimi(*KYUTAI)[:2]),
    "mimi, kyutai, bare": ("mimi", lambda: mimi(*KYUTAI, prefix="")[:2]),
    "mimi, kyutai, before": ("mimi", lambda: mimi(*MIMI_BEFORE)[:2]),
    "mimi, port": ("mimi", lambda: mimi(*MIMI_PORT)[:2]),
}  # fmt: skip


forms = pytest.mark.parametrize("form", FORMS)


def assert_holds(codebooks, stages, metric="euclidean", ulps=0):
    assert codebooks.n_q == len(stages)
    for mine, (codewords, into, out) in zip(codebooks, stages, strict=True):
        assert mine.metric == metric
        np.testing.assert_array_equal(mine.codebook, codewords)
        assert (mine.project_in is None) == (into is None)
        for linear, expected in ((mine.project_in, into), (mine.project_out, out)):
            if expected is not None:
                np.testing.assert_array_max_ulp(linear.weight, expected[0], ulps)
                np.testing.assert_array_equal(linear.bias, expected[1])


# What is no checkpoint.


def refused(path, message, family=None, tensor="", file=None):
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoints.load(path, family)
    assert isinstance(caught.value, (RvqError, ValueError))
    assert (file or path.name) in str(caught.value)
    assert tensor in str(caught.value)


EMBED = "vq.layers.0._codebook.embed"


def load_or_refuse(factory, content):
    path = factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(content)
    for family in (None, "encodec", "dac"):
        try:
            codebooks = checkpoints.load(path, family)
        except CheckpointError as error:
            message = str(error)
        else:
            message = (
                path.name if all(np.isfinite(each.codebook).all() for each in codebooks) else ""
            )
        assert path.name in message
