"""Encoding frame by frame: the codes of the whole signal, however it is cut."""

import itertools

import numpy as np
import pytest
from helpers import paths, quantizers
from hypothesis import given
from hypothesis import strategies as st

import rvq_np
from rvq_np import Codebooks, Linear, Parallel, Projected, Stage, StreamEncoder
from rvq_np.codec import core
from rvq_np.errors import (
    BackendError,
    DtypeError,
    LevelsError,
    NonFiniteError,
    ParameterError,
    ShapeError,
)
from rvq_np.kernels.compiled import engine as compiled


def pushed(stream, x, cuts):
    """Return the codes of all pushes, stage by stage."""
    parts = [stream.push(x[low:high]) for low, high in itertools.pairwise([0, *cuts, len(x)])]
    return [np.concatenate([np.asarray(part[stage]) for part in parts])
            for stage in range(stream.quantizer.n_q)]  # fmt: skip


@st.composite
def signals(draw, strides):
    x, quantizer = draw(quantizers.cases(strides=strides, rows=12))
    cuts = sorted(draw(st.lists(st.integers(0, len(x)), max_size=8)))  # empty pushes as well
    return x, quantizer, cuts


@pytest.mark.parametrize("strides", [(1,), (1, 2, 4), (1, 3), (2, 1, 4)])
@given(data=st.data())
def test_codes_are_those_of_the_whole_signal(strides, data):
    x, quantizer, cuts = data.draw(signals(strides))
    stream = StreamEncoder(quantizer)
    found = pushed(stream, x, cuts)
    for stage, expected in zip(found, rvq_np.encode(x, quantizer), strict=True):
        np.testing.assert_array_equal(stage, expected)
        assert stage.dtype == np.int32
    assert (stream.frames, stream.pending) == (len(x), 0)
    stream.finish()


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def linear(rng, inputs, outputs):
    return Linear(normal(rng, outputs, inputs) / inputs**0.5, normal(rng, outputs))


def models(rng):
    """Return quantizers of the published models' kinds, larger than a vector register."""

    def factorized(strides):
        return Codebooks([Stage(normal(rng, 200, 8), linear(rng, 70, 8), linear(rng, 8, 70),
                                "cosine", stride) for stride in strides])  # fmt: skip

    def stack(stages):
        return Projected(normal(rng, stages, 150, 40), linear(rng, 70, 40), linear(rng, 40, 70))

    return {
        "EnCodec": Codebooks(normal(rng, 4, 150, 70)),
        "DAC": factorized([1, 1, 1]),
        "SNAC": factorized([4, 2, 1]),
        "Mimi": Parallel([stack(1), stack(3)]),
    }


