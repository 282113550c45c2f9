"""MOSS-Audio-Tokenizer: DAC's stages between two maps, by cosine or by distance.

``quantizer_type`` of its ``config.json`` decides: ``rlfq`` and ``random_prefix_rlfq`` search by
cosine, ``rvq`` and ``spec_rvq`` by Euclidean distance, with the same names.  Each map is absent
where the sizes agree.  Masked frames of the original are those that are not passed here.
"""

from __future__ import annotations

from typing import Any

from ..errors import CheckpointError
from . import _layers, _stack

PATTERN = _stack.FACTORIZED
METRICS = {"rlfq": "cosine", "random_prefix_rlfq": "cosine", "rvq": "euclidean",
           "spec_rvq": "euclidean"}  # fmt: skip
SETTINGS = ("quantizer_type",)
NAMES = ((PATTERN.format(0), "input_proj.bias", "output_proj.bias"),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    found = _stack.prefixes(tensors, PATTERN)
    around = any(
        _stack.has(tensors, prefix + way)
        for prefix in found
        for way in ("input_proj", "output_proj")
    )
    said = _layers.setting(config, "quantizer_type") is not None
    return 2 + around + said if found and (around or said) else 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    prefix, pattern = _stack.one_prefix(tensors, (PATTERN,))
    kind = _layers.setting(config, "quantizer_type")
    if kind not in METRICS:
        raise CheckpointError(
            f"load: {str(tensors.source)!r}: quantizer_type is {kind!r}; expected one of "
            f"{', '.join(METRICS)}, which choose between cosine and distance. Put config.json "
            "beside the weights."
        )
    ways = ("in_proj", "out_proj")
    stages = _layers.stages(tensors, prefix, pattern, ways, METRICS[kind])
    inner = _stack.codebooks(tensors, prefix, stages)
    return _layers.around(tensors, prefix, inner, "input_proj", "output_proj")
