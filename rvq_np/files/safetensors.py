"""Safetensors files: the one reader and the one writer. Nothing is unpickled.

The format is a length (8 bytes, little-endian), that many bytes of JSON, and the data; the JSON
has the type, shape and offsets of each tensor.  All of it is checked before data are read, so that
a damaged or malicious file takes no memory.  bfloat16, which NumPy lacks, is converted exactly to
float32.

Our own model files have a JSON description in the metadata, `KEY`.
The JSON has a version and one more entry: ``config``, the arguments of a quantizer whose tensors
have ESPnet's names, or ``codebooks``, how any quantizer is composed of the tensors, which
`rvq_np.checkpoints` writes and reads.  It may have ``front_end``, what the vectors are made of: a
dictionary of `rvq_np.frontend.FrontEnd`.

Writes are atomic: a file of that name is the old one or the new one, never a partial one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import CheckpointError, ModelFileError
from . import kinds
from .atomic import NewFile

KEY = "rvq_np"  # one metadata entry: safetensors writes several in random order
VERSION = 1
HEADER_LIMIT = 100 << 20  # bytes; that of the safetensors library
RANK_LIMIT = 64  # axes; that of NumPy
SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "U16": 2, "U32": 4, "U64": 8, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
KINDS = {"F": "f", "I": "i", "U": "u"}  # NumPy's letters for those it has


class Entry(NamedTuple):
    """Where a tensor is in its file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    def read(self) -> np.ndarray:
        """Return the tensor in its own type, bfloat16 as float32; only its bytes are read.

        Raises
        ------
        CheckpointError
            If the file ends in it, or NumPy has no such type.
        """
        with open(self.path, "rb") as file:
            file.seek(self.start)
            return self.values(file.read(self.stop - self.start))

    def mapped(self) -> np.ndarray:
        """Return the tensor, which stays in the file until it is looked at; errors as of `read`.

        One of a type that needs conversion is read.
        """
        if self.dtype[0] not in KINDS or self.dtype.startswith("F8") or self.stop == self.start:
            return self.read()
        kind = f"<{KINDS[self.dtype[0]]}{SIZES[self.dtype]}"
        return np.asarray(np.memmap(self.path, kind, "r", self.start, self.shape))

    def values(self, content: bytes) -> np.ndarray:
        """Return the tensor whose bytes are `content`; errors as of `read`."""
        if len(content) != self.stop - self.start:
            raise CheckpointError(
                f"load: {str(self.path)!r} ended while a tensor was read: the file was changed."
            )
        if self.dtype == "BF16":
            halves = np.frombuffer(content, "<u2").astype(np.uint32)
            values = (halves << 16).view(np.float32)
        elif self.dtype == "BOOL":
            values = np.frombuffer(content, np.uint8) != 0
        elif self.dtype.startswith("F8"):
            raise CheckpointError(
                f"load: a tensor in {str(self.path)!r} has type {self.dtype}, which NumPy lacks."
            )
        else:
            letter = KINDS[self.dtype[0]]
            values = np.frombuffer(content, f"<{letter}{SIZES[self.dtype]}")
        return values.astype(values.dtype.newbyteorder("="), copy=False).reshape(self.shape)


def save(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    config: Any,
    front_end: Any = None,
) -> None:
    """Write `tensors` and the JSON-able `config` to `path`: the same bytes for the same values."""
    write(path, tensors, {KEY: description(config=config, front_end=front_end)})


