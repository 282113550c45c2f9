"""Quantizers are values: they never change, compare by what they are made of, and share tables."""

import contextlib
import copy
import gc
import pickle
import platform
import shutil
import weakref
from dataclasses import FrozenInstanceError

import array_api_strict
import numpy as np
import pytest
from helpers.emulated import fake_cupy

import rvq_np
from rvq_np import Codebooks, Grouped, Linear, Parallel, Projected, Stage
from rvq_np.errors import LevelsError, RvqError
from rvq_np.train import CodebookState


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def maps(wide=6, narrow=4):
    return Linear(normal(narrow, wide), normal(narrow)), Linear(normal(wide, narrow), normal(wide))


MADE = {
    "linear": lambda: maps()[0],
    "stage": lambda: Stage(normal(5, 4), *maps(), metric="cosine", stride=2),
    "codebooks": lambda: Codebooks(normal(3, 5, 4)),
    "slice of codebooks": lambda: Codebooks(normal(3, 5, 4))[1:],
    "mapped codebooks": lambda: Codebooks([Stage(normal(5, 4), *maps())] * 2),
    "parallel": lambda: Parallel([normal(1, 5, 4), normal(2, 5, 4)]),
    "grouped": lambda: Grouped([normal(1, 5, 4), normal(2, 5, 4)]),
    "projected": lambda: Projected(normal(3, 5, 4), *maps()),
    "slice of projected": lambda: Projected(normal(3, 5, 4), *maps())[:2],
    "slice of parallel": lambda: Parallel([normal(1, 5, 4), normal(2, 5, 4)])[:2],
    "state": lambda: CodebookState(normal(5, 4), normal(5, 4), np.ones(5), True),
}
each_kind = pytest.mark.parametrize("made", MADE.values(), ids=MADE.keys())
COPIES = {
    "itself": lambda value: value,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
}
each_copy = pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES.keys())
QUANTIZERS = ("codebooks", "slice of codebooks", "mapped codebooks", "parallel", "grouped",
              "projected", "slice of projected", "slice of parallel")  # fmt: skip


