"""Which stages and frames a command uses: ``--n-q``, ``--bandwidth``, ``--start``, ``--stop``."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from .. import arguments
from ..config import NUDGE
from ..errors import LevelsError, ParameterError
from .codes import Codes


def within(quantizer: Any, bandwidth: float, rate: Fraction | None) -> Any:
    """Return the first stages of a quantizer whose codes fit into `bandwidth` kb/s, at least one.

    `rate`: vectors per second.
    """
    found = arguments.number("encode", "--bandwidth", bandwidth, 0)
    if rate is None:
        raise ParameterError(
            f"encode: got --bandwidth {found:g} and no vectors per second; expected --frame-rate, "
            "or a sound. --n-q names stages without it."
        )
    bits = [
        float(np.log2(size)) / stride
        for size, stride in zip(quantizer.sizes, quantizer.strides, strict=True)
    ]
    costs = np.cumsum(bits) * float(rate) / 1000
    fitting = int((costs <= found * NUDGE).sum())
    return quantizer[: max(1, fitting)] if found else quantizer


def cut(
    codes: Codes, quantizer: Any, n_q: int | None, start: int | None, stop: int | None
) -> Codes:
    """Return the first `n_q` stages of frames `start` to `stop` of a file of codes."""
    block = quantizer.block
    if n_q is not None and not 1 <= n_q <= codes.n_q:
        raise LevelsError(
            f"decode: --n-q is {n_q}; expected 1 to {codes.n_q}, as there are {codes.n_q} stages."
        )
    first = 0 if start is None else start
    last = codes.frames if stop is None else stop
    fits = 0 <= first <= last <= codes.frames
    if not fits or first % block or (last % block and last != codes.frames):
        raise ParameterError(
            f"decode: --start is {first} and --stop {last}; expected 0 <= start <= stop <= "
            f"{codes.frames}, the number of frames"
            + (f", multiples of {block}." if block > 1 else ".")
        )

    def pieces() -> Iterator[tuple[int, Any]]:
        for begin, every in codes.pieces():
            if begin >= last:
                break
            some = every[:n_q]
            stages = some if isinstance(some, list) else [some]
            strides = quantizer.strides[: len(stages)] if isinstance(some, list) else (1,)
            length = stages[0].shape[-1] * strides[0]
            low, high = max(first, begin), min(last, begin + length)
            if low < high:
                taken = [
                    each[..., (low - begin) // stride : -(-(high - begin) // stride)]
                    for each, stride in zip(stages, strides, strict=True)
                ]
                yield low - first, taken if isinstance(some, list) else taken[0]

    n_q = codes.n_q if n_q is None else n_q
    return codes._replace(n_q=n_q, frames=last - first, pieces=pieces)
