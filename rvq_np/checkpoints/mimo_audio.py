"""MiMo-Audio-Tokenizer: EnCodec's quantizer within its encoder, with stages of different sizes.

20 stages, the first two of 1024 codewords, the others of 128, of dimension 1280, no projections.
"""

from __future__ import annotations

from typing import Any

from ..names import EMBED
from . import _stack

HOME = "encoder.quantizer."
NAMES = ((HOME + EMBED.format(0),),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return 2 if _stack.prefixes(tensors, HOME + EMBED) else 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    return _stack.plain(tensors, (EMBED,))
