"""CuPy arrays: codes are found on the device, and nothing of the vectors is copied to the host.

The kernels are CUDA C++, compiled when first used and kept by CuPy on disk.  What is prepared of
the stages lives beside the vectors.  Work is queued on CuPy's current stream of that device; only
what returns NumPy arrays, `tally` and what `extent_later` returns, waits for it.  Torch and JAX
arrays on a GPU are shared with CuPy.
"""

import functools
from typing import Any

import cupy
import numpy as np

from ...errors import BackendError
from .. import dispatch, steps, totals
from .launch import FAR, THREADS, cast, launch, over, sort_shape
from .search import Stage, joined, projected, screen, search, search_beams

STAYS = True  # training leaves arrays on their device
NUMBERS = 1 << 25  # of the residuals that are held at once: 128 MiB of float32
LEAVES = 16  # leaves of `dispatch.LEAF` rows that are added up at once, at most
GRIDS = 4  # that the kernel adds up on, at most: see gather.cu
WIDE, TOGETHER = 4, 4  # numbers of a codeword, and rows, that a thread decodes: see gather.cu
PIECE = 1 << 14  # numbers whose ends one block of threads finds
BLOCKS = 1 << 10  # of threads that look for the ends of rows
ENDS = {
    np.dtype(np.float16): "extent_of_half",
    np.dtype(np.float32): "extent_of_float",
    np.dtype(np.float64): "extent_of_double",
    np.dtype(np.int32): "extent_of_int",
    np.dtype(np.int64): "extent_of_long",
}


class Prepared:
    """The stages on one device; a slice of it serves some of the stages."""

    def __init__(self, stages: Any, fused: Any, table: Any, offsets: Any, sizes: Any):
        self.stages = tuple(stages)
        self.fused = fused  # the `Screen` of all, where none projects
        self.table, self.offsets, self.sizes = table, offsets, sizes  # of all stages

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, stages: slice) -> "Prepared":
        if stages.indices(len(self)) == (0, len(self), 1):
            return self
        fused = None if self.fused is None else self.fused.first(stages)
        offsets, sizes = self.offsets[stages], self.sizes[stages]
        return Prepared(self.stages[stages], fused, self.table, offsets, sizes)


def check(x):
    """Raise BackendError if there is no device to compute on."""
    problem = missing()
    if problem:
        raise BackendError(
            f"rvq_np got a {type(x).__module__}.{type(x).__qualname__}, but CuPy finds no device "
            f"to compute on: {problem} Install an NVIDIA driver and the CuPy for its CUDA "
            "(rvq-np[cuda12] or rvq-np[cuda13]), or pass NumPy arrays."
        )


@functools.cache
def missing():
    """Return why CuPy cannot compute here, as a sentence; empty if it can."""
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # whatever a missing driver makes of itself
        return f"{type(error).__name__}: {error}."
    return "" if count else "it counts 0 devices."


def prepare(codebooks, like):
    """Return the stages on the device of `like`, for vectors of its type."""
    with like.device:
        here = dispatch.prepare(codebooks, like.dtype)
        tables = [cupy.asarray(each.table) for each in here]
        ends = np.cumsum([each.size for each in tables])
        offsets = cupy.asarray(np.concatenate([[0], ends[:-1]]).astype(np.int64))
        plain = all(each.weight_in is None and each.codebook is each.table for each in here)
        lost = [np.isinf(each.half) for each in here]
        useless = [np.flatnonzero(each) for each in lost]
        usable = [cupy.asarray(np.flatnonzero(~each).astype(np.int32)) for each in lost]
        codewords = tables if plain else [cupy.asarray(each.codebook) for each in here]
        fused = screen(codewords, useless) if plain else None
        stages = []
        for q, each in enumerate(here):
            own = screen(codewords[q : q + 1], useless[q : q + 1]) if fused is None else fused
            maps = each.weight_in is not None and not (each.unit and _changes_nothing(each))
            stages.append(
                Stage(
                    own if fused is None else own.first(slice(q, q + 1)),
                    codewords[q], usable[q], tables[q],
                    cupy.asarray(each.weight_in) if maps else None,
                    cupy.asarray(each.bias_in) if maps else None, each.unit,
                )
            )  # fmt: skip
        sizes = cupy.asarray(np.array([len(each) for each in tables], np.int32))
        return Prepared(stages, fused, joined(tables), offsets, sizes)


