"""Examples in the docstrings of modules that need a peer to be imported."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "backends.torch",
        "backends.jax",
        "sklearn",
        "grad.torch",
        "grad.jax",
        "grad.autograd",
        "grad.mlx",
    ],
)
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(import_module(f"rvq_np.{name}")).failed == 0
