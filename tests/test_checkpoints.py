"""Checkpoints of published models: files written here byte by byte, golden ones of the packages.

Nothing of the code under test writes a file or works out what is expected of it.
"""

import functools
import json
import math
import os
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import paths
import pytest
import regret
from hypothesis import example, given
from hypothesis import strategies as st

import rvq_np
from rvq_np import checkpoints
from rvq_np.composed import Grouped, Parallel, Projected
from rvq_np.errors import CheckpointError, ParameterError, RvqError

GOLDEN = Path(__file__).parent / "data" / "checkpoints"
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "U8": "u1", "BOOL": "u1"}
K, D, C = 5, 4, 3  # words, numbers of a word, of a vector


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


def book(prefix, words):
    """Return one codebook as EnCodec has it; averages that would give other words."""
    return {
        f"{prefix}.inited": np.ones(1),
        f"{prefix}.cluster_size": np.full(len(words), 2.0),
        f"{prefix}.embed": words,
        f"{prefix}.embed_avg": 3 * words + 1,
    }


def stack(pattern, n_q=3, width=D):
    """Return the tensors of a stack of codebooks, and its words."""
    words = [numbers(10 * level, K, width) for level in range(n_q)]
    tensors = {}
    for level in reversed(range(n_q)):  # files sort names as they like
        tensors |= book(pattern.format(level), words[level])
    return tensors, [(each, None, None) for each in words]


def projected(layers):
    """Return an ESPnet with linear maps: C numbers a word, D a vector."""
    tensors, stages = stack(layers + "vq.layers.{}._codebook", width=C)
    for level in range(len(stages)):
        into, out = (numbers(50 + level, C, D), numbers(1, C)), (numbers(2, D, C), numbers(3, D))
        layer = f"{layers}vq.layers.{level}"
        for way, (weight, bias) in (("project_in", into), ("project_out", out)):
            tensors |= {f"{layer}.{way}.weight": weight, f"{layer}.{way}.bias": bias}
        stages[level] = (stages[level][0], into, out)
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
    for level in range(n_q):
        words, maps = numbers(20 * level, K, C), []
        name = f"{prefix}quantizers.{level}"
        for way, (outputs, inputs) in (("in_proj", (C, D)), ("out_proj", (D, C))):
            g, v = numbers(level, outputs), numbers(7 + level, outputs, inputs)
            bias = numbers(30 + level, outputs)
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
        tensors[f"{name}.codebook.weight"] = words
        stages.append((words, *maps))
    return tensors, stages


def residual_vq(prefix=""):
    tensors, stages = {}, []
    for level in range(3):
        words = numbers(40 * level, K, D)
        name = f"{prefix}layers.{level}._codebook"
        tensors |= {
            f"{name}.initted": (np.array(True), "BOOL"),
            f"{name}.cluster_size": np.ones((1, K)),
            f"{name}.embed": words[None],
            f"{name}.embed_avg": 3 * words[None] + 1,
        }
        stages.append((words, None, None))
    return tensors, stages


def mimi(first, rest, pattern, names, prefix="quantizer."):
    """Return a Mimi of one and two levels, its stages, and the maps around each stack."""
    flag, usage, sums = names
    tensors, stages, maps = {}, [], []
    for stack, (part, n_q) in enumerate(((first, 1), (rest, 2))):
        for level in range(n_q):
            words, count = numbers(60 * stack + level, K, D), np.float32([1, 2, 4, 0.5, 1e-6])
            name = f"{prefix}{part}.{pattern.format(level)}"
            tensors[f"{name}.{flag}"] = np.ones(1)
            tensors[f"{name}.{usage}"] = count
            tensors[f"{name}.{sums}"] = words
            least = np.maximum(count.astype(np.float64), 1e-5)
            stages.append((np.float32(words / least[:, None]), None, None))
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
    """Return two stacks for halves of the channels, and their stages as levels take turns."""
    lower, first = stack(prefix + "quantizer0.vq.layers.{}._codebook")
    upper, second = stack(prefix + "quantizer1.vq.layers.{}._codebook")
    second = [(words + 1, None, None) for words, _, _ in second]
    upper |= {name: value + 1 for name, value in upper.items() if name.endswith(".embed")}
    return {**upper, **lower}, [each for pair in zip(first, second, strict=True) for each in pair]


def grouped_residual_vq(prefix=""):
    (one, first), (two, second) = (residual_vq(f"{prefix}rvqs.{group}.") for group in (0, 1))
    two |= {name: value + 1 for name, value in two.items() if name.endswith(".embed")}
    second = [(words + 1, None, None) for words, _, _ in second]
    return {**two, **one}, [each for pair in zip(first, second, strict=True) for each in pair]


REST = "quantizer.rvq_rest."
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
    "encodec, twelve levels": ("encodec", lambda: stack(ORIGINAL, 12)),
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
    for mine, (words, into, out) in zip(codebooks, stages, strict=True):
        assert mine.metric == metric
        np.testing.assert_array_equal(mine.words, words)
        assert (mine.project_in is None) == (into is None)
        for linear, wanted in ((mine.project_in, into), (mine.project_out, out)):
            if wanted is not None:
                np.testing.assert_array_max_ulp(linear.weight, wanted[0], ulps)
                np.testing.assert_array_equal(linear.bias, wanted[1])


@forms
def test_every_form_of_every_family_is_recognised_and_read(form, tmp_path):
    family, make = FORMS[form]
    tensors, stages = make()
    found, codebooks = checkpoints.load_as(write(tmp_path, tensors))
    assert found == family
    # A weight norm may be off by the roundings of float64, which may tip that to float32.
    assert_holds(codebooks, stages, "cosine" if family == "dac" else "euclidean", ulps=1)
    assert codebooks.dtype == np.float32
    assert checkpoints.load(tmp_path / "model.safetensors", family).fingerprint == (
        codebooks.fingerprint
    )


@forms
def test_other_tensors_and_metadata_do_not_matter(form, tmp_path):
    _, make = FORMS[form]
    tensors, _ = make()
    wanted = checkpoints.load(write(tmp_path, tensors)).fingerprint
    others = {
        "encoder.layers.0.conv.weight": numbers(3, 2, 2),
        "decoder.model.1.conv.conv.weight_g": numbers(4, 2),
        "step": (np.array(7), "I64"),
        "nothing": np.ones((0, 3)),
    }

    def described(header):
        header["__metadata__"] = {"format": "pt"}

    path = write(tmp_path, {**others, **tensors}, change=described)
    assert checkpoints.load(path).fingerprint == wanted


