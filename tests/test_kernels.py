"""The compiled kernels: no screen says too much, whatever the sizes, threads or processor."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from helpers import paths
from helpers.kernel_cases import EACH_SCREEN, IN_PANEL, grid, projected, stage_of

import rvq_np
from rvq_np.kernels import dispatch, tables, tiles
from rvq_np.kernels.compiled import engine as compiled
from rvq_np.kernels.compiled import packing, search
from rvq_np.kernels.compiled import target as processor
from rvq_np.testing import oracle


@pytest.fixture(scope="module")
def small():
    """Stages whose panels stay in the cache, of all sizes, two of them projected."""
    rng = np.random.default_rng(1)
    dim = 11
    stages = [rvq_np.Stage(grid(rng, k, dim)) for k in (40, 1, IN_PANEL + 1, 200)]
    stages.insert(1, projected(rng, 30, 5, dim))
    stages.insert(4, projected(rng, 3 * IN_PANEL, 23, dim))
    return grid(rng, 1600, dim) + grid(rng, 1600, dim) / 64, rvq_np.Codebooks(stages)


@pytest.fixture(scope="module")
def large():
    """Stages whose panels do not stay in the cache, met a run at a time, and a small one."""
    rng = np.random.default_rng(2)
    dim = 160
    stages = [
        rvq_np.Stage(rng.standard_normal((k, dim)).astype(np.float32)) for k in (4096, 90, 3001)
    ]
    stages.insert(1, projected(rng, 2048, 257, dim))
    return rng.standard_normal((776, dim)).astype(np.float32), rvq_np.Codebooks(stages)


def plain_codes(x, books):
    with paths.without_numba():
        return rvq_np.encode(x, books)


@EACH_SCREEN
def test_any_number_of_rows_gives_the_same_codes(screen, small):
    x, books = small
    expected = plain_codes(x, books)
    near = [n for edge in (48, 384, 768, 1152, 1536) for n in range(edge - 1, edge + 2)]
    with paths.screen(screen)():
        stages = dispatch.prepare(books, x.dtype)
        for n in [*range(14), *near, 389, 390, 391, 1600]:
            np.testing.assert_array_equal(dispatch.encode(x[:n], stages), expected[:, :n])


@EACH_SCREEN
def test_two_equally_near_codewords_anywhere_are_both_found(screen, rng):
    """Each row is as far from both, all others are far: the lower index wins, wherever they are."""
    count, dim = 2 * IN_PANEL + 1, 6
    for one in range(0, count, 3):
        for other in {(one + 1) % count, (one + IN_PANEL // 2) % count, count - 1} - {one}:
            row, away = rng.integers(-8, 9, dim), rng.integers(1, 5, dim)
            codewords = row + rng.choice([-1, 1], (count, dim)) * rng.integers(20, 40, (count, dim))
            codewords[one], codewords[other] = row + away, row - away
            book = codewords[None].astype(np.float32)
            with paths.screen(screen)():
                codes = rvq_np.encode(row[None].astype(np.float32), book)
            assert codes.tolist() == [[min(one, other)]]


@EACH_SCREEN
def test_panels_met_a_run_at_a_time_give_the_same_codes(screen, large):
    x, books = large
    expected = plain_codes(x, books)
    with paths.screen(screen)():
        prepared = dispatch.prepare(books, x.dtype)
        plan = compiled.packed(prepared)
        panels = plan.whole[0, 2] * plan.whole[0, 3] * IN_PANEL * 4
        assert panels > search.SMALL
        assert search.block(plan, 100) > search.ROWS
        for n in (1, 2, 3, 6, 7, 8, 9, 47, 48, 49, 51, 53, 54, 385, 776):
            np.testing.assert_array_equal(dispatch.encode(x[:n], prepared), expected[:, :n])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_codes(count, large, small):
    for x, books in (large, small):
        expected = plain_codes(x, books)
        with paths.threads(count), paths.patched((compiled, "ALONE", 0)):
            for n in (5, 13, 389, len(x)):
                np.testing.assert_array_equal(rvq_np.encode(x[:n], books), expected[:, :n])


def test_any_layout_and_float_type_gives_the_same_codes(small):
    x, books = small
    halves = x.astype(np.float16)
    expected = plain_codes(halves.astype(np.float32), books)
    wide = plain_codes(halves.astype(np.float64), books)
    frozen = halves.astype(np.float32)
    frozen.setflags(write=False)
    for same in (halves, frozen, np.asfortranarray(frozen), paths.strided(frozen), frozen[::-1]):
        codes = rvq_np.encode(same, books)
        np.testing.assert_array_equal(codes[:, ::-1] if same.base is frozen else codes, expected)
    np.testing.assert_array_equal(rvq_np.encode(halves.astype(np.float64), books), wide)


@EACH_SCREEN
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("n_codewords", "dim"),
    [
        (65536, 1),
        (65536, 2),
        (65536, 3),
        (65536, 4),
        (64 * IN_PANEL + 1, 2),
        (1, 1),
        (1, 4096),
        (70, 4096),
    ],
)
def test_the_largest_and_smallest_sizes_give_the_same_codes(screen, dtype, n_codewords, dim, rng):
    codewords = rng.standard_normal((2, n_codewords, dim)).astype(dtype)
    x = np.concatenate([rng.standard_normal((9, dim)), codewords[0, -4:]]).astype(dtype)
    expected = plain_codes(x, codewords)
    with paths.screen(screen)():
        np.testing.assert_array_equal(rvq_np.encode(x, codewords), expected)


def test_beyond_the_longest_sums_of_bytes_floats_serve(rng):
    codewords = rng.standard_normal((2, compiled.DEEP + 1)).astype(np.float32)
    stages = stage_of(codewords)
    np.testing.assert_array_equal(dispatch.encode(codewords[::-1], stages), [[1, 0]])
    assert stages.kept["screen"] == compiled.SCREENS[-1]


def test_only_the_codes_of_the_rows_are_written(small):
    x, books = small
    stages = dispatch.prepare(books, x.dtype)
    codes = np.full((len(stages), 30), -7, np.int32)
    compiled.run(x[:13].copy(), compiled.packed(stages), codes, 11, np.zeros(2, np.int64))
    np.testing.assert_array_equal(codes[:, 11:24], rvq_np.encode(x[:13], books))
    assert (codes[:, :11] == -7).all()
    assert (codes[:, 24:] == -7).all()


def test_many_python_threads_may_encode_large_batches_at_once(rng):
    x = rng.standard_normal((6000, 64)).astype(np.float32)
    books = rng.standard_normal((2, 200, 64)).astype(np.float32)
    assert len(x) * books.size > compiled.ALONE
    expected = plain_codes(x, books)
    with paths.threads(3), ThreadPoolExecutor(4) as pool:
        for answer in pool.map(lambda _: rvq_np.encode(x, books), range(8)):
            np.testing.assert_array_equal(answer, expected)


def test_many_python_threads_may_encode_frames_at_once(rng):
    """Space to work in is kept from frame to frame, and that of a call under way is no other's."""
    x = rng.standard_normal((150, 512)).astype(np.float32)  # long codewords: calls that overlap
    books = rvq_np.Codebooks(rng.standard_normal((8, 1024, 512)).astype(np.float32))
    expected = plain_codes(x, books)

    def frames(start):
        return [rvq_np.encode(x[n : n + 1], books)[:, 0] for n in range(start, len(x), 3)]

    with ThreadPoolExecutor(6) as pool:
        for start, codes in enumerate(pool.map(frames, [0, 1, 2] * 2)):
            np.testing.assert_array_equal(np.transpose(codes), expected[:, start % 3 :: 3])


