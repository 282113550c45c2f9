"""encode, decode and tally: shapes, types, what is refused and in which codewords."""

import subprocess
import sys

import numpy as np
import pytest
from helpers import paths
from helpers.codec_cases import CODEWORDS, X, refused
from hypothesis import given
from hypothesis import strategies as st

from rvq_np import Codebooks, Linear, Stage, codec, decode, encode, warmup
from rvq_np.codec import core
from rvq_np.errors import (
    BackendError,
    DtypeError,
    ParameterError,
    ShapeError,
)
from rvq_np.kernels import tables, tiles
from rvq_np.kernels.compiled import engine as compiled
from rvq_np.kernels.compiled import follow
from rvq_np.testing import oracle, strategies


@pytest.mark.parametrize("shape", [(2,), (5, 2), (2, 3, 2), (0, 2), (2, 0, 2), (1, 2, 3, 2)])
def test_codes_are_stage_first_and_vectors_come_back_in_their_shape(shape, rng):
    x = rng.standard_normal(shape).astype(np.float32)
    codes = encode(x, CODEWORDS)
    assert codes.shape == (2, *shape[:-1])
    assert codes.dtype == np.int32
    decoded = decode(codes, CODEWORDS)
    assert decoded.shape == shape
    assert decoded.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("codewords_dtype", [np.float16, np.float32, np.float64])
def test_every_float_type_goes_in(dtype, codewords_dtype):
    x = np.array([[5, 4], [0, 1]], dtype)
    codes = encode(x, CODEWORDS.astype(codewords_dtype))
    np.testing.assert_array_equal(codes, [[1, 0], [1, 2]])
    decoded = decode(codes, CODEWORDS.astype(codewords_dtype))
    assert decoded.dtype == (np.float64 if codewords_dtype == np.float64 else np.float32)
    np.testing.assert_array_equal(decoded, x)


def test_half_precision_is_widened_before_it_is_compared(rng):
    x = rng.standard_normal((50, 8)).astype(np.float16)
    books = rng.standard_normal((3, 30, 8)).astype(np.float32)
    np.testing.assert_array_equal(encode(x, books), encode(x.astype(np.float32), books))


@pytest.mark.parametrize("numba", [True, False])
def test_distances_that_float64_rounds_to_one_are_compared_exactly(numba, rng):
    """Squares of 2**54 and of ones: float64 loses some of the ones, others in another order."""
    for _ in range(40):
        book = np.zeros((2, 24), np.float32)
        for codeword, ones in zip(book, (10, 9), strict=True):
            codeword[rng.permutation(24)[: ones + 1]] = 1
            codeword[np.flatnonzero(codeword)[rng.integers(ones + 1)]] = 2.0**27
        nearest = int(rng.integers(2))
        book = book[::-1] if nearest == 0 else book
        with paths.inside_of(numba):
            assert encode(np.zeros((1, 24), np.float32), book[None]).tolist() == [[nearest]]


@given(strategies.near_ties(dtype=np.float64))
def test_float64_vectors_with_float32_codewords_are_settled_in_float64(case):
    x, books = case
    if np.abs(books).max() > 1e30 or 0 < np.abs(x).max() < 1e-30:
        return  # outside float32
    books = books.astype(np.float32)
    expected = [oracle.encode(row, books, "float64") for row in x.tolist()]
    np.testing.assert_array_equal(encode(x, books).T, expected)


@pytest.mark.parametrize("integer", [np.int8, np.uint8, np.int16, np.int64, np.uint64])
def test_decode_takes_codes_of_any_integer_type(integer):
    np.testing.assert_array_equal(decode(np.array([[1], [2]], integer), CODEWORDS), [[4, 5]])


def test_no_rows_of_codes_are_the_zero_vector():
    np.testing.assert_array_equal(decode(np.empty((0, 3), int), CODEWORDS), np.zeros((3, 2)))


def test_decode_starts_from_zero_so_that_no_minus_zero_comes_out():
    codewords = np.float32([[[-0.0, 1.0]]])
    for path in (paths.inside(), paths.inside(paths.without_numba), paths.array_api()):
        assert not np.signbit(path["decode"](np.zeros((1, 1), np.int32), codewords)).any()


