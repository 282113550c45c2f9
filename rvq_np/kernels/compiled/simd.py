"""Vector micro-kernels as LLVM IR: lower bounds on the scores of many codewords, sums in registers.

    rows    (n, S)  int8, int16 or float32   rows as `quantize` leaves them, padded with zeros
    panels  (...)   uint8, int16 or float32  codewords, see `packing`; the type names the kernel
    side    (3, +)  float32                  per codeword: half, step and norm, see `packing`
    params  (n, 4)  float32                  per row: -step, -slack, start of the sums (as int32)
    bounds  (n, B)  float32                  out; see `collect` for the layout

A block of `ROWS` rows meets a panel of ``VECTORS * LANES`` codewords.  Each step loads the panel's
vectors once, repeats 32 bits of every row over the lanes and adds the products to
``ROWS * VECTORS`` sums that never leave the registers; the panel's last act turns sums into lower
bounds, takes their least over the vectors and stores both.  Per step and lane that is one product
in float32, two in int16 (``vpmaddwd``), four in bytes (``vpdpbusd``).

The shape follows the processor Numba compiles for, which is part of its cache's key; where
nothing is known, vectors of four floats, which LLVM lowers for any processor.  ``NUMBA_CPU_NAME``
and ``NUMBA_CPU_FEATURES`` choose another.
"""

from typing import NamedTuple

from .jit import LIBRARY, cgutils, intrinsic, ir, processor, types


class Target(NamedTuple):
    """The shape of the kernels on one kind of processor."""

    lanes: int  # float32 in a vector
    vectors: int  # vectors of codewords in a panel
    screens: tuple[str, ...]  # dtypes of panels, the fastest first
    fused: bool  # whether there is a fused multiply-add


def target_of(triple: str, features: str) -> Target:
    """Return the shape for an LLVM triple and features as LLVM writes them, ``+avx2,-sse4a``."""
    has = {each[1:] for each in features.split(",") if each.startswith("+")}
    if triple.startswith(("aarch64", "arm64")):
        return Target(4, 4, ("float32",), True)  # 32 registers
    if {"avx512f", "avx512bw", "avx512vl"} <= has:
        exact = ("uint8", "int16", "float32") if "avx512vnni" in has else ("int16", "float32")
        return Target(16, 4, exact, True)
    if {"avx2", "fma"} <= has:
        return Target(8, 2, ("int16", "float32"), True)
    if "sse2" in has:
        return Target(4, 2, ("int16", "float32"), False)
    return Target(4, 2, ("float32",), False)


def _host():
    if LIBRARY is not None:
        lanes, vectors, screens, fused = LIBRARY.shape
        return Target(lanes, vectors, tuple(screens), fused)
    return target_of(*processor())


TARGET = _host()
LANES, VECTORS = TARGET.lanes, TARGET.vectors
ROWS = 6  # with 4 vectors 24 sums, 4 codewords and a row: 29 of 32 registers; with 2, 15 of 16
PER_STEP = {"uint8": 4, "int16": 2, "float32": 1}  # dimensions a step

_F32, _I8, _I16, _I32, _I64 = ir.FloatType(), *(ir.IntType(bits) for bits in (8, 16, 32, 64))
_FLOATS, _INTS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)
_BYTES = 4 * LANES  # of a vector


