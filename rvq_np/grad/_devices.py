"""A training step on several devices, where the framework adds up: in two parts around its sum.

A tracing framework cannot sum inside a call to the host.  So one part measures the batch of a
device, the framework adds up one array, and the other part moves the codewords by it, the same on
all devices.  The array also carries, for every codeword, a vector to replace it by: whose, is drawn
from the common seed, which of its rows, by that device.  Stages without codewords of their own keep
their random ones: k-means needs all rows in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from .. import arrays
from .. import train as training
from ..codec import core
from ..errors import RvqError
from ..quantizer import passes
from ._cache import prepared
from ._names import codebook_name
from ._operation import Spec, batch_of_rows, outputs_of, poisoned, state_of

OWNERS, ROWS = 3, 4  # streams of random numbers, beside those of `rvq_np.train.learn`


def length(spec: Spec) -> int:
    """Return how many numbers are added up: counts, sums, vectors and their owners, a codeword."""
    return sum(2 * size + 2 * size * width for size, width in _sizes(spec))


def measure(
    spec: Spec, rows: Any, valid: Any, shape: Sequence[int], seed: Any, given: Sequence[Any],
    rank: int, size: int,
) -> list[Any]:  # fmt: skip
    """Return what `_operation.run` does but for the new state, then the array to add up."""
    total = np.zeros(length(spec), np.float32)
    try:
        quantizer = prepared(spec.config, spec.given_names, given)
        batch = batch_of_rows(quantizer, rows, valid, shape)
        numbers = [int(part) % (1 << 32) for part in np.asarray(seed)]
        passed = passes.forward(
            [replace(state, initialized=True) for state in quantizer.states],
            quantizer.projections, quantizer.codebooks, batch, spec.config, spec.n_q,
            spec.costs, seed=numbers, moving=False,
            all_reduce=training.AllReduce(lambda buffer: buffer, rank, size),
        )  # fmt: skip
    except RvqError:
        if not spec.poison:
            raise
        return [*poisoned(spec, rows, shape, given)[: 4 + spec.n_q], total]
    outputs = outputs_of(passed)
    outputs += [stage.codebook.copy() for stage in passed.codebooks.stages[: spec.n_q]]
    if spec.moving:
        _fill(total, spec, passed, numbers, rank, size)
    return [*outputs, total]


def _fill(
    total: np.ndarray, spec: Spec, passed: passes.Pass, seed: list[int], rank: int, size: int
) -> None:
    rows, codes = arrays.to_numpy(passed.batch.rows), arrays.to_numpy(passed.codes)
    if passed.batch.valid is not None:
        rows, codes = rows[passed.batch.valid], codes[:, passed.batch.valid]
    codes = np.ascontiguousarray(codes)
    counts, sums = core.tally(rows, codes, passed.codebooks)
    owners, picks = (np.random.default_rng([*seed, *way]) for way in ((OWNERS,), (ROWS, rank)))
    parts = _parts(total, spec)[: spec.n_q]
    for stage, (its_counts, its_sums, vectors, owned) in enumerate(parts):
        its_counts[:], its_sums[:] = counts[stage], sums[stage]
        mine = owners.integers(size, size=len(owned)) == rank
        if len(rows) and mine.any():
            chosen = picks.integers(len(rows), size=int(mine.sum()))
            left = core.residual(rows[chosen], codes[:stage, chosen], passed.codebooks)
            vectors[mine] = core.searched(left, passed.codebooks[stage : stage + 1])
            owned[mine] = 1


def finish(spec: Spec, given: Sequence[Any], total: np.ndarray) -> list[np.ndarray]:
    """Return the new arrays of the state, given the sum over all devices."""
    quantizer = prepared(spec.config, spec.given_names, given)
    parts = _parts(np.array(total), spec)[: spec.n_q]
    states = quantizer.states
    if spec.moving and any(counts.any() for counts, *_ in parts):

        def draw(stage: int, count: int) -> np.ndarray:
            _, _, vectors, owned = parts[stage]
            having = np.flatnonzero(owned)
            return vectors[np.resize(having, count)]

        config = spec.config
        states = training.step(
            states, [counts for counts, *_ in parts], [sums for _, sums, *_ in parts], draw,
            decay=config.decay, epsilon=config.epsilon,
            threshold=config.threshold_ema_dead_code, relative=config.relative_threshold,
        )  # fmt: skip
        kept = quantizer.states
        states = tuple(kept[q] if q in spec.frozen else each for q, each in enumerate(states))
    return state_of(states)


def _sizes(spec: Spec) -> list[tuple[int, ...]]:
    entries = training.shapes(spec.config)
    return [entries[codebook_name(stage)] for stage in range(spec.config.n_q)]


def _parts(total: np.ndarray, spec: Spec) -> list[tuple[np.ndarray, ...]]:
    """Return views of the array per stage: counts (K,), sums, vectors (K, C), owned (K,)."""
    parts: list[tuple[np.ndarray, ...]] = []
    at = 0
    for size, width in _sizes(spec):
        wide = size * width
        ends = np.cumsum([at, size, wide, wide, size])
        views = [total[begin:end] for begin, end in pairwise(ends)]
        parts.append((views[0], views[1].reshape(size, -1), views[2].reshape(size, -1), views[3]))
        at = int(ends[-1])
    return parts
