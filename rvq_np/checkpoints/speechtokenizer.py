"""SpeechTokenizer: EnCodec's quantizer, whose first stage was distilled from a speech model.

Distinguished from EnCodec by ``transform``, the map to the space of that model, which only training
uses.  A quantizer saved without it is detected as an EnCodec, with the same codebooks.
"""

from __future__ import annotations

from typing import Any

from ..names import EMBED
from . import _stack

BESIDE = (r"^transform\.",)
NAMES = ((EMBED.format(0), "transform.weight"),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return 2 if "transform.weight" in tensors and _stack.prefixes(tensors, EMBED) else 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    return _stack.plain(tensors, (EMBED,))
