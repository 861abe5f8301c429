"""Matrix products of float32 inside compiled code, by tiles (tile_numba.py), called by their address.

Where B is large, panels of it are copied to a room first, one tile wide and CHUNK long, so that they are read in order
and from the nearest cache. The sum over k has one order, which K alone decides: a row's result does not depend on the
rows beside it, nor on how many there are.

By its address, because Numba compiles what a function calls once more into each of its callers.
"""

from __future__ import annotations

from functools import lru_cache

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from bdiff_np.kernels.dense.tile_numba import HEIGHT, PANEL, run_copy, run_tile, run_turn
from bdiff_np.kernels.shared import blas_numba
from bdiff_np.kernels.shared.blas_numba import ARGUMENTS
from bdiff_np.kernels.shared.compiled_numba import cfunc, njit
from bdiff_np.kernels.shared.vectors_numba import KIND, LANES

CHUNK = 128  # of k: a panel is 32 KiB, and stays in the nearest cache
BLOCK = 16 * HEIGHT  # rows of C after which the same panels begin anew, so that C is written in whole lines
DIRECT = 1 << 14  # floats of B up to which it is read where it lies
WHOLE = 1 << 18  # floats of B up to which all its panels are kept, so that C is written once


def exists() -> bool:
    """Whether this machine has a product; asked without compiling it."""
    return KIND is not None or blas_numba.sgemm() is not None


@lru_cache(1)
def address() -> int | None:
    """Address of the product that this machine has: the tiles', or that of BLAS. None where there is neither."""
    return tiles() if KIND is not None else blas_numba.product()


@lru_cache(1)
def tiles() -> int:
    """Address of the product by tiles."""
    return cfunc(types.void(*ARGUMENTS), error_model="numpy")(_product).address


def room(K: int, N: int) -> int:
    """Floats of room that products with B (K, N) take for its panels."""
    row = -(-N // PANEL) * PANEL
    return max(min(K, CHUNK) * row, min(K * row, 2 * WHOLE))


def _product(a, a_row, a_k, b, b_row, turned, start, start_row, c, c_row, M, N, K, panels):
    """C = start + A B. Matrices are addresses; distances count floats.

    a (M, K) : rows lie a_row apart, and entries of a row a_k. b (K, N), or (N, K) if `turned`. start (M, N), or null
    panels : (room(K, N),)
    """
    direct = turned == 0 and (K * N <= DIRECT or M <= 4 * HEIGHT)
    chunks, row = (K + CHUNK - 1) // CHUNK, (N + PANEL - 1) // PANEL * PANEL
    whole = K * N <= WHOLE
    for outer in range(1 if whole else chunks):
        for i0 in range(0, M, BLOCK):
            for j in range(0, N, PANEL):
                width = min(PANEL, N - j)
                wide = (width + LANES - 1) // LANES
                tail = width - LANES * (wide - 1)
                for inner in range(chunks if whole else 1):
                    chunk = outer + inner
                    k0 = K * chunk // chunks
                    length = K * (chunk + 1) // chunks - k0
                    panel, panel_k = b + 4 * (k0 * b_row + j), b_row
                    if not direct:
                        room = panels + 4 * ((k0 * row if whole else 0) + j * length)
                        if i0 == 0 and turned != 0:
                            run_turn(b + 4 * (j * b_row + k0), b_row, width, room, length)
                        elif i0 == 0:
                            run_copy(wide, panel, b_row, room, length, tail)
                        panel, panel_k = room, PANEL
                    first, first_row = (start, start_row) if chunk == 0 else (c, c_row)
                    for i in range(i0, min(i0 + BLOCK, M), HEIGHT):
                        begin = first + 4 * (i * first_row + j) if first != 0 else 0
                        run_tile(
                            min(HEIGHT, M - i), wide, a + 4 * (i * a_row + k0 * a_k), a_row, a_k, panel, panel_k,
                            begin, first_row, c + 4 * (i * c_row + j), c_row, length, tail,
                        )  # fmt: skip


@intrinsic
def _call(typing, address, *arguments):
    """The product at an address."""

    def codegen(context, builder, signature, values):
        values = [values[0], *(builder.extract_value(values[1], k) for k in range(len(ARGUMENTS)))]
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * len(ARGUMENTS))
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, len(ARGUMENTS))), codegen


@njit(inline="always")
def _run(address, a, b, turned, start, c, panels):
    """a : its address, distances of rows and of entries. start : its address and the distance of its rows"""
    K = b.shape[1] if turned else b.shape[0]
    _call(
        address, a[0], a[1], a[2], b.ctypes.data, b.strides[0] // 4, 1 if turned else 0, start[0], start[1],
        c.ctypes.data, c.strides[0] // 4, c.shape[0], c.shape[1], K, panels.ctypes.data,
    )  # fmt: skip


@njit
def multiply(address, a, b, c, panels):
    """c = a @ b for float32 matrices whose rows are contiguous. address : address(). panels : (room(K, N),) float32"""
    _run(address, (a.ctypes.data, a.strides[0] // 4, 1), b, False, (0, 0), c, panels)


@njit
def multiply_bias(address, a, b, bias, c, panels):
    """c = a @ b + bias, (N,), in each row."""
    _run(address, (a.ctypes.data, a.strides[0] // 4, 1), b, False, (bias.ctypes.data, 0), c, panels)


@njit
def multiply_add(address, a, b, c, panels):
    """c += a @ b"""
    _run(address, (a.ctypes.data, a.strides[0] // 4, 1), b, False, (c.ctypes.data, c.strides[0] // 4), c, panels)


@njit
def multiply_right(address, a, b, c, panels):
    """c = a @ b.T"""
    _run(address, (a.ctypes.data, a.strides[0] // 4, 1), b, True, (0, 0), c, panels)


@njit
def multiply_left(address, a, b, c, add, panels):
    """c = a.T @ b, or c += a.T @ b if `add`."""
    start = (c.ctypes.data, c.strides[0] // 4) if add else (0, 0)
    _run(address, (a.ctypes.data, 1, a.strides[0] // 4), b, False, start, c, panels)


@njit
def sum_rows(address, one, b, c, add, panels):
    """c (1, N) = the sum of the rows of b, or c += that sum if `add`. one : (1,) float32, a 1"""
    start = (c.ctypes.data, c.strides[0] // 4) if add else (0, 0)
    _run(address, (one.ctypes.data, 0, 0), b, False, start, c, panels)