def test_a_call_within_a_call_has_a_workspace_of_its_own(rng):
    books = rvq_np.Codebooks(rng.standard_normal((2, 50, 6)).astype(np.float32))
    x = rng.standard_normal((3, 6)).astype(np.float32)
    workspaces, search_encode = [], search.encode

    def encode(*arguments):
        workspaces.append(
            arguments[1 + len(compiled.packed(dispatch.prepare(books, x.dtype)).arrays)]
        )
        if len(workspaces) == 1:
            rvq_np.encode(x[1:2], books)
        return search_encode(*arguments)

    rvq_np.encode(x[:1], books)  # its space is kept
    with paths.patched((search, "encode", encode)):
        for n in (0, 2):
            rvq_np.encode(x[n : n + 1], books)
    outer, inner, later = workspaces
    assert outer is not inner
    assert later is outer or later is inner


@pytest.mark.slow
def test_any_stages_of_a_whole_are_searched_by_their_own_codewords(rng):
    books = rvq_np.Codebooks(rng.standard_normal((4, 50, 6)).astype(np.float32))
    x = rng.standard_normal((3, 6)).astype(np.float32)
    whole = dispatch.prepare(books, x.dtype)
    for part in (slice(0, 3), slice(1, 3), slice(2, 3), slice(0, 4, 2), slice(1, 4, 2)):
        codes = dispatch.encode(x, whole[part])
        np.testing.assert_array_equal(codes, rvq_np.encode(x, books[part]))


