"""Codebooks of published models: one file per family, named after it.

The contract of a file here, with the family's name for its name:

``matches(names) -> bool``
    Whether a checkpoint with these tensor names may be of the family; asked only where nobody
    named one. Where names do not tell two families apart, each has ``suits(tensors, config) ->
    bool`` as well, which looks at the config and at shapes.
``build(tensors, config) -> Codebooks or Composed``
    The quantizer, from the tensors of the file and the JSON config beside it, ``{}`` if there is
    none; None if they turn out to be another family's. `tensors` is a mapping that reads what is
    asked for, as float32 or float64; a name that is not there raises `CheckpointError`.

``NAMES``
    For who is told that nothing was recognised: per form of the family, how names of the first
    level end.

A family whose files are no safetensors has, instead of both, ``MAGIC``, the bytes they begin with,
and ``parse(file, path) -> Codebooks or Composed``, from the open file, just behind them.

A family to which codebooks can be handed back has one function more:

``entries(quantizer, counts) -> dict``
    The tensors, by the names that its quantizer's ``load_state_dict`` wants. `counts` has an array
    (K,) a level: how often each word was chosen, as moving averages have it. Raises
    `ParameterError` where the family cannot hold such a quantizer.

A pickle is never opened: ``.pt``, ``.pth``, ``.th`` and ``.bin`` files can run code.  For models of
this library see `rvq_np.ResidualVectorQuantizer.load`.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import composed, modelfile
from ..errors import CheckpointError, ParameterError, ShapeError
from . import _file, _nearest

COUNT = 100.0  # of a word, where nobody says how often it was chosen


def families() -> list[str]:
    """Return the names of the families there are.

    Examples
    --------
    >>> "encodec" in families()
    True
    """
    return sorted(each.name for each in pkgutil.iter_modules(__path__) if each.name[0] != "_")


def load(path: str | os.PathLike[str], family: str | None = None) -> Any:
    """Return the quantizer of a published model.

    Parameters
    ----------
    path : str or os.PathLike
        A safetensors file, an index of shards (``*.index.json``), a directory with either, a
        Faiss index, or what `save` wrote. A ``config.json`` beside the weights is read.
    family : str, optional
        One of `families`; by default it is told from the names of the tensors, which works for
        all but audiocraft, an EnCodec by its names.

    Returns
    -------
    codebooks : Codebooks or Composed
        For `rvq_np.encode` and `rvq_np.decode`, float32, or float64 where the words are, with
        projections, metric and strides as the model has them; several stacks of codebooks come
        composed as there.

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


def load_as(path: str | os.PathLike[str], family: str | None = None) -> tuple[str, Any]:
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
        if hasattr(module, "matches") and (family or _may_be(module, tensors, config)):
            codebooks = module.build(tensors, config)
            if codebooks is not None:
                return name, codebooks
    raise CheckpointError(
        f"load: {str(path)!r} has {len(names)} tensors, such as {_some(names)}, and is "
        + (f"no {family}." if family else f"of none of these families: {', '.join(every)}.")
        + _nearest.told(names, chosen)
        + " Name the family if you know it; for a state of this library use "
        "ResidualVectorQuantizer.load."
    )


def save(
    path: str | os.PathLike[str],
    quantizer: Any,
    family: str | None = None,
    *,
    counts: Sequence[Any] | None = None,
) -> None:
    """Write codebooks to a safetensors file: ours, or of a family's names.

    Parameters
    ----------
    path : str or os.PathLike
        Written atomically: the old file or the new one, never half of either.
    quantizer : Codebooks, Composed or array (Q, K, D)
    family : str, optional
        As in `state_dict`. By default the file is ours: small, and for any quantizer.
    counts : sequence of array (K,), optional
        As in `state_dict`.

    Raises
    ------
    ParameterError
        As `state_dict`.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "small.safetensors")
    ...     save(path, np.ones((2, 4, 3), np.float32))
    ...     load(path)
    Codebooks(2 stages, 4 words of 3)
    """
    quantizer = composed.of(quantizer)
    if family is not None:
        tensors = state_dict(quantizer, family, counts=counts)
        modelfile.write(path, tensors, {"format": "pt"})  # which Hugging Face's loader wants
        return
    tensors, about = _module("rvq_np").written(quantizer)
    modelfile.write(path, tensors, {modelfile.KEY: about})


def state_dict(
    quantizer: Any, family: str, *, counts: Sequence[Any] | None = None
) -> dict[str, np.ndarray]:
    """Return codebooks as the state dict of a family's own quantizer module.

    Parameters
    ----------
    quantizer : Codebooks, Composed or array (Q, K, D)
    family : {"espnet", "encodec", "vector_quantize_pytorch"}
        Names are those within the quantizer: a whole model has a prefix before them.
    counts : sequence of array (K,), optional
        Per level, how often each word was chosen, which those modules go on training with. By
        default 100 each, so that none is soon replaced for want of use.

    Returns
    -------
    dict of str to numpy.ndarray, float32
        For ``load_state_dict`` once they are tensors.

    Raises
    ------
    ParameterError
        If the family cannot hold such a quantizer, or nothing can be handed to it.
    ShapeError
        If `counts` do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> tensors = state_dict(np.ones((2, 4, 3), np.float32), "encodec")
    >>> tensors["vq.layers.1._codebook.embed"].shape
    (4, 3)
    """
    quantizer = composed.of(quantizer)
    takers = [name for name in families() if hasattr(_module(name), "entries")]
    if family not in takers:
        wanted = ", ".join(takers)
        raise ParameterError(f"state_dict: family is {family!r}; wanted one of {wanted}.")
    if counts is None:
        counts = [np.full(size, COUNT, np.float32) for size in quantizer.sizes]
    made = [np.asarray(each, np.float32) for each in counts]
    if [each.shape for each in made] != [(size,) for size in quantizer.sizes]:
        raise ShapeError(
            f"state_dict: counts have shapes {[each.shape for each in made]}; wanted one array a "
            f"level, of lengths {quantizer.sizes}."
        )
    found: dict[str, np.ndarray] = _module(family).entries(quantizer, made)
    return found


def _may_be(module: ModuleType, tensors: Any, config: dict[str, Any]) -> bool:
    if not module.matches(set(tensors)):
        return False
    return not hasattr(module, "suits") or module.suits(tensors, config)


def _of_other_files(path: Path, chosen: dict[str, ModuleType]) -> tuple[str, Any] | None:
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
