"""The CuPy stub on NumPy and the GPU emulated on the CPU, of ``tests/helpers/emulated``."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def standing_in() -> AbstractContextManager[Any]:
    """Return a context in which ``import cupy`` finds the stub."""
    tests = str(ROOT / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    from helpers.emulated import fake_cupy

    return fake_cupy.installed()
