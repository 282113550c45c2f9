"""Vector kernels over stretches of arrays, as LLVM IR: sums, products, roundings of rows."""

from .build import F32, I8, I32, I64, Build, Running, pieces, stretch
from .jit import cgutils, intrinsic, ir, types
from .target import LANES

PAGE = 4096  # bytes


@intrinsic
def largest(context, rows, at, length):
    """Return the largest size among ``rows[at : at + length]``; LLVM leaves that loop scalar."""

    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        row = stretch(context, build, signature, arguments, 0)
        kind, bits = context.get_value_type(rows.dtype), rows.dtype.bitwidth
        most = Running(build, kind, lambda x, y: b.select(b.fcmp_ordered(">", x, y), x, y))

        def body(place, lanes):
            value = row(place, lanes)
            most.join(build.call(f"llvm.fabs.v{lanes}f{bits}", value.type, value))

        pieces(build, arguments[2], body)
        return most.total()

    return rows.dtype(rows, types.intp, types.intp), code


@intrinsic
def largest_run(context, rows, at, length):
    """Return the largest sum of positive, or of negative sizes, of what is summed in 16 bits.

    Of each 16 numbers that are two sums: of every fourth number and the one after it, from the
    first on and from the third on.  What is left at the end counts as one sum.
    """

    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        row = stretch(context, build, signature, arguments, 0)
        kind, bits = context.get_value_type(rows.dtype), rows.dtype.bitwidth

        def larger(x, y):
            return b.select(b.fcmp_ordered(">", x, y), x, y)

        def half(value, order):
            mask = ir.Constant(ir.VectorType(I32, len(order)), order)
            return b.shuffle_vector(value, ir.Constant(value.type, None), mask)

        def positive(value):
            return larger(value, ir.Constant(value.type, None))

        def negative(value):
            return positive(b.fsub(ir.Constant(value.type, [-0.0] * value.type.count), value))

        four = ir.VectorType(kind, 4)
        most = cgutils.alloca_once_value(b, ir.Constant(four, None))
        whole = b.udiv(arguments[2], build.number(16))
        with b.if_then(b.icmp_unsigned(">", whole, build.number(0))):
            each = build.loop(whole)
            place = b.mul(each[0], build.number(16))
            values = row(place, 8), row(b.add(place, build.number(8)), 8)
            so_far = b.load(most)
            for part in (positive, negative):
                eight = b.fadd(*map(part, values))
                sums = b.fadd(half(eight, [0, 1, 2, 3]), half(eight, [4, 5, 6, 7]))
                so_far = larger(b.fadd(sums, half(sums, [1, 0, 3, 2])), so_far)
            b.store(so_far, most)
            build.close(each)
        least = build.folded(b.load(most), larger)
        begin = b.mul(whole, build.number(16))
        ends = [cgutils.alloca_once_value(b, ir.Constant(kind, 0.0)) for _ in range(2)]
        with b.if_then(b.icmp_unsigned("<", begin, arguments[2])):
            each = build.loop(arguments[2], begin)
            value = b.extract_element(row(each[0], 1), ir.Constant(I32, 0))
            size = build.call(f"llvm.fabs.f{bits}", kind, value)
            above = b.fcmp_ordered(">", value, ir.Constant(kind, 0.0))
            for end, mine in zip(ends, (above, b.not_(above)), strict=True):
                more = b.select(mine, size, ir.Constant(kind, 0.0))
                b.store(b.fadd(b.load(end), more), end)
            build.close(each)
        for end in ends:
            least = larger(b.load(end), least)
        return least

    return rows.dtype(rows, types.intp, types.intp), code


