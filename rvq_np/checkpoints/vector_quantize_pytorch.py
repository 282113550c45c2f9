"""vector-quantize-pytorch: ``ResidualVQ`` with one head, Euclidean or cosine, alone or in groups.

Its tensors do not say which metric they were trained with; the config may, as ``use_cosine_sim``.
Its own search treats distances within 1e-4 as ties, which go to the lowest index; ours has no such
tolerance.  With ``codebook_dim`` other than ``dim`` there is one map before and one after the whole
stack.  A codebook that all stages share is stored under each, and loaded as one object.  The codes
of ``GroupedResidualVQ`` are (G, B, T, Q); here they are stage first, and the groups alternate.
Implicit codebooks (``mlps``) are not supported.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..codebooks import Codebooks
from ..codebooks.composed import Grouped, Projected
from ..errors import CheckpointError, ParameterError
from . import _stack

PATTERN = "layers.{}._codebook.embed"
SETTINGS = ("use_cosine_sim",)
GROUP = "rvqs.{}."
NAMES = ((PATTERN.format(0), "layers.0._codebook.initted"),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    mine = _stack.prefixes(tensors, PATTERN)
    return 2 if any(f"{prefix}layers.0._codebook.initted" in tensors for prefix in mine) else 0


def front_end(tensors: Any) -> None:
    return None  # the package is for vectors of any kind


def build(tensors: Any, config: dict[str, Any]) -> Any:
    groups = _stack.groups(tensors, GROUP, PATTERN)
    if groups:
        return _stack.grouped(tensors, [_residual(tensors, config, each) for each in groups])
    prefix, _ = _stack.one_prefix(tensors, (PATTERN,))
    return _residual(tensors, config, prefix)


def _residual(tensors: Any, config: dict[str, Any], prefix: str) -> Any:
    if any(name.startswith(f"{prefix}mlps.") for name in tensors):
        raise CheckpointError(
            f"load: {str(tensors.source)!r} has {prefix}mlps.*; a ResidualVQ with implicit "
            "codebooks is not supported yet."
        )
    tensors.shape(f"{prefix}layers.0._codebook.initted")  # raises for an EnCodec
    shape = tensors.shape(prefix + PATTERN.format(0))
    if len(shape) == 3 and shape[0] != 1:
        raise CheckpointError(
            f"load: {str(tensors.source)!r} has {shape[0]} heads per stage; expected one."
        )
    stages = _stack.averaged(tensors, prefix, PATTERN, "initted")
    if all(np.array_equal(stages[0].codebook, each.codebook) for each in stages):  # shared_codebook
        stages = stages[:1] * len(stages)
    if config.get("use_cosine_sim"):
        cosine = {id(each): replace(each, metric="cosine") for each in stages}
        stages = [cosine[id(each)] for each in stages]
    inner = _stack.codebooks(tensors, prefix, stages)
    return _stack.between(tensors, prefix, inner, "project_in", "project_out")


def entries(quantizer: Any, counts: Any) -> Any:
    if not isinstance(quantizer, Grouped):
        return _stack_entries(quantizer, counts)
    shares = quantizer.shares(quantizer.n_q)
    if len(set(shares)) > 1:
        raise ParameterError(
            f"state_dict: the groups have {shares} stages; expected the same number in each."
        )
    named: dict[str, np.ndarray] = {}
    for group, part in enumerate(quantizer.parts):
        theirs = [count for count, of in zip(counts, quantizer.order, strict=True) if of == group]
        some = _stack_entries(part[: len(theirs)], theirs)
        named |= {f"rvqs.{group}.{name}": value for name, value in some.items()}
    return named


def _stack_entries(quantizer: Any, counts: Any) -> Any:
    named: dict[str, np.ndarray] = {}
    books = quantizer
    if isinstance(quantizer, Projected):
        books = quantizer.parts[0][: quantizer.n_q]
        for way in ("project_in", "project_out"):
            named |= _stack.map_entries(way, getattr(quantizer, way))
    if not isinstance(books, Codebooks) or any(stage.project_in for stage in books):
        raise ParameterError(
            f"state_dict: vector_quantize_pytorch cannot hold {quantizer!r}; expected Codebooks "
            "whose stages have no projections, Projected of such, or Grouped of these."
        )
    stages = [_stored(q, stage) for q, stage in enumerate(books)]
    found = _stack.averaged_entries("ResidualVQ", stages, PATTERN, "initted", counts)
    for name, value in found.items():  # with a leading axis of heads
        named[name] = np.array(True) if name.endswith("initted") else value[None]
    return named


def _stored(q: Any, stage: Any) -> Any:
    """Return a Euclidean stage with the same tensors; cosine codewords must have norm 1."""
    norms = np.linalg.norm(stage.codebook.astype(np.float64), axis=1)
    if stage.metric == "cosine" and (np.abs(norms - 1) > 1e-5).any():
        raise ParameterError(
            f"state_dict: the codewords of stage {q} have norms from {norms.min():.4g} to "
            f"{norms.max():.4g}; expected norm 1, as in a cosine ResidualVQ."
        )
    return replace(stage, metric="euclidean")
