"""What training remembers beside the arrays of a state dict: vectors that wait, frozen stages.

A module has a `Remembered`, which the opaque operation finds by its number (`_references`) and
changes, so that it is current in compiled functions, too.  Pure functions have arrays in their
state instead, of shapes that never change: `arrays_of` makes them, `collected_of` reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import arrays, names
from .. import train as training
from ..config import Config
from ..errors import StateError


class Remembered:
    """What a module remembers of training beside its arrays.

    Attributes
    ----------
    collected : Collected or None
        Vectors that wait for more of them.
    frozen : frozenset of int
        Stages that training leaves as they are.
    """

    def __init__(
        self, collected: training.Collected | None = None, frozen: Iterable[int] = ()
    ) -> None:
        self.collected, self.frozen = collected, frozenset(frozen)

    def awaited(self, config: Config) -> int:
        """Return how many vectors are still needed, 0 where none are waited for."""
        return 0 if self.collected is None else self.collected.missing(config)

    def freeze(self, config: Config, stages: Any, initialized: Sequence[Any]) -> None:
        """Do what `ResidualVectorQuantizer.freeze` does.

        `initialized`: of each stage whether it has codewords, as a number.
        """
        frozen = training.stages_of("freeze", stages, config.n_q)
        for stage in sorted(frozen):
            if not float(initialized[stage]):
                raise training.random_stage(stage)
        if self.collected is not None:
            self.collected = self.collected.without(frozen)
        self.frozen = frozen


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays, by their names: none where nothing is waited for.

    Vectors, as many as there may be without being enough; then how many there are, and for each
    stage whether its codewords are provisional.
    """
    if not config.paced:
        return {}
    most = training.enough(config, range(config.n_q)) - 1
    return dict(zip(names.WAITING, ((most, config.dimension), (1 + config.n_q,)), strict=True))


def arrays_of(config: Config, collected: training.Collected | None) -> list[np.ndarray]:
    """Return the arrays of what was collected, float32."""
    vectors, counts = (np.zeros(shape, np.float32) for shape in shapes(config).values())
    if collected is not None:
        at = 0
        for part in map(arrays.to_numpy, collected.parts):
            vectors[at : at + len(part)] = part
            at += len(part)
        counts[0] = at
        counts[[1 + stage for stage in sorted(collected.stages)]] = 1
    return [vectors, counts]


def collected_of(config: Config, given: Sequence[Any]) -> training.Collected | None:
    """Return what was collected, of its arrays.

    Raises
    ------
    StateError
        If they are not such arrays.
    """
    vectors, counts = map(arrays.to_numpy, given)
    for name, array, shape in zip(
        names.WAITING, (vectors, counts), shapes(config).values(), strict=True
    ):
        if array.shape != shape:
            raise StateError(f"apply: {name} has shape {array.shape}, expected {shape}.")
    stages = frozenset(np.flatnonzero(counts[1:]).tolist())
    count = int(counts[0])
    if not 0 <= count <= len(vectors):
        raise StateError(
            f"apply: {names.WAITING[1]} says {count} vectors; expected 0 to {len(vectors)}."
        )
    if not stages or not count:
        return None
    return training.Collected((vectors[:count],), (np.array([count]),), stages)


def without(named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays but for those of vectors that wait."""
    return {name: value for name, value in named.items() if name not in names.WAITING}
