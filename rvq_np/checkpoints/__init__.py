"""Codebooks of published models: one file per family, named after it.

The contract of such a file:

``matches(tensors, config) -> int``
    How many marks of the family the checkpoint has: kinds of names of tensors, and settings of the
    JSON config beside it, ``{}`` if there is none; 0 if one is missing that all of the family have.
    The family with the most marks has the file, so that a special case wins over what it is a
    case of, and no family needs to know of others. Called only where the caller named no family.
``build(tensors, config) -> Codebooks or Composed``
    The quantizer. `tensors` is a mapping that reads a tensor when it is accessed, as float32 or
    float64; a missing name raises `CheckpointError`. What it does not read is accounted for
    afterwards: a tensor beside the codebooks, within what `_stack.one_prefix` or `_stack.scope`
    noted as theirs, that is not of training (`_accounts.TRAINING`), has the file refused by name.

``BESIDE``, ``SETTINGS``
    Where needed: regular expressions of names of further tensors that do not change what the
    quantizer computes; and the names of those `_accounts.SETTINGS` that `build` reads.
``parts(tensors, config) -> dict``
    Where files have several quantizers: what each is, by the name that ``load(part=)`` takes.
    ``build(tensors, config, part)`` then has one more argument.
``NAMES``
    For the error message where no family matches: per form of the family, how the names of the
    first stage end.

A family whose files are not safetensors has, instead of both, ``MAGIC``, all that they may begin
with, and ``parse(file, path) -> Codebooks or Composed``, from the open file.

A family to which codebooks can be exported has one more function:

``entries(quantizer, counts) -> dict``
    The tensors, by the names that the ``load_state_dict`` of its quantizer expects. `counts` has
    one array (K,) per stage: how often each codeword was chosen, as a moving average. Raises
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

from ..codebooks import composed
from ..errors import CheckpointError, ParameterError, PartsError, ShapeError
from ..files import safetensors
from . import _accounts, _archive, _file, _nearest

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
    path: str | os.PathLike[str], family: str | None = None, *, part: str | None = None
) -> Any:
    """Return the quantizer of a published model.

    Parameters
    ----------
    path : str or os.PathLike
        A safetensors file, an index of shards (``*.index.json``), a directory with either, a
        Faiss index, a NumPy archive (``.npz``) with the same names, or what `save` wrote. A
        ``config.json`` beside the weights is read.
    family : str, optional
        One of `families`; by default it is detected from the names of the tensors. This works for
        all but audiocraft, which has the names of EnCodec.
    part : str, optional
        Which quantizer of a file with several: one of `parts`, or how the names of its tensors
        begin.

    Returns
    -------
    codebooks : Codebooks or Composed
        For `rvq_np.encode` and `rvq_np.decode`, float32, or float64 where the codebooks of the file
        are, with the projections, metric and strides of the model; several stacks of codebooks are
        composed as in the model.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CheckpointError
        If it is a pickle, damaged, of no known family, does not fit `family`, or has a tensor or a
        setting beside the codebooks with which the family does not compute. The message names the
        file and the tensor.
    PartsError
        If it has several quantizers and `part` chooses none. It is a `CheckpointError`.
    ParameterError
        If `family` is not one of `families`, or the file has no such `part`.

    Notes
    -----
    Reads only the header and the tensors of the quantizer.

    Examples
    --------
    >>> codebooks = load("encodec_24khz/model.safetensors")  # doctest: +SKIP
    >>> codebooks[:8]  # doctest: +SKIP
    Codebooks(8 stages, 1024 codewords of 128)
    """
    return load_as(path, family, part)[1]


def parts(path: str | os.PathLike[str], family: str | None = None) -> tuple[str, ...]:
    """Return the names of the quantizers of a checkpoint, for ``load(path, part=...)``.

    Parameters
    ----------
    path, family
        As in `load`.

    Returns
    -------
    tuple of str
        Empty where the file has one quantizer, which `load` returns without `part`.

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
        load_as(path, family)
    except PartsError as error:
        return error.parts
    return ()