def test_the_input_is_left_as_it_was(rng):
    x = rng.standard_normal((300, 2)).astype(np.float32)
    before = x.copy()
    encode(x, CODEWORDS)
    codec.tally(x, encode(x, CODEWORDS), CODEWORDS)
    np.testing.assert_array_equal(x, before)


def test_repeated_codewords_are_never_chosen_twice_over(rng):
    codewords = rng.standard_normal((5, 3)).astype(np.float32)
    doubled = np.concatenate([codewords, codewords[::-1], -0.0 * codewords, 0.0 * codewords])
    codes = encode(rng.standard_normal((500, 3)).astype(np.float32), doubled[None])
    assert codes.max() <= 10
    mask = tables.repeats(doubled)
    np.testing.assert_array_equal(mask, [False] * 5 + [True] * 5 + [False] + [True] * 9)
    table = tables.search_tables(Stage(doubled), np.dtype(np.float32))
    np.testing.assert_array_equal(np.isinf(table.half), mask)


def test_an_all_zero_codebook_gives_code_zero(rng):
    x = rng.standard_normal((40, 3)).astype(np.float32)
    assert not encode(x, np.zeros((2, 1024, 3), np.float32)).any()


def test_a_codebook_of_one_huge_codeword_among_small_ones_is_still_exact(rng):
    codewords = rng.standard_normal((20, 4)).astype(np.float32)
    codewords[7] = 1e18
    x = rng.standard_normal((50, 4)).astype(np.float32)
    expected = [oracle.encode(row, codewords[None]) for row in x.tolist()]
    np.testing.assert_array_equal(encode(x, codewords[None]).T, expected)


