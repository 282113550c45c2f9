"""A pytest class of properties for rvq_np on the arrays of a library: same bits as with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from .. import arguments, codec
from ..errors import BackendError, NonFiniteError, RvqError
from ..quantizer import ResidualVectorQuantizer
from . import oracle, strategies
from .properties import given

RATE = 50
INTEGERS = ("int8", "uint8", "int16", "int32")


def _normal(shape: tuple[int, ...], seed: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


FLOATS = {"float16", "float32", "float64", "bfloat16"}


def backend_tests(
    *,
    put: Callable[[np.ndarray], Any],
    get: Callable[[Any], np.ndarray],
    dtypes: tuple[str, ...] = ("float32",),
    device: Callable[[Any], Any] = lambda array: getattr(array, "device", None),
    later: bool = False,
) -> type:
    """Build a pytest class for an array library; bind it to a name that starts with ``Test``.

    Parameters
    ----------
    put : callable
        ``put(array)`` returns an array of the library from a NumPy array, with the same dtype:
        float, bool or integer.
    get : callable
        ``get(array)`` returns a NumPy array from an array of the library.
    dtypes : tuple of str, optional
        NumPy's names of the float types to test.
    device : callable, optional
        ``device(array)`` returns the device of an array; by default its ``device``.
    later : bool, optional
        Whether arrays are computed later, by `get`, as in Dask: bad numbers are found only then,
        and `rvq_np.codec.tally` and training steps refuse such arrays.

    Returns
    -------
    tests : type
        As `rvq_tests`.

    Raises
    ------
    ParameterError
        If an argument has an invalid value.

    Examples
    --------
    >>> import numpy as np
    >>> from rvq_np.testing import backend_tests
    >>> TestNumPy = backend_tests(put=np.array, get=np.asarray)
    """
    for name, value in (("put", put), ("get", get), ("device", device)):
        arguments.function("backend_tests", name, value)
    if not isinstance(dtypes, tuple) or not dtypes or not set(dtypes) <= FLOATS:
        expected = f"a tuple of some of {', '.join(sorted(FLOATS))}"
        raise arguments.refused("backend_tests", "dtypes", dtypes, expected)
    later = arguments.flag("backend_tests", "later", later)
    shapes = st.sampled_from([(6,), (50, 6), (7, 11, 6), (2, 3, 4, 6)])
    seeds = st.integers(0, 2**32 - 1)
    floats = st.sampled_from(dtypes)

    def checked(result: Any, like: Any, dtype: str) -> np.ndarray:
        """Assert kind, type and device of `result`; return it as NumPy."""
        assert isinstance(result, type(like))
        assert device(result) == device(like)
        found = get(result)
        assert found.dtype == np.dtype(dtype)
        return found

    def widened(dtype: str) -> str:
        return "float32" if dtype == "float16" else dtype

    class Tests:
        @given(strategies.lattices(), floats)
        def test_codes_of_whole_numbers_are_those_of_numpy(self, case: Any, dtype: str) -> None:
            """With ties; int32 arrays of the library, on the device of the input.

            No report known.
            """
            x, codebooks = case
            array = put(x.astype(dtype))
            codes = codec.encode(array, codebooks)
            np.testing.assert_array_equal(
                checked(codes, array, "int32"), codec.encode(x.astype(dtype), codebooks)
            )

        @given(strategies.near_ties(), floats)
        def test_codes_near_ties_are_those_of_numpy(self, case: Any, dtype: str) -> None:
            """Where the rounded sums of the library, in any order, would give other codes.

            pytorch/pytorch#37734
            """
            x, codebooks = case
            with np.errstate(over="ignore"):
                x = np.nan_to_num(x.astype(dtype))
            array = put(x)
            codes = checked(codec.encode(array, codebooks), array, "int32")
            np.testing.assert_array_equal(codes, codec.encode(x, codebooks))

        @given(shapes, seeds, floats)
        def test_vectors_of_any_shape_are_those_of_numpy(
            self, shape: tuple[int, ...], seed: int, dtype: str
        ) -> None:
            """Any number of axes and stages, encoded and decoded.

            lucidrains/vector-quantize-pytorch#82
            """
            x, codebooks = _normal(shape, seed, dtype), _normal((3, 40, 6), seed + 1)
            array = put(x)
            expected = codec.encode(x, codebooks)
            codes = codec.encode(array, codebooks)
            np.testing.assert_array_equal(checked(codes, array, "int32"), expected)
            for n in range(1, 4):
                few = checked(codec.encode(array, codebooks, n), array, "int32")
                np.testing.assert_array_equal(few, expected[:n])
            vectors = checked(codec.decode(codes, codebooks), array, "float32")
            np.testing.assert_array_equal(vectors, codec.decode(expected, codebooks))

        @given(seeds, st.sampled_from(INTEGERS))
        def test_codes_of_any_integer_type_decode(self, seed: int, dtype: str) -> None:
            """A code has the same meaning in eight bits and in thirty-two.

            No report known.
            """
            codebooks = _normal((3, 40, 6), seed)
            codes = np.random.default_rng(seed).integers(0, 40, (3, 5, 4)).astype(dtype)
            array = put(codes)
            vectors = checked(codec.decode(array, codebooks), array, "float32")
            np.testing.assert_array_equal(vectors, codec.decode(codes, codebooks))

        @given(seeds, st.data())
        def test_dropped_codes_add_nothing(self, seed: int, data: Any) -> None:
            """A code of -1, anywhere, with the bits of NumPy and of the definition.

            kyutai-labs/moshi#122
            """
            codebooks = _normal((3, 20, 6), seed)
            codes = data.draw(strategies.codes((20,) * 3, (5, 4), dropped=True))
            array = put(codes)
            vectors = checked(codec.decode(array, codebooks), array, "float32")
            flat = codes.reshape(3, 20).T.tolist()
            expected = [oracle.decode(column, codebooks) for column in flat]
            np.testing.assert_array_equal(vectors, np.array(expected, np.float32).reshape(5, 4, 6))
            codes[1, 2, 3] = -2
            with pytest.raises(RvqError, match=r"code -2 at \(1, 2, 3\) names no codeword"):
                get(codec.decode(put(codes), codebooks))

        @given(seeds, floats)
        def test_tallies_are_those_of_numpy(self, seed: int, dtype: str) -> None:
            """Counts and sums in float64, for any dtype of the vectors.

            ZhikangNiu/encodec-pytorch#8
            """
            x, codebooks = _normal((50, 6), seed, dtype), _normal((3, 8, 6), seed + 1)
            codes = codec.encode(put(x), codebooks)
            if later:
                with pytest.raises(BackendError, match="computed later"):
                    codec.tally(put(x), codes, codebooks)
                return
            found = codec.tally(put(x), codes, codebooks)
            for mine, yours in zip(codec.tally(x, get(codes), codebooks), found, strict=True):
                for one, other in zip(mine, yours, strict=True):
                    assert other.dtype == np.float64
                    np.testing.assert_array_equal(one, other)

        @given(seeds, floats, st.sampled_from(["every second", "a slice", "Fortran"]))
        def test_any_layout_gives_the_same_codes(self, seed: int, dtype: str, layout: str) -> None:
            """A view is read by its own strides.

            lucidrains/vector-quantize-pytorch#51
            """
            wide, codebooks = _normal((40, 12), seed, dtype), _normal((3, 20, 6), seed + 1)
            if layout == "every second":
                x, array = wide[::2, ::2], put(wide)[::2, ::2]
            elif layout == "a slice":
                x, array = wide[3:30, 4:10], put(wide)[3:30, 4:10]
            else:
                x = np.asfortranarray(wide[:, :6])
                array = put(x)
            expected = codec.encode(np.ascontiguousarray(x), codebooks)
            codes = codec.encode(array, codebooks)
            np.testing.assert_array_equal(checked(codes, array, "int32"), expected)
            part = codes[:2, ...]
            np.testing.assert_array_equal(
                get(codec.decode(part, codebooks)), codec.decode(expected[:2], codebooks)
            )

        @given(floats, st.sampled_from([(0, 6), (2, 0, 6), (0, 3, 6)]))
        def test_nothing_in_gives_nothing_out(self, dtype: str, shape: tuple[int, ...]) -> None:
            """Empty codes and vectors, of the right array type and dtype.

            No report known.
            """
            array, codebooks = put(np.zeros(shape, dtype)), _normal((3, 8, 6), 0)
            codes = codec.encode(array, codebooks)
            assert checked(codes, array, "int32").shape == (3, *shape[:-1])
            assert checked(codec.decode(codes, codebooks), array, "float32").shape == shape

        @given(seeds, floats)
        def test_what_goes_in_is_left_alone_and_results_are_their_own(
            self, seed: int, dtype: str
        ) -> None:
            """Nothing is written to an argument, nor to what an earlier call returned.

            No report known.
            """
            x, codebooks = _normal((50, 6), seed, dtype), _normal((3, 20, 6), seed + 1)
            array = put(x)
            codes = codec.encode(array, codebooks)
            vectors = codec.decode(codes, codebooks)
            if not later:
                codec.tally(array, codes, codebooks)
            kept = [np.array(get(each)) for each in (codes, vectors)]
            codec.decode(codec.encode(put(_normal((50, 6), seed + 2, dtype)), codebooks), codebooks)
            for one, other in zip((array, codes, vectors), (x, *kept), strict=True):
                np.testing.assert_array_equal(get(one), other)

        @given(seeds, floats, st.sampled_from([np.nan, np.inf, -np.inf]))
        def test_a_bad_number_is_refused(self, seed: int, dtype: str, bad: float) -> None:
            """By an error that gives its index.

            No report known.
            """
            x = _normal((4, 5, 6), seed, dtype)
            x[2, 3, 1] = bad
            with pytest.raises(NonFiniteError, match=r"\(2, 3, 1\)"):
                get(codec.encode(put(x), _normal((3, 8, 6), seed)))

        @given(seeds)
        def test_codes_that_are_no_integers_are_refused(self, seed: int) -> None:
            """A float cannot hold every index.

            lucidrains/vector-quantize-pytorch#114
            """
            with pytest.raises(RvqError, match="expected integers"):
                codec.decode(put(_normal((3, 5), seed)), _normal((3, 8, 6), seed))

        @given(seeds, floats, st.booleans())
        def test_training_is_that_of_numpy(self, seed: int, dtype: str, masked: bool) -> None:
            """The same codes and vectors, and the same bits in the state.

            With initialization and dead-code replacement. Losses may differ by the order of a sum.

            lucidrains/vector-quantize-pytorch#229
            """
            one, other = (
                ResidualVectorQuantizer(6, 6, 2, 8, kmeans_iters=5, rng=seed) for _ in range(2)
            )
            if later:
                with pytest.raises(BackendError, match="computed later"):
                    other(put(_normal((3, 6, 20), seed, dtype)), RATE)
                return
            for step in range(2):
                x = _normal((3, 6, 20), seed + step, dtype)
                mask = np.random.default_rng(seed).random((3, 20)) < 0.7 if masked else None
                expected = one(x, RATE, mask=mask)
                array = put(x)
                found = other(array, RATE, mask=None if mask is None else put(mask))
                kinds = (dtype, "int32", widened(dtype), widened(dtype))
                for mine, yours, kind in zip(expected, found, kinds, strict=True):
                    tolerance = 4 * float(np.finfo(kind).eps) if mine is expected.penalty else 0.0
                    np.testing.assert_allclose(
                        checked(yours, array, kind), mine, rtol=tolerance, atol=0
                    )
            state = one.state_dict()
            for name, value in other.state_dict().items():
                np.testing.assert_array_equal(value, state[name])

    return Tests
