"""What several families share: finding stages by their names, stages and maps from arrays."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..codebooks import Codebooks, Linear, Stage
from ..codebooks.composed import Composed, Grouped, Projected
from ..errors import CheckpointError, ParameterError, PartsError, RvqError
from ._file import Tensors

FACTORIZED = "quantizers.{}.codebook.weight"


def prefixes(names: Iterable[str], pattern: str) -> list[str]:
    """Return, shortest first, the prefixes of the names that end in `pattern` for stage 0.

    `pattern` has ``{}`` for the number of the stage.
    """
    ending = pattern.format(0)
    before = {name.removesuffix(ending) for name in names if name.endswith(ending)}
    found = [each for each in before if not each or each.endswith(".")]
    return sorted(found, key=lambda each: (len(each), each))


def marks(names: Iterable[str], *patterns: str) -> int:
    """Return how many of the patterns the beginning of some name matches."""
    every = list(names)
    return sum(any(re.match(each, name) for name in every) for each in patterns)


def n_stages(tensors: Tensors, prefix: str, pattern: str) -> int:
    """Return the number of stages, or raise where one is missing in between."""
    return _count(tensors, "stages", tensors, prefix + pattern)


def _count(tensors: Tensors, what: str, names: Iterable[str], pattern: str) -> int:
    form = re.escape(pattern).replace(re.escape("{}"), r"([0-9]{1,9})")
    found = sorted(int(m.group(1)) for name in names if (m := re.fullmatch(form, name)))
    if found != list(range(len(found))):
        raise CheckpointError(
            f"load: in {str(tensors.source)!r} {what} {found} have {pattern!r}; expected "
            f"consecutive {what} from 0."
        )
    return len(found)


def one_prefix(tensors: Tensors, patterns: Iterable[str]) -> tuple[str, str]:
    """Return the prefix and the pattern of the only quantizer, or raise."""
    found = [(prefix, each) for each in patterns for prefix in prefixes(tensors, each)]
    if len(found) == 1:
        scope(tensors, found[0][0])
        return found[0]
    where = [prefix + pattern.format(0) for prefix, pattern in found]
    message = (
        f"load: {str(tensors.source)!r} has {len(found)} quantizers {where[:4]}; expected one."
    )
    parts = tuple(dict.fromkeys(prefix.rstrip(".") for prefix, _ in found if prefix))
    if len(parts) < 2:
        raise CheckpointError(message)
    raise PartsError(f"{message} Pass part=, one of {', '.join(map(repr, parts))}.", parts)


def scope(tensors: Tensors, prefix: str) -> None:
    """Note that what begins with `prefix` belongs to the quantizer, with what surrounds it.

    A prefix such as ``encoder.quantizer.rq.`` has maps of the quantizer outside of its last part,
    so the scope ends with the first part of the name that calls itself a quantizer.
    """
    ends = re.match(r"(?:[^.]+\.)*?[^.]*quantiz[^.]*\.", prefix)
    tensors.scopes.append(ends.group() if ends else prefix)


def groups(tensors: Tensors, group: str, pattern: str) -> list[str]:
    """Return the prefixes of the quantizers that `group`, with ``{}``, numbers; may be empty."""
    first = group + pattern.format(0)
    if not prefixes(tensors, first):
        return []
    prefix, _ = one_prefix(tensors, (first,))
    numbered = re.escape(prefix + group).replace(re.escape("{}"), "[0-9]+")
    starts = {match.group() for name in tensors if (match := re.match(numbered, name))}
    count = _count(tensors, "groups", starts, prefix + group)
    return [prefix + group.format(number) for number in range(count)]


def made(tensors: Tensors, where: str, kind: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``kind(*arguments)``, or raise CheckpointError with `where` in its message."""
    try:
        return kind(*arguments)
    except RvqError as error:
        raise CheckpointError(f"load: {str(tensors.source)!r}, {where}: {error}") from error


def has(tensors: Tensors, name: str) -> bool:
    """Whether there is a map of this name, in any form of weight norm."""
    return any(each.startswith(f"{name}.") for each in tensors)


def linear(tensors: Tensors, name: str) -> Linear:
    """Return a convolution over one frame, or a linear map, as a matrix; bias zero if none.

    Weight norm, ``g v / |v|`` per output, may be fused, stored under two kinds of names, or absent;
    it is computed in float64 and rounded once.
    """
    forms = (
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    )
    if f"{name}.weight" in tensors:
        weight = tensors[f"{name}.weight"]
        dtype = weight.dtype
    else:
        for scale, direction in forms:
            if f"{name}.{direction}" in tensors:
                v, g = tensors[f"{name}.{direction}"], tensors[f"{name}.{scale}"]
                dtype = v.dtype
                weight = _fused(tensors, name, g.astype(np.float64), v.astype(np.float64))
                break
        else:
            raise CheckpointError(
                f"load: {str(tensors.source)!r} has no weight of {name!r}, neither plain nor with "
                "weight norm."
            )
    if weight.ndim == 3 and weight.shape[2] == 1:
        weight = weight[:, :, 0]
    if weight.ndim != 2:
        raise CheckpointError(
            f"load: {str(tensors.source)!r}: {name}.weight has shape {weight.shape}; expected "
            "(out, in) or (out, in, 1)."
        )
    bias = tensors[f"{name}.bias"] if f"{name}.bias" in tensors else np.zeros(len(weight), dtype)
    with np.errstate(
        over="ignore"
    ):  # what float32 cannot hold becomes infinity, which Linear refuses
        weight = weight.astype(dtype)
    return made(tensors, name, Linear, weight, bias)


