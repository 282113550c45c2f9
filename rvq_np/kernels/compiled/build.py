"""LLVM IR in a few phrases: what the vector kernels of `simd`, `screens` and `maps` are made of."""

from .jit import cgutils, ir
from .target import LANES, TARGET

F32, I8, I16, I32, I64 = ir.FloatType(), *(ir.IntType(bits) for bits in (8, 16, 32, 64))

FLOATS, INTS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)

BYTES = 4 * LANES  # of a vector


class Build:
    """A builder with the few phrases the kernels are made of."""

    def __init__(self, builder):
        self.b = builder

    def number(self, value):
        return ir.Constant(I64, value)

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
        one = self.b.insert_element(empty, value, ir.Constant(I32, 0))
        zeros = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
        return self.b.shuffle_vector(one, empty, zeros)

    def call(self, name, kind, *arguments):
        module = self.b.module
        function = module.globals.get(name) or ir.Function(
            module, ir.FunctionType(kind, [each.type for each in arguments]), name
        )
        return self.b.call(function, arguments)

    def add_product(self, x, y, total):
        if TARGET.fused:
            return self.call(f"llvm.fma.v{LANES}f32", FLOATS, x, y, total)
        return self.b.fadd(self.b.fmul(x, y), total)

    def bits(self, lanes):
        """Return a vector of truth values as the bits of an int64."""
        return self.b.zext(self.b.bitcast(lanes, ir.IntType(LANES)), I64)

    def first(self, bits):
        """Return the place of the lowest bit that is set in an int64, of which there is one."""
        return self.call("llvm.cttz.i64", I64, bits, ir.Constant(ir.IntType(1), 1))

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
            turn = [ir.Constant(I32, (n + count) % lanes) for n in range(lanes)]
            turned = self.b.shuffle_vector(
                value,
                ir.Constant(value.type, ir.Undefined),
                ir.Constant(ir.VectorType(I32, lanes), turn),
            )
            value = combine(turned, value)
        return self.b.extract_element(value, ir.Constant(I32, 0))

    def four(self, vectors):
        """Return the sums over all lanes of four vectors, as a vector of four."""
        lanes = vectors[0].type.count

        def turned(x, y, order):
            mask = ir.Constant(ir.VectorType(I32, len(order)), order)
            return self.b.shuffle_vector(x, y, mask)

        def joined(x, y, share):
            """Add the halves of each `share` of the lanes: first those of x, then those of y."""
            half = share // 2
            begins = [at + n for at in range(0, 2 * lanes, share) for n in range(half)]
            return self.b.fadd(turned(x, y, begins), turned(x, y, [at + half for at in begins]))

        first = joined(vectors[0], vectors[1], lanes)
        second = joined(vectors[2], vectors[3], lanes)
        found, share = joined(first, second, lanes // 2), lanes // 4
        while share > 1:
            share //= 2
            order = [n ^ share for n in range(lanes)]
            found = self.b.fadd(found, turned(found, found, order))
        return turned(found, found, list(range(0, lanes, lanes // 4)))

    def loop(self, stop, start=None):
        """Open a loop that runs at least once; `close` it with what its phis become."""
        entry, body = self.b.block, self.b.append_basic_block("body")
        self.b.branch(body)
        self.b.position_at_end(body)
        index = self.b.phi(I64)
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


def pieces(build, length, body, most=LANES):
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


class Running:
    """A vector in memory (LLVM makes it a register) that shorter vectors may join."""

    def __init__(self, build, kind, combine):
        self.build, self.combine = build, combine
        self.vector = ir.VectorType(kind, LANES)
        self.place = cgutils.alloca_once_value(build.b, ir.Constant(self.vector, None))

    def join(self, value):
        b, lanes = self.build.b, value.type.count
        if lanes < LANES:  # fill up with zeros
            order = [n if n < lanes else lanes for n in range(LANES)]
            mask = ir.Constant(ir.VectorType(I32, LANES), order)
            value = b.shuffle_vector(value, ir.Constant(value.type, None), mask)
        b.store(self.combine(b.load(self.place), value), self.place)

    def total(self):
        return self.build.folded(self.build.b.load(self.place), self.combine)


def stretch(context, build, signature, arguments, number):
    """Return a function that loads, or stores, lanes of array `number` from its offset on."""
    array, b = signature.args[number], build.b
    made = context.make_array(array)(context, b, arguments[number])
    kind, item = context.get_value_type(array.dtype), array.dtype.bitwidth // 8
    data = b.bitcast(b.gep(made.data, [arguments[number + 1]]), I8.as_pointer())

    def access(place, lanes, value=None):
        offset = b.mul(place, build.number(item))
        if value is None:
            return build.load(data, offset, ir.VectorType(kind, lanes), item)
        return build.store(value, data, offset, item)

    return access


def row_of(context, builder, signature, arguments):
    """Return a pointer to the bytes of row ``arguments[1]`` of ``arguments[0]``, and its length."""
    made = context.make_array(signature.args[0])(context, builder, arguments[0])
    width = builder.extract_value(made.shape, 1)
    data = builder.gep(made.data, [builder.mul(arguments[1], width)])
    return builder.bitcast(data, I8.as_pointer()), width
