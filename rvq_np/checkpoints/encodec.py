"""EnCodec: the original package, Hugging Face's port, and audiocraft, which keeps its names.

Greedy search among ``embed``, no projections; 24 kHz: 32 stages of 1024 codewords of dimension 128,
48 kHz: 16 stages.  Codes here are stage first, (n_q, B, T); the original and audiocraft return
(B, n_q, T), and Hugging Face's ``encode`` adds a leading axis of chunks.  SpeechTokenizer has the
same names and one more tensor, see there.
"""

from __future__ import annotations

from typing import Any

from ..errors import ParameterError
from ..names import EMBED
from . import _stack

BARE = "layers.{}.codebook.embed"
NAMES = ((EMBED.format(0),), (BARE.format(0),))


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return int(any(_stack.prefixes(tensors, each) for each in (EMBED, BARE)))


def build(tensors: Any, config: dict[str, Any]) -> Any:
    return _stack.plain(tensors, (EMBED, BARE))


def entries(quantizer: Any, counts: Any) -> Any:
    books = _stack.one_size("encodec", quantizer)
    if any(stage.project_in is not None for stage in books):
        raise ParameterError(
            "state_dict: encodec has no projections; expected stages without. Use family='espnet'."
        )
    return _stack.averaged_entries("encodec", books.stages, EMBED, "inited", counts)
