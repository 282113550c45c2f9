"""DAC: the original package, with weight norm in both its forms, and Hugging Face's port.

Every level maps to eight numbers, looks up the word of the most similar direction, and maps the
word as it is, not its direction, back.  Told from SNAC, which has the same names, by the config
(``vq_strides``).  The original decodes what its encoder chose as ``z + (e - z)``, which rounds.
"""

from __future__ import annotations

from ..errors import CheckpointError
from . import _stack

PATTERN = "quantizers.{}.codebook.weight"
WORDS_OF_SNAC = 4096  # in all its published models; DAC's have 1024


def matches(names):
    projects = any("quantizers.0.in_proj." in name for name in names)
    return projects and bool(_stack.prefixes(names, PATTERN))


def build(tensors, config):
    if "vq_strides" in config:
        return None
    prefix, pattern = _stack.one_prefix(tensors, (PATTERN,))
    first = prefix + pattern.format(0)
    if not config and tensors.shape(first)[0] == WORDS_OF_SNAC:
        raise CheckpointError(
            f"load: {str(tensors.source)!r}: {first!r} has {WORDS_OF_SNAC} words, as SNAC's have, "
            "whose levels come at different rates. Put config.json beside the weights: it tells."
        )
    stages = []
    for level in range(_stack.levels(tensors, prefix, pattern)):
        name = f"{prefix}quantizers.{level}"
        maps = [_stack.linear(tensors, f"{name}.{way}") for way in ("in_proj", "out_proj")]
        words = tensors[prefix + pattern.format(level)]
        stages.append(_stack.stage(tensors, name, words, maps, "cosine"))
    return _stack.codebooks(tensors, prefix, stages)
