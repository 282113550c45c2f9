"""OneRec-tokenizer: the centroids of semantic IDs, one array per stage.

3 stages of 8192 codewords of dimension 4096, chosen greedily by Euclidean distance.  Its own file
is a pickle, which is to be converted.
"""

from __future__ import annotations

from typing import Any

from ..frontend import FrontEnd
from . import _layers, _stack

PATTERN = "centroids.{}"
NAMES = ((PATTERN.format(0),),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return int(bool(_stack.prefixes(tensors, PATTERN)))


def front_end(tensors: Any) -> FrontEnd:
    return FrontEnd("embeddings", of="items")


def build(tensors: Any, config: dict[str, Any]) -> Any:
    prefix, pattern = _stack.one_prefix(tensors, (PATTERN,))
    return _stack.codebooks(tensors, prefix, _layers.stages(tensors, prefix, pattern))
