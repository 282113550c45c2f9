"""How long does a new user take for each job of the guide, from nothing to a first result?

    python -m bench.jobs            # all seven, in new virtual environments: writes tried.md
    python -m bench.jobs search ids # some of them, printed only

Each job gets a new virtual environment, what its page says is to be installed, and the commands and
examples of its page.  Times are by the clock.  Reading is not in them.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import textwrap
import time
from datetime import date
from pathlib import Path
from typing import NamedTuple

from .machine import ROOT, _processor

PAGE = ROOT / "docs" / "reference" / "tried.md"


class Job(NamedTuple):
    """A page of the guide, what it has installed, and what is run."""

    title: str
    page: str
    install: str
    files: dict[str, str]  # what a user would have or write
    commands: tuple[str, ...]
    result: str


PLAIN = "{wheel}"
TORCH = """
import torch
from rvq_np.grad.torch import ResidualVectorQuantizer
rvq = ResidualVectorQuantizer(dimension=16, codebook_dim=16, n_q=2, bins=32)
encoder = torch.nn.Conv1d(1, 16, 8, 8)
x = torch.randn(8, 1, 800)
quantized, codes, bandwidth, penalty = rvq(encoder(x), sample_rate=75)
(quantized.square().mean() + penalty).backward()
print(tuple(codes.shape), encoder.weight.grad.abs().sum() > 0)
rvq.to_numpy().save('quantizer.safetensors')
"""
MINE = """
import numpy as np
from rvq_np.testing import rvq_tests

def encode(x, codebooks):
    codes, rest = [], x.copy()
    for codebook in codebooks:
        code = np.square(rest[:, None] - codebook[None]).sum(2).argmin(1)
        codes.append(code)
        rest = rest - codebook[code]
    return np.array(codes, 'i4').reshape(len(codebooks), len(x))

def decode(codes, codebooks):
    return sum(codebook[code] for codebook, code in zip(codebooks, codes))

TestMine = rvq_tests(encode=encode, decode=decode)
"""
CLUSTER = """
import dask.array as da
from distributed import Client, LocalCluster
import numpy as np, rvq_np
if __name__ == '__main__':
    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster):
        x = np.random.default_rng(0).standard_normal((20000, 16), 'f4')
        lazy = da.from_array(x, chunks=(5000, 16))
        def fitted(data):
            return rvq_np.ResidualVectorQuantizer(16, 16, n_q=2, bins=32, rng=0).fit(data).codebooks
        print(fitted(lazy).fingerprint == fitted(x).fingerprint)
"""
CHECKPOINT = """
import numpy as np
import rvq_np
rng = np.random.default_rng(0)
np.save("latents.npy", rng.standard_normal((150, 16), "f4"))
rvq_np.checkpoints.save("checkpoint.safetensors", rng.standard_normal((4, 64, 16), "f4"))
"""
ITEMS = """
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
x = np.random.default_rng(0).standard_normal((2000, 32), "f4")
names = [str(n) for n in range(2000)]
pq.write_table(pa.table({"item_id": names, "embedding": list(x)}), "items.parquet")
"""
JOBS = {
    "codec": Job(
        "Codec tokens on a CPU", "codec", f"{PLAIN}[cli]", {"before.py": CHECKPOINT},
        ("python before.py",
         "rvq-np convert checkpoint.safetensors -o codebooks.safetensors",
         "rvq-np encode latents.npy -m codebooks.safetensors -o codes.rvq --frame-rate 75",
         "rvq-np info codes.rvq"),
        "a file of tokens",
    ),
    "model": Job(
        "A quantizer in my model", "model", f"{PLAIN}[torch]", {"train.py": TORCH},
        ("python train.py",), "a training step in torch",
    ),
    "ids": Job(
        "Semantic IDs", "semantic", f"{PLAIN}[ids,cli]", {"before.py": ITEMS},
        ("python before.py",
         "rvq-np ids items.parquet --id item_id --column embedding --sizes 32,32,32 -o ids.parquet",
         "rvq-np ids info ids.parquet"),
        "a Parquet file of unique IDs",
    ),
    "search": Job(
        "Compress and search embeddings", "search", PLAIN, {}, (), "codes of 4 bytes, distances",
    ),
    "prove": Job(
        "Prove my own RVQ", "prove", f"{PLAIN}[test]", {"test_mine.py": MINE},
        ("pytest -q test_mine.py; test $? -le 1",), "a verdict on a search in float32",
    ),
    "cluster": Job(
        "Many machines", "cluster", f"{PLAIN}[dask]", {"cluster.py": CLUSTER},
        ("python cluster.py",), "the same codebooks from two workers and from one process",
    ),
    "small": Job(
        "Small machines", "small", f"--no-deps {PLAIN} numpy safetensors array-api-compat", {}, (),
        "codes without Numba",
    ),
}  # fmt: skip


class Took(NamedTuple):
    """Seconds of installing, and of everything after it."""

    install: float
    run: float


def tried(job: Job, wheel: Path) -> Took:
    """Do a job in a new environment; raise where a step fails."""
    with tempfile.TemporaryDirectory(prefix="job-") as name:
        folder = Path(name)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment["PATH"] = f"{folder}/venv/bin:{environment['PATH']}"
        environment["NUMBA_CACHE_DIR"] = f"{folder}/cache"  # nothing is compiled yet

        def run(command: str) -> None:
            print(f"  {command.splitlines()[0][:100]}", flush=True)
            subprocess.run(["bash", "-c", command], cwd=folder, env=environment, check=True)

        started = time.monotonic()
        run(f"{sys.executable} -m venv venv && pip install -q {job.install.format(wheel=wheel)}")
        installed = time.monotonic()
        for file, text in job.files.items():
            (folder / file).write_text(text)
        for command in job.commands:
            run(command)
        page = ROOT / "docs" / "guide" / f"{job.page}.md"
        run(f"python -W error::SyntaxWarning -m doctest {page}")
        return Took(installed - started, time.monotonic() - installed)


def written(took: dict[str, Took]) -> str:
    """Return the page."""
    rows = "\n".join(
        f"| [{JOBS[name].title}](../guide/{JOBS[name].page}.md) | {JOBS[name].result} "
        f"| {each.install:.2g} s | {each.run:.2g} s |"
        for name, each in took.items()
    )
    made = f"{date.today().isoformat()}: Python {platform.python_version()}, {_processor()}"
    text = f"""
        # Tried as a new user

        Each job of the [guide](../guide/index.md), from nothing to a first result: a new virtual
        environment, the installation that its page names, the commands of the page, its examples.
        Times are by the clock, from a wheel of this version, with nothing cached by Numba, on a
        machine that had other work as well. Reading is not in them.

        | job | result | installing | commands and examples |
        |---|---|---:|---:|
        ROWS

        Written by `python -m bench.jobs` on {made}.
        """
    return textwrap.dedent(text).strip().replace("ROWS", rows) + "\n"


def main() -> None:
    names = sys.argv[1:] or list(JOBS)
    took = {}
    with tempfile.TemporaryDirectory(prefix="job-wheel-") as folder:
        build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, str(ROOT)]
        subprocess.run(build, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        for name in names:
            print(name, flush=True)
            took[name] = tried(JOBS[name], wheel)
            print(f"  {took[name]}", flush=True)
    if len(names) == len(JOBS):
        PAGE.write_text(written(took), encoding="utf-8")


if __name__ == "__main__":
    main()
