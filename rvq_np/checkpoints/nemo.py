"""NeMo: its residual quantizer of audio codecs, alone or in groups; Euclidean, no projections.

Its codecs with finite scalar quantization (nano-codec) have no codebooks.
"""

from __future__ import annotations

from typing import Any

from . import _layers, _stack

PATTERN = "codebooks.{}.codes"
GROUP = "rvqs.{}."
BESIDE = (r"\.codes_avg$",)
NAMES = ((PATTERN.format(0), "codebooks.0.codes_avg"),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return 2 if _stack.prefixes(tensors, PATTERN) else 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    groups = _stack.groups(tensors, GROUP, PATTERN)
    if groups:
        return _stack.grouped(tensors, [_residual(tensors, each) for each in groups])
    prefix, _ = _stack.one_prefix(tensors, (PATTERN,))
    return _residual(tensors, prefix)


def _residual(tensors: Any, prefix: str) -> Any:
    for q in range(_stack.n_stages(tensors, prefix, PATTERN)):
        _stack.initialized(tensors, f"{prefix}codebooks.{q}", "initialized")
    return _stack.codebooks(tensors, prefix, _layers.stages(tensors, prefix, PATTERN))
