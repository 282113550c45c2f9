"""What the runs share: how long, how fast, from where, and the curve each of them leaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import data
import network
import numpy as np

from rvq_np import ResidualVectorQuantizer

SEED = 0
RATE = 2e-3
WARM_UP = 50  # steps; Adam's first ones would throw the latent vectors off their codebooks
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam


class Start(NamedTuple):
    """Where a run begins, and what it is fed."""

    weights: network.Weights
    rvq: ResidualVectorQuantizer
    batches: np.ndarray
    rates: np.ndarray


class Run(NamedTuple):
    """What training left: its curves, the weights and the quantizer."""

    errors: list[float]  # reconstruction error of each step's batch
    held_out: list[tuple[int, float]]  # (steps, error)
    seconds: float
    weights: network.Weights
    rvq: ResidualVectorQuantizer


def start(steps: int, seed: int = SEED, **changes: Any) -> Start:
    """Return the same start for every framework; `changes`: to the quantizer's arguments."""
    weights, batches = network.initial_weights(seed), data.batches(steps, seed)
    rvq = network.first_quantizer(weights, batches[0], seed, **changes)
    return Start(weights, rvq, batches, rates(steps))


def rates(steps: int) -> np.ndarray:
    """Return the learning rate of each step: up to RATE, then down to zero, both in lines."""
    done = np.arange(1, steps + 1)
    return RATE * np.minimum(done / WARM_UP, (steps + 1 - done) / steps)


def follow(
    start: Start,
    step: Callable[[np.ndarray, float], float],
    trained: Callable[[], tuple[Any, Any]],
    every: int,
) -> Run:
    """Take all steps and measure on the held-out clips before them and `every` so many.

    `step` takes a batch and a learning rate and returns the reconstruction error; `trained`
    returns the weights and the quantizer as they are.
    """
    clips, errors, held_out, began = data.held_out(), [], [], time.perf_counter()
    for batch, rate in zip(start.batches, start.rates, strict=True):
        if len(errors) % every == 0:
            held_out.append((len(errors), network.measure(*trained(), clips).error[-1]))
        errors.append(step(batch, float(rate)))
    weights, rvq = trained()
    held_out.append((len(errors), network.measure(weights, rvq, clips).error[-1]))
    return Run(errors, held_out, time.perf_counter() - began, weights, rvq)
