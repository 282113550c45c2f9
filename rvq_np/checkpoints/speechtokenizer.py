"""SpeechTokenizer: EnCodec's quantizer, whose first level was taught what is said.

Told from EnCodec by ``transform``, the map to its teacher's space, which only training uses.  A
quantizer saved without it is an EnCodec by its names, and the same words.
"""

from __future__ import annotations

from . import _stack

PATTERN = "vq.layers.{}._codebook.embed"
NAMES = ((PATTERN.format(0), "transform.weight"),)


def matches(names):
    return "transform.weight" in names and bool(_stack.prefixes(names, PATTERN))


def build(tensors, config):
    return _stack.plain(tensors, (PATTERN,))
