"""A file of one-dimensional arrays behind a JSON header, which can be mapped into memory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import arguments
from ..errors import InputFileError
from ..files.atomic import NewFile

VERSION = 1
ALIGNED = 64  # bytes: where arrays begin
MAGIC = b"rvq_np arrays\n"
HEADER = 1 << 16  # bytes, at most


def write(
    call: str, path: Any, about: Mapping[str, Any], contents: Mapping[str, np.ndarray]
) -> None:
    """Write arrays and what JSON can hold about them: whole or not at all."""
    path = arguments.path(call, "path", path)
    places, at = {}, 0
    arrays = {name: np.ascontiguousarray(each) for name, each in contents.items()}
    for name, array in arrays.items():
        places[name] = [array.dtype.newbyteorder("<").str, len(array), at]
        at += -(-array.nbytes // ALIGNED) * ALIGNED
    text = json.dumps({"version": VERSION, **about, "arrays": places, "bytes": at})
    head = MAGIC + text.encode() + b"\n"
    with NewFile(path) as new:
        new.file.write(head + b" " * (-len(head) % ALIGNED))
        for array in arrays.values():
            new.file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
            new.file.write(b"\0" * (-array.nbytes % ALIGNED))


def read(
    call: str, path: str | os.PathLike[str], mapped: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what `write` wrote, or raise `InputFileError`; `mapped`: arrays stay in the file."""
    path = arguments.path(call, "path", path)
    with open(path, "rb") as file:
        head = file.readline(HEADER) + file.readline(HEADER)
        size = file.seek(0, os.SEEK_END)
    start = -(-len(head) // ALIGNED) * ALIGNED
    try:
        if not head.startswith(MAGIC):
            raise ValueError("it does not begin as one")
        about = json.loads(head[len(MAGIC) :])
        if about["version"] != VERSION:
            raise ValueError(f"it has version {about['version']!r}; this release reads {VERSION}")
        if start + about["bytes"] != size:
            raise ValueError(f"it has {size} bytes; expected {start + about['bytes']}")
        found = {name: _array(path, start, size, mapped, *each)
                 for name, each in about["arrays"].items()}  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputFileError(
            f"{call}: {path!r} is no whole file of arrays of rvq_np ({error}). Write it again."
        ) from error
    return about, found


def _array(
    path: Any, start: int, size: int, mapped: bool, dtype: str, length: int, at: int
) -> np.ndarray:
    kind = np.dtype(dtype)
    if kind.kind not in "iu" or length < 0 or at < 0 or start + at + length * kind.itemsize > size:
        raise ValueError(f"it lists {length} of {dtype} at {at}")
    if length == 0:
        return np.empty(0, kind)
    if mapped:
        return np.asarray(np.memmap(path, kind, "r", start + at, (length,)))
    return np.fromfile(path, kind, length, offset=start + at)
