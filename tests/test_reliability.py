"""What happens when the machine fails: full disks, kills, interruptions, no place for a cache."""

import contextlib
import errno
import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fuzzing.run import TARGETS

import rvq_np
from rvq_np import bitstream, checkpoints, cli
from rvq_np.errors import ModelFileError, StateError
from rvq_np.files import safetensors
from rvq_np.kernels.compiled import jit

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


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 1), (errno.EOPNOTSUPP, 0)])
def test_space_is_taken_before_a_result_is_mapped(
    number, status, rng, tmp_path, monkeypatch, capsys
):
    """Where the file system can do that."""
    monkeypatch.chdir(tmp_path)
    checkpoints.save("m.safetensors", normal(rng, 2, 64, 16))
    np.save("x.npy", normal(rng, 5000, 16))
    sizes = []

    def fail(descriptor, start, size):
        sizes.append((start, size))
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", fail, raising=False)
    assert cli.main(["encode", "x.npy", "-m", "m.safetensors", "-o", "out.npy"]) == status
    assert sizes == [(0, 128 + 4 * 2 * 5000)]
    assert os.path.exists("out.npy") == (status == 0)
    assert len(os.listdir()) == 2 + (status == 0)
    assert capsys.readouterr().err.count("\n") == status


EVERY_WRITER = """
    import os, subprocess, sys
    import numpy as np
    import rvq_np
    from rvq_np import bitstream, checkpoints, cli
    sys.stderr = open("said", "w", buffering=1)
    books = np.load("books.npy")
    rvq = rvq_np.ResidualVectorQuantizer(6, 6, 2, 2048, rng=0)
    codes = np.load("codes.npy")
    calls = {
        "container": lambda: bitstream.write("disk/old", codes, sizes=[64, 64], compress=False),
        "codebooks": lambda: checkpoints.save("disk/old", books.repeat(60, 0)),
        "model": lambda: rvq.save("disk/old"),
    }
    for line in LINES:
        calls[line] = lambda line=line: cli.main(line.split())
    assert subprocess.call(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "disk"]) == 0
    for name, call in calls.items():
        with open("disk/old", "wb") as file:
            file.write(b"old")
        try:
            ended = call()
        except OSError as error:
            ended = error.strerror
        print(name, "|", ended, "|", open("disk/old", "rb").read(), os.listdir("disk"), flush=True)
    print("lines", open("said").read().count("No space left on device"))
"""
LINES = [
    "encode x.npy -m m.safetensors -o disk/old.npy",
    "encode x.npy -m m.safetensors -o disk/old.rvq",
    "encode x.npy -m s.safetensors -o disk/old.npz",
    "decode codes.npy -m m.safetensors -o disk/old.npy",
    "decode codes.rvq -m m.safetensors -o disk/old.wav",
    "fit x.npy -o disk/old.safetensors --n-q 1 --bins 4096 --iterations 0",
    "convert large.safetensors -o disk/old.safetensors",
]


@pytest.mark.slow
def test_a_disk_that_is_really_full_leaves_the_old_file(rng, tmp_path):
    """A limit of a file's size cannot show what a map into a full disk does: a bus error."""
    mount = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs disk"]
    (tmp_path / "disk").mkdir()
    if shutil.which("unshare") is None or subprocess.call(
        mount, cwd=tmp_path, stderr=subprocess.DEVNULL
    ):
        pytest.skip("no file system can be mounted here")
    books = normal(rng, 2, 64, 6)
    stages = [
        rvq_np.Stage(codewords, stride=stride)
        for codewords, stride in zip(books, (2, 1), strict=True)
    ]
    codes = rng.integers(0, 64, (2, 90_000))
    np.save(tmp_path / "books.npy", books)
    np.save(tmp_path / "codes.npy", codes)
    np.save(tmp_path / "x.npy", normal(rng, 90_000, 6))
    bitstream.write(tmp_path / "codes.rvq", codes, sizes=[64, 64], frame_rate=1000)
    samples = rvq_np.FrontEnd("samples", 6)
    checkpoints.save(tmp_path / "m.safetensors", books, front_end=samples)
    checkpoints.save(tmp_path / "s.safetensors", rvq_np.Codebooks(stages))
    checkpoints.save(tmp_path / "large.safetensors", normal(rng, 1, 4096, 6))
    script = f"LINES = {LINES}\n" + textwrap.dedent(EVERY_WRITER)
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", script], cwd=tmp_path, capture_output=True,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *ended, said = done.stdout.splitlines()
    assert ended == [
        f"{name} | No space left on device | b'old' ['old']"
        for name in ("container", "codebooks", "model")
    ] + [f"{line} | 1 | b'old' ['old']" for line in LINES]
    assert said == f"lines {len(LINES)}"


