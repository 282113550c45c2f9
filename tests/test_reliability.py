"""What happens when the machine fails: full disks, kills, interruptions, no place for a cache."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import rvq_np
from rvq_np import bitstream, checkpoints, cli
from rvq_np.errors import ModelFileError, StateError

ROOT = Path(rvq_np.__file__).parents[1]


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def python(code, cwd, **environment):
    """Run a script in a process of its own; return the process."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=cwd, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


# Full disks.


@contextlib.contextmanager
def disk_of(size):
    """Let no file of this process grow beyond `size` bytes: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def save_model(path, rng):
    quantizer = rvq_np.ResidualVectorQuantizer(8, 8, 2, 64, rng=rng)
    quantizer(normal(rng, 200, 8), 50)
    quantizer.save(path)


WRITERS = {
    "container": lambda path, rng: bitstream.write(
        path, rng.integers(0, 1024, (4, 5000)), sizes=[1024] * 4
    ),
    "codebooks": lambda path, rng: checkpoints.save(path, normal(rng, 2, 64, 16)),
    "model": save_model,
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("size", [0, 1, 100, 4000])
def test_a_full_disk_leaves_the_old_file(kind, size, rng, tmp_path):
    path = tmp_path / "a.file"
    WRITERS[kind](path, rng)
    before = path.read_bytes()
    assert len(before) > 4000
    with disk_of(size), pytest.raises(OSError):
        WRITERS[kind](path, rng)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.file"]


@pytest.mark.parametrize("more", [0, 10, 1000, 6000])
def test_a_full_disk_during_an_append_leaves_what_was_there(more, rng, tmp_path):
    path = tmp_path / "a.rvq"
    codes = rng.integers(0, 1024, (4, 2000))
    bitstream.write(path, codes, sizes=[1024] * 4)
    with disk_of(path.stat().st_size + more), pytest.raises(OSError):
        bitstream.append(path, codes)
    np.testing.assert_array_equal(bitstream.read(path).codes, codes)
    bitstream.append(path, codes)
    assert bitstream.read(path).codes.shape == (4, 4000)


@pytest.mark.parametrize("line", ["encode x.npy -m m.safetensors -o out.rvq",
                                  "encode x.npy -m m.safetensors -o out.npy",
                                  "convert m.safetensors -o out.safetensors"])  # fmt: skip
def test_a_full_disk_is_one_line_of_the_command(line, rng, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoints.save("m.safetensors", normal(rng, 2, 64, 16))
    np.save("x.npy", normal(rng, 5000, 16))
    before = sorted(os.listdir())
    with disk_of(2000):
        assert cli.main(line.split()) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(os.listdir()) == before


# Kills.

KILLED = """
    import os, signal, sys
    import numpy as np
    from rvq_np import bitstream, checkpoints, newfile
    left = int(sys.argv[1])
    real = os.write

    def dying(function):
        def call(*arguments):
            global left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return function(*arguments)
        return call

    class File:
        def __init__(self, file):
            self.file = file
        def __getattr__(self, name):
            found = getattr(self.file, name)
            return dying(found) if name in ("write", "flush", "truncate", "seek") else found

    os.fsync, os.replace, os.chmod = map(dying, (os.fsync, os.replace, os.chmod))
    real_new = newfile.NewFile.__init__
    def init(self, path):
        real_new(self, path)
        self.file = File(self.file)
    newfile.NewFile.__init__ = init
    codes = np.arange(40).reshape(2, 20) % 7
    if sys.argv[2] == "write":
        bitstream.write("a.rvq", codes, sizes=[7, 7], chunk_frames=5)
    elif sys.argv[2] == "save":
        checkpoints.save("a.rvq", np.ones((2, 3, 4), np.float32))
    else:
        with open("a.rvq", "r+b") as file:
            bitstream.append(File(file), codes, chunk_frames=5)
    print("done")
