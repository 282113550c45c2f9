"""The tensors of a safetensors checkpoint; each is read when it is accessed, and only its bytes.

The format is a length (8 bytes, little-endian), that many bytes of JSON, and the data; the JSON
has the type, shape and offsets of each tensor.  All of it is checked before data are read, so that
a damaged or malicious file takes no memory.  bfloat16, which NumPy lacks, is converted exactly to
float32.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import CheckpointError

HEADER_LIMIT = 100 << 20  # bytes; that of the safetensors library
RANK_LIMIT = 64  # axes; that of NumPy
SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "U16": 2, "U32": 4, "U64": 8, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
PICKLES = {".pt", ".pth", ".th", ".bin", ".ckpt", ".pkl"}
SHARDS = "model.safetensors.index.json"


class Entry(NamedTuple):
    """Where a tensor is in its file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a checkpoint by name; reading one gives float32, or float64 for float64.

    Attributes
    ----------
    read : set of str
        The names of the tensors that were read.
    scopes : list of str
        What the names of all tensors of the quantizers that were found begin with.
    """

    def __init__(self, entries: Mapping[str, Entry], source: Path, metadata: Any = ()):
        self.entries, self.source, self.metadata = dict(entries), source, dict(metadata)
        self.read: set[str] = set()
        self.scopes: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:  # Mapping's default would read the tensor
        return name in self.entries

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return self._entry(name).shape

    def under(self, prefix: str) -> Tensors:
        """Return the tensors whose names begin with `prefix`, by the same names."""
        some = {name: each for name, each in self.entries.items() if name.startswith(prefix)}
        return type(self)(some, self.source, self.metadata)

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._entry(name)
        self.read.add(name)
        if 0 in entry.shape:
            raise CheckpointError(f"load: {name!r} in {str(entry.path)!r} is empty.")
        content = self.content(name, entry)
        if len(content) != entry.stop - entry.start:
            raise CheckpointError(
                f"load: {str(entry.path)!r} ended while {name!r} was read: the file was changed."
            )
        if entry.dtype == "BF16":
            halves = np.frombuffer(content, "<u2").astype(np.uint32)
            values = (halves << 16).view(np.float32)
        elif entry.dtype in FLOATS:
            values = np.frombuffer(content, np.dtype(FLOATS[entry.dtype]).newbyteorder("<"))
        elif entry.dtype == "BOOL":
            values = np.frombuffer(content, np.uint8) != 0
        else:
            raise CheckpointError(
                f"load: {name!r} in {str(entry.path)!r} has type {entry.dtype}; expected floats."
            )
        wide = np.float64 if entry.dtype == "F64" else np.float32
        values = values.reshape(entry.shape).astype(wide)
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"load: {name!r} in {str(entry.path)!r} holds NaN or infinity: the checkpoint is "
                "damaged, or its training diverged."
            )
        return values

    def content(self, name: str, entry: Entry) -> bytes:
        """Return the bytes of a tensor; fewer where the file has ended."""
        with open(entry.path, "rb") as file:
            file.seek(entry.start)
            return file.read(entry.stop - entry.start)

    def _entry(self, name: str) -> Entry:
        try:
            return self.entries[name]
        except KeyError:
            raise CheckpointError(f"load: {str(self.source)!r} has no tensor {name!r}.") from None


def read(path: str | os.PathLike[str]) -> tuple[Tensors, dict[str, Any]]:
    """Return the tensors and the config of a file, or of a directory with weights and config.

    Raises
    ------
    FileNotFoundError
        If there is no such file or directory.
    CheckpointError
        If it has no safetensors file, or a damaged one.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"load: there is no file or directory {str(path)!r}.")
    folder = path if path.is_dir() else path.parent
    entries: dict[str, Entry] = {}
    files, indexed = _files(path)
    metadata: dict[str, str] = {}
    for file in files:
        theirs, about = _entries(file)
        metadata |= about
        for name, entry in theirs.items():
            if name in entries:
                raise CheckpointError(
                    f"load: {name!r} is in two files, {entries[name].path} and {file}."
                )
            entries[name] = entry
    for name in sorted(set(indexed) - set(entries)):
        raise CheckpointError(f"load: the index of {str(path)!r} has {name!r}, no shard has it.")
    return Tensors(entries, path, metadata), config(folder / "config.json")


def _files(path: Path) -> tuple[list[Path], Iterable[str]]:
    """Return the files to read, and the names of the tensors that an index lists."""
    if path.is_file() and path.name.endswith(".index.json"):
        return _shards(path)
    if path.is_file():
        if path.suffix in PICKLES:
            raise CheckpointError(
                f"load: {str(path)!r} is a pickle, which can run code and is not opened. "
                "If you trust it, convert it:\n"
                "    import torch, safetensors.torch\n"
                f"    state = torch.load({path.name!r}, map_location='cpu', weights_only=True)\n"
                "    safetensors.torch.save_file({k: v.contiguous() for k, v in "
                "state.get('state_dict', state).items()}, 'model.safetensors')"
            )
        return [path], ()
    if (path / SHARDS).is_file():
        return _shards(path / SHARDS)
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"], ()
    found = sorted(path.glob("*.safetensors"))
    if len(found) == 1:
        return found, ()
    pickles = sorted(each.name for each in path.iterdir() if each.suffix in PICKLES)
    raise CheckpointError(
        f"load: {str(path)!r} has {len(found)} files *.safetensors; expected model.safetensors, an "
        "index of shards, or exactly one such file. Pass the path of the file. Pickles there are "
        f"not opened: {pickles[:4]}."
    )


def _shards(index: Path) -> tuple[list[Path], Iterable[str]]:
    content = _json(index, index.read_bytes())
    shards = content.get("weight_map")
    if not isinstance(shards, dict):
        raise CheckpointError(f"load: {str(index)!r} has no 'weight_map' from tensors to files.")
    names = sorted({str(each) for each in shards.values()})
    beside = {each.name for each in index.parent.iterdir() if each.is_file()}
    for name in names:
        if name not in beside:
            raise CheckpointError(
                f"load: {str(index)!r} names the shard {name!r}; expected a file beside it."
            )
    return [index.parent / name for name in names], shards


def config(path: Path) -> dict[str, Any]:
    return _json(path, path.read_bytes()) if path.is_file() else {}


def _json(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"load: {str(path)!r} is not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"load: {str(path)!r} holds JSON that is not an object.")
    return value


def _entries(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the checked header of one safetensors file, and its metadata."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8 or length > HEADER_LIMIT:
            raise CheckpointError(
                f"load: {str(path)!r} has {size} bytes, but a header of {length} bytes: it is "
                "truncated, or not a safetensors file."
            )
        header = _json(path, file.read(length))
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