# Kills.

KILLED = """
    import os, signal, sys
    import numpy as np
    from rvq_np import bitstream, checkpoints
    from rvq_np.files import atomic
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
    real_new = atomic.NewFile.__init__
    def init(self, path):
        real_new(self, path)
        self.file = File(self.file)
    atomic.NewFile.__init__ = init
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_codes_come_where_nothing_can_be_written(tmp_path, rng):
    """A package and caches that are read-only, and no home: kernels are compiled, not kept."""
    blocked = tmp_path / "file"  # below which no folder can be, not even for root
    blocked.write_bytes(b"")
    installed = tmp_path / "installed"
    shutil.copytree(
        ROOT / "rvq_np", installed / "rvq_np", ignore=shutil.ignore_patterns("__pycache__", "data")
    )
    (installed / "rvq_np" / "kernels" / "compiled" / "__pycache__").write_bytes(b"")
    code = """
        import logging
        logging.basicConfig(level="INFO")
        import numpy as np, rvq_np
        from rvq_np.kernels import dispatch
        dispatch.load()
        x = np.arange(600, dtype=np.float32).reshape(100, 6) % 7
        print(rvq_np.encode(x, x[None, :9]).sum(), dispatch.kernels.__name__, rvq_np.__file__)
    """
    below = str(blocked / "below")
    done = python(
        code, tmp_path, NUMBA_CACHE_DIR=below, HOME=below, XDG_CACHE_HOME=below,
        PYTHONPATH=str(installed),
    )  # fmt: skip
    x = np.arange(600, dtype=np.float32).reshape(100, 6) % 7
    total, kernels, found = done.stdout.split()
    assert total == str(rvq_np.encode(x, x[None, :9]).sum())
    assert kernels.endswith(".compiled.engine")
    assert found.startswith(str(installed))
    assert "without a cache" in done.stderr


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Return what makes the same kernel again, as a process does, cached in a folder."""
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "doubled.py"
    path.write_text("def double(x):\n    return 2 * x\n")

    def make():
        spec = importlib.util.spec_from_file_location("doubled", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return jit.kernel(module.double)

    return make


def hits(made):
    return sum(made.stats.cache_hits.values())


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", ["empty", "cut", "other", "folder"])
def test_a_damaged_cache_costs_time_only(kernel, damage, suffix, tmp_path):
    assert kernel()(4) == 8
    again = kernel()
    assert (again(4), hits(again)) == (8, 1)
    (found,) = (tmp_path / "cache").rglob(f"*{suffix}")
    content = found.read_bytes()
    if damage == "folder":
        found.unlink()
        found.mkdir()
    else:
        found.write_bytes({"empty": b"", "cut": content[:-9], "other": b"RIFF" * 30}[damage])
    assert kernel()(4) == 8
    if damage != "folder":
        repaired = kernel()
        assert (repaired(4), hits(repaired)) == (8, 1)


def test_a_cache_on_a_full_disk_costs_time_only(kernel):
    with disk_of(0):
        assert kernel()(4) == 8
    later = kernel()
    assert (later(4), hits(later)) == (8, 0)


# Many at once.


def test_sixty_four_threads_share_one_quantizer(rng):
    quantizer = rvq_np.ResidualVectorQuantizer(8, 8, 4, 64, rng=0)
    quantizer(normal(rng, 500, 8), 50)
    quantizer.eval()
    batches = [normal(rng, int(rng.integers(1, 400)), 8) for _ in range(64)]
    expected = [quantizer.encode(x, 50) for x in batches]
    fresh = rvq_np.ResidualVectorQuantizer.made_of(
        quantizer.config, quantizer._states, quantizer._projections
    ).eval()  # whose tables are not laid out yet
    with ThreadPoolExecutor(64) as pool:
        for _ in range(5):
            for found, codes in zip(pool.map(lambda x: fresh.encode(x, 50), batches), expected,
                                    strict=True):  # fmt: skip
                np.testing.assert_array_equal(found, codes)


def test_threads_write_and_read_files_of_their_own(rng, tmp_path):
    codes = [rng.integers(0, 64, (2, 500)) for _ in range(32)]

    def round_trip(number):
        path = tmp_path / f"{number}.rvq"
        bitstream.write(path, codes[number], sizes=[64, 64])
        return bitstream.read(path).codes

    with ThreadPoolExecutor(16) as pool:
        for found, expected in zip(pool.map(round_trip, range(32)), codes, strict=True):
            np.testing.assert_array_equal(found, expected)


# Interruptions of a fit.


class Interrupted(KeyboardInterrupt):
    pass


def interrupt_at(stage, iteration):
    def callback(progress):
        if (progress.stage, progress.iteration) == (stage, iteration):
            raise Interrupted

    return callback


def fitted(x, rng=0, **arguments):
    made = rvq_np.ResidualVectorQuantizer(6, made_with.get("codebook_dim", 6), 3, 16, rng=rng)
    return made, lambda **more: made.fit(x, iterations=6, rows_per_codeword=20, **arguments, **more)


made_with: dict[str, int] = {}


@pytest.mark.parametrize("width", [6, 4])
@pytest.mark.parametrize(("stage", "iteration"), [(0, 1), (1, 1), (1, 4), (2, 2)])
def test_an_interrupted_fit_goes_on_to_the_same_codewords(
    width, stage, iteration, rng, tmp_path, monkeypatch
):
    monkeypatch.setitem(made_with, "codebook_dim", width)
    x, path = normal(rng, 900, 6), tmp_path / "fit.safetensors"
    whole, fit = fitted(x)
    fit()
    stopped, fit = fitted(x)
    before = stopped.state_dict()
    with pytest.raises(Interrupted):
        fit(callback=interrupt_at(stage, iteration), checkpoint=path)
    for name, value in stopped.state_dict().items():
        np.testing.assert_array_equal(value, before[name])  # nothing is half trained
    assert path.exists() == (stage > 0)
    for quantizer, again in (fitted(x), (stopped, fit)):  # a new process, or the same object
        seen = []
        kept = path.read_bytes() if path.exists() else None
        again(checkpoint=path, callback=lambda reported, seen=seen: seen.append(reported.stage))
        assert min(seen) == stage  # earlier ones are not trained again
        for name, value in whole.state_dict().items():
            np.testing.assert_array_equal(quantizer.state_dict()[name], value)
        assert not path.exists()
        if kept is None:
            break
        path.write_bytes(kept)
    assert whole._rng.random() == quantizer._rng.random()


CLASS = os.path.join("quantizer", "model.py")


@contextlib.contextmanager
def interrupted_at(number):
    """Interrupt this thread before that line of ours.

    Yield a list: how many lines there were, then the numbers of those of the quantizer's class.
    """
    lines, package = [0], str(ROOT / "rvq_np")

    def trace(frame, event, argument):
        if not frame.f_code.co_filename.startswith(package):
            return None
        if event == "line":
            lines[0] += 1
            if frame.f_code.co_filename.endswith(CLASS):
                lines.append(lines[0])
            if lines[0] == number:
                raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(before)


def lines_of(call, made, points):
    """Return numbers of lines spread over a call of what is made.

    Those of the quantizer's class, which takes over new values, and the last ones are among them.
    """
    call(made())
    quantizer = made()
    with interrupted_at(0) as lines:
        call(quantizer)
    count, *own = lines
    step = max(1, count // points)
    return sorted({*range(1, count, step), *range(max(1, count - 10), count + 1), *own})


def assert_same(quantizer, other):
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(quantizer.state_dict()[name], value)
    np.testing.assert_array_equal(
        np.stack([stage.codebook for stage in quantizer.codebooks]),
        [value for name, value in other.state_dict().items() if name.endswith("embed")],
    )


@pytest.mark.slow
def test_a_fit_may_be_interrupted_at_any_line(rng, tmp_path):
    """The quantizer is as it was or done, and with its checkpoint it ends as if never stopped."""
    x, path = normal(rng, 120, 4), tmp_path / "fit.safetensors"

    def made():
        return rvq_np.ResidualVectorQuantizer(4, 4, 2, 4, rng=0)

    def fit(quantizer):
        return quantizer.fit(x, iterations=2, checkpoint=path)

    whole, fresh = fit(made()), made()
    states = set()
    for number in lines_of(fit, made, 60):
        quantizer = made()
        with pytest.raises(Interrupted), interrupted_at(number):
            fit(quantizer)
        done = quantizer.is_initialized
        assert_same(quantizer, whole if done else fresh)
        states.add((done, path.exists()))
        for again in (made(), quantizer) if path.exists() else (made(),):
            kept = path.read_bytes() if path.exists() else None
            assert_same(fit(again), whole)
            assert not path.exists()
            if kept is not None:
                path.write_bytes(kept)
        path.unlink(missing_ok=True)
    assert states >= {(False, False), (False, True)}


@pytest.mark.slow
def test_a_training_step_may_be_interrupted_at_any_line(rng):
    """It took place or it did not."""
    x, y = normal(rng, 60, 4), normal(rng, 60, 4)

    def made():
        quantizer = rvq_np.ResidualVectorQuantizer(4, 4, 2, 4, rng=0)
        quantizer(x, 50)
        return quantizer

    before, after = made(), made()
    after(y, 50)
    for number in lines_of(lambda quantizer: quantizer(y, 50), made, 30):
        quantizer = made()
        with pytest.raises(Interrupted), interrupted_at(number):
            quantizer(y, 50)
        changed = any(
            not np.array_equal(value, before.state_dict()[name])
            for name, value in quantizer.state_dict().items()
        )
        assert_same(quantizer, after if changed else before)


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
    with pytest.raises(StateError, match=r"fit\.safetensors.*is the resume file of another fit"):
        other(checkpoint=path)
    with pytest.raises(StateError, match="another fit"):
        quantizer.fit(x, iterations=7, rows_per_codeword=20, checkpoint=path)
    assert path.read_bytes() == kept
    quantizer.save(tmp_path / "model.safetensors")
    with pytest.raises(ModelFileError, match="not a resume file of a fit"):
        fit(checkpoint=tmp_path / "model.safetensors")
    path.write_bytes(kept[:-10])
    with pytest.raises(ModelFileError, match="not a readable safetensors file"):
        fit(checkpoint=path)


def without(name):
    return lambda reported, tensors: reported.pop(name)


def set_to(name, value):
    return lambda reported, tensors: reported.__setitem__(name, value)


def tensor(name, change):
    return lambda reported, tensors: tensors.__setitem__(name, change(tensors[name]))


@pytest.mark.parametrize(
    "damage",
    [
        *(without(name) for name in ("begin", "after", "stages")),
        *(set_to("stages", value) for value in (0, -1, 3, 4, 2**60, 1.0, True, "1", None)),
        *(set_to("begin", value) for value in ({}, None, 7, {"bit_generator": "MT19937"})),
        set_to("after", {"bit_generator": "PCG64", "state": {"state": -1, "inc": 2**200}}),
        lambda reported, tensors: tensors.pop("1.sums"),
        tensor("0.codebook", lambda codewords: codewords[:-1]),
        tensor("1.sums", lambda sums: sums[:, :-1]),
        tensor("1.counts", lambda counts: counts[:, None]),
        tensor("0.codebook", lambda codewords: codewords * np.float32(np.nan)),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_nothing_has_changed(damage, rng, tmp_path):
    x, path = normal(rng, 900, 6), tmp_path / "fit.safetensors"
    quantizer, fit = fitted(x)
    with pytest.raises(Interrupted):
        fit(callback=interrupt_at(2, 1), checkpoint=path)
    tensors, reported = safetensors.load(path)
    damage(reported, tensors)
    safetensors.save(path, tensors, reported)
    codewords, draws = quantizer.state_dict(), quantizer._rng.bit_generator.state
    with pytest.raises(ModelFileError, match=r"fit\.safetensors' is a damaged resume file, or of"):
        fit(checkpoint=path)
    assert quantizer._rng.bit_generator.state == draws
    for name, value in quantizer.state_dict().items():
        np.testing.assert_array_equal(value, codewords[name])


def test_the_record_of_fuzzing_is_what_was_asked_for():
    reported = json.loads((ROOT / "docs" / "reliability.json").read_text())
    assert sum(run["inputs"] for run in reported["fuzzing"]) >= 10_000_000
    for run in reported["fuzzing"]:
        assert run["accepted"] + run["refused"] + run["findings"] == run["inputs"]
        assert run["findings"] == 0


def test_every_row_of_the_page_names_a_test():
    page = (ROOT / "docs" / "reliability.md").read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    rows = page.partition("| what fails |")[2].splitlines()[2:]
    assert len(rows) > 10
    for row in rows:
        names = re.findall(r"`(test_\w+)`", row)
        assert names, row
        for name in names:
            assert f"def {name}(" in tests, name


def test_every_target_is_in_the_record_and_on_the_page():
    reported = json.loads((ROOT / "docs" / "reliability.json").read_text())
    page = (ROOT / "docs" / "reliability.md").read_text()
    assert {run["target"] for run in reported["fuzzing"]} == set(TARGETS)
    for target in TARGETS:
        assert f"\n| {target} |" in page
