"""The shared operations on a GPU, whichever technology launches the kernels: new arrays around launches into arrays.

Nothing here waits for the GPU: what an operation gives is there when it is read, by `to_host` or `float`.
"""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

from bdiff_np.kernels.dense.dense_codes import LAYER_NORM_EPS, drop_threshold, rates
from bdiff_np.kernels.shared.cuda_grid import Parts, make_parts, pieces


class Operations:
    """arrays, dense : modules arrays_* and dense_* of one technology. Arguments and results: numpy_ops."""

    def __init__(self, arrays, dense):
        self.arrays, self.dense = arrays, dense

    def activate(self, z, bias, activation, film=None):
        y = self.arrays.empty(z.shape, z.dtype)
        self.dense.activate(z, bias, film, activation, y)
        return y, (z, bias, film, activation)

    def activate_backward(self, dy, tape, dbias):
        z, bias, film, activation = tape
        dz, sums = self.arrays.empty(z.shape, z.dtype), make_parts(self.arrays, *z.shape, z.dtype)
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
        dx, sums, both = (
            self.arrays.empty(x.shape, x.dtype),
            make_parts(self.arrays, B, 2 * H, x.dtype),
            self.arrays.empty(2 * H, x.dtype),
        )
        self.dense.layer_norm_backward(self.arrays.asarray(dy), x, gain, moments, dx, sums)
        self._total(sums, both)
        dgain[:], dshift[:] = both[:H], both[H:]
        return dx

    def keep_mask(self, key, shape, rate, dtype):
        mask = self.arrays.empty(shape, dtype)
        self.dense.keep_mask(key, drop_threshold(rate), 1 / (1 - rate), mask)
        return mask

    def norm(self, flat, halted=None):
        squares, length, zeros = (
            self.arrays.empty(pieces(flat.size), flat.dtype),
            self.arrays.empty(1, flat.dtype),
            self.arrays.zeros,
        )
        self.dense.sum_parts(Parts(flat, 1, flat.size), None, squares)
        self.dense.norm(squares, length, zeros(2, np.uint64), zeros(1, np.int32) if halted is None else halted)
        return length

    def adamw(self, params, grads, m, v, ema, decayed, norm, *, clip, **numbers) -> None:
        table, decayed = (
            self.arrays.asarray(np.array([rates(**numbers)], params.dtype)),
            self.arrays.asarray(decayed, np.uint8),
        )
        self.dense.adamw(params, grads, m, v, ema, decayed, norm, table, clip, self.arrays.zeros(2, np.uint64))

    def _total(self, sums: Parts, out) -> None:
        self.dense.sum_parts(sums, out, self.arrays.empty(pieces(sums.stride), sums.flat.dtype))


@contextmanager
def threads(width: int):
    """The GPU has its own."""
    yield