@pytest.mark.parametrize("form", ["espnet, whole, projected", "dac, weight_g", "residual_vq"])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64"])
def test_other_float_types_are_read_exactly(form, dtype, tmp_path):
    family, make = FORMS[form]
    tensors, stages = make()
    codebooks = checkpoints.load(write(tmp_path, tensors, dtype=dtype))
    if dtype == "F64" and family == "dac":  # weights then are as well, so that none is equal
        stages = [(words, None, None) for words, _, _ in stages]
        codebooks = [rvq_np.codebooks.Stage(each.words, metric=each.metric) for each in codebooks]
        codebooks = rvq_np.Codebooks(codebooks)
    assert_holds(codebooks, stages, "cosine" if family == "dac" else "euclidean", ulps=1)
    assert codebooks.dtype == (np.float64 if dtype == "F64" else np.float32)


def test_float64_is_not_rounded(tmp_path):
    tensors, _ = dac("plain", n_q=1)
    tensors = {name: value.astype(np.float64) + 1e-12 for name, value in tensors.items()}
    stage = checkpoints.load(write(tmp_path, tensors, dtype="F64")).stages[0]
    np.testing.assert_array_equal(stage.words, tensors["quantizer.quantizers.0.codebook.weight"])
    weight = tensors["quantizer.quantizers.0.in_proj.weight"][:, :, 0]
    np.testing.assert_array_equal(stage.project_in.weight, weight)
    np.testing.assert_array_equal(
        stage.project_in.bias, tensors["quantizer.quantizers.0.in_proj.bias"]
    )


def test_bfloat16_keeps_the_whole_range(tmp_path):
    words = np.float32([[2.0**127, -(2.0**-126)], [2.0**-133, -0.0]])  # normal, and below that
    path = write(tmp_path, {EMBED: words}, dtype="BF16")
    assert checkpoints.load(path).stages[0].words.tobytes() == words.tobytes()


def test_a_projection_without_bias_has_a_bias_of_zero(tmp_path):
    tensors, _ = projected("")
    tensors = {name: value for name, value in tensors.items() if not name.endswith(".bias")}
    stage = checkpoints.load(write(tmp_path, tensors)).stages[0]
    np.testing.assert_array_equal(stage.project_in.bias, np.zeros(C))


def test_a_direction_of_zero_in_a_weight_norm_gives_zero(tmp_path):
    tensors, _ = dac("old", n_q=1)
    tensors["quantizer.quantizers.0.in_proj.weight_v"][1] = 0
    weight = checkpoints.load(write(tmp_path, tensors)).stages[0].project_in.weight
    np.testing.assert_array_equal(weight[1], np.zeros(D))
    assert weight[0].any()


def test_levels_may_differ_in_size(tmp_path):
    tensors = {
        **book("vq.layers.0._codebook", numbers(1, 7, D)),
        **book("vq.layers.1._codebook", numbers(2, 3, D)),
    }
    assert checkpoints.load(write(tmp_path, tensors)).sizes == (7, 3)


@pytest.mark.parametrize(("told", "metric"), [(True, "cosine"), (False, "euclidean")])
def test_the_config_tells_a_cosine_residual_vq(told, metric, tmp_path):
    tensors, stages = residual_vq()
    path = write(tmp_path, tensors)
    (tmp_path / "config.json").write_text(json.dumps({"use_cosine_sim": told}))
    assert_holds(checkpoints.load(path), stages, metric)
    assert_holds(checkpoints.load(tmp_path), stages, metric)


@pytest.mark.parametrize("form", ["plain", "old", "new"])
@pytest.mark.parametrize("strides", [[4, 2, 1], [1, 1, 1], [6, 3, 2]])
def test_the_config_tells_a_snac_by_its_strides(form, strides, tmp_path):
    tensors, stages = dac(form)
    write(tmp_path, tensors)
    (tmp_path / "config.json").write_text(json.dumps({"vq_strides": strides}))
    family, codebooks = checkpoints.load_as(tmp_path)
    assert family == "snac"
    assert_holds(codebooks, stages, "cosine", ulps=1)
    assert codebooks.strides == tuple(strides)
    assert checkpoints.load(tmp_path, "snac").fingerprint == codebooks.fingerprint
    refused(tmp_path, "is not of family dac", family="dac", tensor="quantizers.0")


@pytest.mark.parametrize(
    "strides",
    [[4, 2], [8, 4, 2, 1], [], None, 4, "421", {"4": 1, "2": 1, "1": 1}, [4, 2, 0], [4, -2, 1],
     [4.0, 2, 1], [4, True, 1], [4, "2", 1], [4, None, 1], [4, [2], 1]],
    ids=str,
)  # fmt: skip
def test_strides_that_do_not_fit_are_refused(strides, tmp_path):
    write(tmp_path, dac("new")[0])
    (tmp_path / "config.json").write_text(json.dumps({"vq_strides": strides}))
    for family in (None, "snac"):
        refused(tmp_path, "has vq_strides|stride is", family=family, tensor="quantizers.")


def many_words():
    """Return a DAC with as many words as a SNAC has."""
    tensors, _ = dac("plain")
    for level in range(3):
        name = f"quantizer.quantizers.{level}.codebook.weight"
        tensors[name] = np.tile(tensors[name][:1], (4096, 1))
    return tensors


def test_without_a_config_what_may_be_a_snac_is_refused(tmp_path):
    write(tmp_path, many_words())
    refused(tmp_path, r"expected vq_strides of its config\.json\. Put", tensor="quantizers.0")
    refused(tmp_path, r"expected vq_strides of its config\.json\. Put", family="snac")
    assert checkpoints.load(tmp_path, "dac").sizes == (4096,) * 3
    (tmp_path / "config.json").write_text('{"sampling_rate": 44100}')
    assert checkpoints.load_as(tmp_path)[0] == "dac"
    refused(tmp_path, "vq_strides of its config.json", family="snac")


def test_an_audiocraft_is_an_encodec_unless_asked_for(tmp_path):
    tensors, stages = stack(ORIGINAL)
    path = write(tmp_path, tensors)
    assert checkpoints.load_as(path)[0] == "encodec"
    family, codebooks = checkpoints.load_as(path, "audiocraft")
    assert family == "audiocraft"
    assert_holds(codebooks, stages)


# How several stacks are put together.


def assert_maps(quantizer, into, out, biases=(None, None)):
    assert type(quantizer) is Projected
    maps = (quantizer.project_in, quantizer.project_out)
    for linear, weight, bias in zip(maps, (into, out), biases, strict=True):
        np.testing.assert_array_equal(linear.weight, weight)
        np.testing.assert_array_equal(linear.bias, np.zeros(len(weight)) if bias is None else bias)


