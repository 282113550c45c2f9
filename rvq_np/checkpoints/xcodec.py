"""X-Codec, as ported by Hugging Face: 8 stages, 1024 codewords of dimension 1024, not projected."""

from __future__ import annotations

from typing import Any

from . import _stack

PATTERN = "quantizers.{}.codebook.embed"
NAMES = ((PATTERN.format(0),),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return int(bool(_stack.prefixes(tensors, PATTERN)))


def build(tensors: Any, config: dict[str, Any]) -> Any:
    return _stack.plain(tensors, (PATTERN,))
