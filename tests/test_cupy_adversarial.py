"""Codes of the CUDA kernels where they are hardest to find, on a GPU made of this processor.

No evidence for a GPU, see `emulated`.  Every answer is worked out by `rvq_np.testing.oracle`.
"""

import platform
import shutil

import numpy as np
import pytest
from helpers.emulated import fake_cupy

from rvq_np import Codebooks
from rvq_np.kernels import dispatch
from rvq_np.testing import oracle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("g++") is None or platform.machine() != "x86_64",
        reason="the emulated GPU is compiled by g++ and switches between threads on x86-64 only",
    ),
]
SHAPES = [(8, 1), (4, 2), (2, 4), (1, 8), (1, 4), (1, 1)]
TYPES = ["float32", "float64"]


@pytest.fixture(scope="module")
def cp():
    with fake_cupy.installed() as made:
        yield made


@pytest.fixture(params=SHAPES, ids=lambda each: f"{each[0]}x{each[1]}")
def shape(request, cp, monkeypatch):
    from rvq_np.kernels.cuda import launch

    monkeypatch.setattr(launch, "SHAPES", (request.param,))
    return request.param


def found(cp, x, codebooks, **options):
    """Return codes, and what they decode to, of the kernels; every thread order is a new one."""
    from rvq_np.kernels.cuda import driver as backend

    fake_cupy.seed += 1
    here = cp.asarray(x)
    prepared = backend.prepare(Codebooks(codebooks), here)
    codes = backend.encode(here, prepared, **options)
    return codes.get(), backend.decode(codes, prepared).get()


def check(cp, x, codebooks):
    codes, vectors = found(cp, x, codebooks)
    kind = vectors.dtype.name
    for row, own, vector in zip(x, codes.T, vectors, strict=True):
        expected = oracle.encode(row, codebooks, kind)
        assert own.tolist() == expected, (row, own, expected)
        assert vector.tolist() == oracle.decode(expected, codebooks, kind)


def powers(rng, size, low, high, dtype):
    """Return numbers whose exponents are all over a range."""
    drawn = rng.uniform(1, 2, size) * 2.0 ** rng.integers(low, high, size)
    return (drawn * rng.choice([-1.0, 1.0], size)).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_exponents_all_over_the_range(cp, shape, dtype):
    rng = np.random.default_rng(1)
    low, high = (-150, 126) if dtype == "float32" else (-1080, 1020)
    for _ in range(6):
        width, size = rng.integers(1, 20), rng.integers(1, 40)
        ends = np.sort(rng.integers(low, high, 4))
        codewords = [powers(rng, (size, width), ends[0], ends[2] + 1, dtype) for _ in range(2)]
        x = powers(rng, (5, width), ends[1], ends[3] + 1, dtype)
        x[0] = codewords[0][-1]
        check(cp, x, codewords)


@pytest.mark.parametrize("dtype", TYPES)
def test_rows_and_codewords_of_sizes_far_apart(cp, shape, dtype):
    rng = np.random.default_rng(2)
    bottom, top = (-149, 120) if dtype == "float32" else (-1070, 1015)
    for of_codewords, of_rows in (
        (0, -38), (0, -39), (0, -41), (0, -80), (0, bottom), (0, 39), (0, 41), (0, top),
        (bottom, bottom), (bottom, 0), (bottom, top), (bottom + 20, bottom + 20), (top, top),
        (top, bottom), (bottom + 25, bottom), (bottom + 10, bottom + 30),
    ):  # fmt: skip
        codewords = powers(rng, (9, 3), of_codewords, of_codewords + 4, dtype)
        x = powers(rng, (4, 3), of_rows, of_rows + 4, dtype)
        x[-1] += codewords[4]
        check(cp, x, [codewords, codewords[::-1].copy()])