class _Build:
    """A builder with the few phrases the kernels are made of."""

    def __init__(self, builder):
        self.b = builder

    def number(self, value):
        return ir.Constant(_I64, value)

    def load(self, base, offset, kind, align=4):
        value = self.b.load(self.at(base, offset, kind))
        value.align = align
        return value

    def store(self, value, base, offset, align=4):
        self.b.store(value, self.at(base, offset, value.type)).align = align

    def at(self, base, offset, kind):
        return self.b.bitcast(self.b.gep(base, [offset]), kind.as_pointer())

    def offset(self, base, *terms):
        for term in terms:
            base = self.b.add(base, self.number(term) if isinstance(term, int) else term)
        return base

    def spread(self, value, kind):
        empty = ir.Constant(kind, ir.Undefined)
        one = self.b.insert_element(empty, value, ir.Constant(_I32, 0))
        zeros = ir.Constant(ir.VectorType(_I32, kind.count), [0] * kind.count)
        return self.b.shuffle_vector(one, empty, zeros)

    def call(self, name, kind, *arguments):
        module = self.b.module
        function = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(kind, [each.type for each in arguments]), name
        )
        return self.b.call(function, arguments)

    def add_product(self, x, y, total):
        if TARGET.fused:
            return self.call(f"llvm.fma.v{LANES}f32", _FLOATS, x, y, total)
        return self.b.fadd(self.b.fmul(x, y), total)

    def bits(self, lanes):
        """Return a vector of truth values as the bits of an int64."""
        return self.b.zext(self.b.bitcast(lanes, ir.IntType(LANES)), _I64)

    def first(self, bits):
        """Return the place of the lowest bit that is set in an int64, of which there is one."""
        return self.call("llvm.cttz.i64", _I64, bits, ir.Constant(ir.IntType(1), 1))

    def contracted(self, operation):
        """Allow LLVM to fuse a product with the sum it goes into."""
        operation.flags.append("contract")
        return operation

    def least(self, x, y):
        return self.b.select(self.b.fcmp_ordered("<", x, y), x, y)

    def folded(self, value, combine):
        """Return what `combine` makes of all lanes of a vector."""
        lanes = value.type.count
        count = lanes
        while count > 1:
            count //= 2
            turn = [ir.Constant(_I32, (n + count) % lanes) for n in range(lanes)]
            turned = self.b.shuffle_vector(
                value,
                ir.Constant(value.type, ir.Undefined),
                ir.Constant(ir.VectorType(_I32, lanes), turn),
            )
            value = combine(turned, value)
        return self.b.extract_element(value, ir.Constant(_I32, 0))

    def loop(self, stop, start=None):
        """Open a loop that runs at least once; `close` it with what its phis become."""
        entry, body = self.b.block, self.b.append_basic_block("body")
        self.b.branch(body)
        self.b.position_at_end(body)
        index = self.b.phi(_I64)
        index.add_incoming(self.number(0) if start is None else start, entry)
        return index, stop, entry, body

    def close(self, loop, phis=()):
        index, stop, _, body = loop
        following = self.b.add(index, self.number(1))
        index.add_incoming(following, self.b.block)
        for phi, value in phis:
            phi.add_incoming(value, self.b.block)
        after = self.b.append_basic_block("after")
        self.b.cbranch(self.b.icmp_signed("<", following, stop), body, after)
        self.b.position_at_end(after)


def _products(build, kind, total, codewords, row):
    """Return `total` plus the products of one step; `codewords`, `row` are vectors of 32 bits."""
    if kind == "float32":
        return build.add_product(row, codewords, total)
    if kind == "uint8":
        return build.call(f"llvm.x86.avx512.vpdpbusd.{32 * LANES}", _INTS, total, codewords, row)
    pairs = ir.VectorType(_I16, 2 * LANES)
    name = {16: "llvm.x86.avx512.pmaddw.d.512", 8: "llvm.x86.avx2.pmadd.wd"}
    products = build.call(
        name.get(LANES, "llvm.x86.sse2.pmadd.wd"),
        _INTS,
        build.b.bitcast(codewords, pairs),
        build.b.bitcast(row, pairs),
    )
    return build.b.add(total, products)


def _screen(n_rows):
    @intrinsic
    def screen(context, rows, first, panels, at, steps, begin, end, side, side_at, params, bounds):
        """Bound the scores of rows ``first...`` with the codewords of panels `begin` to `end`.

        The stage's panels begin at element `at` of `panels`, its codewords at column `side_at`.
        """
        kind = str(panels.dtype)
        whole = types.intp
        arguments = (rows, whole, panels, *[whole] * 4, side, whole, params, bounds)
        return types.void(*arguments), _screen_code(kind, n_rows)

    return screen


