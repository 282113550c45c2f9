"""The oracle is judged by hand-made answers and by NumPy's own rounding, never by our code."""

import ast
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvq_np.testing import oracle

pytestmark = pytest.mark.quick


def test_it_imports_nothing_but_fractions():
    tree = ast.parse(Path(oracle.__file__).read_text())
    imported = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [each.module for each in imported] == ["fractions"]


def test_a_case_worked_by_hand():
    codewords = [[[0, 0], [4, 4]], [[0, 0], [1, 0]]]
    assert oracle.encode([5, 4], codewords) == [1, 1]
    assert oracle.encode([0, 1], codewords) == [0, 0]
    assert oracle.decode([1, 1], codewords) == [5.0, 4.0]


def test_a_tie_goes_to_the_lowest_index():
    assert oracle.encode([0.0], [[[1.0], [-1.0], [1.0]]]) == [0]
    assert oracle.encode([0.0], [[[2.0], [-1.0], [1.0]]]) == [1]


def test_the_residual_is_rounded_after_each_stage():
    # 1 - 2**-30 is 1 in float32: what is left is zero, so the second stage finds codeword 0.
    tiny = 2.0**-30
    assert oracle.encode([1.0], [[[tiny]], [[1.0], [1.0 - 2.0**-24]]]) == [0, 0]
    assert oracle.encode([1.0], [[[tiny]], [[1.0 - tiny], [1.0]]], "float64") == [0, 0]
    assert oracle.encode([1.0], [[[tiny]], [[1.0], [1.0 - tiny]]], "float64") == [0, 1]


@given(st.fractions(), st.integers(-160, 120))
def test_rounding_to_float32_is_that_of_numpy(fraction, exponent):
    number = fraction * Fraction(2) ** exponent
    wide = float(number)
    if Fraction(wide) == number and abs(wide) < 3e38:  # float64 holds it: one rounding each
        assert float(oracle.rounded(number, "float32")) == float(np.float32(wide))
    assert oracle.rounded(number, "float64") == Fraction(wide)


@pytest.mark.parametrize(("digits", "up"), [(1, False), (3, True)])
def test_halves_round_to_even(digits, up):
    exact = Fraction(2**24 + digits)  # between two float32
    assert oracle.rounded(exact, "float32") == 2**24 + (digits + 1 if up else digits - 1)
