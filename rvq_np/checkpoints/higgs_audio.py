"""Higgs Audio v2 and v3, and OmniVoice: X-Codec's structure with a map in and out at each stage.

8 stages of 1024 codewords of dimension 64, vectors of 1024 numbers.  Hugging Face's names, and the
original's, which are those of a projected ESPnet; there the network around it (``fc_prior``,
``fc_post1``) tells the family.  Stages are chosen by Euclidean distance.
"""

from __future__ import annotations

from typing import Any

from ..names import EMBED, LAYER
from . import _stack

PORT = "quantizers.{}.codebook.embed"
NAMES = ((PORT.format(0), "quantizers.0.project_in.weight"),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    for pattern, layer, signs in (
        (PORT, "quantizers.0.", 1),
        (EMBED, LAYER.format(0), _stack.marks(tensors, r"(.*\.)?fc_prior\.", r"(.*\.)?fc_post")),
    ):
        found = _stack.prefixes(tensors, pattern)
        if signs and any(f"{prefix}{layer}project_in.weight" in tensors for prefix in found):
            return 1 + signs
    return 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    return _stack.plain(tensors, (PORT, EMBED))
