"""The context of results: machine, versions, and other load."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from threadpoolctl import threadpool_info

from .threads import cores, imported

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "numpy",
    "numba",
    "llvmlite",
    "faiss-cpu",
    "torch",
    "jax",
    "vector-quantize-pytorch",
    "scikit-learn",
    "espnet",
)

WIDE = ("SkylakeX", "Cooperlake", "SapphireRapids")  # OpenBLAS's names for AVX-512 kernels

READING = """\
Implementations took turns within one run; results are medians over the rounds. Compare the ratios
within one run: absolute results depend on the machine, its clock and its load. "Ours = 1" and
"sgemm = 1" are speeds: above 1 is faster.
"""


class Neighbours:
    """The number of cores kept busy by other processes since this was created.

    Two OpenMP threads with only one free core spin at every barrier: one other busy process can
    slow an implementation down by a factor of a hundred, which medians do not remove.
    """

    def __init__(self):
        self.begun = time.perf_counter(), _busy_seconds(), _own_seconds()

    def cores(self) -> float | None:
        """Return the mean number of cores, None if the system does not report it."""
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


def opening(neighbours: float | None, quick: bool) -> str:
    """Return the head of the report: warnings, and how to read it."""
    warnings = [f"**{each}**\n" for each in _warnings(neighbours, quick)]
    return "\n".join(["# Results", "", *warnings, READING])


def facts(command: str, neighbours: float | None) -> str:
    """Return date, machine, versions and command as a section."""
    others = "unknown" if neighbours is None else f"{neighbours:.2f} on average"
    listed = {
        "Date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Processor": _processor(),
        "Cores": f"{cores()} usable of {os.cpu_count()}",
        "Cores busy with other work": others,
        "System": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "rvq_np": _ours(),
        "Kernels of rvq_np": _kernels(),
        **{name: _version(name) for name in PACKAGES},
        "BLAS": _blas(),
        "torch computes with": _torch(),
        "Environment": _environment() or "nothing that changes BLAS, OpenMP or Numba",
        "Command": f"`{command}`",
    }
    return "\n".join(
        ["## The run", "", *[f"- {name}: {fact}" for name, fact in listed.items()], ""]
    )


def _warnings(neighbours: float | None, quick: bool) -> list[str]:
    found = []
    if quick:
        found.append("Quick run: small sizes, few rounds. Do not quote.")
    if neighbours is not None and neighbours > 0.05:
        found.append(
            "Other processes ran on the machine: results are noisy, those of 2 threads wrong."
        )
    slow = [_pool_name(pool) for pool in _openblas() if not _suits(pool["architecture"])]
    if slow:
        found.append(
            f"OpenBLAS kernels of another processor: {'; '.join(slow)}. Libraries that use them "
            "are slower than they could be: see OPENBLAS_CORETYPE in README.md."
        )
    return found


def _suits(architecture: str) -> bool:
    """Return whether OpenBLAS's kernels of that name use the widest SIMD vectors requested.

    Numba may be configured for another processor than this one: then BLAS should be, too.
    """
    widest = instructions()
    if widest == "avx512f":
        return architecture in WIDE
    return widest != "avx2" or architecture in (*WIDE, "Haswell", "Zen", "Excavator")


def _environment() -> str:
    """Return the environment variables that tune libraries: one can halve the sgemm rate."""
    families = ("OPENBLAS_", "OMP_", "GOMP_", "MKL_", "NUMBA_", "RVQ_NP_", "ATEN_", "ONEDNN_")
    found = [
        f"{name}={Path(value).name}"  # where files are says nothing to others
        for name, value in os.environ.items()
        if name.startswith((*families, "FAISS_")) and name != "NUMBA_CACHE_DIR"
    ]
    return ", ".join(sorted(found))


def _processor() -> str:
    """Return the model, and its widest SIMD vectors, which may differ for the same model name."""
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
    flags = facts.get("flags", facts.get("Features", "")).split()
    named = ("avx512f", "avx2", "avx", "asimddp", "asimd")  # the last two are NEON's
    return next((name for name in named if name in flags), "no AVX")


def _ours() -> str:
    import rvq_np

    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return rvq_np.__version__
    return f"{rvq_np.__version__}, commit {commit}"


def instructions() -> str:
    """Return the widest SIMD instructions that this run could use, as the system calls them."""
    asked = os.environ.get("NUMBA_CPU_FEATURES", "").replace("+", " ").replace(",", " ")
    return _widest({"flags": asked} if asked else _processor_facts())


def _kernels() -> str:
    """Return the SIMD width of our kernels and their screening passes, the fastest first."""
    try:
        from rvq_np.kernels.compiled.target import TARGET
    except ImportError:
        return "NumPy"
    return f"{TARGET.lanes} floats per SIMD vector, screening passes: {', '.join(TARGET.screens)}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _blas() -> str:
    """Return the kernels of each loaded BLAS: a library may ship its own, and an old one."""
    return "; ".join(_pool_name(pool) for pool in _openblas()) or "not OpenBLAS"


def _torch() -> str:
    """Return the SIMD vectors of torch's kernels, and the BLAS it calls."""
    torch = imported("torch")
    if torch is None:
        return "not installed"
    lines = [line.strip(" -") for line in torch.__config__.show().splitlines()]
    blas = [line for line in lines if "Math Kernel Library" in line or "OpenBLAS" in line]
    names = (each.removeprefix("Intel(R) oneAPI ").partition(" for ")[0] for each in blas)
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *(names or ["no BLAS named"])])


def _openblas() -> list[dict]:
    return [pool for pool in threadpool_info() if pool["internal_api"] == "openblas"]


def _pool_name(pool: dict) -> str:
    owner = Path(pool["filepath"]).parent.name.removesuffix(".libs")
    return f"{owner}: OpenBLAS {pool['version']} {pool['architecture']}"
