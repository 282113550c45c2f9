"""The one writer of files: what stays when a file is replaced, and what is written into."""

import contextlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rvq_np
from rvq_np import bitstream, checkpoints, cli
from rvq_np.files import atomic, safetensors, wav

ROOT = Path(rvq_np.__file__).parents[1]
BOOKS = np.random.default_rng(0).standard_normal((2, 8, 4)).astype(np.float32)
CODES = np.arange(40).reshape(2, 20) % 8
X = np.random.default_rng(1).standard_normal((60, 4)).astype(np.float32)


def quantizer():
    return rvq_np.ResidualVectorQuantizer(4, 4, n_q=2, bins=4, rng=0)


def run(line, status=0):
    assert cli.main([str(each) for each in line]) == status


def pictures():
    pytest.importorskip("matplotlib")
    return rvq_np.plot


def compiled(targets):
    return bytes(50), {"targets": [], "system": "any"}


def interrupted_fit(path):
    """Leave the resume file of a fit of which the first stage is done."""

    def stop(info):
        if info.stage == 1:
            raise InterruptedError

    with contextlib.suppress(InterruptedError):
        quantizer().fit(X, iterations=1, checkpoint=path, callback=stop)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rvq_np.kernels.ahead.build", compiled)
    checkpoints.save("m.safetensors", BOOKS, front_end=rvq_np.FrontEnd("samples", 4))
    np.save("x.npy", X)
    np.save("c.npy", CODES)
    bitstream.write("c.rvq", CODES, codebooks=BOOKS, frame_rate=1000)
    strided = [rvq_np.Stage(BOOKS[0], stride=2), rvq_np.Stage(BOOKS[1])]
    checkpoints.save("s.safetensors", rvq_np.Codebooks(strided))
    return tmp_path


# Everything that is written under a name that a user gave, and the ending it is written under.
WRITERS = {
    "model": (".safetensors", lambda path: quantizer().save(path)),
    "codebooks": (".safetensors", lambda path: checkpoints.save(path, BOOKS)),
    "container": (".rvq", lambda path: bitstream.write(path, CODES, sizes=(8, 8))),
    "sound": (".wav", lambda path: wav.write(path, np.zeros(50), 8000)),
    "resume file": (".safetensors", interrupted_fit),
    "fit": (".safetensors", lambda path: run(
        ["fit", "x.npy", "-o", path, "--n-q", 1, "--bins", 4, "--iterations", 1])),
    "codes": (".npy", lambda path: run(["encode", "x.npy", "-m", "m.safetensors", "-o", path])),
    "codes of strides": (".npz", lambda path: run(
        ["encode", "x.npy", "-m", "s.safetensors", "-o", path])),
    "codes in a container": (".rvq", lambda path: run(
        ["encode", "x.npy", "-m", "m.safetensors", "-o", path])),
    "vectors": (".npy", lambda path: run(["decode", "c.npy", "-m", "m.safetensors", "-o", path])),
    "samples": (".wav", lambda path: run(["decode", "c.rvq", "-m", "m.safetensors", "-o", path])),
    "convert": (".safetensors", lambda path: run(["convert", "m.safetensors", "-o", path])),
    "kernels": (".so", lambda path: run(["compile", "-o", path])),
    "curves": (".png", lambda path: pictures().rate_distortion([1, 2], {"a": [3, 4]}, path)),
    "bars": (".png", lambda path: pictures().buckets(CODES, (8, 8), path)),
}  # fmt: skip
every_writer = pytest.mark.parametrize("kind", WRITERS)


def written(kind):
    """Return what a writer writes into a new regular file."""
    ending, write = WRITERS[kind]
    write(f"expected{ending}")
    content = Path(f"expected{ending}").read_bytes()
    Path(f"expected{ending}").unlink()
    assert len(content) > 40
    return content


@every_writer
def test_a_link_stays_and_its_target_is_replaced(kind, folder):
    ending, write = WRITERS[kind]
    expected = written(kind)
    (folder / "sub").mkdir()
    if kind != "resume file":  # which continues what is there
        (folder / f"sub/target{ending}").write_bytes(b"old")
    os.symlink(f"sub/target{ending}", f"one{ending}")
    os.symlink(f"one{ending}", f"two{ending}")
    before = sorted(os.listdir())
    write(f"two{ending}")
    assert os.path.islink(f"two{ending}") and os.path.islink(f"one{ending}")  # noqa: PT018
    assert (folder / f"sub/target{ending}").read_bytes() == expected
    assert sorted(os.listdir()) == before
    assert os.listdir("sub") == [f"target{ending}"]


