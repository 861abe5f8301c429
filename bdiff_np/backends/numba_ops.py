"""The shared operations on Numba: NumPy's arrays and matrix products, everything between them compiled into single passes.

The first use of an operation on a machine compiles it, in about a second each; the result is kept on disk.
"""

from __future__ import annotations

import numpy as np

from bdiff_np.backends.numpy_ops import LAYER_NORM_EPS, asarray, matmul, threads, to_host, zeros
from bdiff_np.errors import InputError

try:
    from bdiff_np.kernels import dense_numba as dense
except ImportError as fault:
    raise InputError(f"--backend numba: Numba cannot be imported ({fault}); pip install numba, or take --backend numpy") from fault

name = "numba"

__all__ = [
    "activate", "activate_backward", "adamw", "asarray", "keep_mask", "layer_norm", "layer_norm_backward", "matmul", "norm", "threads", "to_host",
    "zeros",
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
        dense.act(dense.CODES[activation], y.reshape(-1), slope.reshape(-1))
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
    y, unit, rate = np.empty_like(x), np.empty_like(x), np.empty((len(x), 1), x.dtype)
    dense.layer_norm(x, gain, shift, LAYER_NORM_EPS, (y, unit, rate))
    return y, (unit, rate, gain)


def layer_norm_backward(dy, tape, dgain, dshift) -> np.ndarray:
    dx = np.empty_like(dy)
    dense.layer_norm_backward(dy, tape, (dx, dgain, dshift))
    return dx


def keep_mask(words, rate, dtype) -> np.ndarray:
    mask, kept = np.empty(words.shape, dtype), np.dtype(dtype).type(1 / (1 - rate))
    dense.keep_mask(np.ascontiguousarray(words).reshape(-1), np.uint32(min(round(rate * 2**32), 2**32 - 1)), kept, mask.reshape(-1))
    return mask


def norm(flat) -> float:
    return float(dense.square_sum(flat) ** 0.5)


def adamw(params, grads, m, v, ema, decayed, *, lr, scale, beta1, beta2, eps, weight_decay, ema_decay, step) -> None:
    rates = dense.rates(
        lr=lr, scale=scale, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, ema_decay=ema_decay, step=step
    )
    dense.adamw((params, grads, m, v, ema), decayed, dense.Rates(*map(params.dtype.type, rates)))
