"""Dask arrays: computed later and chunk by chunk, each chunk by the backend of its own library.

Nothing here computes.  What all tasks share, the codebooks, is one key of the graph: a scheduler
moves it to each worker once, and what a worker prepares of it is kept with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from typing import Any

import numpy as np

from .. import arrays
from ..errors import BackendError, ShapeError
from ..kernels import tiles


def enter(x: Any) -> Any:
    kind = f"{type(x).__module__}.{type(x).__qualname__}"
    raise BackendError(
        f"rvq_np got a {kind}, which is computed later; this call needs numbers now. encode, "
        "decode and fit take Dask arrays as they are; elsewhere pass x.compute()."
    )


def check(call: str, name: str, x: Any) -> None:
    """Raise BackendError unless `x` is a Dask array: the library has other collections as well."""
    import dask.array as da

    if not isinstance(x, da.Array):
        raise BackendError(
            f"{call}: {name} is a {type(x).__module__}.{type(x).__qualname__}; expected a "
            "dask.array.Array. For a DataFrame call to_dask_array(lengths=True)."
        )


def like(x: Any) -> Any:
    """Return an empty array of the library of the chunks, with the dtype of `x`."""
    return x._meta


def whole(call: str, name: str, x: Any, axis: int, meaning: str) -> None:
    """Raise ShapeError unless the axis, which holds `meaning`, is in one chunk."""
    if x.numblocks[axis] != 1:
        raise ShapeError(
            f"{call}: {name} has chunks {x.chunks[axis]} along axis {axis % x.ndim}, which holds "
            f"{meaning}; expected one chunk. Call {name}.rechunk({{{axis % x.ndim}: -1}}) first."
        )


def together(codes: Any) -> Any:
    """Return `codes` with all stages in one chunk."""
    return codes if codes.numblocks[0] == 1 else codes.rechunk({0: -1})


def over_vectors(function: Any, x: Any, shared: Any, n_q: Any) -> Any:
    """Return the codes (n_q, ...) of vectors `x` (..., D); D in one chunk.

    ``function(chunk, shared, start, place)`` gives those of the chunk at `place`; `start` is where
    in `x` it begins, NaN along axes whose chunk sizes are not known.
    """
    return _over(function, x, shared, x.ndim - 1, 0, n_q, np.int32)


def over_codes(function: Any, codes: Any, shared: Any) -> Any:
    """Return the vectors (..., D) of `codes` (n, ...); all stages in one chunk."""
    return _over(function, codes, shared, 0, codes.ndim - 1, shared.dim, shared.dtype)


def over_frames(function: Any, x: Any, shared: Any, strides: Any) -> list[Any]:
    """Return per stage the codes (..., T / stride) of `x` (..., T, D).

    Chunks along T are cut again where they do not end with a block of frames.
    """
    x = x.rechunk({x.ndim - 2: _blocks(x.chunks[-2], shared.block)})
    batch, frames = x.chunks[:-2], x.chunks[-2]
    every = _over(function, x, shared, x.ndim - 1, None, None, object)
    return [
        every.map_blocks(
            _one, stage, chunks=(*batch, tuple(each // stride for each in frames)),
            **_kind(x, np.int32, x.ndim - 1),
        )
        for stage, stride in enumerate(strides)
    ]  # fmt: skip


def over_stages(function: Any, codes: Any, shared: Any, strides: Any) -> Any:
    """Return the vectors (..., T, D) of a list of codes (..., T / stride).

    ``function(chunks, shared, starts, place)``: a list of chunks, and where each begins.
    """
    import dask.array as da
    from dask.layers import ArrayBlockIdDep

    frames = _blocks([each * strides[0] for each in codes[0].chunks[-1]], shared.block)
    batch = codes[0].chunks[:-1]
    cut = [
        stage.rechunk((*batch, tuple(each // stride for each in frames)))
        for stage, stride in zip(codes, strides, strict=False)
    ]
    axes = tuple(range(cut[0].ndim))
    pairs = [each for stage in cut for each in (stage, axes)]
    return da.blockwise(
        _of_stages, (*axes, len(axes)), ArrayBlockIdDep(cut[0].chunks), axes, *pairs,
        function=function, shared=_once(shared), starts=[_starts(stage) for stage in cut],
        new_axes={len(axes): shared.dim}, adjust_chunks={axes[-1]: frames}, align_arrays=False,
        **_kind(cut[0], shared.dtype, len(axes) + 1),
    )  # fmt: skip


def moved(x: Any, source: Any, destination: Any) -> Any:
    """Return `x` with an axis moved."""
    import dask.array as da

    return da.moveaxis(x, source, destination)


def rows(x: Any) -> Any:
    """Return vectors (..., D) as rows (N, D)."""
    return x.reshape((-1, x.shape[-1]))


def _over(function: Any, x: Any, shared: Any, gone: Any, come: Any, length: Any, dtype: Any) -> Any:
    """Return what `function` makes of chunks, without the axis `gone` and with the axis `come`.

    `gone`, in one chunk, is the place of an axis of `x`, `come` that of one of the result, of this
    length.
    """
    import dask.array as da
    from dask.layers import ArrayBlockIdDep

    axes = tuple(range(x.ndim))
    rest = axes[:gone] + axes[gone + 1 :]
    places = ArrayBlockIdDep(tuple(x.chunks[axis] for axis in rest))
    out, new = rest, {}
    if come is not None:
        out, new = (*rest[:come], x.ndim, *rest[come:]), {x.ndim: length}
    if dtype is object:
        kind = {"dtype": object, "meta": np.empty((0,) * len(out), object)}
    else:
        kind = _kind(x, dtype, len(out))
    # Not concatenated: Dask would copy a chunk of whatever is in one piece along `gone`.
    return da.blockwise(
        _run, out, x, axes, places, rest, function=function, shared=_once(shared),
        starts=_starts(x), gone=gone, new_axes=new, concatenate=False, align_arrays=False, **kind,
    )  # fmt: skip


def _run(chunk: Any, rest: Any, function: Any, shared: Any, starts: Any, gone: Any) -> Any:
    while isinstance(chunk, list):
        (chunk,) = chunk
    place = (*rest[:gone], 0, *rest[gone:])
    start = tuple(along[each] for along, each in zip(starts, place, strict=True))
    with sharing():
        return function(chunk, shared, start, place)


def _of_stages(place: Any, *chunks: Any, function: Any, shared: Any, starts: Any) -> Any:
    begin = [tuple(along[each] for along, each in zip(axes, place, strict=True)) for axes in starts]
    with sharing():
        return function(list(chunks), shared, begin, place)


def sharing() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which a task uses as many threads as the worker it runs on has."""
    if "distributed" in sys.modules:
        from distributed import get_worker

        with contextlib.suppress(ValueError):  # no worker
            return tiles.at_most(get_worker().state.nthreads)
    if multiprocessing.parent_process() is not None:  # of Dask's pool: one for each core
        return tiles.at_most(1)
    return tiles.at_most(None)


