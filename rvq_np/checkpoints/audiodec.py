"""AudioDec: codebooks that are stored transposed, (D, K); Euclidean, no projections."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _stack

PATTERN = "codebook.layers.{}.embed"
NAMES = ((PATTERN.format(0),),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return 2 if _stack.prefixes(tensors, PATTERN) else 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    prefix, pattern = _stack.one_prefix(tensors, (PATTERN,))
    stages = []
    for q in range(_stack.n_stages(tensors, prefix, pattern)):
        name = prefix + pattern.format(q)
        codebook = np.ascontiguousarray(tensors[name].T)
        stages.append(_stack.stage(tensors, name.rpartition(".")[0], codebook))
    return _stack.codebooks(tensors, prefix, stages)
