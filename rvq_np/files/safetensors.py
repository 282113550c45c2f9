"""Our own model files: safetensors with a JSON description in the metadata. Nothing is unpickled.

The JSON has a version and one more entry: ``config``, the arguments of a quantizer whose tensors
have ESPnet's names, or ``codebooks``, how any quantizer is composed of the tensors, which
`rvq_np.checkpoints` writes and reads.

Writes are atomic: a file of that name is the old one or the new one, never a partial one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelFileError
from .atomic import NewFile

KEY = "rvq_np"  # one metadata entry: safetensors writes several in random order
VERSION = 1


def save(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], config: Any) -> None:
    """Write `tensors` and the JSON-able `config` to `path`: the same bytes for the same values."""
    write(path, tensors, {KEY: description(config=config)})


def description(**about: Any) -> str:
    """Return the JSON of `about`, with the version, for the metadata of a file."""
    return json.dumps({"version": VERSION, **about})


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Write a safetensors file; an error leaves an existing file unchanged."""
    from safetensors.numpy import save as to_bytes

    content = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    whole = to_bytes(content, metadata)
    with NewFile(path) as new:
        new.file.write(whole)


def is_model(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a readable file that `save` wrote."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return "config" in json.loads((file.metadata() or {}).get(KEY, "{}"))
    except (SafetensorError, ValueError, TypeError, OverflowError, OSError):
        return False


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], Any]:
    """Return the tensors and the config that `save` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If it is truncated, not safetensors, of another program, or of a later version.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"load: there is no file {str(path)!r}.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
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
            config = about["config"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError, OSError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(
            f"load: {str(path)!r} is not a readable safetensors file ({error}). It may be "
            "truncated: copy it again, or write it again with save()."
        ) from error
    return tensors, config