def arrays_in(value):
    """Yield every array that a value is made of."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from arrays_in(each)
    elif hasattr(value, "made_of"):
        yield from arrays_in(value.made_of())


@each_kind
@each_copy
def test_nothing_of_a_value_can_be_changed(made, duplicate):
    value = duplicate(made())
    before = value.fingerprint
    for name in [*vars(value), "n_q", "stages", "codewords", "anything"]:
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, 99)
        with pytest.raises(AttributeError):
            delattr(value, name)
    found = list(arrays_in(value))
    assert found
    for array in found:
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 7
    assert value.fingerprint == before == made().fingerprint


@each_kind
@each_copy
def test_values_are_equal_if_all_they_are_made_of_is(made, duplicate):
    value, again = made(), duplicate(made())
    assert value == again
    assert hash(value) == hash(again)
    assert len({value, again}) == 1
    assert repr(value) == repr(again)
    others = {name: other() for name, other in MADE.items() if other is not made}
    assert all(value != other for other in others.values())
    assert value != "a value"


def test_every_part_of_a_value_counts():
    codewords, (into, out) = normal(5, 4), maps()
    stage = Stage(codewords, into, out)
    others = [
        Stage(codewords, into, out, "cosine"), Stage(codewords, into, out, stride=2),
        Stage(codewords.astype(np.float64), into, out), Stage(codewords[:4], into, out),
        Stage(codewords, Linear(into.weight, -into.bias), out),
        Stage(codewords, into, Linear(-out.weight, out.bias)), Stage(codewords),
    ]  # fmt: skip
    assert len({stage, *others}) == 1 + len(others)
    assert stage.fingerprint == Codebooks([stage]).fingerprint
    books = normal(2, 5, 4)
    wide = Parallel([books, books.astype(np.float64)])
    assert wide[:2].fingerprint == Parallel([books, books])[:2].fingerprint
    assert wide[:2] != Parallel([books, books])[:2]  # it decodes to float64


def test_a_pickle_holds_nothing_but_the_value():
    x = normal(9, 8)
    for name in QUANTIZERS:
        fresh, used = MADE[name](), MADE[name]()
        rvq_np.encode(x[:, : used.dim], used, 1)
        rvq_np.decode(np.zeros((1, 3), np.int32), used)
        used[:1]
        assert hash(used)
        assert len(pickle.dumps(used)) == len(pickle.dumps(fresh))
    whole = Codebooks(normal(30, 8, 4))
    assert len(pickle.dumps(whole[:1])) < len(pickle.dumps(whole)) / 10


@pytest.mark.parametrize("name", QUANTIZERS)
def test_quantizers_are_sequences_of_stages(name):
    quantizer = MADE[name]()
    stages = tuple(quantizer)
    assert len(quantizer) == len(stages) == quantizer.n_q
    for place in range(-len(stages), len(stages)):
        assert quantizer[place] is stages[place]
        assert quantizer[np.int64(place)] is stages[place]
    for beyond in (len(stages), -len(stages) - 1):
        with pytest.raises(IndexError, match=f"there is no stage {beyond}; expected -") as caught:
            quantizer[beyond]
        assert isinstance(caught.value, RvqError)
    with pytest.raises(LevelsError, match=r"the index is 1\.5; expected a whole number or a slice"):
        quantizer[1.5]
    assert quantizer[:1].stages == stages[:1]
    assert stages[-1] in quantizer
    assert list(reversed(quantizer)) == list(reversed(stages))


@pytest.mark.parametrize("made", [
    lambda a: Stage(a), lambda a: Codebooks([a]), lambda a: Linear(a, np.zeros(5)),
    lambda a: CodebookState(a, a, np.ones(5), True),
])  # fmt: skip
def test_a_read_only_array_is_copied_if_someone_else_may_write_to_it(made):
    """A view that was made before stays writable; so does the memory of a read-only view."""
    whole = normal(5, 4)
    view = whole[:]
    whole.setflags(write=False)
    value, before = made(whole), made(whole.copy())
    view[...] = 9
    assert value == before
    assert value.made_of()[0] is not whole or value.made_of()[0][0] is not whole


def test_arrays_of_values_are_shared_not_copied():
    stage = Stage(normal(5, 4))
    assert Stage(stage.codebook).codebook is stage.codebook
    state = CodebookState(normal(5, 4), normal(5, 4), np.ones(5), True)
    assert Stage(state.codebook).codebook is state.codebook


@each_copy
@pytest.mark.parametrize("narrow", [6, 4])
def test_a_copy_of_the_class_decodes_what_it_saves_and_goes_on_by_itself(
    duplicate, narrow, tmp_path
):
    rvq = rvq_np.ResidualVectorQuantizer(6, narrow, 2, 8, kmeans_iters=2, rng=0)
    rvq(normal(50, 6), 1)
    untouched = copy.deepcopy(rvq)
    again = duplicate(rvq)
    codes = np.arange(8, dtype=np.int32)[None].repeat(2, axis=0)
    rvq.encode(normal(9, 6), 1)  # tables are there: a change would not be seen
    for array in arrays_in(tuple(again._states) + tuple(again.codebooks.stages)):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 7
    again.save(tmp_path / "again.safetensors")
    loaded = rvq_np.ResidualVectorQuantizer.load(tmp_path / "again.safetensors")
    np.testing.assert_array_equal(again.decode(codes), loaded.decode(codes))
    np.testing.assert_array_equal(again.decode(codes), untouched.decode(codes))
    for stage, state in zip(again.codebooks, again._states, strict=True):
        assert stage.codebook is state.codebook  # held once
    if again is rvq:
        return
    again(-2 * normal(50, 6), 1)  # moves and replaces codewords of its own
    assert again.codebooks != rvq.codebooks == untouched.codebooks
    assert rvq._rng.bit_generator.state == untouched._rng.bit_generator.state
    rvq(normal(60, 6), 1)
    untouched(normal(60, 6), 1)
    assert rvq.codebooks == untouched.codebooks


def test_what_values_say_of_themselves():
    assert repr(MADE["linear"]()) == "Linear(6 to 4)"
    wide = Linear(np.ones((4, 6)), np.ones(4))
    assert repr(wide) == "Linear(6 to 4, float64)"
    stages = [Stage(normal(5, 4), *maps()), Stage(normal(7, 4), *maps(), "cosine", stride=4)]
    assert repr(Codebooks(stages)) == (
        "Codebooks(2 stages, 5 to 7 codewords of 4 for vectors of 6, by cosine, every "
        "1 to 4 frames)"
    )
    assert repr(Codebooks(np.ones((1, 3, 2)))) == "Codebooks(1 stage, 3 codewords of 2, float64)"
    assert repr(MADE["state"]()) == "CodebookState(5 of 4, initialized)"


def test_codebooks_of_a_step_share_what_searches_found_out_and_nothing_more():
    before, codewords = Codebooks(normal(2, 5, 4)), -normal(2, 5, 4)
    after = Codebooks.trained([Stage(each) for each in codewords], before)
    assert after == Codebooks(codewords)
    assert after._hints is before._hints
    assert Codebooks.trained(before.stages[:1], before)._hints is not before._hints


def test_every_bandwidth_shares_the_tables_of_its_stages(tables_made):
    """Eight bandwidths built the tables of 36 stages, and kept them."""
    x = normal(40, 8)
    rvq = rvq_np.ResidualVectorQuantizer(8, 8, n_q=8, bins=16, kmeans_init=False, rng=0).eval()
    whole = Codebooks(rvq.codebooks.stages)
    expected = rvq_np.encode(x, whole)
    assert tables_made.total() == 8
    tables_made.clear()
    for n in range(1, 9):
        codes = rvq.encode(x, 50, bandwidth=0.2 * n)
        np.testing.assert_array_equal(codes, expected[:n])
        np.testing.assert_array_equal(rvq.decode(codes), rvq_np.decode(codes, whole))
        np.testing.assert_array_equal(rvq_np.encode(x, rvq.codebooks[:n]), expected[:n])
    left = x - rvq_np.decode(expected[:1], whole) - rvq_np.decode(expected[1:2], whole[1:2])
    np.testing.assert_array_equal(rvq.encode(left, 50, st=2), expected[2:])
    np.testing.assert_array_equal(rvq.encode(left, 50, 1.0, st=2), expected[2:5])
    assert rvq.codebooks[1:6][1:3] == whole[2:4]
    np.testing.assert_array_equal(rvq_np.encode(left, rvq.codebooks[1:6][1:3]), expected[2:4])
    assert set(tables_made.values()) == {1}
    assert len(tables_made) == 8


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("kind", ["plain", "mapped", "cosine", "sizes"])
@pytest.mark.parametrize("put", ["numpy", "array API", "cupy"])
def test_slices_share_tables_in_every_library(put, kind, beam_size, tables_made):
    stages = {
        "plain": [Stage(each) for each in normal(6, 9, 4)],
        "mapped": [Stage(each, *maps(4, 3)) for each in normal(6, 9, 3)],
        "cosine": [Stage(each, metric="cosine") for each in normal(6, 9, 4)],
        "sizes": [Stage(each[: 2 + q]) for q, each in enumerate(normal(6, 9, 4))],
    }[kind]
    with in_library(put) as (there, back):
        whole, x = Codebooks(stages), there(normal(50, 4))
        rvq_np.encode(x, whole, beam_size=beam_size)
        made = tables_made.total()
        for part in (slice(0, 2), slice(2, 5), slice(5, 6), slice(1, 6)):
            apart = Codebooks(stages[part])
            codes = back(rvq_np.encode(x, whole[part], beam_size=beam_size))
            vectors = back(rvq_np.decode(there(codes), whole[part]))
            counts = rvq_np.codec.tally(x, there(codes), whole[part])
            assert tables_made.total() == made
            expected = back(rvq_np.encode(x, apart, beam_size=beam_size))
            np.testing.assert_array_equal(codes, expected)
            np.testing.assert_array_equal(vectors, back(rvq_np.decode(there(codes), apart)))
            for ours, theirs in zip(
                counts, rvq_np.codec.tally(x, there(codes), apart), strict=True
            ):
                for a, b in zip(ours, theirs, strict=True):
                    np.testing.assert_array_equal(a, b)
            made = tables_made.total()


@contextlib.contextmanager
def in_library(name):
    """Yield how NumPy arrays become those of a library, and the way back."""
    if name == "numpy":
        yield lambda x: x, lambda x: x
    elif name == "array API":
        yield array_api_strict.asarray, np.from_dlpack
    else:
        if shutil.which("g++") is None or platform.machine() != "x86_64":
            pytest.skip("the emulated GPU is built by g++, for x86-64")
        with fake_cupy.installed():
            yield fake_cupy.asarray, fake_cupy.asnumpy


def test_slices_of_another_order_or_type_have_tables_of_their_own():
    x = normal(30, 4)
    mixed = Codebooks([normal(9, 4), normal(9, 4).astype(np.float64), normal(8, 4)])
    for part in (slice(0, 1), slice(1, 3), slice(None, None, 2), slice(None, None, -1)):
        apart = Codebooks(mixed.stages[part])
        assert mixed[part].dtype == apart.dtype
        codes = rvq_np.encode(x, mixed[part])
        np.testing.assert_array_equal(codes, rvq_np.encode(x, apart))
        vectors = rvq_np.decode(codes, mixed[part])
        assert vectors.dtype == apart.dtype
        np.testing.assert_array_equal(vectors, rvq_np.decode(codes, apart))


def test_strides_and_parts_share_tables_too(tables_made):
    x = normal(8, 4)
    strided = Codebooks([Stage(3 * normal(9, 4), stride=4), Stage(5 * normal(9, 4), stride=2)])
    both = Parallel([normal(2, 9, 4), -normal(2, 9, 4)])
    for quantizer in (strided, both):
        for n in (1, 2, 1, 2):
            rvq_np.encode(x, quantizer[:n])
            rvq_np.encode(x, quantizer, n)
    assert set(tables_made.values()) == {1}


def test_codebooks_and_slices_are_freed_without_a_collector():
    gc.disable()
    try:
        books = Codebooks(normal(4, 9, 4))
        rvq_np.encode(normal(5, 4), books[:2])
        seen = weakref.ref(books), weakref.ref(books[:2])
        del books
        assert [each() for each in seen] == [None, None]
    finally:
        gc.enable()
