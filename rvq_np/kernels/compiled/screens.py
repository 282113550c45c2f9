"""Vector micro-kernels as LLVM IR: lower bounds on the scores of many codewords, sums in registers.

    rows    (n, S)  int8, int16 or float32   rows as `quantize` leaves them, padded with zeros
    panels  (...)   uint8, int8, int16 or float32  codewords, see `packing`; it names the kernel
    side    (3, +)  float32                  per codeword: half, step and norm, see `packing`
    params  (n, 4)  float32                  per row: -step, -slack, start of the sums (as int32)
    bounds  (n, B)  float32                  out; see `collect` for the layout

A block of `ROWS` rows meets a panel of ``VECTORS * LANES`` codewords.  Each step loads the panel's
vectors once, repeats 32 bits of every row over the lanes and adds the products to
``ROWS * VECTORS`` sums that never leave the registers; the panel's last act turns sums into lower
bounds, takes their least over the vectors and stores both.  Per step and lane that is one product
in float32, two in int16 (``vpmaddwd``), four in bytes: uint8 is ``vpdpbusd``, which adds them in 32
bits, or ``sdot`` on Arm; int8 is ``vpmaddubsw``, whose sums of 16 bits are added over four steps
before they are widened.
"""

from . import columns as col
from .build import BYTES, F32, FLOATS, I8, I16, I32, I64, INTS, Build, row_of
from .jit import cgutils, intrinsic, ir, types
from .target import LANES, ROWS, SIGNED, VECTORS

FLIP = -0x7F7F7F80  # 0x80 in each byte of an int32: codewords are stored with 128 added

CHAINS = 4  # of minima: one after the other would wait for each
IN_16_BITS = 4  # steps whose products of bytes are summed in 16 bits, see `packing`


def _pairs(build, lanes, row, so_far):
    """Return 16-bit sums of products of bytes, `so_far` (None: nothing) and those of one step."""
    b, kind = build.b, ir.VectorType(I16, 2 * LANES)
    name = {16: "llvm.x86.avx512.pmaddubs.w.512", 8: "llvm.x86.avx2.pmadd.ub.sw"}[LANES]
    single = ir.VectorType(I8, 4 * LANES)
    pairs = build.call(name, kind, b.bitcast(lanes, single), b.bitcast(row, single))
    return pairs if so_far is None else b.add(so_far, pairs)


