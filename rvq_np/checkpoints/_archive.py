"""The arrays of a NumPy archive as the tensors of a checkpoint; each is read when it is accessed.

Names and shapes are read first.  An array of objects would be a pickle, and is refused.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..files import kinds
from ..files.safetensors import RANK_LIMIT, Entry
from ._file import Tensors

TYPES = {"f8": "F64", "f4": "F32", "f2": "F16", "b1": "BOOL"}
OTHERS = "I64"  # of integers and text, which no quantizer computes with


class Arrays(Tensors):
    """The arrays of an ``.npz`` file."""

    def content(self, name: str, entry: Entry) -> np.ndarray:
        try:
            with zipfile.ZipFile(entry.path) as archive, archive.open(f"{name}.npy") as file:
                file.read(entry.start)
                return entry.values(file.read(entry.stop - entry.start))
        except Exception as error:  # of a damaged archive, checksums included
            raise CheckpointError(
                f"load: {name!r} in {str(entry.path)!r} cannot be read: {error}."
            ) from error


def is_one(path: Path) -> bool:
    """Whether a file is an archive, or has its name and is damaged."""
    kind = kinds.of(path).name if path.is_file() else ""
    damaged = path.suffix.lower() == ".npz" and kind in ("zip", "unknown", "empty")
    return kind == "npz" or damaged


def read(path: Path) -> Arrays:
    """Return the arrays of an archive.

    Raises
    ------
    CheckpointError
        If it is no archive of arrays, or one holds objects.
    """
    entries = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    with archive.open(member) as file:
                        name = member.filename.removesuffix(".npy")
                        entries[name] = _entry(path, name, member.file_size, file)
    except CheckpointError:
        raise
    except Exception as error:  # headers are parsed as Python: any exception is possible
        raise CheckpointError(
            f"load: {str(path)!r} is not a readable .npz archive ({error}). Write one with "
            "numpy.savez."
        ) from error
    return Arrays(entries, path)


def _entry(path: Path, name: str, size: int, file: Any) -> Entry:
    version = np.lib.format.read_magic(file)
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, columns_first, dtype = header(file)
    start = file.tell()
    if dtype.hasobject or dtype.byteorder == ">" or (columns_first and len(shape) > 1):
        raise CheckpointError(
            f"load: {name!r} in {str(path)!r} is an array {dtype.str} of objects, of another byte "
            "order, or column by column; expected floats as numpy.savez writes them: call "
            "numpy.ascontiguousarray first."
        )
    if len(shape) > RANK_LIMIT or start + math.prod(shape) * dtype.itemsize != size:
        raise CheckpointError(
            f"load: {name!r} in {str(path)!r} has shape {shape} in {size - start} bytes; the "
            "archive is damaged."
        )
    return Entry(path, TYPES.get(dtype.str[1:], OTHERS), shape, start, size)
