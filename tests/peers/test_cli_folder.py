"""``rvq-np encode`` of a folder: every part once, whole, and of these codebooks."""

import contextlib
import errno
import json
import os
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

import rvq_np
from rvq_np import Codebooks, Stage, bitstream, checkpoints, cli
from rvq_np.cli import folder


@pytest.fixture
def files(tmp_path, rng, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.files, "ROWS", 24)  # so that everything comes in pieces
    checkpoints.save("m.safetensors", rng.standard_normal((3, 16, 6)).astype(np.float32))
    checkpoints.save("other.safetensors", rng.standard_normal((3, 16, 6)).astype(np.float32))
    Path("in/deep").mkdir(parents=True)
    x = rng.standard_normal((200, 6)).astype(np.float32)
    np.save("in/a.npy", x[:70])
    np.save("in/deep/b.npy", x[70:100])
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x[100:160].ravel()), 6)
    table = pa.table({"id": [f"item {n}" for n in range(60)], "embedding": lists})
    pq.write_table(table, "in/c.parquet", row_group_size=25)
    zarr.create_array("in/d.zarr", data=x[160:], chunks=(15, 6))
    return x


def run(line, status=0):
    assert cli.main(line.split()) == status


def expected(x, model="m"):
    return rvq_np.encode(x, checkpoints.load(f"{model}.safetensors"))


def manifest(where="out"):
    return json.loads(Path(where, folder.MANIFEST).read_text())


def test_every_file_becomes_a_file_of_codes(files, capsys):
    run("encode in -m m.safetensors -o out")
    assert "4 files, 200 vectors; 0 were there" in capsys.readouterr().out
    codes = expected(files)
    np.testing.assert_array_equal(np.load("out/a.npy"), codes[:, :70])
    np.testing.assert_array_equal(np.load("out/deep/b.npy"), codes[:, 70:100])
    np.testing.assert_array_equal(np.load("out/d.npy"), codes[:, 160:])
    table = pq.read_table("out/c.parquet")
    assert table.column_names == ["id", "codes"]
    assert table["id"].to_pylist()[59] == "item 59"
    found = np.array(table["codes"].to_pylist(), np.int32)
    np.testing.assert_array_equal(found, codes[:, 100:160].T)
    fingerprint = checkpoints.load("m.safetensors").fingerprint
    assert table.schema.metadata[b"rvq_np.codebooks"].decode() == fingerprint
    assert manifest()["complete"] is True
    assert manifest()["rows"] == 200


@pytest.mark.parametrize("kind", ["rvq", "parquet", "npy"])
def test_it_writes_what_is_asked_for(files, kind):
    run(f"encode in -m m.safetensors -o out --to {kind} --n-q 2 --beam-size 3")
    names = sorted(str(each.relative_to("out")) for each in Path("out").rglob(f"*.{kind}"))
    assert names == [f"a.{kind}", f"c.{kind}", f"d.{kind}", f"deep/b.{kind}"]
    codes = rvq_np.encode(files, checkpoints.load("m.safetensors"), 2, 3)[:, 160:]
    if kind == "rvq":
        books = checkpoints.load("m.safetensors")[:2]
        np.testing.assert_array_equal(bitstream.read("out/d.rvq", codebooks=books).codes, codes)
    elif kind == "npy":
        np.testing.assert_array_equal(np.load("out/d.npy"), codes)
    else:
        found = np.array(pq.read_table("out/d.parquet")["codes"].to_pylist())
        np.testing.assert_array_equal(found, codes.T)


def test_a_run_goes_on_where_it_was_interrupted(files, capsys, monkeypatch):
    """Whole parts are kept; damaged ones, and those whose input changed, are done again."""
    real, made = folder.encoded, []

    def interrupted(place, *others):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(place[0])
        return real(place, *others)

    monkeypatch.setattr(folder, "encoded", interrupted)
    run("encode in -m m.safetensors -o out", 130)
    assert manifest()["complete"] is False
    assert len(made) == 2
    with open(f"out/{folder.JOURNAL}", "a") as journal:
        journal.write('\n{"part": "d.zarr", "inp')  # a line that was being written
    monkeypatch.setattr(
        folder, "encoded", lambda place, *o: made.append(place[0]) or real(place, *o)
    )
    run("encode in -m m.safetensors -o out")
    assert sorted(made) == ["a.npy", "c.parquet", "d.zarr", "deep/b.npy"]
    assert "2 were there already" in capsys.readouterr().out
    run("encode in -m m.safetensors -o out")
    assert len(made) == 4
    damaged = bytearray(Path("out/a.npy").read_bytes())
    damaged[-1] ^= 1
    Path("out/a.npy").write_bytes(damaged)
    np.save("in/deep/b.npy", files[:5])
    os.unlink("out/c.parquet")
    run("encode in -m m.safetensors -o out")
    assert sorted(made[4:]) == ["a.npy", "c.parquet", "deep/b.npy"]
    np.testing.assert_array_equal(np.load("out/a.npy"), expected(files[:70]))
    np.testing.assert_array_equal(np.load("out/deep/b.npy"), expected(files[:5]))
    assert manifest()["rows"] == 175