def description(**about: Any) -> str:
    """Return the JSON of `about`, without what is None, and the version: a file's metadata."""
    given = {name: value for name, value in about.items() if value is not None}
    return json.dumps({"version": VERSION, **given})


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Write a safetensors file; an error leaves an existing file unchanged."""
    from safetensors.numpy import save as to_bytes

    content = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    whole = to_bytes(content, metadata)
    with NewFile(path) as new:
        new.file.write(whole)


def read_header(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return where each tensor of a safetensors file is, and its metadata; all of it is checked.

    Raises
    ------
    CheckpointError
        If it is damaged, or no safetensors file.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8 or length > HEADER_LIMIT:
            kind = kinds.of(path)
            if kind.name not in ("unknown", "safetensors", "empty"):
                raise CheckpointError(
                    f"load: {str(path)!r} is {kind.said}, not a safetensors file; expected the "
                    "weights of a model."
                )
            raise CheckpointError(
                f"load: {str(path)!r} has {size} bytes, but a header of {length} bytes: it is "
                "truncated, or not a safetensors file."
            )
        header = json_object(path, file.read(length))
    data = 8 + length
    entries = {}
    for name, fields in header.items():
        if name != "__metadata__":
            entries[name] = _entry(path, name, fields, data, size)
    end, before = data, ""
    for name, entry in sorted(entries.items(), key=lambda each: (each[1].start, each[1].stop)):
        if entry.start < end:
            raise CheckpointError(f"load: in {str(path)!r} {name!r} overlaps {before!r}.")
        end, before = entry.stop, name
    about = header.get("__metadata__", {})
    if not isinstance(about, dict) or not all(type(each) is str for each in about.values()):
        raise CheckpointError(
            f"load: {str(path)!r} has metadata that does not map strings to strings."
        )
    return entries, about


def _entry(path: Path, name: str, fields: Any, data: int, size: int) -> Entry:
    try:
        dtype, shape = fields["dtype"], tuple(fields["shape"])
        start, stop = fields["data_offsets"]
        if not all(type(each) is int and each >= 0 for each in (*shape, start, stop)):
            raise TypeError("negative, or not an integer")
        if len(shape) > RANK_LIMIT:
            raise ValueError("too many axes")
        length = math.prod(shape) * SIZES[dtype]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"load: in {str(path)!r} the header of {name!r} is {fields!r}; expected a known "
            f"dtype, shape and data_offsets ({error!r})."
        ) from error
    if length != stop - start or data + stop > size:
        raise CheckpointError(
            f"load: in {str(path)!r} {name!r} is {dtype} {shape} at bytes {start} to {stop}; "
            f"expected {length} bytes within the {size - data} bytes of data."
        )
    return Entry(path, dtype, shape, data + start, data + stop)


def json_object(path: Path, content: bytes) -> dict[str, Any]:
    """Return the JSON object that `content` of the file `path` holds, or raise CheckpointError."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"load: {str(path)!r} is not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"load: {str(path)!r} holds JSON that is not an object.")
    return value


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a readable file that `save` wrote."""
    if not os.path.isfile(path):  # opening a pipe would wait for ever
        return False
    try:
        return "config" in json.loads(read_header(Path(path))[1].get(KEY, "{}"))
    except (CheckpointError, ValueError, TypeError, RecursionError, OSError):
        return False


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], Any]:
    """Return the tensors and the config that `save` wrote; errors as in `load_whole`."""
    return load_whole(path)[:2]


def load_whole(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], Any, Any]:
    """Return the tensors, the config and the front end, None if there is none, of `save`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If it is truncated, not safetensors, of another program, or of a later version.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"load: there is no file {str(path)!r}.")
    kind = kinds.of(path)
    if kind.name not in ("safetensors", "unknown", "empty"):
        raise ModelFileError(
            f"load: {str(path)!r} is {kind.said}, not a readable safetensors file; expected a "
            "model that save() or `rvq-np fit` wrote."
        )
    try:
        found, metadata = read_header(path)
        if KEY not in metadata:
            raise ModelFileError(
                f"load: {str(path)!r} is a safetensors file of another program; expected one "
                "written by save() or `rvq-np fit`."
            )
        about = json.loads(metadata[KEY])
        lacks = [name for name in ("version", "config") if name not in about]
        if lacks and "codebooks" not in about:
            raise ModelFileError(
                f"load: {str(path)!r} has no entry {lacks[0]!r} in its metadata {KEY!r}; "
                "expected version and config. Write it again with save()."
            )
        if about["version"] != VERSION:
            raise ModelFileError(
                f"load: {str(path)!r} has format version {about['version']!r}; this release "
                f"reads {VERSION!r}. Upgrade rvq_np."
            )
        if "codebooks" in about:
            raise ModelFileError(
                f"load: {str(path)!r} has codebooks without training state; load them with "
                "rvq_np.checkpoints.load."
            )
        config, front_end = about["config"], about.get("front_end")
        if max((entry.stop for entry in found.values()), default=0) != path.stat().st_size:
            raise ValueError("its data do not end with its tensors")
        tensors = {name: entry.read() for name, entry in found.items()}
    except (CheckpointError, ValueError, TypeError, KeyError, RecursionError, OSError) as error:
        if isinstance(error, ModelFileError):
            raise
        what = str(error).removeprefix("load: ")
        raise ModelFileError(
            f"load: {str(path)!r} is not a readable safetensors file ({what}). It may be "
            "truncated: copy it again, or write it again with save()."
        ) from error
    return tensors, config, front_end
