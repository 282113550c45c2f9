"""Dropped codes: -1 adds nothing, whatever decodes it; counting and training refuse it."""

import contextlib
import io
import platform
import shutil

import array_api_strict
import numpy as np
import pytest
from helpers import paths
from helpers.emulated import fake_cupy

import rvq_np
from rvq_np import (
    Codebooks,
    Grouped,
    Linear,
    Normalized,
    Parallel,
    Projected,
    ResidualVectorQuantizer,
    Stage,
    bitstream,
    codec,
)
from rvq_np.errors import CodeRangeError
from rvq_np.testing import oracle


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def maps(wide=6, narrow=4):
    return (Linear(normal(narrow, wide), 3 + normal(narrow)),
            Linear(normal(wide, narrow), 5 + normal(wide)))  # fmt: skip


QUANTIZERS = {
    "codebooks": lambda: Codebooks(normal(3, 9, 6)),
    "sizes": lambda: Codebooks([normal(2 + q, 6, seed=q) for q in range(3)]),
    "float64": lambda: Codebooks(normal(3, 9, 6).astype(np.float64)),
    "mapped": lambda: Codebooks([Stage(normal(9, 4, seed=q), *maps()) for q in range(3)]),
    "cosine": lambda: Codebooks([Stage(normal(9, 6, seed=q), metric="cosine") for q in range(3)]),
    "projected": lambda: Projected(normal(3, 9, 4), *maps()),
    "parallel": lambda: Parallel([normal(1, 9, 6), normal(2, 9, 6, seed=1)]),
    "parallel, projected": lambda: Parallel([normal(1, 9, 6), Projected(normal(2, 9, 4), *maps())]),
    "normalized": lambda: Normalized([normal(1, 9, 6, seed=q) for q in range(3)]),
    "grouped": lambda: Grouped([normal(2, 9, 2), Projected(normal(1, 9, 4), *maps(4, 4))]),
    "strides": lambda: Codebooks([Stage(normal(9, 6, seed=q), stride=4 // (q + 1) or 1)
                                  for q in range(3)]),
    "projected, strides": lambda: Projected(
        Codebooks([Stage(normal(9, 4, seed=q), stride=(4, 2, 1)[q]) for q in range(3)]), *maps()),
    "parallel, strides": lambda: Parallel([
        Codebooks([Stage(normal(9, 6), stride=2)]),
        Projected(Codebooks([Stage(normal(9, 4), stride=4), Stage(normal(9, 4))]), *maps())]),
}  # fmt: skip
each_quantizer = pytest.mark.parametrize("name", QUANTIZERS)
LIBRARIES = ["numpy", "plain", "array API", "cupy"]


@contextlib.contextmanager
def in_library(name):
    """Yield how NumPy arrays become those of a library, and the way back."""
    if name == "cupy":
        if shutil.which("g++") is None or platform.machine() != "x86_64":
            pytest.skip("the emulated GPU is built by g++, for x86-64")
        with fake_cupy.installed():
            yield fake_cupy.asarray, fake_cupy.asnumpy
    elif name == "array API":
        yield array_api_strict.asarray, np.from_dlpack
    else:
        with paths.inside_of(name == "numpy"):
            yield np.asarray, np.asarray


def codes_of(quantizer, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, size, 24 // stride).astype(np.int32)
            for size, stride in zip(quantizer.sizes, quantizer.strides, strict=True)]  # fmt: skip


def decode(codes, quantizer, put=np.asarray, get=np.asarray):
    given = [put(each) for each in codes]
    if quantizer.block == 1:
        given = put(np.stack(codes)) if codes else put(np.empty((0, 24), np.int32))
    return get(rvq_np.decode(given, quantizer))


@pytest.mark.parametrize("library", LIBRARIES)
@each_quantizer
def test_codes_of_minus_one_from_a_stage_on_are_a_prefix_bit_for_bit(name, library):
    with in_library(library) as (put, get):
        quantizer = QUANTIZERS[name]()
        codes = codes_of(quantizer)
        for n in range(1, quantizer.n_q + 1):
            rest = [np.full_like(each, -1) for each in codes[n:]]
            found = decode([*codes[:n], *rest], quantizer, put, get)
            expected = decode(codes[:n], quantizer, put, get)
            assert found.dtype == quantizer.dtype
            np.testing.assert_array_equal(found.view(np.uint8), expected.view(np.uint8))
        nothing = decode([np.full_like(each, -1) for each in codes], quantizer, put, get)
        assert not nothing.view(np.uint8).any()  # no bias either, and no minus zero


@pytest.mark.parametrize("library", LIBRARIES)
@each_quantizer
def test_a_dropped_code_anywhere_is_like_a_frame_of_its_own(name, library):
    """Whatever is dropped in other frames: each block decodes as if it were alone."""
    quantizer = QUANTIZERS[name]()
    codes, rng = codes_of(quantizer), np.random.default_rng(1)
    codes = [np.where(rng.random(len(each)) < 0.4, -1, each).astype(np.int32) for each in codes]
    with in_library(library) as (put, get):
        found = decode(codes, quantizer, put, get)
    for first in range(0, 24, 4):
        alone = [each[first // stride : (first + 4) // stride]
                 for each, stride in zip(codes, quantizer.strides, strict=True)]  # fmt: skip
        given = np.stack(alone) if quantizer.block == 1 else alone
        np.testing.assert_array_equal(found[first : first + 4], rvq_np.decode(given, quantizer))
    if name == "codebooks":
        expected = [oracle.decode(column, normal(3, 9, 6)) for column in np.stack(codes).T.tolist()]
        np.testing.assert_array_equal(found, np.float32(expected))


def test_the_bias_of_a_map_around_stages_is_there_if_one_of_them_is():
    quantizer = Projected(normal(2, 9, 4), *maps())
    codes = np.int32([[3, -1, -1], [-1, 5, -1]])
    books, out = quantizer.parts[0], quantizer.project_out
    expected = [books[0].codebook[3] @ out.weight.T + out.bias,
                books[1].codebook[5] @ out.weight.T + out.bias, np.zeros(6)]  # fmt: skip
    np.testing.assert_allclose(rvq_np.decode(codes, quantizer), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int64, ">i4"])
def test_dropped_codes_of_any_type_and_shape(dtype):
    books = Codebooks(normal(3, 9, 6))
    codes = np.stack(codes_of(books))
    codes[1:, 5:9] = -1
    expected = rvq_np.decode(codes, books)
    given = codes.astype(dtype).reshape(3, 2, 3, 4)
    np.testing.assert_array_equal(rvq_np.decode(given, books), expected.reshape(2, 3, 4, 6))
    out = np.full((24, 6), np.nan, np.float32)
    assert rvq_np.decode(codes, books, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("narrow", [6, 4])
def test_the_class_decodes_dropped_codes(narrow):
    rvq = ResidualVectorQuantizer(6, narrow, 3, 8, kmeans_init=False, rng=0).eval()
    codes = np.random.default_rng(0).integers(0, 8, (3, 2, 10))
    codes[1:, 1] = -1
    codes[2, 0, 3:5] = -1
    found = rvq.decode(codes)
    np.testing.assert_array_equal(found[1], rvq.decode(codes[:1])[1])
    np.testing.assert_array_equal(found[0, :, 3:5], rvq.decode(codes[:2])[0, :, 3:5])
    np.testing.assert_array_equal(found[0, :, :3], rvq.decode(codes[:, :1, :3])[0])
    np.testing.assert_array_equal(rvq.decode(codes[1:], st=1)[1], np.zeros((6, 10)))
    flat = codes.reshape(3, 20)
    np.testing.assert_array_equal(rvq.decode(flat).reshape(2, 10, 6).transpose(0, 2, 1), found)


def test_what_a_file_holds_decodes():
    """Dropped codes could be written and read, but not decoded."""
    codes = np.stack(codes_of(Codebooks(normal(3, 9, 6))))
    codes[2:, 10:20] = -1
    file = io.BytesIO()
    bitstream.write(file, codes, sizes=(9,) * 3)
    read = bitstream.read(file).codes
    vectors = rvq_np.decode(read, normal(3, 9, 6))
    np.testing.assert_array_equal(vectors[10:20], rvq_np.decode(codes[:2, 10:20], normal(3, 9, 6)))


@pytest.mark.parametrize("library", LIBRARIES)
def test_below_minus_one_there_is_nothing_and_the_place_is_named(library):
    with in_library(library) as (put, _):
        codes = np.zeros((3, 5), np.int32)
        codes[0, 1], codes[1, 2] = -1, -2
        with pytest.raises(CodeRangeError, match=r"code -2 at \(1, 2\) .*or -1 where the stage is"):
            rvq_np.decode(put(codes), normal(3, 9, 6))


def test_counting_and_its_callers_refuse_dropped_codes():
    codes = np.zeros((3, 5), np.int32)
    codes[2, 4] = -1
    with pytest.raises(
        CodeRangeError, match=r"tally: code -1 at \(2, 4\) names no codeword; .*2.$"
    ):
        codec.tally(normal(5, 6), codes, normal(3, 9, 6))


def test_codes_without_dropped_ones_take_one_pass(monkeypatch):
    """As fast as before: the engine decodes all stages in one call."""
    from rvq_np.backends import numpy as backend

    calls, real = [], backend.decode
    monkeypatch.setattr(
        backend, "decode", lambda codes, stages: calls.append(len(codes)) or real(codes, stages)
    )
    codes = np.stack(codes_of(Codebooks(normal(3, 9, 6))))
    rvq_np.decode(codes, normal(3, 9, 6))
    assert calls == [3]
    codes[0, 0] = -1
    rvq_np.decode(codes, normal(3, 9, 6))
    assert calls == [3, 0, 1, 1, 1]
