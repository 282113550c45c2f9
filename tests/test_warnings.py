"""Warnings name the line of the user's program, whichever call of ours found the reason."""

import warnings

import numpy as np
import pytest

import rvq_np
from rvq_np import ResidualVectorQuantizer, cli, errors, train

FEW = np.repeat(np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32), 20, 0)
MANY = np.random.default_rng(1).standard_normal((40, 4)).astype(np.float32)


def made(**options):
    return ResidualVectorQuantizer(4, 4, 2, 16, rng=0, **options)


CALLS = {
    "encode": (errors.NotInitializedWarning, lambda: made().eval().encode(MANY, 50)),
    "decode": (errors.NotInitializedWarning, lambda: made().decode(np.zeros((2, 3), np.int32))),
    "fit of the class": (errors.FewVectorsWarning, lambda: made().fit(FEW)),
    "train.fit": (errors.FewVectorsWarning, lambda: train.fit(FEW, 2, 16, 3, 0)),
    "refine": (errors.TooFewVectorsWarning, lambda: made().fit(MANY[:16], refine=True)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_warning_names_the_line_of_the_caller(name):
    category, call = CALLS[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    (warned,) = [each for each in caught if issubclass(each.category, category)]
    assert warned.filename == __file__


def test_a_warning_of_training_names_the_line_of_the_step():
    quantizer = made(kmeans_init=False, threshold_ema_dead_code=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(60):
            quantizer(FEW, 50)
    (warned,) = [e for e in caught if issubclass(e.category, rvq_np.UnstableTrainingWarning)]
    assert warned.filename == __file__


def test_it_takes_more_than_half_of_a_codebook_in_five_steps_running():
    quantizer = made()
    for replaced in ([(8, 8)] * 6, [(9, 0)] * 4, [(8, 9)], [(9, 9)] * 3, [(0, 0)]):
        for each in replaced:
            quantizer._warn_if_replaced(each)  # warnings are errors here
    for _ in range(4):
        quantizer._warn_if_replaced((0, 9))
    with pytest.warns(rvq_np.UnstableTrainingWarning, match="9 of 16 codewords of stage 1"):
        quantizer._warn_if_replaced((0, 9))


def test_the_command_line_warns_in_one_line(tmp_path, capsys):
    np.save(tmp_path / "few.npy", FEW)
    model = str(tmp_path / "m.safetensors")
    line = ["fit", str(tmp_path / "few.npy"), "-o", model, "--n-q", "1", "--bins", "16"]
    assert cli.main(line) == 0
    (warned,) = capsys.readouterr().err.splitlines()
    assert warned.startswith("rvq-np: warning: fit: x holds 3 distinct vectors for 16 codewords")


def test_the_command_line_says_once_that_a_model_was_never_trained(tmp_path, capsys):
    np.save(tmp_path / "x.npy", MANY)
    made().save(tmp_path / "m.safetensors")
    line = ["encode", "x.npy", "-m", "m.safetensors", "-o", "c.npy"]
    assert cli.main([each if each[0] == "-" or "." not in each else str(tmp_path / each)
                     for each in line]) == 0  # fmt: skip
    said = "rvq-np: warning: this model was never trained: its codewords are random.\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("name", sorted(each for each in vars(errors) if each.endswith("Warning")))
def test_the_command_line_shows_every_warning_of_ours_in_one_line(name, monkeypatch, capsys):
    def warned(options):
        errors.warn("a\nb", getattr(errors, name))

    monkeypatch.setattr(cli.commands, "warmup", warned)
    assert cli.main(["warmup"]) == 0
    assert capsys.readouterr().err == "rvq-np: warning: a b\n"
