"""DAC: the original package, with weight norm in both its forms, and Hugging Face's port.

Every level maps to eight numbers, looks up the word of the most similar direction, and maps the
word as it is, not its direction, back.  Told from SNAC, which has the same names, by the config
(``vq_strides``).  The original decodes what its encoder chose as ``z + (e - z)``, which rounds.
"""

from __future__ import annotations

from . import _stack

PATTERN = "quantizers.{}.codebook.weight"


def matches(names):
    projects = any("quantizers.0.in_proj." in name for name in names)
    return projects and bool(_stack.prefixes(names, PATTERN))


def build(tensors, config):
    if "vq_strides" in config:
        return None
    prefix, pattern = _stack.one_prefix(tensors, (PATTERN,))
    stages = []
    for level in range(_stack.levels(tensors, prefix, pattern)):
        name = f"{prefix}quantizers.{level}"
        maps = [_stack.linear(tensors, f"{name}.{way}") for way in ("in_proj", "out_proj")]
        words = tensors[prefix + pattern.format(level)]
        stages.append(_stack.stage(tensors, name, words, maps, "cosine"))
    return _stack.codebooks(tensors, prefix, stages)
