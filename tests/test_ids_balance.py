"""A stage under capacities: never above, near the best there is, the same on every path."""

import collections

import numpy as np
import pytest
from helpers import paths
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

import rvq_np
from rvq_np.errors import NonFiniteError, ParameterError, ShapeError
from rvq_np.semantic_ids import balance, fit_balanced


@st.composite
def problems(draw):
    """Small whole numbers, so that codewords repeat and distances tie."""
    size, dim = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    numbers = st.integers(-3, 3)
    x = draw(hnp.arrays(np.float32, (draw(st.integers(0, 14)), dim), elements=numbers))
    codebook = draw(hnp.arrays(np.float32, (size, dim), elements=numbers))
    least = max(1, -(-len(x) // size))
    return x, codebook, draw(st.integers(least, least + 3))


@given(problems(), st.sampled_from([0.01, 0.3]))
def test_the_error_is_near_the_least_there_is(problem, epsilon):
    x, codebook, capacity = problem
    found = balance(x, codebook[None], capacity, epsilon=epsilon)
    assert found.counts.max(initial=0) <= capacity
    assert (found.counts == np.bincount(found.codes[0], minlength=len(codebook))).all()
    if not len(x):
        return
    squares = np.square(x[:, None].astype(float) - codebook).sum(axis=2)
    assert found.error == pytest.approx(squares[np.arange(len(x)), found.codes[0]].mean())
    free = squares.min(axis=1).mean()
    assert found.free_error == pytest.approx(free)
    items, places = linear_sum_assignment(np.repeat(squares, capacity, axis=1))
    best = squares[items, places // capacity].mean()
    # Offers grow coarser after 20 an item; six codewords are known all, so never by looking.
    assert best - 1e-9 <= found.error <= best + 4 * epsilon * (free or squares.max() or 1) + 1e-9


def auctioned(squares, capacity, epsilon):
    """Return who gets which codeword, with sorted lists instead of heaps; exact distances."""
    n_items, size = squares.shape
    grain = epsilon * (squares.min(axis=1).mean() or squares.max() or 1.0)
    queue, prices = collections.deque(range(n_items)), [0.0] * size
    holders = [[] for _ in range(size)]
    offers = 0
    while queue:
        item = queue.popleft()
        values = sorted((squares[item, k] + prices[k], k) for k in range(size))
        value, best = values[0]
        second = values[1][0] if size > 1 else np.inf
        holders[best] = sorted([*holders[best], (prices[best] + (second - value) + grain, -item)])
        if len(holders[best]) > capacity:
            queue.append(-holders[best].pop(0)[1])
        if len(holders[best]) == capacity:
            root = np.float32(np.sqrt(holders[best][0][0]))
            if float(root) ** 2 < holders[best][0][0]:
                root = np.nextafter(root, np.float32(np.inf))
            prices[best] = float(root) ** 2
        offers += 1
        if offers % (20 * n_items) == 0:
            grain *= 2
    return {-item: k for k, held in enumerate(holders) for _, item in held}


@given(problems(), st.sampled_from([0.01, 0.3]))
def test_the_auction_is_that_of_its_definition(problem, epsilon):
    x, codebook, capacity = problem
    if len(x) == 0:
        return
    squares = np.square(x[:, None].astype(float) - codebook).sum(axis=2)
    expected = auctioned(squares, min(capacity, len(x)), epsilon)
    found = balance(x, codebook[None], capacity, epsilon=epsilon)
    assert found.codes[0].tolist() == [expected[item] for item in range(len(x))]


@given(problems())
def test_every_path_assigns_the_same(problem):
    x, codebook, capacity = problem
    expected = balance(x, codebook[None], capacity)
    for changes in (
        [(paths.compiled, "ROWS", 1)],
        [(balance_module(), "NEAR", 2)],
        [(balance_module(), "NEAR", 2), (balance_module(), "ROWS", 1)],
    ):
        with paths.patched(*changes):
            found = balance(x, codebook[None], capacity)
            with paths.without_numba():
                plain = balance(x, codebook[None], capacity)
        assert (plain.codes == found.codes).all()
        assert found.counts.max(initial=0) <= capacity
        if changes[0][1] == "ROWS":
            assert (found.codes == expected.codes).all()


def balance_module():
    import sys

    return sys.modules["rvq_np.semantic_ids.balance"]


def test_with_room_for_all_the_codes_are_those_of_encode(rng):
    x = rng.standard_normal((300, 6)).astype(np.float32)
    books = rvq_np.Codebooks(rng.standard_normal((3, 20, 6)).astype(np.float32))
    found = balance(x, books, 300)
    assert (found.codes == rvq_np.encode(x, books)).all()
    assert found.error == found.free_error


@pytest.mark.parametrize("stage", [0, 1, -1])
def test_any_stage_may_be_balanced(rng, stage):
    x = rng.standard_normal((200, 6)).astype(np.float32)
    books = rvq_np.Codebooks(rng.standard_normal((3, 20, 6)).astype(np.float32))
    found = balance(x, books, 12, stage=stage)
    place = stage % 3
    greedy = rvq_np.encode(x, books)
    assert (found.codes[:place] == greedy[:place]).all()
    assert (
        np.bincount(found.codes[place], minlength=20).max() <= 12 < np.bincount(greedy[place]).max()
    )
    left = x - rvq_np.decode(found.codes[: place + 1], books[: place + 1])
    assert np.square(left, dtype=float).sum(axis=1).mean() == pytest.approx(found.error, rel=1e-5)
    if place < 2:  # what follows is the nearest
        left = x
        for q in range(place + 1):
            left = left - books[q].codebook[found.codes[q]]
        assert (found.codes[place + 1 :] == rvq_np.encode(left, books[place + 1 :])).all()


def test_blocks_do_not_show(rng, monkeypatch):
    x = rng.standard_normal((150, 4)).astype(np.float32)
    books = rng.standard_normal((2, 30, 4)).astype(np.float32)
    whole = balance(x, books, 6)
    monkeypatch.setattr(balance_module(), "BLOCK", 40)
    again = balance(x, books, 6)
    assert (again.codes == whole.codes).all()
    assert again.error == pytest.approx(whole.error)


def test_training_a_balanced_stage_lowers_its_error(rng):
    x = np.square(rng.standard_normal((400, 4))).astype(np.float32)
    books = rvq_np.Codebooks(rng.standard_normal((2, 16, 4)).astype(np.float32))
    before = balance(x, books, 25)
    trained = fit_balanced(x, books, 25, iterations=3)
    assert trained[0] == books[0]
    assert balance(x, trained, 25).error < 0.9 * before.error


def test_of_all_trained_codebooks_those_with_the_least_error_are_returned(rng, monkeypatch):
    x = rng.standard_normal((60, 2)).astype(np.float32)
    books = rvq_np.Codebooks(rng.standard_normal((2, 4, 2)).astype(np.float32))
    once = fit_balanced(x, books, iterations=1)
    assert once != books
    market = balance_module()._Market
    real, errors = market.run, iter([1.0, 0.5, 0.7, 0.6])
    monkeypatch.setattr(
        market, "run", lambda self, grain: (real(self, grain)[0], next(errors), 0.0)
    )
    assert fit_balanced(x, books, iterations=3) == once
    assert next(errors, None) is None


X, BOOKS = np.zeros((4, 2), np.float32), np.zeros((1, 2, 2), np.float32)
MAP = rvq_np.Linear(np.eye(2), np.zeros(2))
PROJECTED = rvq_np.Codebooks([rvq_np.Stage(BOOKS[0], MAP, MAP)])


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: balance(X, BOOKS, 1), ParameterError,
     "capacity is 1 for 2 codewords and 4 items; expected at least 2"),
    (lambda: balance(X, BOOKS, stage=1), ParameterError, "stage is 1; expected .* from -1 to 0"),
    (lambda: balance(X[0], BOOKS), ShapeError, r"x has shape \(2,\); expected \(N, 2\)"),
    (lambda: balance(X, PROJECTED), ParameterError, "have projections; expected none"),
    (lambda: balance(X, BOOKS, epsilon=0), ParameterError, "epsilon is 0; expected"),
    (lambda: balance(X + np.inf, BOOKS), NonFiniteError, "row 0 of x holds NaN or infinity"),
    (lambda: fit_balanced(X, BOOKS, iterations=-1), ParameterError, "iterations is -1"),
])  # fmt: skip
def test_what_cannot_be_balanced_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()
