"""Dask arrays: the same codes and vectors, later, by any scheduler and for any chunks."""

import pickle

import dask
import dask.array as da
import numpy as np
import pytest
from helpers import quantizers
from hypothesis import given
from hypothesis import strategies as st

import rvq_np
from rvq_np import Codebooks, Stage
from rvq_np.errors import (
    BackendError,
    CodeRangeError,
    DtypeError,
    LevelsError,
    NonFiniteError,
    ParameterError,
    ShapeError,
)
from rvq_np.testing import backend_tests, rvq_tests


def hidden(*args, **kwargs):
    raise AssertionError("something was computed before it was asked for")


@pytest.fixture(autouse=True)
def _nothing_computes():
    with dask.config.set(scheduler=hidden):
        yield


def get(x):
    return np.asarray(x.compute(scheduler="sync"))


def put(x):
    """Cut an array into chunks of three along every axis but the last."""
    chunks = [*[3] * (x.ndim - 1), -1] if x.ndim else ()
    return da.from_array(x, chunks=tuple(chunks))


def encoded(x, codebooks):
    return get(rvq_np.encode(put(x), codebooks))


def decoded(codes, codebooks):
    return get(rvq_np.decode(put(codes), codebooks))


class TestDask(rvq_tests(encode=encoded, decode=decoded)):
    """The definition, against the oracle."""


class TestDaskArrays(
    backend_tests(put=put, get=get, dtypes=("float16", "float32", "float64"), later=True)
):
    """The same bits as NumPy, and the same refusals, when the numbers are asked for."""


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@st.composite
def cuts(draw, length):
    """Draw sizes of chunks."""
    ends = sorted(draw(st.sets(st.integers(1, length - 1), max_size=4))) if length > 1 else []
    return tuple(np.diff([0, *ends, length]).tolist()) if length else (0,)


@given(st.data(), quantizers.quantizers(strides=(1, 2, 3)), st.integers(0, 2**32 - 1))
def test_any_quantizer_and_any_chunks(data, quantizer, seed):
    frames = quantizer.block * data.draw(st.integers(1, 5))
    x = np.random.default_rng(seed).integers(-6, 7, (2, frames, quantizer.dim)).astype(np.float32)
    array = da.from_array(x, chunks=(data.draw(cuts(2)), data.draw(cuts(frames)), -1))
    expected, found = rvq_np.encode(x, quantizer), rvq_np.encode(array, quantizer)
    if quantizer.block == 1:
        np.testing.assert_array_equal(get(found), expected)
        assert found.shape == expected.shape
    else:
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == theirs.shape
            assert ours.dtype == np.int32
            np.testing.assert_array_equal(get(ours), theirs)
    vectors = rvq_np.decode(found, quantizer)
    assert vectors.shape == x.shape
    np.testing.assert_array_equal(get(vectors), rvq_np.decode(expected, quantizer))
    rng = np.random.default_rng(seed)  # some codes are dropped
    if quantizer.block == 1:
        expected = np.where(rng.random(expected.shape) < 0.3, np.int32(-1), expected)
        later = da.from_array(expected, chunks=(1, *array.chunks[:-1]))
    else:
        expected = [np.where(rng.random(q.shape) < 0.3, np.int32(-1), q) for q in expected]
        later = [da.from_array(q, chunks=1) for q in expected]
    np.testing.assert_array_equal(
        get(rvq_np.decode(later, quantizer)), rvq_np.decode(expected, quantizer)
    )


def test_chunks_dtypes_and_metas_are_what_comes_out():
    codebooks = normal(3, 20, 6)
    x = da.from_array(normal(10, 4, 6), chunks=((3, 7), (2, 2), 6))
    codes = rvq_np.encode(x, codebooks, 2)
    assert codes.chunks == ((2,), (3, 7), (2, 2))
    assert (codes.dtype, codes._meta.dtype, codes._meta.shape) == (np.int32, np.int32, (0, 0, 0))
    vectors = rvq_np.decode(codes, codebooks.astype(np.float64))
    assert vectors.chunks == ((3, 7), (2, 2), (6,))
    assert vectors.dtype == vectors._meta.dtype == np.float64
    assert get(codes).shape == (2, 10, 4)


