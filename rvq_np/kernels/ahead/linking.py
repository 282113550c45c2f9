"""A kernel library for some processors: compiled in child processes, linked, sealed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...errors import BackendError, ParameterError
from .. import prebuilt, tiles
from .targets import TARGETS

CROSS = {"aarch64": "aarch64-linux-gnu-gcc"}


def build(targets: Sequence[str]) -> tuple[bytes, dict[str, Any]]:
    """Compile all kernels for `targets`, of one machine.

    Returns
    -------
    library : bytes
        The content of a shared library.
    about : dict
        What `prebuilt.contents` reads from it.

    Raises
    ------
    ParameterError
        A target that is not known, none, or targets of two machines.
    BackendError
        No C compiler, or one that failed; kernels that cannot be compiled for a target.
    """
    chosen = [_native() if each == "native" else each for each in targets]
    unknown = [each for each in chosen if each not in TARGETS]
    if unknown or not chosen:
        raise ParameterError(
            f"compile: got target {(unknown or ['none'])[0]}; "
            f"expected native, {', '.join(TARGETS)}."
        )
    if not importlib.util.find_spec("numba"):
        raise BackendError("compile: Numba is not installed; pip install numba.")
    machines = {TARGETS[each].machine for each in chosen}
    if len(machines) > 1:
        raise ParameterError(
            f"compile: got targets for {' and '.join(sorted(machines))}; a library is for one."
        )
    (machine,) = machines
    compiler = _compiler(machine)
    ordered = [each for each in TARGETS if each in chosen]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = {each: _emitted(each, folder) for each in ordered}
        (folder / "table.c").write_text(_table(tables))
        binary = _linked(folder, machine, compiler)
    about = {
        "system": sys.platform, "machine": machine, "kernels": prebuilt.sources(),
        "targets": [{"name": each, "shape": tables[each]["shape"]} for each in ordered],
    }  # fmt: skip
    return prebuilt.sealed(binary, about), about


def _native() -> str:
    """Return the most capable target that this processor is one of."""
    import llvmlite.binding as llvm

    has = {name for name, there in dict(llvm.get_host_cpu_features()).items() if there}
    machine = prebuilt.machine()
    for name, target in TARGETS.items():
        if target.machine == machine and has >= set(target.features) - {"neon"}:
            return name
    raise ParameterError(
        f"compile: no target is for this processor; expected one of {', '.join(TARGETS)}."
    )


def _emitted(name: str, folder: Path) -> dict[str, Any]:
    """Return the table of the objects that child processes wrote into `folder`."""
    target = TARGETS[name]
    x86 = target.machine == "x86_64"
    environment = {
        **os.environ,
        "RVQ_NP_KERNELS": "0",
        "NUMBA_DISABLE_INTEL_SVML": "1",
        "NUMBA_CPU_NAME": target.cpu if x86 else "generic",
        "NUMBA_CPU_FEATURES": ",".join(f"+{each}" for each in target.features) if x86 else "",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    shares = tiles.threads()

    def emit(share: int) -> None:
        line = [sys.executable, "-m", f"{__package__}.emit", name, str(folder)]
        line += [str(share), str(shares)]
        _run(line, f"the kernels cannot be compiled for {name}", environment)

    with ThreadPoolExecutor(shares) as pool:
        list(pool.map(emit, range(shares)))
    tables = [json.loads(each.read_text()) for each in folder.glob("*.json")]
    for each in folder.glob("*.json"):
        each.unlink()
    return {
        "shape": tables[0]["shape"],
        "kernels": [one for each in tables for one in each["kernels"]],
    }


def _table(tables: dict[str, Any]) -> str:
    """Return the C source that lists all functions by target, kernel and signature."""
    lines, whole = [], []
    for number, (name, table) in enumerate(tables.items()):
        kernels: dict[str, list[str]] = {}
        for entry, signature, result, symbol in table["kernels"]:
            lines.append(f"extern Kernel {symbol};")
            line = f"""{{"{signature}", '{result}', {symbol}}}"""
            kernels.setdefault(entry, []).append(line)
        entries = []
        for place, (entry, variants) in enumerate(kernels.items()):
            own = f"variants_{number}_{place}"
            lines.append(f"static const Variant {own}[] = {{{', '.join(variants)}}};")
            entries.append(f'{{"{entry}", {len(variants)}, {own}}}')
        entries.append("{0, 0, 0}")
        lines.append(f"static const Entry entries_{number}[] = {{{', '.join(entries)}}};")
        lines.append(f"static int supported_{number}(void) {{ return {TARGETS[name].check}; }}")
        whole.append(f"{{supported_{number}, entries_{number}}}")
    lines.append(f"static const Target targets[] = {{{', '.join(whole)}}};")
    return "\n".join(lines) + "\n"


def _compiler(machine: str) -> str:
    """Return the path of a C compiler for a machine."""
    own = machine == prebuilt.machine()
    named = os.environ.get("CC") or ("cc" if own else CROSS.get(machine, "cc"))
    compiler = shutil.which(named)
    if compiler is None:
        packages = "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
        needed = "gcc or clang" if own else f"{named} (Debian: {packages})"
        raise BackendError(
            f"compile: there is no C compiler {named}; install {needed}, or name one in CC."
        )
    return compiler


def _linked(folder: Path, machine: str, compiler: str) -> bytes:
    """Compile what Python calls and link it with the objects in `folder`; return the library."""
    source, made = Path(__file__).with_name("entry.c"), folder / "library"
    more = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-Wl,--gc-sections"]
    line = [compiler, "-O2", "-shared", "-fPIC", "-I", str(folder), str(source), "-o", str(made)]
    line += [*map(str, sorted(folder.glob("*.o"))), "-lm", *more, "-s"]
    _run(line, f"{compiler} failed; expected a C compiler with its linker (Debian: gcc, binutils)")
    if machine == prebuilt.machine():  # what is missing shows when it is opened
        opening = f"import ctypes; ctypes.PyDLL({str(made)!r})"
        _run([sys.executable, "-c", opening], "the library that was linked cannot be opened")
    return made.read_bytes()


def _run(line: list[str], failed: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise BackendError(f"compile: {failed}:\n{done.stderr[-2000:]}")