@intrinsic
def round_row(context, rows, at, length, factor, out, out_at):
    """Write ``rows[at : at + length] * factor`` into `out`: negative float32, or whole numbers.

    Return the sum of squares of the products, that of what rounding left, both float32, and the
    sum of the whole numbers, int32.  Fast-math of the caller would undo the rounding.
    """
    result = types.Tuple((types.float32, types.float32, types.int32))  # type: ignore[attr-defined]

    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        row, target = (stretch(context, build, signature, arguments, n) for n in (0, 4))
        number = context.get_value_type(out.dtype)
        squares, lefts = (Running(build, F32, b.fadd) for _ in range(2))
        total = Running(build, I32, b.add)

        def body(place, lanes):
            floats = ir.VectorType(F32, lanes)
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
            whole = b.fptosi(near, ir.VectorType(I32, lanes))
            target(place, lanes, b.trunc(whole, ir.VectorType(number, lanes)))
            left = b.fsub(value, near)
            lefts.join(b.fmul(left, left))
            total.join(whole)

        pieces(build, arguments[2], body)
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
def fetch(context, numbers, at, length):
    """Ask for a stretch that is read soon, where it may not be in the first-level cache."""

    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        made = context.make_array(signature.args[0])(context, b, arguments[0])
        data = b.bitcast(b.gep(made.data, [arguments[1]]), I8.as_pointer())
        size = b.mul(arguments[2], build.number(numbers.dtype.bitwidth // 8))
        each = build.loop(b.udiv(build.offset(size, 63), build.number(64)))
        line = b.gep(data, [b.mul(each[0], build.number(64))])
        flags = [ir.Constant(I32, value) for value in (0, 3, 1)]  # to read, to keep, data
        build.call("llvm.prefetch.p0", ir.VoidType(), line, *flags)
        build.close(each)
        return context.get_dummy_value()

    return types.void(numbers, types.intp, types.intp), code


@intrinsic
def align_stack(context):
    """Put what this kernel keeps on the stack at one place of a page, whoever calls it.

    Sums that find no register (AVX2 has 16) are kept there.  LLVM aligns them to 16 bytes, so a
    vector of 32 may lie on two pages or cover the addresses, modulo a page, of what is read beside
    it: a call then took twice as long, for one in eight depths of the caller's stack.
    """

    def code(context, builder, signature, arguments):
        place = cgutils.alloca_once(builder, I64)
        place.align = PAGE
        kind = ir.FunctionType(ir.VoidType(), [place.type])
        kept = ir.InlineAsm(kind, "", "r", side_effect=True)  # or LLVM leaves `place` out
        builder.call(kept, [place])
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def dot(context, rows, at, codewords, codeword_at, length):
    """Return the product of two stretches, summed in float64 in some fixed order."""

    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        left, right = (stretch(context, build, signature, arguments, n) for n in (0, 2))
        total = Running(build, ir.DoubleType(), lambda x, y: build.contracted(b.fadd(x, y)))

        def body(place, lanes):
            x, y = left(place, lanes), right(place, lanes)
            if x.type.element != ir.DoubleType():
                doubles = ir.VectorType(ir.DoubleType(), lanes)
                x, y = b.fpext(x, doubles), b.fpext(y, doubles)
            total.join(build.contracted(b.fmul(x, y)))

        pieces(build, arguments[4], body)
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


@intrinsic
def split_to(context, sums, at, further, rows, row_at, length, magic):
    """Add a stretch of `rows` to `sums`, rounded to a grid, and `further` on what that leaves.

    In float64; adding and subtracting `magic` rounds.
    """

    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        coarse = stretch(context, build, signature, arguments, 0)
        rest = (arguments[0], b.add(arguments[1], arguments[2]))
        fine = stretch(context, build, signature, rest, 0)
        row = stretch(context, build, signature, arguments, 3)

        def body(place, lanes):
            number, doubles = row(place, lanes), ir.VectorType(ir.DoubleType(), lanes)
            if number.type != doubles:
                number = b.fpext(number, doubles)
            shift = build.spread(arguments[6], doubles)
            near = b.fsub(b.fadd(number, shift), shift)
            coarse(place, lanes, b.fadd(coarse(place, lanes), near))
            fine(place, lanes, b.fadd(fine(place, lanes), b.fsub(number, near)))

        pieces(build, arguments[5], body)
        return context.get_dummy_value()

    whole = types.intp
    return types.void(sums, whole, whole, rows, whole, whole, types.float64), code


def _into(totals, parts, operation):
    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        left, right = (stretch(context, build, signature, arguments, n) for n in (0, 2))

        def body(place, lanes):
            total, part = left(place, lanes), right(place, lanes)
            if total.type != part.type:
                part = b.fpext(part, total.type)
            left(place, lanes, getattr(b, operation)(total, part))

        pieces(build, arguments[4], body)
        return context.get_dummy_value()

    whole = types.intp
    return types.void(totals, whole, parts, whole, whole), code


@intrinsic
def sum_codewords(context, codes, n, table, first, length, out, out_at):
    """Write the sum, from zero and in the order of the stages, of the codewords of column `n`."""

    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        chosen = context.make_array(signature.args[0])(context, b, arguments[0])
        begins = context.make_array(signature.args[3])(context, b, arguments[3])
        stages, width = (b.extract_value(chosen.shape, axis) for axis in (0, 1))
        codewords = context.make_array(signature.args[2])(context, b, arguments[2])
        target = stretch(context, build, signature, arguments, 5)
        kind = context.get_value_type(table.dtype)

        def body(place, lanes):
            vector = ir.VectorType(kind, lanes)
            each = build.loop(stages)
            total = b.phi(vector)
            total.add_incoming(ir.Constant(vector, None), each[2])
            code = b.load(b.gep(chosen.data, [b.add(b.mul(each[0], width), arguments[1])]))
            codeword = b.add(b.load(b.gep(begins.data, [each[0]])),
                         b.mul(b.sext(code, I64), arguments[4]))  # fmt: skip
            at = b.bitcast(b.gep(codewords.data, [b.add(codeword, place)]), vector.as_pointer())
            value = b.load(at)
            value.align = table.dtype.bitwidth // 8
            following = b.fadd(total, value)
            build.close(each, [(total, following)])
            target(place, lanes, following)

        pieces(build, arguments[4], body, 8 * LANES)
        return context.get_dummy_value()

    whole = types.intp
    return types.void(codes, whole, table, first, whole, out, whole), code