def test_beams_stages_and_threads_reach_the_tasks():
    x, codebooks = normal(50, 6), normal(4, 20, 6, seed=1)
    expected = rvq_np.encode(x, codebooks, 3, 5)
    assert (expected != rvq_np.encode(x, codebooks, 3)).any()
    np.testing.assert_array_equal(get(rvq_np.encode(put(x), codebooks, 3, 5, threads=1)), expected)


def test_unknown_chunk_sizes_stay_unknown():
    x, codebooks = normal(50, 6), normal(3, 20, 6, seed=1)
    array = put(x)
    codes = rvq_np.encode(array[array[:, 0] > 0], codebooks)
    assert np.isnan(codes.shape[1])
    np.testing.assert_array_equal(get(codes), rvq_np.encode(x[x[:, 0] > 0], codebooks))
    vectors = rvq_np.decode(codes, codebooks)
    np.testing.assert_array_equal(get(vectors), rvq_np.decode(get(codes), codebooks))


def test_stages_in_chunks_of_their_own_decode():
    codebooks = normal(3, 20, 6)
    codes = np.random.default_rng(0).integers(0, 20, (3, 12)).astype(np.int32)
    array = da.from_array(codes, chunks=(1, 5))
    np.testing.assert_array_equal(
        get(rvq_np.decode(array, codebooks)), rvq_np.decode(codes, codebooks)
    )


