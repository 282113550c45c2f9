"""``python -m bench.cluster``: what Dask costs, and what it gives, on this machine and on paper.

Encoding through Dask's threads beside the plain call; a fit by two worker processes beside one by
two threads; the memory of the process that calls; ten million rows from disk; tasks per second;
and what workers of the measured speed would give, with a stated network.  Needs
``pip install 'rvq-np[dask]'``.  Writes ``RESULTS-cluster.md``, unless ``--quick``.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import rvq_np
from rvq_np import train

from .machine import Neighbours, facts, opening
from .report import Check, Table, targets

RESULTS = Path(__file__).with_name("RESULTS-cluster.md")
DIM, SIZE, STAGES = 128, 1024, 8
CHUNK = 65_536
NETWORK = 1.25e9  # bytes per second and worker: 10 Gbit/s
LATENCY = 2e-3  # seconds that the scheduler needs per iteration, beside its tasks
TASK = 1e-3  # seconds of the scheduler per task, as Dask's own documentation says


def main(arguments: list[str] | None = None) -> int:
    """Measure, print tables and write the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: a trial run")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, help="only these")
    parser.add_argument("--output", type=Path, help="file for the report")
    options = parser.parse_args(arguments)
    neighbours, tables, checks = Neighbours(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or QUESTIONS:
            found = QUESTIONS[name](Path(folder), options.quick)
            tables += found[0]
            checks += found[1]
            print("\n".join(map(str, found[0])), flush=True)
    busy = neighbours.cores()
    packages = {
        name: version(name) for name in ("dask", "distributed", "pyarrow", "numpy", "numba")
    }
    listed = ", ".join(f"{name} {number}" for name, number in packages.items())
    head = [opening(busy, options.quick), str(targets(checks, [2]))]
    head.append(facts("python -m bench.cluster", busy) + f"\nAlso {listed}.\n")
    output = options.output or (None if options.quick or options.only else RESULTS)
    if output is not None:
        output.write_text("\n".join([*head, *map(str, tables)]), encoding="utf-8")
    print("\n".join(head))
    return 0


def encoding(folder: Path, quick: bool) -> Any:
    """Encode through Dask's threads, and plainly."""
    import dask
    import dask.array as da

    chunks, rounds = (2, 3) if quick else (4, 5)
    x = _normal(chunks * CHUNK)
    codebooks = rvq_np.Codebooks(_normal(STAGES * SIZE, 1).reshape(STAGES, SIZE, DIM))
    array = da.from_array(x, chunks=(CHUNK, DIM))
    later = rvq_np.encode(array, codebooks)
    calls: dict[str, Callable[[], Any]] = {
        "rvq_np.encode": lambda: rvq_np.encode(x, codebooks),
        "through Dask's threads": lambda: later.compute(scheduler="threads", num_workers=2),
    }
    assert (calls["rvq_np.encode"]() == calls["through Dask's threads"]()).all()
    seconds = _turns(calls, rounds)
    plain, ours = seconds.values()
    lines = [(name, f"{each:.2f} s", f"{len(x) / each:,.0f}") for name, each in seconds.items()]
    many = rvq_np.encode(da.zeros((20_000, 2), chunks=(10, 2), dtype=np.float32), x[None, :4, :2])
    begun = time.perf_counter()
    with dask.config.set(scheduler="threads"):
        many.compute()
    rate = 2000 / (time.perf_counter() - begun)
    lines.append(("tasks of ten rows, threads", f"{1e6 / rate:.0f} µs a task", f"{10 * rate:,.0f}"))
    title = f"encode, {len(x):,} x {DIM}, K={SIZE}, Q={STAGES}, chunks of {CHUNK:,}; 2 threads"
    check = Check("encode through Dask's threads, chunks of 65,536", "≥ 0.9 x the plain call", 2,
                  plain / ours, 0.9)  # fmt: skip
    return [Table(title, "", ("", "a call", "vectors/s"), lines)], [check]


def fitting(folder: Path, quick: bool) -> Any:
    """Fit by two worker processes, and by two threads."""
    rows, rounds = (200_000, 1) if quick else (1_000_000, 2)
    path = folder / "fit.npy"
    np.save(path, _normal(rows))
    lines, checks = [], []
    with _cluster() as client:
        _fit([path], 50)  # compiles
        for per, name in ((256, "256 rows a codeword"), (None, "all rows")):
            calls = {
                "two threads": lambda per=per: _fit(np.load(path, mmap_mode="r"), per),
                "two worker processes": lambda per=per: _fit([path], per, persist=True),
            }
            if per is None:
                calls["the same, nothing kept"] = lambda: _fit([path], None, persist=False)
            same = {call() for call in calls.values()}
            assert len(same) == 1, "the codebooks differ"
            seconds = _turns(calls, rounds if per else 1)
            plain, ours, *_ = seconds.values()
            lines += [(f"{each}, {name}", f"{s:.2f} s", f"{plain / s:.2f}")
                      for each, s in seconds.items()]  # fmt: skip
            checks.append(
                Check(f"fit by two worker processes, {rows:,} x {DIM}, K={SIZE}, {name}",
                      "≥ 0.8 x two threads", 2, plain / ours, 0.8)
            )  # fmt: skip
        moved = _moved(client)
    title = f"fit, {rows:,} x {DIM} in a .npy file, K={SIZE}, 2 stages, 5 iterations"
    note = f"The codebooks are the same bit for bit. {moved}"
    return [Table(title, note, ("", "seconds", "two threads = 1"), lines)], checks


def memory(folder: Path, quick: bool) -> Any:
    """The memory of the process that calls, for more and more rows."""
    lines, most = [], 0.0
    for rows in (100_000, 400_000) if quick else (500_000, 2_000_000):
        path = folder / f"memory-{rows}.npy"
        _write(path, rows, DIM, np.float32)
        for per in (256, None):
            own = multiprocessing.get_context("spawn")  # whose processes may start others
            with ProcessPoolExecutor(1, mp_context=own) as pool:
                grown = pool.submit(_driver_memory, str(path), per).result()
            most = max(most, grown)
            lines.append((f"{rows:,} rows, {per or 'all'} rows a codeword", f"{grown:.0f} MiB"))
        path.unlink()
    title = f"Memory of the driver during a fit by two worker processes, D={DIM}, K={SIZE}"
    note = "What its resident memory grew by, from the first fit of a small array on."
    check = Check(
        "memory of the driver, whatever N", "≤ 64 MiB", 2, most, 64, False, f"{most:.0f} MiB"
    )
    return [Table(title, note, ("", "grew by"), lines)], [check]


def disk(folder: Path, quick: bool) -> Any:
    """Ten million float16 rows from disk through fit and encode."""
    rows, dim = (500_000 if quick else 10_000_000), 64
    path, lines = folder / "half.npy", []
    _write(path, rows, dim, np.float16)
    with _cluster() as client:
        peak = _Peak(client)
        with peak:
            begun = time.perf_counter()
            states = train.fit([path], 3, 256, 10, 0, refine=False)
            lines.append(
                ("fit, 3 stages of 256", f"{time.perf_counter() - begun:.0f} s", *peak.said())
            )
        codebooks = train.codebooks_of(states)
        source, target = folder / "in", folder / "out"
        source.mkdir()
        path.rename(source / "half.npy")
        rvq_np.checkpoints.save(folder / "m.safetensors", codebooks)
        from rvq_np import cli

        with peak:
            begun = time.perf_counter()
            line = f"encode {source} -m {folder / 'm.safetensors'} -o {target}"
            assert cli.main([*line.split(), "--scheduler", client.scheduler.address]) == 0
            lines.append(
                ("rvq-np encode --scheduler", f"{time.perf_counter() - begun:.0f} s", *peak.said())
            )
    size = rows * dim * 2 / 2**20
    title = f"{rows:,} x {dim} float16 from disk ({size:,.0f} MiB)"
    note = "Growth of resident memory: a memory map counts while its pages are in the page cache."
    header = ("", "seconds", "driver grew by", "a worker grew by")
    return [Table(title, note, header, lines)], []


def scaling(folder: Path, quick: bool) -> Any:
    """What workers of the measured speed give: a simulation."""
    rows = CHUNK if quick else 4 * CHUNK
    x, codewords = _normal(rows), _normal(SIZE, 2)
    from rvq_np.codec import core

    codebooks = rvq_np.Codebooks([codewords])
    seconds = {}
    for threads in (1, 2):
        from rvq_np.kernels import tiles

        with tiles.at_most(threads):
            core.tally(x, core.encode(x, codebooks, 1), codebooks)
            begun = time.perf_counter()
            core.tally(x, core.encode(x, codebooks, 1), codebooks)
            seconds[threads] = (time.perf_counter() - begun) / rows
    lines = []
    tally = SIZE * DIM * 8 + SIZE * 8
    for total in (10**7, 10**8, 10**9):
        blocks = -(-total // CHUNK)
        alone = None
        for workers in (1, 2, 4, 16, 64):
            share = -(-blocks // workers)
            work = share * CHUNK * seconds[1]
            sent = blocks * tally / NETWORK / min(workers, 16) + SIZE * DIM * 4 / NETWORK
            iteration = max(work, blocks * TASK) + sent * (workers > 1) + LATENCY
            alone = alone or iteration
            moved = f"{blocks * tally / workers / 2**20:,.0f} MiB"
            speedup = f"{alone / iteration:.1f}"
            lines.append((f"{total:,.0f}", str(workers), f"{iteration:.2f} s", speedup, moved))
    title = f"One iteration of k-means on all rows, D={DIM}, K={SIZE}: a simulation"
    note = (
        f"From the measured {1 / seconds[1]:,.0f} rows/s of a worker with one thread here "
        f"({1 / seconds[2]:,.0f} with two), blocks of {CHUNK:,} rows, 1 ms of the scheduler a "
        "task, and 10 Gbit/s a worker. Tallies of blocks are added in their order, so each block's "
        "(K * D * 8 bytes) may move once."
    )
    header = ("rows", "workers", "iteration", "speedup", "tallies a worker sends")
    return [Table(title, note, header, lines)], []


QUESTIONS = {
    "encode": encoding, "fit": fitting, "memory": memory, "disk": disk, "scaling": scaling,
}  # fmt: skip


def _normal(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, DIM), dtype=np.float32)


def _write(path: Path, rows: int, dim: int, dtype: Any) -> None:
    out = np.lib.format.open_memmap(path, "w+", dtype, (rows, dim))
    rng = np.random.default_rng(1)
    for start in range(0, rows, CHUNK):
        stop = min(start + CHUNK, rows)
        out[start:stop] = rng.standard_normal((stop - start, dim), dtype=np.float32)
    out.flush()


def _fit(x: Any, per: int | None, **options: Any) -> str:
    states = train.fit(
        x, 2, SIZE, 5, 0, rows_per_codeword=per, tolerance=0, refine=False, **options
    )
    return train.codebooks_of(states).fingerprint


def _turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each call; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name in list(calls) if turn % 2 else list(calls)[::-1]:
            begun = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - begun)
    return {name: float(np.median(each)) for name, each in seconds.items()}


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def _moved(client: Any) -> str:
    """Return how many bytes the workers sent to one another."""

    def sent(dask_worker: Any) -> int:
        return sum(int(each["total"]) for each in dask_worker.transfer_outgoing_log)

    total = sum(client.run(sent).values())
    return (
        f"The workers sent {total / 2**20:,.0f} MiB to one another, in the last 100,000 transfers."
    )


def _driver_memory(path: str, per: int | None) -> float:
    """Return by how many MiB this process grows while it has two workers fit."""
    import psutil

    process = psutil.Process()
    with _cluster():
        train.fit(iter([_normal(5000)]), 1, 16, 2, 0)
        train.fit([path], 1, 16, 1, 0, rows_per_codeword=10)
        before, most, over = process.memory_info().rss, [0], threading.Event()

        def watch() -> None:
            while not over.wait(0.02):
                most[0] = max(most[0], process.memory_info().rss - before)

        watcher = threading.Thread(target=watch)
        watcher.start()
        train.fit([path], 1, SIZE, 2, 0, rows_per_codeword=per, persist=True)
        over.set()
        watcher.join()
    return most[0] / 2**20


class _Peak:
    """By how much the driver and the largest worker grew, while the context was there."""

    def __init__(self, client: Any):
        import psutil

        pids = client.run(lambda: __import__("os").getpid()).values()
        self.processes = [psutil.Process(), *map(psutil.Process, pids)]

    def __enter__(self) -> _Peak:
        self.before = [each.memory_info().rss for each in self.processes]
        self.most, self.over = [0] * len(self.before), threading.Event()
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()
        return self

    def _watch(self) -> None:
        while not self.over.wait(0.05):
            now = [each.memory_info().rss for each in self.processes]
            self.most = [max(m, n - b) for m, n, b in zip(self.most, now, self.before, strict=True)]

    def said(self) -> tuple[str, str]:
        return f"{self.most[0] / 2**20:.0f} MiB", f"{max(self.most[1:]) / 2**20:.0f} MiB"

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.watcher.join()


if __name__ == "__main__":
    raise SystemExit(main())
