"""Options that mean the same in every command: stages, frames, JSON, streams, text, examples."""

import argparse
import io
import json
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import rvq_np
from rvq_np import bitstream, checkpoints, cli
from rvq_np.cli import parser, said
from rvq_np.cli.examples import EXAMPLES

ROOT = Path(rvq_np.__file__).parents[1]
BOOKS = np.random.default_rng(0).standard_normal((3, 16, 6)).astype(np.float32)


def run(line, status=0):
    assert cli.main(shlex.split(line)) == status


def refused(capsys, line, message):
    before = sorted(os.listdir())
    run(line, 1)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert sorted(os.listdir()) == before


class Stream(io.StringIO):
    """Standard input: bytes that are piped in, or a terminal."""

    def __init__(self, content=b"", terminal=False):
        super().__init__()
        self.buffer, self.terminal = io.BytesIO(content), terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def files(tmp_path, rng, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.files, "ROWS", 24)  # so that everything comes in pieces
    checkpoints.save("m.safetensors", BOOKS, front_end=rvq_np.FrontEnd("samples", 6))
    strided = [rvq_np.Stage(book, stride=stride) for book, stride in zip(BOOKS, (4, 2, 1))]  # noqa: B905
    checkpoints.save("s.safetensors", rvq_np.Codebooks(strided))
    x = rng.standard_normal((100, 6)).astype(np.float32)
    np.save("x.npy", x)
    np.savetxt("x.csv", x, "%.9g", ",")
    np.savetxt("named.csv", x, "%.9g", ",", header="a,b,c,d,e,f", comments="")
    codes = rvq_np.encode(x, BOOKS)
    np.save("c.npy", codes)
    np.savetxt("c.csv", codes.T, "%d", ",")
    bitstream.write("c.rvq", codes, codebooks=BOOKS, frame_rate=1000, chunk_frames=16)
    return x, codes


def test_bandwidth_buys_as_many_stages_as_fit(files, capsys):
    codes = files[1]
    for kbps, n in ((3.9, 1), (4, 1), (8, 2), (11.9, 2), (12, 3), (99, 3), (0, 3), (0.1, 1)):
        run(f"encode x.npy -m m.safetensors -o y.npy --frame-rate 1000 --bandwidth {kbps}")
        np.testing.assert_array_equal(np.load("y.npy"), codes[:n])
    run("encode x.npy -m m.safetensors -o y.npy --n-q 2 --threads 1")
    np.testing.assert_array_equal(np.load("y.npy"), codes[:2])
    line = "encode x.npy -m m.safetensors -o z.npy"
    refused(capsys, f"{line} --bandwidth 3 --n-q 2",
            "encode: got --bandwidth 3 and --n-q 2; expected one of them")  # fmt: skip
    refused(capsys, f"{line} --bandwidth 3",
            "got --bandwidth 3 and no vectors per second; expected --frame-rate, or a")  # fmt: skip
    refused(
        capsys, f"{line} --frame-rate 9 --bandwidth nan", "--bandwidth is nan; expected a finit"
    )
    refused(capsys, f"{line} --threads 0", "threads is 0")


def test_bandwidth_counts_the_strides_of_stages(files, capsys):
    run("encode x.npy -m s.safetensors -o c3.rvq --frame-rate 1000 --bandwidth 3")
    with bitstream.Reader("c3.rvq") as reader:
        assert reader.strides == (4, 2)  # 1 and 2 kb/s, and a third would need 4


@pytest.mark.parametrize("name", ["c.rvq", "c.npy", "c.csv"])
@pytest.mark.parametrize("span", [(0, 100), (0, 1), (7, 55), (16, 32), (99, 100), (40, 40)])
def test_decode_takes_stages_and_frames(name, span, files):
    _, codes = files
    start, stop = span
    for n in (1, 3):
        run(f"decode {name} -m m.safetensors -o y.npy --n-q {n} --start {start} --stop {stop}")
        expected = rvq_np.decode(codes[:n, start:stop], BOOKS)
        np.testing.assert_array_equal(np.load("y.npy"), expected)
    run(f"decode {name} -m m.safetensors -o y.npy --start {start}")
    np.testing.assert_array_equal(np.load("y.npy"), rvq_np.decode(codes[:, start:], BOOKS))