def _screen_code(kind, n_rows):
    codewords_type = _FLOATS if kind == "float32" else _INTS

    def code(context, builder, signature, arguments):
        build = _Build(builder)
        b, number, offset = builder, build.number, build.offset

        def array(place):
            made = context.make_array(signature.args[place])(context, b, arguments[place])
            width = b.extract_value(made.shape, 1) if signature.args[place].ndim == 2 else None
            return b.bitcast(made.data, _I8.as_pointer()), width

        (rows, row_width), (panels, _), (side, side_width) = array(0), array(2), array(7)
        (params, _), (bounds, bounds_width) = array(9), array(10)
        first, at, steps, begin, end, side_at = (arguments[n] for n in (1, 3, 4, 5, 6, 8))
        item = {"float32": 4, "int16": 2, "uint8": 1}[kind]
        row_bytes, bound_bytes = b.mul(row_width, number(item)), b.mul(bounds_width, number(4))
        row_at, bound_at, step, slack, start = [], [], [], [], []
        for i in range(n_rows):
            row = b.add(first, number(i))
            row_at.append(b.gep(rows, [b.mul(row, row_bytes)]))
            bound_at.append(b.gep(bounds, [b.mul(row, bound_bytes)]))
            param = b.mul(row, number(16))
            step.append(build.spread(build.load(params, param, _F32), _FLOATS))
            slack.append(build.spread(build.load(params, offset(param, 4), _F32), _FLOATS))
            start.append(build.load(params, offset(param, 8), _I32))
        half, size, norm = (
            b.gep(side, [b.mul(b.add(b.mul(side_width, number(n)), side_at), number(4))])
            for n in range(3)
        )
        panels = b.gep(panels, [b.mul(at, number(item))])
        panel_bytes = b.mul(steps, number(VECTORS * _BYTES))

        each_panel = build.loop(end, begin)
        panel = each_panel[0]
        codewords_at = b.gep(panels, [b.mul(panel, panel_bytes)])
        codewords = b.mul(panel, number(VECTORS * _BYTES))  # in `side`
        if kind == "float32":
            initial = [[build.load(half, offset(codewords, v * _BYTES), _FLOATS)
                        for v in range(VECTORS)]] * n_rows  # fmt: skip
        else:
            initial = [[build.spread(each, _INTS)] * VECTORS for each in start]
        each_step = build.loop(steps)
        position, entry = each_step[0], each_step[2]
        sums = [[b.phi(codewords_type) for _ in range(VECTORS)] for _ in range(n_rows)]
        here = b.mul(position, number(VECTORS * _BYTES))
        loaded = [
            build.load(codewords_at, offset(here, v * _BYTES), codewords_type, _BYTES)
            for v in range(VECTORS)
        ]
        totals = []
        for i in range(n_rows):
            four = build.load(
                row_at[i], b.mul(position, number(4)), _F32 if kind == "float32" else _I32
            )
            row = build.spread(four, codewords_type)
            totals.append([_products(build, kind, sums[i][v], loaded[v], row)
                           for v in range(VECTORS)])  # fmt: skip
        places = [(i, v) for i in range(n_rows) for v in range(VECTORS)]
        for i, v in places:
            sums[i][v].add_incoming(initial[i][v], entry)
        build.close(each_step, [(sums[i][v], totals[i][v]) for i, v in places])
        group = b.mul(panel, number((VECTORS + 1) * _BYTES))  # in `bounds`
        for i in range(n_rows):
            least = None
            for v in range(VECTORS):
                bound = totals[i][v]
                place = offset(codewords, v * _BYTES)
                if kind != "float32":
                    total = b.fmul(b.sitofp(bound, _FLOATS), build.load(size, place, _FLOATS))
                    bound = build.add_product(total, step[i], build.load(half, place, _FLOATS))
                bound = build.add_product(build.load(norm, place, _FLOATS), slack[i], bound)
                build.store(bound, bound_at[i], offset(group, (v + 1) * _BYTES))
                least = bound if least is None else build.least(bound, least)
            build.store(least, bound_at[i], group)
        build.close(each_panel)
        return context.get_dummy_value()

    return code