@every_writer
def test_a_pipe_receives_everything(kind, folder):
    ending, write = WRITERS[kind]
    expected = written(kind)
    name = f"pipe{ending}"
    os.mkfifo(name)
    if kind == "resume file":
        with pytest.raises((OSError, ValueError), match="pipe"):  # it must be read again
            quantizer().fit(X, checkpoint=name)
        return
    reading = os.open(name, os.O_RDONLY | os.O_NONBLOCK)  # what is written here fits into a pipe
    with os.fdopen(reading, "rb") as pipe:
        write(name)
        received = pipe.read()
    assert received == expected
    assert stat.S_ISFIFO(os.stat(name).st_mode)


@every_writer
def test_mode_stays_and_new_files_have_that_of_the_process(kind, folder):
    ending, write = WRITERS[kind]
    expected = written(kind)
    if kind == "resume file":
        quantizer_at = f"f{ending}"
        interrupted_fit(quantizer_at)
        os.chmod(quantizer_at, 0o600)
        interrupted_fit(quantizer_at)
        assert stat.S_IMODE(os.stat(quantizer_at).st_mode) == 0o600
        return
    for mode in (0o600, 0o640, 0o755):
        Path(f"f{ending}").write_bytes(b"old")
        os.chmod(f"f{ending}", mode)
        write(f"f{ending}")
        assert stat.S_IMODE(os.stat(f"f{ending}").st_mode) == mode
        assert Path(f"f{ending}").read_bytes() == expected
    before = os.umask(0o027)
    try:
        write(f"g{ending}")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(f"g{ending}").st_mode) == 0o640


@every_writer
def test_a_name_of_251_bytes_is_a_name(kind, folder):
    ending, write = WRITERS[kind]
    for start in ("x", "é"):
        name = (start * 251)[: (251 - len(ending)) // len(start.encode())] + ending
        assert 250 <= len(name.encode()) <= 251
        write(name)
        assert os.path.isfile(name)


@every_writer
def test_a_missing_folder_is_named_before_the_work(kind, folder, monkeypatch, capsys):
    ending, write = WRITERS[kind]
    for module, call in (("rvq_np.codec", "encode"), ("rvq_np.codec", "decode")):
        monkeypatch.setattr(f"{module}.{call}", lambda *_, **__: pytest.fail("it began to work"))
    path = f"no/such/out{ending}"
    try:
        write(path)
    except FileNotFoundError as error:
        said = str(error)
    except AssertionError:
        said = capsys.readouterr().err
        assert said.count("\n") == 1
    assert repr(str(folder / "no/such")) in said
    assert path in said
    assert ".tmp" not in said


@every_writer
def test_a_folder_is_no_file(kind, folder, capsys):
    ending, write = WRITERS[kind]
    os.mkdir(f"d{ending}")
    try:
        write(f"d{ending}")
    except (IsADirectoryError, OSError) as error:
        said = str(error)
    except AssertionError:
        said = capsys.readouterr().err
    assert f"'d{ending}'" in said
    assert ".tmp" not in said
    assert os.listdir(f"d{ending}") == []


@pytest.mark.parametrize("kind", sorted(set(WRITERS) - {"resume file"}))  # which is read again
def test_a_device_is_written_into(kind, folder):
    ending, write = WRITERS[kind]
    os.symlink("/dev/null", f"null{ending}")
    before = sorted(os.listdir())
    write(f"null{ending}")
    assert os.path.islink(f"null{ending}")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert sorted(os.listdir()) == before


def test_a_dangling_link_creates_its_target(folder):
    os.symlink("later.safetensors", "latest")
    checkpoints.save("latest", BOOKS)
    assert os.readlink("latest") == "later.safetensors"
    assert checkpoints.load("later.safetensors").n_q == 2
    os.symlink("away/later", "dangling")
    said = r"there is no folder .*/away. to write .dangling."
    with pytest.raises(FileNotFoundError, match=said):
        checkpoints.save("dangling", BOOKS)


def test_links_in_a_circle_are_an_error_of_the_system(folder):
    os.symlink("a", "b")
    os.symlink("b", "a")
    with pytest.raises(OSError, match="'a'"):
        checkpoints.save("a", BOOKS)
    assert os.readlink("a") == "b"


def test_the_end_of_a_fit_removes_what_the_link_leads_to(folder):
    os.symlink("real.safetensors", "resume.safetensors")
    interrupted_fit("resume.safetensors")
    assert os.path.isfile("real.safetensors")
    quantizer().fit(X, iterations=1, checkpoint="resume.safetensors")
    assert not os.path.exists("real.safetensors")
    assert os.path.islink("resume.safetensors")


def test_owner_and_group_stay(folder, monkeypatch):
    Path("theirs").write_bytes(b"old")
    os.chmod("theirs", 0o640)
    given, real = [], os.stat

    def other(path, *arguments, **options):
        found = real(path, *arguments, **options)
        return os.stat_result((*found[:4], 1234, 2345, *found[6:])) if path == "theirs" else found

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", other)
        patched.setattr(os, "chown", lambda name, *owner: given.append(owner))
        checkpoints.save("theirs", BOOKS)
    assert given == [(1234, 2345)]
    assert stat.S_IMODE(os.stat("theirs").st_mode) == 0o640
    if os.geteuid() == 0:  # only root may give files away
        os.chown("theirs", 1234, 2345)
        checkpoints.save("theirs", BOOKS)
        found = os.stat("theirs")
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 2345, 0o640)


