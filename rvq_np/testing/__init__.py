"""A verification kit for residual quantizers, this library's and others.

========================== ==================================================================
`oracle`                   the definition of codes and vectors in exact arithmetic, in pure Python;
                           slow; imports nothing of rvq_np, so it shares none of its faults
`strategies`               Hypothesis strategies for difficult inputs, each with its reason
`rvq_tests`                properties of any pair of encode and decode
`backend_tests`            properties of rvq_np on the arrays of a library
`gradient_tests`           properties of the gradients through any quantizer
`training_tests`           properties of the training of a quantizer, in any order of steps
`container_tests`          properties of a file format for codes
`batch_invariance_tests`   whether a codec's codes depend on what is in the batch
========================== ==================================================================

Each factory returns a new pytest class on each call.  The last line of the docstring of a property
names a published bug that it would have found.  All but the oracle need ``rvq-np[test]``.

>>> from rvq_np.testing import oracle
>>> oracle.encode([5.0, 4.0], [[[0.0, 0.0], [4.0, 4.0]], [[0.0, 0.0], [1.0, 0.0]]])
[1, 1]
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import MissingExtraError

_FACTORIES = {
    "rvq_tests": "conformance",
    "backend_tests": "arrays",
    "gradient_tests": "gradients",
    "training_tests": "training",
    "container_tests": "containers",
    "batch_invariance_tests": "batches",
}

_MODULES = ("strategies", "parts")

__all__ = [
    "backend_tests",
    "batch_invariance_tests",
    "container_tests",
    "gradient_tests",
    "rvq_tests",
    "training_tests",
]


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES, "oracle"])


def __getattr__(name: str) -> Any:
    if name in _FACTORIES or name in _MODULES:  # on access: the oracle needs no Hypothesis
        try:
            module = import_module(f".{_FACTORIES.get(name, name)}", __name__)
        except ModuleNotFoundError as error:
            if error.name not in ("hypothesis", "pytest"):
                raise
            raise MissingExtraError(
                f"rvq_np.testing.{name} needs {error.name}, which is not installed. Run "
                "pip install 'rvq-np[test]', or use rvq_np.testing.oracle, which needs nothing."
            ) from error
        return getattr(module, name) if name in _FACTORIES else module
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
