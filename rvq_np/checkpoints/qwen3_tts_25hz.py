"""Qwen3-TTS-Tokenizer-25Hz: one stage of 32768 codewords of dimension 1280, in a stacked array."""

from __future__ import annotations

from typing import Any

from . import _layers, _stack

PATTERN = "rvqs.{}.embed"
NAMES = ((PATTERN.format(0),),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return 2 if _stack.prefixes(tensors, PATTERN) else 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    prefix, pattern = _stack.one_prefix(tensors, (PATTERN,))
    count = _stack.n_stages(tensors, prefix, pattern)
    books = [_layers.stacked(tensors, prefix + pattern.format(q)) for q in range(count)]
    return _stack.codebooks(tensors, prefix, [stage for each in books for stage in each])