def test_frames_of_stages_with_strides_are_whole_blocks(files, capsys):
    books = checkpoints.load("s.safetensors")
    run("encode x.npy -m s.safetensors -o s.rvq")
    run("encode x.npy -m s.safetensors -o s.npz")
    whole = rvq_np.decode(rvq_np.encode(files[0], books), books)
    for name in ("s.rvq", "s.npz"):
        run(f"decode {name} -m s.safetensors -o y.npy --start 8 --stop 60")
        np.testing.assert_array_equal(np.load("y.npy"), whole[8:60])
    run("decode s.rvq -m s.safetensors -o y.npy --start 8 --n-q 2")
    expected = rvq_np.decode(rvq_np.encode(files[0], books)[:2], books)
    np.testing.assert_array_equal(np.load("y.npy"), expected[8:])
    refused(capsys, "decode s.rvq -m s.safetensors -o z.npy --start 6",
            "--start is 6 and --stop 100; expected 0 <= start <= stop <= 100, the number "
            "of frames, multiples of 4")  # fmt: skip


def test_stages_and_frames_that_are_not_there_are_refused(files, capsys):
    line = "decode c.rvq -m m.safetensors -o z.npy"
    refused(capsys, f"{line} --n-q 4", "decode: --n-q is 4; expected 1 to 3, as there are 3 stages")
    refused(capsys, f"{line} --n-q 0", "decode: --n-q is 0; expected 1 to 3")
    for given in ("--start -1", "--start 9 --stop 8", "--stop 101"):
        refused(capsys, f"{line} {given}", "expected 0 <= start <= stop <= 100, the number of ")


JSON = {
    "fit x.npy -o f.safetensors --n-q 2 --bins 4 --iterations 1 --json": (
        "stages",
        1,
        "codewords",
        4,
    ),
    "encode x.npy -m m.safetensors -o e.rvq --n-q 2 --json": ("stages", 2),
    "decode c.rvq -m m.safetensors -o d.npy --stop 9 --json": ("frames", 9),
    "info m.safetensors --json": ("each_stage", 2, "codewords", 16),
    "info m.safetensors --codes c.rvq --json": ("usage_of", "c.rvq"),
    "info c.rvq --json": ("each_stage", 0, "codes", 100),
    "verify c.rvq --json": ("checksums_match", True),
    "convert m.safetensors -o v.safetensors --n-q 1 --json": ("sizes", [16]),
    "bench --dim 2 --bins 4 --n-q 1 --rows 4 --json": ("codewords", 4),
}


@pytest.mark.parametrize("line", JSON)
def test_results_come_as_one_json_object(line, files, capsys):
    run(line)
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    *path, expected = JSON[line]
    for each in path:
        found = found[each]
    assert found == expected


def test_json_holds_numbers_that_json_has():
    given = {
        "a": np.float32(1.5),
        "b": float("nan"),
        "c": (1, np.arange(2)),
        "d": Path("x"),
        1: None,
    }
    text = json.dumps(said.plain(given), allow_nan=False)
    assert json.loads(text) == {"a": 1.5, "b": None, "c": [1, [0, 1]], "d": "x", "1": None}


def test_the_json_of_a_command_goes_beside_its_bytes(files, capfdbinary):
    run("encode x.npy -m m.safetensors -o - --json")
    out, err = capfdbinary.readouterr()
    assert out[:4] == b"\x89RVQ"
    assert json.loads(err)["frames"] == 100


