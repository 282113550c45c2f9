"""What every public call makes sure of before a kernel, which checks nothing, sees an array.

Each function takes the name of the call it speaks for, and raises or returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import arguments, arrays, backends
from ..codebooks import Codebooks, Quantizer
from ..errors import (
    BackendError,
    CodeRangeError,
    DtypeError,
    LevelsError,
    NonFiniteError,
    ParameterError,
    ShapeError,
)

DROPPED = -1  # the code of a stage that adds nothing to a vector
_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def stage_count(call: str, n_q: Any, lowest: int, highest: int) -> int:
    """Return `n_q` as an int in ``[lowest, highest]``, or raise LevelsError."""
    found = arguments.whole_of(n_q)
    if found is None:
        raise LevelsError(f"{call}: n_q is {n_q!r}; expected a whole number of stages.")
    if not lowest <= found <= highest:
        raise LevelsError(
            f"{call}: n_q is {found}; expected {lowest} to {highest}, as there are {highest} "
            "stages."
        )
    return found


def beam(call: str, beam_size: Any) -> int:
    """Return `beam_size` as an int from 1, or raise ParameterError."""
    found = arguments.whole_of(beam_size)
    if found is None or found < 1:
        raise ParameterError(f"{call}: beam_size is {beam_size!r}; expected a whole number from 1.")
    return found


def threads(call: str, count: Any) -> int | None:
    """Return `count` as an int from 1, or None, or raise ParameterError."""
    if count is None:
        return None
    found = arguments.whole_of(count)
    if found is None or found < 1:
        raise ParameterError(
            f"{call}: threads is {count!r}; expected a whole number from 1, or None."
        )
    return found


def vectors(call: str, x: Any, codebooks: Quantizer) -> None:
    """Raise unless `x` is (..., D), floating, finite and small enough for its residuals."""
    vectors_later(call, x, codebooks, backends.engine_of(x))()


def vectors_later(
    call: str, x: Any, codebooks: Quantizer, engine: backends.Engine
) -> Callable[[], None]:
    """Begin `vectors`; return what raises, once it is known, if its numbers are bad."""
    if x.ndim == 0 or x.shape[-1] != codebooks.dim:
        raise ShapeError(
            f"{call}: x has shape {tuple(x.shape)}; its last axis must be {codebooks.dim}, the "
            "length of a vector here. For (B, D, T), move axis 1 to the end or use the class."
        )
    dtype = floating(call, x)
    return _nothing if 0 in x.shape else _finite_later(call, x, codebooks, dtype, engine)


def floating(call: str, x: Any) -> np.dtype:
    """Return the float type of `x`, float32 for bfloat16, or raise DtypeError."""
    dtype = arrays.KNOWN.get(x.dtype) if isinstance(x, np.ndarray) else None
    dtype = dtype or arrays.float_type(x)
    if dtype is None:
        raise DtypeError(
            f"{call}: x has dtype {x.dtype}; expected floating-point numbers: {arrays.FLOATS}. "
            "Convert with astype(float32)."
        )
    return dtype


def finite(call: str, x: Any, codebooks: Quantizer) -> None:
    """Raise NonFiniteError if `x` has a bad number, naming the first, or if one is too large."""
    _finite_later(call, x, codebooks, floating(call, x), backends.engine_of(x))()


def _finite_later(
    call: str, x: Any, codebooks: Quantizer, dtype: np.dtype, engine: backends.Engine
) -> Callable[[], None]:
    ends = engine.extent_later(x)
    if engine.STAYS:
        return lambda: _within(call, x, codebooks, dtype, *ends())
    _within(call, x, codebooks, dtype, *ends())
    return _nothing


def _nothing() -> None:
    return


def _within(call: str, x: Any, codebooks: Quantizer, dtype: np.dtype, low: Any, high: Any) -> None:
    low, high = float(low), float(high)  # before they are compared in their own type
    wide = _DOUBLE if _DOUBLE in (dtype, codebooks.dtype) else _SINGLE
    limit = codebooks.limit(wide)
    if -limit < low and high < limit:  # NaN comes through both
        return
    xp = arrays.namespace(x)
    finite = arrays.to_numpy(xp.isfinite(x))
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise NonFiniteError(
            f"{call}: x holds {float(x[first])} at {first}; expected finite numbers only. Nothing "
            "was changed. Mask or drop such vectors."
        )
    raise NonFiniteError(
        f"{call}: x reaches {max(-low, high):g}, so that a residual may overflow its float type. "
        "Scale x and the codebooks down, or pass x as float64."
    )


def codes(call: str, codes: Any, codebooks: Quantizer) -> None:
    """Raise unless `codes` (n, ...) are integers, n is at most Q and each names a codeword."""
    codes_later(call, codes, codebooks, lowest=0)()


def codes_later(
    call: str, codes: Any, codebooks: Quantizer, lowest: int = DROPPED
) -> Callable[[], bool]:
    """Begin `codes`, where codes from `lowest` on may be; return what says if some are dropped.

    It raises, once that is known, if a code names no codeword.
    """
    if codes.ndim == 0:
        raise ShapeError(f"{call}: codes has shape (); expected (n, ...), one row per stage.")
    xp = arrays.namespace(codes)
    whole = getattr(codes.dtype, "kind", "") in ("i", "u") or xp.isdtype(codes.dtype, "integral")
    if not whole:
        raise DtypeError(
            f"{call}: codes have dtype {codes.dtype}; expected integers. A float cannot hold every "
            "index: convert where they were made."
        )
    if codes.shape[0] > codebooks.n_q:
        raise LevelsError(
            f"{call}: codes have {codes.shape[0]} rows, one per stage, but there are "
            f"{codebooks.n_q} stages; pass codes[:{codebooks.n_q}] or fewer."
        )
    sizes = codebooks.sizes[: codes.shape[0]]

    if 0 in codes.shape:
        return _none_dropped
    engine = backends.engine_of(codes)
    ends = engine.extent_later(codes, by_row=True)

    def confirm() -> bool:
        low, high = ends()
        if (low >= 0).all() and (high < np.asarray(sizes)).all():
            return False
        return any([
            _some_dropped(call, codes[q, ...], q, size, lowest) for q, size in enumerate(sizes)
        ])  # fmt: skip

    if engine.STAYS:
        return confirm
    return _some_dropped_known if confirm() else _none_dropped


def _none_dropped() -> bool:
    return False


def _some_dropped_known() -> bool:
    return True


def for_encode(
    call: str, x: Any, engine: backends.Engine, codebooks: Quantizer, n_q: Any, beam_size: Any
) -> tuple[int, int, Callable[[], None]]:
    """Return `n_q`, all stages by default, the beam, and what raises if numbers of `x` are bad."""
    n_q = codebooks.n_q if n_q is None else stage_count(call, n_q, 1, codebooks.n_q)
    if type(beam_size) is not int or beam_size < 1:
        beam_size = beam(call, beam_size)
    return n_q, beam_size, vectors_later(call, x, codebooks, engine)


def listed(call: str, codes: Any, codebooks: Quantizer, out: Any) -> list[Any]:
    """Return codes of stages with strides as a list of as many arrays as stages, or raise."""
    if out is not None:
        raise ParameterError(f"{call}: out= is not supported where stages have strides.")
    stages = list(codes) if isinstance(codes, (list, tuple)) else []
    if not 1 <= len(stages) <= codebooks.n_q:
        got = f"a {type(codes).__name__}" if not stages else f"{len(stages)} stages"
        raise LevelsError(
            f"{call}: codes are {got}; expected a list of 1 to {codebooks.n_q} arrays, one a "
            f"stage: the stages have strides {codebooks.strides}."
        )
    return stages


def ragged(call: str, stages: list[Any], codebooks: Quantizer) -> list[Any]:
    """Return codes of stages with strides, one array (..., T / stride) each, or raise."""
    return ragged_or_dropped(call, stages, codebooks)[0]


def ragged_or_dropped(call: str, stages: list[Any], codebooks: Quantizer) -> tuple[list[Any], bool]:
    """Return what `ragged` does, and whether some of the codes are dropped."""
    expected, dropped = None, False
    for stage, (row, stride) in enumerate(zip(stages, codebooks.strides, strict=False)):
        if not arrays.namespace(*stages).isdtype(row.dtype, "integral"):
            raise DtypeError(
                f"{call}: codes of stage {stage} have dtype {row.dtype}; expected integers."
            )
        shape = (*row.shape[:-1], row.shape[-1] * stride) if row.ndim else ()
        expected = expected or shape
        if shape != expected or not shape:
            raise ShapeError(
                f"{call}: codes of stage {stage} have shape {tuple(row.shape)}, its stride is "
                f"{stride}; expected (..., T / stride), as stage 0 has {tuple(stages[0].shape)} "
                f"and stride {codebooks.strides[0]}."
            )
        dropped |= _some_dropped(call, row, stage, codebooks.sizes[stage], DROPPED)
    return stages, dropped


def frames(call: str, x: Any, codebooks: Quantizer, beam_size: int, out: Any) -> None:
    """Raise unless `x` (..., T, D) can be quantized by stages with strides."""
    if x.ndim < 2 or x.shape[-2] % codebooks.block:
        raise ShapeError(
            f"{call}: x has shape {tuple(x.shape)}; expected (..., T, {codebooks.dim}) where T is "
            f"a multiple of {codebooks.block}, as strides are {codebooks.strides}. Pad it."
        )
    if beam_size != 1 or out is not None:
        raise ParameterError(
            f"{call}: beam_size other than 1 and out= are not supported where stages have strides."
        )


def plain(call: str, codebooks: Any) -> Codebooks:
    """Return `codebooks` if it is a `Codebooks` without strides, or raise ParameterError."""
    if not isinstance(codebooks, Codebooks) or codebooks.block > 1:
        raise ParameterError(
            f"{call}: got {codebooks!r}; expected Codebooks without strides. Call it for the parts."
        )
    return codebooks


def _some_dropped(call: str, row: Any, stage: int, size: int, lowest: int) -> bool:
    """Return whether some codes of a stage are dropped; raise unless all are in [lowest, size)."""
    xp = arrays.namespace(row)
    if 0 in row.shape:
        return False
    low = int(xp.min(row))
    if low >= lowest and int(xp.max(row)) < size:
        return low < 0
    here = arrays.to_numpy(row)
    first = tuple(int(i) for i in np.argwhere((here < lowest) | (here >= size))[0])
    dropped = "" if lowest == 0 else f", or {DROPPED} where the stage is dropped"
    raise CodeRangeError(
        f"{call}: code {int(here[first])} at {(stage, *first)} names no codeword; expected 0 to "
        f"{size - 1} at stage {stage}{dropped}."
    )


def out(
    call: str, out: Any, like: backends.Entered, shape: tuple[int, ...], dtype: Any
) -> np.ndarray:
    """Return `out` if it can take the result of a call on `like`, or raise."""
    if not (type(out) is np.ndarray and type(like.array) is np.ndarray and like.back is None):
        given = type(like.array if like.back is None else like.out(like.array)).__name__
        raise BackendError(
            f"{call}: out is a {type(out).__name__} for a {given}; out= is for NumPy "
            "arrays. Omit it for others."
        )
    if out.dtype != dtype:
        raise DtypeError(f"{call}: out has dtype {out.dtype}; expected {np.dtype(dtype)}.")
    if out.shape != shape or not (out.flags.c_contiguous and out.flags.writeable):
        raise ShapeError(
            f"{call}: out has shape {out.shape}; expected {shape}, writeable and in C order."
        )
    return out
