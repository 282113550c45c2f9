"""What tab completion shows of public modules that need a library: see tests/test_public.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CODE = """
from importlib import import_module
import test_public
test_public.checked(import_module("rvq_np.{}"))
"""


@pytest.mark.parametrize(
    "name",
    ["sklearn", "grad.numpy", "grad.torch", "grad.jax", "grad.mlx", "grad.autograd", "grad.keras"],
)
def test_dir_of_a_public_module_has_public_names_only(name):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(name)], cwd=TESTS, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent), "KERAS_BACKEND": "torch"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