def _fused(tensors: Tensors, name: str, g: np.ndarray, v: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinity is refused, here and by Linear
        norms = np.sqrt(np.square(v).sum(axis=tuple(range(1, v.ndim)), keepdims=True))
        if g.size == norms.size and np.isfinite(norms).all():
            return g.reshape(norms.shape) * (v / np.where(norms > 0, norms, 1))
    raise CheckpointError(
        f"load: {str(tensors.source)!r}: the weight norm of {name!r} has a scale of shape "
        f"{g.shape} for {v.shape}; expected one value per output, and values whose squares are "
        "finite."
    )


def stage(
    tensors: Tensors,
    name: str,
    codebook: np.ndarray,
    maps: Sequence[Linear] = (),
    metric: str = "euclidean",
    stride: Any = 1,
) -> Stage:
    """Return a stage, or raise CheckpointError with its name where its arrays do not fit."""
    into, out = maps or (None, None)
    return made(tensors, name, Stage, codebook, into, out, metric, stride)


def codebooks(tensors: Tensors, prefix: str, stages: list[Stage]) -> Codebooks:
    """Return the stages as one quantizer, or raise CheckpointError where they do not fit."""
    return made(tensors, f"stages of {prefix or 'the file'}", Codebooks, stages)


def between(
    tensors: Tensors, prefix: str, inner: Codebooks, into: str, out: str
) -> Codebooks | Composed:
    """Return `inner` between the maps of these names under `prefix`, or alone if there are none."""
    if not any(has(tensors, prefix + way) for way in (into, out)):
        return inner
    maps = [linear(tensors, prefix + way) for way in (into, out)]
    return made(tensors, f"maps of {prefix or 'the file'}", Projected, inner, *maps)


def grouped(tensors: Tensors, parts: Sequence[Codebooks | Composed]) -> Grouped:
    """Return the quantizers of groups of channels as one; all must have as many stages."""
    if len({part.n_q for part in parts}) > 1:
        raise CheckpointError(
            f"load: {str(tensors.source)!r} has groups of {[part.n_q for part in parts]} stages; "
            "expected the same number in each."
        )
    return Grouped(parts)


def initialized(tensors: Tensors, book: str, flag: str) -> None:
    """Raise CheckpointError if a codebook has this flag and it is not set."""
    if f"{book}.{flag}" in tensors and not tensors[f"{book}.{flag}"].all():
        raise CheckpointError(
            f"load: {str(tensors.source)!r}: {book} was never initialized; its codewords are zeros."
        )


def factorized(tensors: Tensors, prefix: str, strides: Sequence[Any]) -> Codebooks:
    """Return stages with maps in and out (`FACTORIZED`), searched by cosine, one per stride."""
    stages = []
    for q, stride in enumerate(strides):
        name = f"{prefix}quantizers.{q}"
        maps = [linear(tensors, f"{name}.{way}") for way in ("in_proj", "out_proj")]
        codebook = tensors[prefix + FACTORIZED.format(q)]
        stages.append(stage(tensors, name, codebook, maps, "cosine", stride))
    return codebooks(tensors, prefix, stages)


def plain(tensors: Tensors, patterns: Iterable[str]) -> Codebooks:
    """Return the only stack of codebooks trained by moving averages."""
    prefix, pattern = one_prefix(tensors, patterns)
    return codebooks(tensors, prefix, averaged(tensors, prefix, pattern, "inited"))


def averaged(tensors: Tensors, prefix: str, pattern: str, flag: str) -> list[Stage]:
    """Return the stages of a stack trained by moving averages: ``embed`` as stored.

    Not ``embed_avg / cluster_size``: they differ by smoothing, and by a defect of old versions.
    """
    stages = []
    for q in range(n_stages(tensors, prefix, pattern)):
        name = prefix + pattern.format(q)
        book = name.rpartition(".")[0]
        initialized(tensors, book, flag)
        layer = book.rpartition(".")[0]
        maps = []
        if has(tensors, f"{layer}.project_in"):
            maps = [linear(tensors, f"{layer}.{way}") for way in ("project_in", "project_out")]
        codebook = tensors[name]
        if codebook.ndim == 3 and len(codebook) == 1:  # a leading axis of heads
            codebook = codebook[0]
        stages.append(stage(tensors, book, codebook, maps))
    return stages


def averaged_entries(
    call: str, stages: Sequence[Stage], pattern: str, flag: str, counts: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the tensors of a stack trained by moving averages, of Euclidean `stages`."""
    named = {}
    for q, (stage, count) in enumerate(zip(stages, counts, strict=True)):
        if stage.metric != "euclidean" or stage.stride != 1:
            raise ParameterError(
                f"state_dict: {call} cannot hold {stage!r} at stage {q}; expected metric "
                "'euclidean' and stride 1."
            )
        name = pattern.format(q)
        codebook = stage.codebook.astype(np.float32)
        book = name.rpartition(".")[0]
        named[f"{book}.{flag}"] = np.ones(1, np.float32)
        named[f"{book}.cluster_size"] = count
        named[name] = codebook
        named[f"{name}_avg"] = codebook * count[:, None]
    return named


def one_size(call: str, quantizer: Any) -> Codebooks:
    """Return `quantizer` if it is `Codebooks` of one codebook size, or raise ParameterError."""
    if not isinstance(quantizer, Codebooks) or len(set(quantizer.sizes)) > 1:
        raise ParameterError(
            f"state_dict: {call} cannot hold {quantizer!r}; expected Codebooks whose stages have "
            "the same codebook size. Export the parts one by one."
        )
    return quantizer


def map_entries(name: str, linear: Linear) -> dict[str, np.ndarray]:
    """Return a linear map as ``name.weight`` and ``name.bias``."""
    weight, bias = (each.astype(np.float32) for each in (linear.weight, linear.bias))
    return {f"{name}.weight": weight, f"{name}.bias": bias}
