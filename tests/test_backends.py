"""The one answer: every path gives the codes of the exact oracle, ties and near-ties included."""

import importlib.metadata
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import paths

import rvq_np
from rvq_np import arrays, backends, codec, train
from rvq_np.errors import BackendError
from rvq_np.testing import backend_tests, rvq_tests

slow = pytest.mark.slow  # other paths of the default set keep the same promises

TestNumba = pytest.mark.quick(rvq_tests(**paths.inside(), dropped=True))
TestNumbaFloat64 = rvq_tests(**paths.inside(), dtype=np.float64, dropped=True)
TestInt16 = rvq_tests(**paths.inside(paths.screen("int16")))
TestInt16Float64 = slow(rvq_tests(**paths.inside(paths.screen("int16")), dtype=np.float64))
TestFloat32 = rvq_tests(**paths.inside(paths.screen("float32")))
TestFloat32Float64 = slow(rvq_tests(**paths.inside(paths.screen("float32")), dtype=np.float64))
TestScreensGivenUp = slow(rvq_tests(**paths.inside(paths.impatient, paths.tiny_tiles)))
TestTinyTilesOnTwoThreads = rvq_tests(**paths.inside(paths.tiny_tiles), dropped=True)
TestPlain = pytest.mark.quick(rvq_tests(**paths.inside(paths.without_numba), dropped=True))
TestPlainFloat64 = rvq_tests(**paths.inside(paths.without_numba), dtype=np.float64, dropped=True)
TestPlainSmallBlocks = slow(rvq_tests(**paths.inside(paths.without_numba, paths.small_blocks)))
TestFortranOrder = rvq_tests(**paths.laid_out(np.asfortranarray))
TestStridedReadOnly = rvq_tests(**paths.laid_out(paths.strided))
TestRowByRow = slow(rvq_tests(**paths.row_by_row()))
TestBeamOfOne = rvq_tests(**paths.beam_of_one())
TestBeamOfOneFloat64 = slow(rvq_tests(**paths.beam_of_one(), dtype=np.float64))
TestArrayApi = pytest.mark.quick(rvq_tests(**paths.array_api()))
TestArrayApiDevice = rvq_tests(**paths.array_api("device1"))
TestArrayApiDeviceFloat64 = slow(rvq_tests(**paths.array_api("device1"), dtype=np.float64))
TestArrayApiNoFloat64 = rvq_tests(**paths.array_api("no_float64"))


@pytest.fixture(scope="module")
def large():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((1500, 24)).astype(np.float32)
    return x, rng.standard_normal((4, 200, 24)).astype(np.float32)


@pytest.mark.parametrize(
    "path",
    [
        paths.inside(paths.without_numba),
        paths.inside(lambda: paths.threads(1)),
        paths.inside(lambda: paths.threads(2)),
        paths.inside(lambda: paths.threads(3)),
        paths.inside(paths.partial_tiles),
        paths.laid_out(np.asfortranarray),
        paths.array_api(),
        paths.array_api("no_float64"),
    ],
    ids=[
        "plain",
        "1 thread",
        "2 threads",
        "3 threads",
        "partial tiles",
        "Fortran",
        "strict",
        "no float64",
    ],
)
def test_all_paths_agree_on_many_rows(large, path):
    x, books = large
    codes = rvq_np.encode(x, books)
    np.testing.assert_array_equal(path["encode"](x, books), codes)
    np.testing.assert_array_equal(path["decode"](codes, books), rvq_np.decode(codes, books))


def test_rows_that_do_not_fill_a_tile_are_served(large):
    """Into arrays that do not hold the answer already, as memory just given back may."""
    x, books = large
    codes = rvq_np.encode(x, books)
    with paths.partial_tiles():
        mine = rvq_np.encode(x, books, out=np.full_like(codes, -9))
        vectors = rvq_np.decode(codes, books, out=np.full_like(x, np.nan))
    np.testing.assert_array_equal(mine, codes)
    np.testing.assert_array_equal(vectors, rvq_np.decode(codes, books))


@pytest.mark.parametrize("split", [1, 7, 256, 257, 1499])
def test_any_batch_split_gives_the_same_codes(large, split):
    x, books = large
    parts = [rvq_np.encode(x[i : i + split], books) for i in range(0, len(x), split)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), rvq_np.encode(x, books))


