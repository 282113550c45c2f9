"""DualCodec: two quantizers of DAC's stages, for two inputs.

The semantic one (1 stage) takes features of a speech model, the acoustic one (7 or 11 stages) the
codec's latents less what the semantic one decodes to: two named parts, not one chain.
"""

from __future__ import annotations

from typing import Any

from . import _layers, _stack

PATTERN = _stack.FACTORIZED
HOMES = {"semantic": "semantic_vq.", "acoustic": "dac.quantizer."}
ABOUT = {"semantic": "of features of a speech model",
         "acoustic": "of latents less the decoded semantic features"}  # fmt: skip
NAMES = ((HOMES["semantic"] + PATTERN.format(0), HOMES["acoustic"] + PATTERN.format(0)),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return 4 if len(parts(tensors, config)) == 2 else 0


def parts(tensors: Any, config: dict[str, Any]) -> dict[str, str]:
    return {
        part: ABOUT[part]
        for part, home in HOMES.items()
        if _stack.prefixes(tensors, home + PATTERN)
    }


def front_end(tensors: Any) -> None:
    return None  # each part has its own, see `ABOUT`


def build(tensors: Any, config: dict[str, Any], part: str) -> Any:
    prefix = _layers.home(tensors, HOMES[part], PATTERN)
    ways = ("in_proj", "out_proj")
    stages = _layers.stages(tensors, prefix, PATTERN, ways, "cosine", everywhere=True)
    return _stack.codebooks(tensors, prefix, stages)
