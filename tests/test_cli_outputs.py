"""Where the commands write to: endings, streams, and never over an input."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import rvq_np
from rvq_np import bitstream, checkpoints, cli

ROOT = Path(rvq_np.__file__).parents[1]
BOOKS = np.random.default_rng(0).standard_normal((3, 16, 6)).astype(np.float32)


def run(line, status=0):
    assert cli.main(line.split()) == status


def compiled(targets):
    """Return what takes minutes to compile: a library of no kernels."""
    return bytes(50), {"targets": [], "system": "any"}


@pytest.fixture
def files(tmp_path, rng, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rvq_np.kernels.ahead.build", compiled)
    strided = [rvq_np.Stage(book, stride=stride) for book, stride in zip(BOOKS, (4, 2, 1))]  # noqa: B905
    checkpoints.save("m.safetensors", BOOKS, front_end=rvq_np.FrontEnd("samples", 6))
    checkpoints.save("s.safetensors", rvq_np.Codebooks(strided))
    np.save("x.npy", rng.standard_normal((100, 6)).astype(np.float32))
    np.save("bdt.npy", rng.standard_normal((3, 6, 20)).astype(np.float32))
    run("encode x.npy -m m.safetensors -o c.rvq --frame-rate 1000")
    run("encode x.npy -m m.safetensors -o c.npy")
    monkeypatch.setattr(cli.files, "ROWS", 24)  # so that everything comes in pieces
    return tmp_path


LINES = {
    "fit": "fit x.npy --n-q 1 --bins 4 --iterations 1 -o {}",
    "encode": "encode x.npy -m m.safetensors -o {}",
    "decode": "decode c.rvq -m m.safetensors -o {}",
    "convert": "convert m.safetensors -o {}",
    "convert --to faiss": "convert m.safetensors --to faiss -o {}",
    "compile": "compile -o {}",
}
WRITTEN = {
    "fit": ".safetensors", "encode": ".rvq .npy .npz .csv .parquet",
    "decode": ".npy .wav .csv .parquet",
    "convert": ".safetensors", "convert --to faiss": ".faissindex .faiss .index",
    "compile": ".so .dylib .dll",
}  # fmt: skip
OTHERS = "ids.csv d.mp3 x.onnx m.pt t.parquet o.npz o.rvq o.wav o.npy o.txt noending .rvq o. o.rvq~"


@pytest.mark.parametrize("command", LINES)
def test_an_ending_that_a_command_cannot_write_is_refused_before_the_work(
    command, files, monkeypatch, capsys
):
    for where in ("cli.vectors.whole", "checkpoints.load_whole", "codec.encode", "codec.decode"):
        monkeypatch.setattr(f"rvq_np.{where}", lambda *_, **__: pytest.fail("it began to work"))
    before = {name: Path(name).read_bytes() for name in os.listdir()}
    listed = WRITTEN[command].split()
    for name in OTHERS.split():
        ending = os.path.splitext(name)[1]
        if ending in listed:
            continue
        run(LINES[command].format(name), status=1)
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"rvq-np: error: {command}: '{name}' ends in ")
        assert all(each in err for each in listed)
        assert err.count("\n") == 1
    assert {name: Path(name).read_bytes() for name in os.listdir()} == before


@pytest.mark.parametrize("command", LINES)
def test_endings_are_the_same_in_any_case_of_letters(command, files):
    for ending in WRITTEN[command].split():
        if ending == ".parquet" and find_spec("pyarrow") is None:
            continue  # tests/peers/test_cli_parquet.py
        run(LINES[command].format(f"small{ending}"))
        run(LINES[command].format(f"large{ending.upper()}"))
        small, large = (Path(f"{each}").read_bytes() for each in
                        (f"small{ending}", f"large{ending.upper()}"))  # fmt: skip
        if ending == ".npz":  # which stores the time
            small, large = (np.load(each)["level_0"].tobytes() for each in
                            ("small.npz", "large.NPZ"))  # fmt: skip
        assert small == large


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        ("encode x.npy -m m.safetensors -o x.npy", "x.npy"),
        ("encode x.npy -m m.safetensors -o ./x.npy", "x.npy"),
        ("encode x.npy -m m.safetensors -o link.npy", "x.npy"),
        ("encode x.npy -m m.safetensors -o hard.npy", "x.npy"),
        ("encode link.npy -m m.safetensors -o x.npy", "x.npy"),
        ("decode c.npy -m m.safetensors -o c.npy", "c.npy"),
        ("convert m.safetensors -o m.safetensors", "m.safetensors"),
        ("convert m.safetensors --to faiss --codes c.faiss -o c.faiss", "c.faiss"),
        ("convert folder -o folder/model.safetensors", "folder/model.safetensors"),
        ("fit x.npy -o f.safetensors --checkpoint f.safetensors", None),
    ],
)
def test_an_input_is_never_the_output(line, lost, files, capsys):
    os.symlink("x.npy", "link.npy")
    os.link("x.npy", "hard.npy")
    os.link("c.npy", "c.faiss")
    os.mkdir("folder")
    checkpoints.save("folder/model.safetensors", BOOKS)
    content = lost and Path(lost).read_bytes()
    run(line, status=1)
    err = capsys.readouterr().err
    assert "which would be lost; expected another name" in err
    assert err.count("\n") == 1
    assert lost is None or Path(lost).read_bytes() == content


def python(line, **options):
    return subprocess.run(
        [sys.executable, "-m", "rvq_np", *line.split()], stderr=subprocess.PIPE, timeout=2000,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, **options,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(set(LINES) - {"compile"}))  # takes minutes
@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_standard_output_holds_what_a_file_would(command, name, files):
    ending = WRITTEN[command].split()[0]
    run(LINES[command].format(f"expected{ending}"))
    done = python(LINES[command].format(name), stdout=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == Path(f"expected{ending}").read_bytes()  # and nothing that is printed
    with open("redirected", "wb") as file:
        file.write(b"before ")
        file.flush()
        done = python(LINES[command].format(name), stdout=file)
    assert done.returncode == 0, done.stderr
    assert Path("redirected").read_bytes() == b"before " + Path(f"expected{ending}").read_bytes()


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_traceback(files):
    reading, writing = os.pipe()
    os.close(reading)
    done = python("encode x.npy -m m.safetensors -o -", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


class Terminal:
    def isatty(self):
        return True

    def write(self, text):
        pass

    def flush(self):
        pass


@pytest.mark.parametrize("command", LINES)
def test_a_terminal_gets_no_bytes(command, files, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Terminal())
    run(LINES[command].format("-"), status=1)
    assert "standard output, which is a terminal" in capsys.readouterr().err


def test_a_link_without_an_ending_has_that_of_its_target(files):
    os.symlink("models-7.safetensors", "latest")
    run("convert m.safetensors -o latest")
    assert os.path.islink("latest")
    assert checkpoints.load("models-7.safetensors") == checkpoints.load("m.safetensors")


def test_a_pipe_or_device_needs_no_ending(files, capsys):
    for line in LINES.values():
        run(line.format("/dev/null"))


def test_codes_in_a_table_are_the_codes(files, capsys):
    run("encode x.npy -m m.safetensors -o c.csv")
    lines = Path("c.csv").read_text().splitlines()
    assert lines[0] == "stage_0,stage_1,stage_2"
    expected = rvq_np.encode(np.load("x.npy"), BOOKS)
    assert [list(map(int, line.split(","))) for line in lines[1:]] == expected.T.tolist()
    run("decode c.csv -m m.safetensors -o y.npy")
    run("decode c.npy -m m.safetensors -o expected.npy")
    assert Path("y.npy").read_bytes() == Path("expected.npy").read_bytes()
    capsys.readouterr()
    counts = []
    for name in ("c.csv", "c.npy", "c.npz"):
        run(f"encode x.npy -m m.safetensors -o {name}")
        run(f"info m.safetensors --codes {name}")
        counts.append(capsys.readouterr().out.partition(f"codeword usage in {name}:")[2])
    assert counts[0] == counts[1] == counts[2] != ""
    run("encode x.npy -m m.safetensors --n-q 1 -o one.csv")
    run("decode one.csv -m m.safetensors -o y.npy")
    np.testing.assert_array_equal(np.load("y.npy"), rvq_np.decode(expected[:1], BOOKS))


def test_an_archive_of_codes_is_read_back(files):
    for source in ("x", "bdt"):
        run(f"encode {source}.npy -m m.safetensors -o c.npz")
        assert np.load("c.npz").files == ["level_0", "level_1", "level_2"]
        run("decode c.npz -m m.safetensors -o y.npy")
        run(f"encode {source}.npy -m m.safetensors -o c.npy")
        run("decode c.npy -m m.safetensors -o expected.npy")
        assert Path("y.npy").read_bytes() == Path("expected.npy").read_bytes()


def test_tables_without_rows_and_without_titles(files):
    np.save("none.npy", np.empty((0, 6), np.float32))
    run("encode none.npy -m m.safetensors -o none.csv")
    run("decode none.csv -m m.safetensors -o y.npy")
    assert np.load("y.npy").shape == (0, 6)
    Path("plain.csv").write_text("1,2,3\n4,5,6\n")
    run("decode plain.csv -m m.safetensors -o y.npy")
    expected = rvq_np.decode(np.array([[1, 4], [2, 5], [3, 6]]), BOOKS)
    np.testing.assert_array_equal(np.load("y.npy"), expected)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("encode bdt.npy -m m.safetensors -o c.csv", "cannot hold codes of several streams"),
        ("encode x.npy -m s.safetensors -o c.csv", "cannot hold codes of stages with strides"),
        ("encode x.npy -m s.safetensors -o c2.npy", "cannot hold codes of stages with strides"),
        (
            "decode letters.csv -m m.safetensors -o y.npy",
            "'letters.csv' is not a .csv file of codes",
        ),
        ("decode ragged.csv -m m.safetensors -o y.npy", "'ragged.csv' is not a .csv file of codes"),
        ("decode high.csv -m m.safetensors -o y.npy", "names no codeword"),
        ("decode huge.csv -m m.safetensors -o y.npy", "'huge.csv' is not a .csv file of codes"),
        ("decode empty.csv -m m.safetensors -o y.npy", "its first line is empty"),
        ("convert s.safetensors --to faiss --codes s.npz -o o.faiss", "have strides (4, 2, 1)"),
        ("convert m.safetensors --to faiss --codes m.safetensors -o o.faiss", "; convert reads"),
        ("info m.safetensors --codes high.csv", "info: code 16 at (2, 1) names no codeword"),
    ],
)
def test_tables_that_cannot_be_are_one_line(line, said, files, capsys):
    Path("letters.csv").write_text("a,b,c\none,two,three\n")
    Path("ragged.csv").write_text("1,2,3\n4,5\n")
    Path("high.csv").write_text("1,2,3\n4,5,16\n")
    Path("huge.csv").write_text(f"1,2,3\n4,5,{10**30}\n")
    Path("empty.csv").write_text("")
    run("encode x.npy -m s.safetensors -o s.npz")
    before = sorted(os.listdir())
    capsys.readouterr()
    run(line, status=1)
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert sorted(os.listdir()) == before


def test_containers_through_a_pipe_can_be_read(files):
    """They are written at several places: what a pipe gets is the finished file."""
    reading, writing = os.pipe()
    run(f"encode x.npy -m m.safetensors -o /dev/fd/{writing}")
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        Path("received.rvq").write_bytes(pipe.read())
    np.testing.assert_array_equal(
        bitstream.read("received.rvq").codes, rvq_np.encode(np.load("x.npy"), BOOKS)
    )


@pytest.mark.parametrize("command", LINES)
def test_a_pipe_with_the_ending_of_something_else_is_refused(command, files, capsys):
    os.mkfifo("pipe.mp3")
    run(LINES[command].format("pipe.mp3"), status=1)
    assert f"{command}: 'pipe.mp3' ends in .mp3; expected" in capsys.readouterr().err


def test_options_of_sounds_are_refused_where_there_is_none(files, capsys):
    for line in ("encode x.npy -m m.safetensors -o e.npy --resample",
                 "encode x.npy -m m.safetensors -o e.npy --front-end mdct",
                 "decode expected.npy -m m.safetensors -o e.npy --front-end samples"):  # fmt: skip
        run("encode x.npy -m m.safetensors -o expected.npy")
        capsys.readouterr()
        run(line, 1)
        option = line.split()[-1] if line.endswith("--resample") else "--front-end"
        assert f"{option} is for sounds" in capsys.readouterr().err
        assert not Path("e.npy").exists()


def test_a_code_that_is_none_is_placed_in_its_file(files, capsys, monkeypatch):
    monkeypatch.setattr(cli.files, "ROWS", 4)
    codes = np.zeros((3, 10), np.int32)
    codes[1, 9] = 99
    np.save("high.npy", codes)
    run("decode high.npy -m m.safetensors -o y.npy", status=1)
    err = capsys.readouterr().err
    assert "code 99 at (1, 1) names no codeword" in err
    assert "That is in 'high.npy', counted from frame 8." in err
