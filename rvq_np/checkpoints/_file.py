"""The tensors of a safetensors checkpoint, read only when asked for, and never more than asked for.

The format is a length (8 bytes, little-endian), that many bytes of JSON, and the data; the JSON
says each tensor's type, shape and place.  All of it is checked before anything is read, so that a
damaged or hostile file costs nothing.  bfloat16, which NumPy has not, is widened exactly.
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
    """Where a tensor lies in its file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a checkpoint by name; reading one gives float32, or float64 for float64."""

    def __init__(self, entries: Mapping[str, Entry], source: Path, metadata: Any = ()):
        self.entries, self.source, self.metadata = dict(entries), source, dict(metadata)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:  # that of Mapping would read the tensor
        return name in self.entries

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return self._entry(name).shape

    def under(self, prefix: str) -> Tensors:
        """Return the tensors whose names begin so, by the rest of their names."""
        return Tensors(
            {
                name.removeprefix(prefix): entry
                for name, entry in self.entries.items()
                if name.startswith(prefix)
            },
            self.source,
        )

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._entry(name)
        if 0 in entry.shape:
            raise CheckpointError(f"load: {name!r} in {str(entry.path)!r} is empty.")
        with open(entry.path, "rb") as file:
            file.seek(entry.start)
            content = file.read(entry.stop - entry.start)
        if len(content) != entry.stop - entry.start:
            raise CheckpointError(
                f"load: {str(entry.path)!r} ended while {name!r} was read; it changed meanwhile."
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
                f"load: {name!r} in {str(entry.path)!r} has type {entry.dtype}; wanted floats."
            )
        wide = np.float64 if entry.dtype == "F64" else np.float32
        values = values.reshape(entry.shape).astype(wide)
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"load: {name!r} in {str(entry.path)!r} holds NaN or infinity: the checkpoint is "
                "damaged, or its training was."
            )
        return values

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
        If there is nothing of that name.
    CheckpointError
        If it holds no safetensors, or damaged ones.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"load: there is no file or directory {str(path)!r}.")
    folder = path if path.is_dir() else path.parent
    entries: dict[str, Entry] = {}
    files, promised = _files(path)
    metadata: dict[str, str] = {}
    for file in files:
        theirs, about = _entries(file)
        metadata |= about
        for name, entry in theirs.items():
            if name in entries:
                raise CheckpointError(f"load: {name!r} is in {entries[name].path} and in {file}.")
            entries[name] = entry
    for name in sorted(set(promised) - set(entries)):
        raise CheckpointError(f"load: the index of {str(path)!r} has {name!r}, but no shard has.")
    return Tensors(entries, path, metadata), _config(folder / "config.json")


def _files(path: Path) -> tuple[list[Path], Iterable[str]]:
    """Return the files to read, and the names of tensors that an index promises."""
    if path.is_file() and path.name.endswith(".index.json"):
        return _shards(path)
    if path.is_file():
        if path.suffix in PICKLES:
            raise CheckpointError(
                f"load: {str(path)!r} is a pickle, which can run code, and is never opened here. "
                "Convert it where you trust it:\n"
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
        f"load: {str(path)!r} has {len(found)} files *.safetensors; wanted model.safetensors, an "
        f"index of shards, or just one. Name the file. Pickles there, never opened: {pickles[:4]}."
    )


def _shards(index: Path) -> tuple[list[Path], Iterable[str]]:
    content = _json(index, index.read_bytes())
    shards = content.get("weight_map")
    if not isinstance(shards, dict):
        raise CheckpointError(f"load: {str(index)!r} has no 'weight_map' of tensors to files.")
    names = sorted({str(each) for each in shards.values()})
    beside = {each.name for each in index.parent.iterdir() if each.is_file()}
    for name in names:
        if name not in beside:
            raise CheckpointError(
                f"load: {str(index)!r} names the shard {name!r}, which is not a file beside it."
            )
    return [index.parent / name for name in names], shards


def _config(path: Path) -> dict[str, Any]:
    return _json(path, path.read_bytes()) if path.is_file() else {}


def _json(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"load: {str(path)!r} is no JSON ({error}).") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"load: {str(path)!r} holds JSON, but no object.")
    return value


def _entries(path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return the checked header of one safetensors file, and its metadata."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8 or length > HEADER_LIMIT:
            raise CheckpointError(
                f"load: {str(path)!r} has {size} bytes and claims a header of {length}: it is "
                "truncated, or no safetensors file."
            )
        header = _json(path, file.read(length))
    data = 8 + length
    entries = {}
    for name, told in header.items():
        if name != "__metadata__":
            entries[name] = _entry(path, name, told, data, size)
    end, before = data, ""
    for name, entry in sorted(entries.items(), key=lambda each: (each[1].start, each[1].stop)):
        if entry.start < end:
            raise CheckpointError(f"load: in {str(path)!r} {name!r} overlaps {before!r}.")
        end, before = entry.stop, name
    about = header.get("__metadata__", {})
    if not isinstance(about, dict) or not all(type(each) is str for each in about.values()):
        raise CheckpointError(f"load: {str(path)!r} has metadata that is no text by name.")
    return entries, about


def _entry(path: Path, name: str, told: Any, data: int, size: int) -> Entry:
    try:
        dtype, shape = told["dtype"], tuple(told["shape"])
        start, stop = told["data_offsets"]
        if not all(type(each) is int and each >= 0 for each in (*shape, start, stop)):
            raise TypeError("negative, or no whole number")
        if len(shape) > RANK_LIMIT:
            raise ValueError("too many axes")
        wanted = math.prod(shape) * SIZES[dtype]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"load: in {str(path)!r} the header of {name!r} is {told!r}; wanted a known "
            f"dtype, shape and data_offsets ({error!r})."
        ) from error
    if wanted != stop - start or data + stop > size:
        raise CheckpointError(
            f"load: in {str(path)!r} {name!r} is {dtype} {shape} at bytes {start} to {stop} of "
            f"{size - data}: out of range, or not its size."
        )
    return Entry(path, dtype, shape, data + start, data + stop)
