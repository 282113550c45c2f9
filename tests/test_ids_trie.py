"""The trie: what may follow, who has an ID; equal to sets of tuples in plain Python."""

import collections
import json

import numpy as np
import pytest
from helpers import paths
from hypothesis import given
from hypothesis import strategies as st

from rvq_np.errors import (
    CodeRangeError,
    InputFileError,
    LevelsError,
    ParameterError,
    ShapeError,
)
from rvq_np.files import safetensors
from rvq_np.semantic_ids import Trie, Vocabulary


@st.composite
def catalogues(draw):
    """IDs of few codes, so that they share prefixes, or of codes beyond a byte."""
    n_q = draw(st.integers(1, 4))
    tops = [draw(st.sampled_from([0, 1, 3, 300, 70000])) for _ in range(n_q)]
    items = draw(st.lists(st.tuples(*[st.integers(0, top) for top in tops]), min_size=1,
                          max_size=20))  # fmt: skip
    extra = draw(st.integers(0, 2))
    return np.array(items).T, [top + 1 + extra for top in tops]


def following(ids, prefix):
    return sorted({each[len(prefix)] for each in ids if each[: len(prefix)] == tuple(prefix)})


@given(catalogues(), st.data())
def test_what_may_follow_and_who_has_an_id(case, data):
    codes, sizes = case
    trie = Trie(codes, sizes)
    ids = [tuple(column) for column in codes.T.tolist()]
    members = collections.defaultdict(list)
    for item, each in enumerate(ids):
        members[each].append(item)
    assert (trie.n_items, trie.n_ids, trie.sizes) == (len(ids), len(members), tuple(sizes))
    for each, items in members.items():
        assert trie.items(each).tolist() == items
    assert [trie.id_of(item) for item in range(len(ids))] == ids
    assert (trie.ids_of(np.arange(len(ids))) == codes).all()
    prefixes = {each[:depth] for each in ids for depth in range(len(sizes))}
    other = tuple(data.draw(st.integers(-1, size)) for size in sizes)
    for prefix in [*prefixes, *(other[:depth] for depth in range(len(sizes)))]:
        assert trie.next(prefix).tolist() == following(ids, prefix)
    assert trie.items(other).tolist() == members.get(other, [])
    for numba in (True, False):
        with paths.inside_of(numba):
            for depth in range(len(sizes)):
                some = np.array([*ids, other])[:, :depth]
                mask = trie.mask(some)
                assert mask.shape == (len(some), sizes[depth])
                for row, prefix in zip(mask, some.tolist(), strict=True):
                    assert np.flatnonzero(row).tolist() == following(ids, prefix)
            asked = np.array([*ids, tuple(max(each, -1) for each in other)]).T
            expected = [members[each][0] if members.get(each) else -1
                        for each in map(tuple, asked.T.tolist())]  # fmt: skip
            assert trie.find(asked).tolist() == expected


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_a_trie_is_read_as_it_was_written(rng, tmp_path, mapped, shared):
    codes = rng.integers(0, 300, (3, 400))
    if shared:
        codes[:, 1] = codes[:, 0]
    trie = Trie(codes, [300, 300, 400])
    trie.save(tmp_path / "ids.trie")
    again = Trie.load(tmp_path / "ids.trie", mapped=mapped)
    assert (again.sizes, again.n_items, again.n_ids) == (trie.sizes, 400, trie.n_ids)
    assert (again.ids_of(range(400)) == codes).all()
    assert (again.mask(codes[:2].T) == trie.mask(codes[:2].T)).all()
    assert (again.find(codes) == trie.find(codes)).all()
    assert again.items(codes[:, 0]).tolist() == ([0, 1] if shared else [0])
    if mapped:
        assert not again._items.flags.writeable


