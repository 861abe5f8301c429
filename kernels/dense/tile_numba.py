"""The tile of a matrix product: a few rows by a few vectors of C that stay in registers. And the copies of B that it
reads best.

For each k a tile takes a row of B, one vector beside the other, and adds to each of its rows the entry of A times
these: an FMA for each vector, and the units that multiply never wait. What is not a whole tile is a smaller one, its
last vector masked.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bdiff_np.kernels.shared.vectors_numba import (
    F32,
    FLOATS,
    I64,
    LANES,
    REGISTERS,
    VECTOR,
    ZERO,
    Loop,
    declared,
    defined,
    first_lanes,
    i64_of,
    indices,
    load,
    prefetch,
    splat,
    store,
)

# rows and vectors: 24 sums, four vectors of B and an entry of A are 29 of AVX-512's 32 registers; 12, 3 and 1 are
# AVX2's 16
HEIGHT, WIDE = (6, 4) if REGISTERS == 32 else (4, 3)
PANEL = LANES * WIDE  # floats of a row of B, for one tile


def _tile(module, height: int, wide: int):
    """C = start + A B for one tile. A (height, K) has an entry every a_row and a_k floats, rows of B and C lie b_k and
    c_row floats apart; `start` is null, or has rows start_row floats apart. tail : lanes of the last vector"""
    arguments = [FLOATS, I64, I64, FLOATS, I64, FLOATS, I64, FLOATS, I64, I64, I64]
    function, new = defined(module, f"bdiff_tile_{height}_{wide}_{LANES}", arguments)
    if not new:
        return function
    a, a_row, a_k, b, b_k, start, start_row, c, c_row, K, tail = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    masks = [None] * (wide - 1) + [first_lanes(builder, tail)]
    for i in range(height):  # C comes from far while the sums are made
        for v in range(wide):
            prefetch(builder, c, builder.add(builder.mul(c_row, i64_of(i)), i64_of(LANES * v)))
    fma = declared(module, f"llvm.fma.v{LANES}f32", VECTOR, [VECTOR] * 3)
    loop = Loop(function, builder, K, [a, b, *[ZERO] * (height * wide)])
    inside, (a_now, b_now, *sums) = loop.builder, loop.carried
    row = [load(inside, b_now, i64_of(LANES * v), masks[v]) for v in range(wide)]
    for i in range(height):
        entry = splat(inside, inside.load(inside.gep(a_now, [inside.mul(a_row, i64_of(i))])), F32, LANES)
        for v in range(wide):
            sums[i * wide + v] = inside.call(fma, [entry, row[v], sums[i * wide + v]])
    after, (_, _, *sums) = loop.end([inside.gep(a_now, [a_k]), inside.gep(b_now, [b_k]), *sums])
    adds, stores = function.append_basic_block("adds"), function.append_basic_block("stores")
    after.cbranch(after.icmp_unsigned("!=", after.ptrtoint(start, I64), i64_of(0)), adds, stores)
    for block in (adds, stores):
        builder = ir.IRBuilder(block)
        for i in range(height):
            for v in range(wide):
                total = sums[i * wide + v]
                if block is adds:
                    offset = builder.add(builder.mul(start_row, i64_of(i)), i64_of(LANES * v))
                    total = builder.fadd(total, load(builder, start, offset, masks[v]))
                store(builder, total, c, builder.add(builder.mul(c_row, i64_of(i)), i64_of(LANES * v)), masks[v])
        builder.ret_void()
    return function


def _copy(module, wide: int):
    """A panel of B as it lies, rows b_k floats apart, into the room."""
    function, new = defined(module, f"bdiff_copy_{wide}_{LANES}", [FLOATS, I64, FLOATS, I64, I64])
    if not new:
        return function
    b, b_k, out, K, tail = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    masks = [None] * (wide - 1) + [first_lanes(builder, tail)]
    loop = Loop(function, builder, K, [b, out])
    b_now, out_now = loop.carried
    for v in range(wide):
        store(loop.builder, load(loop.builder, b_now, i64_of(LANES * v), masks[v]), out_now, i64_of(LANES * v))
    loop.end([loop.builder.gep(b_now, [b_k]), loop.builder.gep(out_now, [i64_of(PANEL)])])[0].ret_void()
    return function


def _turn(module):
    """A panel of W.T: `count` rows of a matrix W, `row` floats apart, into as many columns of the room, K long.

    LANES rows and columns at a time, by swapping ever larger blocks off the diagonal; what is left over number by
    number.
    """
    function, new = defined(module, f"bdiff_turn_{LANES}", [FLOATS, I64, I64, FLOATS, I64])
    if not new:
        return function
    matrix, row, count, out, K = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    lanes = i64_of(LANES)
    squares, long = builder.sdiv(count, lanes), builder.mul(builder.sdiv(K, lanes), lanes)
    outer = Loop(function, builder, squares, [])
    builder = outer.builder
    strip = builder.gep(matrix, [builder.mul(builder.mul(outer.k, lanes), row)])
    columns = builder.gep(out, [builder.mul(outer.k, lanes)])
    inner = Loop(function, builder, builder.sdiv(K, lanes), [strip, columns])
    builder, (source, target) = inner.builder, inner.carried
    rows = [load(builder, source, builder.mul(row, i64_of(i))) for i in range(LANES)]
    for i, vector in enumerate(_transposed(builder, rows)):
        store(builder, vector, target, i64_of(PANEL * i))
    builder = inner.end([builder.gep(source, [lanes]), builder.gep(target, [i64_of(PANEL * LANES)])])[0]
    outer.builder = _numbers(function, builder, (strip, row, lanes, columns), long, K)
    builder = outer.end([])[0]
    done = builder.mul(squares, lanes)
    left = builder.gep(matrix, [builder.mul(done, row)])
    rest = (left, row, builder.sub(count, done), builder.gep(out, [done]))
    _numbers(function, builder, rest, i64_of(0), K).ret_void()
    return function


def _transposed(builder, rows):
    """LANES vectors as the columns of what they were the rows of."""
    step = 1
    while step < LANES:
        stays = indices([q - step + LANES if q & step else q for q in range(LANES)])
        comes = indices([q + LANES if q & step else q + step for q in range(LANES)])
        for i in (i for i in range(LANES) if not i & step):
            pair = rows[i], rows[i + step]
            rows[i], rows[i + step] = (builder.shuffle_vector(*pair, order) for order in (stays, comes))
        step *= 2
    return rows


def _numbers(function, builder, panel, first, K):
    """The columns first .. K - 1 of some rows of W, number by number. Returns a builder behind it."""
    matrix, row, count, out = panel
    outer = Loop(function, builder, builder.sub(K, first), [])
    k = outer.builder.add(outer.k, first)
    inner = Loop(function, outer.builder, count, [])
    builder = inner.builder
    number = builder.load(builder.gep(matrix, [builder.add(builder.mul(inner.k, row), k)]))
    builder.store(number, builder.gep(out, [builder.add(builder.mul(k, i64_of(PANEL)), inner.k)]))
    outer.builder = inner.end([])[0]
    return outer.end([])[0]


def _pointers(builder, arguments, which):
    return [builder.inttoptr(x, FLOATS) if k in which else x for k, x in enumerate(arguments)]


def _switch(builder, number, functions, arguments):
    """Calls the function of that number."""
    end = builder.append_basic_block()
    switch = builder.switch(number, end)
    for k, function in functions.items():
        with builder.goto_block(builder.append_basic_block()):
            switch.add_case(i64_of(k), builder.block)
            builder.call(function, arguments)
            builder.branch(end)
    builder.position_at_end(end)


@intrinsic
def run_tile(typing, height, wide, a, a_row, a_k, b, b_k, start, start_row, c, c_row, K, tail):
    """_tile of so many rows and vectors; matrices are addresses."""

    def codegen(context, builder, signature, arguments):
        height, wide, *rest = arguments
        number = builder.add(builder.mul(height, i64_of(8)), wide)
        tiles = {8 * h + w: _tile(builder.module, h, w) for h in range(1, HEIGHT + 1) for w in range(1, WIDE + 1)}
        _switch(builder, number, tiles, _pointers(builder, rest, (0, 3, 5, 7)))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 13), codegen


@intrinsic
def run_copy(typing, wide, b, b_k, out, K, tail):
    """_copy of so many vectors; matrices are addresses."""

    def codegen(context, builder, signature, arguments):
        wide, *rest = arguments
        copies = {w: _copy(builder.module, w) for w in range(1, WIDE + 1)}
        _switch(builder, wide, copies, _pointers(builder, rest, (0, 2)))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), codegen


@intrinsic
def run_turn(typing, matrix, row, count, out, K):
    """_turn; matrices are addresses."""

    def codegen(context, builder, signature, arguments):
        builder.call(_turn(builder.module), _pointers(builder, arguments, (0, 3)))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), codegen