def test_chunks_of_another_library_stay_in_it():
    import array_api_strict

    x, codebooks = normal(9, 6), normal(3, 20, 6, seed=1)
    meta = array_api_strict.asarray(np.empty((0, 0), np.float32))
    array = da.map_blocks(array_api_strict.asarray, put(x), dtype=meta.dtype, meta=meta)
    codes = rvq_np.encode(array, codebooks)
    assert "array_api_strict" in type(codes._meta).__module__
    graph, keys = codes.__dask_graph__(), codes.__dask_keys__()[0]
    parts = dask.get(dict(graph), keys)  # Dask itself cannot join chunks of this library
    assert all("array_api_strict" in type(each).__module__ for each in parts)
    expected = rvq_np.encode(x, codebooks)
    np.testing.assert_array_equal(np.concatenate([np.asarray(p) for p in parts], 1), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_number_is_named_by_its_place_in_the_whole_array(bad):
    x = normal(30, 6)
    x[17, 4] = bad
    codes = rvq_np.encode(put(x), normal(3, 20, 6, seed=1))  # not asked for yet
    with pytest.raises(NonFiniteError, match=r"^encode: x holds .* at \(17, 4\); .*chunk \(5, 0\)"):
        get(codes)


def test_a_bad_number_in_a_chunk_of_unknown_size_is_named_by_its_place_there():
    x = normal(30, 6)
    x[17] = [1, 2, 3, 4, np.nan, 6]
    array = put(x)
    codes = rvq_np.encode(array[array[:, 0] > -9], normal(3, 20, 6, seed=1))
    with pytest.raises(NonFiniteError, match=r"at \(2, 4\) of its chunk; .* chunk \(5, 0\)"):
        get(codes)


def test_a_code_that_names_nothing_is_named_by_its_place_in_the_whole_array():
    codes = np.zeros((3, 30), np.int64)
    codes[1, 17] = 20
    vectors = rvq_np.decode(put(codes).rechunk((3, 4)), normal(3, 20, 6))
    with pytest.raises(CodeRangeError, match=r"^decode: code 20 at \(1, 17\) .* chunk \(0, 4\)"):
        get(vectors)


def test_so_is_one_of_stages_with_strides():
    quantizer = Codebooks([Stage(normal(20, 6), stride=2), Stage(normal(20, 6))])
    codes = rvq_np.encode(normal(2, 24, 6), quantizer)
    codes[1][1, 17] = -5
    parts = [
        da.from_array(each, chunks=(1, size)) for each, size in zip(codes, (4, 8), strict=True)
    ]
    with pytest.raises(CodeRangeError, match=r"code -5 at \(1, 1, 17\) .* chunk \(1, 2\)"):
        get(rvq_np.decode(parts, quantizer))


def test_the_class_takes_both_layouts_and_names_places_in_its_own():
    rvq = rvq_np.ResidualVectorQuantizer(6, 6, 3, 8, kmeans_init=False, rng=0).eval()
    for x in (normal(30, 6), normal(4, 6, 7)):
        array = da.from_array(x, chunks=(2, -1, 3)[: x.ndim])
        expected = rvq.encode(x, 50)
        codes = rvq.encode(array, 50)
        np.testing.assert_array_equal(get(codes), expected)
        np.testing.assert_array_equal(get(rvq.decode(codes)), rvq.decode(expected))
        np.testing.assert_array_equal(get(rvq.encode(array, 50, st=1)), rvq.encode(x, 50, st=1))
    x[3, 2, 5] = np.nan
    codes = rvq.encode(da.from_array(x, chunks=(2, -1, 3)), 50)
    with pytest.raises(NonFiniteError, match=r"at \(3, 2, 5\);.* chunk \(1, 0, 1\)"):
        get(codes)
    with pytest.raises(BackendError, match="computed later"):
        rvq(put(normal(30, 6)), 50)


def test_what_cannot_be_is_refused_when_the_call_is_made():
    codebooks, x = normal(3, 20, 6), put(normal(30, 6))
    with pytest.raises(ShapeError, match=r"chunks \(4, 2\) along axis 1.*rechunk\(\{1: -1\}\)"):
        rvq_np.encode(x.rechunk((3, 4)), codebooks)
    with pytest.raises(ShapeError, match="its last axis must be 6"):
        rvq_np.encode(x[:, :5], codebooks)
    with pytest.raises(DtypeError, match="int64; expected floating"):
        rvq_np.encode(x.astype(np.int64), codebooks)
    with pytest.raises(LevelsError, match="n_q is 4; expected 1 to 3"):
        rvq_np.encode(x, codebooks, 4)
    with pytest.raises(ParameterError, match="beam_size is 0"):
        rvq_np.encode(x, codebooks, beam_size=0)
    with pytest.raises(BackendError, match="out= is for NumPy"):
        rvq_np.encode(x, codebooks, out=np.empty((3, 30), np.int32))
    with pytest.raises(BackendError, match="codebooks are computed later"):
        rvq_np.encode(x, da.from_array(codebooks))
    with pytest.raises(DtypeError, match="float32; expected integers"):
        rvq_np.decode(x, codebooks)
    with pytest.raises(LevelsError, match="30 rows, one per stage, but there are 3"):
        rvq_np.decode(x.astype(np.int32), codebooks)
    with pytest.raises(BackendError, match=r"expected a dask\.array\.Array"):
        rvq_np.encode(dask.delayed(1), codebooks)
    strided = Codebooks([Stage(normal(20, 6), stride=2)])
    with pytest.raises(ShapeError, match="multiple of 2"):
        rvq_np.encode(x[:29], strided)
    with pytest.raises(ShapeError, match="compute_chunk_sizes"):
        rvq_np.encode(x[x[:, 0] > 0], strided)
    with pytest.raises(BackendError, match="got a Array; expected a NumPy array"):
        rvq_np.StreamEncoder(strided).push(x)


def test_codebooks_are_one_key_for_all_tasks():
    """Each task names it, none holds it, so they travel once per worker."""
    codebooks = Codebooks(normal(2, 512, 64))
    codes = rvq_np.encode(da.zeros((4000, 64), chunks=(100, 64), dtype=np.float32), codebooks)
    (codes,) = dask.optimize(codes)
    assert len(pickle.dumps(dict(codes.dask))) < 1.5 * len(pickle.dumps(codebooks))
    sizes = [len(pickle.dumps(task)) for task in dict(codes.dask).values()]
    assert sum(size > 100_000 for size in sizes) == 1


def test_the_same_call_has_the_same_keys():
    """So that Dask computes it once."""
    x, codebooks = put(normal(30, 6)), normal(3, 20, 6)
    assert rvq_np.encode(x, codebooks).name == rvq_np.encode(x, Codebooks(codebooks)).name
    assert rvq_np.encode(x, codebooks).name != rvq_np.encode(x, 2 * codebooks).name
    assert rvq_np.encode(x, codebooks).name != rvq_np.encode(x, codebooks, beam_size=2).name
