"""The shared operations on a GPU, whichever technology launches the kernels: new arrays around launches into arrays.

Nothing here waits for the GPU: what an operation gives is there when it is read, by `to_host` or `float`.
"""

from __future__ import annotations

from contextlib import contextmanager
from weakref import WeakSet

import numpy as np

from bdiff_np.backends import gpu
from bdiff_np.backends.numpy_ops import LAYER_NORM_EPS
from bdiff_np.errors import Unavailable
from bdiff_np.kernels.dense.dense_codes import rates
from bdiff_np.kernels.shared.cuda_grid import Parts, pieces, room
from bdiff_np.params import Params


class Operations:
    """arrays, dense, family : modules arrays_*, dense_* and <family>_* of one technology. Arguments and results: numpy_ops."""

    def __init__(self, arrays, dense, family):
        self.arrays, self.dense, self.family = arrays, dense, family

    def resident(self, rows) -> Resident:
        return Resident(self.arrays, self.family, rows)

    def read(self, x_t, t, features, odds):
        (B, D), C, new = x_t.shape, features.dtype, self.arrays.empty
        x, f = new((B, D if odds is None else 2 * D), C), new((B, features.shape[1]), C)
        self.dense.read(self.arrays.asarray(x_t), self.arrays.asarray(t, np.int64), features, odds, x, f)
        return x, f

    def activate(self, z, bias, activation, film=None):
        y = self.arrays.empty(z.shape, z.dtype)
        self.dense.activate(z, bias, film, activation, y)
        return y, (z, bias, film, activation)

    def activate_backward(self, dy, tape, dbias):
        z, bias, film, activation = tape
        dz, sums = self.arrays.empty(z.shape, z.dtype), room(self.arrays, *z.shape, z.dtype)
        dfilm = None if film is None else self.arrays.empty(film.shape, film.dtype)
        self.dense.activate_backward(self.arrays.asarray(dy), z, bias, film, activation, dz, dfilm, sums)
        self._total(sums, dbias)
        return dz, dfilm

    def layer_norm(self, x, gain, shift):
        y, moments = self.arrays.empty(x.shape, x.dtype), self.arrays.empty((len(x), 2), x.dtype)
        self.dense.layer_norm(x, gain, shift, LAYER_NORM_EPS, y, moments)
        return y, (x, gain, moments)

    def layer_norm_backward(self, dy, tape, dgain, dshift):
        x, gain, moments = tape
        B, H = x.shape
        dx, sums, both = self.arrays.empty(x.shape, x.dtype), room(self.arrays, B, 2 * H, x.dtype), self.arrays.empty(2 * H, x.dtype)
        self.dense.layer_norm_backward(self.arrays.asarray(dy), x, gain, moments, dx, sums)
        self._total(sums, both)
        dgain[:], dshift[:] = both[:H], both[H:]
        return dx

    def keep_mask(self, key, shape, rate, dtype):
        mask = self.arrays.empty(shape, dtype)
        self.dense.keep_mask(key, min(round(rate * 2**32), 2**32 - 1), 1 / (1 - rate), mask)
        return mask

    def norm(self, flat, halted=None):
        squares, found, zeros = self.arrays.empty(pieces(flat.size), flat.dtype), self.arrays.empty(1, flat.dtype), self.arrays.zeros
        self.dense.sum_parts(Parts(flat, 1, flat.size), None, squares)
        self.dense.norm(squares, found, zeros(2, np.uint64), zeros(1, np.int32) if halted is None else halted)
        return found

    def adamw(self, params, grads, m, v, ema, decayed, norm, *, clip, **numbers) -> None:
        table, decayed = self.arrays.asarray(np.array([rates(**numbers)], params.dtype)), self.arrays.asarray(decayed, np.uint8)
        self.dense.adamw(params, grads, m, v, ema, decayed, norm, table, clip, self.arrays.zeros(2, np.uint64))

    def _total(self, sums: Parts, out) -> None:
        self.dense.sum_parts(sums, out, self.arrays.empty(pieces(sums.stride), sums.flat.dtype))


class Resident:
    """Rows of data that lie packed on the GPU, (N, ceil(D / 8)) uint8, and are unpacked there."""

    def __init__(self, arrays, family, rows):
        self.arrays, self.family, self.packed, self.D = arrays, family, arrays.asarray(rows.packed), rows.D

    def __len__(self) -> int:
        return len(self.packed)

    def take(self, index: np.ndarray):
        """Rows index (B,), as (B, D) uint8."""
        x = self.arrays.empty((len(index), self.D), np.uint8)
        self.family.unpack(self.packed, self.arrays.asarray(np.asarray(index, np.int32)), x)
        return x


tried: WeakSet = WeakSet()  # back ends that were tried out and work


def try_out(ops) -> None:
    """A product and a kernel of our own, once for each back end. Raises Unavailable with what a library, a compiler or the driver said."""
    if ops in tried:
        return
    try:
        check(ops)
        tried.add(ops)
    except MemoryError as fault:
        cure = "nvidia-smi shows who has it; or take the back end numba"
        raise Unavailable(ops.name, f"the GPU's memory is full ({_first(fault)})", cure) from fault
    except Exception as fault:  # of any kind
        raise Unavailable(ops.name, f"it fails: {_first(fault)}", gpu.reinstall(ops.name)) from fault


def check(ops) -> None:
    """A product of two matrices and the length of a buffer that was filled, on any back end. Raises ArithmeticError for a wrong result."""
    a = np.array([[3, 4], [0, 1]], np.float32)
    filled = Params(ops, {"a": (2, 2)}).fill({"a": a})
    product = ops.to_host(ops.matmul(filled["a"], ops.asarray(np.ascontiguousarray(a.T))))
    length = np.asarray(ops.to_host(ops.norm(filled.flat))).item()
    if product.tolist() != [[25, 4], [4, 1]] or abs(length - 26**0.5) > 1e-5:
        raise ArithmeticError(f"a product is {product.tolist()}, not [[25, 4], [4, 1]], or a length {length}, not the root of 26")


def _first(fault: Exception) -> str:
    """The first line of what an exception says that says something, a heading with the line below it."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()] or [type(fault).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


@contextmanager
def threads(width: int):
    """The GPU has its own."""
    yield