def test_a_row_out_of_range_after_others_is_compared_with_every_codeword(rng):
    """Its size times the unit of so small codewords leaves float64: the screen says nothing."""
    codewords = rng.standard_normal((9, 3)) * 1e-119
    x = rng.standard_normal((5, 3)) * 1e-119
    x[2:4] = rng.standard_normal((2, 3)) * 1e299
    expected = [oracle.encode(row, [codewords.tolist()], "float64")[0] for row in x.tolist()]
    assert rvq_np.encode(x, codewords[None]).tolist() == [expected]


def test_rows_after_others_have_the_codes_they_have_alone(rng):
    """What earlier rows left in the space that is kept, of other stages, changes nothing."""
    stages = [rvq_np.Stage(rng.standard_normal((40, 7)).astype(np.float32))]
    stages += [projected(rng, n, width, 7) for n, width in ((90, 3), (900, 40), (20, 7))]
    books, again = rvq_np.Codebooks(stages), rvq_np.Codebooks(stages)
    for n_q in (1, 3, 2):  # stages have space of their own
        rvq_np.encode(np.zeros((1, 7), np.float32), books, n_q)
    x = (rng.standard_normal((60, 7)) * 10.0 ** rng.integers(-30, 18, (60, 1))).astype(np.float32)
    rows = [rvq_np.encode(x[n : n + 1 + n % 3], books) for n in range(len(x))]
    for n, codes in enumerate(rows):
        fresh = rvq_np.Codebooks(stages) if n % 10 == 0 else again
        np.testing.assert_array_equal(codes, rvq_np.encode(x[n : n + 1 + n % 3], fresh))
    np.testing.assert_array_equal(np.stack([c[:, 0] for c in rows], 1), rvq_np.encode(x, again))


def test_memory_above_input_and_output_does_not_grow_with_the_rows(rng):
    x = rng.standard_normal((200_000, 8)).astype(np.float32)
    books = rvq_np.Codebooks(rng.standard_normal((2, 64, 8)).astype(np.float32))
    codes = np.empty((2, len(x)), np.int32)
    rvq_np.encode(x[:100], books)
    with paths.traced_memory() as peak:
        rvq_np.encode(x, books, out=codes)
    assert peak[0] < 1 << 21


# Rows outside, screens given up


@EACH_SCREEN
@pytest.mark.parametrize(
    ("sizes", "most"),
    [((1.0, 1e-3, 1e-151, 1e-200, 1e-308, 5e-324), 55), ((1.0, 1e100, 1e148, 1e152, 1e300), 60)],
    ids=["tiny", "huge"],
)
def test_rows_no_expansion_can_hold_are_decided_by_hand(screen, sizes, most, monkeypatch):
    """Ties and near ties at norms whose squares, or what these lose, leave float64."""
    rng = np.random.default_rng(4)
    books = rng.integers(-3, 4, (3, 9, 4)) * rng.choice(sizes, (3, 9, 1))
    books[1] = books[0][::-1]
    books[2, 3:] = rng.standard_normal((6, 4))
    x = rng.integers(-3, 4, (60, 4)) * rng.choice(sizes, (60, 1))
    x[::3] = rng.standard_normal((20, 4))
    x[1::6] = books[0, rng.integers(9, size=10)] + books[1, rng.integers(9, size=10)]
    expected = np.transpose([oracle.encode(row, books, "float64") for row in x.tolist()])
    by_hand, original = [], compiled.by_hand

    def counted(row, stages):
        by_hand.append(row)
        return original(row, stages)

    monkeypatch.setattr(compiled, "by_hand", counted)
    with paths.screen(screen)():
        np.testing.assert_array_equal(rvq_np.encode(x, books), expected)
        assert 5 < len(by_hand) <= most
        with paths.patched((compiled, "ROWS", 7)):  # so that most tiles do not begin at row 0
            np.testing.assert_array_equal(rvq_np.encode(x, books), expected)


