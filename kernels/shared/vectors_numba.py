"""Loops over vectors of float32 written in LLVM's own language: what Numba's Python cannot say.

The width of a vector is that of the machine compiled for.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

# features of a processor, best first -> floats of a vector, registers that hold one
KINDS = {"+avx512f": (16, 32), "+avx2": (8, 16)}


def _kind() -> tuple[int, int] | None:
    features = cpu_target.target_context.codegen()._tm_features.split(",")
    return next((kind for feature, kind in KINDS.items() if feature in features and "+fma" in features), None)


KIND = _kind()  # None where loops below are not written for the machine: masks and FMA would be slow there
LANES, REGISTERS = KIND or (16, 32)


@intrinsic
def whole_vectors(typing):
    """To be called in a function whose loops shall run in the machine's widest vectors: LLVM prefers half of them on
    processors whose clock suffered from AVX-512 once."""

    def codegen(context, builder, signature, arguments):
        # llvmlite knows no attributes with a value, and a set of them that checks its members
        set.add(builder.function.attributes, f'"prefer-vector-width"="{32 * LANES}"')
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def low_bytes(typing, address, top):
    """Which of sixteen bytes at an address are not above `top`: a bit for each, the first one's lowest."""

    def codegen(context, builder, signature, arguments):
        kind, word = ir.VectorType(ir.IntType(8), 16), ir.IntType(64)
        found = builder.load(builder.inttoptr(arguments[0], kind.as_pointer()), align=1)
        limit = splat(builder, builder.trunc(arguments[1], ir.IntType(8)), ir.IntType(8), 16)
        bits = builder.bitcast(builder.icmp_unsigned("<=", found, limit), ir.IntType(16))
        return builder.zext(bits, word)

    return types.uint64(types.int64, types.uint64), codegen


@intrinsic
def first_bit(typing, word):
    """The number of the lowest bit that is set."""

    def codegen(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


I1, I32, I64, F32 = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.FloatType()
FLOATS, VECTOR = F32.as_pointer(), ir.VectorType(F32, LANES)
VECTORS, LANE, MASK = VECTOR.as_pointer(), ir.VectorType(I32, LANES), ir.VectorType(I1, LANES)
ZERO, ANY = ir.Constant(VECTOR, [ir.Constant(F32, 0.0)] * LANES), ir.Constant(VECTOR, ir.Undefined)


def i64_of(value: int):
    return ir.Constant(I64, value)


def indices(values):
    return ir.Constant(ir.VectorType(I32, len(values)), [ir.Constant(I32, value) for value in values])


def declared(module, name: str, result, arguments):
    """An intrinsic function of LLVM."""
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, arguments), name)


def defined(module, name: str, arguments):
    """A new function of the module and True, or the one that is there and False."""
    if name in module.globals:
        return module.globals[name], False
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), f"{name}")
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    return function, True


def splat(builder, number, kind, width: int):
    """A vector with one number in all lanes."""
    unknown = ir.Constant(ir.VectorType(kind, width), ir.Undefined)
    one = builder.insert_element(unknown, number, ir.Constant(I32, 0))
    return builder.shuffle_vector(one, unknown, indices([0] * width))


def first_lanes(builder, count):
    """The mask of so many lanes."""
    lanes = splat(builder, builder.trunc(count, I32), I32, LANES)
    return builder.icmp_unsigned("<", indices(range(LANES)), lanes)


def _at(builder, pointer, offset):
    """The vector at a pointer to floats and an offset."""
    return builder.bitcast(builder.gep(pointer, [offset]), VECTORS)


def load(builder, pointer, offset, mask=None):
    at = _at(builder, pointer, offset)
    if mask is None:
        return builder.load(at, align=4)
    name = f"llvm.masked.load.v{LANES}f32.p0"
    masked = declared(builder.module, name, VECTOR, [VECTORS, I32, MASK, VECTOR])
    return builder.call(masked, [at, ir.Constant(I32, 4), mask, ZERO])


def store(builder, value, pointer, offset, mask=None):
    at = _at(builder, pointer, offset)
    if mask is None:
        builder.store(value, at, align=4)
        return
    name = f"llvm.masked.store.v{LANES}f32.p0"
    masked = declared(builder.module, name, ir.VoidType(), [VECTOR, VECTORS, I32, MASK])
    builder.call(masked, [value, at, ir.Constant(I32, 4), mask])


def prefetch(builder, pointer, offset):
    """Asks for the cache line at a pointer to floats and an offset, to be written."""
    bytes_ = ir.IntType(8).as_pointer()
    function = declared(builder.module, "llvm.prefetch.p0", ir.VoidType(), [bytes_, I32, I32, I32])
    at = builder.bitcast(builder.gep(pointer, [offset]), bytes_)
    builder.call(function, [at, *(ir.Constant(I32, value) for value in (1, 3, 1))])


class Loop:
    """for k in range(count): body, with values that are carried from turn to turn. first : of each of them.

    The body is written with `builder`; where it ends in another block than it began in, with a builder that stands
    there.
    """

    def __init__(self, function, builder, count, first):
        self.before, self.count = builder.block, count
        self.body, self.after = (function.append_basic_block(name) for name in ("body", "after"))
        builder.cbranch(builder.icmp_signed(">", count, i64_of(0)), self.body, self.after)
        self.builder, self.first = ir.IRBuilder(self.body), first
        self.k = self.builder.phi(I64)
        self.carried = [self.builder.phi(value.type) for value in first]

    def end(self, values):
        """Ends the body with the carried values of the next turn. Returns a builder behind the loop and their last
        ones."""
        k, end = self.builder.add(self.k, i64_of(1)), self.builder.block
        self.builder.cbranch(self.builder.icmp_signed("<", k, self.count), self.body, self.after)
        after = ir.IRBuilder(self.after)
        last = [after.phi(value.type) for value in values]
        self.k.add_incoming(i64_of(0), self.before)
        self.k.add_incoming(k, end)
        for phi, out, first, value in zip(self.carried, last, self.first, values):
            for target in (phi, out):
                target.add_incoming(first, self.before)
                target.add_incoming(value, end)
        return after, last