@pytest.mark.parametrize("names", [KYUTAI, MIMI_BEFORE, MIMI_PORT])
def test_the_stacks_of_a_mimi_are_side_by_side_each_between_its_maps(names, tmp_path):
    tensors, _, maps = mimi(*names)
    quantizer = checkpoints.load(write(tmp_path, tensors))
    assert type(quantizer) is Parallel
    assert quantizer.order == (0, 1, 1)
    for part, weights in zip(quantizer.parts, maps, strict=True):
        assert_maps(part, *weights)
    bare = {name: value for name, value in tensors.items() if "put_proj" not in name}
    parts = checkpoints.load(write(tmp_path, bare)).parts
    assert [type(part) for part in parts] == [rvq_np.Codebooks] * 2
    assert [part.n_q for part in parts] == [1, 2]


def test_the_words_of_a_mimi_are_divided_in_float32_whatever_the_file(tmp_path):
    tensors, _, _ = mimi(*KYUTAI)
    for dtype in ("F16", "BF16"):
        tensors |= {
            name: np.float32([1, 3, 5, 0.5, 0]) for name in tensors if name.endswith("usage")
        }
        codebooks = checkpoints.load(write(tmp_path, tensors, dtype=dtype))
        assert codebooks.dtype == np.float32
        for level, stage in enumerate(codebooks):
            sums = numbers(60 * min(level, 1) + max(level - 1, 0), K, D)
            least = np.float32([1, 3, 5, 0.5, 1e-5])[:, None]
            np.testing.assert_array_equal(stage.words, sums / least)


@pytest.mark.parametrize("form", ["hificodec, whole", "hificodec, bare", "residual_vq, grouped"])
def test_groups_are_neighbouring_channels_and_take_turns(form, tmp_path):
    tensors, stages = FORMS[form][1]()
    quantizer = checkpoints.load(write(tmp_path, tensors))
    assert type(quantizer) is Grouped
    assert quantizer.dim == 2 * D
    assert quantizer.order == (0, 1) * 3
    for group, part in enumerate(quantizer.parts):
        assert_holds(part, stages[group::2])


@pytest.mark.parametrize("prefix", ["", "rvq.", "rvqs.0.", "model.rvqs.0."])
def test_a_residual_vq_may_have_maps_around_it(prefix, tmp_path):
    tensors, stages = residual_vq(prefix)
    maps = numbers(5, D, C), numbers(6, C, D)
    biases = numbers(7, D), numbers(8, C)
    for way, weight, bias in zip(("project_in", "project_out"), maps, biases, strict=True):
        tensors |= {f"{prefix}{way}.weight": weight, f"{prefix}{way}.bias": bias}
    quantizer = checkpoints.load(write(tmp_path, tensors))
    if "rvqs" in prefix:
        (quantizer,) = quantizer.parts
    assert_maps(quantizer, *maps, biases)
    assert_holds(quantizer.parts[0], stages)
    del tensors[f"{prefix}project_in.weight"]
    refused(write(tmp_path, tensors), "has no weight of", tensor=f"{prefix}project_in")


@pytest.mark.parametrize("cosine", [True, False])
def test_a_codebook_that_all_levels_share_is_one_stage(cosine, tmp_path):
    tensors, _ = residual_vq()
    tensors |= {name: numbers(1, 1, K, D) for name in tensors if name.endswith(".embed")}
    (tmp_path / "config.json").write_text(json.dumps({"use_cosine_sim": cosine}))
    first, *others = checkpoints.load(write(tmp_path, tensors)).stages
    assert first.metric == ("cosine" if cosine else "euclidean")
    assert [each is first for each in others] == [True, True]
    last = "layers.2._codebook.embed"
    other = np.concatenate([tensors[last][:, :-1], tensors[last][:, -1:] + 1], axis=1)
    stages = checkpoints.load(write(tmp_path, {**tensors, last: other})).stages
    np.testing.assert_array_equal(stages[2].words, other[0])


# Directories and shards.


def sharded(folder, parts, index="model.safetensors.index.json"):
    places = {}
    for number, tensors in enumerate(parts):
        name = f"model-{number}.safetensors"
        write(folder, tensors, name)
        places |= dict.fromkeys(tensors, name)
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder / index


def halves():
    """Return the tensors of an EnCodec in two parts, a level torn apart, and all of them."""
    tensors, stages = stack(ORIGINAL)
    names = sorted(tensors)
    return [{each: tensors[each] for each in names[start::2]} for start in (0, 1)], stages


def test_shards_are_one_checkpoint(tmp_path):
    parts, stages = halves()
    index = sharded(tmp_path, parts)
    write(tmp_path, {"other": np.ones(3)}, "unrelated.safetensors")
    assert_holds(checkpoints.load(index), stages)
    assert_holds(checkpoints.load(tmp_path), stages)


