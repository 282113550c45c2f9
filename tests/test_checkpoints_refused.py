"""Checkpoints that are whole, but hold no quantizer that can be used: what is said of them."""

import re

import numpy as np
import pytest
from helpers.checkpoint_files import (
    EMBED,
    FORMS,
    MIMI_PORT,
    ORIGINAL,
    WHOLE,
    C,
    D,
    K,
    dac,
    forms,
    numbers,
    refused,
    residual_vq,
    write,
)

from rvq_np import checkpoints
from rvq_np.errors import CheckpointError

pytestmark = pytest.mark.quick


REST = "quantizer.rvq_rest."


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
def test_the_nearest_family_and_what_it_misses_are_reported(names, nearest, missing, tmp_path):
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
def test_a_stage_that_is_missing_is_reported(form, tmp_path):
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
def test_a_part_that_is_missing_is_reported(form, gone, message, tmp_path):
    tensors, _ = FORMS[form][1]()
    without = {name: value for name, value in tensors.items() if not re.search(gone, name)}
    assert len(without) < len(tensors)
    refused(write(tmp_path, without), message)


def test_a_stage_of_an_unlikely_number_is_no_stage(tmp_path):
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
        ("espnet, bare, projected", "vq.layers.1.project_in.weight", (C, D + 1), "expected"),
        ("espnet, bare, projected", "vq.layers.1.project_in.bias", (C + 1,), "bias"),
        ("espnet, bare, projected", "vq.layers.1.project_out.weight", (D, C + 1), "expected"),
        ("dac, plain", "quantizer.quantizers.1.in_proj.weight", (C, D, 3), "expected"),
        ("dac, plain", "quantizer.quantizers.1.in_proj.weight", (C,), "expected"),
        ("dac, plain", "quantizer.quantizers.1.out_proj.bias", (D, 1), "bias"),
        ("dac, plain", "quantizer.quantizers.2.codebook.weight", (K, C + 1), "expected"),
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
        ("mimi, kyutai", f"{REST}input_proj.weight", (D, C + 1, 1), "expected"),
        ("mimi, kyutai", f"{REST}output_proj.weight", (C, D + 1, 1), "expected"),
        ("hificodec, bare", "quantizer1.vq.layers.1._codebook.embed", (K, D + 1), "lengths"),
        ("residual_vq, grouped", "rvqs.1.layers.0._codebook.embed", (2, K, D), "2 heads"),
    ],
)
def test_shapes_that_do_not_fit_are_reported_by_stage(form, name, shape, message, tmp_path):
    tensors, _ = FORMS[form][1]()
    assert name in tensors
    path = write(tmp_path, {**tensors, name: numbers(1, *shape)})
    stage = "" if message in ("lengths", "2 heads") else re.sub(r"(\.\d+)\..*", r"\1", name)
    refused(
        path,
        message,
        tensor=stage.removesuffix(".input_proj.weight").removesuffix(".output_proj.weight"),
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
    stage = gone.rpartition("proj")[0]
    refused(write(tmp_path, tensors), "has no (tensor|weight)", tensor=stage)


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


def test_a_codeword_of_a_mimi_that_overflows_is_refused(tmp_path):
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
def test_two_quantizers_in_one_file_are_reported(form, tmp_path):
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
