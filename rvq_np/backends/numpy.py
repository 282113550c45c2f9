"""NumPy arrays, and the engine for host memory: compiled kernels, plain NumPy without Numba."""

import sys
from typing import Any

from ..kernels import dispatch, tables
from ..kernels.dispatch import decode, encode, extent_later, project, tally
from . import Entered

ENGINE = sys.modules[__name__]
STAYS = False

__all__ = [
    "ENGINE", "STAYS", "decode", "encode", "enter", "extent_later", "prepare", "prepare_map",
    "project", "tally",
]  # fmt: skip


def enter(x: Any) -> Entered:
    return Entered(ENGINE, x, None)


def prepare(codebooks: Any, like: Any) -> Any:
    return dispatch.prepare(codebooks, like.dtype)


def prepare_map(linear: Any, like: Any) -> Any:
    return tables.map_of(linear)
