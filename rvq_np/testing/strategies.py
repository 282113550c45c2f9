"""Hypothesis strategies for the inputs of a quantizer, each with the reason for what it draws.

Whole cases ``(x (N, D), codebooks (Q, K, D))``: `lattices`, `ordinary`, `near_ties`, `uneven`,
`collapsed`, `lost_to_rounding`, `rounded_residuals`.  Single arrays, from `parts`:
`codebooks`, `vectors`, `codes`, `masks`, `training_batches`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from .parts import codebooks, codes, masks, training_batches, vectors

__all__ = [
    "codebooks",
    "codes",
    "collapsed",
    "lattices",
    "lost_to_rounding",
    "masks",
    "near_ties",
    "ordinary",
    "rounded_residuals",
    "training_batches",
    "uneven",
    "vectors",
]

_FEW, _SOME = st.integers(1, 9), st.integers(1, 40)


@st.composite
def lattices(
    draw: Any,
    max_stages: int = 4,
    max_codewords: int = 6,
    max_dim: int = 5,
    max_rows: int = 6,
    dtype: Any = np.float32,
    min_rows: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``(x (N, D), codebooks (Q, K, D))`` of small integers.

    Sums and products are exact in float32, so every implementation, in any order of operations,
    must return the same codes, also with ties and duplicate codewords; and ties are frequent.
    """
    dim, rows = draw(st.integers(1, max_dim)), draw(st.integers(min_rows, max_rows))
    stages, size = draw(st.integers(1, max_stages)), draw(st.integers(1, max_codewords))
    whole = st.integers(-8, 8).map(float)
    x = draw(npst.arrays(dtype, (rows, dim), elements=whole))
    return x, draw(npst.arrays(dtype, (stages, size, dim), elements=whole))


