"""The tensors of a GGUF file as those of a checkpoint; each is read when it is accessed."""

from __future__ import annotations

from pathlib import Path

from ..files import gguf, kinds
from ._file import Tensors


class Blocks(Tensors):
    """The tensors of a GGUF file, of which the quantized ones are not read."""

    REMEDY = (
        " Tensors that are quantized are not read: write the file again with its codebooks and "
        "their maps as F32, F16 or BF16."
    )


def is_one(path: Path) -> bool:
    """Whether a file is a GGUF file, or has its name and is damaged."""
    kind = kinds.of(path).name if path.is_file() else ""
    return kind == "gguf" or (path.suffix.lower() == ".gguf" and kind in ("unknown", "empty"))


def read(path: Path) -> Blocks:
    """Return the tensors; raises `CheckpointError` where the file is damaged."""
    return Blocks(gguf.read_header(path)[0], path)
