"""Strategies for single arrays: codebooks, vectors, codes, masks, batches; see `strategies`."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

__all__ = ["codebooks", "codes", "masks", "training_batches", "vectors"]


@st.composite
def codebooks(
    draw: Any, max_stages: int = 4, max_words: int = 12, max_dim: int = 6, dtype: Any = np.float32
) -> np.ndarray:
    """Draw codebooks (Q, K, D), each later one shorter, as residuals are.

    Numbers of words are no powers of two, down to one.  Words repeat, since k-means on few
    vectors repeats them and a tie must then go to the first; a book may be all zeros, as an
    untrained one of ESPnet is; and all words may lie far from zero, where squares lose digits.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    stages, words = draw(st.integers(1, max_stages)), draw(st.integers(1, max_words))
    books = rng.standard_normal((stages, words, draw(st.integers(1, max_dim))))
    books *= 0.6 ** np.arange(stages)[:, None, None]
    books += draw(st.sampled_from([0.0, 0.0, 0.0, 50.0]))
    if draw(st.booleans()):
        books[:, rng.integers(words)] = books[:, rng.integers(words)]
    if draw(st.integers(0, 5)) == 5:
        books[rng.integers(stages)] = 0
    return books.astype(dtype)


@st.composite
def vectors(draw: Any, codebooks: np.ndarray, max_rows: int = 8) -> np.ndarray:
    """Draw vectors (N, D) for these codebooks, none included.

    Besides normal ones: a word itself, whose residual is zero from then on; a sum of one word of
    each book; and the middle between two words, the hardest to decide.
    """
    stages, words, dim = codebooks.shape
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = []
    for kind in draw(
        st.lists(st.sampled_from(["normal", "word", "sum", "middle"]), max_size=max_rows)
    ):
        chosen = codebooks[np.arange(stages), rng.integers(words, size=stages)]
        pair = codebooks[0, rng.integers(words, size=2)].astype(np.float64)
        rows.append(
            {
                "normal": codebooks[0].mean(axis=0) + rng.standard_normal(dim),
                "word": pair[0],
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

    Both ends of each range are frequent: 0, which must not be taken for nothing, and the last
    word, which a mask of bits or an index that starts at one misses.  With `dropped`, -1 stands
    where a level was not used: from some level on, as quantizer dropout does, or anywhere.
    """
    if shape is None:
        shape = (draw(st.integers(0, 9)),)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    drawn = np.empty((len(sizes), *shape), np.int32)
    for level, size in enumerate(sizes):
        ends = rng.choice([0, size - 1], shape)
        drawn[level] = np.where(rng.random(shape) < 0.3, ends, rng.integers(0, size, shape))
    if dropped and draw(st.booleans()):
        active = rng.integers(1, len(sizes) + 1, shape)
        drawn[np.arange(len(sizes)).reshape(-1, *[1] * len(shape)) >= active] = -1
    elif dropped:
        drawn[rng.random(drawn.shape) < 0.3] = -1
    return drawn


@st.composite
def masks(draw: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Draw a mask of bool, True where there is a vector.

    All and none, which take shortcuts; a length for each row of the last axis, as padded speech
    has; and any pattern, which nothing may rely on not to happen.
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

    Fewer rows than words and rows that repeat leave clusters empty, which others then fill with
    zero words; few clumps leave words without a vector, so they die; one number that is the same
    in all rows makes a direction without any spread; and rows far from zero (add `centre`) show
    whether sums and counts match, since a word off by a factor is then off by much.
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
