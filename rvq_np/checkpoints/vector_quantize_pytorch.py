"""vector-quantize-pytorch: ``ResidualVQ`` with one head, Euclidean or cosine.

Its tensors do not say which metric they were trained with; the config may, as ``use_cosine_sim``.
Its own search breaks ties within 1e-4 by the lowest index, ours has no such slack.  Maps once
around the whole stack (``codebook_dim`` other than ``dim``), implicit codebooks (``mlps``) and
groups are not served.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import CheckpointError
from . import _stack

PATTERN = "layers.{}._codebook.embed"


def matches(names):
    mine = _stack.prefixes(names, PATTERN)
    return any(f"{prefix}layers.0._codebook.initted" in names for prefix in mine)


def build(tensors, config):
    prefix, pattern = _stack.one_prefix(tensors, (PATTERN,))
    for other in ("project_in.", "mlps."):
        if any(name.startswith(prefix + other) for name in tensors):
            raise CheckpointError(
                f"load: {str(tensors.source)!r} has {prefix + other}*; such a ResidualVQ is not "
                "served yet."
            )
    tensors.shape(f"{prefix}layers.0._codebook.initted")  # or it is an EnCodec
    shape = tensors.shape(prefix + pattern.format(0))
    if len(shape) == 3 and shape[0] != 1:
        raise CheckpointError(
            f"load: {str(tensors.source)!r} has {shape[0]} heads a level; wanted one."
        )
    stages = _stack.averaged(tensors, prefix, pattern, "initted")
    if config.get("use_cosine_sim"):
        stages = [replace(each, metric="cosine") for each in stages]
    return _stack.codebooks(tensors, prefix, stages)