def test_a_directory_with_one_file_of_any_name(tmp_path):
    tensors, stages = stack(ORIGINAL)
    write(tmp_path, tensors, "encodec.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    (tmp_path / "config.json").write_text("{}")
    assert_holds(checkpoints.load(tmp_path), stages)
    assert_holds(checkpoints.load(str(tmp_path / "encodec.safetensors")), stages)


def test_a_directory_with_several_files_wants_a_name(tmp_path):
    tensors, stages = stack(ORIGINAL)
    write(tmp_path, tensors, "a.safetensors")
    write(tmp_path, {"x": np.ones(2)}, "b.safetensors")
    refused(tmp_path, "has 2 files .*Pass the path of the file")
    write(tmp_path, tensors)
    assert_holds(checkpoints.load(tmp_path), stages)


def test_a_directory_without_weights_names_the_pickles_in_it(tmp_path):
    refused(tmp_path, "has 0 files")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    refused(tmp_path, r"not opened: \['pytorch_model.bin'\]")


@pytest.mark.parametrize(
    "name",
    ["../model-0.safetensors", "/etc/passwd", "sub/model-0.safetensors", "..", ".", "", "sub",
     "missing.safetensors", "a\0b", "x" * 400, "..\\model-0.safetensors", "\ud800"],
)  # fmt: skip
def test_a_shard_is_a_file_beside_the_index(name, tmp_path):
    folder = tmp_path / "inner"
    (folder / "sub").mkdir(parents=True)
    parts, _ = halves()
    index = sharded(folder, parts)
    for place in (tmp_path, folder / "sub"):
        write(place, parts[0], "model-0.safetensors")
    told = json.loads(index.read_text())
    told["weight_map"][min(parts[0])] = name
    index.write_text(json.dumps(told))
    refused(index, "names the shard .*; expected a file beside it")


@pytest.mark.parametrize("content", ['{"weight_map": []}', "{}", '{"weight_map": "a"}'])
def test_an_index_wants_a_map(content, tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    refused(path, "has no 'weight_map'")


@pytest.mark.parametrize("content", ["", "[]", "{", '"a"', "\xff", "[" * 100000])
@pytest.mark.parametrize("name", ["model.safetensors.index.json", "config.json"])
def test_json_beside_the_weights_that_is_none_is_refused(content, name, tmp_path):
    tensors, _ = stack(ORIGINAL)
    write(tmp_path, tensors)
    (tmp_path / name).write_text(content, encoding="latin-1")
    refused(tmp_path, "is not valid JSON|JSON that is not an object", file=name)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    parts, _ = halves()
    name = min(parts[1])
    refused(sharded(tmp_path, [{**parts[0], name: parts[1][name]}, parts[1]]), name, file="model-0")


def test_a_tensor_that_the_index_has_and_no_shard_is_refused(tmp_path):
    """Or a checkpoint that lost its last shard would be one with fewer levels."""
    tensors, _ = stack(ORIGINAL)
    last = ORIGINAL.format(2) + ".embed"
    index = sharded(tmp_path, [tensors])
    write(tmp_path, {k: v for k, v in tensors.items() if k != last}, "model-0.safetensors")
    refused(index, "no shard has", tensor=last)


# What is no checkpoint.


def refused(path, message, family=None, tensor="", file=None):
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoints.load(path, family)
    assert isinstance(caught.value, (RvqError, ValueError))
    assert (file or path.name) in str(caught.value)
    assert tensor in str(caught.value)


def test_no_file_is_the_builtin_error(tmp_path):
    for name in ("nothing.safetensors", "nothing", "nothing.pth", "a\0b"):
        with pytest.raises(FileNotFoundError, match="there is no file or directory"):
            checkpoints.load(tmp_path / name)


def test_a_family_that_is_none_is_a_parameter_error(tmp_path):
    with pytest.raises(
        ParameterError, match="family is 'wavenet'; expected one of audiocraft, dac, "
    ):
        checkpoints.load(tmp_path / "whatever", "wavenet")
    assert checkpoints.families() == sorted(
        {family for family, _ in FORMS.values()} | {"audiocraft", "faiss", "rvq_np", "snac"}
    )


@forms
def test_a_family_it_is_not_of_is_refused(form, tmp_path):
    family, make = FORMS[form]
    path = write(tmp_path, make()[0])
    alike = {family}
    if family in ("encodec", "espnet", "speechtokenizer") and "port" not in form:
        alike = {"audiocraft", "encodec", "espnet", "speechtokenizer"}  # the names are the same
    if "hificodec" in form:
        alike = {family}
    for other in set(checkpoints.families()) - alike:
        refused(
            path, "expected one|is not |has no tensor|vq_strides of|format of rvq_np", family=other
        )


def test_unknown_tensors_are_of_no_family_and_all_are_named(tmp_path):
    names = ["lstm.weight", "q.codebook.0.embed_sum", "zz.bias", "a.bias", "b.bias"]
    path = write(tmp_path, {name: np.ones(2) for name in names})
    refused(path, "5 tensors, such as 'q.codebook.0.embed_sum', 'a.bias'")
    refused(path, ", ".join(checkpoints.families()))
    refused(path, "is not of family dac|has 0 quantizers", family="dac")


def test_a_file_without_tensors(tmp_path):
    refused(write(tmp_path, {}), "0 tensors, such as none")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".bin", ".ckpt", ".pkl"])
def test_a_pickle_is_refused_unread_with_the_code_that_converts_it(suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"\x80\x04\x95never")
    refused(path, "is a pickle, which can run code")
    refused(path, "is a pickle", family="encodec")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path)
    code = re.sub("^    ", "", str(caught.value).partition("\n")[2], flags=re.MULTILINE)
    compile(code, "conversion", "exec")
    assert f"torch.load('weights{suffix}', map_location='cpu', weights_only=True)" in code


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04" + bytes(300), b"\x80\x04pickle" * 30, b"\xff" * 64, b"\x89HDF\r\n\x1a\n" * 9,
     b"", b"{}", bytes(7)],
)  # fmt: skip
def test_what_is_no_safetensors_is_refused(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused(path, "truncated, or not a safetensors file|is not valid JSON")


@functools.cache
def small():
    """Return a small valid file: two levels of three words of two numbers."""
    tensors = {
        **book("vq.layers.0._codebook", numbers(1, 3, 2)),
        **book("vq.layers.1._codebook", numbers(2, 3, 2)),
    }
    return assembled(tensors)


def test_truncated_anywhere_it_is_refused(tmp_path):
    path = tmp_path / "cut.safetensors"
    for length in range(len(small())):
        path.write_bytes(small()[:length])
        refused(path, "truncated, or not a safetensors file|bytes of data|is not valid JSON")
    path.write_bytes(small())
    checkpoints.load(path)


@pytest.mark.parametrize("claim", [3, 100, 1 << 20, 1 << 40, 1 << 63, (1 << 64) - 1])
def test_a_header_longer_than_the_file_costs_nothing(claim, tmp_path):
    path = tmp_path / "claim.safetensors"
    path.write_bytes(struct.pack("<Q", claim) + b"{}")
    with paths.traced_memory() as peak:
        refused(path, f"bytes, but a header of {claim} bytes:")
    assert peak[0] < 1 << 20


def test_a_huge_header_is_not_read_even_if_the_file_is_as_large(tmp_path):
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", 200 << 20))
    os.truncate(path, 300 << 20)  # sparse: takes no room
    with paths.traced_memory() as peak:
        refused(path, "but a header of")
    assert peak[0] < 1 << 20


EMBED = "vq.layers.0._codebook.embed"
_SHAPED = {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_offsets": [0, 23]}, "at bytes 0 to 23; expected 24 bytes within the 24 bytes"),
        ({"data_offsets": [24, 0]}, "at bytes 24 to 0; expected 24 bytes within the 24 bytes"),
        ({"data_offsets": [1 << 40, (1 << 40) + 24]}, "expected 24 bytes within the 24 bytes"),
        ({"data_offsets": [10**30, 10**30 + 24]}, "expected 24 bytes within the 24 bytes"),
        ({"data_offsets": [-24, 0]}, "expected a known dtype"),
        ({"data_offsets": [0, 24, 48]}, "expected a known dtype"),
        ({"data_offsets": []}, "expected a known dtype"),
        ({"data_offsets": 24}, "expected a known dtype"),
        ({"data_offsets": None}, "expected a known dtype"),
        ({"data_offsets": "ab"}, "expected a known dtype"),
        ({"data_offsets": ["0", "24"]}, "expected a known dtype"),
        ({"data_offsets": [0.0, 24.0]}, "expected a known dtype"),
        ({"data_offsets": [float("nan"), 24]}, "expected a known dtype"),
        ({"data_offsets": [False, 24]}, "expected a known dtype"),
        ({"data_offsets": {"a": 0, "b": 24}}, "expected a known dtype"),
        ({"shape": [3, -2]}, "expected a known dtype"),
        ({"shape": [-3, -2]}, "expected a known dtype"),
        ({"shape": [3.0, 2]}, "expected a known dtype"),
        ({"shape": [6.0], "data_offsets": [1, 0]}, "expected a known dtype"),
        ({"shape": [True, 6]}, "expected a known dtype"),
        ({"shape": "32"}, "expected a known dtype"),
        ({"shape": None}, "expected a known dtype"),
        ({"shape": 6}, "expected a known dtype"),
        ({"shape": [[3, 2]]}, "expected a known dtype"),
        ({"shape": [10**40, 10**40]}, r"expected 40{80} bytes within the 24 bytes"),
        ({"shape": [1] * 65 + [3, 2]}, "expected a known dtype"),
        ({"shape": [1] * 62 + [3, 2]}, "shape"),
        ({"shape": [0, 2], "data_offsets": [0, 0]}, "is empty"),
        ({"shape": [0, 10**30], "data_offsets": [0, 0]}, "is empty"),
        ({"dtype": "F33"}, "expected a known dtype"),
        ({"dtype": "f32"}, "expected a known dtype"),
        ({"dtype": ["F32"]}, "expected a known dtype"),
        ({"dtype": None}, "expected a known dtype"),
        ({"dtype": "I32"}, "has type I32; expected floats"),
        ({"dtype": "F8_E4M3", "shape": [24]}, "has type F8_E4M3; expected floats"),
    ],
    ids=str,
)
def test_a_tensor_that_cannot_be_is_refused_by_name(changes, message, tmp_path):
    def change(header):
        header[EMBED] = {**header[EMBED], **changes}

    path = write(tmp_path, {EMBED: numbers(1, 3, 2)}, change=change)
    refused(path, message, tensor=EMBED.removesuffix(".embed"))


