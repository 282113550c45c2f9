"""The command line: what it writes, prints and says when a file is bad."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import paths

import rvq_np
from rvq_np import cli


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 5)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "bdt.npy", x.reshape(4, 100, 5).transpose(0, 2, 1))
    assert run(tmp_path, "fit x.npy -o m.safetensors --n-q 3 --bins 8 --seed 4") == 0
    return tmp_path


def run(folder, line):
    """Run one command line, in this process, in `folder`."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        return cli.main(line.split())
    finally:
        os.chdir(before)


def failed(capsys, folder, line, message):
    """The command fails with one line that says why, and no traceback."""
    capsys.readouterr()
    before = sorted(os.listdir(folder))
    assert run(folder, line) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rvq-np: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(os.listdir(folder)) == before  # nothing half-written stays behind


def test_fit_writes_a_model_and_says_what_it_came_to(files, capsys):
    assert run(files, "fit x.npy -o again.safetensors --n-q 3 --bins 8 --seed 4") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].split() == [
        "stage",
        "codewords",
        "mean",
        "squared",
        "error",
        "codewords",
        "used",
        "perplexity",
    ]
    assert len(lines) == 4
    assert err == ""  # no terminal, no bar
    rvq = rvq_np.ResidualVectorQuantizer.load(files / "again.safetensors")
    assert (rvq.dimension, rvq.codebook_dim, rvq.n_q, rvq.bins) == (5, 5, 3, 8)
    assert (files / "again.safetensors").read_bytes() == (files / "m.safetensors").read_bytes()
    errors = [float(line.split()[2]) for line in lines[1:]]
    assert errors == sorted(errors, reverse=True)


def test_encode_and_decode_are_those_of_the_library(files):
    assert run(files, "encode x.npy -m m.safetensors -o c.npy") == 0
    assert run(files, "decode c.npy -m m.safetensors -o y.npy") == 0
    rvq = rvq_np.ResidualVectorQuantizer.load(files / "m.safetensors")
    x, codes, y = (np.load(files / name) for name in ("x.npy", "c.npy", "y.npy"))
    np.testing.assert_array_equal(codes, rvq.encode(x, 1))
    np.testing.assert_array_equal(y, rvq.decode(codes))
    assert codes.dtype == np.int32
    assert y.dtype == np.float32


def test_three_axes_are_batch_dimension_time(files):
    assert run(files, "encode bdt.npy -m m.safetensors -o c.npy --n-q 2") == 0
    assert run(files, "decode c.npy -m m.safetensors -o y.npy") == 0
    rvq = rvq_np.ResidualVectorQuantizer.load(files / "m.safetensors")
    x, codes, y = (np.load(files / name) for name in ("bdt.npy", "c.npy", "y.npy"))
    np.testing.assert_array_equal(codes, rvq.encode(x, 1)[:2])
    np.testing.assert_array_equal(y, rvq.decode(codes))
    assert run(files, "fit bdt.npy -o b.safetensors --n-q 3 --bins 8 --seed 4") == 0
    assert (files / "b.safetensors").read_bytes() == (files / "m.safetensors").read_bytes()


def test_large_files_go_through_in_batches(files, monkeypatch):
    run(files, "encode x.npy -m m.safetensors -o whole.npy --beam-size 3")
    run(files, "decode whole.npy -m m.safetensors -o back.npy")
    monkeypatch.setattr(cli.files, "ROWS", 7)
    run(files, "encode x.npy -m m.safetensors -o parts.npy --beam-size 3")
    run(files, "decode parts.npy -m m.safetensors -o parts-back.npy")
    for one, other in (("whole.npy", "parts.npy"), ("back.npy", "parts-back.npy")):
        assert (files / one).read_bytes() == (files / other).read_bytes()


def test_no_vectors_are_no_codes(files):
    np.save(files / "none.npy", np.empty((0, 5), np.float32))
    assert run(files, "encode none.npy -m m.safetensors -o c.npy") == 0
    assert np.load(files / "c.npy").shape == (3, 0)
    assert run(files, "decode c.npy -m m.safetensors -o y.npy") == 0
    assert np.load(files / "y.npy").shape == (0, 5)


def test_info_says_what_a_model_is_and_how_its_codewords_are_used(files, capsys):
    capsys.readouterr()
    assert run(files, "info m.safetensors") == 0
    out = capsys.readouterr().out
    assert "stages               3\n" in out
    assert "codebook size        8\n" in out
    assert "dimension            5\n" in out
    assert "bits per vector      9 (3 per stage)\n" in out
    assert "codeword usage in training counts:" in out
    np.save(files / "c.npy", np.int64([[0, 0, 1, 1], [2, 2, 2, 2], [0, 1, 2, 3]]))
    assert run(files, "info m.safetensors --codes c.npy") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[-3:]]
    assert [row[2:] for row in rows] == [
        ["25.0%", "2.0", "1.00"], ["12.5%", "1.0", "0.00"], ["50.0%", "4.0", "2.00"],
    ]  # fmt: skip


