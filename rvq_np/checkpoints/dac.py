"""DAC: the original package, with weight norm in both its forms, and Hugging Face's port.

Every level maps to eight numbers, looks up the word of the most similar direction, and maps the
word as it is, not its direction, back.  Told from SNAC, which has the same names, by the config
(``vq_strides``).  The original decodes what its encoder chose as ``z + (e - z)``, which rounds.
"""

from __future__ import annotations

from . import _stack

NAMES = ((_stack.FACTORIZED.format(0), "quantizers.0.in_proj.bias", "quantizers.0.out_proj.bias"),)


def matches(names):
    projects = any("quantizers.0.in_proj." in name for name in names)
    mine = _stack.prefixes(names, _stack.FACTORIZED)
    return projects and bool(mine)


def suits(tensors, config):
    return not _stack.may_be_strided(tensors, config)


def build(tensors, config):
    if "vq_strides" in config:
        return None
    prefix, pattern = _stack.one_prefix(tensors, (_stack.FACTORIZED,))
    return _stack.factorized(tensors, prefix, [1] * _stack.levels(tensors, prefix, pattern))
