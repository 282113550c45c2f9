"""What the card can do, in the same run: products in float32 and half precision, copies."""

from __future__ import annotations

import numpy as np

from .clock import in_turns
from .desk import Desk

COPY, FLOAT32, HALF = "copy on the card", "float32 product", "half precision product"


def ask(desk: Desk) -> None:
    """Measure each ceiling: the rates that the other figures are fractions of."""
    xp = desk.xp
    side = desk.size(8192, 64)
    rng = np.random.default_rng(2)
    for name, dtype in ((FLOAT32, np.float32), (HALF, np.float16)):
        with desk.fence(name):
            a, b = (xp.asarray(_matrix(rng, side).astype(dtype)) for _ in range(2))
            found = in_turns(desk, {name: [lambda a=a, b=b: xp.matmul(a, b)]}, "")
            if name in found:
                desk.figure(f"{side}^3", name, found[name], flops=2 * side**3)
    desk.free()
    with desk.fence(COPY):
        count = desk.size(1 << 28, 1 << 10)  # a GiB: no cache holds a share of it worth naming
        source, target = xp.zeros(count, np.float32), xp.empty(count, np.float32)

        def copy():
            target[...] = source

        found = in_turns(desk, {COPY: [copy]}, "")
        if COPY in found:
            desk.figure(f"{source.nbytes:,} bytes", COPY, found[COPY], bytes=2 * source.nbytes)
    desk.free()
    desk.note(
        "Both products are CuPy's matmul, that is cuBLAS; float32 without TF32. A copy counts the "
        "bytes read and the bytes written."
    )


def _matrix(rng: np.random.Generator, side: int) -> np.ndarray:
    # Random numbers: a card draws less power, and so runs faster, on zeros.
    return rng.standard_normal((side, side), dtype=np.float32)