screen_block = _screen(ROWS)
screen_row = _screen(1)


def _pieces(build, length, body, most=LANES):
    """Call ``body(place, lanes)`` for vectors that cover `length`: whole ones, then ever shorter.

    `place` is the number of the first element.  All of it runs in branches and loops of the IR.
    """
    b = build.b
    whole = b.udiv(length, build.number(most))
    with b.if_then(b.icmp_unsigned(">", whole, build.number(0))):
        each = build.loop(whole)
        body(b.mul(each[0], build.number(most)), most)
        build.close(each)
    lanes, place = most, cgutils.alloca_once_value(b, b.mul(whole, build.number(most)))
    while lanes > 1:
        lanes //= 2
        some = b.and_(length, build.number(lanes))
        with b.if_then(b.icmp_unsigned("!=", some, build.number(0))):
            here = b.load(place)
            body(here, lanes)
            b.store(b.add(here, build.number(lanes)), place)


class _Running:
    """A vector in memory (LLVM makes it a register) that shorter vectors may join."""

    def __init__(self, build, kind, combine):
        self.build, self.combine = build, combine
        self.vector = ir.VectorType(kind, LANES)
        self.place = cgutils.alloca_once_value(build.b, ir.Constant(self.vector, None))

    def join(self, value):
        b, lanes = self.build.b, value.type.count
        if lanes < LANES:  # fill up with zeros
            order = [n if n < lanes else lanes for n in range(LANES)]
            mask = ir.Constant(ir.VectorType(_I32, LANES), order)
            value = b.shuffle_vector(value, ir.Constant(value.type, None), mask)
        b.store(self.combine(b.load(self.place), value), self.place)

    def total(self):
        return self.build.folded(self.build.b.load(self.place), self.combine)


@intrinsic
def largest(context, rows, at, length):
    """Return the largest size among ``rows[at : at + length]``; LLVM leaves that loop scalar."""

    def code(context, builder, signature, arguments):
        build, b = _Build(builder), builder
        row = _stretch(context, build, signature, arguments, 0)
        kind, bits = context.get_value_type(rows.dtype), rows.dtype.bitwidth
        most = _Running(build, kind, lambda x, y: b.select(b.fcmp_ordered(">", x, y), x, y))

        def body(place, lanes):
            value = row(place, lanes)
            most.join(build.call(f"llvm.fabs.v{lanes}f{bits}", value.type, value))

        _pieces(build, arguments[2], body)
        return most.total()

    return rows.dtype(rows, types.intp, types.intp), code


@intrinsic
def round_row(context, rows, at, length, factor, out, out_at):
    """Write ``rows[at : at + length] * factor`` into `out`: negative float32, or whole numbers.

    Return the sum of squares of the products, that of what rounding left, both float32, and the
    sum of the whole numbers, int32.  Fast-math of the caller would undo the rounding.
    """
    result = types.Tuple((types.float32, types.float32, types.int32))  # type: ignore[attr-defined]

    def code(context, builder, signature, arguments):
        build, b = _Build(builder), builder
        row, target = (_stretch(context, build, signature, arguments, n) for n in (0, 4))
        number = context.get_value_type(out.dtype)
        squares, lefts = (_Running(build, _F32, b.fadd) for _ in range(2))
        total = _Running(build, _I32, b.add)

        def body(place, lanes):
            floats = ir.VectorType(_F32, lanes)
            value = row(place, lanes)
            value = b.fmul(value, build.spread(arguments[3], value.type))
            if rows.dtype == types.float64:
                value = b.fptrunc(value, floats)
            squares.join(b.fmul(value, value))
            if out.dtype == types.float32:
                target(place, lanes, b.fsub(ir.Constant(floats, [-0.0] * lanes), value))
                return
            half = ir.Constant(floats, [1.5 * 2.0**23] * lanes)  # adding it rounds to whole numbers
            near = b.fsub(b.fadd(value, half), half)
            whole = b.fptosi(near, ir.VectorType(_I32, lanes))
            target(place, lanes, b.trunc(whole, ir.VectorType(number, lanes)))
            left = b.fsub(value, near)
            lefts.join(b.fmul(left, left))
            total.join(whole)

        _pieces(build, arguments[2], body)
        return context.make_tuple(
            b, signature.return_type, [squares.total(), lefts.total(), total.total()]
        )

    whole = types.intp
    return result(rows, whole, whole, rows.dtype, out, whole), code


