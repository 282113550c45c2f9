"""CuPy arrays: CUDA kernels on the device where they live, see `_cuda`."""

from ._cuda import (
    add_up,
    assign,
    check,
    decode,
    encode,
    extent,
    extent_later,
    prepare,
    prepare_map,
    project,
    residual,
    searched,
    stays,
    tally,
    walk,
)

__all__ = [
    "add_up", "assign", "check", "decode", "encode", "extent", "extent_later", "prepare",
    "prepare_map", "project", "residual", "searched", "stays", "tally", "walk",
]  # fmt: skip
