"""Rows of vectors to codes and back, for every quantizer there is, without a check.

`rvq_np.codec` makes the checks, once, and the rest of the package that has made its own calls
here.  Which library computes is for `rvq_np.backends` to say; what is here is how quantizers are
put together from sequences of stages, and how stages share a code among frames.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from .. import arrays, backends
from ..codebooks import Codebooks, Quantizer
from ..codebooks.composed import Composed, Normalized
from ..errors import ParameterError
from ..kernels import dispatch, steps
from ..kernels.totals import NOTHING, ExactSum, Extent

NUMBERS = 1 << 20  # numbers of a block of rows that passes a composed quantizer


def encode(x: Any, quantizer: Quantizer, n_q: int, beam_size: int = 1) -> Any:
    """Return codes (n_q, N) of `x` (N, D); where stages have strides, a list with one per stage."""
    if isinstance(quantizer, Codebooks) and quantizer.block == 1:
        engine = backends.engine_of(x)
        return engine.encode(x, quantizer.prepared(engine, x)[:n_q], beam_size)
    way: Any = _composed if isinstance(quantizer, Composed) else _strided
    way = _normalized if isinstance(quantizer, Normalized) else way
    parts = [way(part, quantizer, n_q, beam_size) for part in _blocks(x, quantizer)]
    if len(parts) == 1:
        return parts[0]
    xp = arrays.namespace(x)
    if quantizer.block == 1:
        return xp.concat(parts, axis=1)
    return [xp.concat(list(stage)) for stage in zip(*parts, strict=True)]


def decode(
    codes: Any, quantizer: Quantizer, stages: np.ndarray | None = None, dropped: bool = False
) -> Any:
    """Return vectors (N, D) of `codes` (n, N), or of a list of n (N / stride,).

    `stages` (N,), from 1, for `Codebooks` only: add up only so many stages of each row.
    `dropped`: some codes are negative, and add nothing.
    """
    if isinstance(quantizer, Composed):
        return _apart(codes, quantizer, dropped)
    codebooks = cast(Codebooks, quantizer)
    if codebooks.block > 1:
        return _together(codes, codebooks, dropped)
    engine = backends.engine_of(codes)
    prepared = codebooks.prepared(engine, _vector_like(codes))
    if dropped:
        xp = arrays.namespace(codes)
        named = xp.where(codes < 0, xp.zeros_like(codes), codes)
        return _added(0, named, prepared, lambda stage: codes[stage, :] >= 0)
    if stages is not None:
        return _added(1, codes, prepared, lambda stage: arrays.asarray(stages > stage, codes))
    return engine.decode(codes, prepared)


def _added(first: int, codes: Any, prepared: Any, active: Callable[[int], Any]) -> Any:
    """Return the sum (N, D) of the codewords of all rows, from stage `first` on of the active ones.

    These are the additions of the engine's `decode`, from zero and in its order.
    """
    xp, engine = arrays.namespace(codes), backends.engine_of(codes)
    total = engine.decode(codes[:first, :], prepared[: max(1, first)])
    for stage in range(first, codes.shape[0]):
        part = engine.decode(codes[stage : stage + 1, :], prepared[stage : stage + 1])
        total = xp.where(active(stage)[:, None], total + part, total)
    return total


def tally(x: Any, codes: Any, codebooks: Codebooks) -> tuple[list[Any], list[Any]]:
    """Return per stage the counts of codewords and the sums of what chose them, float64."""
    engine = backends.engine_of(x)
    counts, sums = engine.tally(x, codes, codebooks.prepared(engine, x)[: codes.shape[0]])
    return counts, sums


def exact_tally(
    x: Any, codes: Any, codebooks: Codebooks
) -> tuple[list[np.ndarray], list[ExactSum]]:
    """Return what `tally` does, but sums that are not rounded yet; where `x` is, if it `stays`."""
    if stays(x):
        engine = backends.trainer_of(x)
        counts, sums = engine.add_up(x, codes, codebooks.prepared(engine, x)[: codes.shape[0]])
        return [arrays.to_numpy(each) for each in counts], sums
    rows, codes = arrays.to_numpy(x), arrays.to_numpy(codes)
    here = codebooks.prepared(backends.engine_of(rows), rows)[: codes.shape[0]]
    found: tuple[list[np.ndarray], list[ExactSum]] = dispatch.add_up(rows, codes, here)
    return found


def follow(x: Any) -> Callable[[Codebooks], Any]:
    """Return a function that gives the codes of `x` (N, D) by one stage.

    For calling again and again while the stage's float32 codewords move a little: on NumPy arrays
    most rows then need no search. `x` must stay as it is.
    """
    if not isinstance(x, np.ndarray):
        return lambda codebooks: encode(x, codebooks, 1)
    following = dispatch.follow(x, np.dtype(np.float32))
    return lambda codebooks: following(tables(x, codebooks))


def extents(parts: Sequence[Any]) -> tuple[Extent, int]:
    """Return the extent of the numbers of some arrays in host memory, and how many rows they have.

    With both, `assign` puts the sums of all of them on the same grids.
    """
    found = [
        (steps.extent(steps.working(part, np.float32)), len(part))
        for part in parts
        if isinstance(part, np.ndarray)
    ]
    return functools.reduce(operator.or_, (each for each, _ in found), NOTHING), sum(
        rows for _, rows in found
    )


def assign(
    x: Any, together: tuple[Extent, int] | None = None
) -> Callable[[Any], tuple[Any, ExactSum]]:
    """Return ``again(codewords)``: the counts (K,) and exact sums (K, C) of the rows nearest to
    each codeword, good until the next call.

    For the iterations of k-means on `x` (N, C). Where the backend of `x` has an `assign` of its
    own, codewords may be an array of its library, and counts and pieces of sums are; elsewhere
    also `Codebooks` of one stage. `together`: of `extents`.
    """
    if stays(x):
        again: Callable[[Any], tuple[Any, ExactSum]] = backends.trainer_of(x).assign(x)
        return again
    following = follow(x)
    rows = steps.working(arrays.to_numpy(x), np.float32)
    assigned = steps.Assigned(rows, together)

    def on_the_host(codewords: Any) -> tuple[Any, ExactSum]:
        stage = codewords if isinstance(codewords, Codebooks) else Codebooks([codewords])
        codes = arrays.to_numpy(following(stage))[0]
        found: tuple[Any, ExactSum] = assigned.again(codes, stage.sizes[0])
        return found

    return on_the_host


def walk(x: Any, codes: Any, codebooks: Codebooks) -> Iterator[tuple[Any, Any]]:
    """Yield per stage what it quantized, rows (N, C), and the codewords (N, C) it chose.

    The rows are the residuals, bit for bit those that `encode` searched with, projected if the
    stage projects. `x` (N, D) and `codes` (n, N), valid and finite, are NumPy arrays or of a
    library that `stays` where it is.
    """
    yield from _trainer(x).walk(x, codes, tables(x, codebooks))


def searched(x: Any, codebooks: Codebooks, stage: int = 0) -> Any:
    """Return what a stage searches with: a copy of `x` (N, D), or projected (N, C)."""
    if stays(x):
        return backends.trainer_of(x).searched(x, tables(x, codebooks)[stage : stage + 1])
    return steps.searched(arrays.to_numpy(x), codebooks[stage], codebooks.dtype)


def residual(x: Any, codes: Any, codebooks: Codebooks) -> Any:
    """Return what is left of `x` (N, D) after the stages of `codes` (n, N), as `encode` does."""
    if stays(x):
        return backends.trainer_of(x).residual(x, codes, tables(x, codebooks))
    given = arrays.to_numpy(x), arrays.to_numpy(codes)
    return steps.residual(*given, codebooks.stages, codebooks.dtype)


class Part(NamedTuple):
    """What one stage made of the rows of a batch that count."""

    searched: Any  # (n, C): what the stage quantized
    counts: Any  # (K,) float64: how often each codeword was chosen
    sums: Any  # (K, C), of what chose it: an `ExactSum`, or the `steps.Tally` that makes it
    distances: Any  # (n,) float64, squared, of each row to its codeword


class Passage:
    """A batch on its way through the first `n_q` stages: iterate, then look at what there is.

    Yields a `Part` per stage, good until the next is asked for. After the last, `codes` (n_q, N)
    and `quantized` (N, D), of the first ``stages[n]`` stages of row n, are whole; in the library
    of `x` (N, D), which is finite. `places`: the rows that count in a part; all by default.
    """

    def __init__(
        self,
        x: Any,
        codebooks: Codebooks,
        n_q: int,
        places: np.ndarray | None = None,
        stages: np.ndarray | None = None,
    ):
        self.x, self.codebooks, self.n_q = x, codebooks, n_q
        self.places, self.stages = places, stages
        self.codes: Any = None
        self.quantized: Any = None

    def __iter__(self) -> Iterator[Part]:
        return self._there() if stays(self.x) else self._here()

    def _here(self) -> Iterator[Part]:
        x, codebooks = arrays.to_numpy(self.x), self.codebooks
        codes = np.empty((self.n_q, x.shape[0]), np.int32)
        quantized = np.zeros((x.shape[0], codebooks.dim), codebooks.dtype)
        dtype = dispatch.working_dtype(x.dtype, codebooks.dtype)
        given = None if self.stages is None else self.stages.astype(np.int32)
        stages = codebooks.stages[: self.n_q]
        for part in steps.through(x, stages, dtype, codes, quantized, codebooks._hints, given):
            searched, chosen = part.searched, part.codes
            if self.places is not None:
                searched, chosen = searched[self.places], chosen[self.places]
            tally = steps.Tally(searched, chosen, len(part.codebook))
            distances = steps.squared_distances(searched, part.codebook, chosen)
            yield Part(searched, tally.counts, tally, distances)
        self.codes, self.quantized = (arrays.asarray(each, self.x) for each in (codes, quantized))

    def _there(self) -> Iterator[Part]:
        """As `_here`, on a device, where all stages are searched in one launch."""
        self.codes = encode(self.x, self.codebooks, self.n_q)
        x, codes = self.x, self.codes
        if self.places is not None:
            x, codes = arrays.take(x, self.places), arrays.take(codes, self.places, 1)
        counts, sums = exact_tally(x, codes, self.codebooks)
        parts = walk(x, codes, self.codebooks) if x.shape[0] else ()
        for stage, (searched, codewords) in enumerate(parts):
            yield Part(searched, counts[stage], sums[stage], energies(searched - codewords))
        self.quantized = decode(self.codes, self.codebooks, self.stages)


def energies(rows: Any) -> Any:
    """Return the squared length (n,) of each of `rows` (n, C), float64, where they are."""
    if isinstance(rows, np.ndarray):
        return np.einsum("nd,nd->n", rows, rows, dtype=np.float64)
    with arrays.there(rows):
        xp = arrays.namespace(rows)
        return xp.sum(xp.square(xp.astype(rows, xp.float64)), axis=1)


def stays(x: Any) -> bool:
    """Return whether training leaves `x` on its device."""
    found: bool = backends.engine_of(x).STAYS
    return found


def _trainer(x: Any) -> Any:
    return backends.trainer_of(x) if stays(x) else dispatch


def tables(x: Any, codebooks: Codebooks) -> Any:
    """Return the stages as the backend of `x` reads them."""
    return codebooks.prepared(backends.engine_of(x), x)


def _blocks(x: Any, quantizer: Quantizer) -> Iterator[Any]:
    """Yield `x` (N, D) in parts whose frames share no code with those of another."""
    step = max(1, NUMBERS // (quantizer.dim * quantizer.block)) * quantizer.block
    for start in range(0, max(1, x.shape[0]), step):
        yield x[start : start + step, :] if step < x.shape[0] else x


def _composed(x: Any, quantizer: Composed, n_q: int, beam_size: int) -> Any:
    shares = quantizer.shares(n_q)
    theirs = [
        encode(rows, part, share, beam_size) if share else None
        for rows, part, share in zip(quantizer.into(x), quantizer.parts, shares, strict=True)
    ]
    stages = [_stage(theirs[part], stage) for part, stage in quantizer.places(n_q)]
    return stages if quantizer.block > 1 else arrays.namespace(x).stack(stages)


def _normalized(x: Any, quantizer: Normalized, n_q: int, beam_size: int) -> Any:
    if beam_size > 1:
        raise ParameterError(
            f"encode: beam_size is {beam_size} for {quantizer!r}; expected 1, as stages that "
            "quantize directions are searched greedily."
        )
    codes = [codes for _, codes in directions(x, quantizer, n_q)]
    return arrays.namespace(x).stack(codes)


def directions(x: Any, quantizer: Normalized, n_q: int) -> Iterator[tuple[Any, Any]]:
    """Yield per stage what it quantizes of `x` (N, D), of length one, and its codes (N,)."""
    left = _working(x, quantizer)
    for part in quantizer.parts[:n_q]:
        left = unit(left)
        codes = encode(left, part, 1)
        yield left, codes[0, :]
        left = left - decode(codes, part)


def unit(rows: Any) -> Any:
    """Return rows (n, D) divided by their lengths, as float64 has them; those of zeros as they are.

    First by their largest number, or squares might overflow.
    """
    if 0 in rows.shape:
        return rows
    xp = arrays.namespace(rows)
    wide = xp.astype(rows, xp.float64)
    largest = xp.max(xp.abs(wide), axis=1)[:, None]
    wide = wide / xp.where(largest > 0, largest, xp.ones_like(largest))
    lengths = xp.sqrt(energies(wide))[:, None]
    return xp.astype(wide / xp.where(lengths > 0, lengths, xp.ones_like(lengths)), rows.dtype)


def _apart(codes: Any, quantizer: Composed, dropped: bool) -> Any:
    """Return the vectors (N, D) of a composed quantizer; a part without codes adds zeros.

    So does a part all of whose codes are dropped: no bias of a map stands for it.
    """
    n_q = len(codes) if isinstance(codes, list) else codes.shape[0]
    if n_q == 0:
        return _zeros(codes.shape[1], quantizer, codes)
    own: list[list[Any]] = [[] for _ in quantizer.parts]
    for stage, part in enumerate(quantizer.order[:n_q]):
        own[part].append(_stage(codes, stage))
    frames = _stage(codes, 0).shape[0] * quantizer.strides[0]
    vectors = []
    for part, some in zip(quantizer.parts, own, strict=True):
        if not some:
            vectors.append(_zeros(frames, part, _stage(codes, 0)))
        else:
            theirs = some if part.block > 1 else arrays.namespace(*some).stack(some)
            vectors.append(decode(theirs, part, None, dropped))
    found = quantizer.out_of(vectors)
    if not (dropped and quantizer.maps()):
        return found
    named = [_each(_stage(codes, stage) >= 0, quantizer.strides[stage]) for stage in range(n_q)]
    xp = arrays.namespace(found)
    active = functools.reduce(operator.or_, named)[:, None]
    return xp.where(active, found, xp.zeros_like(found))


def _strided(x: Any, codebooks: Codebooks, n_q: int, beam_size: int) -> list[Any]:
    """Return per stage the codes of the means of as many frames as its stride says.

    The mean is a sum in the order of time, then a division; what its code decodes to is taken
    from each of the frames.
    """
    left, codes = _working(x, codebooks), []
    for stage, stride in zip(codebooks.alone[:n_q], codebooks.strides, strict=False):
        codes.append(encode(_means(left, stride), stage, 1)[0, :])
        if len(codes) < n_q:
            left = left - _each(decode(codes[-1][None, :], stage), stride)
    return codes


def _together(codes: Sequence[Any], codebooks: Codebooks, dropped: bool) -> Any:
    """Return the vectors (N, D) of codes each of which stands for as many frames as its stride."""
    total = None
    for row, stage, stride in zip(codes, codebooks.alone, codebooks.strides, strict=False):
        part = _each(decode(row[None, :], stage, None, dropped), stride)
        total = part if total is None else total + part
    return total


def _means(rows: Any, stride: int) -> Any:
    if stride == 1:
        return rows
    frames = arrays.namespace(rows).reshape(rows, (rows.shape[0] // stride, stride, rows.shape[1]))
    total = frames[:, 0, :]
    for place in range(1, stride):
        total = total + frames[:, place, :]
    return total / stride


def _each(rows: Any, stride: int) -> Any:
    """Return every row (n, D) `stride` times, one after the other: (n * stride, D)."""
    return rows if stride == 1 else arrays.namespace(rows).repeat(rows, stride, axis=0)


def _stage(codes: Any, stage: int) -> Any:
    return codes[stage] if isinstance(codes, list) else codes[stage, :]


def _working(x: Any, codebooks: Quantizer) -> Any:
    """Return `x` in the float type of residuals."""
    if arrays.float_type(x) == np.float64:
        return arrays.native(x)
    dtype = arrays.asarray(np.empty(0, codebooks.dtype), x).dtype
    return x if x.dtype == dtype else arrays.namespace(x).astype(x, dtype)


def _zeros(rows: int, quantizer: Quantizer, like: Any) -> Any:
    return arrays.asarray(np.zeros((rows, quantizer.dim), quantizer.dtype), like)


def _vector_like(codes: Any) -> Any:
    """Return an empty float32 array beside `codes`: what `prepare` wants to see."""
    return arrays.asarray(np.empty(0, np.float32), codes)
