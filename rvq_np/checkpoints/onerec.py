"""OneRec-tokenizer: the centroids of semantic IDs, one array a stage.

3 stages of 8192 codewords of dimension 4096, chosen greedily by Euclidean distance.  Its own file
is a pickle, which is to be converted.
"""

from __future__ import annotations

from . import _layers, _stack

PATTERN = "centroids.{}"
NAMES = ((PATTERN.format(0),),)


def matches(tensors, config):
    return int(bool(_stack.prefixes(tensors, PATTERN)))


def build(tensors, config):
    prefix, pattern = _stack.one_prefix(tensors, (PATTERN,))
    return _stack.codebooks(tensors, prefix, _layers.stages(tensors, prefix, pattern))
