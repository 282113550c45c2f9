"""Kernels that were compiled ahead of time: the library found, checked and called.

The library is the file that ``RVQ_NP_KERNELS`` names, or ``_kernels.so`` (``.dylib``, ``.dll``) in
the folder of the package; ``RVQ_NP_KERNELS=0`` uses none.  It ends with a trailer: what it holds,
as JSON, the length of that, the SHA-256 of all before, and `MAGIC`.  A library that is damaged, of
other kernels than these, for another processor, or in a place that others can write to, is left
alone with one warning; nothing of it has run by then.  Neither Numba nor llvmlite is imported.
"""

import ctypes
import functools
import hashlib
import json
import logging
import os
import platform
import stat
import sys
from pathlib import Path
from typing import Any

from .compiled import entries

MAGIC = b"rvq_np kernels 1\n"
SUFFIXES = (".so", ".dylib", ".dll")
_log = logging.getLogger("rvq_np")
_PACKAGE = Path(__file__).parents[1]


@functools.cache
def library() -> "Library | None":
    """Return the library that serves in this process, or None."""
    named = os.environ.get("RVQ_NP_KERNELS")
    if named == "0":
        return None
    beside = [_PACKAGE / f"_kernels{suffix}" for suffix in SUFFIXES]
    path = Path(named) if named else next((each for each in beside if each.exists()), None)
    if path is None:
        return None
    try:
        return Library(path.resolve())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        _log.warning("the kernel library %s is not used: %s", path, reason)
        return None


class Library:
    """A kernel library, opened: the best of its targets that this processor can run."""

    def __init__(self, path: Path):
        self.path = path
        _trusted(path)
        about = contents(path)
        if (about["system"], about["machine"]) != (sys.platform, machine()):
            raise ValueError(
                f"it is for {about['machine']} on {about['system']}, this is {machine()} on "
                f"{sys.platform}"
            )
        if about["kernels"] != sources():
            raise ValueError("it was compiled from other kernels; run rvq-np compile again")
        self._library = ctypes.PyDLL(str(path))
        self._call = self._library.rvq_np_call
        self._call.restype, self._call.argtypes = (
            ctypes.py_object,
            [ctypes.c_void_p, ctypes.py_object],
        )
        self._library.rvq_np_entry.restype = ctypes.c_void_p
        self._library.rvq_np_entry.argtypes = [ctypes.c_int, ctypes.c_char_p]
        for number, target in enumerate(about["targets"]):
            if self._library.rvq_np_supported(number):
                self.target, self.shape, self._number = target["name"], target["shape"], number
                break
        else:
            names = ", ".join(target["name"] for target in about["targets"])
            raise ValueError(f"it is for {names}, and this processor has none of these")
        for name in entries.ENTRIES:
            if not self._found(name):
                raise ValueError(f"it has no kernel {name}")

    def _found(self, name: str) -> int | None:
        found: int | None = self._library.rvq_np_entry(self._number, name.encode())
        return found

    def entry(self, name: str) -> Any:
        """Return a kernel, such as ``"search.encode"``: called as its Python function is."""
        found, call = self._found(name), self._call
        return lambda *arguments: call(found, arguments)


def machine() -> str:
    """Return the architecture of this machine by one name, whatever the system calls it."""
    return platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64")


def contents(path: Path) -> dict[str, Any]:
    """Return what a library says it holds, once it is proved to be whole.

    Raises
    ------
    ValueError
        It is no kernel library, or one that has been cut or changed.
    """
    data = path.read_bytes()
    if not data.endswith(MAGIC):
        raise ValueError("it is no kernel library of rvq_np, or not a whole one")
    end = len(data) - len(MAGIC) - 32
    if end < 8 or hashlib.sha256(memoryview(data)[:end]).digest() != data[end : end + 32]:
        raise ValueError("it is damaged")
    length = int.from_bytes(data[end - 8 : end], "little")
    about: dict[str, Any] = json.loads(data[end - 8 - length : end - 8])
    return about


def sealed(binary: bytes, about: dict[str, Any]) -> bytes:
    """Return a shared library with the trailer that `contents` reads."""
    text = json.dumps(about).encode()
    data = binary + text + len(text).to_bytes(8, "little")
    return data + hashlib.sha256(data).digest() + MAGIC


@functools.cache
def sources(folder: Path = Path(__file__).parent) -> str:
    """Return a hash of the sources of all kernels: a library, or a cache, of others is outdated."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")) + sorted(folder.rglob("*.c")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _trusted(path: Path) -> None:
    """Raise ValueError where others than the owner of this process could have put the file."""
    if not hasattr(os, "getuid"):
        return
    for place in (path, path.parent):
        found = place.stat()
        if found.st_uid not in (0, os.getuid()):
            raise ValueError(f"{place} belongs to another user")
        own = found.st_gid in (0, os.getgid()) or not found.st_mode & stat.S_IWGRP
        if found.st_mode & stat.S_IWOTH or not own:
            raise ValueError(f"others can write to {place}")
    for place in path.parents:  # who can rename a folder can put another in its place
        if place.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            raise ValueError(f"others can write to {place}")
