"""A training step on several devices, where the framework adds up: in two parts around its sum.

A tracing framework cannot sum inside a call to the host.  So one part measures the batch of a
device, the framework adds up one array, and the other part moves the words by it, the same on all
devices.  The array also carries, for every word, a vector to replace it by: whose, is drawn from
the common seed, which of its rows, by that device.  Levels without words of their own keep their
random ones: k-means needs all rows in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from .. import arrays, lookup, passes
from .. import train as training
from ..errors import RvqError
from ..layout import Batch
from . import _host

OWNERS, ROWS = 3, 4  # streams of random numbers, beside those of `rvq_np.train.learn`


def length(spec: _host.Spec) -> int:
    """Return how many numbers are added up: counts, sums, vectors and their owners, per word."""
    return sum(
        2 * size + 2 * size * width
        for name, (size, *rest) in training.shapes(spec.config).items()
        if name.endswith(".embed")
        for width in rest
    )


def measure(
    spec: _host.Spec, x: Any, mask: Any, seed: Any, tensors: Sequence[Any], rank: int, size: int
) -> list[Any]:
    """Return what `_host.run` does but for the new state, then the array to add up, float32."""
    total = np.zeros(length(spec), np.float32)
    try:
        known = _host.recall(spec.config, tensors)
        batch = Batch("quantize", x, known.codebooks, mask)
        given = [int(part) % (1 << 32) for part in np.asarray(seed)]
        passed = passes.forward(
            [replace(state, initialized=True) for state in known.states], known.projections,
            known.codebooks, batch, spec.config, spec.n_q,
            spec.config.bandwidth_per_quantizer(spec.sample_rate), seed=given, moving=False,
            all_reduce=training.AllReduce(lambda buffer: buffer, rank, size),
        )  # fmt: skip
    except RvqError:
        if not spec.poison:
            raise
        return [*_host.poisoned(spec, x, tensors)[: 4 + spec.n_q], total]
    outputs = _host.outputs_of(passed)
    outputs += [stage.words.copy() for stage in passed.codebooks.stages[: spec.n_q]]
    if spec.moving:
        _fill(total, spec, passed, given, rank, size)
    return [*outputs, total]


def _fill(
    total: np.ndarray, spec: _host.Spec, passed: passes.Pass, seed: list[int], rank: int, size: int
) -> None:
    rows, codes = arrays.to_numpy(passed.batch.rows), arrays.to_numpy(passed.codes)
    if passed.batch.valid is not None:
        rows, codes = rows[passed.batch.valid], codes[:, passed.batch.valid]
    codes = np.ascontiguousarray(codes)
    counts, sums = lookup.tally(rows, codes, passed.codebooks)
    owners, picks = (np.random.default_rng([*seed, *way]) for way in ((OWNERS,), (ROWS, rank)))
    for level, (level_counts, level_sums, vectors, owned) in enumerate(_parts(total, spec)):
        if level >= spec.n_q:
            break
        level_counts[:], level_sums[:] = counts[level], sums[level]
        mine = owners.integers(size, size=len(owned)) == rank
        if len(rows) and mine.any():
            chosen = picks.integers(len(rows), size=int(mine.sum()))
            left = lookup.residual(rows[chosen], codes[:level, chosen], passed.codebooks)
            vectors[mine] = lookup.searched(left, passed.codebooks[level : level + 1])
            owned[mine] = 1


def settle(spec: _host.Spec, tensors: Sequence[Any], total: np.ndarray) -> list[np.ndarray]:
    """Return the new arrays of the state, given the sum over all devices."""
    known = _host.recall(spec.config, tensors)
    parts = _parts(np.array(total), spec)[: spec.n_q]
    states = known.states
    if spec.moving and any(counts.any() for counts, *_ in parts):

        def draw(level: int, count: int) -> np.ndarray:
            _, _, vectors, owned = parts[level]
            having = np.flatnonzero(owned)
            return vectors[np.resize(having, count)]

        config = spec.config
        states = training.step(
            states, [counts for counts, *_ in parts], [sums for _, sums, *_ in parts], draw,
            decay=config.decay, epsilon=config.epsilon,
            threshold=config.threshold_ema_dead_code, relative=config.relative_threshold,
        )  # fmt: skip
    return _host.state_of(states, known.projections)


def _parts(total: np.ndarray, spec: _host.Spec) -> list[tuple[np.ndarray, ...]]:
    """Return views of the array per level: counts (K,), sums, vectors (K, C), owned (K,)."""
    parts: list[tuple[np.ndarray, ...]] = []
    at = 0
    for name, (size, *rest) in training.shapes(spec.config).items():
        if not name.endswith(".embed"):
            continue
        wide = size * rest[0]
        ends = np.cumsum([at, size, wide, wide, size])
        views = [total[begin:end] for begin, end in pairwise(ends)]
        parts.append((views[0], views[1].reshape(size, -1), views[2].reshape(size, -1), views[3]))
        at = int(ends[-1])
    return parts
