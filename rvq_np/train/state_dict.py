"""Training states under ESPnet's names, and back; errors name every mismatch.

``vq.layers.{stage}._codebook.{inited (1,), cluster_size (K,), embed (K, C), embed_avg (K, C)}``
and, with projections, ``vq.layers.{stage}.project_{in,out}.{weight, bias}``; all float32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from .. import arguments, arrays, names
from ..codebooks import Linear
from ..config import Config
from ..errors import StateError
from .state import CodebookState
from .training import Projections


def entries(
    states: Sequence[CodebookState], projections: Projections = None
) -> dict[str, np.ndarray]:
    """Return all arrays under ESPnet's names, not copied, in the order of torch."""
    named: dict[str, np.ndarray] = {}
    for stage, state in enumerate(states):
        pair = None if projections is None else projections[stage]
        if pair is not None:
            parts = [part for linear in pair for part in (linear.weight, linear.bias)]
            named.update(zip(names.maps(stage), parts, strict=True))
        initialized = np.array([state.initialized], dtype=np.float32)
        named[names.book(stage, names.INITIALIZED)] = initialized
        named[names.book(stage, names.COUNTS)] = state.counts
        named[names.book(stage, names.CODEWORDS)] = state.codebook
        named[names.book(stage, names.SUMS)] = state.sums
    return named


def state_dict(
    states: Sequence[CodebookState], projections: Projections = None
) -> dict[str, np.ndarray]:
    """Return copies of all arrays under ESPnet's names, float32."""
    named = entries(states, projections)
    return {name: np.array(value, dtype=np.float32) for name, value in named.items()}


def from_state_dict(
    given: Mapping[str, Any],
    config: Config,
    same: Collection[str] = (),
    states: Sequence[CodebookState] = (),
    projections: Projections = None,
) -> tuple[tuple[CodebookState, ...], Projections]:
    """Return states and projections from arrays named as by `state_dict`.

    Arrays named in `same` are known to be equal to those of `states` and `projections`, which are
    used.

    Raises
    ------
    StateError
        If entries are missing, extra, of a wrong shape or not finite; all are listed.
    """
    arguments.kind("from_state_dict", "config", config, Config)
    if not isinstance(given, Mapping):
        raise StateError(
            f"load_state_dict: got a {type(given).__name__}; expected a mapping of names to arrays."
        )
    given = {name: each for name, each in given.items() if name not in names.WAITING}
    expected = shapes(config)
    problems = [f"missing {name}" for name in expected if name not in given]
    problems += [f"extra {name}" for name in given if name not in expected]
    fitting = {}
    for name, shape in expected.items():
        if name not in given or name in same:
            continue
        array = arrays.numbers(given[name])
        if array is None:
            kind = getattr(given[name], "dtype", type(given[name]).__name__)
            problems.append(f"{name} has dtype {kind}, expected float32")
        elif array.shape != shape:
            problems.append(f"{name} has shape {array.shape}, expected {shape}")
        elif not np.isfinite(array).all():
            problems.append(f"{name} holds NaN or infinity")
        elif name.endswith(names.COUNTS) and (array < 0).any():
            problems.append(f"{name} holds negative counts")
        else:
            fitting[name] = array
    if problems:
        shown = "; ".join(problems[:8]) + ("; ..." if len(problems) > 8 else "")
        raise StateError(
            f"load_state_dict: {len(problems)} of the entries do not fit a quantizer of n_q="
            f"{config.n_q}, bins={config.bins}, dimension={config.dimension}, codebook_dim="
            f"{config.codebook_dim}: {shown}. Nothing was changed. Make the quantizer with the "
            "arguments the state was saved with, and strip any prefix before 'vq.'."
        )
    taken: dict[str, Any] = {**given, **fitting}
    known: Any = projections
    made = []
    for stage in range(config.n_q):
        book = [names.book(stage, name) for name in names.BOOK]
        if all(name in same for name in book):
            made.append(states[stage])
            continue
        codewords, sums, counts, initialized = (taken[name] for name in book)
        made.append(CodebookState(codewords, sums, counts, bool(initialized[0])))
    if not config.projects:
        return tuple(made), None
    maps = []
    for stage in range(config.n_q):
        pair = []
        every = names.maps(stage)
        for place in range(2):
            parts = every[2 * place : 2 * place + 2]
            if all(part in same for part in parts):
                pair.append(known[stage][place])
            else:
                pair.append(Linear(*(np.asarray(taken[part], np.float32) for part in parts)))
        maps.append((pair[0], pair[1]))
    return tuple(made), maps


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    wide, narrow = config.dimension, config.codebook_dim
    assert narrow is not None
    shapes: dict[str, tuple[int, ...]] = {}
    for stage, size in enumerate(config.sizes):
        if config.projects:
            theirs = [(narrow, wide), (narrow,), (wide, narrow), (wide,)]
            shapes.update(zip(names.maps(stage), theirs, strict=True))
        shapes[names.book(stage, names.INITIALIZED)] = (1,)
        shapes[names.book(stage, names.COUNTS)] = (size,)
        shapes[names.book(stage, names.CODEWORDS)] = (size, narrow)
        shapes[names.book(stage, names.SUMS)] = (size, narrow)
    return shapes