@pytest.mark.parametrize("told", [None, 5, "F32", [], {}, {"dtype": "F32"}, [_SHAPED], True])
def test_a_header_that_is_none_is_refused_by_name(told, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(headed(json.dumps({EMBED: told}).encode(), bytes(24)))
    refused(path, "expected a known dtype, shape and data_offsets", tensor=EMBED)


def test_tensors_that_overlap_are_refused(tmp_path):
    def change(header):
        header["b"]["data_offsets"] = [20, 44]

    words = numbers(1, 3, 2)
    path = write(tmp_path, {EMBED: words, "b": words, "c": words}, change=change)
    refused(path, f"'b' overlaps '{EMBED}'")


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"[]", b"null", b"3", b'{"a": 1', b"{'a': 1}", b"\xff\xfe", b"[" * 200000,
     b'{"a": ' * 100000, b'{"vq": ' + b"9" * 5000 + b"}"],
    ids=lambda header: str(header[:9]),
)  # fmt: skip
def test_a_header_that_is_no_json_object_is_refused(header, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(headed(header, bytes(24)))
    refused(path, "is not valid JSON|holds JSON that is not an object")


# Checkpoints that are whole, but no quantizers.


@pytest.mark.parametrize(
    ("names", "nearest", "missing"),
    [
        (["encoder.weight", "model.vq.layers.0._code_book.embed"], "encodec",
         "'vq.layers.0._codebook.embed'"),
        (["quantizers.0.codebook.weight", "quantizers.0.out_proj.bias"], "dac",
         "'quantizers.0.in_proj.bias'"),
        (["q.rvq_rest.vq.layers.0._codebook.embedding_sum"], "mimi",
         "'rvq_first.vq.layers.0._codebook.embedding_sum'"),
        (["quantizers.0.code_book.embed"], "xcodec", "'quantizers.0.codebook.embed'"),
        (["layers.0._codebook.initted"], "vector_quantize_pytorch",
         "'layers.0._codebook.embed'"),
        (["vq.layers.0.project_in.weight"], "espnet", "'vq.layers.0._codebook.embed'"),
        (["transform.weight"], "speechtokenizer", "'vq.layers.0._codebook.embed'"),
    ],
)  # fmt: skip
def test_the_nearest_family_and_what_it_misses_are_told(names, nearest, missing, tmp_path):
    path = write(tmp_path, {name: np.ones((2, 2), np.float32) for name in names})
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path)
    message = str(caught.value)
    assert f"The most similar family is {nearest}; missing: {missing}" in message
    for expected in ("xcodec: quantizers.0.codebook.embed", "dac: quantizers.0.codebook.weight"):
        assert expected in message


@pytest.mark.parametrize("form", ["espnet, whole", "encodec, port", "xcodec", "dac, plain",
                                  "residual_vq", "residual_vq, grouped",
                                  "hificodec, whole"])  # fmt: skip
def test_a_level_that_is_missing_is_told(form, tmp_path):
    tensors, _ = FORMS[form][1]()
    without = {name: value for name, value in tensors.items() if not re.search(r"s\.1\.", name)}
    refused(write(tmp_path, without), r"stages \[0, 2\] have '.*\{\}", tensor="{}")
    first = {name: value for name, value in tensors.items() if not re.search(r"s\.0\.", name)}
    refused(write(tmp_path, first), "of none of the families")
    refused(write(tmp_path, first), "has 0 quantizers", family=FORMS[form][0])


