"""The shape of the vector kernels: how many numbers are computed together, and in which types.

The shape follows the processor Numba compiles for, which is part of its cache's key; where
nothing is known, vectors of four floats, which LLVM lowers for any processor.  ``NUMBA_CPU_NAME``
and ``NUMBA_CPU_FEATURES`` choose another.
"""

from typing import NamedTuple

from .jit import LIBRARY, processor


class Target(NamedTuple):
    """The shape of the kernels on one kind of processor."""

    lanes: int  # float32 in a vector
    vectors: int  # vectors of codewords in a panel
    screens: tuple[str, ...]  # dtypes of panels, the fastest first
    fused: bool  # whether there is a fused multiply-add


def target_of(triple: str, features: str) -> Target:
    """Return the shape for an LLVM triple and features as LLVM writes them, ``+avx2,-sse4a``."""
    has = {each[1:] for each in features.split(",") if each.startswith("+")}
    if triple.startswith(("aarch64", "arm64")):
        bytes_too = ("uint8", "float32") if "dotprod" in has else ("float32",)
        return Target(4, 4, bytes_too, True)  # 32 registers
    if {"avx512f", "avx512bw", "avx512vl"} <= has:
        bytes_in = "uint8" if "avx512vnni" in has else "int8"
        return Target(16, 4, (bytes_in, "int16", "float32"), True)
    if {"avx2", "fma"} <= has:
        bytes_in = "uint8" if "avxvnni" in has else "int8"
        return Target(8, 2, (bytes_in, "int16", "float32"), True)
    if "sse2" in has:
        return Target(4, 2, ("int16", "float32"), False)
    return Target(4, 2, ("float32",), False)


def _host():
    if LIBRARY is not None:
        lanes, vectors, screens, fused = LIBRARY.shape
        return Target(lanes, vectors, tuple(screens), fused)
    return target_of(*processor())


TARGET = _host()

LANES, VECTORS = TARGET.lanes, TARGET.vectors

SIGNED = LANES == 4  # products of bytes are those of two signed numbers, as Arm's sdot has them

PER_STEP = {"uint8": 4, "int8": 4, "int16": 2, "float32": 1}  # dimensions a step

ROWS = 6  # with 4 vectors 24 sums, 4 codewords and a row: 29 of 32 registers; with 2, 15 of 16