def test_a_damaged_file_is_refused_or_read_the_same(rng, tmp_path):
    """Kernels check nothing: no file may lead them out of an array."""
    codes = rng.integers(0, 3, (2, 6))
    path = tmp_path / "ids.trie"
    Trie(codes).save(path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        change = (0, 0xFF, whole[place] ^ 1)[place % 3]
        path.write_bytes(whole[:place] + bytes([change]) + whole[place + 1 :])
        try:
            trie = Trie.load(path, mapped=False)
        except InputFileError:
            continue
        for depth, most in enumerate(trie.sizes):  # a kernel would write beyond a mask
            assert trie._codes[slice(*trie._starts[depth : depth + 2])].max() < most
        assert trie.mask(np.arange(-1, 5)[:, None]).shape == (6, trie.sizes[1])
    for length in (0, 10, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputFileError, match=r"Trie\.load: .* is not a complete file"):
            Trie.load(path)
    with pytest.raises(FileNotFoundError):
        Trie.load(tmp_path / "none")


@pytest.mark.parametrize(("change", "text"), [
    (lambda arrays, _: arrays.update(_first=arrays["_first"].view(np.float32)), "whole numbers"),
    (lambda arrays, _: arrays.update(_first=arrays["_first"][None]), "whole numbers"),
    (lambda arrays, _: arrays.pop("_items"), "_items"),
    (lambda arrays, about: about["trie"].update(n_items=7), "other lengths"),
    (lambda arrays, about: about.update(version=2), "version 2; this release reads 1"),
    (lambda arrays, about: about.pop("trie"), "it holds no trie"),
])  # fmt: skip
def test_a_file_of_other_arrays_is_refused(tmp_path, change, text):
    path = tmp_path / "ids.trie"
    Trie(np.array([[0, 0, 2], [1, 3, 3]])).save(path)
    entries, metadata = safetensors.read_header(path)
    arrays = {name: entry.read() for name, entry in entries.items()}
    about = json.loads(metadata["rvq_np"])
    change(arrays, about)
    safetensors.write(path, arrays, {"rvq_np": json.dumps(about)})
    for mapped in (True, False):
        with pytest.raises(InputFileError, match=rf"Trie\.load: .* a complete file .*{text}"):
            Trie.load(path, mapped=mapped)


def test_a_trie_that_cannot_be_written_leaves_the_old_one(rng, tmp_path, monkeypatch):
    path = tmp_path / "ids.trie"
    Trie(np.array([[1], [2]])).save(path)
    before = path.read_bytes()
    monkeypatch.setattr("rvq_np.files.atomic.os.replace", _no_space)
    with pytest.raises(OSError, match="no space"):
        Trie(rng.integers(0, 9, (2, 50))).save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["ids.trie"]


def _no_space(*_):
    raise OSError("no space")


def test_ten_bytes_an_item_are_enough(rng):
    codes = rng.permuted(np.arange(256**2 * 4))[:100_000]
    codes = np.stack([codes >> 10, (codes >> 2) & 255, codes & 3])
    trie = Trie(codes, [256, 256, 4])
    assert trie.n_ids == 100_000
    assert trie.nbytes <= 12 * 100_000


CODES = np.array([[0, 1], [1, 1]])


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: Trie(np.empty((2, 0), int)), ShapeError, "got no items; expected at least one"),
    (lambda: Trie(CODES, [2]), LevelsError, "got 1 sizes; expected 2"),
    (lambda: Trie(CODES, [1, 2]), CodeRangeError, "code 1 of item 1 at stage 0 is out of range"),
    (lambda: Trie(CODES, 2), ParameterError, "sizes is 2; expected a sequence"),
    (lambda: Trie(CODES).next([0, 1]), LevelsError, "prefix has 2 codes; expected 0 to 1"),
    (lambda: Trie(CODES).mask([[0, 1]]), LevelsError, "prefixes have 2 codes; expected 0 to 1"),
    (lambda: Trie(CODES).mask([0.5]), ShapeError, "expected integers"),
    (lambda: Trie(CODES).items([0]), LevelsError, "got 1 codes; expected 2, a whole ID"),
    (lambda: Trie(CODES).find([[0]]), LevelsError, "got 1 rows of codes; expected 2"),
    (lambda: Trie(CODES).id_of(2), CodeRangeError, "item is 2; expected 0 to 1"),
    (lambda: Trie(CODES).ids_of([0, -1]), CodeRangeError, "items reach from -1 to 0"),
    (lambda: Trie(CODES).ids_of([[0]]), ShapeError, r"shape \(1, 1\); expected integers \(n,\)"),
    (lambda: Trie(CODES).prefix_allowed_tokens_fn(Vocabulary([9, 9]), 1, end=0), ParameterError,
     r"sizes \(9, 9\); expected \(2, 2\)"),
    (lambda: Trie(CODES).prefix_allowed_tokens_fn(Vocabulary([2, 2]), end=0), ParameterError,
     "got neither prompt nor a vocabulary with begin"),
    (lambda: Trie(CODES).logits_processor(Vocabulary([2, 2]), 1), ParameterError, "got no end"),
])  # fmt: skip
def test_what_a_trie_cannot_do_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_tokens_that_may_follow():
    """The beginning of an ID is a number of tokens, or behind the last of a kind."""
    trie = Trie(np.array([[0, 0, 2], [1, 3, 3]]), [3, 4])
    plain = Vocabulary([3, 4], first=10)
    allowed = trie.prefix_allowed_tokens_fn(plain, 1, end=9)
    assert allowed(0, np.array([0])) == [10, 12]
    assert allowed(0, np.array([0, 10])) == [14, 16]
    assert allowed(0, np.array([0, 10, 16])) == [9]
    assert allowed(0, np.array([0, 10, 16, 9])) == [9]
    assert allowed(0, np.array([0, 11])) == [9]  # no ID begins so
    assert allowed(0, np.array([0, 16])) == [9]  # a code of stage 1
    begun = Vocabulary([3, 4], first=10, begin=5, end=6)
    allowed = trie.prefix_allowed_tokens_fn(begun)
    assert allowed(0, np.array([1, 2])) == [5]
    assert allowed(0, np.array([1, 5, 10, 14, 6, 5, 12])) == [16]
    allowed = trie.prefix_allowed_tokens_fn(begun, 2)
    assert allowed(0, np.array([1, 2, 5, 12])) == [16]
