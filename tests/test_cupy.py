"""The CuPy backend without a GPU: its host logic and its CUDA source, on an emulated GPU.

No line here is evidence for a GPU, see `emulated`.  What is shown: the source compiles for every
GPU it is meant for, and run by a processor, in any order of its threads, it gives the codes, the
vectors and the sums that the definition asks for; arrays stay on their device, and nothing waits.
"""

import contextlib
import importlib
import platform
import re
import shutil
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from helpers import paths
from helpers.emulated import fake_cupy
from hypothesis import given
from hypothesis import strategies as st

import rvq_np
from rvq_np import codec, train
from rvq_np.errors import BackendError, CodeRangeError, FewVectorsWarning, NonFiniteError
from rvq_np.kernels import cuda, dispatch
from rvq_np.testing import backend_tests, rvq_tests, strategies

CUDA = Path(cuda.__file__).parent
SHAPES = ((8, 1), (4, 2), (2, 4), (1, 8), (1, 4), (1, 1))
SOURCES = ("encode", "codewords", "beam", "gather")
ARCHITECTURES = ("75", "80", "90")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("g++") is None or platform.machine() != "x86_64",
        reason="the emulated GPU is built by g++, for x86-64",
    ),
]


@pytest.fixture(scope="module", autouse=True)
def cupy():
    with fake_cupy.installed() as module:
        yield module


def launching(**changes):
    """Return a context in which some constants of the launches are others."""
    module = importlib.import_module("rvq_np.kernels.cuda.launch")
    return paths.patched(*((module, name, value) for name, value in changes.items()))


@contextlib.contextmanager
def gpu_of(shared):
    """A new GPU, with so much shared memory a block: kernels keep the limit they began with."""
    with paths.patched((fake_cupy, "SHARED", shared)), fake_cupy.installed():
        yield


def on_the_gpu(beam_size=1, padding=16, **changes):
    """Return encode and decode of NumPy arrays by way of the GPU, in a new order each time."""

    def encode(x, books):
        fake_cupy.seed += 1
        search = importlib.import_module("rvq_np.kernels.cuda.search")
        with launching(**changes), paths.patched((search, "PADDING", padding)):
            codes = rvq_np.encode(fake_cupy.asarray(x), books, beam_size=beam_size)
        assert type(codes) is fake_cupy.ndarray
        return codes.get()

    def decode(codes, books):
        return rvq_np.decode(fake_cupy.asarray(codes), books).get()

    return {"encode": encode, "decode": decode}


TestDefault = rvq_tests(**on_the_gpu(), dropped=True)
TestFloat64 = rvq_tests(**on_the_gpu(), dtype=np.float64, dropped=True)
TestManyRows = rvq_tests(**on_the_gpu(SHAPES=((8, 1),)))
TestTwoShares = rvq_tests(**on_the_gpu(SHAPES=((4, 2),)))
TestTogether = rvq_tests(**on_the_gpu(SHAPES=((4, 2),), padding=64))
TestTogetherFloat64 = rvq_tests(**on_the_gpu(SHAPES=((4, 2),), padding=64), dtype=np.float64)
TestFourShares = rvq_tests(**on_the_gpu(SHAPES=((2, 4),)))
TestSmallCard = rvq_tests(**on_the_gpu(SHAPES=((1, 4),)))
TestOneWarp = rvq_tests(**on_the_gpu(SHAPES=((1, 1),)), dtype=np.float64)
TestShallow = rvq_tests(**on_the_gpu(DEEP=False))
TestBeamOfOne = rvq_tests(**on_the_gpu(SHAPES=()))


def on_device(number):
    """Return a function that makes a CuPy array, on some device, of a NumPy array."""

    def put(array):
        with fake_cupy.Device(number):
            return fake_cupy.asarray(array)

    return put


