"""The nearest free IDs: those of a definition in plain Python; all items get one where all can."""

import itertools

import numpy as np
import pytest
from helpers import paths
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

import rvq_np
from rvq_np.errors import ParameterError
from rvq_np.kernels import dispatch
from rvq_np.semantic_ids import _free, assign
from rvq_np.semantic_ids._products import Products
from rvq_np.train import fit

WIDE = ((1000, 1000),)  # hypotheses and IDs: all there are


@st.composite
def problems(draw):
    """Small whole numbers, so that codewords repeat and distances tie."""
    sizes = draw(st.sampled_from([(4,), (2, 3), (3, 1, 2), (1, 2, 2, 1)]))
    dim = draw(st.integers(1, 3))
    numbers = st.integers(-3, 3)
    stages = [rvq_np.Stage(draw(hnp.arrays(np.float32, (size, dim), elements=numbers)))
              for size in sizes]  # fmt: skip
    space, capacity = int(np.prod(sizes)), draw(st.integers(1, 2))
    n_prior = draw(st.integers(0, space * capacity))
    every = np.array(list(itertools.product(*map(range, sizes))), np.int32)
    prior = np.repeat(every, capacity, axis=0)[draw(st.permutations(range(space * capacity)))]
    n_items = draw(st.integers(0, min(9, space * capacity - n_prior)))
    x = draw(hnp.arrays(np.float32, (n_items, dim), elements=numbers))
    return x, rvq_np.Codebooks(stages), prior[:n_prior].T, capacity


@pytest.fixture(autouse=True, scope="module")
def compiled():
    dispatch.load()


def placed(problem):
    x, books, prior, capacity = problem
    codes = rvq_np.encode(x, books)
    found = np.full_like(codes, -1)
    left = _free.place(x.__getitem__, books, codes, found, np.arange(len(x)), capacity, prior)
    return codes, found, left


@given(problems())
def test_the_cheapest_move_is_made_first_among_all_free_ids(problem):
    """The definition: all moves by cost, then by item; each to an ID that has a place."""
    x, books, prior, capacity = problem
    with paths.patched((_free, "WIDTHS", WIDE)):
        codes, found, left = placed(problem)
    assert not len(left)
    every = np.array(list(itertools.product(*map(range, books.sizes)))).T.astype(np.int32)
    apart = np.square(x[:, None].astype(float) - rvq_np.decode(every, books)).sum(axis=2)
    own = np.square(x - rvq_np.decode(codes, books), dtype=float).sum(axis=1)
    costs = apart - own[:, None]
    free = {each: capacity for each in map(tuple, every.T.tolist())}
    for each in prior.T.tolist():
        free[tuple(each)] -= 1
    waiting, chosen = set(range(len(x))), {}
    cheapest = sorted({float(each) for each in costs.ravel()})
    for cost in cheapest:  # of equal ones the item decides; where it goes then may differ
        for item in sorted(waiting):
            here = [each for each, apart in zip(free, costs[item], strict=True)
                    if apart == cost and free[each] > 0]  # fmt: skip
            if here:
                goes = tuple(found[:, item].tolist())
                assert goes in here
                chosen[item] = goes
                free[goes] -= 1
        waiting -= set(chosen)
    assert not waiting


@given(problems(), st.sampled_from([((1, 1),), ((2, 1), (1, 3)), ((1, 2), (3, 1))]))
def test_all_items_get_an_id_however_few_hypotheses_there_are(problem, widths):
    _, _, prior, capacity = problem
    with paths.patched((_free, "WIDTHS", widths), (_free, "PAIRS", 4)):
        _, found, left = placed(problem)
    assert not len(left)
    assert (found >= 0).all()
    every = np.concatenate([prior, found], axis=1)
    if every.size:
        assert np.unique(every, axis=1, return_counts=True)[1].max() <= capacity


@given(problems(), st.sampled_from([((1, 2), (2, 3)), WIDE]))
def test_every_path_finds_the_same(problem, widths):
    with paths.patched((_free, "WIDTHS", widths)):
        expected = placed(problem)[1]
        for changes in ([(_free, "ROWS", 1)], [(_free, "TABLE", 0)]):
            with paths.patched(*changes), paths.threads(2):
                assert (placed(problem)[1] == expected).all()
        with paths.without_numba():
            assert (placed(problem)[1] == expected).all()


