"""From embeddings and codebooks to unique IDs in one call."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rvq_np
from rvq_np.errors import NonFiniteError, ParameterError, ShapeError
from rvq_np.semantic_ids import assign, stats
from rvq_np.train import codebooks_of, fit


def fitted(x, sizes, seed=0):
    return codebooks_of(fit(x, len(sizes), sizes, 5, seed))


@pytest.mark.parametrize("capacity", [1, 3])
def test_nearly_all_ids_may_be_taken(rng, capacity):
    """The last items find an ID far away, and it is a free one."""
    x = rng.standard_normal((120, 4)).astype(np.float32)
    books = rvq_np.Codebooks(rng.standard_normal((2, 8, 4)).astype(np.float32))
    items = x[: 64 * capacity - 1]
    found = assign(items, books, capacity=capacity)
    assert not len(found.unplaced)
    held = np.unique(found.codes, axis=1, return_counts=True)[1]
    assert held.max() <= capacity
    greedy = rvq_np.encode(items, books)
    same = (found.codes == greedy).all(axis=0)
    assert found.moved.tolist() == np.flatnonzero(~same).tolist()


def squared(x, codes, books):
    return np.square(x - rvq_np.decode(codes, books), dtype=float).sum(axis=1)


def test_what_moving_adds_is_what_is_reported(rng):
    x = rng.standard_normal((400, 6)).astype(np.float32)
    books = fitted(x, [8, 16, 16])
    found = assign(x, books)
    more = squared(x, found.codes, books) - squared(x, rvq_np.encode(x, books), books)
    assert found.added == pytest.approx(more.sum(), rel=1e-4)
    assert stats(found.codes, books.sizes).unique == 400


@given(st.integers(0, 3), st.integers(1, 40), st.integers(1, 2))
def test_published_ids_never_move_and_are_never_given_again(seed, new, capacity):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((60 + new, 3)).astype(np.float32)
    books = rvq_np.Codebooks(rng.standard_normal((2, 12, 3)).astype(np.float32))
    first = assign(x[:60], books, capacity=capacity).codes
    added = assign(x[60:], books, capacity=capacity, prior=first).codes
    every = np.concatenate([first, added], axis=1)
    assert np.unique(every, axis=1, return_counts=True)[1].max() <= capacity
    suffixed = assign(x[:60], books, suffix=True).codes
    more = assign(x[60:], books, suffix=True, prior=suffixed).codes
    both = np.concatenate([suffixed, more], axis=1)
    assert np.unique(both, axis=1).shape[1] == 60 + new
    assert (both[:2] == rvq_np.encode(x, books)).all()


def test_blocks_do_not_show(rng, monkeypatch):
    import sys

    module = sys.modules["rvq_np.semantic_ids.assign"]
    x = rng.standard_normal((150, 4)).astype(np.float32)
    books = rvq_np.Codebooks(rng.standard_normal((2, 20, 4)).astype(np.float32))
    whole = assign(x, books)
    monkeypatch.setattr(module, "BLOCK", 40)
    assert (assign(x, books).codes == whole.codes).all()


def normalized(books):
    return rvq_np.Normalized([rvq_np.Stage(each) for each in books])


@pytest.mark.parametrize("n_items", [30, 399])
def test_items_of_normalized_residuals_get_ids_of_their_own(rng, monkeypatch, n_items):
    import sys

    x = rng.standard_normal((n_items, 4)).astype(np.float32)
    books = normalized(rng.standard_normal((2, 20, 4)).astype(np.float32))
    found = assign(x, books)
    assert not len(found.unplaced)
    assert np.unique(found.codes, axis=1).shape[1] == n_items
    before = rvq_np.encode(x, books)

    def last(codes):
        rows = x / np.linalg.norm(x, axis=1, keepdims=True) - books.parts[0][0].codebook[codes[0]]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return np.square(rows - books.parts[1][0].codebook[codes[1]]).sum(axis=1)

    assert found.added == pytest.approx((last(found.codes) - last(before)).sum(), rel=1e-4)
    monkeypatch.setattr(sys.modules["rvq_np.semantic_ids.assign"], "HELD", 1)  # one by one
    again = assign(x, books)
    assert np.unique(again.codes, axis=1).shape[1] == n_items


def test_items_that_are_all_alike_get_ids_of_their_own(rng):
    x = np.ones((16, 2), np.float32)
    books = rng.standard_normal((2, 4, 2)).astype(np.float32)
    for each in (rvq_np.Codebooks(books), normalized(books)):
        found = assign(x, each)
        assert not len(found.unplaced)
        assert np.unique(found.codes, axis=1).shape[1] == 16


BOOKS = np.arange(8, dtype=np.float32).reshape(2, 2, 2)


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: assign(np.zeros((9, 2), np.float32), BOOKS, capacity=2), ParameterError,
     "there are 9 items, but IDs of the sizes 2,2 with a capacity of 2 have 8 places; 1 are too "
     "many. Sizes 4,2 are enough, or a suffix"),
    (lambda: assign(np.zeros((2, 2), np.float32), BOOKS, prior=np.zeros((2, 3), int)),
     ParameterError, "there are 5 items"),
    (lambda: assign(np.array([[0, 0], [np.nan, 0]]), BOOKS), NonFiniteError, "row 1 of x holds"),
    (lambda: assign(np.zeros(2), BOOKS), ShapeError, r"x has shape \(2,\); expected \(N, 2\)"),
    (lambda: assign(np.zeros((1, 2)), BOOKS, capacity=0), ParameterError, "capacity is 0"),
])  # fmt: skip
def test_what_gets_no_ids_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_a_stage_may_have_a_size_of_its_own(rng, tmp_path):
    x = rng.standard_normal((300, 5)).astype(np.float32)
    states = fit(x, 3, [4, 8, 2], 3, 0)
    assert [each.codebook.shape for each in states] == [(4, 5), (8, 5), (2, 5)]
    same = fit(x, 2, [8, 8], 3, 0)
    for one, other in zip(same, fit(x, 2, 8, 3, 0), strict=True):
        assert (one.codebook == other.codebook).all()

    class Stopped(Exception):
        pass

    def stop(info):
        if info.stage == 2:
            raise Stopped

    path = tmp_path / "resume"
    with pytest.raises(Stopped):
        fit(x, 3, [4, 8, 2], 3, 0, callback=stop, checkpoint=path)
    resumed = fit(x, 3, [4, 8, 2], 3, 0, checkpoint=path)
    for one, other in zip(resumed, states, strict=True):
        assert (one.codebook == other.codebook).all()
    with pytest.raises(
        ParameterError, match=r"size is \[4, 8\]; expected a whole number from 1, or 3"
    ):
        fit(x, 3, [4, 8], 3, 0)
    with pytest.raises(ParameterError, match=r"size is \[4, 0\]; expected a whole number from 1"):
        fit(x, 2, [4, 0], 3, 0)
