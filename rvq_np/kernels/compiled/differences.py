"""Sums over differences, in float64: rows and codewords less a centre, and their distance.

    rows, codewords  T        any arrays, read from an element on
    centres      float64  the centres of stages, read from an element on
    out          float64  written from an element on

A difference of two numbers of T is rounded to float64 once, before anything is multiplied; `scale`
is a power of two, so that nothing else is rounded unless it leaves float64.
"""

from .build import Build, Running, pieces, stretch
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


def _wide(b, value):
    double = ir.DoubleType()
    return (
        value
        if value.type.element == double
        else b.fpext(value, ir.VectorType(double, value.type.count))
    )