@pytest.mark.parametrize(
    ("largest", "codewords_exponent", "row_exponent"),
    [(0.0, -565, 390), (2.0**390, -565, 390), (0.0, -505, -505), (0.0, 505, 505)],
    ids=["small codewords", "beside a large one", "all small", "all large"],
)
@pytest.mark.parametrize(
    "path",
    [
        *(paths.inside(paths.screen(each)) for each in compiled.SCREENS),
        paths.inside(paths.without_numba),
        paths.array_api(),
        paths.beam_of_one(),
    ],
    ids=[*compiled.SCREENS, "plain", "array api", "beam"],
)
def test_ties_are_settled_where_squares_underflow(
    path, largest, codewords_exponent, row_exponent, rng
):
    """The half norms of small codewords are zero: their products with a row may be large, and err.

    Where all is small, what a product loses to rounding is lost altogether.
    """
    for _ in range(25):
        codeword = 2.0 ** rng.integers(-26, 3, 8) * rng.standard_normal(8)
        codewords = np.zeros((6, 9))
        codewords[0, 0] = largest
        codewords[1:, 1:] = 2.0**codewords_exponent * np.stack(
            [rng.permutation(codeword) for _ in range(5)]
        )
        x = np.full((1, 9), 0.7 * 2.0**row_exponent)
        x[0, 0] *= -1
        expected = oracle.encode(x[0], codewords[None], "float64")
        np.testing.assert_array_equal(path["encode"](x, codewords[None])[:, 0], expected)


def test_a_row_decided_by_hand_goes_through_projections_as_others_do():
    rng = np.random.default_rng(5)
    stages = [projected(rng, 9, 3, 4), rvq_np.Stage(grid(rng, 7, 4))]
    stages = [replace(each, codebook=each.codebook.astype(np.float64)) for each in stages]
    books = rvq_np.Codebooks(stages)
    x = grid(rng, 40, 4).astype(np.float64)
    prepared = dispatch.prepare(books, x.dtype)
    codes = plain_codes(x, books)
    for n, row in enumerate(x):
        np.testing.assert_array_equal(compiled.by_hand(row.copy(), prepared), codes[:, n])


def around_points(rng):
    """Return codewords around four points, less than a step of any screen apart, one the centre."""
    points = 1e4 * rng.standard_normal((4, 16))
    codewords = (
        points[rng.integers(4, size=300)] + 1e-2 * rng.standard_normal((2, 300, 16))
    ).astype(np.float32)
    codewords[1] = codewords[1, 0] - codewords[0]
    x = points[rng.integers(4, size=800)] + 1e-2 * rng.standard_normal((800, 16))
    return x.astype(np.float32), codewords


def test_a_screen_that_leaves_too_many_codewords_is_given_up(rng):
    x, codewords = around_points(rng)
    expected = plain_codes(x, codewords)
    stages = dispatch.prepare(rvq_np.Codebooks(codewords), x.dtype)
    with paths.patched((compiled, "GAINED", np.inf)):
        for rank in (*range(len(compiled.SCREENS)), len(compiled.SCREENS) - 1):
            assert compiled.packed(stages) is stages.kept[compiled.SCREENS[rank]]
            codes = dispatch.encode(x[: compiled.PATIENCE], stages)
            np.testing.assert_array_equal(codes, expected[:, : compiled.PATIENCE])
    np.testing.assert_array_equal(dispatch.encode(x, stages), expected)


