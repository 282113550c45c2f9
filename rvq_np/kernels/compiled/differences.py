"""Sums over differences, in float64: rows and codewords less a centre, and their distance.

    rows, codewords  T        any arrays, read from an element on
    centres      float64  the centres of stages, read from an element on
    out          float64  written from an element on

A difference of two numbers of T is rounded to float64 once, before anything is multiplied; `scale`
is a power of two, so that nothing else is rounded unless it leaves float64.
"""

from .build import F32, I64, Build, Running, pieces, stretch
from .jit import intrinsic, ir, types


@intrinsic
def move(context, rows, at, centres, centre_at, out, out_at, scale, length):
    """Write ``(row - centre) * scale``."""

    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        row, centre, target = (stretch(context, build, signature, arguments, n) for n in (0, 2, 4))

        def body(place, lanes):
            left = b.fsub(_wide(b, row(place, lanes)), centre(place, lanes))
            target(place, lanes, b.fmul(left, build.spread(arguments[6], left.type)))

        pieces(build, arguments[7], body)
        return context.get_dummy_value()

    whole = types.intp
    return types.void(rows, whole, centres, whole, out, whole, types.float64, whole), code


@intrinsic
def dot_moved(context, moved, at, codewords, codeword_at, centres, centre_at, scale, length):
    """Return ``<moved, (codeword - centre) * scale>``."""

    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        row, codeword, centre = (
            stretch(context, build, signature, arguments, n) for n in (0, 2, 4)
        )
        total = Running(build, ir.DoubleType(), lambda x, y: build.contracted(b.fadd(x, y)))

        def body(place, lanes):
            right = b.fsub(_wide(b, codeword(place, lanes)), centre(place, lanes))
            right = b.fmul(right, build.spread(arguments[6], right.type))
            total.join(build.contracted(b.fmul(row(place, lanes), right)))

        pieces(build, arguments[7], body)
        return total.total()

    whole = types.intp
    return types.float64(moved, whole, codewords, whole, centres, whole, types.float64, whole), code


@intrinsic
def distance(context, rows, at, codewords, codeword_at, scale, length):
    """Return the sum of ``((row - codeword) * scale)**2``."""

    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        row, codeword = (stretch(context, build, signature, arguments, n) for n in (0, 2))
        total = Running(build, ir.DoubleType(), lambda x, y: build.contracted(b.fadd(x, y)))

        def body(place, lanes):
            left = b.fsub(_wide(b, row(place, lanes)), _wide(b, codeword(place, lanes)))
            left = b.fmul(left, build.spread(arguments[4], left.type))
            total.join(build.contracted(b.fmul(left, left)))

        pieces(build, arguments[5], body)
        return total.total()

    whole = types.intp
    return types.float64(rows, whole, codewords, whole, types.float64, whole), code


@intrinsic
def shorten(context, rows, at, codewords, codeword_at, out, out_at, length):
    """Write ``row - codeword`` as float32; return its sum of squares, float64."""

    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        row, codeword, target = (
            stretch(context, build, signature, arguments, n) for n in (0, 2, 4)
        )
        total = Running(build, ir.DoubleType(), lambda x, y: build.contracted(b.fadd(x, y)))

        def body(place, lanes):
            left = b.fsub(_wide(b, row(place, lanes)), _wide(b, codeword(place, lanes)))
            target(place, lanes, b.fptrunc(left, ir.VectorType(F32, lanes)))
            total.join(build.contracted(b.fmul(left, left)))

        pieces(build, arguments[6], body)
        return total.total()

    whole = types.intp
    return types.float64(rows, whole, codewords, whole, out, whole, whole), code


@intrinsic
def spans(context, rest, width, codewords, codewords_at, leader_at, found, at):
    """Write ``<e, d>`` and ``<d, d>`` of four codewords ``found[at]...``, with e the beginning of
    `rest` and d the difference of a codeword and the one at `leader_at`; all in float32.

    Products are written from ``rest[width + at]`` on, squares ``found.shape[0]`` places later.
    """

    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        row = stretch(context, build, signature, [arguments[0], build.number(0)], 0)
        leader = stretch(context, build, signature, [*arguments[:3], arguments[4]], 2)
        chosen = context.make_array(signature.args[5])(context, b, arguments[5])
        codeword_of = []
        for n in range(4):
            number = b.load(b.gep(chosen.data, [build.offset(arguments[6], n)]))
            place = b.add(arguments[3], b.mul(b.sext(number, I64), arguments[1]))
            codeword_of.append(stretch(context, build, signature, [*arguments[:3], place], 2))

        def sum_up(x, y):
            return build.contracted(b.fadd(x, y))

        products, squares = ([Running(build, F32, sum_up) for _ in range(4)] for _ in range(2))

        def body(place, lanes):
            e, w = row(place, lanes), leader(place, lanes)
            for codeword, product, square in zip(codeword_of, products, squares, strict=True):
                d = b.fsub(codeword(place, lanes), w)
                if codewords.dtype == types.float64:
                    d = b.fptrunc(d, ir.VectorType(F32, lanes))
                product.join(build.contracted(b.fmul(e, d)))
                square.join(build.contracted(b.fmul(d, d)))

        pieces(build, arguments[1], body)
        places = b.extract_value(chosen.shape, 0)
        for sums, more in ((products, build.number(0)), (squares, places)):
            out = stretch(context, build, signature, [arguments[0], b.add(arguments[1], more)], 0)
            out(arguments[6], 4, build.four([b.load(each.place) for each in sums]))
        return context.get_dummy_value()

    whole = types.intp
    return types.void(rest, whole, codewords, whole, whole, found, whole), code


@intrinsic
def bracket(context, rest, at, count, far, share, grown, lost, places):
    """Turn `count` products from ``rest[at]`` on into lower bounds of ``<d, d> / 2 - <e, d>``.

    Return the least upper bound, zero at most.  Squares are `places` later; see `sift` for the
    other numbers, which become float32.
    """

    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        product = stretch(context, build, signature, arguments, 0)
        squares = [arguments[0], b.add(arguments[1], arguments[7])]
        square = stretch(context, build, signature, squares, 0)
        numbers = [b.fptrunc(each, F32) for each in arguments[3:7]]
        least = Running(build, F32, lambda x, y: b.select(b.fcmp_ordered("<", y, x), y, x))

        def body(place, lanes):
            kind = ir.VectorType(F32, lanes)
            far, share, grown, lost = (build.spread(each, kind) for each in numbers)
            half, one = (ir.Constant(kind, [each] * lanes) for each in (0.5, 1.0))
            length = square(place, lanes)
            value = b.fsub(b.fmul(half, length), product(place, lanes))
            grown = b.fadd(b.fmul(length, grown), lost)
            size = build.call(f"llvm.sqrt.v{lanes}f32", kind, grown)
            both = b.fadd(far, size)
            error = b.fadd(b.fmul(b.fmul(share, size), both), b.fmul(lost, b.fadd(one, both)))
            product(place, lanes, b.fsub(value, error))
            least.join(b.fadd(value, error))

        pieces(build, arguments[2], body)
        return least.total()

    whole, real = types.intp, types.float64
    return types.float32(rest, whole, whole, real, real, real, real, whole), code


def _wide(b, value):
    double = ir.DoubleType()
    return (
        value
        if value.type.element == double
        else b.fpext(value, ir.VectorType(double, value.type.count))
    )