def _changes_nothing(stage):
    if stage.weight_in.shape[0] != stage.weight_in.shape[1] or stage.bias_in.any():
        return False
    return np.array_equal(stage.weight_in, np.eye(len(stage.weight_in)))


def prepare_map(linear, like):
    """Return weight (D, C) and bias (C,), float64, on the device of `like`."""
    with like.device:
        arrays = (linear.weight.T, linear.bias)
        return tuple(cupy.asarray(np.array(each, np.float64, order="C")) for each in arrays)


def project(x, prepared, dtype):
    with x.device:
        weight, bias = prepared
        mapped = cast(x, np.float64) @ weight + bias
        return cast(mapped, dispatch.working_dtype(x.dtype, dtype))


def encode(x, prepared, beam_size=1):
    with x.device:
        codes = cupy.empty((len(prepared), x.shape[0]), np.int32)
        step = max(1, min(NUMBERS // x.shape[1], FAR // beam_size) // beam_size)
        for start in range(0, x.shape[0], step):
            part, own = x, codes
            if x.shape[0] > step:
                part, own = x[start : start + step], codes[:, start : start + step]
            rows = cast(part, prepared.table.dtype)
            if beam_size > 1:
                search_beams(rows, prepared.stages, beam_size, own)
            elif prepared.fused is not None:
                search(rows, prepared.fused, prepared.stages, own)
            else:
                left = rows.copy() if len(prepared) > 1 else rows
                for q, stage in enumerate(prepared.stages):
                    search(projected(left, stage), stage.screen, [stage.search()], own[q : q + 1])
                    if q + 1 < len(prepared):
                        _subtract(left, stage, own[q])
        return codes


def decode(codes, prepared):
    with codes.device:
        codes = cupy.ascontiguousarray(codes, dtype=np.int32)
        width = prepared.stages[0].table.shape[1]
        vectors = cupy.empty((codes.shape[1], width), prepared.table.dtype)
        wide = width % WIDE == 0
        over(
            "gather", "decode_wide" if wide else "decode", vectors.dtype,
            -(-codes.shape[1] // TOGETHER) * (width // (WIDE if wide else 1)),
            (codes, np.int64(codes.shape[1]), np.int64(codes.shape[1]), np.int32(width),
             np.int32(codes.shape[0]), prepared.table, prepared.offsets, prepared.sizes, vectors),
        )  # fmt: skip
        return vectors


class Sum(totals.ExactSum):
    """An exact sum on a device."""

    __slots__ = ()

    def host(self):
        return totals.ExactSum(self.pieces.get(), self.extent, self.rows)

    def put(self, array):
        return cupy.asarray(array)


def tally(x, codes, prepared):
    """As the contract says: the same bits as on the host."""
    with x.device:
        counts, sums = add_up(x, codes, prepared)
        return [each.get() for each in counts], [each.host().rounded() for each in sums]


def add_up(x, codes, prepared):
    """Return per stage counts (K,), and `totals.ExactSum` with its pieces on the device.

    Waits for the device to find the extent of the numbers; again for each stage with a map.
    """
    return _added(x, codes, prepared, _extents(x, prepared))


def _added(x, codes, prepared, extents):
    codes = cupy.ascontiguousarray(codes, dtype=np.int32)
    largest = max(stage.codebook.size for stage in prepared.stages)
    space = max(1, min(LEAVES, NUMBERS // (dispatch.LEAF * x.shape[1]), FAR // largest))
    counts, sums = [], []
    for stage, each in zip(prepared.stages, extents, strict=True):
        counts.append(cupy.zeros(stage.codebook.shape[0]))
        sums.append(_no_rows(each, x.shape[0], stage))
    for start in range(0, x.shape[0], space * dispatch.LEAF):
        part = slice(start, start + space * dispatch.LEAF)
        _add_rows(x[part], codes[:, part], prepared, counts, sums)
    return counts, sums


def _no_rows(extent, rows, stage):
    pieces = cupy.zeros((len(totals.grids(extent, rows)), *stage.codebook.shape))
    return Sum(pieces, extent, rows)


def _extents(x, prepared):
    """Return the extent of what each stage adds up, where it has no map."""
    found = _extents_of([x, *(stage.table for stage in prepared.stages[:-1])])
    for q in range(1, len(found)):
        found[q] = found[q - 1].less(found[q])
    return found


def _extents_of(those):
    """Return the extent of the numbers of each of some arrays; waits once."""
    ends = []
    for array in those:
        sizes = cupy.abs(cast(array, np.float64))
        if sizes.size:
            ends += [sizes.max(), cupy.where(sizes > 0, sizes, np.inf).min()]
        else:
            ends += [cupy.zeros(()), cupy.zeros(())]
    ends = cupy.stack(ends).get().tolist()
    return [
        totals.extent_of((ends[2 * n], ends[2 * n + 1]), np.dtype(each.dtype))
        for n, each in enumerate(those)
    ]


def _add_rows(x, codes, prepared, counts, sums):
    """Add to the tallies of all stages those of some rows."""
    leaves = -(-x.shape[0] // dispatch.LEAF)
    rows = cast(x, prepared.table.dtype, copy=len(prepared) > 1)
    for q, stage in enumerate(prepared.stages):
        size = stage.codebook.shape[0]
        searched, total = cupy.ascontiguousarray(projected(rows, stage)), sums[q]
        mapped = stage.weight_in is not None or stage.unit
        if mapped:
            total = _no_rows(_extents_of([searched])[0], len(searched), stage)
        order, starts = _sorted(codes[q], leaves, size)
        over(
            "gather", "count_rows", rows.dtype, size,
            (starts, np.int32(leaves), np.int32(size), counts[q]),
        )  # fmt: skip
        if len(total.pieces) > GRIDS:
            there = searched.get(), codes[q].get(), size, total.extent
            exact = steps.exact_sum(*there).onto(total.extent, total.rows)
            total.pieces += cupy.asarray(exact.pieces)
        else:
            _add_sorted(searched, order, starts, leaves, total)
        if mapped:
            sums[q] = sums[q] + total
        if q + 1 < len(prepared):
            _subtract(rows, stage, codes[q])


def _add_sorted(rows, order, starts, leaves, total):
    n_grids, size, width = total.pieces.shape
    magic = cupy.asarray(np.append(total.magic, 0.0))
    parts = cupy.empty((n_grids, leaves * size, width), np.float64)
    launch(
        "gather", "add_rows", rows.dtype, leaves * size, min(256, -(-width // 32) * 32), 0,
        (rows, np.int32(width), np.int32(size), order, starts, np.int32(n_grids), magic, parts,
         np.int64(leaves * size * width)),
    )  # fmt: skip
    for g in range(n_grids):
        over(
            "gather", "merge", rows.dtype, size * width,
            (parts[g], np.int32(leaves), np.int64(size * width), total.pieces[g]),
        )  # fmt: skip


def _sorted(codes, leaves, size):
    """Return the numbers of rows, leaf by leaf in the order of their codes, and where these begin.

    Rows of one code keep their order. `starts` (leaves, size + 1).
    """
    codes, leaf = cupy.ascontiguousarray(codes), dispatch.LEAF
    threads, shared = sort_shape(min(leaf, len(codes)), size)
    if threads:
        order = cupy.empty(len(codes), np.int32)
        starts = cupy.empty((leaves, size + 1), np.int32)
        launch(
            "gather", "sort_rows", np.float32, leaves, threads, shared,
            (codes, np.int64(len(codes)), np.int32(leaf), np.int32(size), order, starts),
        )  # fmt: skip
        return order, starts
    segment = codes.astype(np.int64) + cupy.arange(len(codes)) // leaf * size
    order = cupy.argsort(segment, kind="stable")
    ends = cupy.arange(leaves)[:, None] * size + cupy.arange(size + 1)
    starts = cupy.searchsorted(segment[order], ends.ravel())
    return order.astype(np.int32), starts.astype(np.int32)


def assign(x):
    """Return ``again(codewords)``: counts (K,) and sums (K, C) of the rows nearest to each
    codeword.

    For the rounds of k-means on the rows `x` (N, C): codewords (K, C), rounded to float32 here, are
    an array of the host or of the device; what comes back stays on the device.
    """
    with x.device:
        rows = cast(x, dispatch.working_dtype(x.dtype, np.float32))
        codes = cupy.empty((1, len(rows)), np.int32)
        nowhere = cupy.zeros(1, np.int64)
        extent = _extents_of([rows])[0]
    names = functools.cache(lambda count: cupy.arange(count, dtype=np.int32))

    def again(codewords):
        with x.device:
            codewords = cast(cast(cupy.asarray(codewords), np.float32), rows.dtype)
            every = names(len(codewords))
            stage = Stage(screen([codewords]), codewords, every, codewords)
            prepared = Prepared([stage], stage.screen, codewords, nowhere, None)
            step = max(1, NUMBERS // rows.shape[1])
            for start in range(0, len(rows), step):
                part = slice(start, start + step)
                search(rows[part], stage.screen, prepared.stages, codes[:, part])
            counts, sums = _added(rows, codes, prepared, [extent])
            return counts[0], sums[0]

    return again


def walk(x, codes, prepared):
    """Yield per stage what it quantized, rows (N, C), and the codewords (N, C) it chose."""
    with x.device:
        rows = cast(x, prepared.table.dtype, copy=True)
        for q in range(codes.shape[0]):
            stage = prepared.stages[q]
            yield projected(rows, stage), stage.codebook[codes[q]]
            rows = rows.copy()
            _subtract(rows, stage, codes[q])


def searched(x, prepared):
    """Return what the first stage searches with: a copy of `x` (N, D), or projected (N, C)."""
    with x.device:
        return projected(cast(x, prepared.table.dtype, copy=True), prepared.stages[0])


def residual(x, codes, prepared):
    """Return what the stages of `codes` (n, N) leave of `x` (N, D)."""
    with x.device:
        rows = cast(x, prepared.table.dtype, copy=True)
        for q in range(codes.shape[0]):
            _subtract(rows, prepared.stages[q], codes[q])
        return rows


def extent_later(x, by_row=False):
    """Begin to find the ends of all of `x` (2,), or of each entry of its first axis (2, n).

    Returns a function that waits for them, once, and for nothing that is queued after this.
    """
    with x.device:
        x = x.reshape(x.shape[0] if by_row else 1, -1)
        name = ENDS.get(x.dtype)
        if name is None and x.dtype.kind in "iu":
            name, x = "extent_of_long", x.astype(np.int64)
        elif name is None or name == "extent_of_half":
            name, x = name or "extent_of_bfloat", x.view(np.uint16)
        flat = cupy.ascontiguousarray(x)
        rows, count = flat.shape
        parts = max(1, min(-(-count // PIECE), BLOCKS // rows))
        ends = _ends(name, flat, parts)
        if parts > 1:
            ends = _ends("extent_of_double", ends.reshape(2 * rows, parts), 1)
        memory = cupy.cuda.alloc_pinned_memory(8 * ends.size)
        here = np.frombuffer(memory, np.float64, ends.size).reshape(ends.shape)
        ends.get(out=here, blocking=False)
        copied = cupy.cuda.Event(disable_timing=True)
        copied.record()

    def found():
        copied.synchronize()
        ends = here.copy() if parts == 1 else np.stack([here[0, :rows], here[1, rows:]])
        return ends if by_row else ends[:, 0]

    return found


def _ends(name, rows, parts):
    """Return the least and the largest numbers (2, n * parts) of parts of each of `rows` (n, m)."""
    count = rows.shape[1]
    ends = cupy.empty((2, len(rows) * parts), np.float64)
    share = -(-count // (parts * 16)) * 16
    launch(
        "gather", name, np.float32, len(rows) * parts, THREADS, 0,
        (rows, np.int64(count), np.int64(share), np.int32(parts), ends),
    )  # fmt: skip
    return ends


def _subtract(rows, stage, codes):
    over(
        "gather", "subtract", rows.dtype, rows.size,
        (rows, np.int64(len(rows)), np.int32(rows.shape[1]), stage.table,
         cupy.ascontiguousarray(codes)),
    )  # fmt: skip