@st.composite
def ordinary(
    draw: Any,
    max_codewords: int = 40,
    max_dim: int = 20,
    max_rows: int = 12,
    dtype: Any = np.float32,
    min_rows: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw normal vectors and codebooks, whose sizes cross the blocks and panels of kernels.

    Only the sizes are special: numbers of rows, codewords and dimensions that are no multiples of a
    block.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim, rows = draw(st.integers(1, max_dim)), draw(st.integers(min_rows, max_rows))
    stages, size = draw(st.integers(1, 3)), draw(st.integers(1, max_codewords))
    scale = 2.0 ** draw(st.sampled_from([0, 0, -20, 20]))
    x = (scale * rng.standard_normal((rows, dim))).astype(dtype)
    return x, (scale * rng.standard_normal((stages, size, dim))).astype(dtype)


@st.composite
def near_ties(
    draw: Any, max_dim: int = 9, max_codewords: int = 7, dtype: Any = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Draw cases whose two best codewords are exactly tied, or one ulp apart.

    A row whose elements are all equal has the same distance to every permutation of a codeword; but
    sums of the same numbers in another order round differently, in float32 and in float64, so an
    implementation that compares rounded sums chooses the wrong one. The same holds for a codeword
    mirrored at the row. Some codewords are then moved by one ulp. All is scaled to where squares
    underflow or nearly overflow, or shifted by a common offset that removes most digits.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim, count = draw(st.integers(2, max_dim)), draw(st.integers(2, max_codewords))
    stages = draw(st.integers(1, 2))
    offset = draw(st.sampled_from([0.0, 0.0, 0.0, 100.0, 1e6]))
    exponents = [0, 0, -70, 60, -140]
    if dtype == np.float64:
        exponents = [0, 0, -400, 400, -500, 500, -1060]
    scale = 2.0 ** draw(st.sampled_from(exponents))
    value = dtype(offset + rng.standard_normal())
    spread = 2.0 ** rng.integers(-26, 3, size=dim)  # their sum needs more than 53 bits
    codeword = (offset + spread * rng.standard_normal(dim)).astype(dtype)
    codewords = np.stack([rng.permutation(codeword) for _ in range(count)])
    for k in range(count):
        move = draw(st.sampled_from(["none", "none", "none", "mirror", "up", "down", "far"]))
        place = int(rng.integers(dim))
        if move == "mirror":  # the same distance, except for the rounding of 2 * row - codeword
            codewords[k] = 2 * value - codewords[k]
        elif move == "far":
            codewords[k] += dtype(3 + abs(offset)) * np.sign(codewords[k, place])
        elif move != "none":
            towards = dtype(np.inf if move == "up" else -np.inf)
            codewords[k, place] = np.nextafter(codewords[k, place], towards)
    x = np.stack([np.full(dim, value), codewords[0], rng.standard_normal(dim)]).astype(dtype)
    more = (
        rng.permuted(np.stack([codewords] * (stages - 1)), axis=2) if stages > 1 else codewords[:0]
    )
    books = np.concatenate([codewords[None], np.asarray(more).reshape(-1, count, dim)])
    return (x * dtype(scale)).astype(dtype), (books * dtype(scale)).astype(dtype)


@st.composite
def uneven(
    draw: Any,
    counts: Any = _FEW,
    dims: Any = _FEW,
    max_rows: int = 4,
    dtype: Any = np.float32,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows and codewords with very different norms, denormal to huge, some duplicates.

    A screening pass of few bits scales a stage by its longest codeword and a row by its largest
    element. Smaller ones are rounded most, or to zero; outliers must be excluded from the pass; and
    with a common offset all differences are below the last bit. `counts` and `dims` draw the
    numbers of codewords and of dimensions.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, dim, rows = draw(counts), draw(dims), draw(st.integers(1, max_rows))
    exponents = [0, 0, 0, 0, -1, -7, -20, -52, -62, -100, -130, -148, 9, 30, 58, 64, 100]
    if dtype == np.float64:
        exponents += [-1073, -1000, -600, -410, -250, 150, 398, 402, 480, 520, 1000]
    sizes = st.lists(st.sampled_from(exponents), min_size=1, max_size=3)
    offset = draw(st.sampled_from([0.0, 0.0, 0.0, 30.0, 1e4]))

    def some(number: int, sizes: list[int], within: bool) -> np.ndarray:
        shape = (number, dim if within else 1)
        scale = 2.0 ** rng.choice(sizes, size=shape).astype(np.float64)
        return ((offset + rng.standard_normal((number, dim))) * scale).astype(dtype)

    codewords = some(count, draw(sizes), draw(st.booleans()))
    if draw(st.booleans()):
        codewords[rng.integers(count, size=count // 3)] = codewords[rng.integers(count)]
    if draw(st.booleans()):
        codewords[rng.integers(count)] *= dtype(0.0)  # with minus zeros
    x = some(rows, draw(sizes), draw(st.booleans()))
    if draw(st.booleans()):
        x[0] = codewords[rng.integers(count)]
    return x, codewords[None]


@st.composite
def collapsed(
    draw: Any,
    counts: Any = _FEW,
    dims: Any = _FEW,
    max_rows: int = 4,
    dtype: Any = np.float32,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows and codewords a few steps apart around one point, at any magnitude.

    Such are the residuals of a batch with fewer vectors than codewords: after a projection, its
    bias plus almost zero. Scores cancel to the last bit, and with equal steps ties are frequent.
    The steps may be the smallest floats, or reach the largest; some codewords and rows may be
    elsewhere, far away or duplicates, so that no single centre suits all. `counts` and `dims` draw
    the numbers of codewords and of dimensions.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, dim, rows = draw(counts), draw(dims), draw(st.integers(1, max_rows))
    info = np.finfo(dtype)
    digits = info.nmant
    lowest, highest = info.minexp - digits, info.maxexp - digits - 2
    step = 2.0 ** draw(st.sampled_from([0, -23, lowest, lowest + 30, -40 - digits, 60, highest]))
    point = rng.integers(-(2**digits), 2**digits, dim) // 2 ** draw(
        st.sampled_from([0, 0, 3, 12, digits])
    )
    reach = draw(st.sampled_from([1, 1, 4, 1000]))

    def near(number: int) -> np.ndarray:
        return point + rng.integers(-reach, reach + 1, (number, dim))

    def some(wholes: np.ndarray) -> np.ndarray:
        """Return integer multiples of a step, some of them moved elsewhere."""
        share = draw(st.sampled_from([0.0, 0.0, 0.3, 0.7]))
        away = rng.random(len(wholes)) < share
        wholes[away] = rng.integers(-(2**digits), 2**digits, (int(away.sum()), dim))
        return wholes

    codewords, x = some(near(count)), some(near(rows))
    if draw(st.booleans()):
        codewords[rng.integers(count, size=count // 2)] = codewords[rng.integers(count)]
    if draw(st.booleans()):
        x[rng.integers(rows)] = codewords[rng.integers(count)]
    if draw(st.booleans()):
        x[rng.integers(rows)] = x[rng.integers(rows)]
    books = np.stack([codewords, some(near(count) - point)])
    return (x * step).astype(dtype), (books * step).astype(dtype)


@st.composite
def lost_to_rounding(
    draw: Any, dims: Any = _SOME, dtype: Any = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Draw near-ties of two codewords where rounding to few bits changes one score the most.

    A screening pass rounds a vector v to ``s * round(v / s)``, with a step s that maps its largest
    element to 127 or 32767, or rounds it to float32.  The rounding error changes a score most where
    the other vector is parallel to it: there the Cauchy-Schwarz bound is an equality, and any
    smaller error bound lets the wrong codeword win.  So the row is drawn parallel to the rounding
    error of a codeword, or a codeword parallel to that of the row, sometimes with all elements half
    a step off.  The other codeword is that one mirrored at the row: at the same distance up to one
    ulp or a little more, but with another rounding error.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim = draw(dims)
    largest = draw(st.sampled_from([127, 127, 32767, 2**24]))
    given = rng.standard_normal(dim)
    if draw(st.booleans()):  # all half a step off, except the element that defines the step
        step = np.abs(given).max() / largest
        given = (np.floor(given / step) + draw(st.sampled_from([0.499, 0.501]))) * step
        given[0] = largest * step
    given = given.astype(dtype).astype(np.float64)
    step = np.abs(given).max() / largest
    rounded = np.rint(given / step) * step if largest < 2**24 else given.astype(np.float32)
    error = given - rounded
    if not error.any():
        error = rng.standard_normal(dim)
    size = draw(st.sampled_from([0.01, 0.3, 1.0, 3.0, 100.0])) * draw(st.sampled_from([-1, 1]))
    parallel = error / np.abs(error).max() * np.abs(given).max() * size
    row, codeword = (parallel, given) if draw(st.booleans()) else (given, parallel)
    row = row.astype(dtype)
    codeword = codeword.astype(dtype)
    gap = dtype(draw(st.sampled_from([-1e-2, -1e-4, -1e-6, 0.0, 0.0, 1e-6, 1e-4, 1e-2])))
    other = row + (row - codeword) * (1 + gap)
    place = int(rng.integers(dim))
    towards = draw(st.sampled_from([-np.inf, np.inf, other[place], other[place]]))
    other[place] = np.nextafter(other[place], dtype(towards))
    others = rng.standard_normal((draw(st.integers(0, 3)), dim)) * np.abs(codeword).max()
    codewords = rng.permutation(
        np.concatenate([codeword[None], other[None], row + others]).astype(dtype)
    )
    more = np.stack([row, -row, row + codeword, rng.standard_normal(dim)]).astype(dtype)
    scale = dtype(2.0 ** draw(st.sampled_from([0, 0, 0, -55, 50])))
    return more * scale, (codewords * scale)[None]


@st.composite
def rounded_residuals(
    draw: Any, max_dim: int = 6, dtype: Any = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Draw cases where the code of the second stage depends on the rounding of the residual.

    The vector is so small that the rounded residual is the negated first codeword, exactly halfway
    between two codewords of the second stage.  An implementation that keeps more digits, or
    computes the residual from sums of codewords, gets another residual.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim, rows = draw(st.integers(1, max_dim)), draw(st.integers(1, 4))
    bits = np.finfo(dtype).nmant
    # Few digits, so that halves are exact.
    left = rng.integers(2**10, 2**11, dim) * rng.choice([-1.0, 1.0], dim)
    x = rng.uniform(-0.4, 0.4, (rows, dim)) * 2.0 ** (10 - bits)
    first = np.stack([-left, -left * 3])
    second = rng.permutation(np.stack([0.5 * left, 1.5 * left]))
    scale = 2.0 ** draw(st.sampled_from([0, 0, -40, 30]))
    return (scale * x).astype(dtype), (scale * np.stack([first, second])).astype(dtype)
