"""The rates of the GPU, in the same run: products in float32 and half precision, copies."""

from __future__ import annotations

import numpy as np

from .clock import in_turns
from .context import Context

COPY, FLOAT32, HALF = "copy on the GPU", "float32 product", "half precision product"


def ask(context: Context) -> None:
    """Measure each ceiling: the rates that other results are compared with."""
    xp = context.xp
    side = context.size(8192, 64)
    rng = np.random.default_rng(2)
    for name, dtype in ((FLOAT32, np.float32), (HALF, np.float16)):
        with context.fence(name):
            a, b = (xp.asarray(_matrix(rng, side).astype(dtype)) for _ in range(2))
            found = in_turns(context, {name: [lambda a=a, b=b: xp.matmul(a, b)]}, "")
            if name in found:
                context.figure(f"{side}^3", name, found[name], flops=2 * side**3)
    context.free()
    with context.fence(COPY):
        count = context.size(1 << 28, 1 << 10)  # a GiB: much more than any cache
        source, target = xp.zeros(count, np.float32), xp.empty(count, np.float32)

        def copy():
            target[...] = source

        found = in_turns(context, {COPY: [copy]}, "")
        if COPY in found:
            context.figure(f"{source.nbytes:,} bytes", COPY, found[COPY], bytes=2 * source.nbytes)
    context.free()
    context.note(
        "Both products are CuPy's matmul, that is cuBLAS; float32 without TF32. A copy counts the "
        "bytes read and the bytes written."
    )


def _matrix(rng: np.random.Generator, side: int) -> np.ndarray:
    # Random numbers: with zeros a GPU draws less power and runs faster.
    return rng.standard_normal((side, side), dtype=np.float32)
