"""Backward of FiLM where rows share scale and shift, in one pass: sums over the rows stay in registers."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.shared.vectors_numba import (
    F32,
    FLOATS,
    I64,
    LANES,
    VECTOR,
    ZERO,
    Loop,
    declared,
    defined,
    i64_of,
    load,
    splat,
    store,
)


@njit
def film_runs_backward(dz, u, scale, shift, slope, runs):
    """dense_numba.film_act_backward where rows runs[k] .. runs[k + 1] - 1 share row k of scale and shift: dz holds dy
    on entry and the gradient of z = u on return; scale and shift are replaced by their gradients. Rows of all arrays
    are as wide, a multiple of LANES."""
    for k in range(runs.size - 1):
        first = 4 * runs[k] * dz.shape[1]
        _run_backward(
            dz.ctypes.data + first, u.ctypes.data + first, slope.ctypes.data + first, scale[k].ctypes.data,
            shift[k].ctypes.data, dz.shape[1], runs[k + 1] - runs[k],
        )  # fmt: skip


@intrinsic
def _run_backward(typing, dz, u, slope, scale, shift, width, rows):
    """One run; arrays are addresses of their first rows."""

    def codegen(context, builder, signature, arguments):
        pointers = [builder.inttoptr(x, FLOATS) for x in arguments[:5]]
        builder.call(_backward(builder.module), [*pointers, *arguments[5:]])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), codegen


def _backward(module):
    function, new = defined(module, f"bdiff_film_backward_{LANES}", [FLOATS] * 5 + [I64] * 2)
    if not new:
        return function
    dz, u, slope, scale, shift, width, rows = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    fma = declared(module, f"llvm.fma.v{LANES}f32", VECTOR, [VECTOR] * 3)
    columns = Loop(function, builder, builder.sdiv(width, i64_of(LANES)), [])
    at = columns.builder.mul(columns.k, i64_of(LANES))
    one = splat(columns.builder, ir.Constant(F32, 1.0), F32, LANES)
    factor = columns.builder.fadd(one, load(columns.builder, scale, at))
    loop = Loop(function, columns.builder, rows, [at, ZERO, ZERO])
    builder, (now, dscale, dshift) = loop.builder, loop.carried
    dv = builder.fmul(load(builder, dz, now), load(builder, slope, now))
    store(builder, builder.fmul(dv, factor), dz, now)
    dscale = builder.call(fma, [dv, load(builder, u, now), dscale])
    after, (_, dscale, dshift) = loop.end([builder.add(now, width), dscale, builder.fadd(dshift, dv)])
    store(after, dscale, scale, at)
    store(after, dshift, shift, at)
    columns.builder = after
    columns.end([])[0].ret_void()
    return function
