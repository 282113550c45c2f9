"""SNAC: DAC's stages at several rates, as its package saves them.

The tensors have DAC's names and do not contain the rates: ``vq_strides`` of its ``config.json``
does, coarse to fine.  A stage quantizes the mean of as many frames as its stride.
"""

from __future__ import annotations

from typing import Any

from ..errors import CheckpointError
from . import _stack

SETTINGS = ("vq_strides",)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    found = _stack.prefixes(tensors, _stack.FACTORIZED)
    if not found or not any("quantizers.0.in_proj." in name for name in tensors):
        return 0
    # Without a config the size of the first codebook decides: its packages have 4096.
    sizes = [tensors.shape(prefix + _stack.FACTORIZED.format(0))[:1] for prefix in found]
    return 3 if "vq_strides" in config or (not config and (4096,) in sizes) else 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    prefix, pattern = _stack.one_prefix(tensors, (_stack.FACTORIZED,))
    if "vq_strides" not in config:
        raise CheckpointError(
            f"load: {str(tensors.source)!r}: stages such as {prefix + pattern.format(0)!r} of a "
            "SNAC have different rates; expected vq_strides of its config.json. Put config.json "
            "beside the weights; if this is a DAC, load it with family='dac'."
        )
    strides = config["vq_strides"]
    count = _stack.n_stages(tensors, prefix, pattern)
    if not isinstance(strides, list) or len(strides) != count:
        raise CheckpointError(
            f"load: the config.json beside {str(tensors.source)!r} has vq_strides {strides!r}; "
            f"expected a list of {count} integers, one per stage {prefix}{pattern}."
        )
    return _stack.factorized(tensors, prefix, strides)
