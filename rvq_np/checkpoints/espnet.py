"""ESPnet: whole codecs (``codec.generator.quantizer.``), and quantizers saved alone.

Both releases have the same names; those with ``codebook_dim`` other than ``dimension`` have a
linear map in and out at every level.  A HiFiCodec holds two quantizers, for halves of the
channels: load them apart.
"""

from __future__ import annotations

from . import _stack

PATTERN = "vq.layers.{}._codebook.embed"


def matches(names):
    mine = _stack.prefixes(names, PATTERN)
    whole = any(name.startswith("codec.generator.") for name in names)
    projects = any("vq.layers.0.project_in." in name for name in names)
    return bool(mine) and (whole or projects) and not any(".initted" in name for name in names)


def build(tensors, config):
    prefix, pattern = _stack.one_prefix(tensors, (PATTERN,))
    return _stack.codebooks(tensors, prefix, _stack.averaged(tensors, prefix, pattern, "inited"))


def entries(quantizer, counts):
    books = _stack.one_size("espnet", quantizer)
    named = _stack.averaged_entries("espnet", books.stages, PATTERN, "inited", counts)
    for level, stage in enumerate(books):
        for way in ("project_in", "project_out"):
            linear = getattr(stage, way)
            if linear is not None:
                named |= _stack.map_entries(f"vq.layers.{level}.{way}", linear)
    return named