TestArrays = backend_tests(
    put=on_device(0), get=fake_cupy.asnumpy, dtypes=("float16", "float32", "float64")
)
TestOtherDevice = backend_tests(put=on_device(1), get=fake_cupy.asnumpy)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_groups_of_warps_have_the_codes_of_numpy(dtype, rng):
    """Tiles, chunks and stages in a row, over the ends of blocks: what arrives has its turn."""
    for rows, size, width in ((131, 300, 64), (20, 257, 200), (260, 128, 30), (5, 2100, 3)):
        books = rng.standard_normal((3, size, width)).astype(dtype)
        books[:, size // 2 :] = books[
            :, : size - size // 2
        ]  # every row is open, codewords are equal
        x = (rng.standard_normal((rows, width)) + 3).astype(dtype)
        for _ in range(2):
            codes = on_the_gpu(SHAPES=((4, 2),), padding=64)["encode"](x, books)
            np.testing.assert_array_equal(codes, rvq_np.encode(x, books))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_many_tiles_of_rows_and_codewords_have_the_codes_of_numpy(shape, dtype, rng):
    """Sizes that are multiples of nothing, over the ends of blocks, tiles and chunks."""
    for rows, size, width in ((2 * 32 * shape[0] + 3, 300, 70), (40, 16, 9), (33, 257, 33)):
        books = rng.standard_normal((3, size, width)).astype(dtype)
        x = (rng.standard_normal((rows, width)) + 3).astype(dtype)
        for deep in (False, False, True, True):  # warps by turns, and one ahead of the others
            codes = on_the_gpu(SHAPES=(shape,), DEEP=deep)["encode"](x, books)
            np.testing.assert_array_equal(codes, rvq_np.encode(x, books))


@pytest.mark.parametrize("shape", SHAPES)
def test_more_codewords_than_eight_bits_tell_apart_in_a_class(shape, rng):
    """The screen keeps a codeword's place in the last bits of its score: 2048 codewords a warp."""
    size = 2048 * shape[1] + 70
    books = rng.standard_normal((1, size, 3)).astype(np.float32)
    near = books[0, rng.integers(size, size=20)] + 1e-3 * rng.standard_normal((20, 3))
    x = np.concatenate([near, books[0, -20:], books[0, 2048 * shape[1] - 2 :][:4]])
    codes = on_the_gpu(SHAPES=(shape,))["encode"](x.astype(np.float32), books)
    np.testing.assert_array_equal(codes, rvq_np.encode(x.astype(np.float32), books))
    # Codewords as far apart in their class, and too near each other for half precision.
    books[0, -70:] = books[0, :70] * np.float32(1 + 1e-6)
    x = (books[0, :70] * (1 + 1e-6 * rng.random((70, 1)))).astype(np.float32)
    codes = on_the_gpu(SHAPES=(shape,))["encode"](x, books)
    np.testing.assert_array_equal(codes, rvq_np.encode(x, books))
    assert 10 < (codes >= 70).sum() < 60


