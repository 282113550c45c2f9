"""SpectroStream, of Magenta RealTime 2: all codebooks in one array.

64 stages of 1024 codewords of dimension 256, Euclidean; models use the first 12 stages.  With
``use_unique_codes`` the original adds ``1024 q`` to the codes of stage q.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import CheckpointError
from . import _layers, _stack

NAMES = (("embedding",),)


def matches(tensors: Any, config: dict[str, Any]) -> int:
    return 1 if len(_found(tensors)) == 1 else 0


def build(tensors: Any, config: dict[str, Any]) -> Any:
    found = _found(tensors)
    if len(found) != 1:
        raise CheckpointError(
            f"load: {str(tensors.source)!r} has {len(found)} arrays (stages, codewords, dimension) "
            f"named embedding: {found[:4]}; expected one."
        )
    _stack.scope(tensors, found[0].rpartition("embedding")[0])
    return _layers.stacked(tensors, found[0])


def _found(tensors: Any) -> list[str]:
    """Return the arrays of this name that have three axes, as no layer of a network has."""
    named = [name for name in tensors if re.search(r"(^|[./])embedding$", name)]
    return [name for name in named if len(tensors.shape(name)) == 3]