@pytest.mark.skipif(len(compiled.SCREENS) < 2, reason="this processor has one screen")
def test_a_screen_that_the_next_one_does_not_better_serves_again(rng):
    x, codewords = around_points(rng)
    expected = plain_codes(x, codewords)
    stages = dispatch.prepare(rvq_np.Codebooks(codewords), x.dtype)
    served = []
    for _ in range(4):
        np.testing.assert_array_equal(dispatch.encode(x, stages), expected)
        served.append(stages.kept["screen"])
    assert served == [compiled.SCREENS[1], *[compiled.SCREENS[0]] * 3]


def test_a_stage_in_training_begins_with_the_screen_that_served(rng, monkeypatch):
    """For as many searches as `FORGET` says; then it is found out again."""
    monkeypatch.setattr(dispatch, "FORGET", 4)
    dispatch.load()
    codewords = rng.standard_normal((9, 4)).astype(np.float32)
    found, served = {"screen": compiled.SCREENS[-1]}, []
    for _ in range(5):
        codewords = codewords + np.float32(0.5)
        stage, codes = tables.codeword_tables(codewords.copy()), np.empty(9, np.int32)
        dispatch.search_again(codewords, stage, codes, found)
        np.testing.assert_array_equal(codes, np.arange(9))
        served.append(found["screen"])
    fastest = compiled._screens(stage_of(codewords))[0]
    assert served == [compiled.SCREENS[-1]] * 3 + [fastest] * 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codewords_may_change_their_size_between_steps_of_a_training(dtype, rng):
    """How large they were a step ago is remembered; it says nothing about the codes."""
    dispatch.load()
    codewords, found = rng.standard_normal((9, 4)).astype(dtype), {}
    for scale in (1.0, 1e-30, 1e30, 1e-40, 1.0, 0.0, 1e30):
        stage, codes = (
            tables.codeword_tables((codewords * scale).astype(dtype)),
            np.empty(9, np.int32),
        )
        dispatch.search_again(stage.codebook.copy(), stage, codes, found)
        np.testing.assert_array_equal(codes, np.arange(9) if scale else np.zeros(9))


def test_panels_are_packed_by_several_threads_as_by_one(rng, monkeypatch):
    codewords = rng.standard_normal((300, 6)).astype(np.float32)
    for screen in compiled.SCREENS:
        shape = screen, processor.LANES, processor.VECTORS, processor.PER_STEP[screen]
        alone = packing.plan(stage_of(codewords), *shape)
        with paths.threads(2):
            monkeypatch.setattr(packing, "PACKED", 1)
            together = packing.plan(stage_of(codewords), *shape)
        monkeypatch.undo()
        for name in ("panels", "side", "half"):
            np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))


@pytest.mark.parametrize(("n_codewords", "dim"), [(256, 8), (1024, 64), (1024, 256)])
def test_the_fastest_screen_is_kept_on_ordinary_data(n_codewords, dim, rng):
    x = rng.standard_normal((2000, dim)).astype(np.float32)
    codewords = rng.standard_normal((2, n_codewords, dim)).astype(np.float32)
    stages = dispatch.prepare(rvq_np.Codebooks(codewords), x.dtype)
    for _ in range(3):
        np.testing.assert_array_equal(dispatch.encode(x, stages), plain_codes(x, codewords))
    assert stages.kept["screen"] == compiled._screens(stages)[0]


def test_sums_of_16_bits_begin_only_where_codewords_are_long_enough(rng):
    """They are of four steps, 16 numbers: shorter codewords would be searched in zeros."""
    screens = ("int8", "int16", "float32")
    with paths.patched((compiled, "TARGET", compiled.TARGET._replace(screens=screens))):
        for dim, first in ((1, 1), (15, 1), (16, 0), (128, 0)):
            assert compiled._screens(stage_of(np.ones((3, dim), np.float32))) == screens[first:]


def test_a_call_does_not_wait_for_threads_that_another_keeps_busy():
    """What it asked of them and they have not begun, it has done itself."""
    busy, done = threading.Event(), threading.Event()
    with paths.threads(2):
        holding = tiles._pool(1).submit(lambda: (busy.set(), done.wait(60)))
        assert busy.wait(60)
        try:
            asked = ThreadPoolExecutor(1)
            found = asked.submit(tiles.spread, lambda item: 2 * item, range(5)).result(timeout=300)
        finally:
            done.set()
            holding.result()
            asked.shutdown()
    assert found == [0, 2, 4, 6, 8]
