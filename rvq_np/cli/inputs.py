"""What a command reads: files of another kind are named as what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import InputFileError
from ..files import kinds

# Pickles are among them: the library says what to do.
MODELS = ("safetensors", "faiss", "npz", "gguf", "folder", "pickle")
READ = {
    "vectors": (
        ("npy", "npz", "csv", "parquet", *sorted(kinds.SOUNDS)),
        "reads vectors: .npy, .npz, .csv, .parquet and sound files",
    ),
    "codes": (
        ("rvq", "npy", "npz", "csv", "parquet"),
        "reads codes: .rvq, .npy, .npz, .csv and .parquet files",
    ),
    "model": (MODELS, "needs a model: a file of rvq_np, a published checkpoint or a Faiss index"),
    "info": ((*MODELS, "rvq"), "reads models and .rvq files"),
    "verify": (("rvq",), "reads .rvq files"),
}


def kind(command: str, path: str, what: str) -> str:
    """Return the kind of an input; "unknown" and "empty" are for its reader to judge.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    InputFileError
        If it is of a kind that is not read as `what`, a key of `READ`.
    """
    found = kinds.of(path)
    read, said = READ[what]
    if found.name == "zip" and path.lower().endswith(".npz") and "npz" in read:
        return "npz"  # its reader says what it lacks
    if found.name == "text" and path.lower().endswith(".csv") and "csv" in read:
        return "csv"  # of one column, it looks like any text
    is_index = found.name == "json" and path.endswith(".index.json") and "safetensors" in read
    if found.name in (*read, "unknown", "empty") or is_index:
        return found.name
    raise InputFileError(f"{path!r} is {found.said}; {command} {said}.")


def names(command: str, path: str) -> Any:
    """Return the JSON object of ``--names``, which `rvq_np.checkpoints.load` checks.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    InputFileError
        If it is no JSON.
    """
    found = kinds.of(path)
    if found.name not in ("json", "text", "csv"):  # by their first line; the reader judges
        raise InputFileError(f"{path!r} is {found.said}; --names of {command} reads a JSON file.")
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputFileError(
            f"--names of {command}: {path!r} is not valid JSON ({error})."
        ) from error
