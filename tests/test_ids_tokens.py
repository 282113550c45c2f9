"""IDs as integers, as text, as tokens of a vocabulary, and back; statistics."""

import collections
import copy
import pickle
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvq_np.errors import CodeRangeError, DtypeError, LevelsError, ParameterError, ShapeError
from rvq_np.semantic_ids import (
    Vocabulary,
    from_tokens,
    pack,
    shared_prefixes,
    stats,
    to_tokens,
    unpack,
)


@st.composite
def ids(draw, most=2**20):
    n_q = draw(st.integers(1, 4))
    sizes = [draw(st.integers(1, most)) for _ in range(n_q)]
    columns = draw(st.lists(st.tuples(*[st.integers(0, size - 1) for size in sizes]), max_size=8))
    return np.array(columns, np.int64).reshape(len(columns), n_q).T, sizes


@given(ids(2**15), st.sampled_from([np.int64, np.uint64]), st.integers(-5, 2**40))
def test_packed_ids_are_digits_and_come_back(case, dtype, offset):
    codes, sizes = case
    offset = max(offset, 0) if dtype is np.uint64 else offset
    packed = pack(codes, sizes, dtype=dtype, offset=offset)
    assert packed.dtype == dtype
    for number, column in zip(packed.tolist(), codes.T.tolist(), strict=True):
        expected = 0
        for code, size in zip(column, sizes, strict=True):
            expected = expected * size + code
        assert number == expected + offset
    assert (unpack(packed, sizes, offset=offset) == codes).all()


def test_64_bits_without_a_sign_hold_twice_as_many_ids():
    sizes = [2**31 - 1, 2**31 - 1, 4]
    top = np.array([[size - 1] for size in sizes])
    with pytest.raises(ParameterError, match="which int64 cannot hold"):
        pack(top, sizes)
    packed = pack(top, sizes, dtype=np.uint64)
    assert int(packed[0]) == (2**31 - 1) ** 2 * 4 - 1
    assert (unpack(packed, sizes) == top).all()
    with pytest.raises(ParameterError, match="which uint64 cannot hold"):
        pack(top, [*sizes[:2], 8], dtype=np.uint64)
    assert pack(np.array([[2]]), [3], offset=2**63 - 3)[0] == 2**63 - 1


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: pack([[3]], [3]), CodeRangeError, "code 3 of item 0 at stage 0 is out of range"),
    (lambda: pack([[3]], [3, 4]), LevelsError, "got 2 sizes; expected 1"),
    (lambda: pack([[0]], [3], dtype=np.int32), ParameterError, "dtype is int32"),
    (lambda: pack([[0]], [0]), ParameterError, "sizes is 0; expected a whole number from 1"),
    (lambda: unpack([7], [3, 2]), CodeRangeError, "7 of item 0 is no ID of the sizes"),
    (lambda: unpack([0, 9], [3, 2], offset=1), CodeRangeError, "0 of item 0 .* expected 1 to 6"),
    (lambda: unpack([[7]], [8]), ShapeError, r"shape \(1, 1\); expected \(N,\)"),
    (lambda: unpack([0.5], [8]), DtypeError, "packed has dtype float64"),
    (lambda: to_tokens([[1]], "<x_{code}>"), ParameterError, "the template is '<x_{code}>'"),
    (lambda: to_tokens([[1]], "<{stage}{code}>"), ParameterError, "with text around and between"),
    (lambda: to_tokens([[1]], "{stage}_{code}"), ParameterError, "with text around and between"),
    (lambda: to_tokens([[1]], "<{stage}_{code}}>"), ParameterError, "the template is"),
    (lambda: to_tokens([[1]], 7), ParameterError, "form is 7; expected a str"),
    (lambda: to_tokens([[1]], Vocabulary([4]), end="x"), ParameterError, "end are for text"),
    (lambda: to_tokens([[4]], Vocabulary([4])), CodeRangeError, "code 4 of item 0 at stage 0"),
    (lambda: from_tokens(["<b_1>"]), CodeRangeError, "'<b_1>' of item 0 is no ID of the form"),
    (lambda: from_tokens(["<a_1><b_1>", "<a_1>"]), LevelsError, "item 1 has 1 codes; expected 2"),
    (lambda: from_tokens(["<a_01>"]), CodeRangeError, "'<a_01>' of item 0"),
    (lambda: from_tokens(["<a_99999999999>"]), CodeRangeError, "is no ID"),
    (lambda: from_tokens(["<a_1>"], end="!"), CodeRangeError, "between None and '!'"),
    (lambda: from_tokens([[1, 2]], Vocabulary([4])), LevelsError, r"expected integers \(N, 1\)\."),
    (lambda: from_tokens([[1]], Vocabulary([4], first=2, begin=0)), LevelsError,
     r"expected integers \(N, 2\), the token to begin among them"),
    (lambda: from_tokens([[1]], Vocabulary([4], first=2, begin=0, end=1)), LevelsError,
     r"expected integers \(N, 3\), the tokens to begin and end among them"),
    (lambda: from_tokens([[4]], Vocabulary([4])), CodeRangeError, r"the tokens \[4\] of item 0"),
    (lambda: from_tokens([[8, 0]], Vocabulary([4], begin=9)), CodeRangeError, "are no ID"),
    (lambda: Vocabulary([4], begin=3), ParameterError, "token 3 is used 2 times"),
    (lambda: Vocabulary([4], tables=[[0, 1]]), ShapeError, r"lengths \(4,\)"),
    (lambda: Vocabulary([2], tables=[[0, -1]]), ParameterError, "a token is -1"),
    (lambda: stats([[0, 1]], [1]), CodeRangeError, "code 1 of item 1"),
    (lambda: shared_prefixes([[0, 1]], [[1], [2]]), ShapeError, "neighbours reach from 1 to 2"),
    (lambda: shared_prefixes([[0, 1]], [[1]]), ShapeError, r"shape \(1, 1\); expected integers"),
])  # fmt: skip
def test_what_is_no_id_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()


