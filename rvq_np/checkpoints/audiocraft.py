"""audiocraft: the quantizer of its compression models (EnCodec for MusicGen), loaded by name only.

Its tensors have EnCodec's names and the same meaning, so without ``family="audiocraft"`` they are
loaded as an EnCodec, with the same result.  Its codes are (B, n_q, T), ours (n_q, B, T).  Its own
files nest the tensors under ``best_state``.
"""

from __future__ import annotations

from typing import Any

from ..names import EMBED
from . import _stack


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    return _stack.plain(tensors, (EMBED,))
