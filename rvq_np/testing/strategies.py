"""Hypothesis strategies for vectors and codebooks, each saying why it draws what it draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

__all__ = ["lattices", "near_ties", "ordinary"]


@st.composite
def lattices(
    draw: Any,
    max_stages: int = 4,
    max_words: int = 6,
    max_dim: int = 5,
    max_rows: int = 6,
    dtype: Any = np.float32,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``(x (N, D), codebooks (Q, K, D))`` of small whole numbers.

    Sums and products are exact in float32, so every implementation, in any order of operations,
    owes the same codes, ties and repeated words included; and ties are frequent.
    """
    dim, rows = draw(st.integers(1, max_dim)), draw(st.integers(0, max_rows))
    stages, words = draw(st.integers(1, max_stages)), draw(st.integers(1, max_words))
    whole = st.integers(-8, 8).map(float)
    x = draw(npst.arrays(dtype, (rows, dim), elements=whole))
    return x, draw(npst.arrays(dtype, (stages, words, dim), elements=whole))


@st.composite
def ordinary(
    draw: Any, max_words: int = 40, max_dim: int = 20, max_rows: int = 12, dtype: Any = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Draw normal vectors and codebooks, sizes crossing any block or panel of a kernel.

    Nothing here is special but the sizes: numbers of rows, words and dimensions that are not
    multiples of anything.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim, rows = draw(st.integers(1, max_dim)), draw(st.integers(0, max_rows))
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
    exponents = [0, 0, -70, 60, -140] if dtype == np.float32 else [0, 0, -400, 400, -1060]
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
