"""exp and log for loops that must vectorise: no call into a library, no branch. In float32 polynomials, in float64 the
library's own.

The polynomials are those of Cephes (S. Moshier, expf.c and logf.c): errors below 2 units in the last place over the
whole range.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from bdiff_np.kernels.shared.compiled_numba import njit

f32 = np.float32
LOG2E, LN2_HIGH, LN2_LOW = f32(1.44269504088896341), f32(0.693359375), f32(-2.12194440e-4)
SHIFT = f32(12582912.0)  # 1.5 * 2**23: to add it rounds to an integer, which then stands in the lowest bits
LOWEST, HIGHEST = f32(-87.3), f32(88.3)  # beyond, 2**n is no normal float32
E = [
    f32(c)
    for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
]
E0, E1, E2, E3, E4, E5 = E
L = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
)
L0, L1, L2, L3, L4, L5, L6, L7 = (f32(c) for c in L)
L8 = f32(3.3333331174e-1)
ONE, HALF, ROOT_HALF = f32(1), f32(0.5), f32(0.707106781186547524)


@intrinsic
def _two_to(typing, shifted):
    """2**n, for n + SHIFT."""

    def codegen(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], ir.IntType(32))
        exponent = builder.add(
            builder.shl(bits, ir.Constant(ir.IntType(32), 23)), ir.Constant(ir.IntType(32), 127 << 23)
        )
        return builder.bitcast(exponent, ir.FloatType())

    return types.float32(types.float32), codegen


@intrinsic
def _mantissa(typing, x):
    """m in [1/2, 1) with x = m 2**e."""

    def codegen(context, builder, signature, arguments):
        bits = builder.and_(builder.bitcast(arguments[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 0x007FFFFF))
        return builder.bitcast(builder.or_(bits, ir.Constant(ir.IntType(32), 0x3F000000)), ir.FloatType())

    return types.float32(types.float32), codegen


@intrinsic
def _exponent(typing, x):
    """e with x = m 2**e, as a float."""

    def codegen(context, builder, signature, arguments):
        bits = builder.lshr(builder.bitcast(arguments[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 23))
        return builder.sitofp(builder.sub(bits, ir.Constant(ir.IntType(32), 126)), ir.FloatType())

    return types.float32(types.float32), codegen


def exp(x):
    """e**x for float32, held between e**-87.3 and e**88.3, or float64."""
    raise NotImplementedError("for use in compiled functions")


def log(x):
    """Natural logarithm of a positive, normal float32, or of a float64."""
    raise NotImplementedError("for use in compiled functions")


@overload(exp)
def _exp(x):
    if x == types.float32:
        return exp_polynomial
    return lambda x: math.exp(x)


@overload(log)
def _log(x):
    if x == types.float32:
        return log_polynomial
    return lambda x: math.log(x)


def exp_polynomial(x):
    x = min(max(x, LOWEST), HIGHEST)
    shifted = x * LOG2E + SHIFT
    n = shifted - SHIFT
    r = x - n * LN2_HIGH
    r = r - n * LN2_LOW
    p = ((((E0 * r + E1) * r + E2) * r + E3) * r + E4) * r + E5
    return (p * (r * r) + r + ONE) * _two_to(shifted)


def log_polynomial(x):
    m, e = _mantissa(x), _exponent(x)
    low = m < ROOT_HALF
    e = e - ONE if low else e
    m = m + m - ONE if low else m - ONE
    square = m * m
    p = (((((((L0 * m + L1) * m + L2) * m + L3) * m + L4) * m + L5) * m + L6) * m + L7) * m + L8
    y = p * m * square + e * LN2_LOW - HALF * square
    return m + y + e * LN2_HIGH


@njit
def exp_of(x, out):
    """exp of each entry: the function above, to be called from Python."""
    for i in range(x.size):
        out[i] = exp(x[i])


@njit
def log_of(x, out):
    """log of each entry: the function above, to be called from Python."""
    for i in range(x.size):
        out[i] = log(x[i])