@intrinsic
def apart(context):
    """Keep the function this is called in out of its callers: rare work is compiled once."""

    def code(context, builder, signature, arguments):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def item(context, array, place):
    """Return the element at a place counted through an array of any shape, in C order."""

    def code(context, builder, signature, arguments):
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.load(builder.gep(made.data, [arguments[1]]))

    return array.dtype(array, types.intp), code


@intrinsic
def put(context, array, place, value):
    """Write an element at a place counted through an array of any shape, in C order."""

    def code(context, builder, signature, arguments):
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        value = context.cast(builder, arguments[2], signature.args[2], array.dtype)
        builder.store(value, builder.gep(made.data, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), code


@intrinsic
def dot(context, rows, at, codewords, codeword_at, length):
    """Return the product of two stretches, summed in float64 in some fixed order."""

    def code(context, builder, signature, arguments):
        build, b = _Build(builder), builder
        left, right = (_stretch(context, build, signature, arguments, n) for n in (0, 2))
        total = _Running(build, ir.DoubleType(), lambda x, y: build.contracted(b.fadd(x, y)))

        def body(place, lanes):
            x, y = left(place, lanes), right(place, lanes)
            if x.type.element != ir.DoubleType():
                doubles = ir.VectorType(ir.DoubleType(), lanes)
                x, y = b.fpext(x, doubles), b.fpext(y, doubles)
            total.join(build.contracted(b.fmul(x, y)))

        _pieces(build, arguments[4], body)
        return total.total()

    return types.float64(rows, types.intp, codewords, types.intp, types.intp), code


@intrinsic
def subtract_from(context, rows, at, codewords, codeword_at, length):
    """Subtract a stretch of `codewords` from one of `rows`: one rounding a number."""
    return _into(rows, codewords, "fsub")


@intrinsic
def add_to(context, sums, at, rows, row_at, length):
    """Add a stretch of `rows` to one of `sums`, in the type of the sums."""
    return _into(sums, rows, "fadd")


def _into(totals, parts, operation):
    def code(context, builder, signature, arguments):
        build, b = _Build(builder), builder
        left, right = (_stretch(context, build, signature, arguments, n) for n in (0, 2))

        def body(place, lanes):
            total, part = left(place, lanes), right(place, lanes)
            if total.type != part.type:
                part = b.fpext(part, total.type)
            left(place, lanes, getattr(b, operation)(total, part))

        _pieces(build, arguments[4], body)
        return context.get_dummy_value()

    whole = types.intp
    return types.void(totals, whole, parts, whole, whole), code


@intrinsic
def sum_codewords(context, codes, n, table, first, length, out, out_at):
    """Write the sum, from zero and in the order of the stages, of the codewords of column `n`."""

    def code(context, builder, signature, arguments):
        build, b = _Build(builder), builder
        chosen = context.make_array(signature.args[0])(context, b, arguments[0])
        begins = context.make_array(signature.args[3])(context, b, arguments[3])
        stages, width = (b.extract_value(chosen.shape, axis) for axis in (0, 1))
        codewords = context.make_array(signature.args[2])(context, b, arguments[2])
        target = _stretch(context, build, signature, arguments, 5)
        kind = context.get_value_type(table.dtype)

        def body(place, lanes):
            vector = ir.VectorType(kind, lanes)
            each = build.loop(stages)
            total = b.phi(vector)
            total.add_incoming(ir.Constant(vector, None), each[2])
            code = b.load(b.gep(chosen.data, [b.add(b.mul(each[0], width), arguments[1])]))
            codeword = b.add(b.load(b.gep(begins.data, [each[0]])),
                         b.mul(b.sext(code, _I64), arguments[4]))  # fmt: skip
            at = b.bitcast(b.gep(codewords.data, [b.add(codeword, place)]), vector.as_pointer())
            value = b.load(at)
            value.align = table.dtype.bitwidth // 8
            following = b.fadd(total, value)
            build.close(each, [(total, following)])
            target(place, lanes, following)

        _pieces(build, arguments[4], body, 8 * LANES)
        return context.get_dummy_value()

    whole = types.intp
    return types.void(codes, whole, table, first, whole, out, whole), code


def _stretch(context, build, signature, arguments, number):
    """Return a function that loads, or stores, lanes of array `number` from its offset on."""
    array, b = signature.args[number], build.b
    made = context.make_array(array)(context, b, arguments[number])
    kind, item = context.get_value_type(array.dtype), array.dtype.bitwidth // 8
    data = b.bitcast(b.gep(made.data, [arguments[number + 1]]), _I8.as_pointer())

    def access(place, lanes, value=None):
        offset = b.mul(place, build.number(item))
        if value is None:
            return build.load(data, offset, ir.VectorType(kind, lanes), item)
        return build.store(value, data, offset, item)

    return access


@intrinsic
def lowest(context, bounds, row, panels):
    """Return the least bound of a row, float32."""

    def code(context, builder, signature, arguments):
        build, b = _Build(builder), builder
        data, _ = _row_of(context, b, signature, arguments)
        each = build.loop(arguments[2])
        least = b.phi(_FLOATS)
        least.add_incoming(ir.Constant(_FLOATS, [float("inf")] * LANES), each[2])
        place = b.mul(each[0], build.number((VECTORS + 1) * _BYTES))
        lower = build.least(build.load(data, place, _FLOATS), least)
        build.close(each, [(least, lower)])
        return build.folded(lower, build.least)

    return types.float32(bounds, types.intp, types.intp), code


@intrinsic
def nearest(context, bounds, row, panels):
    """Return the codeword of the least bound of a row, one of them if several share it."""

    def code(context, builder, signature, arguments):
        build, b = _Build(builder), builder
        data, _ = _row_of(context, b, signature, arguments)
        each = build.loop(arguments[2])
        least, which = b.phi(_FLOATS), b.phi(_INTS)
        least.add_incoming(ir.Constant(_FLOATS, [float("inf")] * LANES), each[2])
        which.add_incoming(ir.Constant(_INTS, None), each[2])
        group = b.mul(each[0], build.number((VECTORS + 1) * _BYTES))
        bound = build.load(data, group, _FLOATS)
        less = b.fcmp_ordered("<", bound, least)
        lower = b.select(less, bound, least)
        panel = b.select(less, build.spread(b.trunc(each[0], _I32), _INTS), which)
        build.close(each, [(least, lower), (which, panel)])
        low = build.spread(build.folded(lower, build.least), _FLOATS)
        lane = build.first(build.bits(b.fcmp_ordered("==", lower, low)))
        panel = b.zext(b.extract_element(panel, b.trunc(lane, _I32)), _I64)
        group = b.mul(panel, build.number((VECTORS + 1) * _BYTES))
        bits = build.number(0)
        for v in range(VECTORS):
            bound = build.load(data, build.offset(group, (v + 1) * _BYTES), _FLOATS)
            part = build.bits(b.fcmp_ordered("==", bound, low))
            bits = b.or_(bits, b.shl(part, build.number(v * LANES)))
        return b.add(b.mul(panel, build.number(VECTORS * LANES)), build.first(bits))

    return types.intp(bounds, types.intp, types.intp), code


@intrinsic
def collect(context, bounds, row, panels, limit, found):
    """Write into `found` the codewords of a row whose bound is at most `limit`, ascending; count
    them.

    Per panel, `bounds` holds the least over its vectors in each lane, then the vectors.  The least
    of 64 panels become 64 bits without a branch; then one turn a bit, and one a codeword: a
    processor cannot guess where the few codewords are.
    """

    def code(context, builder, signature, arguments):
        build, b = _Build(builder), builder
        data, _ = _row_of(context, b, signature, arguments)
        out = context.make_array(signature.args[4])(context, b, arguments[4]).data
        limit = build.spread(arguments[3], _FLOATS)
        count = cgutils.alloca_once_value(b, build.number(0))  # not on the stack of each call
        one = build.number(1)

        def within(place):
            """Return a bit a lane: whether the bound there is at most the limit."""
            return build.bits(b.fcmp_ordered("<=", build.load(data, place, _FLOATS), limit))

        def group(panel):
            return b.mul(panel, build.number((VECTORS + 1) * _BYTES))

        def each_bit(bits, body):
            """Call ``body(place)`` for each bit of an int64 that is set, from the lowest."""
            with b.if_then(b.icmp_unsigned("!=", bits, build.number(0))):
                entry, turn = b.block, b.append_basic_block("turn")
                b.branch(turn)
                b.position_at_end(turn)
                left = b.phi(_I64)
                left.add_incoming(bits, entry)
                body(build.first(left))
                rest = b.and_(left, b.sub(left, one))
                left.add_incoming(rest, b.block)
                after = b.append_basic_block("after")
                b.cbranch(b.icmp_unsigned("!=", rest, build.number(0)), turn, after)
                b.position_at_end(after)

        runs = build.loop(b.udiv(build.offset(arguments[2], 63), build.number(64)))
        begin = b.mul(runs[0], build.number(64))
        left = b.sub(arguments[2], begin)
        some = b.select(b.icmp_signed("<", left, build.number(64)), left, build.number(64))
        panels = build.loop(some)
        hits = b.phi(_I64)
        hits.add_incoming(build.number(0), panels[2])
        hit = b.icmp_unsigned("!=", within(group(b.add(begin, panels[0]))), build.number(0))
        more = b.or_(hits, b.shl(b.zext(hit, _I64), panels[0]))
        build.close(panels, [(hits, more)])

        def panel_hit(place):
            panel = b.add(begin, place)
            bits = build.number(0)
            for v in range(VECTORS):
                part = within(build.offset(group(panel), (v + 1) * _BYTES))
                bits = b.or_(bits, b.shl(part, build.number(v * LANES)))
            codeword = b.mul(panel, build.number(VECTORS * LANES))

            def codeword_hit(lane):
                so_far = b.load(count)
                b.store(b.trunc(b.add(codeword, lane), _I32), b.gep(out, [so_far]))
                b.store(b.add(so_far, one), count)

            each_bit(bits, codeword_hit)

        each_bit(more, panel_hit)
        build.close(runs)
        return b.load(count)

    return types.intp(bounds, types.intp, types.intp, types.float32, found), code


def _row_of(context, builder, signature, arguments):
    """Return a pointer to the bytes of row ``arguments[1]`` of ``arguments[0]``, and its length."""
    made = context.make_array(signature.args[0])(context, builder, arguments[0])
    width = builder.extract_value(made.shape, 1)
    data = builder.gep(made.data, [builder.mul(arguments[1], width)])
    return builder.bitcast(data, _I8.as_pointer()), width
