"""A pytest class of properties for any residual quantizer, ours or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings

from . import oracle, strategies


def rvq_tests(
    *,
    encode: Callable[[np.ndarray, np.ndarray], np.ndarray],
    decode: Callable[[np.ndarray, np.ndarray], np.ndarray],
    dtype: Any = np.float32,
) -> type:
    """Build a pytest class for a residual quantizer; bind it to a name that starts with ``Test``.

    Parameters
    ----------
    encode : callable
        ``encode(x (N, D), codebooks (Q, K, D))`` returns codes (Q, N).
    decode : callable
        ``decode(codes (n, N), codebooks)`` returns vectors (N, D).
    dtype : numpy.dtype, optional
        float32 or float64: of the vectors and codebooks drawn.

    Returns
    -------
    tests : type
        A new class each time: Hypothesis refuses one ``@given`` method under several classes.

    Examples
    --------
    >>> import rvq_np
    >>> TestOurs = rvq_tests(encode=rvq_np.encode, decode=rvq_np.decode)
    >>> sorted(name for name in vars(TestOurs) if name.startswith("test"))[0]
    'test_a_prefix_of_the_codes_is_the_answer_of_fewer_stages'
    """
    kind = np.dtype(dtype)

    def check(case: tuple[np.ndarray, np.ndarray]) -> None:
        x, codebooks = case
        expected = [oracle.encode(row, codebooks, kind.name) for row in x.tolist()]
        codes = np.asarray(encode(x, codebooks))
        assert codes.shape == (len(codebooks), len(x))
        assert codes.dtype.kind in "iu"
        np.testing.assert_array_equal(codes.T, np.reshape(expected, codes.T.shape))

    class Tests:
        @given(strategies.lattices(dtype=kind.type))
        def test_codes_on_whole_numbers_are_those_of_the_definition(
            self, case: tuple[np.ndarray, np.ndarray]
        ) -> None:
            check(case)

        @given(strategies.ordinary(dtype=kind.type))
        def test_codes_of_ordinary_vectors_are_those_of_the_definition(
            self, case: tuple[np.ndarray, np.ndarray]
        ) -> None:
            check(case)

        @settings(max_examples=3 * settings.default.max_examples)  # the point of it all
        @given(strategies.near_ties(dtype=kind.type))
        def test_codes_near_ties_are_those_of_the_definition(
            self, case: tuple[np.ndarray, np.ndarray]
        ) -> None:
            check(case)

        @given(strategies.uneven(dtype=kind.type))
        def test_codes_beside_norms_far_apart_are_those_of_the_definition(
            self, case: tuple[np.ndarray, np.ndarray]
        ) -> None:
            check(case)

        @given(strategies.lost_to_rounding(dtype=kind.type))
        def test_codes_that_hang_on_what_rounding_lost_are_those_of_the_definition(
            self, case: tuple[np.ndarray, np.ndarray]
        ) -> None:
            check(case)

        @given(strategies.lattices(dtype=kind.type))
        def test_a_prefix_of_the_codes_is_the_answer_of_fewer_stages(
            self, case: tuple[np.ndarray, np.ndarray]
        ) -> None:
            x, codebooks = case
            codes = np.asarray(encode(x, codebooks))
            for n in range(1, len(codebooks) + 1):
                np.testing.assert_array_equal(codes[:n], np.asarray(encode(x, codebooks[:n])))

        @given(strategies.ordinary(dtype=kind.type))
        def test_decode_adds_up_the_named_words(self, case: tuple[np.ndarray, np.ndarray]) -> None:
            x, codebooks = case
            codes = np.asarray(encode(x, codebooks))
            expected = [oracle.decode(column, codebooks, kind.name) for column in codes.T.tolist()]
            decoded = np.asarray(decode(codes, codebooks))
            np.testing.assert_array_equal(decoded, np.reshape(expected, x.shape).astype(kind))

        @given(strategies.lattices(dtype=kind.type))
        def test_words_of_one_stage_come_back_unchanged(
            self, case: tuple[np.ndarray, np.ndarray]
        ) -> None:
            _, codebooks = case
            words = codebooks[0]
            codes = np.asarray(encode(words, codebooks[:1]))
            np.testing.assert_array_equal(np.asarray(decode(codes, codebooks[:1])), words)

    return Tests
