"""Quantizers as frozen values: their arrays and properties, without the search.

`stage` has `Stage` and `Linear`, `sequence` has `Codebooks`, stages one after another, `composed`
has quantizers made of several: `Projected`, `Parallel`, `Grouped`, `Normalized`, and `composition`
what they share.  All are immutable, equal by value and hashable, and each is a `Quantizer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from .composed import Grouped as Grouped
from .composed import Normalized as Normalized
from .composed import Parallel as Parallel
from .composed import Projected as Projected
from .composition import Composed as Composed
from .sequence import Codebooks as Codebooks
from .stage import Linear as Linear
from .stage import Stage as Stage

__all__ = [
    "Codebooks",
    "Composed",
    "Grouped",
    "Linear",
    "Normalized",
    "Parallel",
    "Projected",
    "Quantizer",
    "Stage",
]


def __dir__() -> list[str]:
    return sorted(__all__)


class Quantizer(Protocol):
    """The attributes of a quantizer that `rvq_np.encode`, `rvq_np.decode` and files of codes need.

    A frozen value and a sequence of `Stage`. How it computes is for `rvq_np.codec` to know: of the
    ways there are, `Codebooks` go one and `Composed` the other.
    """

    @property
    def n_q(self) -> int:
        """The number of stages."""

    @property
    def dim(self) -> int:
        """D, the length of a vector."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, in the order of the codes."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many codewords each stage has."""

    @property
    def strides(self) -> tuple[int, ...]:
        """How many frames share a code of each stage."""

    @property
    def block(self) -> int:
        """Number of frames that are encoded independently of other frames."""

    @property
    def dtype(self) -> np.dtype:
        """Of decoded vectors: float32 or float64."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides what codes mean."""

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """The fingerprints of the first stage, the first two, and so on."""

    def limit(self, dtype: Any) -> float:
        """Vectors whose numbers are all below this have residuals that a float type can hold."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Stage]: ...

    def __getitem__(self, index: Any) -> Any:
        """Return a stage, or the first of them: ``quantizer[:n]``."""
