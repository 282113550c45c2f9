"""One pass of a batch through a quantizer: all that its results and gradients are made of.

The class and every gradient shim stand on `forward`, so they cannot differ in codes, vectors or
training.  It changes nothing: new states are handed back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import train as training
from ..codebooks import Codebooks
from ..codec import core
from ..config import Config
from .layout import Batch, QuantizedResult

SEED = 2  # numbers below 2**32 that a training step draws from


@dataclass(frozen=True)
class Pass:
    """What `forward` gives; rows are the N vectors of the batch.

    Attributes
    ----------
    batch : Batch
        What went in.
    codes : array (n_q, N), int32
    quantized : array (N, D)
        Exactly what the codes decode to, of the stages each row was given.
    codebooks : Codebooks
        What the codes name: those before this step's training.
    states : tuple of CodebookState
        Those after it; in eval the same as before.
    loss : float
        Mean squared distance to the codewords, averaged over the stages used; 0 in eval.
    bandwidth : float or numpy.ndarray (B,)
        kb/s of the stages used.
    per_row : numpy.ndarray (N,), int, or None
        Stages given to each row by dropout; None: all in use.
    trained : bool
        Whether losses mean anything.
    collected : Collected or None
        Vectors that wait for more of them, for better first codewords.
    replaced : tuple of int
        Codewords of each stage that got a new vector.
    """

    batch: Batch
    codes: Any
    quantized: Any
    codebooks: Codebooks
    states: tuple[training.CodebookState, ...]
    loss: float
    bandwidth: Any
    per_row: np.ndarray | None
    trained: bool
    collected: Any = None
    replaced: tuple[int, ...] = ()

    def active(self) -> np.ndarray:
        """Return how many stages make up each row (N,), int32: none where there is padding."""
        n_q, n_rows = self.codes.shape
        stages = np.full(n_rows, n_q) if self.per_row is None else self.per_row
        if self.batch.valid is not None:
            stages = np.where(self.batch.valid, stages, 0)
        return stages.astype(np.int32)

    def result(self, config: Config, *, both_losses: bool | None = None) -> QuantizedResult:
        """Return what the user of the batch gets, in the layout and library it came in.

        `both_losses`: whether ``quantization_loss`` is there; by default where there is dropout.
        """
        batch = self.batch
        both = bool(config.quantizer_dropout) if both_losses is None else both_losses
        with batch.there():
            return QuantizedResult(
                batch.vectors(self.quantized),
                batch.codes(self.codes),
                batch.scalar(self.bandwidth),
                batch.scalar(config.commitment_weight * self.loss),
                batch.scalar(self.loss) if both else None,
            )


def forward(
    states: Sequence[training.CodebookState],
    projections: training.Projections,
    codebooks: Codebooks,
    batch: Batch,
    config: Config,
    n_q: int,
    costs: np.ndarray,
    *,
    seed: Sequence[int] | None = None,
    all_reduce: training.AllReduce = training.ALONE,
    moving: bool = True,
    collected: Any = None,
    frozen: frozenset[int] = frozenset(),
) -> Pass:
    """Quantize a batch and, given a seed, train on it.

    Parameters
    ----------
    states, projections, codebooks
        The quantizer; `codebooks` are those of the other two.
    batch : Batch
    config : Config
    n_q : int
        Stages in use.
    costs : numpy.ndarray (n_q + 1,) or more
        kb/s of the first stages, none to all of them.
    seed, all_reduce, moving, collected, frozen
        See `rvq_np.train.learn`; without `seed` nothing is trained or dropped.

    Returns
    -------
    passed : Pass
    """
    if seed is None:
        codes = core.encode(batch.rows, codebooks, n_q)
        quantized = core.decode(codes, codebooks)
        return Pass(batch, codes, quantized, codebooks, tuple(states), 0.0, costs[n_q], None, False)
    learned = training.learn(
        states, batch.rows, batch.valid, n_q, config, seed, projections,
        groups=batch.groups, all_reduce=all_reduce, moving=moving, codebooks=codebooks,
        collected=collected, frozen=frozen,
    )  # fmt: skip
    spent = costs[n_q if learned.stages is None else learned.stages]
    return Pass(
        batch, learned.codes, learned.quantized, learned.codebooks, learned.states, learned.loss,
        spent, learned.per_row, True, learned.collected, learned.replaced,
    )  # fmt: skip
