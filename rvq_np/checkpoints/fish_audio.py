"""Fish Speech S1 and S2, OpenAudio: DAC's stages, a semantic one of 4096 codewords in front.

One chain: the acoustic stages quantize what the semantic one leaves.  Vectors are those behind
``downsample`` and ``pre_module``, which lie in the original's quantizer but are network.  Its
decoder clamps codes to their codebooks; here a code out of range is an error.
"""

from __future__ import annotations

from typing import Any

from ..errors import CheckpointError
from . import _layers, _stack

SEMANTIC = "semantic_quantizer." + _stack.FACTORIZED
ACOUSTIC = "quantizer." + _stack.FACTORIZED
WAYS = ("in_proj", "out_proj")
BESIDE = (r"(^|\.)(downsample|upsample|pre_module|post_module|semantic_predictor_module)\.",)
NAMES = ((SEMANTIC.format(0), ACOUSTIC.format(0)),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    both = [_stack.prefixes(tensors, each) for each in (SEMANTIC, ACOUSTIC)]
    return 4 if all(both) else 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    prefix, _ = _stack.one_prefix(tensors, (SEMANTIC,))
    for each in ("semantic_quantizer.", "quantizer."):
        _stack.scope(tensors, prefix + each)
    stages = [
        stage
        for pattern in (SEMANTIC, ACOUSTIC)
        for stage in _layers.stages(tensors, prefix, pattern, WAYS, "cosine", everywhere=True)
    ]
    if not _stack.n_stages(tensors, prefix, ACOUSTIC):
        raise CheckpointError(
            f"load: {str(tensors.source)!r} has no {prefix + ACOUSTIC.format(0)!r}; expected "
            "acoustic stages behind the semantic one."
        )
    return _stack.codebooks(tensors, prefix, stages)