def shorter(sizes, n_items, dim=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_items, dim)).astype(np.float32)
    books = [rvq_np.Stage(rng.standard_normal((size, dim)).astype(np.float32) / (1 + q))
             for q, size in enumerate(sizes)]  # fmt: skip
    return x, rvq_np.Codebooks(books)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_products_are_those_of_the_vectors(dtype, scale):
    x, books = shorter((5, 4, 3), 40)
    x = (x * scale).astype(dtype)
    codewords = np.concatenate([stage.codebook for stage in books])
    made = Products(codewords, 3)
    unit = 4.0**made.shift
    products = x.astype(float) @ codewords.astype(float).T
    assert made.of(x) * unit == pytest.approx(products, abs=3e-5 * scale)
    squares = np.square(codewords, dtype=float).sum(axis=1)
    assert made.squares * unit == pytest.approx(squares, abs=1e-4)
    # Any order of adding up gives the same bits, also of as many codewords as there are stages.
    turned = Products(codewords[:, ::-1], 3)
    assert (turned.of(x[:, ::-1]) == made.of(x)).all()
    three = (made.whole[:3] + made.whole[3:6] + made.whole[6:9]) @ made.turned
    assert (three == (made.whole[:9] @ made.turned).reshape(3, 3, -1).sum(axis=0)).all()
    assert np.abs(three).max() < 2**53


def test_items_that_are_all_alike_get_ids_of_their_own(rng):
    """Every look gives all of them the same few IDs."""
    _, books = shorter((6, 5, 7), 0)
    x = np.repeat(rng.standard_normal((1, 6)).astype(np.float32), 210, axis=0)
    found = assign(x, books)
    assert not len(found.unplaced)
    assert np.unique(found.codes, axis=1).shape[1] == 210


def test_an_item_may_be_far_larger_or_smaller_than_codewords():
    _, books = shorter((3, 2), 0)
    x = np.array([[1e-300] * 6, [1e300] * 6, [0] * 6, [-1e150] * 6, [1e-30] * 6])
    found = np.full((2, 5), -1, np.int32)
    left = _free.place(
        x.__getitem__, books, np.zeros((2, 5), np.int32), found, np.arange(5), 1, found[:, :0]
    )
    assert not len(left)
    assert np.unique(found, axis=1).shape[1] == 5


def test_the_error_is_near_the_least_there_is():
    x, books = shorter((4, 5, 6), 90)
    codes = rvq_np.encode(x, books)
    found = np.full_like(codes, -1)
    _free.place(x.__getitem__, books, codes, found, np.arange(90), 1, found[:, :0])
    every = np.array(list(itertools.product(range(4), range(5), range(6)))).T.astype(np.int32)
    apart = np.square(x[:, None].astype(float) - rvq_np.decode(every, books)).sum(axis=2)
    items, places = linear_sum_assignment(apart)
    best = apart[items, places].sum()
    mine = np.square(x - rvq_np.decode(found, books), dtype=float).sum()
    assert best <= mine <= 1.12 * best


@pytest.mark.parametrize("capacity", [1, 2])
def test_the_last_place_is_found(capacity):
    x, books = shorter((8, 8, 8), 512 * capacity)
    found = assign(x, books, capacity=capacity)
    assert not len(found.unplaced)
    assert (np.unique(found.codes, axis=1, return_counts=True)[1] == capacity).all()
    with pytest.raises(ParameterError, match="1 are too many"):
        assign(np.concatenate([x, x[:1]]), books, capacity=capacity)


@pytest.mark.parametrize("numba", [True, False])
def test_published_codes_above_the_sizes_take_no_place(numba):
    x, books = shorter((2, 2), 1)
    found = np.full((2, 1), -1, np.int32)
    prior = np.array([[0, 0, 1, 2, 0, 1], [0, 1, 1, 0, 5, 7]], np.int32)
    with paths.inside_of(numba):
        codes = rvq_np.encode(x, books)
        left = _free.place(x.__getitem__, books, codes, found, np.arange(1), 1, prior)
    assert not len(left)
    assert found[:, 0].tolist() == [1, 0]


def test_nothing_depends_on_threads_or_blocks():
    x, _ = shorter((1,), 3000)
    x[1500:] = x[:1500] + np.float32(0.01)
    states = fit(x, 3, (8, 16, 32), 3, 0)
    books = rvq_np.train.codebooks_of(states)
    with paths.threads(1):
        expected = assign(x, books)
    assert not len(expected.unplaced)
    with paths.threads(2), paths.patched((_free, "ROWS", 7)):
        found = assign(x, books)
    assert (found.codes == expected.codes).all()
    assert found.added == expected.added