def test_projected_stages_give_the_same_codes_on_every_path(large):
    x, _ = large
    rng = np.random.default_rng(6)
    stages = [
        rvq_np.Stage(
            rng.standard_normal((50, 16)),
            rvq_np.Linear(rng.standard_normal((16, 24)) / 5, rng.standard_normal(16)),
            rvq_np.Linear(rng.standard_normal((24, 16)) / 5, rng.standard_normal(24)),
        )
        for _ in range(3)
    ]
    books = rvq_np.Codebooks(stages)
    codes = rvq_np.encode(x, books)
    for path in (
        paths.inside(paths.without_numba),
        paths.inside(paths.tiny_tiles),
        paths.array_api("device1"),
    ):
        np.testing.assert_array_equal(path["encode"](x[:200], books), codes[:, :200])


@pytest.mark.parametrize("device", ["CPU_DEVICE", "device1", "no_float64"])
def test_all_of_a_backend_works_on_a_device(large, device):
    import array_api_strict as xp

    x, books = large[0][:50], large[1]
    there = xp.asarray(x, device=xp.Device(device))
    for beam in (1, 3):
        codes = rvq_np.encode(there, books, beam_size=beam)
        assert codes.device == there.device
        np.testing.assert_array_equal(
            np.from_dlpack(codes), rvq_np.encode(x, books, beam_size=beam)
        )
    counts, sums = codec.tally(there, codes, books)
    expected = codec.tally(x, np.from_dlpack(codes), books)
    np.testing.assert_array_equal(counts, expected[0])
    np.testing.assert_array_equal(sums, expected[1])
    none = rvq_np.decode(codes[:0, :], books)
    assert none.device == there.device
    assert none.shape == (50, 24)
    assert not np.from_dlpack(none).any()
    found = train.kmeans(there, 6, 3, np.random.default_rng(0))
    again = train.kmeans(x, 6, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(found.codebook, again.codebook)


class Column:
    """An array of a library that has nothing of the array API standard but what is asked here."""

    __module__ = "made_up_library.columns"

    def __init__(self, values):
        self.__values = np.array(values)

    dtype = property(lambda self: self.__values.dtype)
    shape = property(lambda self: self.__values.shape)

    def __getitem__(self, place):
        return Column(self.__values[place])

    def values(self):
        return self.__values


class Outside:
    """What the package of that library would hold in a module of its own."""

    @staticmethod
    def enter(x):
        return backends.on_host(x.values(), Column)


@pytest.fixture(scope="module")
def joined():
    """An outside package that joins by an entry point."""
    original = importlib.metadata.entry_points
    entry = SimpleNamespace(name="made_up_library", load=lambda: Outside)

    def entry_points(**asked):
        ours = {"group": "rvq_np.backends", "name": entry.name}
        return [entry] if asked == ours else original(**asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.metadata.entry_points", entry_points)
        yield
        backends._backend_for.cache_clear()


@pytest.mark.usefixtures("joined")
class TestOutside(
    backend_tests(put=Column, get=Column.values, dtypes=("float16", "float32", "float64"))
):
    """An outside backend of one function has everything, without a namespace of its own."""


def test_arrays_of_two_libraries_are_refused_together(joined):
    with pytest.raises(BackendError, match=r"arrays of kinds made_up_library\.columns\.Column, nu"):
        codec.tally(Column(np.ones((2, 3))), np.zeros((1, 2), np.int32), np.ones((1, 2, 3)))


def test_a_list_is_refused_with_what_to_do():
    with pytest.raises(BackendError, match=r"compute on builtins\.list.*numpy\.asarray\(x, dtype"):
        rvq_np.encode([[1.0]], np.ones((1, 1, 1)))


def test_a_masked_array_is_refused_as_its_mask_would_be_lost():
    x = np.ma.masked_array(np.ones((2, 3)), mask=[[True] * 3, [False] * 3])
    with pytest.raises(BackendError, match=r"MaskedArray: the mask would be lost"):
        rvq_np.encode(x, np.ones((1, 2, 3)))


def test_a_class_from_a_module_with_an_underscore_does_not_pick_a_private_file():
    class Array:
        __module__ = "_array_api.arrays"

    with pytest.raises(BackendError, match="does not follow the array API"):
        backends.enter(Array())


def test_arrays_of_two_libraries_are_refused():
    import array_api_strict

    strict = array_api_strict.asarray(np.ones(3, np.float32))
    with pytest.raises(BackendError, match=r"arrays of kinds numpy\.ndarray, array_api_strict"):
        arrays.namespace(np.ones(3), strict)