@pytest.mark.parametrize(
    ("form", "gone", "message"),
    [
        ("mimi, kyutai", r"rvq_first.*s\.0\.", "of none of the families"),
        ("mimi, kyutai", r"rvq_rest", "expected semantic and acoustic stages"),
        ("mimi, kyutai", r"rvq_rest.*s\.", "expected semantic and acoustic stages"),
        ("mimi, kyutai", r"rvq_rest.*s\.0\.", r"stages \[1\] have .*rvq_rest"),
        ("mimi, port", "semantic", "of none of the families"),
        ("mimi, port", "acoustic", "expected semantic and acoustic stages"),
        ("mimi, port", r"acoustic.*s\.0\.", r"stages \[1\] have .*acoustic"),
        ("mimi, kyutai", r"rvq_rest.*1.*usage", r"has no tensor .*rvq_rest.*1.*cluster_usage"),
        ("mimi, kyutai", "rvq_rest.output", r"no weight of .*rvq_rest\.output_proj"),
        ("mimi, port", "semantic.*input", r"no weight of .*semantic.*input_proj"),
        ("mimi, port", "semantic.*put_proj", "quantize vectors of lengths"),
        ("hificodec, bare", "quantizer1", "expected two, as a HiFiCodec has"),
        ("hificodec, whole", r"quantizer0.*s\.2\.", r"groups of \[2, 3\] stages"),
        ("residual_vq, grouped", r"rvqs\.1\.layers\.2", r"groups of \[3, 2\] stages"),
        ("residual_vq, grouped", r"rvqs\.1\.layers\.0", r"no tensor 'rvqs\.1\.layers\.0"),
        ("residual_vq, grouped", r"rvqs\.1\.layers\.\d.*embed$", r"rvqs\.1\.layers\.0.*embed"),
        ("residual_vq, grouped", r"rvqs\.1\.layers.*initted", r"rvqs\.1\.layers\.0.*initted"),
        ("hificodec, whole", r"quantizer1.*s\.0\.", r"stages \[1, 2\] have .*quantizer1\."),
    ],
)
def test_a_part_that_is_missing_is_told(form, gone, message, tmp_path):
    tensors, _ = FORMS[form][1]()
    without = {name: value for name, value in tensors.items() if not re.search(gone, name)}
    assert len(without) < len(tensors)
    refused(write(tmp_path, without), message)


def test_a_level_of_an_unlikely_number_is_no_level(tmp_path):
    tensors = {EMBED: numbers(1, 3, 2), "vq.layers.01._codebook.embed": numbers(1, 3, 2)}
    tensors[f"vq.layers.{'9' * 5000}._codebook.embed"] = numbers(1, 3, 2)
    assert checkpoints.load(write(tmp_path, {EMBED: numbers(1, 3, 2)})).n_q == 1
    refused(write(tmp_path, tensors), r"stages \[0, 1\] have|no tensor")


@pytest.mark.parametrize(
    ("form", "name", "shape", "message"),
    [
        ("encodec, original", ORIGINAL.format(1) + ".embed", (K, D + 1), "lengths"),
        ("encodec, original", ORIGINAL.format(1) + ".embed", (K,), "shape"),
        ("encodec, original", ORIGINAL.format(1) + ".embed", (2, K, D), "shape"),
        ("xcodec", "quantizer.quantizers.2.codebook.embed", (K, D - 1), "lengths"),
        ("residual_vq", "layers.0._codebook.embed", (2, K, D), "2 heads"),
        ("residual_vq", "layers.1._codebook.embed", (2, K, D), "shape"),
        ("residual_vq", "layers.1._codebook.embed", (1, K, D + 1), "lengths"),
        ("speechtokenizer", ORIGINAL.format(2) + ".embed", (K, 1), "lengths"),
        ("espnet, bare, projected", "vq.layers.1.project_in.weight", (C, D + 1), "wanted"),
        ("espnet, bare, projected", "vq.layers.1.project_in.bias", (C + 1,), "bias"),
        ("espnet, bare, projected", "vq.layers.1.project_out.weight", (D, C + 1), "wanted"),
        ("dac, plain", "quantizer.quantizers.1.in_proj.weight", (C, D, 3), "expected"),
        ("dac, plain", "quantizer.quantizers.1.in_proj.weight", (C,), "expected"),
        ("dac, plain", "quantizer.quantizers.1.out_proj.bias", (D, 1), "bias"),
        ("dac, plain", "quantizer.quantizers.2.codebook.weight", (K, C + 1), "wanted"),
        ("dac, weight_g", "quantizer.quantizers.1.in_proj.weight_g", (C + 1, 1, 1), "scale"),
        ("dac, weight_g", "quantizer.quantizers.1.in_proj.weight_v", (C, D, 2), "expected"),
        ("dac, weight_g", "quantizer.quantizers.1.in_proj.weight_v", (), "scale"),
        (
            "mimi, kyutai",
            f"{REST}vq.layers.1._codebook.cluster_usage",
            (K + 1,),
            "one count per codeword",
        ),
        (
            "mimi, kyutai",
            f"{REST}vq.layers.1._codebook.cluster_usage",
            (),
            "one count per codeword",
        ),
        (
            "mimi, kyutai",
            f"{REST}vq.layers.1._codebook.cluster_usage",
            (1,),
            "one count per codeword",
        ),
        (
            "mimi, kyutai",
            f"{REST}vq.layers.1._codebook.embedding_sum",
            (K,),
            "one count per codeword",
        ),
        ("mimi, kyutai", f"{REST}vq.layers.1._codebook.embedding_sum", (K, D, 1), "one count per"),
        ("mimi, kyutai", f"{REST}vq.layers.1._codebook.embedding_sum", (K, D + 1), "lengths"),
        ("mimi, kyutai", f"{REST}input_proj.weight", (D, C + 1, 1), "wanted"),
        ("mimi, kyutai", f"{REST}output_proj.weight", (C, D + 1, 1), "wanted"),
        ("hificodec, bare", "quantizer1.vq.layers.1._codebook.embed", (K, D + 1), "lengths"),
        ("residual_vq, grouped", "rvqs.1.layers.0._codebook.embed", (2, K, D), "2 heads"),
    ],
)
def test_shapes_that_do_not_fit_are_told_by_level(form, name, shape, message, tmp_path):
    tensors, _ = FORMS[form][1]()
    assert name in tensors
    path = write(tmp_path, {**tensors, name: numbers(1, *shape)})
    level = "" if message in ("lengths", "2 heads") else re.sub(r"(\.\d+)\..*", r"\1", name)
    refused(
        path,
        message,
        tensor=level.removesuffix(".input_proj.weight").removesuffix(".output_proj.weight"),
    )


@pytest.mark.parametrize(
    ("form", "gone"),
    [
        ("espnet, bare, projected", "vq.layers.1.project_out.weight"),
        ("dac, plain", "quantizer.quantizers.1.in_proj.weight"),
        ("dac, weight_g", "quantizer.quantizers.1.out_proj.weight_g"),
        ("dac, weight_g", "quantizer.quantizers.1.out_proj.weight_v"),
        ("dac, parametrizations",
         "quantizer.quantizers.1.in_proj.parametrizations.weight.original0"),
    ],
)  # fmt: skip
def test_a_tensor_that_is_missing_is_named(form, gone, tmp_path):
    tensors, _ = FORMS[form][1]()
    del tensors[gone]
    level = gone.rpartition("proj")[0]
    refused(write(tmp_path, tensors), "has no (tensor|weight)", tensor=level)


