"""Kernels compiled ahead of time: a library is checked first, and gives the same codes."""

import ctypes
import importlib
import json
import logging
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.compared import compare
from helpers.library import native
from helpers.processor import LIBRARIES, can_run
from llvmlite import binding

from rvq_np import cli, errors
from rvq_np.kernels import ahead, compiled, prebuilt
from rvq_np.kernels.ahead import linking
from rvq_np.kernels.ahead.targets import TARGETS
from rvq_np.kernels.compiled import entries

HERE = Path(__file__).parent
ANSWERS = str(HERE / "helpers" / "answers.py")


def about(**changes):
    machine = "x86_64" if prebuilt.machine() != "x86_64" else "aarch64"
    own = {
        "system": sys.platform, "machine": prebuilt.machine(), "kernels": prebuilt.sources(),
        "targets": [{"name": "x86-64-v2", "shape": [4, 2, ["float32"], False]}],
    }  # fmt: skip
    return {
        **own,
        **{name: machine if value == "other" else value for name, value in changes.items()},
    }


@pytest.fixture
def folder(tmp_path):
    tmp_path.chmod(0o755)
    return tmp_path


def found(path, monkeypatch, caplog):
    """Return the library that a process with this one would use, and what it was warned of."""
    monkeypatch.setenv("RVQ_NP_KERNELS", str(path))
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="rvq_np"):
        library = prebuilt.library.__wrapped__()
    return library, [each.getMessage() for each in caplog.records]


def test_what_is_sealed_is_read_again(folder):
    path = folder / "kernels.so"
    path.write_bytes(prebuilt.sealed(b"binary", about()))
    assert prebuilt.contents(path) == about()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:-1], "not a whole one"),
        (lambda data: data[1:], "damaged"),
        (lambda data: b"B" + data[1:], "damaged"),
        (lambda data: b"\x7fELF" + bytes(100), "no kernel library"),
        (lambda data: b"", "no kernel library"),
        (lambda data: prebuilt.MAGIC, "damaged"),
    ],
)
def test_a_library_that_is_damaged_or_none_of_ours_is_left_alone(
    damage, reason, folder, monkeypatch, caplog
):
    path = folder / "kernels.so"
    path.write_bytes(damage(prebuilt.sealed(b"binary", about())))
    library, warned = found(path, monkeypatch, caplog)
    assert library is None
    (message,) = warned
    assert str(path) in message
    assert reason in message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"machine": "other"}, "this is"),
        ({"system": "amiga"}, "amiga"),
        ({"kernels": "of last year"}, "rvq-np compile again"),
        ({}, "invalid ELF header" if sys.platform == "linux" else ""),
    ],
)
def test_a_library_of_other_kernels_or_another_machine_is_left_alone(
    changes, reason, folder, monkeypatch, caplog
):
    path = folder / "kernels.so"
    path.write_bytes(prebuilt.sealed(b"binary", about(**changes)))
    library, warned = found(path, monkeypatch, caplog)
    assert library is None
    (message,) = warned
    assert str(path) in message
    assert reason in message


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="modes are of POSIX")
@pytest.mark.parametrize("open_to_all", ["file", "folder"])
def test_nothing_is_loaded_from_where_others_can_write(open_to_all, folder, monkeypatch, caplog):
    path = folder / "kernels.so"
    path.write_bytes(prebuilt.sealed(b"binary", about()))
    (path if open_to_all == "file" else folder).chmod(0o777)
    library, warned = found(path, monkeypatch, caplog)
    assert library is None
    (message,) = warned
    assert "others can write" in message


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="modes are of POSIX")
def test_nothing_is_loaded_from_a_folder_that_others_can_exchange(folder, monkeypatch, caplog):
    inner = folder / "open" / "closed"
    inner.mkdir(parents=True)
    path = inner / "kernels.so"
    path.write_bytes(prebuilt.sealed(b"binary", about()))
    (folder / "open").chmod(0o777)
    library, (message,) = found(path, monkeypatch, caplog)
    assert library is None
    assert message.endswith(f"others can write to {folder / 'open'}")
    (folder / "open").chmod(0o1777)  # as /tmp, where others cannot rename what is not theirs
    _, (message,) = found(path, monkeypatch, caplog)
    assert "others can write" not in message


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root gives away")
def test_nothing_is_loaded_from_where_another_group_can_write(folder, monkeypatch, caplog):
    path = folder / "kernels.so"
    path.write_bytes(prebuilt.sealed(b"binary", about()))
    os.chown(path, 0, 12345)
    path.chmod(0o664)
    library, (message,) = found(path, monkeypatch, caplog)
    assert library is None
    assert message.endswith(f"others can write to {path}")
    os.chown(path, 12345, 0)
    library, (message,) = found(path, monkeypatch, caplog)
    assert library is None
    assert message.endswith(f"{path} belongs to another user")


