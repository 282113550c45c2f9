"""ESPnet: whole codecs (``codec.generator.quantizer.``), and quantizers saved alone.

Both releases have the same names; those with ``codebook_dim`` other than ``dimension`` have a
linear map in and out at every stage.  A HiFiCodec has two quantizers, for the lower and the upper
half of the channels.  Its own codes are (n_q, 2 B, T), with the codes of the lower half first; here
the stages of both alternate, so that ``codes.reshape(n_q, 2, B, T)`` has the same order.
"""

from __future__ import annotations

from ..errors import CheckpointError
from . import _stack

PATTERN = "vq.layers.{}._codebook.embed"
HALF = "quantizer{}."
NAMES = ((PATTERN.format(0), "vq.layers.0.project_in.weight"), ("quantizer0." + PATTERN.format(0),))


def matches(tensors, config):
    if not _stack.prefixes(tensors, PATTERN):
        return 0
    signs = (r"codec\.generator\.", r".*\bquantizer0\.vq\.", r".*\bvq\.layers\.0\.project_in\.")
    return _stack.marks(tensors, *signs) and 2


def build(tensors, config):
    halves = _stack.groups(tensors, HALF, PATTERN)
    if not halves:
        return _stack.plain(tensors, (PATTERN,))
    if len(halves) != 2:
        raise CheckpointError(
            f"load: {str(tensors.source)!r} has {len(halves)} quantizers {halves}; expected two, "
            "as a HiFiCodec has. To load one alone, remove its number from the names."
        )
    parts = [_stack.averaged(tensors, half, PATTERN, "inited") for half in halves]
    whole = zip(halves, parts, strict=True)
    return _stack.grouped(tensors, [_stack.codebooks(tensors, *each) for each in whole])


def entries(quantizer, counts):
    books = _stack.one_size("espnet", quantizer)
    named = _stack.averaged_entries("espnet", books.stages, PATTERN, "inited", counts)
    for q, stage in enumerate(books):
        for way in ("project_in", "project_out"):
            linear = getattr(stage, way)
            if linear is not None:
                named |= _stack.map_entries(f"vq.layers.{q}.{way}", linear)
    return named
