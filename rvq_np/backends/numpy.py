"""NumPy arrays, and the engine for host memory: compiled kernels, plain NumPy without Numba."""

import sys

from ..kernels import host, tables
from ..kernels.host import decode, encode, project, tally
from . import Entered

ENGINE = sys.modules[__name__]
STAYS = False

__all__ = [
    "ENGINE", "STAYS", "decode", "encode", "enter", "extent_later", "prepare", "prepare_map",
    "project", "tally",
]  # fmt: skip


def enter(x):
    return Entered(ENGINE, x, None)


def extent_later(x, by_row=False):
    """The ends are known at once."""
    if by_row:
        rows = x.reshape(len(x), -1)
        ends = rows.min(axis=1), rows.max(axis=1)
    else:
        ends = x.min(), x.max()
    return lambda: ends


def prepare(codebooks, like):
    return host.prepare(codebooks, like.dtype)


def prepare_map(linear, like):
    return tables.map_of(linear)