@pytest.mark.parametrize("name", ["x.npy", "x.csv", "named.csv"])
def test_vectors_come_from_standard_input(name, files, monkeypatch, capsys):
    content = Path(name).read_bytes()
    monkeypatch.setattr(sys, "stdin", Stream(content))
    run("encode - -m m.safetensors -o y.npy")
    np.testing.assert_array_equal(np.load("y.npy"), files[1])
    run(f"fit {name} -o one.safetensors --n-q 1 --bins 4")
    monkeypatch.setattr(sys, "stdin", Stream(content))
    run("fit - -o two.safetensors --n-q 1 --bins 4")
    assert Path("one.safetensors").read_bytes() == Path("two.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["c.rvq", "c.npy", "c.csv"])
def test_codes_come_from_standard_input(name, files, monkeypatch, capsys):
    content = Path(name).read_bytes()
    monkeypatch.setattr(sys, "stdin", Stream(content))
    run("decode - -m m.safetensors -o y.npy")
    np.testing.assert_array_equal(np.load("y.npy"), rvq_np.decode(files[1], BOOKS))
    monkeypatch.setattr(sys, "stdin", Stream(content))
    run("info m.safetensors --codes -")
    if name == "c.rvq":
        for line in ("verify -", "info -"):
            monkeypatch.setattr(sys, "stdin", Stream(content))
            run(line)
            assert "100 frames" in capsys.readouterr().out.replace(
                "frames               100", "100 frames"
            )


def test_two_commands_are_a_pipe(files):
    """As processes: what one writes, the other reads."""
    command = f"{sys.executable} -m rvq_np"
    done = subprocess.run(
        f"{command} encode - -m m.safetensors -o - < x.npy | {command} decode - -m m.safetensors "
        "-o - > y.npy",
        shell=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_array_equal(np.load("y.npy"), rvq_np.decode(files[1], BOOKS))


def test_streams_that_make_no_sense_are_refused(files, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Stream(terminal=True))
    refused(
        capsys, "encode - -m m.safetensors -o z.npy", "- is standard input, which is a terminal"
    )
    monkeypatch.setattr(sys, "stdin", Stream())
    for line, option in (
        ("encode x.npy -m - -o z.npy", "--model"),
        ("fit x.npy -o z.safetensors --start -", "--start"),
        ("fit x.npy -o z.safetensors --checkpoint -", "--checkpoint"),
        ("convert - -o z.safetensors", "--model"),
        ("demo --wav - -o z", "--wav"),
    ):
        name = line.split()[0]
        refused(capsys, line, f"{name}: {option} is -, standard input; expected a file")
    refused(capsys, "info - --codes -", "info: codes and model are both -; expected one of them")
    refused(capsys, "encode - -m m.safetensors -o z.npy", "standard-input.empty'")
    assert not [each for each in os.listdir() if "standard-input" in each]


def test_text_gives_every_bit_back(files):
    codes = files[1]
    for name in ("x.csv", "named.csv"):
        run(f"encode {name} -m m.safetensors -o y.csv")
        np.testing.assert_array_equal(np.loadtxt("y.csv", int, delimiter=",", skiprows=1).T, codes)
    run("decode c.rvq -m m.safetensors -o y.csv")
    lines = Path("y.csv").read_text().splitlines()
    assert lines[0] == "dim_0,dim_1,dim_2,dim_3,dim_4,dim_5"
    expected = rvq_np.decode(codes, BOOKS)
    np.testing.assert_array_equal(np.float32([line.split(",") for line in lines[1:]]), expected)
    run("encode y.csv -m m.safetensors -o z.npy")  # what decode wrote is read again
    np.testing.assert_array_equal(np.load("z.npy"), rvq_np.encode(expected, BOOKS))
    run("fit x.npy -o a.safetensors --n-q 1 --bins 4")
    run("fit x.csv -o b.safetensors --n-q 1 --bins 4")
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()


def test_text_that_is_no_vectors_is_refused(files, capsys):
    for content in ("1,2\n3\n", "1,2\n3,x\n", "a,b\nc,d\n"):
        Path("bad.csv").write_text(content)
        refused(capsys, "encode bad.csv -m m.safetensors -o z.npy",
                "'bad.csv' is not a .csv file of vectors")  # fmt: skip
    Path("bad.csv").write_text("1,2\n3,4\n")
    refused(
        capsys, "encode bad.csv -m m.safetensors -o z.npy", "x has shape (2, 2); expected (N, 6)"
    )
    Path("bad.csv").write_text("1,2,3,4,5,nan\n")
    refused(capsys, "encode bad.csv -m m.safetensors -o z.npy", "holds nan at (0, 5)")
    np.save("bdt.npy", np.zeros((2, 6, 5), np.float32))
    run("encode bdt.npy -m m.safetensors -o several.rvq")
    for ending in ("csv", "parquet"):
        refused(capsys, f"decode several.rvq -m m.safetensors -o z.{ending}",
                "cannot hold vectors of several streams")  # fmt: skip


@pytest.mark.quick
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_command_ends_its_help_with_lines_that_parse(name, capsys):
    every = parser.made()
    (commands,) = (a for a in every._actions if isinstance(a, argparse._SubParsersAction))
    assert set(commands.choices) == set(EXAMPLES)
    text = commands.choices[name].format_help()
    assert text.rstrip().endswith(EXAMPLES[name].strip().splitlines()[-1])
    for line in EXAMPLES[name].strip().splitlines():
        (asked,) = re.findall(r"rvq-np ([^>|]*)", line)
        options = every.parse_args(shlex.split(asked))
        assert options.command == name


@pytest.mark.quick
def test_every_choice_is_listed_and_every_result_has_json():
    every = parser.made()
    (commands,) = (a for a in every._actions if isinstance(a, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        assert "--json" in command._option_string_actions
        for action in command._actions:
            assert action.help, (name, action.dest)
            if isinstance(action.default, (int, float)) and not isinstance(action.default, bool):
                assert f"default: {action.default}" in action.help, (name, action.dest)
    families = commands.choices["info"]._option_string_actions["--family"].help
    for family in checkpoints.families():
        assert family in families
    written = [name for name in checkpoints.families()
               if hasattr(import_module(f"rvq_np.checkpoints.{name}"), "entries")]  # fmt: skip
    assert sorted(parser.EXPORTED) == written
    same = {"--n-q", "--bins", "--seed", "--column", "--front-end", "--model", "--json", "--output"}
    for option in same:
        kinds = {
            command._option_string_actions[option].type
            for command in commands.choices.values()
            if option in command._option_string_actions and option != "--bins"
        }
        assert len(kinds) <= 1, option


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_completes_commands_and_options(shell, capsys):
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as ended:
        cli.main(["--print-completion", shell])
    assert ended.value.code == 0
    script = capsys.readouterr().out
    for each in ("encode", "--bandwidth", "--beam-size", "verify"):
        assert each.lstrip("-") in script
    if shell == "bash":
        asked = "COMP_WORDS=(rvq-np enc); COMP_CWORD=1; _shtab_rvq_np; echo ${COMPREPLY[@]}"
        done = subprocess.run(["bash"], input=script + asked, capture_output=True, text=True)
        assert done.stdout.split() == ["encode"]


def test_without_shtab_completion_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as ended:
        cli.main(["--print-completion", "bash"])
    assert ended.value.code == 1
    assert (
        "--print-completion needs shtab, which is not installed. Run pip install 'rvq-np[cli]'"
        in (capsys.readouterr().err)
    )


def test_without_pyarrow_parquet_names_the_extra(files, monkeypatch, capsys):
    for name in [each for each in sys.modules if each.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    Path("x.parquet").write_bytes(b"PAR1" + bytes(20))
    for line in ("encode x.parquet -m m.safetensors -o z.npy",
                 "encode x.npy -m m.safetensors -o z.parquet",
                 "decode c.rvq -m m.safetensors -o z.parquet"):  # fmt: skip
        refused(capsys, line, "Parquet needs pyarrow. Run pip install 'rvq-np[ids]'")
