"""Checkpoints of every family in every form, written here byte by byte: what they hold."""

import json

import numpy as np
import pytest
from helpers.checkpoint_files import (
    EMBED,
    FORMS,
    KYUTAI,
    MIMI_BEFORE,
    MIMI_PORT,
    ORIGINAL,
    C,
    D,
    K,
    assert_holds,
    book,
    dac,
    forms,
    mimi,
    numbers,
    projected,
    refused,
    residual_vq,
    stack,
    write,
)

import rvq_np
from rvq_np import checkpoints
from rvq_np.codebooks.composed import Grouped, Parallel, Projected

pytestmark = pytest.mark.quick


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
    expected = checkpoints.load(write(tmp_path, tensors)).fingerprint
    others = {
        "encoder.layers.0.conv.weight": numbers(3, 2, 2),
        "decoder.model.1.conv.conv.weight_g": numbers(4, 2),
        "step": (np.array(7), "I64"),
        "nothing": np.ones((0, 3)),
    }

    def described(header):
        header["__metadata__"] = {"format": "pt"}

    path = write(tmp_path, {**others, **tensors}, change=described)
    assert checkpoints.load(path).fingerprint == expected


@pytest.mark.parametrize("form", ["espnet, whole, projected", "dac, weight_g", "residual_vq"])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F64"])
def test_other_float_types_are_read_exactly(form, dtype, tmp_path):
    family, make = FORMS[form]
    tensors, stages = make()
    codebooks = checkpoints.load(write(tmp_path, tensors, dtype=dtype))
    if dtype == "F64" and family == "dac":  # weights then are as well, so that none is equal
        stages = [(codewords, None, None) for codewords, _, _ in stages]
        codebooks = [
            rvq_np.codebooks.Stage(each.codebook, metric=each.metric) for each in codebooks
        ]
        codebooks = rvq_np.Codebooks(codebooks)
    assert_holds(codebooks, stages, "cosine" if family == "dac" else "euclidean", ulps=1)
    assert codebooks.dtype == (np.float64 if dtype == "F64" else np.float32)


def test_float64_is_not_rounded(tmp_path):
    tensors, _ = dac("plain", n_q=1)
    tensors = {name: value.astype(np.float64) + 1e-12 for name, value in tensors.items()}
    stage = checkpoints.load(write(tmp_path, tensors, dtype="F64")).stages[0]
    np.testing.assert_array_equal(stage.codebook, tensors["quantizer.quantizers.0.codebook.weight"])
    weight = tensors["quantizer.quantizers.0.in_proj.weight"][:, :, 0]
    np.testing.assert_array_equal(stage.project_in.weight, weight)
    np.testing.assert_array_equal(
        stage.project_in.bias, tensors["quantizer.quantizers.0.in_proj.bias"]
    )


def test_bfloat16_keeps_the_whole_range(tmp_path):
    codewords = np.float32([[2.0**127, -(2.0**-126)], [2.0**-133, -0.0]])  # normal, and below that
    path = write(tmp_path, {EMBED: codewords}, dtype="BF16")
    assert checkpoints.load(path).stages[0].codebook.tobytes() == codewords.tobytes()


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


def test_stages_may_differ_in_size(tmp_path):
    tensors = {
        **book("vq.layers.0._codebook", numbers(1, 7, D)),
        **book("vq.layers.1._codebook", numbers(2, 3, D)),
    }
    assert checkpoints.load(write(tmp_path, tensors)).sizes == (7, 3)


@pytest.mark.parametrize(("reported", "metric"), [(True, "cosine"), (False, "euclidean")])
def test_the_config_tells_a_cosine_residual_vq(reported, metric, tmp_path):
    tensors, stages = residual_vq()
    path = write(tmp_path, tensors)
    (tmp_path / "config.json").write_text(json.dumps({"use_cosine_sim": reported}))
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
    refused(tmp_path, "has vq_strides .*it is not of family dac", family="dac")


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


def many_codewords():
    """Return a DAC with as many codewords as a SNAC has."""
    tensors, _ = dac("plain")
    for stage in range(3):
        name = f"quantizer.quantizers.{stage}.codebook.weight"
        tensors[name] = np.tile(tensors[name][:1], (4096, 1))
    return tensors


def test_without_a_config_what_may_be_a_snac_is_refused(tmp_path):
    write(tmp_path, many_codewords())
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


def test_the_codewords_of_a_mimi_are_divided_in_float32_whatever_the_file(tmp_path):
    tensors, _, _ = mimi(*KYUTAI)
    for dtype in ("F16", "BF16"):
        tensors |= {
            name: np.float32([1, 3, 5, 0.5, 0]) for name in tensors if name.endswith("usage")
        }
        codebooks = checkpoints.load(write(tmp_path, tensors, dtype=dtype))
        assert codebooks.dtype == np.float32
        for q, stage in enumerate(codebooks):
            sums = numbers(60 * min(q, 1) + max(q - 1, 0), K, D)
            least = np.float32([1, 3, 5, 0.5, 1e-5])[:, None]
            np.testing.assert_array_equal(stage.codebook, sums / least)


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
def test_a_codebook_that_all_stages_share_is_one_stage(cosine, tmp_path):
    tensors, _ = residual_vq()
    tensors |= {name: numbers(1, 1, K, D) for name in tensors if name.endswith(".embed")}
    (tmp_path / "config.json").write_text(json.dumps({"use_cosine_sim": cosine}))
    first, *others = checkpoints.load(write(tmp_path, tensors)).stages
    assert first.metric == ("cosine" if cosine else "euclidean")
    assert [each is first for each in others] == [True, True]
    last = "layers.2._codebook.embed"
    other = np.concatenate([tensors[last][:, :-1], tensors[last][:, -1:] + 1], axis=1)
    stages = checkpoints.load(write(tmp_path, {**tensors, last: other})).stages
    np.testing.assert_array_equal(stages[2].codebook, other[0])
