"""XY-Tokenizer (MOSS-TTSD), and FireRedTTS-2, which has its classes: codebooks that are buffers.

8 stages of 1024 codewords of dimension 512 between two maps with weight norm, chosen by Euclidean
distance.  A map is absent where the sizes agree, around the stages and at each of them.
"""

from __future__ import annotations

from typing import Any

from . import _layers, _stack

PATTERN = "quantizers.{}.codebook"
NAMES = ((PATTERN.format(0),),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return 2 if _stack.prefixes(tensors, PATTERN) else 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    prefix, pattern = _stack.one_prefix(tensors, (PATTERN,))
    ways = ("in_project", "out_project")
    if any(_stack.has(tensors, f"{prefix}quantizers.0.{way}") for way in ("in_proj", "out_proj")):
        ways = ("in_proj", "out_proj")
    stages = _layers.stages(tensors, prefix, pattern, ways)
    inner = _stack.codebooks(tensors, prefix, stages)
    return _layers.around(tensors, prefix, inner, "input_proj", "output_proj")