"""


@pytest.mark.parametrize("kind", ["write", "append", "save"])
def test_a_kill_at_any_step_leaves_a_whole_file(kind, tmp_path):
    """Before every call that touches the disk: the old file is there, or the new one."""
    old = np.arange(30).reshape(2, 15) % 7
    script = textwrap.dedent(KILLED)
    (tmp_path / "killed.py").write_text(script)
    outcomes = set()
    step = 0
    while "done" not in outcomes:
        bitstream.write(tmp_path / "a.rvq", old, sizes=[7, 7])
        before = (tmp_path / "a.rvq").read_bytes()
        done = subprocess.run(
            [sys.executable, "killed.py", str(step), kind], cwd=tmp_path, capture_output=True,
            text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        if done.returncode == 0:
            outcomes.add("done")
        if kind == "save":
            same = (tmp_path / "a.rvq").read_bytes() == before
            if not same:
                assert checkpoints.load(tmp_path / "a.rvq").n_q == 2
            outcomes.add("old" if same else "new")
        else:
            codes = bitstream.read(tmp_path / "a.rvq").codes
            new = np.arange(40).reshape(2, 20) % 7
            new = np.concatenate([old, new], axis=1) if kind == "append" else new
            found = "old" if codes.shape == old.shape else "new"
            np.testing.assert_array_equal(codes, old if found == "old" else new)
            outcomes.add(found)
        step += 1
    assert outcomes >= {"old", "new", "done"}
    assert step > 4


# No place for anything.


def test_codes_come_where_nothing_can_be_written(tmp_path, rng):
    """A package and caches that are read-only, and no home: kernels are compiled, not kept."""
    if os.geteuid() == 0:  # whom no permission stops: folders that cannot be
        blocked = "/proc/self/nothing"
    else:
        blocked = str(tmp_path / "locked")
        os.mkdir(blocked, 0o500)
    code = """
        import numpy as np, rvq_np
        from rvq_np.kernels import host
        host.load()
        x = np.arange(600, dtype=np.float32).reshape(100, 6) % 7
        print(rvq_np.encode(x, x[None, :9]).sum(), host.kernels.__name__)
    """
    done = python(
        code, tmp_path, NUMBA_CACHE_DIR=blocked, HOME=blocked, XDG_CACHE_HOME=blocked,
        TMPDIR=str(tmp_path),
    )  # fmt: skip
    x = np.arange(600, dtype=np.float32).reshape(100, 6) % 7
    wanted = rvq_np.encode(x, x[None, :9]).sum()
    assert done.stdout.split()[0] == str(wanted), done.stderr


# Many at once.


def test_sixty_four_threads_share_one_quantizer(rng):
    quantizer = rvq_np.ResidualVectorQuantizer(8, 8, 4, 64, rng=0)
    quantizer(normal(rng, 500, 8), 50)
    quantizer.eval()
    batches = [normal(rng, int(rng.integers(1, 400)), 8) for _ in range(64)]
    wanted = [quantizer.encode(x, 50) for x in batches]
    fresh = rvq_np.ResidualVectorQuantizer.made_of(
        quantizer.config, quantizer._states, quantizer._projections
    ).eval()  # whose tables nobody has laid out yet
    with ThreadPoolExecutor(64) as pool:
        for _ in range(5):
            for found, codes in zip(pool.map(lambda x: fresh.encode(x, 50), batches), wanted,
                                    strict=True):  # fmt: skip
                np.testing.assert_array_equal(found, codes)


def test_threads_write_and_read_files_of_their_own(rng, tmp_path):
    codes = [rng.integers(0, 64, (2, 500)) for _ in range(32)]

    def round_trip(number):
        path = tmp_path / f"{number}.rvq"
        bitstream.write(path, codes[number], sizes=[64, 64])
        return bitstream.read(path).codes

    with ThreadPoolExecutor(16) as pool:
        for found, wanted in zip(pool.map(round_trip, range(32)), codes, strict=True):
            np.testing.assert_array_equal(found, wanted)


# Interruptions of a fit.


class Interrupted(KeyboardInterrupt):
    pass


def interrupt_at(level, iteration):
    def callback(progress):
        if (progress.level, progress.iteration) == (level, iteration):
            raise Interrupted

    return callback


def fitted(x, rng=0, **arguments):
    made = rvq_np.ResidualVectorQuantizer(6, made_with.get("codebook_dim", 6), 3, 16, rng=rng)
    return made, lambda **more: made.fit(x, iterations=6, rows_per_word=20, **arguments, **more)


made_with: dict[str, int] = {}


@pytest.mark.parametrize("width", [6, 4])
@pytest.mark.parametrize(("level", "iteration"), [(0, 1), (1, 1), (1, 4), (2, 2)])
def test_an_interrupted_fit_goes_on_to_the_same_words(
    width, level, iteration, rng, tmp_path, monkeypatch
):
    monkeypatch.setitem(made_with, "codebook_dim", width)
    x, path = normal(rng, 900, 6), tmp_path / "fit.safetensors"
    whole, fit = fitted(x)
    fit()
    stopped, fit = fitted(x)
    before = stopped.state_dict()
    with pytest.raises(Interrupted):
        fit(callback=interrupt_at(level, iteration), checkpoint=path)
    for name, value in stopped.state_dict().items():
        np.testing.assert_array_equal(value, before[name])  # nothing is half trained
    assert path.exists() == (level > 0)
    for quantizer, again in (fitted(x), (stopped, fit)):  # a new process, or the same object
        seen = []
        kept = path.read_bytes() if path.exists() else None
        again(checkpoint=path, callback=lambda told, seen=seen: seen.append(told.level))
        assert min(seen) == level  # earlier ones are not trained again
        for name, value in whole.state_dict().items():
            np.testing.assert_array_equal(quantizer.state_dict()[name], value)
        assert not path.exists()
        if kept is None:
            break
        path.write_bytes(kept)
    assert whole._rng.random() == quantizer._rng.random()


def test_a_fit_that_is_interrupted_without_a_checkpoint_can_begin_again(rng):
    x = normal(rng, 900, 6)
    quantizer, fit = fitted(x)
    with pytest.raises(Interrupted):
        fit(callback=interrupt_at(1, 2))
    assert not quantizer.is_initialized
    fit()
    assert quantizer.is_initialized


def test_a_checkpoint_of_another_fit_is_refused(rng, tmp_path):
    x, path = normal(rng, 900, 6), tmp_path / "fit.safetensors"
    quantizer, fit = fitted(x)
    with pytest.raises(Interrupted):
        fit(callback=interrupt_at(1, 2), checkpoint=path)
    kept = path.read_bytes()
    other = fitted(normal(rng, 900, 6))[1]
    with pytest.raises(StateError, match=r"fit\.safetensors.*is a checkpoint of another fit"):
        other(checkpoint=path)
    with pytest.raises(StateError, match="another fit"):
        quantizer.fit(x, iterations=7, rows_per_word=20, checkpoint=path)
    assert path.read_bytes() == kept
    quantizer.save(tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError, match="no checkpoint of a fit"):
        fit(checkpoint=tmp_path / "model.safetensors")
    path.write_bytes(kept[:-10])
    with pytest.raises(ModelFileError, match="no readable safetensors file"):
        fit(checkpoint=path)


def test_the_record_of_fuzzing_is_what_was_asked_for():
    told = json.loads((ROOT / "docs" / "reliability.json").read_text())
    assert sum(run["inputs"] for run in told["fuzzing"]) >= 10_000_000
    for run in told["fuzzing"]:
        assert run["accepted"] + run["refused"] + run["findings"] == run["inputs"]
        assert run["findings"] == 0
