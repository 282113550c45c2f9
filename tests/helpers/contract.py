"""What every array library in host memory is owed: the bits of NumPy, in its own kind of array."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import rvq_np
from rvq_np import train
from rvq_np.backends import numpy as engine
from rvq_np.codec import tally
from rvq_np.errors import BackendError, NonFiniteError
from rvq_np.testing import rvq_tests, strategies

from . import quantizers as drawn


@dataclass(frozen=True)
class Library:
    """How to speak to one library.

    ``array(values, dtype)`` makes one of its arrays of a NumPy array, ``numpy(x)`` goes back
    (float64 for float64, else the same values in float32 or int32), ``pointer(x)`` says where an
    array lies, ``dtypes`` names its float types.
    """

    kind: type
    array: Callable[[np.ndarray, str], Any]
    numpy: Callable[[Any], np.ndarray]
    pointer: Callable[[Any], int]
    device: Callable[[Any], Any]
    dtypes: tuple[str, ...]


@contextlib.contextmanager
def captured(name):
    """Yield a list of what the kernels for host memory are called with, by that name."""
    original, calls = getattr(engine, name), []

    def call(*arguments, **named):
        calls.append(arguments)
        return original(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, name, call)
        yield calls


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def quantizers(**arguments):
    """Return two equal quantizers, initialized, some of whose codewords will expire."""
    return [
        rvq_np.ResidualVectorQuantizer(6, n_q=3, bins=8, kmeans_init=False, rng=3, **arguments)
        for _ in range(2)
    ]


def library_tests(library: Library) -> type:
    """Build a pytest class; bind it to a name that starts with ``Test``."""
    array, back = library.array, library.numpy
    dtypes = pytest.mark.parametrize("dtype", library.dtypes)

    def is_theirs(result, dtype, like):
        """Assert the kind, type and device of `result`; return it as NumPy."""
        assert isinstance(result, library.kind)
        assert str(result.dtype).endswith(dtype)
        assert library.device(result) == library.device(like)
        return back(result)

    def scalar_type(dtype):
        return dtype if dtype == "float64" else "float32"

    class Tests:
        @dtypes
        @given(case=strategies.lattices())
        def test_codes_of_small_whole_numbers_are_those_of_numpy(self, dtype, case):
            x, books = case  # whole numbers to 8: exact in every float type
            codes = rvq_np.encode(array(x, dtype), books)
            expected = rvq_np.encode(x, books)
            np.testing.assert_array_equal(is_theirs(codes, "int32", array(x, dtype)), expected)

        @dtypes
        @pytest.mark.parametrize("shape", [(6,), (50, 6), (7, 11, 6), (2, 3, 4, 6)])
        def test_codes_and_vectors_of_normal_numbers_are_those_of_numpy(self, dtype, shape):
            books = normal(3, 40, 6)
            x = array(normal(*shape, seed=1), dtype)
            expected = rvq_np.encode(back(x), books)
            codes = rvq_np.encode(x, books)
            assert tuple(codes.shape) == (3, *shape[:-1])
            np.testing.assert_array_equal(is_theirs(codes, "int32", x), expected)
            vectors = is_theirs(rvq_np.decode(codes, books), "float32", x)
            np.testing.assert_array_equal(vectors, rvq_np.decode(expected, books))
            np.testing.assert_array_equal(back(rvq_np.encode(x, books, 2)), expected[:2])

        @dtypes
        def test_beam_search_gives_the_codes_of_numpy(self, dtype):
            books = normal(3, 16, 6)
            x = array(normal(40, 6, seed=1), dtype)
            expected = rvq_np.encode(back(x), books, beam_size=4)
            assert (expected != rvq_np.encode(back(x), books)).any()
            codes = is_theirs(rvq_np.encode(x, books, beam_size=4), "int32", x)
            np.testing.assert_array_equal(codes, expected)

        @dtypes
        @given(case=drawn.cases(strides=(1, 2)))
        def test_composed_quantizers_and_strides_are_those_of_numpy(self, dtype, case):
            x, quantizer = case
            there = array(x, dtype)
            codes = rvq_np.encode(there, quantizer)
            expected = rvq_np.encode(back(there), quantizer)
            for ours, theirs in zip(codes, expected, strict=True):
                np.testing.assert_array_equal(is_theirs(ours, "int32", there), theirs)
            vectors = rvq_np.decode(codes, quantizer)
            decoded = rvq_np.decode(expected, quantizer)
            np.testing.assert_array_equal(is_theirs(vectors, "float32", there), decoded)

        @pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32"])
        def test_codes_of_any_integer_type_decode(self, dtype):
            books = normal(3, 40, 6)
            codes = np.random.default_rng(1).integers(0, 40, (3, 5, 4))
            theirs = array(codes, dtype)
            vectors = is_theirs(rvq_np.decode(theirs, books), "float32", theirs)
            np.testing.assert_array_equal(vectors, rvq_np.decode(codes, books))

        @dtypes
        def test_tallies_are_those_of_numpy(self, dtype):
            books = normal(3, 8, 6)
            x = array(normal(50, 6, seed=1), dtype)
            codes = rvq_np.encode(x, books)
            mine = tally(back(x), back(codes), books)
            for theirs, expected in zip(tally(x, codes, books), mine, strict=True):
                for one, other in zip(theirs, expected, strict=True):
                    assert one.dtype == np.float64
                    np.testing.assert_array_equal(one, other)

        @dtypes
        @pytest.mark.parametrize("shape", [(3, 6, 17), (40, 6)])
        @pytest.mark.parametrize("codebook_dim", [6, 4])
        def test_the_class_encodes_and_decodes_as_with_numpy(self, dtype, shape, codebook_dim):
            one, other = (each.eval() for each in quantizers(codebook_dim=codebook_dim))
            x = array(normal(*shape), dtype)
            expected = one.encode(back(x), 50)
            codes = other.encode(x, 50)
            np.testing.assert_array_equal(is_theirs(codes, "int32", x), expected)
            vectors = is_theirs(other.decode(codes), "float32", x)
            np.testing.assert_array_equal(vectors, one.decode(expected))
            np.testing.assert_array_equal(
                back(other.decode(codes[1:], st=1)), one.decode(expected[1:], st=1)
            )

        @dtypes
        @pytest.mark.parametrize("shape", [(4, 6, 17), (40, 6)])
        @pytest.mark.parametrize("masked", [False, True])
        @pytest.mark.parametrize("dropout", [False, 0.5])
        @pytest.mark.parametrize("codebook_dim", [6, 4])
        def test_training_and_eval_are_those_of_numpy(
            self, dtype, shape, masked, dropout, codebook_dim
        ):
            """Same bits in every result and in the state, over steps that expire codewords."""
            one, other = quantizers(quantizer_dropout=dropout, codebook_dim=codebook_dim)
            for step in range(4):
                x = array(normal(*shape, seed=step), dtype)
                mask = padding = None
                if masked:
                    padding = np.random.default_rng(step).random((shape[0], *shape[2:])) < 0.7
                    mask = array(padding, "bool")
                training = step < 3
                result = other.train(training)(x, 50, mask=mask)
                expected = one.train(training)(back(x), 50, mask=padding)
                assert len(result) == len(expected) == (5 if dropout else 4)
                number = scalar_type(dtype)
                types = [dtype, "int32", number, number, number]
                for mine, theirs, kind in zip(expected, result, types, strict=False):
                    assert mine.shape == tuple(theirs.shape)
                    got = is_theirs(theirs, kind, x)
                    if kind == dtype:  # in half precision the vectors are rounded once more
                        mine = back(array(mine, dtype))
                    np.testing.assert_array_equal(got, mine)
            state = one.state_dict()
            for name, value in other.state_dict().items():
                np.testing.assert_array_equal(value, state[name])
            fresh = quantizers(codebook_dim=codebook_dim)[0].state_dict()
            assert (
                state["vq.layers.0._codebook.embed"] != fresh["vq.layers.0._codebook.embed"]
            ).all()

        @dtypes
        def test_the_first_training_step_runs_kmeans_as_with_numpy(self, dtype):
            one, other = (
                rvq_np.ResidualVectorQuantizer(6, 6, 2, 8, kmeans_iters=5, rng=1) for _ in range(2)
            )
            x = array(normal(3, 6, 40), dtype)
            np.testing.assert_array_equal(back(other(x, 50).codes), one(back(x), 50).codes)
            assert other.is_initialized
            for name, value in other.state_dict().items():
                np.testing.assert_array_equal(value, one.state_dict()[name])

        @dtypes
        @pytest.mark.parametrize("shape", [(4, 6, 30), (90, 6)])
        def test_fit_learns_as_with_numpy(self, dtype, shape):
            x = array(normal(*shape), dtype)
            one, other = quantizers()
            one.fit(back(x), iterations=4)
            other.fit(x, iterations=4)
            for name, value in other.state_dict().items():
                np.testing.assert_array_equal(value, one.state_dict()[name])

        @dtypes
        def test_kmeans_learns_as_with_numpy(self, dtype):
            x = array(normal(60, 6), dtype)
            mine = train.kmeans(back(x), 8, 4, np.random.default_rng(0))
            theirs = train.kmeans(x, 8, 4, np.random.default_rng(0))
            for name in ("codebook", "sums", "counts"):
                np.testing.assert_array_equal(getattr(theirs, name), getattr(mine, name))

        @dtypes
        @pytest.mark.parametrize("training", [True, False])
        @pytest.mark.parametrize("dropout", [False, 0.5])
        @pytest.mark.parametrize("shape", [(0, 6, 5), (2, 6, 0), (0, 6)])
        def test_nothing_in_gives_nothing_out(self, dtype, training, dropout, shape):
            quantizer = quantizers(quantizer_dropout=dropout)[0].train(training)
            before = quantizer.state_dict()
            x = array(np.zeros(shape, np.float32), dtype)
            rest = (shape[0], *shape[2:])
            mask = array(np.ones(rest, bool), "bool")
            for result in (quantizer(x, 50), quantizer(x, 50, mask=mask)):
                number = scalar_type(dtype)
                assert is_theirs(result.quantized, dtype, x).shape == shape
                assert is_theirs(result.codes, "int32", x).shape == (3, *rest)
                per_row = (shape[0],) if dropout and training else ()
                assert is_theirs(result.bandwidth, number, x).shape == per_row
                assert is_theirs(result.penalty, number, x) == 0
            codes = quantizer.encode(x, 50)
            assert is_theirs(codes, "int32", x).shape == (3, *rest)
            assert is_theirs(quantizer.decode(codes), "float32", x).shape == shape
            none = array(np.zeros((0, 2, 5), np.int32), "int32")
            assert is_theirs(quantizer.decode(none), "float32", x).shape == (2, 6, 5)
            for name, value in quantizer.state_dict().items():
                np.testing.assert_array_equal(value, before[name])

        @dtypes
        def test_kernels_read_the_arrays_memory_and_leave_it_alone(self, dtype):
            """No copy on the way: bfloat16, which NumPy lacks, may be widened."""
            books = normal(3, 40, 6)
            x = array(normal(300, 6), dtype)
            before = back(x).copy()
            with captured("encode") as calls:
                codes = rvq_np.encode(x, books)
            with captured("tally") as tallied:
                tally(x, codes, books)
            for shared in (calls[0][0], tallied[0][0]):
                assert isinstance(shared, np.ndarray)
                assert shared.shape == (300, 6)
                if dtype != "bfloat16":
                    assert shared.ctypes.data == library.pointer(x)
            with captured("decode") as calls:
                rvq_np.decode(codes, books)
            assert calls[0][0].ctypes.data == library.pointer(codes)
            assert tallied[0][1].ctypes.data == library.pointer(codes)
            assert calls[0][0].shape == (3, 300)
            np.testing.assert_array_equal(back(x), before)

        @dtypes
        def test_training_leaves_the_arrays_alone(self, dtype):
            x = array(normal(4, 6, 17), dtype)
            mask = array(np.random.default_rng(0).random((4, 17)) < 0.5, "bool")
            before = back(x).copy(), back(mask).copy()
            quantizers(quantizer_dropout=0.5)[0](x, 50, mask=mask)
            np.testing.assert_array_equal(back(x), before[0])
            np.testing.assert_array_equal(back(mask), before[1])

        @dtypes
        def test_results_are_their_own(self, dtype):
            """Codes and vectors of an earlier call do not change with a later one."""
            quantizer = quantizers()[0].eval()
            x = array(normal(4, 6, 17), dtype)
            codes = quantizer.encode(x, 50)
            vectors = quantizer.decode(codes)
            kept = back(codes).copy(), back(vectors).copy()
            quantizer.decode(quantizer.encode(array(normal(4, 6, 17, seed=1), dtype), 50))
            np.testing.assert_array_equal(back(codes), kept[0])
            np.testing.assert_array_equal(back(vectors), kept[1])

        @dtypes
        @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
        def test_a_bad_number_is_named_and_nothing_changes(self, dtype, bad):
            values = normal(4, 6, 17)
            values[2, 5, 11] = bad
            x = array(values, dtype)
            quantizer = quantizers()[0]
            before = quantizer.state_dict()
            for call in (quantizer, quantizer.encode):
                with pytest.raises(NonFiniteError, match=rf"holds {bad} at \(2, 5, 11\)"):
                    call(x, 50)
            for name, value in quantizer.state_dict().items():
                np.testing.assert_array_equal(value, before[name])
            mask = np.ones((4, 17), bool)
            mask[2, 11] = False
            quantizer(x, 50, mask=array(mask, "bool"))  # padding may hold anything

        def test_arrays_of_two_libraries_are_refused(self):
            quantizer = quantizers()[0]
            x, mask = normal(4, 6, 17), np.ones((4, 17), bool)
            theirs = array(x, "float32"), array(mask, "bool")
            before = quantizer.state_dict()
            for mixed in ((theirs[0], mask), (x, theirs[1])):
                with pytest.raises(BackendError, match=r"arrays of kinds .* expected one library"):
                    quantizer(mixed[0], 50, mask=mixed[1])
            codes = quantizer.eval().encode(theirs[0], 50)
            rows = array(normal(17, 6), "float32")
            with pytest.raises(BackendError, match=r"arrays of kinds .* expected one library"):
                tally(rows, back(codes)[:, 0], quantizer.codebooks)
            for name, value in quantizer.state_dict().items():
                np.testing.assert_array_equal(value, before[name])

    return Tests


def definition_tests(library: Library, dtype: str = "float32") -> type:
    """Return the shipped properties, the exact oracle's, for arrays of `library`."""
    return rvq_tests(
        encode=lambda x, books: library.numpy(rvq_np.encode(library.array(x, dtype), books)),
        decode=lambda codes, books: library.numpy(
            rvq_np.decode(library.array(codes, "int32"), books)
        ),
        dtype=np.dtype(dtype),
    )