def test_info_of_a_projected_model_names_the_length_of_its_codewords(files, capsys):
    run(files, "fit x.npy -o p.safetensors --n-q 1 --bins 4 --codebook-dim 2")
    capsys.readouterr()
    run(files, "info p.safetensors")
    assert "codeword dimension   2 (projected in and out" in capsys.readouterr().out


def test_a_model_that_was_never_trained_is_used_with_a_warning(files, capsys):
    rvq_np.ResidualVectorQuantizer(5, 5, n_q=1, bins=4).save(files / "f.safetensors")
    capsys.readouterr()
    assert run(files, "encode x.npy -m f.safetensors -o c.npy") == 0
    assert capsys.readouterr().err == (
        "rvq-np: warning: this model was never trained: its codewords are random.\n"
    )


def test_bad_files_are_one_line_each(files, capsys):
    (files / "text.npy").write_text("these are not vectors")
    (files / "empty.npy").write_bytes(b"")
    whole = (files / "x.npy").read_bytes()
    (files / "cut.npy").write_bytes(whole[:-100])
    (files / "lie.npy").write_bytes(whole.replace(b"(400, 5)", b"(9**9,5)"))
    (files / "big.npy").write_bytes(whole.replace(b"(400, 5), ", b"(999999,5)"))
    (files / "header.npy").write_bytes(whole[:40])
    np.save(files / "none.npy", np.empty((0, 5), int))
    np.save(files / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.savez(files / "many.npz", x=np.ones(3))
    np.save(files / "ints.npy", np.ones((4, 5), int))
    np.save(files / "flat.npy", np.ones(5))
    np.save(files / "wide.npy", np.ones((4, 6), np.float32))
    np.save(files / "nan.npy", np.full((4, 5), np.nan, np.float32))
    np.save(files / "floats.npy", np.ones((2, 4)))
    np.save(files / "high.npy", np.full((2, 4), 8))
    np.save(files / "deep.npy", np.zeros((4, 4), int))
    (files / "foreign.safetensors").write_bytes(b"PK" * 50)
    rest = "-m m.safetensors -o out.npy"
    for line, message in (
        (f"encode nothing.npy {rest}", "there is no file 'nothing.npy'"),
        (
            f"encode text.npy {rest}",
            "'text.npy' is a text file; encode reads vectors: .npy",
        ),
        (f"encode empty.npy {rest}", "'empty.npy' is not a readable .npy file"),
        (f"encode cut.npy {rest}", "'cut.npy' is not a readable .npy file"),
        (f"encode lie.npy {rest}", "'lie.npy' is not a readable .npy file"),
        (f"encode header.npy {rest}", "'header.npy' is not a readable .npy file"),
        (f"encode none.npy {rest}", "'none.npy' holds int64; expected vectors"),
        (f"encode big.npy {rest}", "'big.npy' is not a readable .npy file"),
        (f"encode objects.npy {rest}", "'objects.npy' is not a readable .npy file"),
        (f"encode many.npz {rest}", "'many.npz' holds 1 arrays, the first float64 of shape (3,)"),
        (f"encode ints.npy {rest}", "'ints.npy' holds int64; expected vectors: floating-point"),
        (f"encode flat.npy {rest}", "of shape (5,); expected vectors of rank 2 or 3"),
        (f"encode wide.npy {rest}", "encode: x has shape (4, 6); expected (N, 5) or (B, 5, T)"),
        (f"encode nan.npy {rest}", "encode: x holds nan at (0, 0)"),
        (f"encode x.npy {rest} --n-q 4", "encode: n_q is 4; expected 1 to 3"),
        (f"encode x.npy {rest} --beam-size 0", "encode: beam_size is 0"),
        ("encode x.npy -m foreign.safetensors -o out.npy", "is a text file; encode needs a model"),
        ("encode x.npy -m missing.safetensors -o out.npy", "there is no file"),
        ("encode x.npy -m m.safetensors -o no/out.npy", "there is no folder"),
        (f"decode floats.npy {rest}", "'floats.npy' holds float64; expected codes: integers"),
        (
            f"decode high.npy {rest}",
            "code 8 at (0, 0) names no codeword; expected 0 to 7 at stage "
            "0, or -1 where the stage is dropped. That is in 'high.npy'.",
        ),
        ("convert m.safetensors --to faiss --codes high.npy -o out.faiss", "in 'high.npy'."),
        (f"decode deep.npy {rest}", "codes have 4 rows, one per stage, but there are 3"),
        ("info foreign.safetensors", "is a text file; info reads models and .rvq files"),
        ("info m.safetensors --codes high.npy", "That is in 'high.npy'."),
        ("fit nan.npy -o out.safetensors", "fit: x holds nan at (0, 0)"),
        ("fit x.npy -o no/out.safetensors", "there is no folder"),
        ("fit x.npy -o out.safetensors --bins 0", "--bins is '0'; expected numbers from 1 with"),
        ("fit x.npy -o out.safetensors --bins 8,4 --n-q 3", "bins is (8, 4); expected a whole"),
        ("fit x.npy -o out.safetensors --refine beam=2", "beam"),
        ("fit x.npy -o out.safetensors --refine ridge", "--refine is 'ridge'; expected NAME="),
        ("fit x.npy -o out.safetensors --refine ridge=-1", "ridge is -1"),
        ("fit x.npy -o out.safetensors --freeze 0,a", "--freeze is '0,a'; expected numbers from"),
        ("fit x.npy -o out.safetensors --freeze 0", "freeze is [0], but start is None"),
        (
            "fit x.npy -o m2.safetensors --n-q 3 --bins 8 --start m.safetensors --freeze 3",
            "freeze[0] is 3; expected a whole number from 0 to 2",
        ),
        (
            "fit x.npy -o m2.safetensors --n-q 3 --bins 8 --start m.safetensors --hold 2",
            "hold is 2",
        ),
        ("fit x.npy -o out.safetensors --seed -1", "rng is -1"),
        ("demo --wav nothing.wav", "there is no file 'nothing.wav'"),
        ("demo --wav text.npy", "'text.npy' is a text file; expected a sound"),
    ):
        failed(capsys, files, line, message)


def test_fit_takes_a_size_for_each_stage_a_refinement_and_a_start(files, capsys):
    """All as `ResidualVectorQuantizer.fit` has them, to the same codebooks."""
    x = np.load(files / "x.npy")
    load = lambda name: rvq_np.ResidualVectorQuantizer.load(files / name)  # noqa: E731
    make = lambda **options: rvq_np.ResidualVectorQuantizer(  # noqa: E731
        5, None, 3, kmeans_iters=25, rng=4, **options
    )
    line = "fit x.npy -o {} --n-q 3 --seed 4 --bins {}"
    assert run(files, line.format("sizes.safetensors", "8,4,6")) == 0
    assert load("sizes.safetensors").codebooks == make(bins=[8, 4, 6]).fit(x).codebooks
    assert [each.split()[1] for each in capsys.readouterr().out.splitlines()[-3:]] == list("846")
    for given, refine in (
        ("--refine", True), ("--refine iterations=3,beam-size=2,ridge=0.5",
                             {"iterations": 3, "beam_size": 2, "ridge": 0.5}),
    ):  # fmt: skip
        assert run(files, line.format("r.safetensors", f"8 {given}")) == 0
        assert load("r.safetensors").codebooks == make(bins=8).fit(x, refine=refine).codebooks
    start = load("m.safetensors")
    more = "8 --start m.safetensors --freeze 0,2 --hold 0.5"
    assert run(files, line.format("s.safetensors", more)) == 0
    expected = make(bins=8).fit(x, start=start, freeze=[0, 2], hold=0.5).codebooks
    assert load("s.safetensors").codebooks == expected
    assert expected[0] == start.codebooks[0]
    assert expected[1] != start.codebooks[1]
    with pytest.raises(SystemExit):
        cli.main(["fit", "--help"])
    said = capsys.readouterr().out
    for option in ("--refine", "--no-refine", "--start", "--freeze", "--hold"):
        assert option in said


def test_a_wrong_command_line_is_exit_code_2(capsys):
    for line in ("", "no-such-command", "encode x.npy"):
        with pytest.raises(SystemExit) as caught:
            cli.main(line.split())
        assert caught.value.code == 2
    assert "usage: rvq-np" in capsys.readouterr().err


def test_an_interrupt_leaves_no_file(files, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("rvq_np.codec.encode", stop)
    assert run(files, "encode x.npy -m m.safetensors -o c.npy") == 130
    assert sorted(os.listdir(files)) == ["bdt.npy", "m.safetensors", "x.npy"]
    assert "interrupted" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bars_show_on_a_terminal_only(files, monkeypatch):
    monkeypatch.setattr(cli.files, "ROWS", 50)
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert run(files, "encode x.npy -m m.safetensors -o c.npy") == 0
        assert run(files, "fit x.npy -o n.safetensors --n-q 2 --bins 4 --iterations 3") == 0
        assert ("encode" in stream.getvalue()) == shown
        assert ("fit stage 2/2" in stream.getvalue()) == shown


def test_it_runs_as_a_module_and_stops_quietly_when_its_output_is_closed(files):
    command = [sys.executable, "-m", "rvq_np"]
    root = os.path.dirname(os.path.dirname(rvq_np.__file__))
    environment = {**os.environ, "PYTHONPATH": root}
    version = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, check=True, env=environment
    )
    assert version.stdout == f"rvq-np {rvq_np.__version__}\n"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*command, "info", str(files / "m.safetensors")], stdout=writing, stderr=subprocess.PIPE,
        text=True, env=environment,
    )  # fmt: skip
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 0


def test_warmup_says_when_the_kernels_are_ready(capsys):
    assert cli.main(["warmup"]) == 0
    assert "All kernels are compiled after" in capsys.readouterr().out
    with paths.without_numba():
        assert cli.main(["warmup", "--dtype", "float64"]) == 0
    assert "Numba cannot be imported" in capsys.readouterr().out
