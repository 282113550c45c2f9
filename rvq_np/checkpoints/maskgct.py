"""MaskGCT and IndexTTS2, by Amphion: DAC's stages with maps under other names.

Chosen by cosine, unless ``use_l2_normlize`` (as Amphion spells it) of a config is false.
"""

from __future__ import annotations

from typing import Any

from . import _layers, _stack

PATTERN = _stack.FACTORIZED
SWITCHES = ("use_l2_normlize", "use_l2_normalize")
SETTINGS = SWITCHES
NAMES = ((PATTERN.format(0), "quantizers.0.in_project.bias", "quantizers.0.out_project.bias"),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    found = _stack.prefixes(tensors, PATTERN)
    return 2 if any(_stack.has(tensors, f"{each}quantizers.0.in_project") for each in found) else 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    prefix, pattern = _stack.one_prefix(tensors, (PATTERN,))
    metric = "euclidean" if _layers.setting(config, *SWITCHES) is False else "cosine"
    ways = ("in_project", "out_project")
    stages = _layers.stages(tensors, prefix, pattern, ways, metric)
    return _stack.codebooks(tensors, prefix, stages)