TEMPLATES = ["<{stage}_{code}>", "<item_{stage}_{code}>", "[{code}|{number}]", "C{number}-{code} "]


@given(ids(), st.sampled_from(TEMPLATES), st.sampled_from([None, "<|begin|>"]),
       st.sampled_from([None, "<|end|>"]))  # fmt: skip
def test_text_comes_back(case, template, begin, end):
    codes, _ = case
    codes = codes % 1000
    tokens = to_tokens(codes, template, begin=begin, end=end)
    for each, column in zip(tokens, codes.T.tolist(), strict=True):
        expected = [
            template.format(stage=string.ascii_lowercase[q], number=q, code=code)
            for q, code in enumerate(column)
        ]
        before, after = [begin] * (begin is not None), [end] * (end is not None)
        assert each == [*before, *expected, *after]
    if codes.shape[1]:
        for given_tokens in (tokens, ["".join(each) for each in tokens]):
            assert (from_tokens(given_tokens, template, begin=begin, end=end) == codes).all()


def test_stages_after_z_have_two_letters():
    tokens = to_tokens(np.zeros((28, 1), int))[0]
    assert tokens[25:] == ["<z_0>", "<aa_0>", "<ab_0>"]
    assert from_tokens([tokens]).shape == (28, 1)


@given(ids(300), st.integers(0, 1000), st.booleans(), st.booleans())
def test_tokens_of_a_vocabulary_come_back(case, first, begins, ends):
    codes, sizes = case
    last = first + sum(sizes)
    vocabulary = Vocabulary(
        sizes, first, None, last if begins else None, last + 1 if ends else None
    )
    tokens = to_tokens(codes, vocabulary)
    assert tokens.shape == (codes.shape[1], len(sizes) + begins + ends)
    assert (from_tokens(tokens, vocabulary) == codes).all()
    shown = tokens[:, 1 if begins else 0 :][:, : len(sizes)]
    expected = codes + first + np.cumsum([0, *sizes[:-1]])[:, None]
    assert (shown == expected.T).all()
    assert len({tuple(each) for each in tokens.tolist()}) == len(set(map(tuple, codes.T.tolist())))
    for other in (copy.deepcopy(vocabulary), pickle.loads(pickle.dumps(vocabulary))):
        assert other == vocabulary
        assert hash(other) == hash(vocabulary)
    assert Vocabulary(sizes, first + 1) != Vocabulary(sizes, first)


class Tokenizer:
    def __init__(self, known):
        self.get_vocab = lambda: known


def test_a_vocabulary_of_a_tokenizer():
    known = {"<a_0>": 7, "<a_1>": 3, "<b_0>": 0, "</s>": 1}
    found = Vocabulary.of(Tokenizer(known), [2, 1], end="</s>")
    assert to_tokens([[1, 0], [0, 0]], found).tolist() == [[3, 0, 1], [7, 0, 1]]
    with pytest.raises(ParameterError, match="lacks 1 of 4 tokens, '<b_1>' the first"):
        Vocabulary.of(Tokenizer(known), [2, 2])


@given(ids(6))
def test_statistics_are_counts(case):
    codes, sizes = case
    found = stats(codes, sizes)
    columns = [tuple(each) for each in codes.T.tolist()]
    n = len(columns)
    buckets = sorted(collections.Counter(columns).values())
    assert (found.items, found.unique) == (n, len(buckets))
    assert found.singletons == sum(each == 1 for each in buckets)
    assert found.largest_bucket == max(buckets, default=0)
    for q in range(len(sizes)):
        distinct = len({each[: q + 1] for each in columns})
        assert found.collision_rate[q] == pytest.approx(1 - distinct / n if n else 0)
        counts = collections.Counter(codes[q].tolist())
        assert found.coverage[q] == pytest.approx(len(counts) / sizes[q])
        assert found.unused[q] == sizes[q] - len(counts)
        entropy = -sum(each / n * np.log2(each / n) for each in counts.values())
        assert found.perplexity[q] == pytest.approx(2**entropy if n else 0)
    entropy = -sum(each / n * np.log2(each / n) for each in buckets)
    assert found.entropy_ratio == pytest.approx(entropy / np.log2(n) if n > 1 else 1)
    apart = sum(abs(a - b) for a in buckets for b in buckets)
    mean = n / len(buckets) if n else 1
    assert found.gini == pytest.approx(apart / (2 * max(1, len(buckets)) ** 2 * mean))
    assert f"{found.unique} (" in str(found)
    assert found.to_dict()["items"] == n


@given(ids(3), st.data())
def test_neighbours_share_prefixes(case, data):
    codes, _ = case
    n = codes.shape[1]
    near = np.array([data.draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=2))
                     for _ in range(n)]).reshape(n, 2)  # fmt: skip
    near = near.astype(int)
    columns = codes.T.tolist()
    for q, share in enumerate(shared_prefixes(codes, near)):
        same = [columns[i][: q + 1] == columns[j][: q + 1] for i in range(n) for j in near[i]]
        assert share == pytest.approx(np.mean(same) if same else 0)
