"""ESPnet: whole codecs (``codec.generator.quantizer.``), and quantizers saved alone.

Both releases have the same names; those with ``codebook_dim`` other than ``dimension`` have a
linear map in and out at every stage.  A HiFiCodec has two quantizers, for the lower and the upper
half of the channels.  Its own codes are (n_q, 2 B, T), with the codes of the lower half first; here
the stages of both alternate, so that ``codes.reshape(n_q, 2, B, T)`` has the same order.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import CheckpointError
from ..frontend import FrontEnd
from ..names import EMBED, MAPS, linear
from . import _stack

HALF = "quantizer{}."
FIRST = EMBED.format(0)
NAMES = ((FIRST, f"{linear(0, MAPS[0])}.weight"), (HALF.format(0) + FIRST,))


def matches(tensors: Any, config: dict[str, Any]) -> int:
    if not _stack.prefixes(tensors, EMBED):
        return 0
    projects = rf".*\b{re.escape(linear(0, MAPS[0]))}\."
    signs = (r"codec\.generator\.", r".*\bquantizer0\.vq\.", projects)
    return _stack.marks(tensors, *signs) and 2


def front_end(tensors: Any) -> FrontEnd | None:
    whole = any("codec.generator." in name for name in tensors)  # else a quantizer of anything
    return FrontEnd("latents", of="espnet") if whole else None


def build(tensors: Any, config: dict[str, Any]) -> Any:
    halves = _stack.groups(tensors, HALF, EMBED)
    if not halves:
        return _stack.plain(tensors, (EMBED,))
    if len(halves) != 2:
        raise CheckpointError(
            f"load: {str(tensors.source)!r} has {len(halves)} quantizers {halves}; expected two, "
            "as a HiFiCodec has. To load one alone, remove its number from the names."
        )
    parts = [_stack.averaged(tensors, half, EMBED, "inited") for half in halves]
    whole = zip(halves, parts, strict=True)
    return _stack.grouped(tensors, [_stack.codebooks(tensors, *each) for each in whole])


def entries(quantizer: Any, counts: Any) -> Any:
    books = _stack.one_size("espnet", quantizer)
    named = _stack.averaged_entries("espnet", books.stages, EMBED, "inited", counts)
    for q, stage in enumerate(books):
        for way, each in zip(MAPS, (stage.project_in, stage.project_out), strict=True):
            if each is not None:
                named |= _stack.map_entries(linear(q, way), each)
    return named
