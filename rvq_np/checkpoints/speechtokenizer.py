"""SpeechTokenizer: EnCodec's quantizer, whose first stage was distilled from a speech model.

Distinguished from EnCodec by ``transform``, the map to the space of that model, which only training
uses.  A quantizer saved without it is detected as an EnCodec, with the same codebooks.
"""

from __future__ import annotations

from . import _stack

PATTERN = "vq.layers.{}._codebook.embed"
BESIDE = (r"^transform\.",)
NAMES = ((PATTERN.format(0), "transform.weight"),)


def matches(tensors, config):
    return 2 if "transform.weight" in tensors and _stack.prefixes(tensors, PATTERN) else 0


def build(tensors, config):
    return _stack.plain(tensors, (PATTERN,))
