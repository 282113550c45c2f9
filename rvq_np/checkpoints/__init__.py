"""Codebooks of published models: one file per family, named after it.

What such a file has is in `_contract`; what a family does not read is accounted for in `_accounts`.

A pickle is never opened: ``.pt``, ``.pth``, ``.th`` and ``.bin`` files can run code.  For models of
this library see `rvq_np.ResidualVectorQuantizer.load`.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from .. import arguments
from ..codebooks import composed
from ..errors import CheckpointError, ParameterError, PartsError, ShapeError
from ..files import kinds, safetensors
from ..frontend import FrontEnd
from . import _accounts, _archive, _file, _gguf, _nearest, _renaming
from ._contract import BinaryFamily, Exporter, FamilyOfParts, NamedFamily, OfVectors

__all__ = [
    "families",
    "front_end",
    "load",
    "parts",
    "save",
    "state_dict",
]


def __dir__() -> list[str]:
    return sorted(__all__)


# Marks of what `rvq_np.export` writes for other programs, and what is said of it.
EXPORTED = {
    "description": "arrays of export.npz, for NumPy; expected a checkpoint. Read it with "
    "numpy.load, and write codebooks that load should read with checkpoints.save.",
    "codes": "codes of export.codes, or of candle's examples, and no codebooks; expected a "
    "checkpoint. For codes that rvq_np should read, write an .rvq file, see rvq_np.bitstream.",
}
COUNT = 100.0  # of a codeword, where the caller passes no counts


def families() -> list[str]:
    """Return the names of all supported families.

    Examples
    --------
    >>> "encodec" in families()
    True
    """
    return sorted(each.name for each in pkgutil.iter_modules(__path__) if each.name[0] != "_")


def load(
    path: str | os.PathLike[str],
    family: str | None = None,
    *,
    part: str | None = None,
    names: Mapping[str, str | None] | None = None,
) -> Any:
    """Return the quantizer of a published model.

    Parameters
    ----------
    path : str or os.PathLike
        A safetensors file, an index of shards (``*.index.json``), a directory with either, a Faiss
        index, a NumPy archive (``.npz``) or GGUF file with the same tensor names, or a file that
        `save` wrote. A ``config.json`` in the same directory is read.
    family : str, optional
        One of `families`; by default it is detected from the names of the tensors. Only audiocraft
        cannot be detected, because its tensors have the names of EnCodec.
    part : str, optional
        Which quantizer of a file with several: one of `parts`, or the prefix of its tensor names.
    names : mapping of str to str or None, optional
        For a file with other tensor names: a mapping from the name of a tensor in the file to its
        name in the family; ``{}`` stands for a number. None instead of a name: the tensor does not
        change the codes. It is an error if a tensor beside the named ones is not in the mapping.

    Returns
    -------
    codebooks : Codebooks or Composed
        For `rvq_np.encode` and `rvq_np.decode`, with the projections, metric and strides of the
        model; float32, or float64 if the codebooks of the file are float64. Several stacks of
        codebooks are composed as in the model.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If it is a pickle, damaged, of no known family, does not fit `family`, or has a tensor or a
        setting beside the codebooks that the family does not use. The message names the file and
        the tensor.
    PartsError
        If it has several quantizers and `part` is not given. It is a `CheckpointError`.
    ParameterError
        If `family` is not one of `families`, the file has no such `part`, or `names` do not fit
        the file.

    Notes
    -----
    Reads only the header and the tensors of the quantizer.

    Examples
    --------
    >>> codebooks = load("encodec_24khz/model.safetensors")  # doctest: +SKIP
    >>> codebooks[:8]  # doctest: +SKIP
    Codebooks(8 stages, 1024 codewords of 128)
    """
    return load_whole(path, family, part, names)[1]


def parts(
    path: str | os.PathLike[str],
    family: str | None = None,
    *,
    names: Mapping[str, str | None] | None = None,
) -> tuple[str, ...]:
    """Return the names of the quantizers of a checkpoint, for ``load(path, part=...)``.

    Parameters
    ----------
    path, family, names
        As in `load`.

    Returns
    -------
    tuple of str
        Empty if the file has one quantizer, which `load` returns without `part`.

    Raises
    ------
    FileNotFoundError, CheckpointError, ParameterError
        As `load`.

    Examples
    --------
    >>> parts("dualcodec/model.safetensors")  # doctest: +SKIP
    ('semantic', 'acoustic')
    """
    try:
        load_whole(path, family, None, names)
    except PartsError as error:
        return error.parts
    return ()


def front_end(
    path: str | os.PathLike[str],
    family: str | None = None,
    *,
    part: str | None = None,
    names: Mapping[str, str | None] | None = None,
) -> FrontEnd | None:
    """Return the front end of a published model, or of a file that `save` wrote.

    Parameters
    ----------
    path, family, part, names
        As in `load`.

    Returns
    -------
    front_end : FrontEnd or None
        For a neural codec: the latents of its encoder. None if it is unknown.

    Raises
    ------
    FileNotFoundError, CheckpointError, PartsError, ParameterError
        As `load`.

    Examples
    --------
    >>> print(front_end("encodec_24khz/model.safetensors"))  # doctest: +SKIP
    latents of the encodec encoder
    """
    return load_whole(path, family, part, names)[2]


def load_as(
    path: str | os.PathLike[str],
    family: str | None = None,
    part: str | None = None,
    names: Mapping[str, str | None] | None = None,
) -> tuple[str, Any]:
    """Return the name of the detected family, and what `load` returns."""
    return load_whole(path, family, part, names)[:2]


def load_whole(
    path: str | os.PathLike[str],
    family: str | None = None,
    part: str | None = None,
    names: Mapping[str, str | None] | None = None,
) -> tuple[str, Any, FrontEnd | None]:
    """Return the name of the detected family, what `load` returns, and what `front_end` does."""
    place = Path(arguments.path("load", "path", path))
    every = families()
    if family is not None and not (isinstance(family, str) and family in every):
        raise ParameterError(f"load: family is {family!r}; expected one of {', '.join(every)}.")
    if part is not None:
        arguments.kind("load", "part", part, str)
    chosen = {name: _module(name) for name in ([family] if family else every)}
    given = None if names is None else _renaming.checked(names)
    found = _recognized(place, chosen)
    if found and given is None:
        return *found, None
    if found:
        raise ParameterError(
            f"load: names is given for {str(path)!r} of family {found[0]}, whose arrays have no "
            "names; expected none."
        )
    tensors, config = _read(place)
    if given is not None:
        tensors = _renaming.renamed(tensors, given)
    readers = {name: each for name, each in chosen.items() if not isinstance(each, BinaryFamily)}
    if not family:
        readers = _most_specific(place, readers, tensors, config)
    for name, module in readers.items():
        try:
            quantizer = _built(name, module, tensors, config, part)
        except PartsError as error:
            raise PartsError(str(error), error.parts, name) from None
        front = _front_end(name, tensors)
        if front is not None and front.dim not in (None, quantizer.dim):
            raise CheckpointError(
                f"load: {str(path)!r} has inconsistent metadata: it records {front}, but its "
                f"dimension is {quantizer.dim}."
            )
        return name, quantizer, front
    for named, about in EXPORTED.items():
        if named in tensors:
            raise CheckpointError(f"load: {str(path)!r} holds {about}")
    raise CheckpointError(
        f"load: {str(path)!r} has {len(tensors)} tensors, such as {_some(tensors)}, and is "
        + (f"not of family {family}." if family else f"of none of the families {', '.join(every)}.")
        + _nearest.report(set(tensors), _names(chosen))
        + (" Pass names= for names of its own." if isinstance(tensors, _gguf.Blocks) else "")
        + " Pass family= if you know it; load a state dict of this library with "
        "ResidualVectorQuantizer.load."
    )


def _read(path: Path) -> tuple[Any, dict[str, Any]]:
    """Return the tensors of a checkpoint and its config."""
    if _archive.is_one(path):
        return _archive.read(path), _file.config(path.parent / "config.json")
    if _gguf.is_one(path):
        return _gguf.read(path), _file.config(path.parent / "config.json")
    return _file.read(path)


def _most_specific(
    path: Path, modules: dict[str, Any], tensors: Any, config: dict[str, Any]
) -> dict[str, Any]:
    """Return the family with the most marks of its own in the checkpoint, or none."""
    marks = {name: module.matches(tensors, config) for name, module in modules.items()}
    most = max(marks.values(), default=0)
    best = [name for name, count in marks.items() if count == most] if most else []
    if len(best) > 1:
        raise CheckpointError(
            f"load: {str(path)!r} may be of the families {' or '.join(best)}, by the names of its "
            "tensors. Pass family=."
        )
    return {name: modules[name] for name in best}


def _built(family: str, module: Any, tensors: Any, config: dict[str, Any], part: str | None) -> Any:
    """Return the quantizer, or that of a part, once all that lies beside it is accounted for."""
    known = module.parts(tensors, config) if isinstance(module, FamilyOfParts) else {}
    if isinstance(module, FamilyOfParts) and not known:
        raise CheckpointError(
            f"load: {str(tensors.source)!r} is not of family {family}: it has none of the tensors "
            + " and none of ".join(repr(name) for form in module.NAMES for name in form)
            + "."
        )
    if known and part in known:
        quantizer = module.build(tensors, config, part)
    elif known and part is None:
        listed = "; ".join(f"{name!r}, {about}" for name, about in known.items())
        raise PartsError(
            f"load: {str(tensors.source)!r} of family {family} has {len(known)} quantizers: "
            f"{listed}. Pass part=.",
            tuple(known),
        )
    else:
        some = tensors if part is None else tensors.under(f"{part.rstrip('.')}.")
        if part is not None and not (some and not known):
            raise ParameterError(
                f"load: {str(tensors.source)!r} of family {family} has no part {part!r}; expected "
                + (f"one of {', '.join(map(repr, known))}." if known else "how names begin.")
            )
        tensors = some
        quantizer = module.build(tensors, config)
    _accounts.check(family, module, tensors, config, alone=part is None)
    return quantizer


def save(
    path: str | os.PathLike[str],
    quantizer: Any,
    family: str | None = None,
    *,
    counts: Sequence[Any] | None = None,
    front_end: FrontEnd | None = None,
) -> None:
    """Write codebooks to a safetensors file, in the format of rvq_np or with the names of a family.

    Parameters
    ----------
    path : str or os.PathLike
        Written atomically: the path holds the old file or the new one, never a partial one.
    quantizer : Codebooks, Composed or array (Q, K, D)
    family : str, optional
        As in `state_dict`. By default the format of rvq_np, which is small and holds any quantizer.
    counts : sequence of array (K,), optional
        As in `state_dict`.
    front_end : FrontEnd, optional
        The front end of the vectors; recorded in the format of rvq_np only.

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
    Codebooks(2 stages, 4 codewords of 3)
    """
    path, quantizer = arguments.path("save", "path", path), composed.of(quantizer)
    if family is not None:
        tensors = state_dict(quantizer, family, counts=counts)
        safetensors.write(path, tensors, {"format": "pt"})  # which Hugging Face's loader expects
        return
    if front_end is not None:
        arguments.kind("save", "front_end", front_end, FrontEnd)
        if front_end.dim not in (None, quantizer.dim):
            expected = f"one of {quantizer.dim} samples per vector, the dimension"
            raise arguments.refused("save", "front_end", front_end, expected)
    tensors, about = _module("rvq_np").written(quantizer, front_end)
    safetensors.write(path, tensors, {safetensors.KEY: about})


def state_dict(
    quantizer: Any, family: str, *, counts: Sequence[Any] | None = None
) -> dict[str, np.ndarray]:
    """Return codebooks as the state dict of the quantizer module of a family.

    Parameters
    ----------
    quantizer : Codebooks, Composed or array (Q, K, D)
    family : {"espnet", "encodec", "vector_quantize_pytorch"}
        The names in the result are those within the quantizer; in a whole model they have a prefix.
    counts : sequence of array (K,), optional
        For each stage, how often each codeword was chosen; training continues from these counts. By
        default 100 each, so that dead-code replacement does not replace codewords early.

    Returns
    -------
    dict of str to numpy.ndarray, float32
        Convert the arrays to tensors for ``load_state_dict``.

    Raises
    ------
    ParameterError
        If the family cannot hold such a quantizer or has no export, or `counts` are not numbers.
    ShapeError
        If `counts` does not have one array (K,) per stage.

    Examples
    --------
    >>> import numpy as np
    >>> tensors = state_dict(np.ones((2, 4, 3), np.float32), "encodec")
    >>> tensors["vq.layers.1._codebook.embed"].shape
    (4, 3)
    """
    quantizer = composed.of(quantizer)
    exporters = {
        name: module for name in families() if isinstance(module := _module(name), Exporter)
    }
    if not isinstance(family, str) or family not in exporters:
        raise ParameterError(
            f"state_dict: family is {family!r}; expected one of {', '.join(exporters)}."
        )
    if counts is None:
        counts = [np.full(size, COUNT, np.float32) for size in quantizer.sizes]
    try:
        arrays = [np.asarray(each, np.float32) for each in counts]
    except (TypeError, ValueError):
        expected = "one array of numbers a stage"
        raise arguments.refused("state_dict", "counts", counts, expected) from None
    if [each.shape for each in arrays] != [(size,) for size in quantizer.sizes]:
        raise ShapeError(
            f"state_dict: counts have shapes {[each.shape for each in arrays]}; expected one array "
            f"per stage, of lengths {quantizer.sizes}."
        )
    return exporters[family].entries(quantizer, arrays)


def _front_end(name: str, tensors: Any) -> FrontEnd | None:
    module = _module(name)
    return (
        module.front_end(tensors) if isinstance(module, OfVectors) else FrontEnd("latents", of=name)
    )


def _names(chosen: dict[str, Any]) -> dict[str, _nearest.Forms]:
    return {name: each.NAMES for name, each in chosen.items() if isinstance(each, NamedFamily)}


def _recognized(path: Path, chosen: dict[str, Any]) -> tuple[str, Any] | None:
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        head = file.read(kinds.HEAD)
        file.seek(0)
        for name, module in chosen.items():
            if isinstance(module, BinaryFamily) and module.recognizes(head):
                return name, module.parse(file, path)
    return None


def _some(names: Iterable[str]) -> str:
    """Return a few of the names; those that may be of a quantizer come first."""
    likely = ("codebook", "quantizer", "vq", "embed")
    order = sorted(names, key=lambda name: (not any(each in name for each in likely), name))
    return ", ".join(map(repr, order[:4])) or "none"


def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name}")
