"""Which files a checkpoint is, and its tensors; each is read when it is accessed.

Files are read by `rvq_np.files.safetensors`; what is here is where published models keep them:
one file, shards with an index, a folder, the JSON config beside them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..files import kinds, safetensors
from ..files.safetensors import Entry

FLOATS = {"F64", "F32", "F16", "BF16", "BOOL"}  # flags of a codebook are read as well
PICKLES = {".pt", ".pth", ".th", ".bin", ".ckpt", ".pkl"}
SHARDS = "model.safetensors.index.json"


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a checkpoint by name; reading one gives float32, or float64 for float64.

    Attributes
    ----------
    read : set of str
        The names of the tensors that were read.
    scopes : list of str
        What the names of all tensors of the quantizers that were found begin with.
    own : dict of str to str
        The names that the file has for tensors, where they were given others.
    """

    REMEDY = ""  # what to do about a tensor that is not of floats

    def __init__(self, entries: Mapping[str, Entry], source: Path, metadata: Any = ()):
        self.entries, self.source, self.metadata = dict(entries), source, dict(metadata)
        self.own: dict[str, str] = {}
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
        return self.under_names({name: name for name in self if name.startswith(prefix)})

    def under_names(self, names: Mapping[str, str]) -> Tensors:
        """Return tensors under other names; `names` has for each that of this object."""
        some = {new: self.entries[name] for new, name in names.items()}
        made = type(self)(some, self.source, self.metadata)
        given = {new: self.own.get(name, name) for new, name in names.items()}
        made.own = {new: name for new, name in given.items() if new != name}
        return made

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._entry(name)
        self.read.add(name)
        name = self.own.get(name, name)
        if 0 in entry.shape:
            raise CheckpointError(f"load: {name!r} in {str(entry.path)!r} is empty.")
        if entry.dtype not in FLOATS:
            raise CheckpointError(
                f"load: {name!r} in {str(entry.path)!r} has type {entry.dtype}; expected floats."
                + self.REMEDY
            )
        values = self.content(name, entry)
        wide = np.float64 if entry.dtype == "F64" else np.float32
        values = values.astype(wide, copy=False)
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"load: {name!r} in {str(entry.path)!r} holds NaN or infinity: the checkpoint is "
                "damaged, or its training diverged."
            )
        return values

    def content(self, name: str, entry: Entry) -> np.ndarray:
        """Return a tensor in its own type; `name` is that in the file."""
        return entry.read()

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
    if not (path.is_file() or path.is_dir()):
        raise CheckpointError(
            f"load: {str(path)!r} is {kinds.of(path).said}; expected a regular file or a directory."
        )
    folder = path if path.is_dir() else path.parent
    entries: dict[str, Entry] = {}
    files, indexed = _files(path)
    metadata: dict[str, str] = {}
    for file in files:
        theirs, about = safetensors.read_header(file)
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
        if path.suffix.lower() in PICKLES or kinds.of(path).name == "pickle":
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
    pickles = sorted(each.name for each in path.iterdir() if each.suffix.lower() in PICKLES)
    raise CheckpointError(
        f"load: {str(path)!r} has {len(found)} files *.safetensors; expected model.safetensors, an "
        "index of shards, or exactly one such file. Pass the path of the file. Pickles there are "
        f"not opened: {pickles[:4]}."
    )


def _shards(index: Path) -> tuple[list[Path], Iterable[str]]:
    content = safetensors.json_object(index, index.read_bytes())
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
    """Return what a JSON config holds, an empty dict if there is none."""
    return safetensors.json_object(path, path.read_bytes()) if path.is_file() else {}
