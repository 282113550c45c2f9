"""Training that goes on from codebooks there are: a warm start, stages that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import arguments
from ..codebooks import Codebooks, Linear
from ..codec import validation
from ..errors import NonFiniteError, ParameterError, ShapeError, StateError
from .data import Data
from .ema import smoothed
from .kmeans import Clusters, lloyd
from .state import CodebookState


def stages_of(call: str, freeze: Any, n_q: int) -> frozenset[int]:
    """Return the stages that `freeze` names, or raise ParameterError."""
    try:
        given = list(freeze)
    except TypeError:
        raise arguments.refused(call, "freeze", freeze, "a list of stages") from None
    return frozenset(
        arguments.whole(call, f"freeze[{place}]", each, 0, n_q - 1)
        for place, each in enumerate(given)
    )


def random_stage(stage: int) -> StateError:
    """Return the error for a stage that is to stay and was never trained."""
    return StateError(
        f"freeze: stage {stage} has random codewords; expected a stage that was trained or loaded. "
        "Call fit first."
    )


def start_of(
    call: str,
    start: Any,
    freeze: Any,
    n_q: int,
    sizes: Sequence[int],
    projections: Sequence[tuple[Linear, Linear] | None] | None,
    dim: int,
) -> tuple[Codebooks | None, frozenset[int]]:
    """Return checked codebooks to start from, and the stages that stay."""
    frozen = stages_of(call, freeze, n_q)
    if start is None:
        if frozen:
            raise ParameterError(
                f"{call}: freeze is {sorted(frozen)}, but start is None; expected the codebooks "
                "whose stages stay as they are."
            )
        return None, frozen
    books = validation.plain(call, Codebooks.of(start))
    if books.n_q != n_q or tuple(books.sizes) != tuple(sizes) or books.dim != dim:
        raise ShapeError(
            f"{call}: start has {books!r}; expected {n_q} stages of {_listed(sizes)} codewords "
            f"for vectors of {dim}."
        )
    for stage, pair in zip(books, projections or [None] * n_q, strict=True):
        if (stage.project_in, stage.project_out) != (pair or (None, None)):
            raise ParameterError(
                f"{call}: the stages of start have other projections; expected those of the "
                "quantizer that is fitted."
            )
        if stage.metric != "euclidean":
            raise ParameterError(
                f"{call}: a stage of start has the metric {stage.metric}; expected euclidean."
            )
    return books, frozen


def _listed(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else ", ".join(map(str, sizes))


def reachable(data: Data, codewords: np.ndarray) -> np.ndarray:
    """Return codewords as float32, or raise NonFiniteError if what they leave may be beyond it."""
    with np.errstate(over="ignore"):
        codewords = codewords.astype(np.float32)
    if not np.isfinite(codewords).all():
        raise NonFiniteError(
            "fit: start reaches beyond float32 (3.4e38). Nothing was changed. Scale it and x down."
        )
    data.energy()
    data.check_reach(codewords)
    return codewords


def counted(data: Data, codewords: np.ndarray, epsilon: float) -> CodebookState:
    """Return the state of codewords that stay, with how often the data choose them."""
    codewords = reachable(data, codewords)
    found = lloyd(data.passes(), codewords, 1)
    return state_held(found._replace(codebook=codewords), epsilon)


def state_held(found: Clusters, epsilon: float) -> CodebookState:
    """Return the state of codewords that are not the means of what chose them.

    Sums are such that an `ema` step starts from the codewords. One that nothing chose has a count
    of one and itself as its sum, as in `kmeans.state_of`.
    """
    used = found.counts > 0
    counts = np.where(used, found.counts, 1.0)
    sums = found.codebook * np.where(used, smoothed(counts, epsilon), 1.0)[:, None]
    made = CodebookState(found.codebook, sums, counts, True)
    return made.knowing(np.where(used, 0.0, 1.0))
