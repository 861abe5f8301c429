"""Matrix products inside compiled code: the sgemm of the BLAS that NumPy has loaded, called by its address.

It must run with one thread (`one_thread`): the compiled functions around it have the others.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bdiff_np.kernels.shared.compiled_numba import njit

ROWS = 101  # CblasRowMajor
PLAIN, TRANSPOSED = 111, 112
SYMBOLS = ("scipy_cblas_sgemm64_", "cblas_sgemm64_", "scipy_cblas_sgemm", "cblas_sgemm")


@lru_cache(1)
def _controller():
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def one_thread():
    """A context in which a matrix product stays on the thread that asks for it: the threads of a crew and those of BLAS
    must not meet."""
    return _controller().limit(limits=1)


@lru_cache(1)
def sgemm() -> int | None:
    """Address of cblas_sgemm. None where the loaded BLAS does not show it, or where each thread of ours would bring
    threads of OpenMP along."""
    for library in _controller().lib_controllers:
        if getattr(library, "threading_layer", "") == "openmp":
            continue
        loaded = ctypes.CDLL(library.filepath)
        for symbol in SYMBOLS:
            if hasattr(loaded, symbol):
                return ctypes.cast(getattr(loaded, symbol), ctypes.c_void_p).value
    return None


@intrinsic
def _call(typing, address, left, right, m, n, k, a, lda, b, ldb, beta, c, ldc):
    """A call of cblas_sgemm with alpha = 1. Matrices are addresses.

    Sizes are passed in 64 bits, which a BLAS of 32-bit sizes reads right as well: in registers the upper half is not
    looked at, and on the stack each lies in a slot of 8 bytes or, with Apple, before a pointer or nothing.
    """
    i64, f32 = types.int64, types.float32

    def codegen(context, builder, signature, arguments):
        word, number, pointer, enum = ir.IntType(64), ir.FloatType(), ir.IntType(8).as_pointer(), ir.IntType(32)
        kinds = [enum, enum, enum, word, word, word, number, pointer, word, pointer, word, number, pointer, word]
        function = builder.inttoptr(arguments[0], ir.FunctionType(ir.VoidType(), kinds).as_pointer())
        _, left, right, m, n, k, a, lda, b, ldb, beta, c, ldc = arguments
        a, b, c = (builder.inttoptr(x, pointer) for x in (a, b, c))
        left, right = builder.trunc(left, enum), builder.trunc(right, enum)
        builder.call(
            function,
            [ir.Constant(enum, ROWS), left, right, m, n, k, ir.Constant(number, 1.0), a, lda, b, ldb, beta, c, ldc],
        )
        return context.get_dummy_value()

    return types.void(i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, f32, i64, i64), codegen


@njit(inline="always")
def multiply(address, a, b, c, beta):
    """c = a @ b + beta c for float32 matrices whose rows are contiguous. address : sgemm()"""
    _call(
        address, PLAIN, PLAIN, c.shape[0], c.shape[1], a.shape[1],
        a.ctypes.data, a.strides[0] // 4, b.ctypes.data, b.strides[0] // 4, beta, c.ctypes.data, c.strides[0] // 4,
    )  # fmt: skip


@njit(inline="always")
def multiply_left(address, a, b, c, beta):
    """c = a.T @ b + beta c."""
    _call(
        address, TRANSPOSED, PLAIN, c.shape[0], c.shape[1], a.shape[0],
        a.ctypes.data, a.strides[0] // 4, b.ctypes.data, b.strides[0] // 4, beta, c.ctypes.data, c.strides[0] // 4,
    )  # fmt: skip


@njit(inline="always")
def multiply_right(address, a, b, c, beta):
    """c = a @ b.T + beta c."""
    _call(
        address, PLAIN, TRANSPOSED, c.shape[0], c.shape[1], a.shape[1],
        a.ctypes.data, a.strides[0] // 4, b.ctypes.data, b.strides[0] // 4, beta, c.ctypes.data, c.strides[0] // 4,
    )  # fmt: skip
