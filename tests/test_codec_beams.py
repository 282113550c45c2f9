"""Beam search is that of its definition, on every path."""

from fractions import Fraction

import numpy as np
import pytest
from helpers import paths
from hypothesis import given, settings
from hypothesis import strategies as st

from rvq_np import Codebooks, decode, encode
from rvq_np.kernels.compiled import engine as compiled
from rvq_np.testing import oracle, strategies


@pytest.mark.parametrize("beam", [2, 5, 100])
def test_a_wider_beam_never_loses_to_the_greedy_search_on_average(beam, rng):
    x = rng.standard_normal((400, 6)).astype(np.float32)
    books = rng.standard_normal((4, 16, 6)).astype(np.float32)
    greedy = np.square(x - decode(encode(x, books), books)).sum()
    codes = encode(x, books, beam_size=beam)
    assert codes.shape == (4, 400)
    assert np.square(x - decode(codes, books)).sum() < greedy


def test_a_beam_over_everything_finds_the_best_sum_there_is():
    rng = np.random.default_rng(3)
    x = rng.integers(-9, 10, (30, 2)).astype(np.float32)
    books = rng.integers(-5, 6, (3, 4, 2)).astype(np.float32)
    sums = books[0][:, None, None] + books[1][None, :, None] + books[2][None, None]
    best = np.square(x[:, None] - sums.reshape(-1, 2)).sum(axis=2).min(axis=1)
    codes = encode(x, books, beam_size=64)
    np.testing.assert_array_equal(np.square(x - decode(codes, books)).sum(axis=1), best)


@given(strategies.lattices(max_stages=3, max_codewords=4), st.integers(2, 4))
def test_beams_are_the_same_on_every_path(case, beam):
    x, books = case
    codes = encode(x, books, beam_size=beam)
    with paths.without_numba(), paths.small_blocks():
        np.testing.assert_array_equal(encode(x, books, beam_size=beam), codes)


@pytest.mark.parametrize("screen", compiled.SCREENS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("beam", [2, 5, 16, 150])
def test_beams_on_compiled_screens_are_those_of_numpy(screen, dtype, beam, rng):
    x = rng.standard_normal((60, 24)).astype(dtype)
    books = Codebooks([rng.standard_normal((size, 24)).astype(dtype) for size in (100, 33, 70)])
    with paths.screen(screen)():
        codes = encode(x, books, beam_size=beam)
    with paths.without_numba():
        np.testing.assert_array_equal(encode(x, books, beam_size=beam), codes)


def naive_beam(row, books, beam):
    """The definition of the beam search, in exact rationals."""
    alive = [((), [Fraction(number) for number in row])]
    for codewords in books:
        repeated = [
            any((codewords[k] == w).all() for w in codewords[:k]) for k in range(len(codewords))
        ]
        distinct = [k for k, again in enumerate(repeated) if not again]
        found = []
        for place, (codes, left) in enumerate(alive):
            exact = {k: [a - Fraction(b) for a, b in zip(left, codewords[k].tolist(), strict=True)]
                     for k in distinct}  # fmt: skip
            ranked = sorted((sum(a * a for a in exact[k]), k) for k in distinct)
            for error, k in ranked[:beam]:
                rest = [oracle.rounded(a, "float32") for a in exact[k]]
                found.append((error, place, k, (*codes, k), rest))
        found.sort(key=lambda each: each[:3])
        alive = [(codes, rest) for _, _, _, codes, rest in found[:beam]]
    return alive[0][0]


@given(
    st.one_of(
        strategies.lattices(max_stages=3, max_codewords=4, max_dim=3),
        strategies.near_ties(max_codewords=4, max_dim=5),
    ),
    st.integers(1, 5),
)
def test_the_beam_search_is_that_of_its_definition(case, beam):
    x, books = case
    expected = [naive_beam(row, books, beam) for row in x.tolist()]
    codes = encode(x, books, beam_size=beam)
    np.testing.assert_array_equal(codes.T, np.reshape(expected, codes.T.shape))


@pytest.mark.parametrize("numba", [True, False])
@given(
    st.one_of(
        strategies.collapsed(st.integers(1, 5), st.integers(1, 4), max_rows=3),
        strategies.uneven(st.integers(1, 5), st.integers(1, 4), max_rows=3),
    ),
    st.integers(2, 5),
)
def test_a_beam_where_all_but_coincides_is_that_of_its_definition(numba, case, beam):
    x, books = case
    expected = [naive_beam(row, books, beam) for row in x.tolist()]
    with paths.inside_of(numba):
        codes = encode(x, books, beam_size=beam)
    np.testing.assert_array_equal(codes.T, np.reshape(expected, codes.T.shape))


@settings(max_examples=300)
@given(strategies.near_ties(), st.integers(2, 8))
def test_over_one_stage_every_beam_finds_the_nearest_codeword(case, beam):
    x, books = case
    expected = [oracle.encode(row, books[:1]) for row in x.tolist()]
    np.testing.assert_array_equal(encode(x, books[:1], beam_size=beam).T, expected)


def test_a_beam_spends_nothing_on_repeated_codewords():
    codewords = np.float32([[[1.0]] * 3 + [[2.0]], [[0.0], [0.5], [-0.96875], [9.0]]])
    np.testing.assert_array_equal(encode(np.float32([[1.4]]), codewords, beam_size=2), [[0], [1]])
    np.testing.assert_array_equal(encode(np.float32([[1.03]]), codewords, beam_size=2), [[3], [2]])