HARD = {
    "far from zero": lambda rng, x: x + 50,
    "of any size": lambda rng, x: x * 2.0 ** rng.integers(-30, 30, (*x.shape[:-1], 1)),
    "of any size in a row": lambda rng, x: x * 2.0 ** rng.integers(-20, 20, x.shape),
    "of few values": lambda rng, x: np.round(x),
    "of one value": lambda rng, x: np.zeros_like(x),
    "repeated": lambda rng, x: x[..., rng.integers(4, size=x.shape[-2]), :],
    "next to nothing": lambda rng, x: x * 1e-42,
    "huge": lambda rng, x: x * 3e36,
    "tiny beside huge": lambda rng, x: x * np.where(rng.random((*x.shape[:-1], 1)) < 0.5, 1e-30, 1),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", HARD)
@pytest.mark.parametrize("codewords", HARD)
def test_codewords_and_vectors_of_any_kind_have_the_codes_of_numpy(codewords, rows, dtype, rng):
    books = HARD[codewords](rng, rng.standard_normal((2, 45, 7))).astype(dtype)
    x = HARD[rows](rng, rng.standard_normal((40, 7))).astype(dtype)
    x[:5] = books[0, :5]
    codes = on_the_gpu()["encode"](x, books)
    np.testing.assert_array_equal(codes, rvq_np.encode(x, books))


def test_codewords_of_extreme_float64_numbers_have_the_codes_of_numpy(rng):
    for power in (-1000, -320, 320, 900):
        books = rng.standard_normal((2, 20, 5)) * 2.0**power
        x = rng.standard_normal((30, 5)) * 2.0**power
        np.testing.assert_array_equal(on_the_gpu()["encode"](x, books), rvq_np.encode(x, books))


def test_the_bound_covers_sums_that_are_cut_off():
    """Two thousand products, each below the last digit of a running sum, outweigh the second
    codeword.

    Nothing is rounded to half precision here, and nothing moved: the codewords' mean is zero.
    """
    width = 2048
    first, second = np.full(width, 3.0), np.zeros(width)
    first[0], second[0] = 2.0**13, 2.0**13 + 8
    books = np.float32([[second, first, -first, -second]])
    x = np.full((1, width), 2.0, np.float32)
    x[0, 0] = 2.0**13
    assert rvq_np.encode(x, books).tolist() == [[1]]
    assert on_the_gpu()["encode"](x, books).tolist() == [[1]]


def test_the_bound_covers_the_place_of_a_codeword(rng):
    """It changes a score by up to 255 of its last digits: more than small rows tell codewords apart
    by.

    Codewords of one length, whole numbers whose mean is next to zero, and rows next to it.
    """
    base = np.array([400, 301, 200, 99, 50, 20, 3, 1.0])
    codewords = np.stack([rng.permutation(base) * rng.choice([-1, 1], 8) for _ in range(750)])
    books = np.concatenate([codewords, -codewords])[None].astype(np.float32)
    x = rng.integers(-2, 3, (60, 8)).astype(np.float32)
    codes = on_the_gpu(SHAPES=((1, 1),))["encode"](x, books)
    np.testing.assert_array_equal(codes, rvq_np.encode(x, books))


def test_rows_huge_beside_the_codewords_count_their_norms(rng):
    books = np.float32([[[1, 0], [1, 3], [-1, 0], [-1, -3]]]) * np.float32(2.0**-60)
    x = np.float32([[2.0**10, 0], [2.0**20, 0], [-(2.0**30), 0], [2.0**40, 2.0**-20]])
    np.testing.assert_array_equal(on_the_gpu()["encode"](x, books), rvq_np.encode(x, books))


def test_numbers_next_to_nothing_are_distinguished():
    """Subnormal numbers beside normal ones, where only whole numbers tell."""
    least = np.float32(2.0**-149)
    one = np.float32(2.0**-126)
    books = np.float32([[[one - least, 0], [one + least, 0], [0, one]]])
    x = np.float32([[one, 0], [one + least, 0], [one - least, 0], [0, one - least], [0, 0]])
    np.testing.assert_array_equal(on_the_gpu()["encode"](x, books), rvq_np.encode(x, books))


def test_decoding_starts_from_zero():
    books = np.float32([[[-0.0, 1.0]], [[-0.0, -1.0]]])
    vectors = on_the_gpu()["decode"](np.int32([[0], [0]]), books)
    assert not np.signbit(vectors).any()


@given(strategies.lattices(), st.integers(2, 5))
def test_beams_on_whole_numbers_are_those_of_numpy(case, beam_size):
    x, books = case
    codes = on_the_gpu(beam_size)["encode"](x, books)
    np.testing.assert_array_equal(codes, rvq_np.encode(x, books, beam_size=beam_size))


@given(strategies.near_ties(), st.integers(2, 20))
def test_beams_near_ties_are_those_of_numpy(case, beam_size):
    x, books = case
    codes = on_the_gpu(beam_size, PARALLEL=5)["encode"](x, books)
    np.testing.assert_array_equal(codes, rvq_np.encode(x, books, beam_size=beam_size))


@pytest.mark.parametrize("beam_size", [1, 3])
def test_rows_in_slabs_have_the_same_codes(beam_size, rng, monkeypatch):
    books = rng.standard_normal((3, 30, 6)).astype(np.float32)
    x = rng.standard_normal((50, 6)).astype(np.float32)
    monkeypatch.setattr(importlib.import_module("rvq_np.kernels.cuda.driver"), "NUMBERS", 50)
    codes = on_the_gpu(beam_size)["encode"](x, books)
    np.testing.assert_array_equal(codes, rvq_np.encode(x, books, beam_size=beam_size))


def test_codewords_too_long_for_shared_memory_are_searched_all_the_same(rng):
    books = rng.standard_normal((2, 30, 900)).astype(np.float32)
    x = rng.standard_normal((20, 900)).astype(np.float32)
    with gpu_of(shared=20 << 10):
        codes = on_the_gpu()["encode"](x, books)
    np.testing.assert_array_equal(codes, rvq_np.encode(x, books))


@pytest.mark.parametrize(
    ("rows", "groups", "form"),
    [(1, (1, 8), "FEW"), (9, (1, 8), "DEEP"), (1 << 13, (2, 4), None), (1 << 15, (4, 2), "WGMMA")],
)
def test_a_shape_keeps_the_processors_busy(rows, groups, form):
    launches = importlib.import_module("rvq_np.kernels.cuda.launch")
    found = launches.shape(rows, 128)
    assert (found[0], found[3]) == (groups, form)


def test_groups_of_warps_multiply_together_only_where_the_gpu_can():
    launches = importlib.import_module("rvq_np.kernels.cuda.launch")
    assert launches.shape(1 << 20, 100)[3] is None  # no whole chunks of 64 numbers
    for name, other in (("CAPABILITY", "80"), ("CAPABILITY", "100"), ("COMPILER", (12, 8))):
        with paths.patched((fake_cupy, name, other)), fake_cupy.installed():
            launches = importlib.import_module("rvq_np.kernels.cuda.launch")
            assert launches.shape(1 << 20, 128)[3] is None


@pytest.mark.parametrize("shared", [64 << 10, 99 << 10, 163 << 10])
@pytest.mark.parametrize("width", [8, 128, 512])
def test_gpus_with_less_shared_memory_get_a_shape_that_fits(shared, width, rng):
    books = rng.standard_normal((1, 40, width)).astype(np.float32)
    x = rng.standard_normal((3, width)).astype(np.float32)
    with gpu_of(shared):
        launches = importlib.import_module("rvq_np.kernels.cuda.launch")
        for rows in (1, 1 << 20):
            assert launches.shape(rows, width)[2] <= shared
        codes = on_the_gpu()["encode"](x, books)
    np.testing.assert_array_equal(codes, rvq_np.encode(x, books))


def test_a_shape_serves_long_codewords_again_after_short_ones(rng):
    """A driver keeps one limit of shared memory for a kernel, whoever set it last."""
    for width in (150, 40, 150):
        books = rng.standard_normal((1, 20, width)).astype(np.float32)
        x = rng.standard_normal((9, width)).astype(np.float32)
        codes = on_the_gpu(SHAPES=((8, 1),))["encode"](x, books)
        np.testing.assert_array_equal(codes, rvq_np.encode(x, books))


# what training needs ---------------------------------------------------------------------------


@pytest.mark.parametrize("leaf", [1, 2, 7, dispatch.LEAF])
@pytest.mark.parametrize("rows", [0, 1, 13, 100, 333])
def test_tallies_have_the_bits_of_the_host(leaf, rows, rng, monkeypatch):
    monkeypatch.setattr(dispatch, "LEAF", leaf)
    books = rng.standard_normal((3, 12, 6)).astype(np.float32)
    sizes = 2.0 ** rng.integers(-30, 30, (rows, 6))  # or no sum would be rounded
    x = (rng.standard_normal((rows, 6)) * sizes).astype(np.float32)
    codes = rvq_np.encode(x, books)
    found = codec.tally(fake_cupy.asarray(x), fake_cupy.asarray(codes), books)
    for ours, theirs in zip(found, codec.tally(x, codes, books), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", [1.0, 1e-39])
def test_kmeans_on_the_gpu_finds_the_codewords_of_the_host(size, dtype, rng):
    x = (rng.standard_normal((300, 5)) * size).astype(dtype)
    found = train.kmeans(fake_cupy.asarray(x), 16, 6, np.random.default_rng(0))
    again = train.kmeans(x, 16, 6, np.random.default_rng(0))
    for name in ("codebook", "sums", "counts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))


def test_kmeans_on_the_gpu_does_not_wait_between_rounds(rng):
    x = rng.standard_normal((300, 5)).astype(np.float32)
    before = fake_cupy.waits
    train.kmeans(fake_cupy.asarray(x), 16, 6, np.random.default_rng(0))
    few = fake_cupy.waits - before
    train.kmeans(fake_cupy.asarray(x), 16, 60, np.random.default_rng(0))
    assert fake_cupy.waits - before == 2 * few  # no round waits


@pytest.mark.parametrize("kwargs", [{}, {"quantizer_dropout": True}, {"codebook_dim": 3}])
@pytest.mark.parametrize("masked", [False, True])
def test_training_steps_are_those_of_the_host(kwargs, masked, rng):
    kwargs = {"codebook_dim": 6, **kwargs}
    here, there = (
        rvq_np.ResidualVectorQuantizer(6, n_q=3, bins=8, rng=0, **kwargs).train() for _ in range(2)
    )
    put = on_device(1)
    for _ in range(3):
        x = rng.standard_normal((4, 6, 11)).astype(np.float32)
        mask = rng.random((4, 11)) < 0.7 if masked else None
        result = there(put(x), 50, mask=None if mask is None else put(mask))
        expected = here(x, 50, mask=mask)
        assert result.quantized.device == fake_cupy.Device(1)
        np.testing.assert_array_equal(result.codes.get(), expected.codes)
        np.testing.assert_array_equal(result.quantized.get(), expected.quantized)
        np.testing.assert_allclose(result.penalty.get(), expected.penalty, rtol=1e-6)
    for name, array in here.state_dict().items():
        np.testing.assert_array_equal(there.state_dict()[name], array)


def fitted(x, **kwargs):
    """Return the state of three stages that were fitted to `x`, and the bytes that were fetched."""
    fetched, rows_per_codeword = fake_cupy.fetched, kwargs.pop("rows_per_codeword", 30)
    kwargs = {"codebook_dim": 6, "n_q": 3, "bins": 8, "kmeans_iters": 5, "rng": 0, **kwargs}
    rvq = rvq_np.ResidualVectorQuantizer(6, **kwargs).fit(x, rows_per_codeword=rows_per_codeword)
    return rvq.state_dict(), fake_cupy.fetched - fetched


@pytest.mark.parametrize(
    ("kwargs", "dtype"),
    [
        ({}, "float16"), ({}, "float32"), ({}, "float64"),
        ({"codebook_dim": 3}, "float32"), ({"kmeans_iters": 0}, "float32"),
        ({"rows_per_codeword": None}, "float32"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("batches", [{}, {"ROWS": 70}, {"ROWS": 70, "HELD": 0}])
def test_fitting_finds_the_codewords_of_the_host(kwargs, dtype, batches, rng, monkeypatch):
    for name, value in batches.items():
        monkeypatch.setattr(importlib.import_module("rvq_np.train.data"), name, value)
    x = rng.standard_normal((300, 6)).astype(dtype)
    found, _ = fitted(on_device(1)(x), **kwargs)
    expected, _ = fitted(x, **kwargs)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_fitting_takes_batches_from_the_device_where_they_are(rng):
    x = rng.standard_normal((3, 6, 40)).astype(np.float32)
    found, _ = fitted(on_device(1)(x))
    expected, _ = fitted(x)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_fitting_leaves_the_vectors_where_they_are(rng):
    few, more = (
        fitted(
            fake_cupy.asarray(rng.standard_normal((2, 6, time)).astype(np.float32)),
            rows_per_codeword=None,
            kmeans_iters=2,
        )[1]
        for time in (1500, 3000)  # whose ends are both found by several blocks
    )
    assert 0 < more == few < 6 * 4 * 2 * 1500 / 2


def test_averages_are_of_sums_on_any_device(rng):
    """Called by itself, `ema` chooses the device of the sums; none has done so before."""
    codewords, sums = (rng.standard_normal((4, 3)).astype(np.float32) for _ in range(2))
    state = train.CodebookState(codewords, codewords, np.ones(4, np.float32), True)
    counts, put = np.arange(4.0), on_device(1)
    found = train.ema(state, counts, put(sums.astype(np.float64)), 0.9)
    assert found == train.ema(state, counts, sums.astype(np.float64), 0.9)


def test_fitting_unused_codewords_and_too_few_rows(rng):
    x = np.repeat(rng.standard_normal((5, 6)), 20, axis=0).astype(np.float32)
    with pytest.warns(FewVectorsWarning, match="5 distinct vectors for 8"):
        found = fitted(fake_cupy.asarray(x))[0]
    with pytest.warns(FewVectorsWarning, match="5 distinct vectors for 8"):
        expected = fitted(x)[0]
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_fit_of_the_host_goes_on_there(rng, tmp_path):
    x = rng.standard_normal((300, 6)).astype(np.float32)

    class Stop(Exception):
        pass

    def stop(progress):
        if progress.stage == 2:
            raise Stop

    def states(x, **options):
        return train.fit(x, 3, 8, 5, np.random.default_rng(0), **options)

    with pytest.raises(Stop):
        states(x, callback=stop, checkpoint=tmp_path / "fit")
    stages = []
    options = {"callback": lambda each: stages.append(each.stage), "checkpoint": tmp_path / "fit"}
    found = states(fake_cupy.asarray(x), **options)
    assert set(stages) == {2}
    for one, other in zip(found, states(x), strict=True):
        np.testing.assert_array_equal(one.codebook, other.codebook)


@pytest.mark.parametrize("rows_per_codeword", [None, 20])
def test_a_fit_names_the_number_that_is_bad(rows_per_codeword, rng):
    x = rng.standard_normal((200, 6)).astype(np.float32)
    x[170:, 2] = np.nan
    for each in (x, fake_cupy.asarray(x)):
        with pytest.raises(NonFiniteError, match="Nothing was changed") as raised:
            train.fit(each, 1, 8, 2, np.random.default_rng(0), rows_per_codeword=rows_per_codeword)
        row = re.search(r"fit: x holds nan at \((\d+), 2\)", str(raised.value))
        assert np.isnan(x[int(row[1]), 2])


# what is said, and what waits ------------------------------------------------------------------


def test_a_call_waits_for_the_gpu_once_to_look_at_its_numbers(rng):
    books = rvq_np.Codebooks(rng.standard_normal((8, 20, 6)).astype(np.float32))
    x = fake_cupy.asarray(rng.standard_normal((30, 6)).astype(np.float32))
    codes = rvq_np.encode(x, books)
    before = fake_cupy.waits
    rvq_np.encode(x, books)
    rvq_np.encode(x, books, beam_size=4)
    rvq_np.decode(codes, books)
    assert fake_cupy.waits == before + 3


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64", "uint8"])
@pytest.mark.parametrize("piece", [1 << 14, 40])
def test_the_ends_of_rows_come_at_once(piece, dtype, rng, monkeypatch):
    """By one block of threads a row or by many, whatever the type and where the rows begin."""
    backend = importlib.import_module("rvq_np.kernels.cuda.driver")
    monkeypatch.setattr(backend, "PIECE", piece)
    for name in ("min", "max"):  # CuPy's own take a row by one block of threads
        monkeypatch.delattr(fake_cupy.ndarray, name)
    for shape in ((1, 1), (3, 40), (2, 5, 131), (1, 40007)):
        x = (100 * rng.standard_normal(shape)).astype(dtype)
        before = fake_cupy.waits
        low, high = backend.extent_later(fake_cupy.asarray(x), by_row=True)()
        assert fake_cupy.waits == before + 1
        rows = x.reshape(len(x), -1)
        np.testing.assert_array_equal(low, rows.min(axis=1))
        np.testing.assert_array_equal(high, rows.max(axis=1))
    for begin in range(1, 9):  # not where sixteen bytes begin
        low, high = backend.extent_later(fake_cupy.asarray(x)[:, begin:], by_row=True)()
        assert (low, high) == (x[:, begin:].min(), x[:, begin:].max())
    if dtype.startswith("float"):
        for place in (0, 33, 130, 299):
            x = np.zeros((2, 300), dtype)
            for bad in (np.nan, np.inf, -np.inf):
                x[1, place] = bad
                low, high = backend.extent_later(fake_cupy.asarray(x), by_row=True)()
                np.testing.assert_array_equal(low, x.min(axis=1))
                np.testing.assert_array_equal(high, x.max(axis=1))


def test_the_ends_of_bfloat16_come_at_once(rng):
    backend = importlib.import_module("rvq_np.kernels.cuda.driver")
    x = rng.standard_normal((2, 300)).astype(ml_dtypes.bfloat16)
    low, high = backend.extent_later(fake_cupy.asarray(x), by_row=True)()
    np.testing.assert_array_equal(low, x.astype(np.float32).min(axis=1))
    np.testing.assert_array_equal(high, x.astype(np.float32).max(axis=1))
    x[0, 77] = np.nan
    ends = backend.extent_later(fake_cupy.asarray(x), by_row=True)()
    np.testing.assert_array_equal(np.isnan(ends), [[True, False]] * 2)


def test_nothing_that_is_asked_for_later_is_waited_for(rng):
    backend = importlib.import_module("rvq_np.kernels.cuda.driver")
    x = rng.standard_normal((2, 300))
    before = fake_cupy.waits
    later = backend.extent_later(fake_cupy.asarray(x), by_row=True)
    assert fake_cupy.waits == before
    np.testing.assert_array_equal(later(), [x.min(axis=1), x.max(axis=1)])
    assert fake_cupy.waits == before + 1


@pytest.mark.parametrize("size", [20, 1, 300])
def test_numbers_and_codes_that_are_checked_meanwhile_do_no_harm(size, rng):
    """Kernels run before the checks have spoken: they read and write no array beyond its ends."""
    backend = importlib.import_module("rvq_np.kernels.cuda.driver")
    books = rvq_np.Codebooks(rng.standard_normal((3, size, 6)).astype(np.float32))
    x = rng.standard_normal((70, 6)).astype(np.float32)
    for bad in (np.nan, np.inf, -np.inf, 3e38):
        x[::3, 2] = bad
        here = fake_cupy.asarray(x)
        for beam_size in (1, 2):
            codes = backend.encode(here, books.prepared(backend, here), beam_size).get()
            assert ((codes >= 0) & (codes < size)).all()
    wild = fake_cupy.asarray(np.int32([[-(2**31), 2**31 - 1, 0, size]] * 3))
    assert backend.decode(wild, books.prepared(backend, here)).shape == (4, 6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_numbers_are_named_and_bad_codes_too(bad, rng):
    books = rng.standard_normal((2, 20, 6)).astype(np.float32)
    x = rng.standard_normal((30, 6)).astype(np.float32)
    x[7, 2] = bad
    with pytest.raises(NonFiniteError, match=r"holds -?(nan|inf) at \(7, 2\)"):
        rvq_np.encode(fake_cupy.asarray(x), books)
    for wrong in (-2, 20):
        with pytest.raises(CodeRangeError, match=rf"code {wrong} at \(1, 0\)"):
            rvq_np.decode(fake_cupy.asarray(np.int32([[3], [wrong]])), books)


def test_arrays_of_two_kinds_are_refused(rng):
    books = rng.standard_normal((2, 20, 6)).astype(np.float32)
    x = rng.standard_normal((30, 6)).astype(np.float32)
    with pytest.raises(BackendError, match="kinds cupy"):
        codec.tally(fake_cupy.asarray(x), rvq_np.encode(x, books), books)


@pytest.mark.parametrize(("count", "why"), [(None, "CUDA driver"), (0, "counts 0 devices")])
def test_a_gpu_that_is_not_there_is_one_clear_error(count, why):
    with fake_cupy.installed(count):
        array = fake_cupy.asarray(np.zeros((3, 2), np.float32))
        with pytest.raises(BackendError, match=rf"cupy\.ndarray.*{why}.*rvq-np\[cuda12\]"):
            rvq_np.encode(array, np.zeros((1, 4, 2), np.float32))


# the source ------------------------------------------------------------------------------------


def test_the_source_is_whole_and_includes_nothing_of_cuda():
    for name in SOURCES:
        text = cuda.source(f"{name}.cu")
        assert "#include" not in text
        assert text.count("struct Register;") <= 1
        assert 'extern "C" __global__' in text


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", SOURCES)
def test_nvcc_compiles_the_source(name, architecture, tmp_path):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc: CI has one")
    shapes = SHAPES if name == "encode" else ((1, 1),)
    for rows, codewords in shapes:
        for real in ("float", "double") if shapes.index((rows, codewords)) == 0 else ("float",):
            form = (
                [f"-D{'FEW' if codewords == 8 else 'DEEP'}=1"]
                if name == "encode" and rows == 1
                else []
            )
            target = architecture
            if (name, rows, codewords, architecture) == ("encode", 4, 2, "90"):
                form, target = ["-DWGMMA=1"], "90a"
            done = subprocess.run(
                [
                    nvcc, "-std=c++17", "-cubin",
                    f"-gencode=arch=compute_{target},code=sm_{target}",
                    "-Werror=all-warnings",
                    f"-DREAL={real}", f"-DROW_GROUPS={rows}",
                    f"-DCODEWORD_GROUPS={codewords}", *form,
                    "-o", str(tmp_path / "out.cubin"), str(CUDA / f"{name}.cu"),
                ],
                capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