@given(strategies.collapsed(), st.data())
def test_codes_that_follow_codewords_that_all_but_coincide_are_those_of_the_search(case, data):
    """Repeats that leave their twins, codewords that become repeats, all a few steps apart."""
    x, books = case
    movers = data.draw(st.sampled_from([None, 0, 1, 3]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    with paths.patched((follow.Followed, "_movers", lambda self, moved: movers)):
        again = core.follow(x)
        codewords = books[0]
        for _ in range(4):
            np.testing.assert_array_equal(again(Codebooks([codewords])), encode(x, codewords[None]))
            codewords = np.where(
                rng.random((len(codewords), 1)) < 0.4, rng.permutation(codewords), codewords
            )


def rounding_one_way(dtype, dim=128):
    """A row and two codewords whose computed scores err by almost the whole bound, in opposite
    ways.

    The half norm is just above one, and every product just below, or above, half its last place:
    each addition to the running sum rounds the same way.
    """
    digits = np.finfo(dtype).nmant + 1
    small = 2.0 ** (-digits // 3)
    left, right = 2.0 ** -(digits // 2 + 1), 2.0 ** -(digits - digits // 2 - 1)
    row = np.full(dim, left * (1 - 2 * small), dtype)
    near, far = np.full(dim, right * (1 + small), dtype), np.full(dim, -right * (1 - small), dtype)
    row[0] = 0
    far[0] = near[0] = np.sqrt(2 * (1 + 2.0 ** (-digits + 13)))
    assert oracle.score(row.tolist(), near.tolist()) < oracle.score(row.tolist(), far.tolist())
    while oracle.score(row.tolist(), near.tolist()) < oracle.score(row.tolist(), far.tolist()):
        last = near[0]
        near[0] = np.nextafter(near[0], dtype(np.inf))
    near[0] = last
    return row, np.stack([far, near])


@pytest.mark.parametrize(
    "path",
    [paths.inside(), paths.inside(paths.without_numba), paths.array_api(), paths.beam_of_one()],
    ids=["numba", "plain", "array api", "beam"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bound_covers_sums_that_round_one_way_all_along(path, dtype):
    row, codewords = rounding_one_way(dtype)
    np.testing.assert_array_equal(path["encode"](row[None], codewords[None]), [[1]])


@pytest.mark.parametrize(
    "path",
    [paths.inside(), paths.inside(paths.without_numba), paths.array_api("no_float64")],
    ids=["numba", "plain", "no float64"],
)
def test_products_beyond_float32_do_not_win(path):
    """The product with codeword 0 is infinite in float32, and its score minus infinity."""
    x, codewords = np.float32([[1.3e19]]), np.float32([[[4e19], [1.3e19]]])
    np.testing.assert_array_equal(path["encode"](x, codewords), [[1]])


@given(strategies.lattices())
def test_tallies_of_two_parts_add_up_to_that_of_the_whole(case):
    x, books = case
    codes = encode(x, books)
    counts, sums = codec.tally(x, codes, books)
    half = len(x) // 2
    left = codec.tally(x[:half], codes[:, :half], books)
    right = codec.tally(x[half:], codes[:, half:], books)
    residual = x.copy()
    for q, codewords in enumerate(books):
        np.testing.assert_array_equal(counts[q], np.bincount(codes[q], minlength=len(codewords)))
        np.testing.assert_array_equal(counts[q], left[0][q] + right[0][q])
        np.testing.assert_array_equal(sums[q], left[1][q] + right[1][q])
        expected = np.zeros(codewords.shape)
        for code, row in zip(codes[q], residual, strict=True):
            expected[code] += row
        np.testing.assert_array_equal(sums[q], expected)
        residual -= codewords[codes[q]]


def test_the_bits_of_a_tally_depend_on_neither_threads_nor_kernels(rng):
    x = (rng.standard_normal((5000, 6)) * 1e3).astype(np.float32)
    books = rng.standard_normal((2, 9, 6)).astype(np.float32)
    codes = encode(x, books)
    with paths.patched((codec.dispatch, "LEAF", 300)):
        with paths.threads(1):
            one = codec.tally(x, codes, books)
        with paths.threads(3):
            three = codec.tally(x, codes, books)
        with paths.without_numba():
            plain = codec.tally(x, codes, books)
    for other in (three, plain):
        np.testing.assert_array_equal(one[1], other[1])
        np.testing.assert_array_equal(one[0], other[0])


def test_projected_stages_keep_their_regret_bound(rng):
    """Each chosen codeword is as near to the projected residual as the best one, up to rounding."""
    stages = [
        Stage(
            rng.standard_normal((40, 6)),
            Linear(rng.standard_normal((6, 10)), rng.standard_normal(6)),
            Linear(rng.standard_normal((10, 6)) / 6, rng.standard_normal(10)),
        )
        for _ in range(3)
    ]
    books = Codebooks(
        [Stage(s.codebook.astype(np.float32), s.project_in, s.project_out) for s in stages]
    )
    x = rng.standard_normal((200, 10)).astype(np.float32)
    codes = encode(x, books)
    left = x.astype(np.float64)
    for q, stage in enumerate(books.stages):
        searched = left @ stage.project_in.weight.T + stage.project_in.bias
        distances = np.square(searched[:, None] - stage.codebook[None]).sum(axis=2)
        chosen = distances[np.arange(len(x)), codes[q]]
        scale = np.square(searched).sum(axis=1) + np.square(stage.codebook).sum(axis=1).max()
        assert (chosen - distances.min(axis=1) <= 32 * np.finfo(np.float32).eps * scale).all()
        decoded = stage.codebook.astype(np.float64) @ stage.project_out.weight.T
        left = left - (decoded + stage.project_out.bias)[codes[q]]
    np.testing.assert_allclose(decode(codes, books), x - left, rtol=0, atol=2e-5)


def test_codes_and_vectors_are_written_where_the_caller_says(rng):
    x = rng.standard_normal((3, 50, 2)).astype(np.float32)
    codes, vectors = np.empty((2, 3, 50), np.int32), np.empty((3, 50, 2), np.float32)
    assert encode(x, CODEWORDS, out=codes) is codes
    np.testing.assert_array_equal(codes, encode(x, CODEWORDS))
    assert decode(codes, CODEWORDS, out=vectors) is vectors
    np.testing.assert_array_equal(vectors, decode(codes, CODEWORDS))
    encode(x, CODEWORDS, 1, out=codes[:1])
    np.testing.assert_array_equal(codes[:1], encode(x, CODEWORDS, 1))
    encode(x, CODEWORDS, beam_size=3, out=codes)
    np.testing.assert_array_equal(codes, encode(x, CODEWORDS, beam_size=3))
    decode(codes[:0], CODEWORDS, out=vectors)
    assert not vectors.any()


def test_a_call_may_say_how_many_threads(rng):
    x = rng.standard_normal((3000, 2)).astype(np.float32)
    seen = []
    original = tiles._pool

    def pool(workers):
        seen.append(workers)
        return original(workers)

    with paths.patched((tiles, "_pool", pool), (compiled, "ALONE", 0)), paths.threads(2):
        codes = encode(x, CODEWORDS, threads=3)
        assert set(seen) == {2}  # and the calling thread
        np.testing.assert_array_equal(encode(x, CODEWORDS), codes)
        assert set(seen) == {2, 1}
        seen.clear()
        np.testing.assert_array_equal(encode(x, CODEWORDS, threads=1), codes)
        np.testing.assert_array_equal(
            decode(codes, CODEWORDS, threads=1), decode(codes, CODEWORDS, threads=4)
        )
    assert set(seen) <= {3}
    refused(ParameterError, ValueError, "encode: threads is 0; expected a whole number from 1",
            encode, x, CODEWORDS, threads=0)  # fmt: skip
    refused(
        ParameterError, ValueError, "decode: threads is 1.5", decode, codes, CODEWORDS, threads=1.5
    )


def test_a_place_for_results_that_cannot_take_them_is_refused():
    codes, vectors = np.zeros((2, 4), np.int32), np.empty((4, 2), np.float32)
    refused(ShapeError, ValueError, r"encode: out has shape \(4, 2\); expected \(2, 4\), writeable",
            encode, X, CODEWORDS, out=np.empty((4, 2), np.int32))  # fmt: skip
    refused(
        ShapeError, ValueError, "in C order", encode, X, CODEWORDS, out=np.empty((4, 2), "i4").T
    )
    refused(DtypeError, TypeError, "encode: out has dtype int64; expected int32",
            encode, X, CODEWORDS, out=np.empty((2, 4), np.int64))  # fmt: skip
    refused(BackendError, TypeError, "encode: out is a list for a ndarray; out= is for NumPy",
            encode, X, CODEWORDS, out=[])  # fmt: skip
    refused(DtypeError, TypeError, "decode: out has dtype float64; expected float32",
            decode, codes, CODEWORDS, out=vectors.astype(float))  # fmt: skip
    vectors.setflags(write=False)
    refused(ShapeError, ValueError, "writeable", decode, codes, CODEWORDS, out=vectors)


@pytest.mark.parametrize("movers", [0, 1, 7, 24, 48])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codes_that_follow_moving_codewords_are_those_of_the_search(movers, dtype):
    """Rows whose codeword cannot have changed are not searched; that must never show.

    Two dimensions, so that many rows are near a border, and codewords that move across them: some
    far, most a little, some not at all.
    """
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x, codewords = rng.standard_normal((400, 2)).astype(dtype), rng.standard_normal((48, 2))
        with paths.patched((follow.Followed, "_movers", lambda self, moved: movers)):
            again = core.follow(x)
            for _ in range(6):
                books = Codebooks([codewords.astype(np.float32)])
                np.testing.assert_array_equal(again(books), encode(x, books))
                far = rng.choice([0, 1e-3, 0.03, 0.3], size=(48, 1), p=[0.3, 0.3, 0.3, 0.1])
                codewords = codewords + far * rng.standard_normal(codewords.shape)


def test_a_repeated_codeword_that_moves_away_from_its_twin_is_seen(rng):
    x = rng.standard_normal((200, 2)).astype(np.float32)
    codewords = 2 * rng.standard_normal((6, 2)).astype(np.float32)
    codewords[5] = codewords[0] = 0
    with paths.patched((follow.Followed, "_movers", lambda self, moved: 0)):
        again = core.follow(x)
        for _ in range(3):
            np.testing.assert_array_equal(again(Codebooks([codewords])), encode(x, codewords[None]))
            codewords = codewords.copy()
            codewords[5] += 0.05


def test_a_codeword_that_moves_to_a_tie_wins_or_loses_by_its_index():
    """Whole numbers, so that a row is often as far from the codeword that moved as from its own."""
    for seed in range(150):
        rng = np.random.default_rng(seed)
        x = rng.integers(-6, 7, (60, 2)).astype(np.float32)
        codewords = np.unique(rng.integers(-6, 7, (9, 2)), axis=0).astype(np.float32)
        rng.shuffle(codewords)
        with paths.patched((follow.Followed, "_movers", lambda self, moved: 1)):
            again = core.follow(x)
            for _ in range(4):
                np.testing.assert_array_equal(
                    again(Codebooks([codewords])), encode(x, codewords[None])
                )
                codewords = codewords.copy()
                codewords[rng.integers(len(codewords))] += rng.integers(-1, 2, 2)


def test_following_spares_most_of_the_search_on_clusters(rng):
    centres = 10 * rng.standard_normal((64, 16))
    x = (centres[rng.integers(0, 64, 4000)] + rng.standard_normal((4000, 16))).astype(np.float32)
    searched = []
    original = follow.Followed._nearest

    def counted(self, stages, rows):
        searched.append(len(rows) * len(stages[0].codebook))
        return original(self, stages, rows)

    with paths.patched((follow.Followed, "_nearest", counted)):
        again = core.follow(x)
        for step in range(5):
            codewords = (centres + 0.1 * rng.standard_normal(centres.shape)).astype(np.float32)
            codewords[:2] += step  # these move far
            np.testing.assert_array_equal(again(Codebooks([codewords])), encode(x, codewords[None]))
    assert searched[0] == 4000 * 64
    assert sum(searched[1:]) < searched[0]


def test_warming_up_compiles_for_the_types_asked_for():
    assert warmup()
    with paths.without_numba():
        assert not warmup(np.float32, np.float64)
    refused(
        DtypeError, TypeError, "warmup: got int32; expected float32 or float64", warmup, np.int32
    )


@pytest.mark.slow
def test_warming_up_compiles_what_maps_need():
    """In a process of its own, where nothing was compiled before."""
    text = """
import numpy as np, rvq_np
from rvq_np import Codebooks, Linear, Projected, Stage
rvq_np.warmup()
from rvq_np.kernels.compiled import beam, engine, follow, gather, search
def compiled_now():
    every = [each for module in (engine, follow, gather, beam, search)
             for each in vars(module).values()]
    return sum(len(each.signatures) for each in every if hasattr(each, "signatures"))
before = compiled_now()
def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
maps = Linear(normal(3, 6), normal(3)), Linear(normal(6, 3), normal(6))
x = normal(9, 6)
for metric in ("euclidean", "cosine"):
    rvq_np.decode(rvq_np.encode(x, Codebooks([Stage(normal(20, 3), *maps, metric)] * 2)),
                  Codebooks([Stage(normal(20, 3), *maps)] * 2))
rvq_np.encode(x, Codebooks([Stage(normal(20, 3), *maps)] * 2), beam_size=3)
rvq_np.encode(x, Projected(normal(2, 20, 3), *maps))
print(before, compiled_now())
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 0 < before == after


@pytest.mark.parametrize("n_q", [1, 2])
def test_vectors_are_left_alone_by_the_last_stage_too(n_q, rng):
    """A single stage searches the memory of the caller, without a copy; read-only or not."""
    x = rng.standard_normal((50, 6)).astype(np.float32)
    books, before = rng.standard_normal((3, 9, 6)).astype(np.float32), x.copy()
    codes = encode(x, books, n_q)
    np.testing.assert_array_equal(x, before)
    x.setflags(write=False)
    np.testing.assert_array_equal(encode(x, books, n_q), codes)
