"""Stages searched by cosine: the codeword of the most similar direction, decoded as it is.

What is right is worked out in float64 by `regret`, without the library.
"""

import itertools

import numpy as np
import pytest
from helpers import paths, regret
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import rvq_np
from rvq_np import Codebooks
from rvq_np.codebooks import Linear, Stage
from rvq_np.errors import ParameterError

# Other shapes of kernels run for few rows and for many.
WAYS = {
    "compiled": {"encode": rvq_np.encode, "decode": rvq_np.decode},
    "tiny tiles": paths.inside(paths.tiny_tiles),
    "plain NumPy": paths.inside(paths.without_numba),
    "plain NumPy in small blocks": paths.inside(paths.without_numba, paths.small_blocks),
    "array API": paths.array_api(),
    "array API, another device": paths.array_api("device1"),
    "array API without float64": paths.array_api("no_float64"),
    "row by row": {
        "encode": lambda x, books: np.stack([rvq_np.encode(row, books) for row in x], axis=1),
        "decode": rvq_np.decode,
    },
}
ways = pytest.mark.parametrize("way", WAYS)
wide_ways = pytest.mark.parametrize("way", sorted(set(WAYS) - {"array API without float64"}))
# dim, width of a codeword or None for no projections, stages, codewords
SHAPES = [(8, None, 3, 16), (16, 5, 4, 33), (3, 7, 2, 9), (1, None, 2, 4), (64, 8, 3, 256)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def make(rng, shape, scale=1.0, dtype=np.float32):
    dim, width, n_q, size = shape

    def normal(*sizes):
        return rng.standard_normal(sizes).astype(dtype)

    stages = []
    for stage in range(n_q):
        codewords = normal(size, width or dim) * dtype(scale * 0.7**stage)
        # Lengths that differ: who forgets to divide by them finds other codewords.
        codewords *= rng.choice([0.25, 1, 8], (size, 1)).astype(dtype)
        maps = []
        if width:
            maps = [
                Linear(normal(width, dim) / dim**0.5, normal(width) / 10 * scale),
                Linear(normal(dim, width) / width**0.5, normal(dim) / 10 * scale),
            ]
        stages.append(Stage(codewords, *maps, metric="cosine"))
    return Codebooks(stages)


@shapes
@ways
def test_every_code_names_the_most_similar_codeword(way, shape, rng):
    books = make(rng, shape)
    x = rng.standard_normal((70, shape[0])).astype(np.float32)
    codes = WAYS[way]["encode"](x, books)
    assert codes.shape == (shape[2], 70)
    regret.assert_nearest(x, codes, books)
    euclidean = Codebooks(
        [Stage(each.codebook, each.project_in, each.project_out) for each in books]
    )
    if shape[0] > 1:
        assert (rvq_np.encode(x, euclidean) != codes).mean() > 0.1  # or nothing is tested


@shapes
@ways
def test_decode_sums_the_codewords_as_they_are(way, shape, rng):
    books = make(rng, shape)
    codes = rng.integers(0, shape[3], (shape[2], 41))
    decoded = WAYS[way]["decode"](codes, books)
    regret.assert_decodes(decoded, codes, books)
    for n in range(1, shape[2]):
        regret.assert_decodes(rvq_np.decode(codes[:n], books), codes[:n], books)


@wide_ways
def test_float64_is_searched_in_float64(way, rng):
    books = make(rng, (8, None, 3, 16), dtype=np.float64)
    x = rng.standard_normal((70, 8))
    codes = WAYS[way]["encode"](x, books)
    regret.assert_nearest(x, codes, books, np.float64)
    # Codewords so near each other that float32 cannot tell them apart.
    base = rng.standard_normal((1, 8))
    near = Codebooks([Stage(base + 1e-10 * rng.standard_normal((16, 8)), metric="cosine")])
    expected = rng.integers(0, 16, 50)
    codes = WAYS[way]["encode"](near.stages[0].codebook[expected] * 3, near)
    regret.assert_nearest(near.stages[0].codebook[expected] * 3, codes, near, np.float64)
    np.testing.assert_array_equal(codes[0], expected)


def test_float64_vectors_and_float32_codewords(rng):
    books = make(rng, SHAPES[1])
    x = rng.standard_normal((50, 16))
    regret.assert_nearest(x, rvq_np.encode(x, books), books)


def test_a_prefix_of_stages_has_a_prefix_of_the_codes(rng):
    books = make(rng, SHAPES[1])
    x = rng.standard_normal((50, 16)).astype(np.float32)
    codes = rvq_np.encode(x, books)
    for n in range(1, 5):
        np.testing.assert_array_equal(rvq_np.encode(x, books, n_q=n), codes[:n])
        np.testing.assert_array_equal(rvq_np.encode(x, books[:n]), codes[:n])


def test_stages_of_either_metric_follow_each_other(rng):
    codewords = rng.standard_normal((4, 12, 6)).astype(np.float32)
    metrics = ["euclidean", "cosine", "cosine", "euclidean"]
    books = Codebooks(
        [Stage(each, metric=metric) for each, metric in zip(codewords, metrics, strict=True)]
    )
    x = rng.standard_normal((80, 6)).astype(np.float32)
    for way in WAYS.values():
        regret.assert_nearest(x, way["encode"](x, books), books)


@ways
def test_the_length_of_codewords_and_vectors_does_not_choose(way, rng):
    """By powers of two, which round nothing."""
    books = make(rng, (8, None, 1, 32))
    x = rng.standard_normal((60, 8)).astype(np.float32)
    codes = WAYS[way]["encode"](x, books)
    lengths = np.exp2(rng.integers(-20, 20, (32, 1))).astype(np.float32)
    scaled = Codebooks([Stage(books.stages[0].codebook * lengths, metric="cosine")])
    np.testing.assert_array_equal(WAYS[way]["encode"](x, scaled), codes)
    factors = np.exp2(rng.integers(-20, 20, (60, 1))).astype(np.float32)
    np.testing.assert_array_equal(WAYS[way]["encode"](x * factors, books), codes)


@ways
@pytest.mark.parametrize("of_codewords", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("of_x", [1e-30, 1.0, 1e30])
def test_huge_and_tiny_numbers_have_directions(way, of_codewords, of_x, rng):
    """Their squares have none in float32."""
    books = make(rng, (8, None, 2, 16))
    codewords = [stage.codebook * np.float32(of_codewords) for stage in books]
    books = Codebooks([Stage(each, metric="cosine") for each in codewords])
    x = rng.standard_normal((40, 8)).astype(np.float32) * np.float32(of_x)
    codes = WAYS[way]["encode"](x, books)
    regret.assert_nearest(x, codes, books)
    assert len(np.unique(codes[0])) > 4
    regret.assert_decodes(WAYS[way]["decode"](codes, books), codes, books)


@ways
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_huge_and_tiny_numbers_are_projected(way, size, rng):
    books = make(rng, (16, 5, 2, 16), size)
    x = rng.standard_normal((40, 16)).astype(np.float32) * np.float32(size)
    regret.assert_nearest(x, WAYS[way]["encode"](x, books), books)


@wide_ways
@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_huge_and_tiny_float64(way, size, rng):
    books = make(rng, (8, None, 1, 16), dtype=np.float64)
    x = rng.standard_normal((40, 8))
    codes = WAYS[way]["encode"](x, books)
    scaled = Codebooks([Stage(books.stages[0].codebook * size, metric="cosine")])
    np.testing.assert_array_equal(WAYS[way]["encode"](x * size, scaled), codes)


@ways
def test_a_vector_of_zeros_has_no_direction_and_any_code(way, rng):
    books = make(rng, (8, None, 2, 16))
    codes = WAYS[way]["encode"](np.zeros((3, 8), np.float32), books)
    assert ((codes >= 0) & (codes < 16)).all()
    np.testing.assert_array_equal(codes, codes[:, :1].repeat(3, axis=1))


@ways
def test_codewords_of_zeros_are_as_far_as_a_right_angle_and_a_half(way):
    """A codeword without direction is at distance 1 of every direction: a cosine of 1/2."""
    codewords = np.float32([[0, 0], [5, 0], [0, 0], [0, 3]])
    books = Codebooks([Stage(codewords, metric="cosine")])
    x = np.float32([[1, 0], [0, 2], [-1, 0], [-1, -1], [1, 1]])
    codes = WAYS[way]["encode"](x, books)
    np.testing.assert_array_equal(codes, [[1, 3, 0, 0, 1]])
    regret.assert_nearest(x, codes, books)


@ways
def test_a_codebook_of_zeros_gives_code_zero(way, rng):
    books = Codebooks([Stage(np.zeros((5, 3), np.float32), metric="cosine")])
    x = rng.standard_normal((7, 3)).astype(np.float32)
    np.testing.assert_array_equal(WAYS[way]["encode"](x, books), np.zeros((1, 7)))


@ways
def test_the_first_of_equal_codewords_is_chosen(way, rng):
    codewords = rng.standard_normal((6, 4)).astype(np.float32)
    books = Codebooks(
        [Stage(np.concatenate([codewords, codewords, 2 * codewords]), metric="cosine")]
    )
    x = rng.standard_normal((50, 4)).astype(np.float32)
    assert (WAYS[way]["encode"](x, books) < 6).all()


numbers = st.floats(-4, 4, width=32).map(lambda n: np.float32(round(n * 4) / 4))


@given(data=st.data())
def test_any_small_numbers_on_every_path(data):
    """Ties, repeats, zeros and opposites abound."""
    dim, size, rows = (data.draw(st.integers(1, most)) for most in (4, 6, 5))
    codewords = data.draw(arrays(np.float32, (2, size, dim), elements=numbers))
    x = data.draw(arrays(np.float32, (rows, dim), elements=numbers))
    stages = [Stage(each, metric="cosine") for each in codewords]
    for way in WAYS.values():
        books = Codebooks(stages)
        codes = way["encode"](x, books)
        regret.assert_nearest(x, codes, books)
        regret.assert_decodes(way["decode"](codes, books), codes, books)


def test_codes_depend_on_neither_batch_nor_threads(rng):
    books = make(rng, SHAPES[4])
    x = rng.standard_normal((3000, 64)).astype(np.float32)
    codes = rvq_np.encode(x, books)
    regret.assert_nearest(x[:200], codes[:, :200], books)
    np.testing.assert_array_equal(rvq_np.encode(x, books, threads=1), codes)
    np.testing.assert_array_equal(rvq_np.encode(x[:7], books), codes[:, :7])
    with paths.without_numba():
        plain = rvq_np.encode(x, Codebooks(books.stages))
    regret.assert_nearest(x[:200], plain[:, :200], books)
    assert (plain != codes).any(axis=0).mean() < 0.01


@pytest.mark.parametrize("width", [None, 2])
@pytest.mark.parametrize("context", ["compiled", "plain"])
def test_a_beam_that_keeps_everything_finds_the_best_sum(width, context, rng):
    books = make(rng, (3, width, 3, 3))
    x = rng.standard_normal((30, 3)).astype(np.float32)
    every = np.array(list(itertools.product(range(3), repeat=3))).T
    sums = np.asarray(rvq_np.decode(every, books), np.float64)
    errors = np.square(x[:, None] - sums).sum(axis=2)
    best = errors.argmin(axis=1)
    ranked = np.sort(errors, axis=1)
    assert (ranked[:, 1] - ranked[:, 0] > 1e-5).all()  # no near-tie
    encode = rvq_np.encode if context == "compiled" else paths.inside(paths.without_numba)["encode"]
    np.testing.assert_array_equal(encode(x, books, None, 27), every[:, best])
    greedy = rvq_np.encode(x, books)
    assert (greedy != every[:, best]).any()


def test_a_beam_leaves_less_than_the_greedy_search(rng):
    books = make(rng, SHAPES[1])
    x = rng.standard_normal((100, 16)).astype(np.float32)

    def left(beam_size):
        codes = rvq_np.encode(x, books, beam_size=beam_size)
        return np.square(x - rvq_np.decode(codes, books)).sum()

    assert left(8) < left(2) < left(1)


@pytest.mark.parametrize("metric", ["dot", "Cosine", "", None, 1])
def test_another_metric_is_refused(metric):
    with pytest.raises(ParameterError, match=r"metric is .*; expected one of euclidean, cosine"):
        Stage(np.ones((2, 2), np.float32), metric=metric)


def test_the_fingerprint_knows_the_metric(rng):
    codewords = rng.standard_normal((2, 4, 3)).astype(np.float32)
    prints = {
        Codebooks(
            [Stage(each, metric=metric) for each, metric in zip(codewords, metrics, strict=True)]
        ).fingerprint
        for metrics in itertools.product(["euclidean", "cosine"], repeat=2)
    }
    assert len(prints) == 4
    assert Codebooks(codewords).fingerprint in prints


def test_repr_tells_the_metric():
    stage = Stage(np.ones((4, 3), np.float32), metric="cosine")
    assert repr(stage) == "Stage(4 codewords of 3 for vectors of 3, by cosine)"
    assert "cosine" not in repr(Stage(np.ones((4, 3), np.float32)))
