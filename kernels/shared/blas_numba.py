"""Matrix products inside compiled code on machines that have no tiles of ours: the sgemm of the BLAS that NumPy has
loaded.

It must run with one thread (`one_thread`): the compiled functions around it have the others.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from bdiff_np.kernels.shared.compiled_numba import cfunc

ROWS = 101  # CblasRowMajor
PLAIN, TRANSPOSED = 111, 112
SGEMM = "bdiff_np_sgemm"  # its name in compiled code, which is kept longer than its address
# a, a_row, a_k, b, b_row, turned, start, start_row, c, c_row, M, N, K, panels
ARGUMENTS = (types.int64,) * 14
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


@lru_cache(1)
def product() -> int | None:
    """Address of dense/product_numba.py's product by sgemm, for machines that have no tiles. None as `sgemm`."""
    if (address := sgemm()) is None:
        return None
    binding.add_symbol(SGEMM, address)
    return cfunc(types.void(*ARGUMENTS), error_model="numpy")(_product).address


def _product(a, a_row, a_k, b, b_row, turned, start, start_row, c, c_row, M, N, K, panels):
    """C = start + A B; product_numba.py says what the arguments are."""
    if start != 0 and start != c:
        for i in range(M):
            _copy(c + 4 * i * c_row, start + 4 * i * start_row, 4 * N)
    flipped = a_row == 1 and (a_k != 1 or K > 1)
    left, right = TRANSPOSED if flipped else PLAIN, TRANSPOSED if turned != 0 else PLAIN
    beta = np.float32(0 if start == 0 else 1)
    a_far = a_k if flipped else a_row
    if a_row == 0:  # a sum of rows: the one entry of A stands for all of them
        for k in range(K):
            _sgemm(PLAIN, right, M, N, 1, a, 1, b + 4 * k * b_row, b_row, beta if k == 0 else np.float32(1), c, c_row)
    else:
        _sgemm(left, right, M, N, K, a, a_far, b, b_row, beta, c, c_row)


@intrinsic
def _copy(typing, to, source, count):
    """Bytes from one address to another."""

    def codegen(context, builder, signature, arguments):
        pointer = ir.IntType(8).as_pointer()
        to, source = (builder.inttoptr(x, pointer) for x in arguments[:2])
        cgutils.raw_memcpy(builder, to, source, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def _sgemm(typing, left, right, m, n, k, a, lda, b, ldb, beta, c, ldc):
    """A call of cblas_sgemm with alpha = 1. Matrices are addresses.

    Sizes are passed in 64 bits, which a BLAS of 32-bit sizes reads right as well: in registers the upper half is not
    looked at, and on the stack each lies in a slot of 8 bytes or, with Apple, before a pointer or nothing.
    """
    i64, f32 = types.int64, types.float32

    def codegen(context, builder, signature, arguments):
        word, number, pointer, enum = ir.IntType(64), ir.FloatType(), ir.IntType(8).as_pointer(), ir.IntType(32)
        kinds = [enum, enum, enum, word, word, word, number, pointer, word, pointer, word, number, pointer, word]
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), kinds), SGEMM)
        left, right, m, n, k, a, lda, b, ldb, beta, c, ldc = arguments
        a, b, c = (builder.inttoptr(x, pointer) for x in (a, b, c))
        left, right = builder.trunc(left, enum), builder.trunc(right, enum)
        builder.call(
            function,
            [ir.Constant(enum, ROWS), left, right, m, n, k, ir.Constant(number, 1.0), a, lda, b, ldb, beta, c, ldc],
        )
        return context.get_dummy_value()

    return types.void(i64, i64, i64, i64, i64, i64, i64, i64, i64, f32, i64, i64), codegen