@forms
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_codebook_that_is_not_finite_is_refused(form, value, tmp_path):
    tensors, _ = FORMS[form][1]()
    kinds = "embed|weight|embedding_sum|embed_sum"
    if form == "mimi, kyutai, before":
        kinds = "embed_avg"
    name = next(each for each in tensors if re.search(rf"1\.\w+\.({kinds})$", each))
    tensors[name] = tensors[name].copy()
    tensors[name].flat[3] = value
    refused(write(tmp_path, tensors), "holds NaN or infinity", tensor=name)


def test_a_word_of_a_mimi_that_overflows_is_refused(tmp_path):
    tensors, _ = FORMS["mimi, port"][1]()
    name = f"quantizer.{MIMI_PORT[1]}.layers.1.codebook.embed_sum"
    tensors[name] = np.full((K, D), 1e37)
    refused(write(tmp_path, tensors), "finite numbers", tensor="layers.1.codebook")


@pytest.mark.parametrize(("name", "value"), [("weight_v", 1e200), ("weight_g", 1e308)])
def test_a_weight_norm_that_overflows_is_refused(name, value, tmp_path):
    tensors, _ = dac("old")
    at = f"quantizer.quantizers.1.in_proj.{name}"
    tensors[at] = np.full(tensors[at].shape, value)
    kinds = {each: (array, "F64" if each == at else "F32") for each, array in tensors.items()}
    refused(
        write(tmp_path, kinds), "squares are finite|finite numbers", tensor="quantizers.1.in_proj"
    )


@pytest.mark.parametrize("form", ["espnet, whole", "encodec, port", "speechtokenizer", "xcodec",
                                  "residual_vq", "residual_vq, grouped", "hificodec, whole",
                                  "mimi, kyutai", "mimi, kyutai, before",
                                  "mimi, port"])  # fmt: skip
def test_a_codebook_that_was_never_initialized_is_refused(form, tmp_path):
    tensors, _ = FORMS[form][1]()
    name = next(each for each in tensors if re.search(r"1\.\w+\._?init", each))
    shape, kind = ((), "BOOL") if "residual_vq" in form else ((1,), "F32")
    tensors[name] = (np.zeros(shape), kind)
    refused(write(tmp_path, tensors), "never initialized", tensor=name.rpartition(".")[0])


@pytest.mark.parametrize("form", FORMS)
def test_two_quantizers_in_one_file_are_told(form, tmp_path):
    family, make = FORMS[form]
    tensors, _ = make()
    start = WHOLE if form.startswith(("espnet, whole", "hificodec, whole")) else ""
    twice = {
        f"{start}{part}.{name.removeprefix(start)}": value
        for part in ("one", "two")
        for name, value in tensors.items()
    }
    if family == "speechtokenizer":
        twice["transform.weight"] = tensors["transform.weight"]
    path = write(tmp_path, twice)
    refused(path, "has 2 quantizers", family=family, tensor="one.")
    refused(path, "has 2 quantizers", tensor="two.")


@pytest.mark.parametrize("prefix", ["rvq.", "rvqs.0."])
def test_a_residual_vq_that_is_not_served_is_refused(prefix, tmp_path):
    tensors, _ = residual_vq(prefix)
    path = write(tmp_path, {**tensors, f"{prefix}mlps.0.proj_in.weight": numbers(1, 2, 2)})
    refused(path, "not supported yet", tensor=f"{prefix}mlps")


# What is read.


def test_nothing_but_the_tensors_of_the_quantizer_is_read(tmp_path, monkeypatch):
    """Not a byte of what lies between them: 50 MB, of which no more than the words are held."""
    tensors, stages = stack(ORIGINAL, 2)
    first, second = (
        {name: value for name, value in tensors.items() if f".{level}." in name} for level in (0, 1)
    )
    big = np.zeros(50 << 18, np.float32)
    path = write(tmp_path, {**first, "decoder.weight": big, **second})
    content = path.read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:start])
    spans = []
    builtin = open

    class Watched:
        def __init__(self, *arguments):
            self.file = builtin(*arguments)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def seek(self, place):
            return self.file.seek(place)

        def read(self, size):
            spans.append((self.file.tell(), size))
            return self.file.read(size)

    monkeypatch.setattr(checkpoints._file, "open", Watched, raising=False)
    with paths.traced_memory() as peak:
        codebooks = checkpoints.load(path)
    assert_holds(codebooks, stages)
    assert peak[0] < 2 << 20
    assert spans[:2] == [(0, 8), (8, start - 8)]
    wanted = {
        (start + told["data_offsets"][0], told["data_offsets"][1] - told["data_offsets"][0])
        for name, told in header.items()
        if name.endswith((".embed", ".inited"))
    }
    assert set(spans[2:]) == wanted
    assert len(spans[2:]) == len(wanted)


@given(data=st.data())
def test_a_mutated_file_loads_or_is_a_checkpoint_error(data, tmp_path_factory):
    content = bytearray(small())
    header = 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.one_of(st.integers(0, header - 1), st.integers(0, len(content) - 1)))
        change = data.draw(st.sampled_from(["set", "digit", "insert", "delete", "copy"]))
        if change == "set":
            content[where] = data.draw(st.integers(0, 255))
        elif change == "digit":
            content[where] = data.draw(st.sampled_from(b'0123456789-.eE,:[]{}"'))
        elif change == "insert":
            content[where:where] = data.draw(st.binary(max_size=9))
        elif change == "delete":
            del content[where : where + data.draw(st.integers(1, 9))]
        else:
            other = data.draw(st.integers(0, len(content) - 1))
            content[where : where + 8] = content[other : other + 8]
        if not content:
            break
    load_or_refuse(tmp_path_factory, bytes(content))


def keys(value):
    return st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "x"]), value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | keys(inner),
    max_leaves=8,
)
sizes = st.integers(-2, 9) | st.integers() | anything
told = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F64", "BOOL", "I32"]) | anything,
        "shape": st.lists(sizes, max_size=4) | anything,
        "data_offsets": st.lists(sizes, min_size=2, max_size=2) | anything,
    }
)
names = st.text() | st.sampled_from(
    [
        EMBED,
        "vq.layers.1._codebook.embed",
        "vq.layers.0._codebook.inited",
        "vq.layers.0.project_in.weight",
        "layers.0.codebook.embed",
        "layers.0._codebook.initted",
        "quantizers.0.codebook.weight",
        "quantizers.0.in_proj.weight_v",
        "quantizers.0.in_proj.weight",
        "__metadata__",
    ]
)


