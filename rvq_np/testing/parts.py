"""Strategies for single arrays: codebooks, vectors, codes, masks, batches; see `strategies`."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

__all__ = ["codebooks", "codes", "masks", "training_batches", "vectors"]


@st.composite
def codebooks(
    draw: Any,
    max_stages: int = 4,
    max_codewords: int = 12,
    max_dim: int = 6,
    dtype: Any = np.float32,
) -> np.ndarray:
    """Draw codebooks (Q, K, D), with smaller norms at later stages, as residuals have.

    Sizes are any number from 1, mostly no powers of two.  Some codewords are duplicates, as k-means
    on few vectors gives, where a tie must go to the first; a codebook may be all zeros, as an
    untrained one of ESPnet is; and all codewords may be far from zero, where squares lose digits.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    stages, size = draw(st.integers(1, max_stages)), draw(st.integers(1, max_codewords))
    books = rng.standard_normal((stages, size, draw(st.integers(1, max_dim))))
    books *= 0.6 ** np.arange(stages)[:, None, None]
    books += draw(st.sampled_from([0.0, 0.0, 0.0, 50.0]))
    if draw(st.booleans()):
        books[:, rng.integers(size)] = books[:, rng.integers(size)]
    if draw(st.integers(0, 5)) == 5:
        books[rng.integers(stages)] = 0
    return books.astype(dtype)


@st.composite
def vectors(draw: Any, codebooks: np.ndarray, max_rows: int = 8) -> np.ndarray:
    """Draw vectors (N, D) for these codebooks; N may be 0.

    Besides normal ones: a codeword, whose residual is zero from then on; a sum of one codeword of
    each codebook; and the middle between two codewords, the hardest to decide.
    """
    stages, size, dim = codebooks.shape
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = []
    for kind in draw(
        st.lists(st.sampled_from(["normal", "codeword", "sum", "middle"]), max_size=max_rows)
    ):
        chosen = codebooks[np.arange(stages), rng.integers(size, size=stages)]
        pair = codebooks[0, rng.integers(size, size=2)].astype(np.float64)
        rows.append(
            {
                "normal": codebooks[0].mean(axis=0) + rng.standard_normal(dim),
                "codeword": pair[0],
                "sum": chosen.sum(axis=0),
                "middle": pair.mean(axis=0),
            }[kind]
        )
    return np.array(rows, dtype=codebooks.dtype).reshape(-1, dim)


@st.composite
def codes(
    draw: Any, sizes: Any, shape: tuple[int, ...] | None = None, dropped: bool = False
) -> np.ndarray:
    """Draw codes ``(Q, N)``, or ``(Q, *shape)``, int32, for codebooks of these sizes.

    Both ends of each range are frequent: 0, which must not be treated as missing, and the last
    code, which a wrong bit mask or an index that starts at 1 misses.  With `dropped`, some codes
    are -1: from some stage on, as with quantizer dropout, or anywhere.
    """
    if shape is None:
        shape = (draw(st.integers(0, 9)),)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    drawn = np.empty((len(sizes), *shape), np.int32)
    for q, size in enumerate(sizes):
        ends = rng.choice([0, size - 1], shape)
        drawn[q] = np.where(rng.random(shape) < 0.3, ends, rng.integers(0, size, shape))
    if dropped and draw(st.booleans()):
        active = rng.integers(1, len(sizes) + 1, shape)
        drawn[np.arange(len(sizes)).reshape(-1, *[1] * len(shape)) >= active] = -1
    elif dropped:
        drawn[rng.random(drawn.shape) < 0.3] = -1
    return drawn


@st.composite
def masks(draw: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Draw a mask of bool, True where there is a vector.

    All and none, for which implementations have special cases; a length for each row of the last
    axis, as with padded speech; and any pattern.
    """
    kind = draw(st.sampled_from(["all", "none", "lengths", "any"]))
    if kind in ("all", "none"):
        return np.full(shape, kind == "all")
    if kind == "any" or not shape:
        return np.asarray(draw(npst.arrays(bool, shape)))
    lengths = draw(npst.arrays(int, shape[:-1], elements=st.integers(0, shape[-1])))
    return np.asarray(np.arange(shape[-1]) < lengths[..., None])


@st.composite
def training_batches(draw: Any, dim: int, max_rows: int = 48, centre: float = 0.0) -> np.ndarray:
    """Draw a batch (N, D), float32, to train on, N >= 1.

    With fewer rows than codewords, or duplicate rows, clusters are empty, and some implementations
    set their codewords to zero; with few clumps, codewords are unused and die; one dimension may
    have the same value in all rows, so no variance; and rows far from zero (add `centre`) show
    whether sums and counts match, since a codeword wrong by a factor is then far off.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = draw(st.sampled_from([1, 2, 5, max_rows // 2, max_rows, max_rows]))
    kind = draw(st.sampled_from(["normal", "normal", "clumps", "repeated", "flat"]))
    x = rng.standard_normal((rows, dim))
    if kind == "clumps":
        x = 0.1 * x + 3 * rng.standard_normal((3, dim))[rng.integers(3, size=rows)]
    elif kind == "repeated":
        x = x[rng.integers(max(1, rows // 4), size=rows)]
    elif kind == "flat":
        x[:, 0] = 1.0
    return (x + centre).astype(np.float32)
