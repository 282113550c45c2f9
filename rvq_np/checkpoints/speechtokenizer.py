"""SpeechTokenizer: EnCodec's quantizer, whose first level was taught what is said.

Told from EnCodec by ``transform``, the map to its teacher's space, which only training uses.  A
quantizer saved without it is an EnCodec by its names, and the same words.
"""

from __future__ import annotations

from . import _stack

PATTERN = "vq.layers.{}._codebook.embed"


def matches(tensors, config):
    return "transform.weight" in tensors and bool(_stack.prefixes(tensors, PATTERN))


def build(tensors, config):
    return _stack.plain(tensors, (PATTERN,))