def load_as(
    path: str | os.PathLike[str], family: str | None = None, part: str | None = None
) -> tuple[str, Any]:
    """Return the name of the detected family, and what `load` returns."""
    every = families()
    if family is not None and family not in every:
        raise ParameterError(f"load: family is {family!r}; expected one of {', '.join(every)}.")
    chosen = {name: _module(name) for name in ([family] if family else every)}
    found = _by_magic(Path(path), chosen)
    if found:
        return found
    tensors, config = _read(path)
    readers = {name: each for name, each in chosen.items() if hasattr(each, "matches")}
    if not family:
        readers = _most_specific(path, readers, tensors, config)
    for name, module in readers.items():
        try:
            return name, _built(name, module, tensors, config, part)
        except PartsError as error:
            raise PartsError(str(error), error.parts, name) from None
    raise CheckpointError(
        f"load: {str(path)!r} has {len(tensors)} tensors, such as {_some(tensors)}, and is "
        + (f"not of family {family}." if family else f"of none of the families {', '.join(every)}.")
        + _nearest.report(set(tensors), chosen)
        + " Pass family= if you know it; load a state dict of this library with "
        "ResidualVectorQuantizer.load."
    )


def _read(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Any]]:
    """Return the tensors of a checkpoint and its config."""
    place = Path(path)
    if place.suffix == ".npz" and place.is_file():
        return _archive.read(place), _file.config(place.parent / "config.json")
    return _file.read(path)


def _most_specific(
    path: Any, modules: dict[str, ModuleType], tensors: Any, config: dict[str, Any]
) -> dict[str, ModuleType]:
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


def _built(
    family: str, module: ModuleType, tensors: Any, config: dict[str, Any], part: str | None
) -> Any:
    """Return the quantizer, or that of a part, once all that lies beside it is accounted for."""
    known = module.parts(tensors, config) if hasattr(module, "parts") else {}
    if hasattr(module, "parts") and not known:
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
) -> None:
    """Write codebooks to a safetensors file: our own format, or with the names of a family.

    Parameters
    ----------
    path : str or os.PathLike
        Written atomically: there is the old file or the new one, never a partial one.
    quantizer : Codebooks, Composed or array (Q, K, D)
    family : str, optional
        As in `state_dict`. By default our own format: small, and for any quantizer.
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
    Codebooks(2 stages, 4 codewords of 3)
    """
    quantizer = composed.of(quantizer)
    if family is not None:
        tensors = state_dict(quantizer, family, counts=counts)
        safetensors.write(path, tensors, {"format": "pt"})  # which Hugging Face's loader expects
        return
    tensors, about = _module("rvq_np").written(quantizer)
    safetensors.write(path, tensors, {safetensors.KEY: about})


def state_dict(
    quantizer: Any, family: str, *, counts: Sequence[Any] | None = None
) -> dict[str, np.ndarray]:
    """Return codebooks as the state dict of the quantizer module of a family.

    Parameters
    ----------
    quantizer : Codebooks, Composed or array (Q, K, D)
    family : {"espnet", "encodec", "vector_quantize_pytorch"}
        Names are those within the quantizer; in a whole model they have a prefix.
    counts : sequence of array (K,), optional
        Per stage, how often each codeword was chosen; training continues from these counts. By
        default 100 each, so that dead-code replacement does not soon replace any.

    Returns
    -------
    dict of str to numpy.ndarray, float32
        For ``load_state_dict`` once they are tensors.

    Raises
    ------
    ParameterError
        If the family cannot hold such a quantizer, or has no export.
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
    exporters = [name for name in families() if hasattr(_module(name), "entries")]
    if family not in exporters:
        raise ParameterError(
            f"state_dict: family is {family!r}; expected one of {', '.join(exporters)}."
        )
    if counts is None:
        counts = [np.full(size, COUNT, np.float32) for size in quantizer.sizes]
    arrays = [np.asarray(each, np.float32) for each in counts]
    if [each.shape for each in arrays] != [(size,) for size in quantizer.sizes]:
        raise ShapeError(
            f"state_dict: counts have shapes {[each.shape for each in arrays]}; expected one array "
            f"per stage, of lengths {quantizer.sizes}."
        )
    entries: dict[str, np.ndarray] = _module(family).entries(quantizer, arrays)
    return entries


def _by_magic(path: Path, chosen: dict[str, ModuleType]) -> tuple[str, Any] | None:
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        for name, module in chosen.items():
            file.seek(0)
            if file.read(64).startswith(getattr(module, "MAGIC", ())):
                file.seek(0)
                return name, module.parse(file, path)
    return None


def _some(names: Iterable[str]) -> str:
    """Return a few of the names; those that may be of a quantizer come first."""
    likely = ("codebook", "quantizer", "vq", "embed")
    order = sorted(names, key=lambda name: (not any(each in name for each in likely), name))
    return ", ".join(map(repr, order[:4])) or "none"


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")
