"""Nothing dropped: what lies beside a stack of codebooks is computed with, or the file is refused.

A quantizer owns every tensor whose name begins as its scope does.  Those that nothing read must be
known to matter to training only; any other changes the codes.  The same holds for settings of the
config that choose between two ways to compute.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import CheckpointError
from ._contract import Beside, Configured
from ._file import Tensors

# The last part of names of tensors that only training reads.
TRAINING = {
    "cluster_size", "cluster_usage", "embed_avg", "inited", "initted", "initialized",
    "_initialized",
}  # fmt: skip
# Beside a stack without a prefix, a part of a name that computes rather than trains.
MAPS = re.compile(r"proj|norm|scale|affine|mlps|(^|_)(bias|mean|std)(_|$)")
# Settings that change what a quantizer computes, and the dicts of a config they may be in.
SETTINGS = {
    "quantizer_type", "use_l2_normalize", "use_l2_normlize", "use_cosine_sim", "vq_strides",
    "codec_range", "q0_ds_ratio",
}  # fmt: skip
NESTED = ("quantizer_kwargs", "quantizer_config", "quantizer_conf", "quantizer")


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a config that are not empty, also those of its quantizer alone."""
    inner = [config[name] for name in NESTED if isinstance(config.get(name), dict)]
    return {
        name: each[name]
        for each in (config, *inner)
        for name in sorted(SETTINGS & set(each))
        if each[name] not in (None, False)
    }


def check(
    family: str, module: Any, tensors: Tensors, config: dict[str, Any], *, alone: bool
) -> None:
    """Raise CheckpointError where the family left something out that changes what is computed.

    `alone`: the file should hold one quantizer, so that a second one is something left out.
    """
    left = _left_out(module, tensors, alone)
    if left:
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise CheckpointError(
            f"load: {str(tensors.source)!r} has {left[0]!r}{more} beside its codebooks, which "
            f"family {family} does not use: the codes would be wrong. Load it with the right "
            "family; if no model uses these tensors, remove them from the file."
        )
    read = module.SETTINGS if isinstance(module, Configured) else ()
    unknown = {name: value for name, value in settings(config).items() if name not in read}
    for name, value in unknown.items():
        raise CheckpointError(
            f"load: the config.json beside {str(tensors.source)!r} has {name} {value!r}, which the "
            f"file of family {family} does not have: it is not of family {family}, or its codes "
            "would be wrong."
        )


def _left_out(module: Any, tensors: Tensors, alone: bool) -> list[str]:
    """Return the names of a quantizer that nothing read and that are not known to be of training.

    A checkpoint has thousands of names, so what is the same for all is found once.
    """
    beside = module.BESIDE if isinstance(module, Beside) else ()
    firsts = {each.partition(".")[0] for each in tensors.read}
    left = []
    for name in sorted(tensors):
        where, _, last = name.rpartition(".")
        theirs = (alone and "quantizer" in where) or any(
            _within(name, scope, firsts) for scope in tensors.scopes
        )
        known = name in tensors.read or last in TRAINING
        if theirs and not known and not any(re.search(each, name) for each in beside):
            left.append(name)
    return left


def _within(name: str, scope: str, firsts: set[str]) -> bool:
    """Whether a name is of the scope; `firsts`: the first parts of the names that were read."""
    if scope:
        return name.startswith(scope)
    first = name.partition(".")[0]
    return first in firsts or bool(MAPS.search(first))
