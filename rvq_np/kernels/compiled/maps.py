"""Linear maps of rows, ``rows @ weight + bias``: every output one sum in one order.  LLVM IR.

    rows    (n, D)  T  float32, or float64; consecutive rows begin `dim` elements apart
    panels  (...)   P  columns of the weight, see `panels_of`: of each panel its biases,
                       then one group of `width` numbers a dimension
    out     (...)   O  row i is written from element ``out_at + i * stride`` on

An output is its bias, then one fused product a dimension in the order of the dimensions, in the
wider type of `rows` and `panels`; products of float32 in float64 are exact.  Small maps of float32
rows are summed in float64 and rounded once, so that NumPy and GPUs give the same bits; large ones
(`tables.LARGE`) in float32, at twice the rate.  So the bits of an output depend on its
row and its column alone: not on how many rows pass together, not on the panel its column fell
into.  That is what lets a live frame give the codes of the whole signal.

A block of `ROWS` rows meets a panel of ``VECTORS`` vectors: per dimension each vector is loaded
once and multiplied by one number of each row, and the sums stay in registers until the panel ends.
About ``2 * n * D * C`` operations, at the rate of a matrix product; a single row is bound by
reading the weights, so it meets `TOGETHER` panels at a time where one would wait for its sums.
"""

import numpy as np

from .build import Build
from .jit import cgutils, intrinsic, ir, kernel, types
from .target import LANES, TARGET, VECTORS

