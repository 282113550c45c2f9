"""EnCodec: the original package, Hugging Face's port, and audiocraft, which keeps its names.

Greedy search among ``embed``, no projections; 24 kHz: 32 stages of 1024 codewords of dimension 128,
48 kHz: 16 stages.  Codes here are stage first, (n_q, B, T); the original and audiocraft return
(B, n_q, T), and Hugging Face's ``encode`` adds a leading axis of chunks.  SpeechTokenizer has the
same names and one more tensor, see there.
"""

from __future__ import annotations

from ..errors import ParameterError
from . import _stack

ORIGINAL, BARE = "vq.layers.{}._codebook.embed", "layers.{}.codebook.embed"
NAMES = ((ORIGINAL.format(0),), (BARE.format(0),))


def matches(tensors, config):
    return int(any(_stack.prefixes(tensors, each) for each in (ORIGINAL, BARE)))


def build(tensors, config):
    return _stack.plain(tensors, (ORIGINAL, BARE))


def entries(quantizer, counts):
    books = _stack.one_size("encodec", quantizer)
    if any(stage.project_in is not None for stage in books):
        raise ParameterError(
            "state_dict: encodec has no projections; expected stages without. Use family='espnet'."
        )
    return _stack.averaged_entries("encodec", books.stages, ORIGINAL, "inited", counts)
