"""audiocraft: the quantizer of its compression models (EnCodec for MusicGen), asked for by name.

Its tensors are named as EnCodec's and mean the same, so nothing tells them apart, and nothing has
to: unasked they are read as an EnCodec.  ``load(path, family="audiocraft")`` says what it is.  Its
codes are (B, n_q, T), ours (n_q, B, T).  Its own files nest the tensors under ``best_state``.
"""

from __future__ import annotations

from . import _stack

PATTERN = "vq.layers.{}._codebook.embed"


def matches(names):
    return False


def build(tensors, config):
    return _stack.plain(tensors, (PATTERN,))