def _products(build, kind, total, codewords, row):
    """Return `total` plus the products of one step; `codewords`, `row` are vectors of 32 bits."""
    if kind == "float32":
        return build.add_product(row, codewords, total)
    if kind == "uint8" and not SIGNED:
        return build.call(f"llvm.x86.avx512.vpdpbusd.{32 * LANES}", INTS, total, codewords, row)
    if kind == "uint8":
        signed = ir.VectorType(I8, 4 * LANES)
        centred = build.b.xor(codewords, ir.Constant(INTS, [FLIP] * LANES))
        x, y = (build.b.bitcast(each, signed) for each in (centred, row))
        return build.call(f"llvm.aarch64.neon.sdot.v{LANES}i32.v{4 * LANES}i8", INTS, total, x, y)
    pairs = ir.VectorType(I16, 2 * LANES)
    if kind == "int8":  # `codewords` are sums of 16 bits: of two lanes each
        row = ir.Constant(pairs, [1] * 2 * LANES)
    name = {16: "llvm.x86.avx512.pmaddw.d.512", 8: "llvm.x86.avx2.pmadd.wd"}
    products = build.call(
        name.get(LANES, "llvm.x86.sse2.pmadd.wd"),
        INTS,
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
    codewords_type = FLOATS if kind == "float32" else INTS
    at_once = IN_16_BITS if kind == "int8" else 1  # steps
    # Sums of 16 bits and of 32 need as many registers again: half of the rows, then the others.
    together = -(-n_rows // 2) if kind == "int8" and LANES < 16 else n_rows

    def code(context, builder, signature, arguments):
        build = Build(builder)
        b, number, offset = builder, build.number, build.offset

        def array(place):
            made = context.make_array(signature.args[place])(context, b, arguments[place])
            width = b.extract_value(made.shape, 1) if signature.args[place].ndim == 2 else None
            return b.bitcast(made.data, I8.as_pointer()), width

        (rows, row_width), (panels, _), (side, side_width) = array(0), array(2), array(7)
        (params, _), (bounds, bounds_width) = array(9), array(10)
        first, at, steps, begin, end, side_at = (arguments[n] for n in (1, 3, 4, 5, 6, 8))
        item = {"float32": 4, "int16": 2, "int8": 1, "uint8": 1}[kind]
        row_bytes, bound_bytes = b.mul(row_width, number(item)), b.mul(bounds_width, number(4))
        row_at, bound_at, step, slack, start = [], [], [], [], []
        for i in range(n_rows):
            row = b.add(first, number(i))
            row_at.append(b.gep(rows, [b.mul(row, row_bytes)]))
            bound_at.append(b.gep(bounds, [b.mul(row, bound_bytes)]))
            param = b.mul(row, number(4 * len(col.PARAMS)))
            given = [(col.MINUS_STEP, F32), (col.MINUS_SLACK, F32), (col.START, I32)]
            values = [
                build.load(params, offset(param, 4 * n), number_type) for n, number_type in given
            ]
            step.append(build.spread(values[0], FLOATS))
            slack.append(build.spread(values[1], FLOATS))
            start.append(values[2])
        half, size, norm = (
            b.gep(side, [b.mul(b.add(b.mul(side_width, number(n)), side_at), number(4))])
            for n in (col.LOWERED_HALF, col.STEP, col.NORM)
        )
        panels = b.gep(panels, [b.mul(at, number(item))])
        panel_bytes = b.mul(steps, number(VECTORS * BYTES))

        each_panel = build.loop(end, begin)
        panel = each_panel[0]
        codewords_at = b.gep(panels, [b.mul(panel, panel_bytes)])
        codewords = b.mul(panel, number(VECTORS * BYTES))  # in `side`
        if kind == "float32":
            initial = [[build.load(half, offset(codewords, v * BYTES), FLOATS)
                        for v in range(VECTORS)]] * n_rows  # fmt: skip
        elif kind == "uint8" and SIGNED:
            initial = [[ir.Constant(INTS, None)] * VECTORS] * n_rows
        else:
            initial = [[build.spread(each, INTS)] * VECTORS for each in start]
        totals = []
        for some in range(0, n_rows, together):
            chosen = range(some, min(some + together, n_rows))
            each_step = build.loop(b.udiv(steps, number(at_once)))
            sums = [[b.phi(codewords_type) for _ in range(VECTORS)] for _ in chosen]
            position = b.mul(each_step[0], number(at_once))
            parts = [[None] * VECTORS for _ in chosen]
            for each in range(at_once):
                step_at = offset(position, each)
                here = b.mul(step_at, number(VECTORS * BYTES))
                loaded = [
                    build.load(codewords_at, offset(here, v * BYTES), codewords_type, BYTES)
                    for v in range(VECTORS)
                ]
                for row_sums, row_parts, i in zip(sums, parts, chosen, strict=True):
                    four = build.load(
                        row_at[i], b.mul(step_at, number(4)), F32 if kind == "float32" else I32
                    )
                    row = build.spread(four, codewords_type)
                    for v in range(VECTORS):
                        if kind == "int8":
                            row_parts[v] = _pairs(build, loaded[v], row, row_parts[v])
                        else:
                            row_parts[v] = _products(build, kind, row_sums[v], loaded[v], row)
            if kind == "int8":
                parts = [[_products(build, kind, total, part, None)
                          for total, part in zip(*each, strict=True)]
                         for each in zip(sums, parts, strict=True)]  # fmt: skip
            phis = []
            for row_sums, row_parts, i in zip(sums, parts, chosen, strict=True):
                for v in range(VECTORS):
                    row_sums[v].add_incoming(initial[i][v], each_step[2])
                    phis.append((row_sums[v], row_parts[v]))
            build.close(each_step, phis)
            totals += parts
        group = b.mul(panel, number((VECTORS + 1) * BYTES))  # in `bounds`
        for i in range(n_rows):
            least = None
            for v in range(VECTORS):
                bound = totals[i][v]
                place = offset(codewords, v * BYTES)
                if kind != "float32":
                    total = b.fmul(b.sitofp(bound, FLOATS), build.load(size, place, FLOATS))
                    bound = build.add_product(total, step[i], build.load(half, place, FLOATS))
                bound = build.add_product(build.load(norm, place, FLOATS), slack[i], bound)
                build.store(bound, bound_at[i], offset(group, (v + 1) * BYTES))
                least = bound if least is None else build.least(bound, least)
            build.store(least, bound_at[i], group)
        build.close(each_panel)
        return context.get_dummy_value()

    return code


screen_block = _screen(ROWS)

screen_row = _screen(1)


@intrinsic
def lowest(context, bounds, row, panels):
    """Return the least bound of a row, float32."""

    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        data, _ = row_of(context, b, signature, arguments)
        each = build.loop(arguments[2])
        least = b.phi(FLOATS)
        least.add_incoming(ir.Constant(FLOATS, [float("inf")] * LANES), each[2])
        place = b.mul(each[0], build.number((VECTORS + 1) * BYTES))
        lower = build.least(build.load(data, place, FLOATS), least)
        build.close(each, [(least, lower)])
        return build.folded(lower, build.least)

    return types.float32(bounds, types.intp, types.intp), code


@intrinsic
def nearest(context, bounds, row, panels):
    """Return the codeword of the least bound of a row, one of them if several share it."""

    def code(context, builder, signature, arguments):
        build, b = Build(builder), builder
        data, _ = row_of(context, b, signature, arguments)
        last = b.sub(arguments[2], build.number(1))
        share = b.udiv(build.offset(arguments[2], CHAINS - 1), build.number(CHAINS))
        each = build.loop(share)
        chains: list = []
        found: list = []
        for _ in range(CHAINS):
            least, which = b.phi(FLOATS), b.phi(INTS)
            least.add_incoming(ir.Constant(FLOATS, [float("inf")] * LANES), each[2])
            which.add_incoming(ir.Constant(INTS, None), each[2])
            chains += [least, which]
        for least, which in zip(chains[::2], chains[1::2], strict=True):
            place = build.offset(each[0], b.mul(share, build.number(len(found) // 2)))
            place = b.select(b.icmp_signed("<", place, last), place, last)  # the last one again
            bound = build.load(data, b.mul(place, build.number((VECTORS + 1) * BYTES)), FLOATS)
            less = b.fcmp_ordered("<", bound, least)
            number = build.spread(b.trunc(place, I32), INTS)
            found += [b.select(less, bound, least), b.select(less, number, which)]
        build.close(each, list(zip(chains, found, strict=True)))
        lower, panel = found[:2]
        for bound, number in zip(found[2::2], found[3::2], strict=True):
            less = b.fcmp_ordered("<", bound, lower)
            lower, panel = b.select(less, bound, lower), b.select(less, number, panel)
        low = build.spread(build.folded(lower, build.least), FLOATS)
        lane = build.first(build.bits(b.fcmp_ordered("==", lower, low)))
        panel = b.zext(b.extract_element(panel, b.trunc(lane, I32)), I64)
        group = b.mul(panel, build.number((VECTORS + 1) * BYTES))
        bits = build.number(0)
        for v in range(VECTORS):
            bound = build.load(data, build.offset(group, (v + 1) * BYTES), FLOATS)
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
        build, b = Build(builder), builder
        data, _ = row_of(context, b, signature, arguments)
        out = context.make_array(signature.args[4])(context, b, arguments[4]).data
        limit = build.spread(arguments[3], FLOATS)
        count = cgutils.alloca_once_value(b, build.number(0))  # not on the stack of each call
        one = build.number(1)

        def within(place):
            """Return a bit a lane: whether the bound there is at most the limit."""
            return build.bits(b.fcmp_ordered("<=", build.load(data, place, FLOATS), limit))

        def group(panel):
            return b.mul(panel, build.number((VECTORS + 1) * BYTES))

        def each_bit(bits, body):
            """Call ``body(place)`` for each bit of an int64 that is set, from the lowest."""
            with b.if_then(b.icmp_unsigned("!=", bits, build.number(0))):
                entry, turn = b.block, b.append_basic_block("turn")
                b.branch(turn)
                b.position_at_end(turn)
                left = b.phi(I64)
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
        hits = b.phi(I64)
        hits.add_incoming(build.number(0), panels[2])
        hit = b.icmp_unsigned("!=", within(group(b.add(begin, panels[0]))), build.number(0))
        more = b.or_(hits, b.shl(b.zext(hit, I64), panels[0]))
        build.close(panels, [(hits, more)])

        def panel_hit(place):
            panel = b.add(begin, place)
            bits = build.number(0)
            for v in range(VECTORS):
                part = within(build.offset(group(panel), (v + 1) * BYTES))
                bits = b.or_(bits, b.shl(part, build.number(v * LANES)))
            codeword = b.mul(panel, build.number(VECTORS * LANES))

            def codeword_hit(lane):
                so_far = b.load(count)
                b.store(b.trunc(b.add(codeword, lane), I32), b.gep(out, [so_far]))
                b.store(b.add(so_far, one), count)

            each_bit(bits, codeword_hit)

        each_bit(more, panel_hit)
        build.close(runs)
        return b.load(count)

    return types.intp(bounds, types.intp, types.intp, types.float32, found), code
