"""WavTokenizer, as ported by Hugging Face: one stage of 4096 codewords of dimension 512, Euclidean.

The original has EnCodec's names, and is loaded as one, with the same codebook.
"""

from __future__ import annotations

from typing import Any

from ..errors import CheckpointError
from . import _layers, _stack

HOME, PATTERN = "quantizer.", "codebook.embed"
NAMES = ((HOME + PATTERN,),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return 2 if _stack.prefixes(tensors, HOME + PATTERN) else 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    prefix = _layers.home(tensors, HOME, PATTERN)
    book = prefix + "codebook"
    _stack.initialized(tensors, book, "inited")
    codebook = tensors[prefix + PATTERN]
    if codebook.ndim != 2:
        raise CheckpointError(
            f"load: {str(tensors.source)!r}: {book}.embed has shape {codebook.shape}; expected "
            "(codewords, dimension)."
        )
    return _stack.codebooks(tensors, prefix, [_stack.stage(tensors, book, codebook)])
