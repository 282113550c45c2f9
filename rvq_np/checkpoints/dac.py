"""DAC: the original package, with weight norm in both its forms, and Hugging Face's port.

Every stage projects to eight dimensions, finds the codeword of the highest cosine similarity, and
projects the unnormalized codeword back.  SNAC has the same names; the config distinguishes them
(``vq_strides``).  The original computes decoded vectors as ``z + (e - z)``, which rounds.
"""

from __future__ import annotations

from typing import Any

from . import _stack

NAMES = ((_stack.FACTORIZED.format(0), "quantizers.0.in_proj.bias", "quantizers.0.out_proj.bias"),)


def matches(names: set[str]) -> bool:
    projects = any("quantizers.0.in_proj." in name for name in names)
    mine = _stack.prefixes(names, _stack.FACTORIZED)
    return projects and bool(mine)


def suits(tensors: Any, config: dict[str, Any]) -> bool:
    return not _stack.may_be_strided(tensors, config)


def build(tensors: Any, config: dict[str, Any]) -> Any:
    if "vq_strides" in config:
        return None
    prefix, pattern = _stack.one_prefix(tensors, (_stack.FACTORIZED,))
    return _stack.factorized(tensors, prefix, [1] * _stack.n_stages(tensors, prefix, pattern))
