"""The best few code sequences: exact, in blocks, the same on every path."""

from fractions import Fraction

import numpy as np
import pytest
from helpers import paths
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import rvq_np
from rvq_np.errors import NonFiniteError, ParameterError, ShapeError
from rvq_np.semantic_ids import candidates
from rvq_np.testing import oracle


@st.composite
def problems(draw):
    """Small whole numbers: every sum is exact and ties are frequent."""
    n_q, size, dim = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    numbers = st.integers(-3, 3)
    books = draw(hnp.arrays(np.float32, (n_q, size, dim), elements=numbers))
    x = draw(hnp.arrays(np.float32, (draw(st.integers(0, 6)), dim), elements=numbers))
    return x, books, draw(st.integers(1, 7))


def beam_by_definition(row, books, k):
    """Return the hypotheses of a beam search, best first, by the definition; exact numbers."""
    beam = [((), [Fraction(float(each)) for each in row])]
    for book in books:
        seen, proposals = [], []
        usable = [n for n in range(len(book)) if not (book[:n] == book[n]).all(axis=1).any()]
        for parent, (codes, left) in enumerate(beam):
            for n in usable:
                rest = [a - Fraction(float(b)) for a, b in zip(left, book[n], strict=True)]
                error = sum(each * each for each in rest)
                proposals.append((error, parent, n, (*codes, n), rest))
        seen = sorted(proposals, key=lambda each: each[:3])[:k]
        beam = [(codes, rest) for _, _, _, codes, rest in seen]
    return [(codes, sum(each * each for each in rest)) for codes, rest in beam]


@given(problems())
def test_candidates_are_the_whole_beam(problem):
    x, books, k = problem
    for numba in (True, False):
        with paths.inside_of(numba):
            found = candidates(x, books, k)
        assert found.codes.shape == (k, len(books), len(x))
        for n, row in enumerate(x):
            expected = beam_by_definition(row, books, k)
            count = len(expected)
            assert [tuple(each) for each in found.codes[:count, :, n]] == [c for c, _ in expected]
            assert found.distances[:count, n].tolist() == [float(d) for _, d in expected]
            assert (found.codes[count:, :, n] == -1).all()
            assert np.isinf(found.distances[count:, n]).all()


@given(problems())
def test_the_last_stage_alone_keeps_the_prefix(problem):
    x, books, k = problem
    greedy = [oracle.encode(row, books) for row in x]
    for numba in (True, False):
        with paths.inside_of(numba):
            found = candidates(x, books, k, last=True)
        for n, row in enumerate(x):
            prefix = [int(code) for code in greedy[n][:-1]]
            left = row.copy()
            for book, code in zip(books, prefix, strict=False):
                left -= book[code]
            expected = beam_by_definition(left, books[-1:], k)
            for place, (codes, distance) in enumerate(expected):
                assert found.codes[place, :, n].tolist() == [*prefix, *codes]
                assert found.distances[place, n] == float(distance)
            assert (found.codes[len(expected) :, :, n] == -1).all()


@pytest.mark.parametrize("last", [False, True])
def test_blocks_and_subsets_do_not_show(rng, last, monkeypatch):
    x = rng.standard_normal((200, 8)).astype(np.float32)
    books = rvq_np.Codebooks(rng.standard_normal((3, 16, 8)).astype(np.float32))
    whole = candidates(x, books, 4, last=last)
    items = rng.permutation(200)[:70]
    some = candidates(x, books, 4, last=last, items=items)
    assert (some.codes == whole.codes[:, :, items]).all()
    assert (some.distances == whole.distances[:, items]).all()
    assert (some.items == items).all()
    monkeypatch.setitem(candidates.__globals__, "NUMBERS", 1)
    again = candidates(x, books, 4, last=last)
    assert (again.codes == whole.codes).all()
    assert (again.distances == whole.distances).all()
    first = rvq_np.encode(x, books, beam_size=1 if last else 4)
    assert (whole.codes[0] == first).all()
    recomputed = np.square(x - rvq_np.decode(whole.codes[2], books)).sum(axis=1)
    np.testing.assert_allclose(whole.distances[2], recomputed, rtol=1e-5)


def test_stages_with_projections_have_candidates(rng):
    into = rvq_np.Linear(rng.standard_normal((3, 6)), np.zeros(3))
    out = rvq_np.Linear(rng.standard_normal((6, 3)), np.zeros(6))
    stages = [rvq_np.Stage(rng.standard_normal((8, 3)).astype(np.float32), into, out)] * 2
    x = rng.standard_normal((20, 6)).astype(np.float32)
    found = candidates(x, rvq_np.Codebooks(stages), 3)
    assert (found.codes[0] == rvq_np.encode(x, rvq_np.Codebooks(stages), beam_size=3)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_distances_are_rounded_as_the_definition_says(rng, dtype, projected, last):
    """What is left is rounded at each stage; its squares are added one after the other."""
    codewords = rng.standard_normal((3, 5, 6)).astype(dtype)
    maps = [(), (rvq_np.Linear(np.eye(6), np.zeros(6)),
                 rvq_np.Linear(rng.standard_normal((6, 6)), np.ones(6)))]  # fmt: skip
    x = rng.standard_normal((7, 6)).astype(dtype)
    for numba in (True, False):
        with paths.inside_of(numba):  # maps are rounded by Numba or BLAS, and kept with codebooks
            books = rvq_np.Codebooks([rvq_np.Stage(each, *maps[projected]) for each in codewords])
            found = candidates(x, books, 8, last=last)
            codewords_of = [rvq_np.decode(np.arange(5)[None], books[q : q + 1]) for q in range(3)]
        assert (found.codes[:, 0] < 0).any() == last  # a codebook of five has no eight
        for place, n in np.ndindex(8, 7):
            codes = found.codes[place, :, n]
            if codes[0] < 0:
                assert found.distances[place, n] == np.inf
                continue
            left, total = x[n], 0.0
            for q, code in enumerate(codes):
                left = left - codewords_of[q][code]
            for number in left.tolist():
                total += number * number
            assert found.distances[place, n] == total


X, BOOKS = np.zeros((4, 2), np.float32), np.zeros((1, 2, 2), np.float32)


@pytest.mark.parametrize(("arguments", "error", "text"), [
    ((X, BOOKS, 0), ParameterError, "k is 0; expected a whole number >= 1"),
    ((X[0], BOOKS, 1), ShapeError, r"x has shape \(2,\); expected \(N, 2\)"),
    ((np.where(np.arange(4)[:, None] == 2, np.nan, X), BOOKS, 1), NonFiniteError,
     "row 2 of x holds NaN"),
])  # fmt: skip
def test_what_has_no_candidates_is_named(arguments, error, text):
    with pytest.raises(error, match=text):
        candidates(*arguments)


def test_rows_are_named_by_their_number_in_x():
    x = np.where(np.arange(4)[:, None] == 2, np.inf, X)
    with pytest.raises(NonFiniteError, match="row 2 of x"):
        candidates(x, BOOKS, 1, items=[3, 2])
    with pytest.raises(ShapeError, match="items reach from 1 to 4; expected 0 to 3"):
        candidates(x, BOOKS, 1, items=[1, 4])
