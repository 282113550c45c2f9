"""Nemotron VoiceChat: a probabilistic residual quantizer, whose means are codebooks.

31 stages of 1024 codewords of dimension 512, Euclidean.  Its variances are of training.
"""

from __future__ import annotations

from typing import Any

from . import _layers, _stack

PATTERN = "mus_list.{}"
BESIDE = (r"(^|\.)_?variance_list\.",)
NAMES = (("prvq." + PATTERN.format(0),),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return int(bool(_stack.prefixes(tensors, PATTERN)))


def build(tensors: Any, config: dict[str, Any]) -> Any:
    prefix, pattern = _stack.one_prefix(tensors, (PATTERN,))
    return _stack.codebooks(tensors, prefix, _layers.stages(tensors, prefix, pattern))
