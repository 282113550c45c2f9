"""``rvq-np compile --wheel``: what it refuses, and that its wheel is a whole, fast runtime."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from helpers import library
from helpers.compared import compare

from rvq_np import cli
from rvq_np.cli import wheels
from rvq_np.kernels import ahead, prebuilt

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "rvq_np"
NAME = "rvq_np-0.1.0-py3-none-any.whl"


@pytest.fixture
def pure(tmp_path):
    """A file with what `check` reads of a wheel: the kernels of this checkout."""
    path = tmp_path / NAME
    with zipfile.ZipFile(path, "w") as file:
        for each in (PACKAGE / "kernels").rglob("*"):
            if each.is_file() and "__pycache__" not in each.parts:
                file.write(each, Path("rvq_np", each.relative_to(PACKAGE)))
    return path


@pytest.fixture
def tools(monkeypatch):
    """As if all packages that make wheels were there."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr(ahead, "build", lambda targets: pytest.fail("it was compiled"))


def refused(wheel, folder, capsys):
    """Return why the command writes no wheel."""
    assert cli.main(["compile", "--wheel", str(wheel), "-o", str(folder)]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("name", ["rvq_np-0.1.0.tar.gz", "numpy-2.4.0-py3-none-any.whl",
                                  "rvq_np-0.1.0-py3-none-manylinux_2_17_x86_64.whl"])  # fmt: skip
def test_what_is_no_wheel_for_all_machines_is_refused(name, tmp_path, tools, no_work, capsys):
    (tmp_path / name).touch()
    said = refused(tmp_path / name, tmp_path, capsys)
    assert name in said
    assert "expected rvq_np-VERSION-py3-none-any.whl" in said


def test_packages_that_are_missing_are_named(pure, tmp_path, monkeypatch, no_work, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = refused(pure, tmp_path, capsys)
    assert "wheel" in said
    assert "pip install 'rvq-np[wheel]'" in said


def test_a_wheel_of_other_kernels_is_refused(pure, tmp_path, tools, no_work, capsys):
    with zipfile.ZipFile(pure, "a") as file:
        file.writestr("rvq_np/kernels/another.py", "")
    assert "other kernels" in refused(pure, tmp_path / "out", capsys)
    assert not (tmp_path / "out").exists()


def test_a_damaged_wheel_is_refused(pure, tmp_path, tools, no_work, capsys):
    pure.write_bytes(pure.read_bytes()[:-100])
    assert "damaged" in refused(pure, tmp_path, capsys)


def test_a_wheel_that_is_not_there_is_refused(tmp_path, tools, no_work, capsys):
    assert NAME in refused(tmp_path / NAME, tmp_path, capsys)


def test_a_wheel_of_these_kernels_is_taken(pure, tmp_path, tools, monkeypatch, capsys):
    about = {"targets": [{"name": "aarch64"}], "system": "linux", "machine": "aarch64"}
    monkeypatch.setattr(ahead, "build", lambda targets: (b"library", about))
    made = []
    monkeypatch.setattr(wheels, "make", lambda *given: made.append(given) or "dist/new.whl")
    out = tmp_path / "dist"
    assert cli.main(["compile", "--wheel", str(pure), "-o", str(out)]) == 0
    assert made == [(str(pure), b"library", about, str(out))]
    assert capsys.readouterr().out == "dist/new.whl: kernels for aarch64 on linux\n"


# From here on: a library, a wheel with it, and an environment that has nothing else.


def run(*line, cwd, **variables):
    """Return what a program prints; Python programs find the packages of `cwd`, and their own."""
    environment = {each: value for each, value in os.environ.items() if each != "PYTHONPATH"}
    environment.update(variables)
    done = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def here(*arguments, **variables):
    """Return what this Python prints, of this checkout."""
    return run(sys.executable, "-m", *arguments, cwd=HERE.parent, **variables)


class Installed(NamedTuple):
    """An environment with a wheel that has the kernels in it, and what that needs but for Numba."""

    folder: Path
    wheel: Path

    def python(self, *arguments):
        return run(str(self.folder / "bin" / "python"), *arguments, cwd=self.folder)

    def command(self, *arguments):
        return run(str(self.folder / "bin" / "rvq-np"), *map(str, arguments), cwd=self.folder)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    folder.chmod(0o755)
    here("pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(HERE.parent))
    (pure,) = folder.glob("*.whl")
    kernels = library.native(tmp_path_factory)
    wheels.check(str(pure), str(folder / "out"))
    made = wheels.make(
        str(pure), kernels.read_bytes(), prebuilt.contents(kernels), str(folder / "out")
    )
    wheel = Path(made)
    here("venv", str(folder / "venv"))
    made = Installed(folder / "venv", wheel)
    needed = [str(wheel), "numpy", "safetensors", "array-api-compat"]
    made.python("-m", "pip", "install", "-q", "--no-deps", *needed)
    return made


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="manylinux tags are of Linux")
def test_the_wheel_has_the_library_and_runs_on_old_systems(installed):
    assert f"manylinux_2_17_{prebuilt.machine()}" in installed.wheel.name
    assert f"manylinux_2_17_{prebuilt.machine()}" in here(
        "auditwheel", "show", str(installed.wheel)
    )
    with zipfile.ZipFile(installed.wheel) as file:
        assert "rvq_np/_kernels.so" in file.namelist()
        (metadata,) = (each for each in file.namelist() if each.endswith(".dist-info/WHEEL"))
        assert b"Root-Is-Purelib: false" in file.read(metadata)


@pytest.mark.slow
def test_the_wheel_is_a_whole_runtime_without_numba(installed):
    made = json.loads(installed.python(str(HERE / "helpers" / "answers.py")))
    assert Path(made["rvq_np"]).is_relative_to(installed.folder)
    assert made["engine"].startswith("library for ")
    expected = json.loads(here("helpers.answers", PYTHONPATH=str(HERE), RVQ_NP_KERNELS="0"))
    assert expected["engine"] == "Numba"
    assert compare(expected, made, made["engine"]) == []


@pytest.mark.slow
def test_the_command_runs_from_the_wheel(installed, tmp_path):
    vectors, model, codes, decoded = (
        tmp_path / each for each in ("x.npy", "m.safetensors", "x.rvq", "y.npy")
    )
    np.save(vectors, np.sin(np.arange(40000.0)).reshape(-1, 8))
    installed.command("fit", vectors, "--n-q", "2", "--bins", "16", "-o", model)
    installed.command("encode", vectors, "--model", model, "-o", codes)
    installed.command("decode", codes, "--model", model, "-o", decoded)
    assert np.load(decoded).shape == (5000, 8)
    code = "import rvq_np, sys; rvq_np.warmup(); print({'numba', 'llvmlite'} & set(sys.modules))"
    assert installed.python("-c", code) == "set()\n"


PEAK = """
with open("/proc/self/status") as file:
    print(next(int(each.split()[1]) for each in file if "VmHWM" in each))
"""
DATA = """
import numpy as np
x = np.zeros((1024, 128), np.float32)
books = np.random.default_rng(0).standard_normal((8, 1024, 128)).astype("f")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_wheel_is_small_and_needs_little_memory(installed):
    """What is there besides NumPy: at most 10 MiB of files, 60 MiB of memory."""
    (site,) = installed.folder.glob("lib/python3*/site-packages")
    names = ("rvq_np", "safetensors", "array_api_compat")
    files = [each for name in names for each in (site / name).rglob("*") if each.is_file()]
    own = [each for each in files if "__pycache__" not in each.parts]
    assert sum(each.stat().st_size for each in own) < 10 << 20
    alone = int(installed.python("-c", DATA + PEAK))
    used = int(installed.python("-c", DATA + "import rvq_np\nrvq_np.encode(x, books)" + PEAK))
    assert used - alone < 60 << 10
