"""The context of results: GPU, driver, versions, command."""

from __future__ import annotations

import datetime
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

import rvq_np

from .running import sanitizer
from .stub import ROOT

PACKAGES = ("numpy", "torch", "triton", "numba", "jax", "faiss-gpu-cu12", "cuvs-cu13", "hypothesis")
ASKED = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit"


def facts(command: str, dry: bool) -> dict[str, str]:
    """Return what is known, by name."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    cupy = {name: _version(name) for name in ("cupy-cuda12x", "cupy-cuda13x", "cupy")}
    found = {
        "Date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "GPU": "none: emulated" if dry else _gpu(),
        "CUDA of CuPy": "none" if dry else _cuda(),
        "CuPy": "a stub"
        if dry
        else ", ".join(f"{name} {each}" for name, each in cupy.items() if each),
        "rvq_np": f"{rvq_np.__version__}, commit {_said(git) or 'unknown'}",
        "Python": platform.python_version(),
        **{name: _version(name) or "not installed" for name in PACKAGES},
        "compute-sanitizer": sanitizer() or "not found",
        "Command": f"`{command}`",
    }
    return {name: fact or "unknown" for name, fact in found.items()}


def _gpu() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "unknown: no nvidia-smi"
    return _said([program, f"--query-gpu={ASKED}", "--format=csv,noheader"]).replace("\n", "; ")


def _cuda() -> str:
    import cupy

    runtime = cupy.cuda.runtime
    try:
        return f"runtime {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}"
    except Exception as error:
        return f"unknown: {error}"


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