def _one(stages: Any, stage: Any) -> Any:
    return stages[stage]


def _starts(x: Any) -> tuple[tuple[float, ...], ...]:
    """Return where chunks begin, per axis."""
    found = []
    for chunks in x.chunks:
        known = [0]
        for each in chunks[:-1]:
            known.append(known[-1] + each)
        found.append(tuple(known))
    return tuple(found)


def _kind(x: Any, dtype: Any, ndim: Any) -> dict[str, Any]:
    """Return what says that chunks are of the library of those of `x`, and of which type."""
    meta = arrays.asarray(np.empty((0,) * ndim, dtype), x._meta)
    return {"dtype": meta.dtype, "meta": meta}


def _once(shared: Any) -> Any:
    """Return `shared` as one key, the same for equal values."""
    import dask

    name = f"rvq_np-codebooks-{shared.fingerprint}-{shared.dtype}"
    return dask.delayed(shared, name=name, traverse=False)


def _blocks(chunks: Any, block: Any) -> tuple[int, ...]:
    """Return sizes of chunks that are multiples of `block`, cut near where `chunks` are cut."""
    ends = np.cumsum(chunks)
    ends = np.unique(ends // block * block)
    return tuple(int(each) for each in np.diff(ends, prepend=0) if each) or (0,)
