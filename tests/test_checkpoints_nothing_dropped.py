"""What lies beside a stack of codebooks: computed with, known to be of training, or refused."""

import json
import re

import numpy as np
import pytest
from helpers.checkpoint_files import (
    FORMS,
    ORIGINAL,
    C,
    D,
    dac,
    forms,
    numbers,
    refused,
    residual_vq,
    stack,
    write,
)

from rvq_np import checkpoints, cli
from rvq_np.checkpoints import _accounts, _stack
from rvq_np.errors import CheckpointError, ParameterError, PartsError

pytestmark = pytest.mark.quick


def beside(tensors):
    """Return what the names of the tensors of a quantizer begin with."""
    first = next(name for name in tensors if "codebook" in name)
    before = re.match(r"(codec\.generator\.quantizer\.|quantizer\.|model\.(rvq\.)?|)", first)
    return before.group()


@forms
@pytest.mark.parametrize("name", ["outer_proj.weight", "norm.weight", "project_up.weight_v"])
def test_a_tensor_beside_the_codebooks_that_computes_is_refused(form, name, tmp_path):
    family, make = FORMS[form]
    tensors, _ = make()
    tensors[f"{beside(tensors)}{name}"] = numbers(1, C, D)
    path = write(tmp_path, tensors)
    for asked in (None, family):
        refused(path, f"{name}.*beside its codebooks.*family {family}", family=asked)


@pytest.mark.parametrize("name", ["mlp.weight", "codebook.scale", "_codebook.codebook_mean"])
def test_a_tensor_of_a_stage_that_computes_is_refused(name, tmp_path):
    tensors, _ = dac("plain")
    tensors[f"quantizer.quantizers.1.{name}"] = numbers(1, C)
    refused(write(tmp_path, tensors), "beside its codebooks", tensor=f"quantizers.1.{name}")
    tensors, _ = residual_vq()
    tensors[f"layers.1.{name}"] = numbers(1, C)
    refused(write(tmp_path, tensors), "beside its codebooks", tensor=f"layers.1.{name}")


def test_several_are_counted(tmp_path):
    tensors, _ = dac("plain")
    tensors |= {f"quantizer.outer_proj.{each}": numbers(1, C) for each in ("weight", "bias")}
    refused(write(tmp_path, tensors), "'quantizer.outer_proj.bias' and 1 more beside")


@pytest.mark.parametrize("name", sorted(_accounts.TRAINING))
def test_what_only_training_reads_is_not(name, tmp_path):
    tensors, _ = dac("plain")
    expected = checkpoints.load(write(tmp_path, tensors)).fingerprint
    tensors[f"quantizer.quantizers.0.codebook.{name}"] = numbers(1, C)
    assert checkpoints.load(write(tmp_path, tensors)).fingerprint == expected


@pytest.mark.parametrize("name", ["quantizer_type", "use_l2_normalize", "q0_ds_ratio"])
@pytest.mark.parametrize("nested", ["", "quantizer_kwargs"])
def test_a_setting_of_the_config_that_is_not_read_is_refused(name, nested, tmp_path):
    path = write(tmp_path, stack(ORIGINAL)[0])
    values = {name: "rvq"}
    (tmp_path / "config.json").write_text(json.dumps({nested: values} if nested else values))
    refused(path, f"has {name} 'rvq', which .* family encodec does not have")
    (tmp_path / "config.json").write_text(json.dumps({name: None, "sampling_rate": 24000}))
    assert checkpoints.load_as(path)[0] == "encodec"


# Which family has a file.


def test_a_special_case_wins_over_what_it_is_a_case_of(monkeypatch, tmp_path):
    """Not the alphabet: also the family with the last name, or the first."""
    path = write(tmp_path, FORMS["espnet, whole, projected"][1]()[0])
    for order in (sorted, lambda names: sorted(names)[::-1]):
        names = order(checkpoints.families())
        monkeypatch.setattr(checkpoints, "families", lambda names=names: names)
        assert checkpoints.load_as(path)[0] == "espnet"


def test_a_pattern_begins_where_a_part_of_a_name_does():
    """`myquantizers.0` is not `quantizers.0` with something before."""
    names = ["b.quantizers.0.codebook", "quantizers.0.codebook", "a.myquantizers.0.codebook"]
    assert _stack.prefixes(names, "quantizers.{}.codebook") == ["", "b."]


def test_what_may_be_of_two_families_alike_is_refused(tmp_path):
    tensors, _ = stack(ORIGINAL)
    others, _ = stack("quantizer.quantizers.{}.codebook")
    path = write(tmp_path, {**tensors, **others})
    refused(path, "may be of the families encodec or xcodec, by the names.*Pass family=")
    refused(path, "beside its codebooks", family="encodec")


# Several quantizers in one file.


def two(tmp_path):
    first, _ = stack("one." + ORIGINAL)
    second, _ = stack("two." + ORIGINAL, 2)
    return write(tmp_path, {**first, **second})


def test_one_of_several_quantizers_is_chosen_by_name(tmp_path):
    path = two(tmp_path)
    assert checkpoints.parts(path) == ("one.quantizer", "two.quantizer")
    for part, n_q in (("one", 3), ("two", 2), ("two.quantizer", 2)):
        assert checkpoints.load(path, part=part).n_q == n_q
        assert checkpoints.load(path, "encodec", part=part).n_q == n_q
    with pytest.raises(PartsError, match=r"part=, one of 'one\.quantizer', 'two\.q") as caught:
        checkpoints.load(path)
    assert caught.value.parts == ("one.quantizer", "two.quantizer")
    assert caught.value.family == "encodec"
    assert isinstance(caught.value, CheckpointError)


@pytest.mark.parametrize("part", ["three", "on", ""])
def test_an_unknown_part_is_refused(part, tmp_path):
    with pytest.raises(ParameterError, match=f"model.safetensors.* has no part '{part}'"):
        checkpoints.load(two(tmp_path), part=part)


def test_a_file_with_one_quantizer_has_no_parts(tmp_path):
    assert checkpoints.parts(write(tmp_path, stack(ORIGINAL)[0])) == ()


def test_what_belongs_to_a_part_is_accounted_for(tmp_path):
    first, _ = stack("one." + ORIGINAL)
    second, _ = stack("two." + ORIGINAL)
    first["one.quantizer.input_proj.weight"] = numbers(1, C, D)
    path = write(tmp_path, {**first, **second})
    assert checkpoints.load(path, part="two").n_q == 3
    with pytest.raises(CheckpointError, match=r"'one\.quantizer\.input_proj\.weight' beside"):
        checkpoints.load(path, part="one")


def test_info_lists_the_parts_and_commands_take_one(tmp_path, capsys):
    path = two(tmp_path)
    assert cli.main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert "family               encodec\n" in out
    assert "part                 one.quantizer\n" in out
    assert "part                 two.quantizer\n" in out
    assert cli.main(["info", str(path), "--part", "two"]) == 0
    assert "stages               2\n" in capsys.readouterr().out
    np.save(tmp_path / "x.npy", numbers(3, 7, D))
    line = ["encode", str(tmp_path / "x.npy"), "-m", str(path), "-o", str(tmp_path / "c.npy")]
    assert cli.main(line) == 1
    assert "has 2 quantizers" in capsys.readouterr().err
    assert cli.main([*line, "--part", "one"]) == 0
    assert np.load(tmp_path / "c.npy").shape == (3, 7)
