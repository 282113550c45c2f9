"""What a terminal shows: characters that it has, bars, and that kernels are being compiled."""

import io
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import rvq_np
from rvq_np import bitstream, cli

ROOT = Path(rvq_np.__file__).parents[1]
CODES = np.stack([np.arange(1000) % 8, np.zeros(1000, int)])


@pytest.fixture
def stream(monkeypatch):
    """Return a function that makes standard output one of an encoding, strict as Python's."""

    def make(encoding):
        made = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
        monkeypatch.setattr(sys, "stdout", made)
        return made

    return make


def printed(stream):
    stream.flush()
    return stream.buffer.getvalue().decode(stream.encoding)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("encoding", "bar"), [("ascii", "@"), ("cp1252", "@"), ("latin-1", "@"), ("utf-8", "█")]
)
def test_info_prints_what_the_terminal_has(encoding, bar, stream, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bitstream.write("é\u4e2d.rvq", CODES, sizes=[8, 8])
    out = stream(encoding)
    assert cli.main(["info", "é\u4e2d.rvq"]) == 0
    lines = printed(out).splitlines()
    assert lines[-2].endswith(bar * 8)
    assert lines[-1].split()[-1] == bar
    shown = "é" if encoding != "ascii" else "\\xe9"
    shown += "\u4e2d" if encoding == "utf-8" else "\\u4e2d"
    assert lines[0] == f"codes                {shown}.rvq"
    assert out.errors == "strict"  # as it was


@pytest.mark.quick
def test_a_name_that_is_in_no_encoding_is_printed(stream, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"a\xff.rvq")
    bitstream.write(name, CODES, sizes=[8, 8])
    out = stream("utf-8")
    assert cli.main(["info", name]) == 0
    assert printed(out).startswith("codes                a\\udcff.rvq\n")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_process_with_such_a_terminal_ends_well(encoding, tmp_path):
    bitstream.write(tmp_path / "c.rvq", CODES, sizes=[8, 8])
    done = subprocess.run(
        [sys.executable, "-m", "rvq_np", "info", "c.rvq"], cwd=tmp_path, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding).splitlines()[-2].endswith("@" * 8)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def compile_something():
    """Compile a kernel that is in no cache."""
    import numba

    numba.njit(lambda x: x + 1)(1)


def test_a_fit_says_that_it_compiles(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    x = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    rvq = rvq_np.ResidualVectorQuantizer(4, 4, n_q=2, bins=4, rng=0)
    after = []

    def callback(info):
        if info.stage == 1 and not after:
            compile_something()
            after.append(len(sys.stderr.getvalue()))

    rvq.fit(x, iterations=2, progress=True, callback=callback)
    shown = sys.stderr.getvalue()
    assert "fit stage 2/2: compiling" in shown[: after[0]]
    assert "compiling" not in shown[after[0] :]
    assert "fit stage 2/2" in shown


@pytest.mark.parametrize("line", ["encode x.npy -m m.safetensors -o c.rvq",
                                  "decode c.rvq -m m.safetensors -o y.npy"])  # fmt: skip
def test_the_commands_say_that_they_compile(line, tmp_path, monkeypatch):
    """Also where there is one part only: compiling takes longer than the work."""
    monkeypatch.chdir(tmp_path)
    books = np.random.default_rng(0).standard_normal((2, 8, 4)).astype(np.float32)
    rvq_np.checkpoints.save("m.safetensors", books)
    np.save("x.npy", books.reshape(-1, 4))
    bitstream.write("c.rvq", rvq_np.encode(books.reshape(-1, 4), books), codebooks=books)
    name = line.split()[0]
    real = getattr(rvq_np.codec, name)

    def compiled(*arguments, **options):
        compile_something()
        return real(*arguments, **options)

    monkeypatch.setattr(rvq_np.codec, name, compiled)
    for terminal in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", terminal)
        assert cli.main(line.split()) == 0
        assert (f"{name}: compiling" in terminal.getvalue()) == terminal.isatty()


def test_bars_are_those_of_the_notebook_where_there_is_one(monkeypatch):
    """`tqdm.auto` decides: not `tqdm`, which draws text below a cell."""
    from tqdm import auto

    from rvq_np.cli import terminal
    from rvq_np.train import progress

    made = []

    class Notebook:
        def __init__(self, *_, **options):
            made.append(options.get("desc"))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, *_):
            pass

        set_description = update

    monkeypatch.setattr(auto, "tqdm", Notebook)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(terminal.shown("abc", "encode", 3)) == ["a", "b", "c"]
    with progress.reporting(None, True):
        pass
    assert made == ["encode", "fit"]


@pytest.mark.slow
def test_the_docs_need_their_extra_and_nothing_else():
    """Whatever the API pages import comes with ``pip install ".[docs]"``."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {
        group: {entry.split(">")[0].split("[")[0].replace("-", "_") for entry in entries}
        for group, entries in extras["optional-dependencies"].items()
    }
    refused = set().union(*names.values()) - names["docs"] - {"rvq_np"} | {"sklearn"}
    code = f"""
import importlib, pkgutil, re, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {sorted(refused)!r}:
            raise ImportError(f"{{name}} is not in the extra")
sys.meta_path.insert(0, Refuse())
import rvq_np
text = open("docs/api/index.rst").read() + open("docs/api/kernels.md").read()
for name in re.findall(r"^   ([a-z_]+(?:\\.\\w+)*)$", text, re.M):
    if name == "frameworks":  # a page: its modules are stood in for
        continue
    found = rvq_np
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            found = importlib.import_module(f"{{found.__name__}}.{{part}}")
    print(name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {"encode", "testing.rvq_tests", "testing.strategies"} <= set(done.stdout.split())


@pytest.mark.quick
def test_dropped_codes_do_on_the_command_line_what_they_do_in_the_library(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    books = np.random.default_rng(0).standard_normal((3, 8, 4)).astype(np.float32)
    rvq_np.checkpoints.save("m.safetensors", books)
    codes = np.arange(90).reshape(3, 30) % 8
    codes[2:, 10:20] = -1
    np.save("c.npy", codes)
    bitstream.write("c.rvq", codes, codebooks=books)
    np.savetxt("c.csv", codes.T, "%d", ",")
    try:
        expected = rvq_np.decode(codes.astype(np.int32), books)
    except rvq_np.RvqError as error:
        expected, said = None, str(error)
    for name in ("c.npy", "c.rvq", "c.csv"):
        status = cli.main(["decode", name, "-m", "m.safetensors", "-o", "y.npy"])
        err = capsys.readouterr().err
        assert status == (expected is None)
        if expected is None:
            assert said.partition(" at ")[0] in err
        else:
            np.testing.assert_array_equal(np.load("y.npy"), expected)
    tables, counts = set(), np.bincount(codes[2][codes[2] >= 0]) / 20
    perplexity = np.exp(-(counts * np.log(counts)).sum())
    for name in ("c.npy", "c.rvq", "c.csv"):  # they count as none of the codewords
        assert cli.main(["info", "m.safetensors", "--codes", name]) == 0
        tables.add(capsys.readouterr().out.partition(f"in {name}:")[2])
    (table,) = tables
    assert table.splitlines()[-1].split()[3] == f"{perplexity:.1f}"
