"""Stacks in other forms: maps under other names, maps around, one array, sums over counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..codebooks import Codebooks, Linear, Stage
from ..codebooks.composed import Composed, Parallel, Projected
from ..errors import CheckpointError
from . import _accounts, _stack
from ._file import Tensors

LEAST = 1e-5  # the smallest count that sums of vectors are divided by


def setting(config: dict[str, Any], *names: str) -> Any:
    """Return the first of these settings that the config has, also among its quantizer's, or None.

    Those of the quantizer alone win over those of the whole model.
    """
    inner = [config[name] for name in _accounts.NESTED if isinstance(config.get(name), dict)]
    for each in (*inner, config):
        for name in names:
            if each.get(name) is not None:
                return each[name]
    return None


def home(tensors: Tensors, start: str, pattern: str) -> str:
    """Return the prefix, with `start`, of the only quantizer there is under `start`, or raise."""
    prefix, _ = _stack.one_prefix(tensors, (start + pattern,))
    tensors.scopes.pop()  # which begins before `start`, where the network of the codec may be
    _stack.scope(tensors, prefix + start)
    return prefix + start


def stages(
    tensors: Tensors,
    prefix: str,
    pattern: str,
    ways: Sequence[str] = (),
    metric: str = "euclidean",
    *,
    everywhere: bool = False,
) -> list[Stage]:
    """Return the stages whose codebooks are named by `pattern`, with maps where a stage has them.

    A stage is ``quantizers.{}`` of the pattern, and its maps are `ways` below it; `everywhere`: a
    stage without them is refused.
    """
    made = []
    for q in range(_stack.n_stages(tensors, prefix, pattern)):
        name = prefix + pattern.format(q)
        layer = prefix + pattern[: pattern.index("{}") + 2].format(q)
        _stack.initialized(tensors, layer, "inited")
        present = everywhere or any(_stack.has(tensors, f"{layer}.{way}") for way in ways)
        maps = [_stack.linear(tensors, f"{layer}.{way}") for way in ways] if present else []
        made.append(_stack.stage(tensors, layer, tensors[name], maps, metric))
    return made


def around(
    tensors: Tensors, prefix: str, inner: Codebooks, into: str, out: str
) -> Codebooks | Composed:
    """Return `inner` between the maps of these names; where one is absent, the sizes agree."""
    names = [prefix + way for way in (into, out)]
    if not any(_stack.has(tensors, name) for name in names):
        return inner
    maps = [
        _stack.linear(tensors, name) if _stack.has(tensors, name) else _identity(inner)
        for name in names
    ]
    where = f"maps of {prefix or 'the file'}"
    if maps[0].weight.shape[1] != maps[1].weight.shape[0]:
        raise CheckpointError(
            f"load: {str(tensors.source)!r}, {where}: {names[0]} takes vectors of "
            f"{maps[0].weight.shape[1]} numbers and {names[1]} returns {maps[1].weight.shape[0]}; "
            "expected the same."
        )
    made: Composed = _stack.made(tensors, where, Projected, inner, *maps)
    return made


def _identity(inner: Codebooks) -> Linear:
    return Linear(np.eye(inner.dim, dtype=np.float32), np.zeros(inner.dim, np.float32))


def stacked(tensors: Tensors, name: str) -> Codebooks:
    """Return the stages of one array (Q, K, D)."""
    array = tensors[name]
    if array.ndim != 3:
        raise CheckpointError(
            f"load: {str(tensors.source)!r}: {name} has shape {array.shape}; expected (stages, "
            "codewords, dimension)."
        )
    _stack.initialized(tensors, name.rpartition(".")[0], "inited")
    made: Codebooks = _stack.made(tensors, name, Codebooks, array)
    return made


def summed(
    tensors: Tensors, prefix: str, pattern: str, usages: Sequence[str], flags: Sequence[str]
) -> list[Stage]:
    """Return stages whose codewords are stored as sums of vectors and their counts.

    They are divided in float32, whatever the precision of the file.  Where a converter did that,
    and called the codewords `DIVIDED`, they are taken as they are.
    """
    made = []
    for q in range(_stack.n_stages(tensors, prefix, pattern)):
        name = prefix + pattern.format(q)
        book = name.rpartition(".")[0]
        for flag in flags:
            _stack.initialized(tensors, book, flag)
        if name.endswith(f".{DIVIDED}"):
            made.append(_stack.stage(tensors, book, tensors[name]))
            continue
        usage = next((each for each in usages if f"{book}.{each}" in tensors), usages[0])
        sums, counts = tensors[name], tensors[f"{book}.{usage}"]
        if counts.shape != sums.shape[:-1]:
            raise CheckpointError(
                f"load: {str(tensors.source)!r}: {book}.{usage} has shape {counts.shape} for sums "
                f"of shape {sums.shape}; expected one count per codeword."
            )
        with np.errstate(over="ignore"):  # infinity is refused by Stage
            codebook = sums / np.maximum(counts, LEAST)[..., None]
        made.append(_stack.stage(tensors, book, codebook))
    return made


SUMS = ("embedding_sum", "embed_sum", "embed_avg")
DIVIDED = "embed"
USAGES = ("cluster_usage", "cluster_size")
FLAGS = ("_initialized", "initialized", "inited")


def split(tensors: Tensors, prefix: str, first: str, rest: str, pattern: str) -> Parallel:
    """Return a semantic and an acoustic stack of sums side by side, each between maps of its own.

    This is how Mimi quantizes, and what was trained with its code.
    """
    if not _stack.n_stages(tensors, prefix + rest, pattern):
        raise CheckpointError(
            f"load: {str(tensors.source)!r} has no {prefix + rest + pattern.format(0)!r}; expected "
            "semantic and acoustic stages, which every Mimi has."
        )
    parts = []
    for each in (prefix + first, prefix + rest):
        inner = _stack.codebooks(tensors, each, summed(tensors, each, pattern, USAGES, FLAGS))
        parts.append(_stack.between(tensors, each, inner, "input_proj", "output_proj"))
    made: Parallel = _stack.made(tensors, f"stacks of {prefix or 'the file'}", Parallel, parts)
    return made
