"""Our own files: safetensors, what they are as JSON in the metadata. Nothing is ever unpickled.

The JSON has a version and one entry more: ``config``, the arguments of a quantizer whose tensors
follow under ESPnet's names, or ``codebooks``, how any quantizer is put together of tensors, which
`rvq_np.checkpoints` writes and reads.

Writes are atomic: a file of that name is the old one or the new one, never half of either.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ModelFileError
from .newfile import NewFile

KEY = "rvq_np"  # one metadata entry: safetensors writes several in random order
VERSION = 1


def save(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], config: Any) -> None:
    """Write `tensors` and the JSON-able `config` to `path`: the same bytes for the same values."""
    write(path, tensors, {KEY: told(config=config)})


def told(**about: Any) -> str:
    """Return what a file is, for its metadata."""
    return json.dumps({"version": VERSION, **about})


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Write a safetensors file, or leave what was there before."""
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
        If it is truncated, not safetensors, another program's, or from a later version.
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
                    f"load: {str(path)!r} is a safetensors file of another program; wanted one "
                    "written by save() or `rvq-np fit`."
                )
            about = json.loads(metadata[KEY])
            if about["version"] != VERSION:
                raise ModelFileError(
                    f"load: {str(path)!r} has format version {about['version']!r}; this release "
                    f"reads {VERSION!r}. Upgrade rvq_np."
                )
            if "codebooks" in about:
                raise ModelFileError(
                    f"load: {str(path)!r} holds codebooks without a state of training; load them "
                    "with rvq_np.checkpoints.load."
                )
            config = about["config"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError, OSError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(
            f"load: {str(path)!r} is no readable safetensors file ({error}). It may be truncated: "
            "copy it again, or write it anew with save()."
        ) from error
    return tensors, config
