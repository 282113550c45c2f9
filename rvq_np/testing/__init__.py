"""For proving a residual quantizer right, ours or anybody's; shipped, not hidden in ``tests/``.

`oracle` answers what the codes and vectors of the definition are, slowly and exactly, in pure
Python; it imports nothing of ours, so it cannot share a mistake with us.  `strategies` draws the
cases that break quantizers, and `rvq_tests` makes a pytest class of properties for any pair of
encode and decode; these two need ``rvq-np[test]``.

>>> from rvq_np.testing import oracle
>>> oracle.encode([5.0, 4.0], [[[0.0, 0.0], [4.0, 4.0]], [[0.0, 0.0], [1.0, 0.0]]])
[1, 1]
"""

from __future__ import annotations

from typing import Any

__all__ = ["rvq_tests"]


def __getattr__(name: str) -> Any:
    if name == "rvq_tests":  # not at import: the oracle needs no Hypothesis
        from .conformance import rvq_tests

        return rvq_tests
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