ROWS = 6  # as in `simd`: 24 sums, 4 vectors and a number of a row
TILE = 96  # rows that meet a panel while it stays in the L2 cache
FEW = 2  # rows that are cheaper one by one
TOGETHER = max(1, 4 // VECTORS)  # panels of a single row: four sums hide what an addition takes
I8, I32, I64 = (ir.IntType(bits) for bits in (8, 32, 64))


@kernel(inner=True)
def width_of(itemsize, columns):
    """Return the columns of a panel for sums of such numbers: one vector where that is enough."""
    lanes = LANES * 4 // itemsize
    return lanes if columns <= lanes else lanes * VECTORS


def panels_of(linear, dtype):
    """Return the panels, one after the other, of a `tables.Map` for rows of type `dtype`; kept."""
    dtype = np.dtype(dtype)
    if dtype not in linear.kept:
        weight, bias = linear.given
        columns, dim = weight.shape
        summed = np.dtype(linear.summed(dtype))
        width = width_of.py_func(summed.itemsize, columns)
        # Rows of float64 say themselves how to sum: one frame is as fast as panels are read.
        kept = np.result_type(np.float32, weight, bias) if dtype == np.float64 else summed
        space = np.zeros((-(-columns // width), dim + 1, width), kept)
        most = np.finfo(kept).max  # a weight beyond it would make zeros into NaN
        if max(weight.itemsize, bias.itemsize) > kept.itemsize:
            weight, bias = np.clip(weight, -most, most), np.clip(bias, -most, most)
        for first, panel in zip(range(0, columns, width), space, strict=True):
            part = slice(first, first + width)
            some = len(bias[part])
            panel[0, :some], panel[1:, :some] = bias[part], weight[part].T
        linear.kept[dtype] = space.ravel()
    return linear.kept[dtype]


def _panel(n_rows, n_panels, narrow):
    """Make the kernel of `n_rows` rows and `n_panels` panels of one vector, if `narrow`, or all."""

    @intrinsic
    def meet(context, rows, at, dim, count, panels, panel_at, out, out_at, stride, columns):
        """Write what `count` rows, at most `n_rows`, make of `columns` columns."""
        wide = types.intp
        signature = types.void(rows, *[wide] * 3, panels, wide, out, *[wide] * 3)

        def code(context, builder, signature, arguments):
            _panel_code(context, builder, signature, arguments, n_rows, n_panels, narrow)
            return context.get_dummy_value()

        return signature, code

    return meet


def _panel_code(context, builder, signature, arguments, n_rows, n_panels, narrow):
    build, b = Build(builder), builder
    rows, panels, out = (signature.args[n] for n in (0, 4, 6))
    packed, given = (context.get_value_type(each.dtype) for each in (panels, out))
    bits = max(rows.dtype.bitwidth, panels.dtype.bitwidth)
    kind, lanes = {32: ir.FloatType(), 64: ir.DoubleType()}[bits], LANES * 32 // bits
    vectors = 1 if narrow else VECTORS
    number, vector = build.number, ir.VectorType(kind, lanes)
    _, at, dim, count, _, panel_at, _, out_at, stride, columns = arguments
    data, weights, target = (
        context.make_array(signature.args[n])(context, b, arguments[n]).data for n in (0, 4, 6)
    )

    def load(offset):
        pointer = b.bitcast(b.gep(weights, [offset]), ir.VectorType(packed, lanes).as_pointer())
        value = b.load(pointer)
        value.align = panels.dtype.bitwidth // 8
        return value if packed == kind else b.fpext(value, vector)

    last = b.sub(count, number(1))
    places = []  # rows that are not there are the last one again: the same numbers, written twice
    for i in range(n_rows):
        here = number(i)
        places.append(b.select(b.icmp_signed("<", here, last), here, last))
    row_at = [b.gep(data, [b.add(at, b.mul(place, dim))]) for place in places]
    width = vectors * lanes
    size = b.mul(b.add(dim, number(1)), number(width))  # of a panel
    begins = [b.add(panel_at, b.mul(size, number(p))) for p in range(n_panels)]
    across = [(p, v) for p in range(n_panels) for v in range(vectors)]
    first = [load(b.add(begins[p], number(v * lanes))) for p, v in across]
    each = build.loop(dim)
    entry = each[2]
    sums = [[b.phi(vector) for _ in across] for _ in range(n_rows)]
    step = b.mul(b.add(each[0], number(1)), number(width))
    loaded = [load(b.add(b.add(begins[p], step), number(v * lanes))) for p, v in across]
    totals = []
    for i in range(n_rows):
        one = b.load(b.gep(row_at[i], [each[0]]))
        one = build.spread(one if one.type == kind else b.fpext(one, kind), vector)
        totals.append([_plus(build, one, loaded[n], sums[i][n]) for n in range(len(across))])
    phis = []
    for i in range(n_rows):
        for n in range(len(across)):
            sums[i][n].add_incoming(first[n], entry)
            phis.append((sums[i][n], totals[i][n]))
    build.close(each, phis)

    narrowed = ir.VectorType(given, lanes)
    space = cgutils.alloca_once(b, given, number(n_panels * width))
    whole = b.icmp_signed(">=", columns, number(n_panels * width))
    for i in range(n_rows):
        to = b.gep(target, [b.add(out_at, b.mul(places[i], stride))])
        made = totals[i]
        if given != kind:
            cast = b.fptrunc if out.dtype.bitwidth < bits else b.fpext
            made = [cast(each, narrowed) for each in made]
        with b.if_else(whole) as (all_columns, some):
            with all_columns:
                for n, value in enumerate(made):
                    _store(b, value, to, n * lanes, out.dtype.bitwidth // 8)
            with some:  # a few columns: by way of the stack
                for n, value in enumerate(made):
                    _store(b, value, space, n * lanes, out.dtype.bitwidth // 8)
                copied = build.loop(columns)
                b.store(b.load(b.gep(space, [copied[0]])), b.gep(to, [copied[0]]))
                build.close(copied)


def _store(b, value, to, place, align):
    pointer = b.bitcast(b.gep(to, [ir.Constant(I64, place)]), value.type.as_pointer())
    b.store(value, pointer).align = align


def _plus(build, x, y, total):
    """Return ``total + x * y``, rounded once where the processor can, the same in every kernel."""
    b = build.b
    if TARGET.fused:
        bits = 32 if x.type.element == ir.FloatType() else 64
        return build.call(f"llvm.fma.v{x.type.count}f{bits}", x.type, x, y, total)
    return b.fadd(total, b.fmul(x, y))


_block, _block_narrow = _panel(ROWS, 1, False), _panel(ROWS, 1, True)
_row, _row_narrow = _panel(1, 1, False), _panel(1, 1, True)
_row_together = _panel(1, TOGETHER, False)


@kernel(inner=True)
def map_rows(rows, at, count, dim, panels, panels_at, width, columns, out, out_at, stride):
    """Map `count` rows from element `at` of `rows` on; `panels` begin at element `panels_at`."""
    narrow = width * max(rows.itemsize, panels.itemsize) == 4 * LANES
    size = (dim + 1) * width
    left = count % ROWS
    blocks = count - left if left <= FEW else count
    for first in range(0, columns, width):
        here, some = panels_at + first // width * size, min(width, columns - first)
        for i in range(0, blocks, ROWS):
            row, to, few = at + i * dim, out_at + i * stride + first, min(ROWS, blocks - i)
            if narrow:
                _block_narrow(rows, row, dim, few, panels, here, out, to, stride, some)
            else:
                _block(rows, row, dim, few, panels, here, out, to, stride, some)
    for i in range(blocks, count):
        row, to, first = at + i * dim, out_at + i * stride, 0
        while first < columns:
            here, some = panels_at + first // width * size, columns - first
            if narrow:
                _row_narrow(rows, row, dim, 1, panels, here, out, to + first, stride, some)
                first += width
            elif some >= TOGETHER * width:
                some = TOGETHER * width
                _row_together(rows, row, dim, 1, panels, here, out, to + first, stride, some)
                first += some
            else:
                some = min(width, some)
                _row(rows, row, dim, 1, panels, here, out, to + first, stride, some)
                first += width


@kernel
def transform(rows, panels, out, start, stop):
    """Write into `out` (n, C) what rows ``start ... stop`` are mapped to."""
    dim, columns = rows.shape[1], out.shape[1]
    stride, width = columns, width_of(max(rows.itemsize, panels.itemsize), columns)
    for first in range(start, stop, TILE):
        count = min(TILE, stop - first)
        map_rows(rows, first * dim, count, dim, panels, 0, width, columns, out, first * stride,
                 stride)  # fmt: skip
