"""Arrays that are computed later, in chunks: the same calls, chunk by chunk, in tasks.

What can be known of a shape and a dtype is checked when the call is made.  Numbers are looked at
in the task of their chunk, by the call for arrays that the task makes, and an error tells the
place in the whole array.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

from .. import arrays, backends
from ..codebooks import composed
from ..errors import BackendError, DtypeError, LevelsError, RvqError, ShapeError
from . import validation

PLACE = re.compile(r" at \(([^)]*)\)")


def encode(
    later: Any,
    call: Callable[..., Any],
    x: Any,
    codebooks: Any,
    n_q: int | None,
    beam_size: int,
    out: Any = None,
    threads: int | None = None,
    swapped: bool = False,
) -> Any:
    """Return what `rvq_np.encode`, which is `call`, makes of `x`, as arrays of its library.

    `later`: the `Chunked` backend of `x`.  `swapped`: the caller knows `x` (B, T, D) as (B, D, T).
    """
    quantizer = _quantizer("encode", later, codebooks, out)
    later.check("encode", "x", x)
    n_q = quantizer.n_q if n_q is None else n_q
    n_q = validation.stage_count("encode", n_q, 1, quantizer.n_q)
    beam_size = validation.beam("encode", beam_size)
    threads = validation.threads("encode", threads)
    if x.ndim == 0 or x.shape[-1] != quantizer.dim:
        raise ShapeError(
            f"encode: x has shape {tuple(x.shape)}; its last axis must be {quantizer.dim}, the "
            "length of a vector here. For (B, D, T), move axis 1 to the end or use the class."
        )
    validation.floating("encode", later.like(x))
    later.whole("encode", "x", x, -1, "the components of a vector")
    work = functools.partial(_encoded, call, beam_size, threads, swapped)
    if quantizer.block == 1:
        return later.over_vectors(work, x, quantizer[:n_q], n_q)
    _known("encode", "x", x, -2)
    validation.frames("encode", x, quantizer, beam_size, None)
    return later.over_frames(work, x, quantizer[:n_q], quantizer.strides[:n_q])


def decode(
    later: Any, call: Callable[..., Any], codes: Any, codebooks: Any, out: Any, threads: int | None
) -> Any:
    """Return what `rvq_np.decode`, which is `call`, makes of `codes`, in their library."""
    quantizer = _quantizer("decode", later, codebooks, out)
    threads = validation.threads("decode", threads)
    work = functools.partial(_decoded, call, threads)
    if quantizer.block == 1:
        later.check("decode", "codes", codes)
        _integers("decode", "codes", later, codes)
        if codes.ndim == 0:
            raise ShapeError("decode: codes has shape (); expected (n, ...), one row per stage.")
        if not codes.shape[0] <= quantizer.n_q:  # NaN where it is not known
            raise LevelsError(
                f"decode: codes have {codes.shape[0]} rows, one per stage, but there are "
                f"{quantizer.n_q} stages; pass codes[:{quantizer.n_q}] or fewer."
            )
        return later.over_codes(work, later.together(codes), quantizer)
    stages = validation.listed("decode", codes, quantizer, None)
    expected = None
    for stage, (row, stride) in enumerate(zip(stages, quantizer.strides, strict=False)):
        later.check("decode", f"codes[{stage}]", row)
        _integers("decode", f"codes[{stage}]", later, row)
        _known("decode", f"codes[{stage}]", row, -1)
        shape = (*row.shape[:-1], row.shape[-1] * stride)
        expected = expected or shape
        if shape != expected or shape[-1] % quantizer.block:
            raise ShapeError(
                f"decode: codes of stage {stage} have shape {tuple(row.shape)}, its stride is "
                f"{stride}; expected (..., T / stride), as stage 0 has {tuple(stages[0].shape)} "
                f"and stride {quantizer.strides[0]}, and T a multiple of {quantizer.block}."
            )
    return later.over_stages(
        functools.partial(_joined, call, threads), stages, quantizer, quantizer.strides
    )


def _quantizer(call: str, later: Any, codebooks: Any, out: Any) -> Any:
    if out is not None:
        raise BackendError(
            f"{call}: out is given for an array that is computed later; out= is for NumPy arrays. "
            "Omit it."
        )
    if backends.chunked(codebooks) is not None:
        raise BackendError(
            f"{call}: the codebooks are computed later; expected an array in memory. Pass "
            "codebooks.compute()."
        )
    return composed.of(codebooks)


def _integers(call: str, name: str, later: Any, codes: Any) -> None:
    if getattr(codes.dtype, "kind", "") not in ("i", "u"):
        if arrays.float_type(later.like(codes)) is None and "int" in str(codes.dtype):
            return  # of a library whose types are not NumPy's
        raise DtypeError(
            f"{call}: {name} have dtype {codes.dtype}; expected integers. A float cannot hold "
            "every index: convert where they were made."
        )


def _known(call: str, name: str, x: Any, axis: int) -> None:
    if x.ndim < -axis or any(math.isnan(each) for each in x.shape):
        raise ShapeError(
            f"{call}: {name} has shape {tuple(x.shape)}; expected known lengths, as stages have "
            f"strides. Call {name}.compute_chunk_sizes() first."
        )


def _encoded(
    call: Any, beam: int, threads: Any, swapped: bool, chunk: Any, quantizer: Any, start: Any,
    place: Any,
) -> Any:  # fmt: skip
    try:
        return call(chunk, quantizer, beam_size=beam, threads=threads)
    except RvqError as error:
        raise located(error, start, place, swapped=swapped) from None


def _decoded(call: Any, threads: Any, chunk: Any, quantizer: Any, start: Any, place: Any) -> Any:
    try:
        return call(chunk, quantizer, threads=threads)
    except RvqError as error:
        raise located(error, start, place) from None


def _joined(call: Any, threads: Any, chunks: Any, quantizer: Any, starts: Any, place: Any) -> Any:
    try:
        return call(chunks, quantizer, threads=threads)
    except RvqError as error:
        found = PLACE.search(str(error))
        stage = int(found[1].split(",")[0]) if found else 0
        raise located(error, (0, *starts[stage]), place) from None


def located(
    error: RvqError,
    start: tuple[float, ...],
    place: tuple[int, ...] | None,
    before: str = "",
    swapped: bool = False,
) -> RvqError:
    """Return the error of a chunk with the place in the whole array, and which chunk it was.

    `start`: where the chunk begins, NaN along axes where that is not known; there the place is
    that in the chunk.  `place`: which chunk it is; None: do not say.  `before`: what the message
    begins with.  `swapped`: name the last two axes the other way round.
    """

    def named(each: tuple[int, ...]) -> tuple[int, ...]:
        return (*each[:-2], each[-1], each[-2]) if swapped else each

    text, known = str(error), not any(math.isnan(each) for each in start)
    found = PLACE.search(text)
    if found and known:
        inside = [int(each) for each in found[1].split(",") if each.strip()]
        if len(inside) == len(start):
            whole = named(tuple(int(a) + b for a, b in zip(start, inside, strict=True)))
            text = f"{text[: found.start()]} at {whole}{text[found.end() :]}"
    elif found:
        text = f"{text[: found.end()]} of its chunk{text[found.end() :]}"
    if place is not None:
        text += f" It is in chunk {named(tuple(int(each) for each in place))}."
    return type(error)(before + text)
