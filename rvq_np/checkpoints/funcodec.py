"""FunCodec: all codebooks in one array, with linear maps around where the sizes differ.

32 stages of 1024 codewords of dimension 128, Euclidean.  Two settings of its ``config.yaml``, which
is not read, change the codes: with ``codec_range`` vectors pass ``tanh(x) * codec_range`` first,
which is to be done before `encode`; with ``q0_ds_ratio`` the first stage has another rate, which is
not supported.
"""

from __future__ import annotations

from typing import Any

from . import _layers, _stack

PATTERN = "rq.model.embed"
NAMES = ((PATTERN,),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return 2 if _stack.prefixes(tensors, PATTERN) else 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    prefix, pattern = _stack.one_prefix(tensors, (PATTERN,))
    inner = _layers.stacked(tensors, prefix + pattern)
    return _layers.around(tensors, prefix, inner, "input_proj", "output_proj")
