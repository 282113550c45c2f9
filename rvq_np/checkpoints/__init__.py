"""Codebooks of published models: one file per family, named after it.

The contract of a file here, with the family's name for its name:

``matches(names) -> bool``
    Whether a checkpoint with these tensor names may be of the family.
``build(tensors, config) -> Codebooks``
    The quantizer, from the tensors of the file and the JSON config beside it, ``{}`` if there is
    none; None if they turn out to be another family's. `tensors` is a mapping that reads what is
    asked for, as float32 or float64; a name that is not there raises `CheckpointError`.

A family whose files are no safetensors has, instead of both, ``MAGIC``, the bytes they begin with,
and ``parse(file, path) -> Codebooks``, from the open file, just behind them.

A pickle is never opened: ``.pt``, ``.pth``, ``.th`` and ``.bin`` files can run code.  For models of
this library see `rvq_np.ResidualVectorQuantizer.load`.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType

from ..codebooks import Codebooks
from ..errors import CheckpointError, ParameterError
from . import _file


def families() -> list[str]:
    """Return the names of the families there are.

    Examples
    --------
    >>> "encodec" in families()
    True
    """
    return sorted(each.name for each in pkgutil.iter_modules(__path__) if each.name[0] != "_")


def load(path: str | os.PathLike[str], family: str | None = None) -> Codebooks:
    """Return the codebooks of a published model.

    Parameters
    ----------
    path : str or os.PathLike
        A safetensors file, an index of shards (``*.index.json``), a directory with either, or a
        Faiss index. A ``config.json`` beside the weights is read.
    family : str, optional
        One of `families`; by default it is told from the names of the tensors.

    Returns
    -------
    codebooks : Codebooks
        For `rvq_np.encode` and `rvq_np.decode`, float32, or float64 where the words are, with
        projections and metric as the model has them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If it is a pickle, damaged, of no known family, or does not fit the family asked for; the
        file and the tensor are named.
    ParameterError
        If there is no such family.

    Notes
    -----
    Reads the header and the quantizer's own tensors, nothing else of the file.

    Examples
    --------
    >>> codebooks = load("encodec_24khz/model.safetensors")  # doctest: +SKIP
    >>> codebooks[:8]  # doctest: +SKIP
    Codebooks(8 stages, 1024 words of 128)
    """
    return load_as(path, family)[1]


def load_as(path: str | os.PathLike[str], family: str | None = None) -> tuple[str, Codebooks]:
    """`load`, and the name of the family that was found."""
    every = families()
    if family is not None and family not in every:
        raise ParameterError(f"load: family is {family!r}; wanted one of {', '.join(every)}.")
    chosen = {name: _module(name) for name in ([family] if family else every)}
    found = _of_other_files(Path(path), chosen)
    if found:
        return found
    tensors, config = _file.read(path)
    names = set(tensors)
    for name, module in chosen.items():
        if hasattr(module, "matches") and (family or module.matches(names)):
            codebooks = module.build(tensors, config)
            if codebooks is not None:
                return name, codebooks
    raise CheckpointError(
        f"load: {str(path)!r} has {len(names)} tensors, such as {_some(names)}, and is "
        + (f"no {family}." if family else f"of none of these families: {', '.join(every)}.")
        + " Name the family if you know it; for a state of this library use "
        "ResidualVectorQuantizer.load."
    )


def _of_other_files(path: Path, chosen: dict[str, ModuleType]) -> tuple[str, Codebooks] | None:
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        for name, module in chosen.items():
            file.seek(0)
            if hasattr(module, "MAGIC") and file.read(len(module.MAGIC)) == module.MAGIC:
                return name, module.parse(file, path)
    return None


def _some(names: Iterable[str]) -> str:
    """Return a few of the names, those that may be a quantizer's first."""
    telling = ("codebook", "quantizer", "vq", "embed")
    order = sorted(names, key=lambda name: (not any(each in name for each in telling), name))
    return ", ".join(map(repr, order[:4])) or "none"


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")