def test_a_library_that_is_named_but_not_there_is_one_warning(folder, monkeypatch, caplog):
    library, warned = found(folder / "none.so", monkeypatch, caplog)
    assert library is None
    assert len(warned) == 1
    assert "none.so" in warned[0]
    assert "No such file" in warned[0]


def test_no_library_is_no_warning(monkeypatch, caplog):
    assert found("0", monkeypatch, caplog) == (None, [])


@pytest.mark.quick
def test_every_kernel_that_python_calls_is_compiled_ahead_of_time():
    called = set()
    for module in pkgutil.iter_modules(compiled.__path__):
        code = importlib.import_module(f"{compiled.__name__}.{module.name}")
        for name, kernel in vars(code).items():
            body = getattr(getattr(kernel, "py_func", None), "__module__", None)
            own = (code.__name__, code.__name__.replace("compiled", "plain"))  # one body for both
            if body in own and kernel.targetoptions.get("_nrt", True):
                called.add(f"{module.name}.{name}")
    assert called == set(entries.ENTRIES)


def test_signatures_are_those_of_the_screens_there_are():
    of_all = list(entries.signatures("beam.encode", ("uint8", "int16", "float32")))
    assert len(of_all) == len(set(of_all)) == 6
    (only, wide) = entries.signatures("beam.encode", ("float32",))
    assert only in of_all
    assert wide in of_all
    assert only.startswith("f2 l f1 f1 d1 f1 f2 n")
    assert wide.startswith("d2 l d1 d1 d1 f1 f2 n")
    assert list(entries.signatures("bits.pack", ("int16",))) == ["i1 l l I1"]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["i386"], r"got target i386; expected native, x86-64-v4\+vnni"),
        ([], "got target none"),
        (["aarch64", "x86-64-v2"], "a library is for one"),
    ],
)
def test_targets_that_cannot_be_are_refused_by_name(targets, message):
    with pytest.raises(errors.ParameterError, match=message):
        ahead.build(targets)


