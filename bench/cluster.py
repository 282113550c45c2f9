"""``python -m bench.cluster``: what Dask costs, and what it gives: measured, and estimated.

Encoding through Dask's threads beside the plain call; a fit by two worker processes beside one by
two threads; the memory of the process that calls; ten million rows from disk; tasks per second;
and what workers of the measured speed would give, with a stated network.  Needs
``pip install 'rvq-np[dask]'``.  Writes ``RESULTS-cluster.md``, unless ``--quick``.
"""

from __future__ import annotations

import argparse
import collections
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

from .machine import Neighbours, facts, instructions, opening
from .report import Check, Table, targets

RESULTS = Path(__file__).with_name("RESULTS-cluster.md")
DIM, SIZE, STAGES = 128, 1024, 8
CHUNK = 65_536
NETWORK = 1.25e9  # bytes per second and worker: 10 Gbit/s
LATENCY = 20e-3  # seconds that messages take in an iteration of two workers here
MARKS = "% costs: written by python -m bench.cluster", "% end of costs"
TASK = 1e-3  # seconds of the scheduler per task, as Dask's own documentation says


def main(arguments: list[str] | None = None) -> int:
    """Measure, print tables and write the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: a trial run")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, help="only these")
    parser.add_argument("--output", type=Path, help="file for the report")
    parser.add_argument("--docs", type=Path, help="page whose table of costs is written")
    options = parser.parse_args(arguments)
    neighbours, tables, checks = Neighbours(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or QUESTIONS:
            begun = time.perf_counter()
            found = QUESTIONS[name](Path(folder), options.quick)
            tables += found[0]
            checks += found[1]
            print("\n".join(map(str, found[0])), flush=True)
            print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
            if name == "cost" and options.docs is not None:
                _into_page(options.docs, found[0][0])
    busy = neighbours.cores()
    packages = {
        name: version(name) for name in ("dask", "distributed", "pyarrow", "numpy", "numba")
    }
    listed = ", ".join(f"{name} {number}" for name, number in packages.items())
    head = [opening(busy, options.quick).replace("# Results", "# Results on a cluster")]
    head.append(str(targets(checks, [2], instructions())))
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
    """Fit by one and by two worker processes, and by two threads."""
    rows, rounds = (200_000, 1) if quick else (1_000_000, 2)
    path = folder / "fit.npy"
    _write(path, rows, DIM, np.float32)
    lines, checks, tables = [], [], []
    names = {256: "256 rows a codeword", None: "all rows"}
    with _cluster() as both, _cluster(1) as one:
        _on(one, [path], 50)  # compiles
        _on(both, [path], 50)
        for per, name in names.items():
            calls = {
                "one thread": lambda per=per: _threads(1, path, per),
                "two threads": lambda per=per: _threads(2, path, per),
                "one worker process": lambda per=per: _on(one, [path], per, persist=True),
                "two worker processes": lambda per=per: _on(both, [path], per, persist=True),
            }
            if per is None:
                calls["two that keep nothing"] = lambda: _on(both, [path], None, persist=False)
            same = {call() for call in calls.values()} if per else set()
            assert len(same) < 2, "the codebooks differ"
            seconds = _turns(calls, rounds if per else 1)
            plain, ours = seconds["two threads"], seconds["two worker processes"]
            lines += [(f"{each}, {name}", f"{s:.2f} s", f"{plain / s:.2f}")
                      for each, s in seconds.items()]  # fmt: skip
            checks.append(
                Check(f"fit by two worker processes, {rows:,} x {DIM}, K={SIZE}, {name}",
                      "≥ 0.8 x two threads", 2, plain / ours, 0.8)
            )  # fmt: skip
        tables += [_work(both, [path], rows, per, name) for per, name in names.items()]
    path.unlink()
    title = f"fit, {rows:,} x {DIM} in a .npy file, K={SIZE}, 2 stages, 5 iterations"
    note = "The codebooks are the same bit for bit; medians of turns."
    return [Table(title, note, ("", "seconds", "two threads = 1"), lines), *tables], checks


def _threads(count: int, path: Path, per: int | None) -> str:
    from rvq_np.kernels import tiles

    with tiles.at_most(count):
        return _fit(np.load(path, mmap_mode="r"), per)


def _on(client: Any, paths: list[Path], per: int | None, **options: Any) -> str:
    with client.as_current():
        return _fit(paths, per, **options)


def _work(client: Any, paths: list[Path], rows: int, per: int | None, name: str) -> Table:
    """Return where the time of a fit goes, as the workers report it."""
    import distributed

    begun, own = time.perf_counter(), time.process_time()
    with distributed.get_task_stream(client) as stream:
        _on(client, paths, per, persist=True)
    wall, own = time.perf_counter() - begun, time.process_time() - own
    tasks: collections.Counter[str] = collections.Counter()
    seconds: collections.Counter[str] = collections.Counter()
    moved = 0.0
    for task in stream.data:
        tasks[distributed.utils.key_split(task["key"])] += 1
        for part in task["startstops"]:
            kind = NAMES.get(distributed.utils.key_split(task["key"]), "everything else")
            kind = kind if part["action"] == "compute" else "transfers between workers"
            seconds[kind] += part["stop"] - part["start"]
    for each in client.run(_received).values():
        moved += sum(size for start, size in each if start > time.time() - wall - 0.5)
    iterations = 2 * (1 + 5)  # the trials of a stage are one task
    lines = [(kind, f"{each / 2:.2f} s", f"{each / 2 / wall:.0%}")
             for kind, each in seconds.most_common()]  # fmt: skip
    waits = wall - sum(seconds.values()) / 2
    lines.append(("no task: messages, the driver, waiting for each other", f"{waits:.2f} s",
                  f"{waits / wall:.0%}"))  # fmt: skip
    note = (
        f"{wall:.2f} s by the clock; {tasks.total()} tasks, {tasks['tallied'] / iterations:.1f} an "
        f"iteration; {moved / 2**20:,.0f} MiB between workers, {moved / rows:.0f} bytes a row. "
        f"This process and the scheduler, which is in it, took {own:.2f} s of a processor."
    )
    title = f"Where the time of the fit by two worker processes goes, {name}"
    return Table(title, note, ("a worker's time", "seconds", "share"), lines)


NAMES = {
    "tallied": "search and sums", "advanced": "what a stage leaves over",
    "called": "drawing rows and spread codewords", "block": "making blocks",
    "piece": "reading rows", "bad": "looking at all numbers", "energy": "energies",
}  # fmt: skip


def _received(dask_worker: Any) -> list[tuple[float, int]]:
    log = dask_worker.transfer_incoming_log
    return [(each["start"], int(each["total"])) for each in log]


def memory(folder: Path, quick: bool) -> Any:
    """The memory of the process that calls, for more and more rows."""
    lines, most = [], 0.0
    for rows in (100_000, 400_000) if quick else (250_000, 1_000_000):
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
    rows, dim, parts = (400_000 if quick else 10_000_000), 64, 8
    source, target, lines = folder / "in", folder / "out", []
    source.mkdir()
    paths = [source / f"{part}.npy" for part in range(parts)]
    for seed, path in enumerate(paths):
        _write(path, rows // parts, dim, np.float16, seed)
    with _cluster() as client:
        peak = _Peak(client)
        for per, name in ((256, "256 rows a codeword"), (None, "all rows")):
            with peak:
                begun = time.perf_counter()
                states = train.fit(
                    paths, 2, 256, 3, 0, rows_per_codeword=per, tolerance=0, refine=False
                )
                took = time.perf_counter() - begun
                lines.append((f"fit, 2 stages of 256, 3 iterations, {name}", f"{took:.0f} s",
                              *peak.said()))  # fmt: skip
        codebooks = train.codebooks_of(states)
        rvq_np.checkpoints.save(folder / "m.safetensors", codebooks)
        from rvq_np import cli

        with peak:
            begun = time.perf_counter()
            line = f"encode {source} -m {folder / 'm.safetensors'} -o {target}"
            assert cli.main([*line.split(), "--scheduler", client.scheduler.address]) == 0
            lines.append(
                ("rvq-np encode --scheduler", f"{time.perf_counter() - begun:.0f} s", *peak.said())
            )
    some = np.load(paths[-1], mmap_mode="r")[-1000:]
    codes = np.load(target / f"{parts - 1}.npy", mmap_mode="r")[:, -1000:]
    assert (rvq_np.encode(some, codebooks) == codes).all()
    size = rows * dim * 2 / 2**20
    title = f"{rows:,} x {dim} float16 from disk ({size:,.0f} MiB in {parts} files)"
    note = (
        "Two worker processes; what their resident memory grew by at most. A memory map counts "
        "while its pages are in the page cache."
    )
    header = ("", "seconds", "driver grew by", "a worker grew by")
    return [Table(title, note, header, lines)], []


def cost(folder: Path, quick: bool) -> Any:
    """What a billion vectors cost, from the rates measured here."""
    from rvq_np.kernels import tiles

    lines = []
    for dim, size, stages, rows in ((128, 1024, 8, 32_768), (512, 8192, 3, 8192),
                                    (4096, 8192, 3, 2048)):  # fmt: skip
        rng = np.random.default_rng(0)
        x = rng.standard_normal((rows, dim), dtype=np.float32)
        drawn = rng.standard_normal((stages, size, dim), dtype=np.float32)
        codebooks = rvq_np.Codebooks(drawn / np.sqrt(2.0 ** np.arange(stages))[:, None, None])
        with tiles.at_most(1):
            seconds = min(_turns({"": lambda: rvq_np.encode(x, codebooks)}, 1)[""]  # noqa: B023
                          for _ in range(2 if quick else 3))  # fmt: skip
        rate = rows / seconds
        hours, disk = 1e9 / rate / 3600, 1e9 * dim * 2 / 1e9 / 60
        lines.append((f"encode 10⁹ x {dim}, {stages} stages of {size}", f"{rate:,.0f}",
                      f"{hours:,.1f}", f"{disk:,.0f} min"))  # fmt: skip
        if stages == 8:
            # A search of one stage is an eighth of that; three trials and 25 iterations a stage,
            # and the pass that takes off what the stage found.
            hours *= 3 + 25 + 1
            lines.append((f"fit {stages} stages of {size} x {dim} on all of 10⁹ rows, 25 "
                          "iterations, every row searched", f"{rate / 29:,.0f}", f"{hours:,.1f}",
                          "in memory"))  # fmt: skip
    note = (
        "Estimates from rates measured on this machine with one thread, not measurements. Reading: "
        "float16 at 1 GB/s."
    )
    header = ("", "vectors/s of a core", "core-hours", "reading")
    return [Table("Estimated cost of a billion vectors", note, header, lines)], []


def _into_page(path: Path, table: Table) -> None:
    """Write a table into a page, between its two marks."""
    before, rest = path.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    text = str(table).split("\n", 2)[2]  # without the title
    path.write_text(f"{before}{MARKS[0]}\n\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


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
    tally = 2 * SIZE * DIM * 8 + SIZE * 8  # two grids
    for total in (10**7, 10**8, 10**9):
        blocks, alone = -(-total // CHUNK), None
        for workers in (1, 2, 4, 16, 64):
            work = -(-blocks // workers) * CHUNK * seconds[1]
            # Tallies are added by tasks of 16, until the driver adds the last four of them.
            hops = 1 + (workers > 4) + (workers > 64)
            sent = hops * min(workers, 16) * tally / NETWORK + workers * SIZE * DIM * 4 / NETWORK
            iteration = work + sent + workers * TASK + LATENCY
            alone = alone or iteration
            moved = f"{workers * tally / 2**20:,.0f} MiB"
            speedup = f"{alone / iteration:.1f}"
            lines.append((f"{total:,.0f}", str(workers), f"{iteration:.2f} s", speedup, moved))
    title = f"One iteration of k-means on all rows, D={DIM}, K={SIZE}: a simulation"
    note = (
        f"From the measured {1 / seconds[1]:,.0f} rows/s of a worker with one thread here "
        f"({1 / seconds[2]:,.0f} with two), blocks of {CHUNK:,} rows that workers keep, 20 ms of "
        "messages an iteration and 1 ms of the scheduler a task, one task a worker, and "
        "10 Gbit/s a worker. A worker sends one tally (2 * K * D * 8 bytes, as sums are exact)."
    )
    header = ("rows", "workers", "iteration", "speedup", "all tallies")
    return [Table(title, note, header, lines)], []


QUESTIONS = {
    "encode": encoding, "fit": fitting, "memory": memory, "disk": disk, "scaling": scaling,
    "cost": cost,
}  # fmt: skip


def _normal(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, DIM), dtype=np.float32)


def _write(path: Path, rows: int, dim: int, dtype: Any, seed: int = 0) -> None:
    out = np.lib.format.open_memmap(path, "w+", dtype, (rows, dim))
    rng = np.random.default_rng([1, seed])
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
def _cluster(workers: int = 2) -> Iterator[Any]:
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


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