@pytest.mark.parametrize("dtype", TYPES)
def test_codewords_at_the_mean_score_zero(cp, shape, dtype):
    """The score of such a codeword is a zero, of either sign, that carries the codeword's place."""
    rng = np.random.default_rng(3)
    for size in (1, 3, 9, 65, 131):
        half = rng.integers(1, 9, (size // 2, 2)).astype(dtype)
        codewords = np.concatenate([half, np.zeros((1, 2), dtype), -half])
        codewords = codewords[rng.permutation(len(codewords))]
        x = np.concatenate([np.zeros((2, 2), dtype), codewords[:3] / 8, -codewords[-2:] / 4])
        check(cp, x, [codewords, codewords + 3])


@pytest.mark.parametrize("dtype", TYPES)
def test_equal_codewords_and_exact_ties(cp, shape, dtype):
    rng = np.random.default_rng(4)
    for size in (2, 70, 300):
        codewords = rng.integers(-1, 2, (size, 2)).astype(dtype)
        x = (rng.integers(-3, 4, (6, 2)) / 2).astype(dtype)
        check(cp, x, [codewords, codewords / 2])
        check(cp, x, [np.full((size, 2), 1.5, dtype), codewords])


@pytest.mark.parametrize("dtype", TYPES)
def test_codewords_that_differ_in_the_last_bits(cp, shape, dtype):
    rng = np.random.default_rng(5)
    tiny = np.finfo(dtype).smallest_subnormal
    for scale in (1.0, 1e-30, float(np.finfo(dtype).tiny)):
        base = (rng.standard_normal((1, 4)) * scale).astype(dtype)
        step = np.maximum(np.abs(base) * np.finfo(dtype).eps, tiny)
        codewords = (base + rng.integers(-2, 3, (40, 4)) * step).astype(dtype)
        x = (base + rng.integers(-3, 4, (5, 4)) * step).astype(dtype)
        check(cp, x, [codewords])
    check(cp, np.array([[-tiny], [tiny]], dtype), [np.array([[-3], [1], [3]], dtype) * tiny])
    codewords = (rng.integers(-3, 4, (20, 3)) * tiny).astype(dtype)
    check(
        cp, (rng.integers(-5, 6, (5, 3)) * tiny).astype(dtype), [codewords, codewords[::-1].copy()]
    )


def test_more_codewords_than_places(cp, shape):
    """Places of a score start over after 256 eights of codewords of a warp; so do classes."""
    rng = np.random.default_rng(6)
    window = 2048 * shape[1]
    for size in (window - 1, window + 1, window + 8 * shape[1] + 3):
        codewords = rng.standard_normal((size, 2)).astype(np.float32)
        codewords[-1] = codewords[window // 2] = [9.0, 9.0]  # equal, in two windows
        codewords[-2] = [-9.0, 9.0]
        x = np.array([[9, 9], [-9, 9], [8.9, 9.2], [0.01, 0.0]], np.float32)
        x = np.concatenate([x, codewords[[0, -3]], rng.standard_normal((2, 2)).astype(np.float32)])
        codes, _ = found(cp, x, [codewords])
        far = ((x.astype(np.float64)[:, None] - codewords.astype(np.float64)) ** 2).sum(axis=2)
        assert codes[0].tolist() == far.argmin(axis=1).tolist()


def test_odd_sizes(cp, shape):
    rng = np.random.default_rng(7)
    sizes = ((1, 1, 1), (2, 17, 2), (33, 63, 5), (31, 65, 63), (257, 2, 7), (9, 130, 33))
    for n, width, size in sizes:
        codewords = [rng.standard_normal((size, width)).astype(np.float32) for _ in range(2)]
        x = rng.standard_normal((n, width)).astype(np.float32)
        x[0] = (codewords[0][0] + codewords[0][-1]) / 2
        codes, _ = found(cp, x, codewords)
        assert np.array_equal(
            codes, dispatch.encode(x, dispatch.prepare(Codebooks(codewords), x.dtype))
        )
        for row in (0, n - 1):
            assert codes[:, row].tolist() == oracle.encode(x[row], codewords)


@pytest.mark.parametrize("dtype", TYPES)
def test_beams_of_numbers_below_the_normal_ones(cp, dtype):
    rng = np.random.default_rng(8)
    tiny = np.finfo(dtype).smallest_subnormal
    codewords = [(rng.integers(-40, 41, (9, 3)) * tiny).astype(dtype) for _ in range(3)]
    x = (rng.integers(-90, 91, (6, 3)) * tiny).astype(dtype)
    codes, vectors = found(cp, x, codewords, beam_size=3)
    stages = dispatch.prepare(Codebooks(codewords), x.dtype)
    assert np.array_equal(codes, dispatch.encode(x, stages, 3))
    assert np.array_equal(vectors, dispatch.decode(codes, stages))


@pytest.mark.parametrize(
    ("of_rows", "of_codewords"), [("float32", "float64"), ("float64", "float32")]
)
def test_small_numbers_outlive_a_change_of_type(cp, of_rows, of_codewords):
    rng = np.random.default_rng(9)
    codewords = (rng.integers(-40, 41, (9, 3)) * 2.0**-149).astype(of_codewords)
    x = (rng.integers(-90, 91, (6, 3)) * 2.0**-149).astype(of_rows)
    codes, vectors = found(cp, x, [codewords])
    assert codes.T.tolist() == [oracle.encode(row, [codewords], "float64") for row in x]
    assert vectors.dtype == np.float64


def test_sums_of_small_numbers_are_those_of_the_host(cp):
    from rvq_np.kernels.cuda import driver as backend

    rng = np.random.default_rng(10)
    codewords = [powers(rng, (5, 3), -149, -120, np.float32) for _ in range(2)]
    x = powers(rng, (40, 3), -149, -120, np.float32)
    here, codebooks = cp.asarray(x), Codebooks(codewords)
    prepared, stages = backend.prepare(codebooks, here), dispatch.prepare(codebooks, x.dtype)
    codes = dispatch.encode(x, stages)
    counts, sums = backend.tally(here, cp.asarray(codes), prepared)
    expected = dispatch.tally(x, codes, stages)
    assert all(map(np.array_equal, counts, expected[0]))
    assert all(map(np.array_equal, sums, expected[1]))
    assert np.array_equal(here.get(), x)


def test_widths_share_the_kernels_of_one_module(cp, monkeypatch):
    """The narrower must not take shared memory from the wider, whose kernel is kept."""
    from rvq_np.kernels.cuda import launch

    monkeypatch.setattr(launch, "SHAPES", ((8, 1),))
    rng = np.random.default_rng(11)
    for width in (130, 40, 130):
        codewords = rng.standard_normal((3, width)).astype(np.float32)
        codes, _ = found(cp, codewords, [codewords])
        assert codes[0].tolist() == [0, 1, 2]


def test_codes_are_written_into_columns_of_an_array(cp, monkeypatch):
    from rvq_np.kernels.cuda import driver

    monkeypatch.setattr(driver, "NUMBERS", 36)
    rng = np.random.default_rng(12)
    codewords = [rng.standard_normal((6, 4)).astype(np.float32) for _ in range(3)]
    check(cp, rng.standard_normal((23, 4)).astype(np.float32), codewords)
