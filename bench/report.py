"""Tables, and what has to stand beside a figure for it to mean anything."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from threadpoolctl import threadpool_info

from .threads import cores

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "numpy",
    "numba",
    "llvmlite",
    "faiss-cpu",
    "torch",
    "vector-quantize-pytorch",
    "scikit-learn",
)

WIDE = ("SkylakeX", "Cooperlake", "SapphireRapids")  # OpenBLAS's names for AVX-512 kernels

READING = """\
Contestants took turns within one run; figures are medians over the rounds. The ratios within one
run are what counts: absolute figures change with the machine, its clock and its neighbours. "Ours
= 1" and "sgemm = 1" are speeds: above 1 is faster.
"""


class Table(NamedTuple):
    """One answer: a title, what a reader must know, a header and rows of text."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        rule = [
            "-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)
        ]
        drawn = [_line(each, widths) for each in (self.header, rule, *self.rows)]
        note = [self.note, ""] if self.note else []
        return "\n".join([f"## {self.title}", "", *note, *drawn, ""])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return f"| {' | '.join([first, *rest])} |"


class Neighbours:
    """How many cores other work kept busy since this was made: noise that medians cannot hide.

    Two OpenMP threads that want two cores and find one spin at every barrier: a contestant can
    lose a factor of a hundred to a single busy neighbour.
    """

    def __init__(self):
        self.begun = time.perf_counter(), _busy_seconds(), _own_seconds()

    def cores(self) -> float | None:
        """Return the mean number of cores, None where the system does not tell."""
        begun, busy, own = self.begun
        now = _busy_seconds()
        if busy is None or now is None:
            return None
        return max(0.0, (now - busy - (_own_seconds() - own)) / (time.perf_counter() - begun))


def _busy_seconds() -> float | None:
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, *others = map(int, first.split()[1:9])
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    return sum(os.times()[:4])  # children included


def heading(command: str, neighbours: float | None, quick: bool) -> str:
    """Return the opening of the report: date, machine, versions, command, how to read it."""
    others = "unknown" if neighbours is None else f"{neighbours:.2f} on average"
    facts = {
        "Date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Processor": _processor(),
        "Cores": f"{cores()} usable of {os.cpu_count()}",
        "Cores busy with other work": others,
        "System": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "rvq_np": _ours(),
        **{name: _version(name) for name in PACKAGES},
        "BLAS": _blas(),
        "Environment": _environment() or "nothing that changes BLAS, OpenMP or Numba",
        "Command": f"`{command}`",
    }
    listed = [f"- {name}: {fact}" for name, fact in facts.items()]
    warnings = [f"**{each}**\n" for each in _warnings(neighbours, quick)]
    return "\n".join(["# Results", "", *warnings, READING, *listed, ""])


def _warnings(neighbours: float | None, quick: bool) -> list[str]:
    found = []
    if quick:
        found.append("Quick run: small sizes, few rounds. Not for quoting.")
    if neighbours is not None and neighbours > 0.05:
        found.append("Other work ran on the machine: figures are noisy, those of 2 threads wrong.")
    slow = [_pool_name(pool) for pool in _openblas() if not _suits(pool["architecture"])]
    if slow:
        found.append(
            f"Not the kernels of this processor: {'; '.join(slow)}. What uses them is "
            "slower than it could be: see OPENBLAS_CORETYPE in README.md."
        )
    return found


def _suits(architecture: str) -> bool:
    """Return whether OpenBLAS's kernels of that name use the widest vectors there are here."""
    widest = _widest(_processor_facts())
    if widest == "avx512f":
        return architecture in WIDE
    return widest != "avx2" or architecture in (*WIDE, "Haswell", "Zen", "Excavator")


def _environment() -> str:
    """Return the variables by which libraries are tuned: a roofline can halve by one of them."""
    families = ("OPENBLAS_", "OMP_", "GOMP_", "MKL_", "NUMBA_", "RVQ_NP_")
    found = [f"{name}={os.environ[name]}" for name in os.environ if name.startswith(families)]
    return ", ".join(sorted(found))


def _processor() -> str:
    """Return the model, and the widest vectors: models of one name may differ there."""
    facts = _processor_facts()
    if not facts:
        return platform.processor() or platform.machine()
    model = facts.get("model name", platform.machine())
    family = f"family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
    return f"{model}, {family}, {_widest(facts)}"


def _processor_facts() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    entries = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, value in entries}


def _widest(facts: dict[str, str]) -> str:
    flags = facts.get("flags", "").split()
    return next((name for name in ("avx512f", "avx2", "avx") if name in flags), "no AVX")


def _ours() -> str:
    import rvq_np

    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return rvq_np.__version__
    return f"{rvq_np.__version__}, commit {commit}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _blas() -> str:
    """Return whose BLAS runs which kernels: a library may bring its own, and an old one."""
    return "; ".join(_pool_name(pool) for pool in _openblas()) or "not OpenBLAS"


def _openblas() -> list[dict]:
    return [pool for pool in threadpool_info() if pool["internal_api"] == "openblas"]


def _pool_name(pool: dict) -> str:
    owner = Path(pool["filepath"]).parent.name.removesuffix(".libs")
    return f"{owner}: OpenBLAS {pool['version']} {pool['architecture']}"
