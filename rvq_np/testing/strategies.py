"""Hypothesis strategies for all that goes into a quantizer, each saying why it draws what it draws.

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
    max_words: int = 6,
    max_dim: int = 5,
    max_rows: int = 6,
    dtype: Any = np.float32,
    min_rows: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``(x (N, D), codebooks (Q, K, D))`` of small whole numbers.

    Sums and products are exact in float32, so every implementation, in any order of operations,
    owes the same codes, ties and repeated words included; and ties are frequent.
    """
    dim, rows = draw(st.integers(1, max_dim)), draw(st.integers(min_rows, max_rows))
    stages, words = draw(st.integers(1, max_stages)), draw(st.integers(1, max_words))
    whole = st.integers(-8, 8).map(float)
    x = draw(npst.arrays(dtype, (rows, dim), elements=whole))
    return x, draw(npst.arrays(dtype, (stages, words, dim), elements=whole))


@st.composite
def ordinary(
    draw: Any,
    max_words: int = 40,
    max_dim: int = 20,
    max_rows: int = 12,
    dtype: Any = np.float32,
    min_rows: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw normal vectors and codebooks, sizes crossing any block or panel of a kernel.

    Nothing here is special but the sizes: numbers of rows, words and dimensions that are not
    multiples of anything.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim, rows = draw(st.integers(1, max_dim)), draw(st.integers(min_rows, max_rows))
    stages, words = draw(st.integers(1, 3)), draw(st.integers(1, max_words))
    scale = 2.0 ** draw(st.sampled_from([0, 0, -20, 20]))
    x = (scale * rng.standard_normal((rows, dim))).astype(dtype)
    return x, (scale * rng.standard_normal((stages, words, dim))).astype(dtype)


@st.composite
def near_ties(
    draw: Any, max_dim: int = 9, max_words: int = 7, dtype: Any = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Draw cases whose two best words are exactly tied, or one unit in the last place apart.

    A row whose numbers are all equal is equally far from every permutation of a word; but sums of
    the same numbers in another order round differently, in float32 and in float64, so whoever
    trusts a sum picks the wrong one. So does a word mirrored at the row, whose products are all
    others. Some words then move by the smallest step there is. The
    whole is scaled to where squares underflow or come near overflow, or shifted by a common
    offset that swallows most digits.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim, count = draw(st.integers(2, max_dim)), draw(st.integers(2, max_words))
    stages = draw(st.integers(1, 2))
    offset = draw(st.sampled_from([0.0, 0.0, 0.0, 100.0, 1e6]))
    exponents = [0, 0, -70, 60, -140]
    if dtype == np.float64:
        exponents = [0, 0, -400, 400, -500, 500, -1060]
    scale = 2.0 ** draw(st.sampled_from(exponents))
    level = dtype(offset + rng.standard_normal())
    spread = 2.0 ** rng.integers(-26, 3, size=dim)  # their sum needs more than 53 bits
    word = (offset + spread * rng.standard_normal(dim)).astype(dtype)
    words = np.stack([rng.permutation(word) for _ in range(count)])
    for k in range(count):
        move = draw(st.sampled_from(["none", "none", "none", "mirror", "up", "down", "far"]))
        place = int(rng.integers(dim))
        if move == "mirror":  # as far on the other side, but for the rounding of 2 * row - word
            words[k] = 2 * level - words[k]
        elif move == "far":
            words[k] += dtype(3 + abs(offset)) * np.sign(words[k, place])
        elif move != "none":
            towards = dtype(np.inf if move == "up" else -np.inf)
            words[k, place] = np.nextafter(words[k, place], towards)
    x = np.stack([np.full(dim, level), words[0], rng.standard_normal(dim)]).astype(dtype)
    more = rng.permuted(np.stack([words] * (stages - 1)), axis=2) if stages > 1 else words[:0]
    books = np.concatenate([words[None], np.asarray(more).reshape(-1, count, dim)])
    return (x * dtype(scale)).astype(dtype), (books * dtype(scale)).astype(dtype)


@st.composite
def uneven(
    draw: Any,
    counts: Any = _FEW,
    dims: Any = _FEW,
    max_rows: int = 4,
    dtype: Any = np.float32,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows and words whose norms lie far apart, denormal to huge, some words repeated.

    A screen of few bits measures a stage by its longest word and a row by its largest number.
    What is small beside those is rounded most, or to nothing; what is far outside has to be
    taken out of the screen; and a common offset leaves all that differs below the last bit.
    `counts` and `dims` draw the numbers of words and of dimensions.
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

    words = some(count, draw(sizes), draw(st.booleans()))
    if draw(st.booleans()):
        words[rng.integers(count, size=count // 3)] = words[rng.integers(count)]
    if draw(st.booleans()):
        words[rng.integers(count)] *= dtype(0.0)  # with minus zeros
    x = some(rows, draw(sizes), draw(st.booleans()))
    if draw(st.booleans()):
        x[0] = words[rng.integers(count)]
    return x, words[None]


@st.composite
def collapsed(
    draw: Any,
    counts: Any = _FEW,
    dims: Any = _FEW,
    max_rows: int = 4,
    dtype: Any = np.float32,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows and codewords a few steps apart around one point, at any magnitude.

    That is what is left of a batch with fewer vectors than codewords: seen through a projection,
    its bias and next to nothing. Scores cancel to the last bit, and with steps of one size ties
    are frequent. The steps may be the smallest floats there are, or end at the largest; some
    codewords and rows may be elsewhere, far or repeats, so that no single centre serves all.
    `counts` and `dims` draw the numbers of codewords and of dimensions.
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
        """Return whole numbers of steps, a few of which are elsewhere."""
        share = draw(st.sampled_from([0.0, 0.0, 0.3, 0.7]))
        away = rng.random(len(wholes)) < share
        wholes[away] = rng.integers(-(2**digits), 2**digits, (int(away.sum()), dim))
        return wholes

    words, x = some(near(count)), some(near(rows))
    if draw(st.booleans()):
        words[rng.integers(count, size=count // 2)] = words[rng.integers(count)]
    if draw(st.booleans()):
        x[rng.integers(rows)] = words[rng.integers(count)]
    if draw(st.booleans()):
        x[rng.integers(rows)] = x[rng.integers(rows)]
    books = np.stack([words, some(near(count) - point)])
    return (x * step).astype(dtype), (books * step).astype(dtype)


@st.composite
def lost_to_rounding(
    draw: Any, dims: Any = _SOME, dtype: Any = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Draw near-ties of two words where rounding to few bits moves one score as far as it can.

    A screen sees a vector v as ``s * round(v / s)``, with a step s that gives its largest number
    127 or 32767, or its numbers as float32.  What is lost changes a score most where the other
    vector lies along it: then the bound of Cauchy and Schwarz is an equation, and a slack that is
    any smaller lets the wrong word win.  So the row is drawn along what is lost of a word, or a
    word along what is lost of the row, all numbers half a step off if need be.  The rival is that
    word mirrored at the row: as far away, but for the smallest step or a little more, and rounded
    otherwise.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim = draw(dims)
    levels = draw(st.sampled_from([127, 127, 32767, 2**24]))
    given = rng.standard_normal(dim)
    if draw(st.booleans()):  # all half a step off, but for the number that sets the step
        step = np.abs(given).max() / levels
        given = (np.floor(given / step) + draw(st.sampled_from([0.499, 0.501]))) * step
        given[0] = levels * step
    given = given.astype(dtype).astype(np.float64)
    step = np.abs(given).max() / levels
    seen = np.rint(given / step) * step if levels < 2**24 else given.astype(np.float32)
    lost = given - seen
    if not lost.any():
        lost = rng.standard_normal(dim)
    size = draw(st.sampled_from([0.01, 0.3, 1.0, 3.0, 100.0])) * draw(st.sampled_from([-1, 1]))
    along = lost / np.abs(lost).max() * np.abs(given).max() * size
    row, word = (along, given) if draw(st.booleans()) else (given, along)
    row = row.astype(dtype)
    word = word.astype(dtype)
    gap = dtype(draw(st.sampled_from([-1e-2, -1e-4, -1e-6, 0.0, 0.0, 1e-6, 1e-4, 1e-2])))
    rival = row + (row - word) * (1 + gap)
    place = int(rng.integers(dim))
    towards = draw(st.sampled_from([-np.inf, np.inf, rival[place], rival[place]]))
    rival[place] = np.nextafter(rival[place], dtype(towards))
    others = rng.standard_normal((draw(st.integers(0, 3)), dim)) * np.abs(word).max()
    words = rng.permutation(np.concatenate([word[None], rival[None], row + others]).astype(dtype))
    more = np.stack([row, -row, row + word, rng.standard_normal(dim)]).astype(dtype)
    scale = dtype(2.0 ** draw(st.sampled_from([0, 0, 0, -55, 50])))
    return more * scale, (words * scale)[None]


@st.composite
def rounded_residuals(
    draw: Any, max_dim: int = 6, dtype: Any = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Draw cases whose second stage is decided by how the residual was rounded.

    The vector is so small beside the first word that the residual, rounded, is that word with
    its sign turned: exactly halfway between two words of the second stage.  Whoever keeps more
    digits, or computes the residual from sums of words, sees it to one side.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim, rows = draw(st.integers(1, max_dim)), draw(st.integers(1, 4))
    bits = np.finfo(dtype).nmant
    left = rng.integers(2**10, 2**11, dim) * rng.choice([-1.0, 1.0], dim)  # few digits: halves fit
    x = rng.uniform(-0.4, 0.4, (rows, dim)) * 2.0 ** (10 - bits)
    first = np.stack([-left, -left * 3])
    second = rng.permutation(np.stack([0.5 * left, 1.5 * left]))
    scale = 2.0 ** draw(st.sampled_from([0, 0, -40, 30]))
    return (scale * x).astype(dtype), (scale * np.stack([first, second])).astype(dtype)