def failed(capsys, line, message):
    capsys.readouterr()
    run(line, 1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


def test_a_bad_number_is_named_and_leaves_no_file(files, capsys):
    x = files[:70].copy()
    x[53, 2] = np.nan
    np.save("in/a.npy", x)
    failed(capsys, "encode in -m m.safetensors -o out", "in/a.npy': encode: x holds nan at (53, 2)")
    assert not Path("out/a.npy").exists()
    assert sorted(os.listdir("out")) == ["deep", folder.JOURNAL, folder.MANIFEST]
    assert not os.listdir("out/deep")
    assert manifest()["complete"] is False


def test_codes_of_a_file_that_changed_while_it_was_read_are_removed(files, capsys, monkeypatch):
    real = folder.to_codes

    def touched(some, *others, **options):
        os.utime("in/a.npy", ns=(0, 0))
        return real(some, *others, **options)

    monkeypatch.setattr(folder, "to_codes", touched)
    failed(capsys, "encode in -m m.safetensors -o out", "in/a.npy' changed while it was read")
    assert not Path("out/a.npy").exists()
    assert manifest()["complete"] is False


def test_what_cannot_be_is_refused(files, capsys):
    run("encode in -m m.safetensors -o out")
    failed(capsys, "encode in -m other.safetensors -o out", "holds codes of another run")
    failed(capsys, "encode in -m m.safetensors -o out --n-q 2", "holds codes of another run")
    failed(capsys, "encode in -m m.safetensors -o in/out", "expected a folder beside it")
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    failed(capsys, "encode in -m m.safetensors -o full", "is not empty and holds no rvq-np.json")
    failed(capsys, "encode full -m m.safetensors -o out2", "holds no file that ends in .npy")
    failed(capsys, "encode in -m m.safetensors -o no/where", "there is no folder")
    failed(capsys, "encode in -m m.safetensors -o out3 --frame-rate 75", "are for one file")
    failed(capsys, "encode in -m m.safetensors -o -", "are for one file")
    failed(capsys, "encode in -m m.safetensors -o out3 --front-end mdct", "are for one file")
    assert not Path("out3").exists()
    checkpoints.save("s.safetensors", Codebooks([Stage(np.ones((2, 6), np.float32), stride=2)]))
    failed(capsys, "encode in -m s.safetensors -o out3", "models with strides")
    np.save("in/c.npy", files[:3])
    failed(capsys, "encode in -m m.safetensors -o out3 --to rvq", "would become one file")
    os.unlink("in/c.npy")
    np.save("in/e.npy", files[:9, :5])
    failed(capsys, "encode in -m m.safetensors -o out4", "in/e.npy': encode: x has shape (9, 5)")
    os.unlink("in/e.npy")
    Path("in/c.parquet").write_bytes(b"no table")
    failed(capsys, "encode in -m m.safetensors -o out5", "c.parquet' is not a readable Parquet")


# Of distributed's own connections and event loops, when clusters end.
pass_over = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture
def cluster():
    """Return the module of clusters; workers are threads of this process."""
    pytest.importorskip("distributed")
    from helpers import cluster

    return cluster


class TestOnACluster:
    pytestmark = pass_over

    def test_workers_write_the_same_files(self, files, capsys, cluster):
        run("encode in -m m.safetensors -o here")
        with cluster.local(processes=False) as made:
            run(f"encode in -m m.safetensors -o there --scheduler {made.scheduler_address}")
            x = files[:70].copy()
            x[53, 2] = np.inf
            np.save("in/a.npy", x)
            line = f"encode in -m m.safetensors -o bad --scheduler {made.scheduler_address}"
            failed(capsys, line, "in/a.npy': encode: x holds inf at (53, 2)")
        same("here", "there")

    def test_a_full_disk_names_file_and_worker_and_leaves_no_file(
        self, files, capsys, cluster, monkeypatch
    ):
        run("encode in -m m.safetensors -o here")
        real = folder._sink

        @contextlib.contextmanager
        def full(source, *others):
            with real(source, *others) as put:

                def write(start, *given):
                    if start and source.endswith("c.parquet"):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    put(start, *given)

                yield write

        with cluster.local(1, processes=False) as made:
            line = f"encode in -m m.safetensors -o out --scheduler {made.scheduler_address}"
            with monkeypatch.context() as patched:
                patched.setattr(folder, "_sink", full)
                failed(capsys, line, "No space left on device, while")
                run(line, 1)
            said = capsys.readouterr().err
            assert "in/c.parquet' is encoded on the worker inproc://" in said
            assert "start the command again" in said
            assert not list(Path("out").glob("*c.parquet*"))
            assert manifest()["complete"] is False
            run(line)
        same("here", "out")

    def test_a_lost_scheduler_keeps_what_is_done(self, files, capsys, cluster, monkeypatch):
        """Dask hands over what a task that was cancelled would have raised."""
        import distributed

        run("encode in -m m.safetensors -o here")
        real = distributed.as_completed

        def lost(futures, **options):
            yield next(real(futures, **options))
            yield futures[-1], CancelledError("the scheduler is gone")

        with cluster.local(1, processes=False) as made:
            line = f"encode in -m m.safetensors -o out --scheduler {made.scheduler_address}"
            with monkeypatch.context() as patched:
                patched.setattr(distributed, "as_completed", lost)
                failed(capsys, line, "encode: the cluster did not finish (CancelledError: the sch")
            assert manifest()["complete"] is False
        capsys.readouterr()
        run("encode in -m m.safetensors -o out")
        assert "1 were there already" in capsys.readouterr().out
        same("here", "out")

    def test_no_scheduler_is_said(self, files, capsys, cluster):
        import dask

        with dask.config.set({"distributed.comm.timeouts.connect": "200ms"}):
            line = "encode in -m m.safetensors -o out --scheduler tcp://127.0.0.1:9"
            failed(capsys, line, "encode: there is no scheduler at 'tcp://127.0.0.1:9'")
            failed(capsys, line.replace("tcp", "no"), "there is no scheduler at 'no://")


def same(here, there):
    for path in Path(here).rglob("*"):
        if path.is_file() and path.name != folder.JOURNAL:
            other = Path(there, path.relative_to(here))
            assert path.read_bytes() == other.read_bytes(), path