def test_rights_of_an_owner_that_cannot_be_kept_are_dropped(folder, monkeypatch):
    """A program that runs as another user must not become one that runs as this user."""
    Path("theirs").write_bytes(b"old")
    os.chmod("theirs", 0o4755)
    real = os.stat

    def other(path, *arguments, **options):
        found = real(path, *arguments, **options)
        if str(path) != "theirs":
            return found
        return os.stat_result((*found[:4], found.st_uid + 1, found.st_gid + 1, *found[6:]))

    def chown(*_):
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", other)
        patched.setattr(os, "chown", chown)
        checkpoints.save("theirs", BOOKS)
    assert stat.S_IMODE(os.stat("theirs").st_mode) == 0o755


def test_what_must_not_be_written_is_said_before_the_work(folder, monkeypatch, capsys):
    Path("kept.npy").write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("kept.npy"))
    run(["encode", "x.npy", "-m", "m.safetensors", "-o", "kept.npy"], status=1)
    assert "'kept.npy' must not be written: it is read-only" in capsys.readouterr().err
    assert Path("kept.npy").read_bytes() == b"old"
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.W_OK)
    run(["encode", "x.npy", "-m", "m.safetensors", "-o", "new.npy"], status=1)
    err = capsys.readouterr().err
    assert f"the folder {str(folder)!r} must not be written" in err
    assert "'new.npy'" in err


@pytest.mark.parametrize(("name", "said"), [
    ("", "expected the name of a file"), ("a\0b", "expected the name of a file"),
    ("x" * 256, "too long"), ("new/", "'new/' is a folder"),
])  # fmt: skip
def test_what_is_no_name_of_a_file_is_an_error_of_the_system(name, said, folder):
    before = sorted(os.listdir())
    with pytest.raises(OSError, match=said) as caught:
        checkpoints.save(name, BOOKS)
    assert ".tmp" not in str(caught.value)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("step", ["replace", "chmod", "open"])
def test_errors_name_what_the_user_named(step, folder, monkeypatch):
    Path("mine.rvq").write_bytes(b"old")
    real = os.open

    def failing(path, *arguments, **options):
        if step == "open" and not str(path).endswith(".tmp"):
            return real(path, *arguments, **options)
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patched:
        patched.setattr(os, step, failing)
        with pytest.raises(PermissionError) as caught:
            bitstream.write("mine.rvq", CODES, sizes=(8, 8))
    assert caught.value.filename == "mine.rvq"
    assert "tmp'" not in str(caught.value)
    assert Path("mine.rvq").read_bytes() == b"old"
    assert not [each for each in os.listdir() if each.endswith(".tmp")]


def test_nothing_reaches_a_pipe_when_the_work_fails(folder):
    reading, writing = os.pipe()
    new = atomic.NewFile(f"/dev/fd/{writing}")
    new.file.write(b"half")
    new.__exit__(KeyError, None, None)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b""


def test_an_open_file_is_written_into_where_it_is(folder):
    """As `command > file` opens it: a new file of that name would be of another shell's."""
    with open("log", "wb", buffering=0) as log:
        log.write(b"before ")
        number = os.stat("log").st_ino
        with atomic.NewFile(f"/dev/fd/{log.fileno()}") as new:
            new.file.write(b"between")
        log.write(b" after")
    assert Path("log").read_bytes() == b"before between after"
    assert os.stat("log").st_ino == number


def test_standard_output_takes_bytes(folder):
    code = (
        "from rvq_np.files import atomic, safetensors; import numpy as np\n"
        "print('said first')\n"
        "safetensors.write(atomic.STDOUT, {'a': np.ones(3)}, {})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    safetensors.write("-", {"a": np.ones(3)}, {})  # in Python it is the name of a file
    assert done.stdout == b"said first\n" + Path("-").read_bytes()


def test_a_mapped_result_may_be_of_any_shape(folder):
    with cli.files.written("a.npy", (3, 5), np.int32) as out:
        out[:] = np.arange(15).reshape(3, 5)
    found = np.load("a.npy", mmap_mode="r")
    np.testing.assert_array_equal(found, np.arange(15).reshape(3, 5))
    np.save("b.npy", np.arange(15, dtype=np.int32).reshape(3, 5))
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()
