"""A cluster of two worker processes: the same answers, also after one of them was killed."""

import contextlib
import os
import signal
import time

import dask
import dask.array as da
import numpy as np
import pytest

import rvq_np
from rvq_np import cli, train
from rvq_np.errors import ClusterError, NonFiniteError

pytest.importorskip("distributed")
from helpers import cluster as clusters

pytestmark = [
    pytest.mark.slow,
    # Of distributed's own connections and event loops, when processes end or are killed.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

N, DIM, SIZE = 200_000, 16, 64  # four blocks


@pytest.fixture(scope="module")
def cluster():
    with clusters.local() as made:
        yield made


@pytest.fixture
def client(cluster):
    with clusters.client_of(cluster) as made:
        yield made


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "x.npy"
    np.save(path, np.random.default_rng(3).standard_normal((N, DIM)).astype(np.float32))
    return path


def read(path, start, stop):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.kill")  # one task only finds it
        os.kill(os.getpid(), signal.SIGKILL)
    return np.load(path, mmap_mode="r")[start:stop] + np.float32(0)


def from_file(path, size=30_000):
    """Return a Dask array whose chunks each worker reads from the file."""
    parts = [
        da.from_delayed(
            dask.delayed(read)(str(path), start, min(start + size, N)),
            (min(size, N - start), DIM), np.float32,
        )
        for start in range(0, N, size)
    ]  # fmt: skip
    return da.concatenate(parts)


def ten_lines(x, callback=None, **options):
    """What a user writes, whatever `x` is."""
    rvq = rvq_np.ResidualVectorQuantizer(DIM, DIM, n_q=3, bins=SIZE, kmeans_iters=4, rng=0)
    rvq.fit(x, rows_per_codeword=None, callback=callback, **options)
    codes = rvq_np.encode(x, rvq.codebooks)
    vectors = rvq_np.decode(codes, rvq.codebooks)
    return rvq.codebooks.fingerprint, np.asarray(codes), np.asarray(vectors)


@pytest.fixture(scope="module")
def expected(path):
    return ten_lines(np.load(path))


def assert_same(found, expected):
    assert found[0] == expected[0]
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_memory_map_and_a_cluster_give_what_an_array_gives(client, path, expected):
    assert_same(ten_lines(np.load(path, mmap_mode="r")), expected)
    for persist in (True, False):
        assert_same(ten_lines(from_file(path), persist=persist), expected)


@pytest.mark.parametrize("persist", [True, False])
def test_so_does_a_cluster_in_which_a_worker_is_killed(client, path, expected, persist):
    """In the second stage: what it did is done again, and nothing else changes.

    One that keeps rows dies between two iterations, and with it what it kept. One that keeps none
    dies in the middle of a task.
    """
    before, killed = set(clusters.everywhere(client, os.getpid)), []

    def kill(info):
        if (info.stage, info.iteration) == (1, 2) and not killed:
            killed.append(min(before))
            if persist:
                os.kill(killed[0], signal.SIGKILL)
            else:
                open(f"{path}.kill", "w").close()

    assert_same(ten_lines(from_file(path), kill, persist=persist), expected)
    assert killed
    assert not os.path.exists(f"{path}.kill")
    deadline = time.monotonic() + clusters.PATIENCE
    while len(after := set(clusters.everywhere(client, os.getpid)) - before) < 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert after  # the worker that was started in its place


def test_codebooks_are_unpickled_once_per_worker(client, path):
    def count(dask_worker):
        from rvq_np.codebooks import sequence

        if not hasattr(sequence, "made"):
            sequence.made, real = [], sequence.Codebooks.__init__

            def counted(self, *args):
                sequence.made.append(1)
                real(self, *args)

            sequence.Codebooks.__init__ = counted
        before, sequence.made[:] = len(sequence.made), []
        return before

    codebooks = np.random.default_rng(0).standard_normal((2, 64, DIM)).astype(np.float32)
    client.run(count)
    rvq_np.encode(from_file(path, 2_000), codebooks).compute()  # a hundred tasks
    assert all(made <= 4 for made in client.run(count).values())  # and their parts


def test_a_bad_number_deep_in_a_chunk_comes_back_with_its_place(client, path, tmp_path):
    x = np.load(path)
    x[123_456, 7] = np.nan
    np.save(tmp_path / "bad.npy", x)
    array = from_file(tmp_path / "bad.npy")
    with pytest.raises(NonFiniteError, match=r"^encode: .* at \(123456, 7\);.* chunk \(4, 0\)"):
        rvq_np.encode(array, np.zeros((1, 2, DIM), np.float32)).compute()
    with pytest.raises(NonFiniteError, match=r"^fit: .* at \(123456, 7\);"):
        train.fit(array, 1, 8, 2, 0)


def test_codewords_of_many_megabytes_are_no_reason_to_warn(client):
    """Dask warns of graphs of 10 MB or more, and warnings are errors here."""
    array = da.random.default_rng(0).standard_normal((2048, 2048), chunks=(512, -1))
    found = train.fit(array, 1, 1500, 1, 0)
    assert found == train.fit(array.compute(), 1, 1500, 1, 0)


def test_workers_of_other_versions_are_named(client, path, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(rvq_np, "__version__", "0.0.0.other")
    with pytest.raises(ClusterError, match=r"fit: the worker tcp://.* has .*'0\.0\.0\.other'"):
        train.fit(from_file(path), 1, 8, 2, 0)
    model, address = tmp_path / "m.safetensors", client.scheduler.address
    rvq_np.checkpoints.save(model, np.zeros((1, 2, DIM), np.float32))
    line = f"encode {path.parent} -m {model} -o {tmp_path / 'out'} --scheduler {address}"
    assert cli.main(line.split()) == 1
    assert "encode: the worker tcp://" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.npy"))


def test_workers_that_die_on_a_task_are_told_of(client):
    def deadly(block):
        os._exit(1)

    def allow(failures):
        client.run_on_scheduler(
            lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", failures)
        )

    array = da.ones((50, DIM), chunks=(50, DIM), dtype=np.float32).map_blocks(
        deadly, dtype=np.float32, meta=np.empty((0, 0), np.float32)
    )
    allow(0)
    try:
        with pytest.raises(ClusterError, match=r"^fit: the cluster did not finish .*KilledWorker"):
            train.fit(array, 1, 8, 2, 0)
    finally:
        allow(9)
    client.wait_for_workers(2, timeout=clusters.PATIENCE)


def test_a_lost_scheduler_is_told_of_and_a_checkpoint_goes_on(path, tmp_path, expected):
    kept = tmp_path / "fit.safetensors"
    with clusters.local(1) as made, clusters.client_of(made, 1):

        def lose(info):
            if (info.stage, info.iteration) == (1, 1):
                made.close()

        with pytest.raises(ClusterError, match="did not finish"):
            ten_lines(from_file(path), lose, checkpoint=kept)
    assert kept.exists()
    assert_same(ten_lines(np.load(path), checkpoint=kept), expected)
