"""Unique IDs: every answer is that of a definition in plain Python, and promises hold."""

import collections
import itertools

import numpy as np
import pytest
from helpers import paths
from hypothesis import given
from hypothesis import strategies as st

from rvq_np.errors import CodeRangeError, DtypeError, NonFiniteError, ParameterError, ShapeError
from rvq_np.semantic_ids import Candidates, _codes, resolve


@st.composite
def cases(draw):
    """Few codewords, so that IDs are crowded; small whole distances, so that many tie."""
    n_q = draw(st.integers(1, 2))
    n_items, n_prior = draw(st.sampled_from([0, 1, 3, 8, 12])), draw(st.sampled_from([0, 1, 4]))
    code = draw(
        st.sampled_from(
            [
                st.just(0),
                st.integers(0, 1),
                st.integers(0, 3),
                st.sampled_from([0, 1, 65536, 70000]),
            ]
        )
    )  # above 2^16: two digits a code

    def columns(count):
        drawn = draw(st.lists(st.tuples(*[code] * n_q), min_size=count, max_size=count))
        return np.array(drawn, np.int32).reshape(count, n_q).T

    codes, prior = columns(n_items), columns(n_prior)
    if not draw(st.booleans()):
        return codes, prior, None, draw(st.integers(1, 3))
    k = draw(st.integers(1, 4))
    items = np.array(draw(st.permutations(range(n_items))), np.int64)
    items = items[: draw(st.sampled_from([n_items, n_items, n_items // 2]))]
    there = np.array([columns(len(items)) for _ in range(k)]).reshape(k, n_q, len(items))
    distances = np.array(
        draw(st.lists(st.integers(0, 4), min_size=k * len(items), max_size=k * len(items))), float
    ).reshape(k, len(items))
    distances.sort(axis=0)
    if len(items) and draw(st.booleans()):
        there[0] = codes[:, items]
    if draw(st.booleans()):
        there[-1] = -1
    return codes, prior, Candidates(there, distances, items), draw(st.integers(1, 3))


def defined(codes, prior, candidates, capacity):
    """Return the ID of each item, None for one that could not be placed; the definition."""
    own = [tuple(column) for column in codes.T.tolist()]
    held = collections.Counter(tuple(column) for column in prior.T.tolist())
    options, base = {item: [] for item in range(len(own))}, {}
    if candidates is not None:
        for column, item in enumerate(candidates.items.tolist()):
            all_of_it = [
                (float(candidates.distances[place, column]), place, tuple(one[:, column].tolist()))
                for place, one in enumerate(candidates.codes) if one[0, column] >= 0
            ]  # fmt: skip
            mine = [distance for distance, _, each in all_of_it if each == own[item]]
            if all_of_it:
                base[item] = min(mine or [distance for distance, _, _ in all_of_it])
            options[item] = [each for each in all_of_it if each[2] != own[item]]

    def loss(item):
        return min((d for d, _, _ in options[item]), default=np.inf) - base.get(item, 0)

    placed, leaving = {}, []
    members = collections.defaultdict(list)
    for item, each in enumerate(own):
        members[each].append(item)
    for each, group in members.items():
        free = max(0, capacity - held[each])
        if len(group) > free:
            group = sorted(group, key=lambda item: (-loss(item), item))
        for item in group[:free]:
            placed[item] = each
        leaving += group[free:]
    held.update(placed.values())
    pairs = sorted(
        (distance - base[item], item, place, each)
        for item in leaving for distance, place, each in options[item]
    )  # fmt: skip
    added = 0.0
    for cost, item, _, each in pairs:
        if item not in placed and held[each] < capacity:
            placed[item] = each
            held[each] += 1
            added += cost
    return [placed.get(item) for item in range(len(own))], added


@given(cases())
def test_who_moves_where_is_as_defined(case):
    codes, prior, candidates, capacity = case
    expected, added = defined(*case)
    for numba in (True, False):
        with paths.inside_of(numba):
            found = resolve(codes, candidates, capacity=capacity, prior=prior)
        ids = [tuple(column) for column in found.codes.T.tolist()]
        nothing = (-1,) * len(codes)
        assert ids == [nothing if each is None else each for each in expected]
        assert found.unplaced.tolist() == [i for i, each in enumerate(expected) if each is None]
        moved = [i for i, each in enumerate(expected)
                 if each is not None and each != tuple(codes[:, i].tolist())]  # fmt: skip
        assert found.moved.tolist() == moved
        assert found.added == pytest.approx(added)


@given(cases())
def test_no_id_has_more_items_than_its_capacity(case):
    codes, prior, candidates, capacity = case
    found = resolve(codes, candidates, capacity=capacity, prior=prior)
    published = collections.Counter(map(tuple, prior.T.tolist()))
    held = published + collections.Counter(
        tuple(column) for column in found.codes.T.tolist() if column[0] >= 0
    )
    for each, count in held.items():
        assert count <= max(capacity, published[each])


@given(cases())
def test_with_a_suffix_every_id_is_unique_and_published_ones_stay(case):
    codes, prior, candidates, capacity = case
    nothing = resolve(np.empty((len(codes), 0), np.int32), suffix=True)
    assert nothing.codes.shape == (len(codes) + 1, 0)
    first = resolve(prior, capacity=capacity, suffix=True).codes  # published before
    found = resolve(codes, candidates, capacity=capacity, suffix=True, prior=first)
    every = [tuple(column) for column in np.concatenate([first, found.codes], axis=1).T.tolist()]
    assert len(set(every)) == len(every)
    assert not len(found.unplaced)
    groups = collections.defaultdict(list)
    for *prefix, suffix in every:
        groups[tuple(prefix)].append(suffix)
    for suffixes in groups.values():  # in the order of the items, without gaps
        assert suffixes == list(range(len(suffixes)))
    without = resolve(codes, candidates, capacity=capacity, prior=prior).codes
    there = without[0] >= 0
    assert (found.codes[:-1, there] == without[:, there]).all()
    assert (found.codes[:-1, ~there] == codes[:, ~there]).all()


@given(st.integers(0, 8), st.integers(0, 8), st.integers(1, 3))
def test_new_suffixes_go_on_behind_the_largest_published_one(before, gap, new):
    published = np.array([[3, 3], [0, before + gap]])
    found = resolve(np.full((1, new), 3), suffix=True, prior=published).codes
    assert found[1].tolist() == list(range(before + gap + 1, before + gap + 1 + new))


@given(cases())
def test_published_ids_may_be_resolved_again_without_a_change(case):
    codes, _, candidates, capacity = case
    once = resolve(codes, candidates, capacity=capacity)
    there = once.codes[0] >= 0
    again = resolve(once.codes[:, there], capacity=capacity)
    assert (again.codes == once.codes[:, there]).all()
    assert not len(again.moved) + len(again.unplaced)


def test_the_items_that_would_lose_most_stay():
    codes = np.zeros((1, 3), int)
    there = np.array([[[0, 0, 0]], [[1, 2, 3]]])
    found = resolve(codes, Candidates(there, np.array([[1.0, 1, 1], [2, 9, 3]])))
    assert found.codes.tolist() == [[1, 0, 3]]
    assert found.added == 3.0


def test_the_cheapest_move_is_the_first():
    """Item 1 gets the ID that both want most, though item 0 comes before it."""
    codes = np.zeros((1, 3), int)
    there = np.array([[[0, 0, 0]], [[1, 1, 9]], [[2, 2, 9]]])
    distances = np.array([[0.0, 0, 0], [5, 1, 99], [6, 7, 99]])
    found = resolve(codes, Candidates(there, distances))
    assert found.codes.tolist() == [[2, 1, 0]]
    assert found.added == 7.0


@pytest.mark.parametrize("n_q", [1, 2, 5])
def test_the_order_of_codes_is_that_of_a_stable_sort(rng, n_q):
    codes = rng.choice([0, 3, 65536, 65537, 2**31 - 2], (n_q, 200)).astype(np.int32)
    expected = sorted(range(200), key=lambda item: tuple(codes[:, item]))
    assert _codes.order(codes).tolist() == expected


def test_keys_are_equal_for_equal_ids_only_also_where_no_integer_holds_them_all(rng):
    codes = rng.integers(0, 2, (6, 300)).astype(np.int32) * (2**31 - 2)
    left, right = _codes.keys(codes[:, :200], codes[:, 200:])
    same = {}
    for key, column in itertools.chain(zip(left, codes[:, :200].T, strict=True),
                                       zip(right, codes[:, 200:].T, strict=True)):  # fmt: skip
        assert same.setdefault(int(key), tuple(column)) == tuple(column)
    assert len(same) == len({tuple(column) for column in codes.T})


GOOD = np.zeros((2, 3), np.int32)
THERE = Candidates(np.zeros((1, 2, 3), int), np.zeros((1, 3)))


@pytest.mark.parametrize(("arguments", "error", "text"), [
    (dict(codes=np.zeros(3, int)), ShapeError, r"codes has shape \(3,\); expected \(Q, N\)"),
    (dict(codes=np.zeros((2, 3))), DtypeError, "codes has dtype float64; expected integers"),
    (dict(codes=np.array([[0, -1]])), CodeRangeError, "holds -1 at stage 0, item 1"),
    (dict(codes=np.array([[2**31]])), CodeRangeError, "holds 2147483648 at stage 0, item 0"),
    (dict(codes=GOOD, capacity=0), ParameterError, "capacity is 0; expected a whole number >= 1"),
    (dict(codes=GOOD, prior=np.zeros((3, 2), int)), ShapeError, "prior has 3 rows; expected 2"),
    (dict(codes=GOOD, prior=np.zeros((2, 2), int), suffix=True), ShapeError,
     "expected 3, one per stage, the suffix among them"),
    (dict(codes=GOOD, candidates=GOOD), ParameterError, "expected a Candidates"),
    (dict(codes=GOOD, candidates=THERE._replace(codes=np.zeros((1, 3, 3), int))), ShapeError,
     r"candidates.codes has shape \(1, 3, 3\) for 3 items; expected \(k, 2, 3\)"),
    (dict(codes=GOOD, candidates=THERE._replace(distances=np.zeros((2, 3)))), ShapeError,
     r"candidates.distances has shape \(2, 3\); expected \(1, 3\)"),
    (dict(codes=GOOD, candidates=THERE._replace(distances=np.array([[0, np.nan, 0]]))),
     NonFiniteError, "candidate 0 of item 1 has the distance nan"),
    (dict(codes=GOOD, candidates=THERE._replace(items=[0, 1, 1])), ShapeError, "not distinct"),
    (dict(codes=GOOD, candidates=THERE._replace(items=[0, 1, 3])), ShapeError, "from 0 to 2"),
])  # fmt: skip
def test_what_cannot_be_resolved_is_named(arguments, error, text):
    with pytest.raises(error, match=text):
        resolve(**arguments)
