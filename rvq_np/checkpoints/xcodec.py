"""X-Codec, as Hugging Face ports it: eight levels of 1024 words of 1024, no projections."""

from __future__ import annotations

from . import _stack

PATTERN = "quantizers.{}.codebook.embed"
NAMES = ((PATTERN.format(0),),)


def matches(names):
    return bool(_stack.prefixes(names, PATTERN))


def build(tensors, config):
    return _stack.plain(tensors, (PATTERN,))
