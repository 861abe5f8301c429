"""The shared operations on Numba: NumPy's arrays and matrix products, everything between them compiled into single
passes.

The first use of an operation on a machine compiles it, in about a second each; the result is kept on disk.
"""

from __future__ import annotations

import numpy as np

from bdiff_np.backends import numpy_ops
from bdiff_np.backends.numba_backend import BACKEND
from bdiff_np.backends.numpy_ops import (
    allow_tf32,
    asarray,
    check_net,
    empty,
    matmul,
    reserve,
    threads,
    to_host,
    versions,
    wait,
    where,
    zeros,
)  # fmt: skip
from bdiff_np.errors import Unavailable
from bdiff_np.kernels.dense.dense_codes import CODES, LAYER_NORM_EPS, Rates, drop_threshold, rates

if (fault := BACKEND.fault()) is not None:
    raise fault
try:
    from numba import config

    from bdiff_np.kernels.dense import dense_numba as dense
    from bdiff_np.kernels.shared import philox_numba
except ImportError as reason:
    raise Unavailable(
        "numba", f"Numba cannot be imported ({reason})", "pip install numba, or take --backend numpy"
    ) from reason

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise Unavailable("numba", "NUMBA_DISABLE_JIT is set, and nothing is compiled", "unset it, or take --backend numpy")

name, on_device = "numba", False

__all__ = [
    "activate", "activate_backward", "adamw", "allow_tf32", "asarray", "check_net", "empty", "keep_mask", "layer_norm",
    "layer_norm_backward", "matmul", "norm", "reserve", "threads", "to_host", "versions", "wait", "where", "zeros",
]  # fmt: skip


def activate(z, bias, activation, film=None) -> tuple[np.ndarray, tuple]:
    u, y = z.copy(), np.empty_like(z)
    if film is None:
        dense.affine(u, bias, y)
    else:
        dense.film(u, bias, film, y)
    slope = None
    if activation is not None:
        slope = np.empty_like(y)
        dense.act(CODES[activation], y.reshape(-1), slope.reshape(-1))
    return y, (u, film, slope)


def activate_backward(dy, tape, dbias) -> tuple[np.ndarray, np.ndarray | None]:
    u, film, slope = tape
    dz, dfilm = dy.copy(), None
    if film is not None:
        dfilm = film.copy()
        dense.film_backward(dz, np.ones_like(u) if slope is None else slope, u, dfilm)
    elif slope is not None:
        dense.scale_by(dz, slope)
    dense.column_sums(dz, dbias)
    return dz, dfilm


def layer_norm(x, gain, shift) -> tuple[np.ndarray, tuple]:
    y, unit, rstd = np.empty_like(x), np.empty_like(x), np.empty((len(x), 1), x.dtype)
    dense.layer_norm(x, gain, shift, LAYER_NORM_EPS, (y, unit, rstd))
    return y, (unit, rstd, gain)


def layer_norm_backward(dy, tape, dgain, dshift) -> np.ndarray:
    dx = np.empty_like(dy)
    dense.layer_norm_backward(dy, tape, (dx, dgain, dshift))
    return dx


def keep_mask(key, shape, rate, dtype) -> np.ndarray:
    mask, kept = np.empty(shape, dtype), np.dtype(dtype).type(1 / (1 - rate))
    dense.keep_mask(philox_numba.noise(key, len(mask), -(-shape[1] // 16)), np.uint64(drop_threshold(rate)), kept, mask)
    return mask


def norm(flat, halted=None) -> float:
    square = dense.square_sum(flat)
    length = square**0.5 if square <= float(np.finfo(flat.dtype).max) else float("inf")
    return numpy_ops.finite_or_halted(length, halted)


def adamw(params, grads, m, v, ema, decayed, norm, *, clip, scale, **numbers) -> None:
    if np.isfinite(norm * scale):
        ready = rates(scale=numpy_ops.clipped(scale, norm, clip), **numbers)
        dense.adamw((params, grads, m, v, ema), decayed, Rates(*map(params.dtype.type, ready)))
