"""The arrays of a quantizer by their names in a state dict, and as records of its stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from .. import names
from .. import train as training
from ..config import Config


class StageArrays(NamedTuple):
    """What one stage is made of: NumPy arrays, or those of a framework."""

    codebook: Any  # (K, C)
    project_in: Any = None  # weight (C, D) and bias (C,), or None
    project_out: Any = None  # weight (D, C) and bias (D,), or None

    def each(self, function: Callable[[Any], Any]) -> StageArrays:
        """Return the record with a function applied to every array."""
        maps = (pair and tuple(map(function, pair)) for pair in self[1:])
        return StageArrays(function(self.codebook), *maps)


@lru_cache(maxsize=256)
def all_names(config: Config) -> tuple[str, ...]:
    """Return the names of all arrays of a quantizer, as in a state dict, in their order."""
    return tuple(training.shapes(config))


@lru_cache(maxsize=256)
def search_names(config: Config) -> tuple[str, ...]:
    """Return the names of those that a search needs: all but the statistics of codewords."""
    statistics = (f".{names.COUNTS}", f".{names.SUMS}")
    return tuple(name for name in all_names(config) if not name.endswith(statistics))


@lru_cache(maxsize=256)
def state_names(config: Config) -> tuple[str, ...]:
    """Return the names of those that training on the host changes: all but the projections."""
    return tuple(filter(is_state, all_names(config)))


def is_state(name: str) -> bool:
    """Return whether training on the host changes the array."""
    return f"{names.PART}." in name


def is_codebook(name: str) -> bool:
    """Return whether the array holds codewords."""
    return name.endswith(f".{names.CODEWORDS}")


def codebook_name(stage: int) -> str:
    """Return the name of the codewords of a stage."""
    return names.book(stage, names.CODEWORDS)


def map_names(stage: int) -> list[str]:
    """Return the names of weight and bias of the maps of a stage, in, then out."""
    return names.maps(stage)


def stage_arrays(
    config: Config, named: Mapping[str, Any], stop: int | None = None, start: int = 0
) -> list[StageArrays]:
    """Return the records of the stages from `start` to `stop`, by default to the last one."""
    records = []
    for stage in range(start, config.n_q if stop is None else stop):
        codebook = named[codebook_name(stage)]
        if config.projects:
            maps = [named[name] for name in map_names(stage)]
            records.append(StageArrays(codebook, tuple(maps[:2]), tuple(maps[2:])))
        else:
            records.append(StageArrays(codebook))
    return records
