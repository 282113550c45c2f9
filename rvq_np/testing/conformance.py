"""A pytest class of properties for any pair of encode and decode."""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from .. import arguments
from . import oracle, properties, strategies
from .properties import Case


def rvq_tests(
    *,
    encode: Callable[[np.ndarray, np.ndarray], Any],
    decode: Callable[[np.ndarray, np.ndarray], Any],
    dtype: Any = np.float32,
    tolerance: float = 0.0,
    range: tuple[float, float] | None = None,
    dropped: bool = False,
) -> type:
    """Build a pytest class for a residual quantizer; bind it to a name that starts with ``Test``.

    Parameters
    ----------
    encode : callable
        ``encode(x (N, D), codebooks (Q, K, D))`` returns codes (Q, N).
    decode : callable
        ``decode(codes (n, N), codebooks)`` returns vectors (N, D), for any n from 1 to Q.
    dtype : numpy.dtype, optional
        float32 or float64: of the vectors and codebooks drawn.
    tolerance : float, optional
        0, the default: the codes and vectors must be those of the definition, bit for bit.
        Otherwise the largest accepted regret of a code, in units of rounding, see `oracle.regrets`;
        and the largest accepted error of a decoded number, in units of rounding of the sum of the
        absolute values added. Use it for implementations that are exact only up to rounding of
        their float type.
    range : (float, float), optional
        The smallest and the largest absolute value that the implementation supports; zero is always
        allowed. Cases with other numbers are skipped. By default there is no limit, as in the
        definition. An implementation with float32 scores supports ``2**-50`` to ``2**50``, where no
        square is near the limits of float32.
    dropped : bool, optional
        Whether `decode` accepts codes of -1, which add nothing. False, the default, skips the
        property about them.

    Returns
    -------
    tests : type
        A new class each time: Hypothesis refuses the same ``@given`` method in several classes.
        The last line of each method's docstring names a published bug that it would have found.

    Raises
    ------
    ParameterError
        If an argument has an invalid value.

    Notes
    -----
    The oracle is pure Python, so each property takes a few seconds.

    Examples
    --------
    >>> import rvq_np
    >>> TestOurs = rvq_tests(encode=rvq_np.encode, decode=rvq_np.decode, dropped=True)
    >>> sorted(name for name in vars(TestOurs) if name.startswith("test"))[0]
    'test_a_prefix_of_the_codes_decodes_to_the_first_codewords'
    """
    arguments.function("rvq_tests", "encode", encode)
    arguments.function("rvq_tests", "decode", decode)
    kind = arguments.float_type("rvq_tests", "dtype", dtype)
    tolerance = arguments.number("rvq_tests", "tolerance", tolerance, 0.0)
    dropped = arguments.flag("rvq_tests", "dropped", dropped)
    if range is not None:
        if np.shape(range) != (2,):
            raise arguments.refused("rvq_tests", "range", range, "two numbers, or None")
        low, high = range
        low = arguments.number("rvq_tests", "range", low, 0, 1)
        range = (low, arguments.number("rvq_tests", "range", high, 1))
    given = functools.partial(properties.given, bounds=range)
    digits, _ = oracle.FLOAT_TYPES[kind.name]
    lattices = strategies.lattices(dtype=kind.type, min_rows=1)
    ordinary = strategies.ordinary(dtype=kind.type, min_rows=1)

    def coded(x: np.ndarray, codebooks: np.ndarray) -> np.ndarray:
        codes = np.asarray(encode(x, codebooks))
        assert codes.shape == (len(codebooks), len(x))
        assert codes.dtype.kind in "iu"
        return codes

    def check(case: Case) -> None:
        x, codebooks = case
        codes = coded(x, codebooks)
        if tolerance:
            for row, column in zip(x.tolist(), codes.T.tolist(), strict=True):
                regrets = oracle.regrets(row, column, codebooks, kind.name)
                assert max(regrets) <= tolerance, f"codes {column}, regrets {regrets}"
            return
        expected = [oracle.encode(row, codebooks, kind.name) for row in x.tolist()]
        np.testing.assert_array_equal(codes.T, np.reshape(expected, codes.T.shape))

    def check_decoded(codes: np.ndarray, codebooks: np.ndarray) -> None:
        decoded = np.asarray(decode(codes, codebooks))
        assert decoded.shape == (codes.shape[1], codebooks.shape[2])
        expected = [oracle.decode(column, codebooks, kind.name) for column in codes.T.tolist()]
        if not tolerance:
            exact = np.reshape(expected, decoded.shape).astype(kind)
            np.testing.assert_array_equal(decoded, exact)
            return
        for row, column in zip(decoded.tolist(), codes.T.tolist(), strict=True):
            codewords = [
                [Fraction(float(each)) for each in codebooks[q, k]] if k >= 0 else [0] * len(row)
                for q, k in enumerate(column)
            ]
            for number, parts in zip(row, zip(*codewords, strict=True), strict=True):
                slack = sum(map(abs, parts)) * Fraction(tolerance) / 2**digits
                assert abs(Fraction(number) - sum(parts)) <= slack

    class Tests:
        @given(lattices)
        def test_codes_on_whole_numbers_are_those_of_the_definition(self, case: Case) -> None:
            """The nearest codeword, the lowest index on a tie, where no sum is ever rounded.

            No report known.
            """
            check(case)

        @given(ordinary)
        def test_codes_of_ordinary_vectors_are_those_of_the_definition(self, case: Case) -> None:
            """Normal numbers of any scale, sizes and dimensions that are no multiples of a block.

            scikit-learn/scikit-learn#9354
            """
            check(case)

        @given(strategies.near_ties(dtype=kind.type), examples=3)  # the most important property
        def test_codes_near_ties_are_those_of_the_definition(self, case: Case) -> None:
            """The two best codewords tied or one ulp apart, where any rounded sum may be wrong.

            pytorch/pytorch#42479
            """
            check(case)

        @given(strategies.uneven(dtype=kind.type))
        def test_codes_beside_norms_far_apart_are_those_of_the_definition(self, case: Case) -> None:
            """Tiny codewords beside huge ones, and squares that underflow or nearly overflow.

            lucidrains/vector-quantize-pytorch#106
            """
            check(case)

        @given(strategies.collapsed(dtype=kind.type))
        def test_codes_where_all_but_coincides_are_those_of_the_definition(
            self, case: Case
        ) -> None:
            """Rows and codewords a few steps apart around one point, at any magnitude.

            No report known.
            """
            check(case)

        @given(strategies.lost_to_rounding(dtype=kind.type))
        def test_codes_that_hang_on_what_rounding_lost_are_those_of_the_definition(
            self, case: Case
        ) -> None:
            """Vectors along the rounding error of a codeword in a screening pass of few bits.

            No report known.
            """
            check(case)

        @given(strategies.rounded_residuals(dtype=kind.type))
        def test_the_residual_is_rounded_after_each_stage(self, case: Case) -> None:
            """To the float type, element by element, before the next stage.

            No report known.
            """
            check(case)

        @given(lattices)
        def test_a_prefix_of_the_codes_is_the_answer_of_fewer_stages(self, case: Case) -> None:
            """A stage does not depend on later ones, and as many stages are returned as requested.

            descriptinc/descript-audio-codec#40
            """
            x, codebooks = case
            codes = coded(x, codebooks)
            for n, _ in enumerate(codebooks, 1):
                np.testing.assert_array_equal(codes[:n], coded(x, codebooks[:n]))

        @given(ordinary)
        def test_any_split_of_the_batch_gives_the_same_codes(self, case: Case) -> None:
            """The codes of a vector do not depend on the other vectors of the batch.

            pytorch/pytorch#37734
            """
            x, codebooks = case
            codes = coded(x, codebooks)
            alone = [coded(x[n : n + 1], codebooks) for n, _ in enumerate(x)]
            np.testing.assert_array_equal(codes, np.concatenate(alone, axis=1))

        @given(ordinary)
        def test_decode_adds_up_the_named_codewords(self, case: Case) -> None:
            """In the order of the stages, rounding after each, for the codes of `encode`.

            lucidrains/vector-quantize-pytorch#71
            """
            x, codebooks = case
            check_decoded(coded(x, codebooks), codebooks)

        @given(ordinary)
        def test_a_prefix_of_the_codes_decodes_to_the_first_codewords(self, case: Case) -> None:
            """Fewer stages are fewer codewords; missing ones are not replaced by others.

            kyutai-labs/moshi#122
            """
            x, codebooks = case
            codes = coded(x, codebooks)
            for n, _ in enumerate(codebooks, 1):
                check_decoded(codes[:n], codebooks)

        @given(ordinary, st.integers(0, 2**32 - 1))
        def test_dropped_codes_add_nothing(self, case: Case, seed: int) -> None:
            """Codes of -1 from a stage on are a prefix, and one anywhere leaves its codeword out.

            kyutai-labs/moshi#122
            """
            x, codebooks = case
            codes = coded(x, codebooks)
            for n in (0, *(n for n, _ in enumerate(codebooks, 1))):
                without = codes.copy()
                without[n:] = -1
                check_decoded(without, codebooks)
                if n:
                    prefix = np.asarray(decode(codes[:n], codebooks))
                    np.testing.assert_array_equal(np.asarray(decode(without, codebooks)), prefix)
            some = np.where(np.random.default_rng(seed).random(codes.shape) < 0.3, -1, codes)
            check_decoded(some.astype(codes.dtype), codebooks)

        @given(lattices)
        def test_codewords_of_one_stage_come_back_unchanged(self, case: Case) -> None:
            """Encoding a codeword and decoding it returns the same numbers.

            lucidrains/vector-quantize-pytorch#224
            """
            _, codebooks = case
            codewords = codebooks[0]
            codes = coded(codewords, codebooks[:1])
            np.testing.assert_array_equal(np.asarray(decode(codes, codebooks[:1])), codewords)

        @given(lattices)
        def test_no_vectors_have_no_codes(self, case: Case) -> None:
            """Empty results for empty inputs, of the right shapes.

            No report known.
            """
            x, codebooks = case
            codes = coded(x[:0], codebooks)
            assert np.asarray(decode(codes, codebooks)).shape == x[:0].shape

        @given(ordinary)
        def test_what_goes_in_is_left_alone(self, case: Case) -> None:
            """Neither vectors nor codebooks nor codes are written to.

            No report known.
            """
            x, codebooks = case
            before = x.copy(), codebooks.copy()
            codes = coded(x, codebooks)
            kept = codes.copy()
            decode(codes, codebooks)
            for one, other in zip((x, codebooks, codes), (*before, kept), strict=True):
                np.testing.assert_array_equal(one, other)

    if not dropped:
        del Tests.test_dropped_codes_add_nothing
    return Tests