@given(header=st.dictionaries(names, told | anything, max_size=4), data=st.binary(max_size=40))
@example(header={EMBED: {"dtype": "F32", "shape": [1.0], "data_offsets": [1, 0]}}, data=bytes(9))
@example(header={EMBED: {"dtype": "F32", "shape": [], "data_offsets": ["a", "b"]}}, data=bytes(9))
def test_any_header_loads_or_is_a_checkpoint_error(header, data, tmp_path_factory):
    load_or_refuse(tmp_path_factory, headed(json.dumps(header).encode(), data))


def load_or_refuse(factory, content):
    path = factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(content)
    for family in (None, "encodec", "dac"):
        try:
            codebooks = checkpoints.load(path, family)
        except CheckpointError as error:
            message = str(error)
        else:
            message = path.name if all(np.isfinite(each.words).all() for each in codebooks) else ""
        assert path.name in message


# Faiss.


def faiss(bits=(2, 3), dim=3, search=0, metric=1, words=None, trained=1, **claims):
    """Return an index as ``faiss.write_index`` writes it, and its words by stage."""
    stages = [numbers(9 * m, 1 << b, dim) for m, b in enumerate(bits)] if words is None else words
    flat = np.concatenate(stages).astype("<f4")
    content = b"IxRq" + struct.pack("<iqqqBi", dim, 3, 1 << 20, 1 << 20, trained, metric)
    if metric > 1:
        content += struct.pack("<f", 1.5)
    content += struct.pack("<QQ", claims.get("width", dim), claims.get("stages", len(bits)))
    told = claims.get("told", bits)
    content += struct.pack(f"<Q{len(told)}Q", len(told), *told) + bytes([trained])
    content += struct.pack("<Q", claims.get("count", flat.size)) + flat.tobytes()
    content += struct.pack("<iff", search, 0.0, 1.0)
    before = len(content)
    content += struct.pack("<iiQ", 1, 5, 1) + struct.pack("<Q", 3) + bytes(3)
    return content, stages, before


@pytest.mark.parametrize("metric", [0, 1, 4])
@pytest.mark.parametrize("search", range(6))
def test_a_faiss_index_gives_its_words(metric, search, tmp_path):
    content, stages, _ = faiss(metric=metric, search=search)
    (tmp_path / "a.faissindex").write_bytes(content)
    family, codebooks = checkpoints.load_as(tmp_path / "a.faissindex")
    assert family == "faiss"
    assert_holds(codebooks, [(each, None, None) for each in stages])
    assert checkpoints.load(tmp_path / "a.faissindex", "faiss").sizes == (4, 8)
    refused(tmp_path / "a.faissindex", "not a safetensors file", family="encodec")


def test_a_faiss_index_that_ends_too_early_is_refused(tmp_path):
    content, _, before = faiss()
    path = tmp_path / "a.faissindex"
    for length in range(4, before - 8):  # what is behind is not read
        path.write_bytes(content[:length])
        refused(path, "is a truncated Faiss index: expected")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"search": 6}, "search type 6"),
        ({"search": -1}, "search type -1"),
        ({"width": 4}, "stages and dimension 3"),
        ({"stages": 3}, "of 3 stages"),
        ({"stages": 1 << 60}, "stages"),
        ({"told": (2, 2)}, "expected 24"),
        ({"told": (2, 63)}, "values; expected"),
        ({"told": (1 << 63, 3)}, "values; expected"),
        ({"told": (), "stages": 0}, "values; expected"),
        ({"told": (3,), "stages": 1}, "expected 24"),
        ({"count": 1 << 62}, "truncated Faiss index"),
        ({"count": (1 << 64) - 1}, "truncated Faiss index"),
        ({"dim": 0, "words": [np.ones((0, 0))]}, "values; expected"),
        ({"dim": -1, "width": 1, "words": [np.ones((12, 1))]}, "values; expected"),
        ({"words": [np.full((4, 3), np.nan), np.ones((8, 3))]}, "finite"),
        ({"words": [np.ones((0, 3))]}, "codebooks have 0 values"),
    ],
    ids=str,
)
def test_a_faiss_index_that_contradicts_itself_is_refused(arguments, message, tmp_path):
    path = tmp_path / "a.faissindex"
    path.write_bytes(faiss(**arguments)[0])
    refused(path, message)


def test_the_vectors_in_a_faiss_index_are_not_read(tmp_path):
    path = tmp_path / "a.faissindex"
    content, _, before = faiss()
    path.write_bytes(content[:before])
    os.truncate(path, 100 << 20)
    with paths.traced_memory() as peak:
        checkpoints.load(path)
    assert peak[0] < 2 << 20


@given(data=st.data())
def test_a_mutated_faiss_index_loads_or_is_a_checkpoint_error(data, tmp_path_factory):
    content = bytearray(faiss()[0])
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(4, len(content) - 1))
        content[where] = data.draw(st.integers(0, 255))
    load_or_refuse(tmp_path_factory, bytes(content))


# What the packages themselves made: see data/checkpoints/make.py.

VERSIONS = json.loads((GOLDEN / "versions.json").read_text())


def test_every_golden_file_tells_what_made_it():
    made = {path.name.partition(".")[0] for path in GOLDEN.glob("*.npz")}
    assert made == set(VERSIONS)
    told = {each["family"] for each in VERSIONS.values()}
    assert told | {"rvq_np"} == set(checkpoints.families())  # which is ours, see test_written.py
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


def assert_equal_codes(mine, wanted):
    assert len(mine) == len(wanted)
    for level, row in zip(mine, wanted, strict=True):
        np.testing.assert_array_equal(level, row)


@pytest.mark.parametrize("name", ["snac", "mimi", "grouped-residual-vq-projected"])
def test_the_judge_sees_a_wrong_code_at_any_level(name, tmp_path):
    """Or codes of a composed quantizer could be anything."""
    (tmp_path / "config.json").write_text(json.dumps(VERSIONS[name]["config"]))
    path = tmp_path / "model.safetensors"
    path.write_bytes((GOLDEN / f"{name}.safetensors").read_bytes())
    quantizer = checkpoints.load(path)
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as golden:
        x = golden["x"]
    codes = [level.copy() for level in rvq_np.encode(x, quantizer)]
    regret.assert_nearest(x, codes, quantizer)
    for level, size in zip(codes, quantizer.sizes, strict=True):
        right, level[-1] = level[-1], (level[-1] + 1) % size
        with pytest.raises(AssertionError):
            regret.assert_nearest(x, codes, quantizer)
        with pytest.raises(AssertionError):
            regret.assert_decodes(golden_decoded(name), codes, quantizer)
        level[-1] = right
    regret.assert_decodes(golden_decoded(name), codes, quantizer)


def golden_decoded(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as golden:
        return golden["decoded"]