@pytest.mark.parametrize("name", ["EnCodec", "DAC", "SNAC", "Mimi"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("step", [1, 3, 64])
def test_published_kinds_give_the_same_codes(name, dtype, step, rng):
    quantizer = models(rng)[name]
    x = rng.standard_normal((400, 70)).astype(dtype)
    found = pushed(StreamEncoder(quantizer), x, range(step, 400, step))
    for stage, expected in zip(found, rvq_np.encode(x, quantizer), strict=True):
        np.testing.assert_array_equal(stage, expected)


def test_a_map_does_not_depend_on_the_frames_beside(rng):
    """Bit for bit in what is searched, not only in the codes, which hide most differences."""
    quantizer = models(rng)["DAC"]
    x = normal(rng, 300, 70)
    stage = core.tables(x, quantizer)[0]
    whole = compiled.project(x, stage)
    for n in (0, 5, 299):
        np.testing.assert_array_equal(compiled.project(x[n : n + 1], stage)[0], whole[n])


def test_beams_and_fewer_stages(rng):
    books = normal(rng, 4, 20, 6)
    x = normal(rng, 50, 6)
    expected = rvq_np.encode(x, books, n_q=3, beam_size=4)
    assert (expected != rvq_np.encode(x, books, n_q=3)).any()
    found = pushed(StreamEncoder(books, 3, 4), x, range(1, 50))
    np.testing.assert_array_equal(np.stack(found), expected)


def test_a_single_frame_may_come_without_an_axis(rng):
    books = normal(rng, 3, 20, 6)
    x = normal(rng, 10, 6)
    stream = StreamEncoder(books)
    codes = np.stack([stream.push(frame) for frame in x], axis=1)
    np.testing.assert_array_equal(codes, rvq_np.encode(x, books))
    strided = Codebooks([Stage(books[0], stride=2)])
    stream = StreamEncoder(strided)
    counts = [len(stream.push(frame)[0]) for frame in x]
    assert counts == [0, 1] * 5


def test_frames_wait_for_their_block(rng):
    quantizer = Codebooks([Stage(normal(rng, 9, 3), stride=stride) for stride in (4, 2, 1)])
    stream = StreamEncoder(quantizer)
    x = normal(rng, 8, 3)
    assert stream.block == 4
    buffer = x[:3].copy()
    assert [len(stage) for stage in stream.push(buffer)] == [0, 0, 0]
    buffer[:] = 100  # the caller's array is the caller's
    assert (stream.pending, stream.frames) == (3, 3)
    with pytest.raises(ShapeError, match="3 frames are pending in a block of 4; expected 1 more"):
        stream.finish()
    first = stream.push(x[3:7])
    assert [len(stage) for stage in first] == [1, 2, 4]
    assert stream.pending == 3
    second = stream.push(x[7:])
    expected = rvq_np.encode(x, quantizer)
    for stage in range(3):
        both = np.concatenate([first[stage], second[stage]])
        np.testing.assert_array_equal(both, expected[stage])
    assert repr(stream).endswith("0 of 4 frames pending)")
    stream.push(x[:1])
    stream.reset()
    assert (stream.pending, stream.frames) == (0, 0)
    for stage, expected in zip(stream.push(x[:4]), rvq_np.encode(x[:4], quantizer), strict=True):
        np.testing.assert_array_equal(stage, expected)


BOOKS = np.ones((2, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.push([[1.0] * 4]), BackendError, "push: got a list; expected a NumPy array"),
        (lambda s: s.push(np.ones((2, 3))), ShapeError, r"push: x has shape \(2, 3\)"),
        (lambda s: s.push(np.ones((1, 2, 4))), ShapeError, "one StreamEncoder per stream"),
        (lambda s: s.push(np.array(1.0)), ShapeError, "push: x has shape"),
        (lambda s: s.push(np.ones((2, 4), int)), DtypeError, "push: x has dtype int64"),
        (lambda s: s.push(np.full((2, 4), np.inf)), NonFiniteError, r"x holds inf at \(0, 0\)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stride", [1, 4])
def test_what_is_no_frame_is_refused_and_nothing_changes(call, error, message, stride):
    stream = StreamEncoder(Codebooks([Stage(BOOKS[0], stride=stride)]))
    stream.push(np.ones((3, 4), np.float32))
    before = stream.pending, stream.frames
    with pytest.raises(error, match=message):
        call(stream)
    assert (stream.pending, stream.frames) == before


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"n_q": 0}, LevelsError), ({"n_q": 3}, LevelsError), ({"beam_size": 0}, ParameterError),
        ({"threads": 0}, ParameterError),
    ],
)  # fmt: skip
def test_arguments_are_checked_when_it_is_made(arguments, error):
    with pytest.raises(error, match="StreamEncoder: "):
        StreamEncoder(BOOKS, **arguments)


def test_beams_are_not_served_with_strides():
    with pytest.raises(ParameterError, match="beam_size is 2; expected 1"):
        StreamEncoder(Codebooks([Stage(BOOKS[0], stride=2)]), beam_size=2)


def test_kernels_are_ready_before_the_first_frame():
    from rvq_np.kernels import dispatch

    with paths.patched((dispatch, "kernels", None)):
        StreamEncoder(BOOKS)
        assert dispatch.kernels is compiled
