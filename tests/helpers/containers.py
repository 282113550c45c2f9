"""Containers and what is in them, drawn."""

import io

import numpy as np
from hypothesis import strategies as st

from rvq_np import bitstream

SIZES = st.one_of(st.integers(1, 9), st.sampled_from([255, 256, 257, 1000, 65536, 2**31 - 1]))


@st.composite
def contents(draw, strides=(1, 2, 3)):
    """Draw (stages, arguments of `write`): any sizes, streams and strides; uneven codes, drops.

    Chunks are short, so that a few frames cross them.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_q = draw(st.integers(1, 4))
    every = [draw(st.sampled_from(strides)) for _ in range(n_q)]
    block = int(np.lcm.reduce(every))
    batch = tuple(draw(st.lists(st.integers(0, 3), max_size=2)))
    frames = block * draw(st.integers(0, 40))
    sizes = [draw(SIZES) for _ in range(n_q)]
    stages = []
    for size, stride in zip(sizes, every, strict=True):
        shape = (*batch, frames // stride)
        kind = draw(st.sampled_from(["even", "uneven", "constant", "dropped"]))
        codes = rng.integers(0, size, shape)
        if kind == "uneven":
            codes = np.minimum(rng.geometric(0.5, shape) - 1, size - 1)
        if kind == "constant":
            codes = np.full(shape, size - 1)
        if kind == "dropped":
            codes = np.where(rng.random(shape) < 0.3, -1, codes)
        stages.append(codes.astype(draw(st.sampled_from([np.int32, np.int64]))))
    arguments = {
        "sizes": sizes,
        "chunk_frames": block * draw(st.integers(1, 20)),
        "compress": draw(st.booleans()),
    }
    if max(every) > 1:
        return stages, {**arguments, "strides": every}
    return np.stack(stages), arguments


def written(codes, arguments):
    file = io.BytesIO()
    bitstream.write(file, codes, **arguments)
    return file


def same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.dtype == np.int32
        np.testing.assert_array_equal(a, b)
