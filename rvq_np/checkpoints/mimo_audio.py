"""MiMo-Audio-Tokenizer: EnCodec's quantizer within its encoder, with stages of different sizes.

20 stages, the first two of 1024 codewords, the others of 128, of dimension 1280, no projections.
"""

from __future__ import annotations

from . import _stack

PATTERN = "vq.layers.{}._codebook.embed"
HOME = "encoder.quantizer."
NAMES = ((HOME + PATTERN.format(0),),)


def matches(tensors, config):
    return 2 if _stack.prefixes(tensors, HOME + PATTERN) else 0


def build(tensors, config):
    return _stack.plain(tensors, (PATTERN,))
