"""For proving a residual quantizer right, ours or anybody's; shipped, not hidden in ``tests/``.

=================== ==================================================================
`oracle`            what the codes and vectors of the definition are, slowly and exactly,
                    in pure Python; imports nothing of ours, so it shares no mistake
`strategies`        draws what breaks quantizers, each saying why it draws it
`rvq_tests`         properties of any pair of encode and decode
`backend_tests`     properties of rvq_np on the arrays of a library
`gradient_tests`    properties of the gradients through any quantizer
`training_tests`    properties of any quantizer that trains, in any order of steps
`container_tests`   properties of any file of codes
=================== ==================================================================

Each factory makes a pytest class, anew on each call.  The last line of a property's docstring
names a published bug it would have caught.  All but the oracle need ``rvq-np[test]``.

>>> from rvq_np.testing import oracle
>>> oracle.encode([5.0, 4.0], [[[0.0, 0.0], [4.0, 4.0]], [[0.0, 0.0], [1.0, 0.0]]])
[1, 1]
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_FACTORIES = {
    "rvq_tests": "conformance",
    "backend_tests": "arrays",
    "gradient_tests": "gradients",
    "training_tests": "training",
    "container_tests": "containers",
}

__all__ = [
    "backend_tests",
    "container_tests",
    "gradient_tests",
    "rvq_tests",
    "training_tests",
]


def __getattr__(name: str) -> Any:
    if name in _FACTORIES:  # not at import: the oracle needs no Hypothesis
        return getattr(import_module(f".{_FACTORIES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