def test_a_compiler_that_is_not_there_is_named_before_any_work(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(errors.BackendError, match=r"no C compiler no-such-compiler; install"):
        ahead.build(["native"])


def test_a_compiler_without_a_linker_says_so(tmp_path):
    alone = tmp_path / "cc"
    alone.write_text("#!/bin/sh\necho \"cannot execute 'ld'\" >&2\nexit 1\n")
    alone.chmod(0o755)
    with pytest.raises(errors.BackendError, match=r"(?s)with its linker .*cannot execute 'ld'"):
        linking._linked(tmp_path, "x86_64", str(alone))


def test_the_packages_of_a_cross_compiler_are_named(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    foreign = "x86-64-v2" if prebuilt.machine() == "aarch64" else "aarch64"
    expected = r"\(Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross\)"
    with pytest.raises(errors.BackendError, match=expected if foreign == "aarch64" else "install"):
        ahead.build([foreign])


A_CALL = """
import numpy as np, rvq_np
print(rvq_np.encode(np.float32([[5, 4], [0, 1]]), np.float32([[[0, 0], [4, 4]], [[0, 1], [1, 0]]])))
"""


@pytest.mark.parametrize("damage", ["not there", "damaged", "of other kernels", "not ours"])
def test_a_process_with_a_bad_library_has_its_codes_and_one_warning(damage, folder):
    path = folder / "kernels.so"
    whole = prebuilt.sealed(b"binary", about(**({"kernels": "x"} if "other" in damage else {})))
    if damage != "not there":
        path.write_bytes({"damaged": whole[1:], "not ours": b"\x7fELF"}.get(damage, whole))
    done = subprocess.run(
        [sys.executable, "-c", A_CALL], capture_output=True, text=True, cwd=HERE.parent,
        env={**os.environ, "RVQ_NP_KERNELS": str(path)},
    )  # fmt: skip
    assert done.stdout == "[[1 0]\n [1 0]]\n"
    (line,) = done.stderr.splitlines()
    assert str(path) in line
    assert "is not used" in line


@pytest.mark.parametrize("output", ["kernels", "kernels.txt", "nowhere/kernels.so"])
def test_a_library_that_cannot_be_written_is_refused_before_any_work(
    output, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(ahead, "build", lambda targets: pytest.fail("it was compiled"))
    assert cli.main(["compile", "-o", str(tmp_path / output)]) == 1
    assert output.split("/")[0] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_compiled_takes_its_place_as_a_whole(folder, monkeypatch, capsys):
    made = {"targets": [{"name": "native"}], "system": "linux"}
    monkeypatch.setattr(ahead, "build", lambda targets: (b"new", made))
    path = folder / "kernels.so"
    path.write_bytes(b"the old one")
    path.chmod(0o600)
    assert cli.main(["compile", "-o", str(path)]) == 0
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)


def test_answers_that_differ_are_found():
    here = {
        "engine": "Numba",
        "compiler": ["numba"],
        "answers": {"codes": "a", "projected, 9": "b"},
    }
    there = {"engine": "NumPy", "compiler": [], "answers": {"codes": "a", "projected, 9": "b"}}
    other = {"codes": "a", "projected, 9": "c"}
    assert compare(here, there, "NumPy") == []
    assert compare(here, {**there, "answers": other}, "NumPy") == []
    library = {**there, "engine": "library for aarch64"}
    assert compare(here, {**library, "answers": other}, library["engine"])
    assert compare(here, {**there, "answers": {**other, "codes": "b"}}, "NumPy")
    assert compare(here, {**there, "answers": {}}, "NumPy")
    assert compare(here, there, library["engine"])
    assert compare(here, {**there, "compiler": ["numba"]}, "NumPy")


X86 = [name for name, target in TARGETS.items() if target.machine == "x86_64"]
on_x86 = pytest.mark.skipif(prebuilt.machine() != "x86_64", reason="targets of x86-64")


@pytest.mark.parametrize(
    ("lacks", "expected"),
    [
        ((), "x86-64-v4+vnni"),
        (("avx512vnni",), "x86-64-v4"),
        (("avx512vnni", "avx512f"), "x86-64-v3+vnni"),
        (("avx512vnni", "avx512f", "avxvnni"), "x86-64-v3"),
        (("avx2",), "x86-64-v2"),
    ],
)
@on_x86
def test_native_is_the_most_capable_target_of_a_processor(lacks, expected, monkeypatch):
    has = {each: True for name in X86 for each in TARGETS[name].features}
    monkeypatch.setattr(
        "llvmlite.binding.get_host_cpu_features", lambda: has | dict.fromkeys(lacks, False)
    )
    assert linking._native() == expected


def linked_without_kernels(folder, targets):
    """Return the path of a shared library for `targets` that has none of their kernels."""
    path, machine = folder / "none.so", prebuilt.machine()
    (folder / "table.c").write_text(linking._table({name: {"kernels": []} for name in targets}))
    path.write_bytes(linking._linked(folder, machine, linking._compiler(machine)))
    return path


def test_a_library_without_a_kernel_is_left_alone(folder, monkeypatch, caplog):
    target = linking._native()
    path = linked_without_kernels(folder, [target])
    shape = {"name": target, "shape": [4, 2, ["float32"], False]}
    path.write_bytes(prebuilt.sealed(path.read_bytes(), about(targets=[shape])))
    library, (message,) = found(path, monkeypatch, caplog)
    assert library is None
    assert message == f"the kernel library {path} is not used: it has no kernel search.encode"


def test_a_library_for_better_processors_only_is_left_alone(folder, monkeypatch, caplog):
    target = linking._native()
    monkeypatch.setitem(TARGETS, target, TARGETS[target]._replace(check="0"))
    path = linked_without_kernels(folder, [target])
    shape = {"name": target, "shape": [4, 2, ["float32"], False]}
    path.write_bytes(prebuilt.sealed(path.read_bytes(), about(targets=[shape])))
    library, (message,) = found(path, monkeypatch, caplog)
    assert library is None
    assert message.endswith(f"it is for {target}, and this processor has none of these")


@on_x86
def test_a_library_knows_which_of_its_targets_a_processor_supports(folder):
    supported = ctypes.PyDLL(str(linked_without_kernels(folder, X86))).rvq_np_supported
    has = {name for name, there in dict(binding.get_host_cpu_features()).items() if there}
    for number, name in enumerate(X86):
        assert bool(supported(number)) == (has >= set(TARGETS[name].features)), name


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return native(tmp_path_factory)


def run(library, *arguments):
    environment = {**os.environ, "RVQ_NP_KERNELS": str(library)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=HERE.parent, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_library_gives_the_same_bits_and_needs_no_compiler(library):
    made = json.loads(run(library, ANSWERS))
    assert made["engine"] == f"library for {made['engine'].rpartition(' ')[2]}"
    assert made["compiler"] == []
    expected = json.loads(run("0", ANSWERS))
    assert expected["engine"] == "Numba"
    assert expected["compiler"] == ["llvmlite", "numba"]
    assert made["answers"] == expected["answers"]


@pytest.mark.slow
@pytest.mark.parametrize("target", can_run(LIBRARIES, LIBRARIES))
@on_x86
def test_a_library_for_less_than_the_processor_has_gives_the_same_bits(target, tmp_path_factory):
    made = json.loads(run(native(tmp_path_factory, target), ANSWERS))
    assert made["engine"] == f"library for {target}"
    assert made["compiler"] == []
    assert made["answers"] == json.loads(run("0", ANSWERS))["answers"]


@pytest.mark.slow
def test_what_holds_for_compiled_kernels_holds_for_those_of_a_library(library):
    files = ["test_backends.py::TestNumba", "test_backends.py::TestNumbaFloat64", "test_codec.py"]
    files += ["test_train.py", "test_quantizer.py", "test_bitstream.py", "test_folded_maps.py"]
    said = run(library, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow",
               *(str(HERE / each) for each in files))  # fmt: skip
    assert " passed" in said
