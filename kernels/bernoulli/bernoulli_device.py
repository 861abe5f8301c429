"""The kernels of Bernoulli diffusion on a GPU, whichever technology launches them: q_sample, kl_grad, p_sample.

Arrays are on the device, results too; what comes from the host is moved there first. The value of the KL is of the
logits' dtype, in float32 good to some 1e-6 of itself (bernoulli.cuh says how). Random words are those of rng.py, made
in the kernels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from bdiff_np.diffusion.bernoulli import Chain
from bdiff_np.kernels.bernoulli.bernoulli_codes import PER_BIT, SKIP, X_PREV
from bdiff_np.kernels.bernoulli.bernoulli_tables import tables
from bdiff_np.kernels.training.hooks_device import FamilyKernels
from bdiff_np.rng import Key


class Law(NamedTuple):
    """A chain and the meaning of the network's output, as kernels read them."""

    noise: Any  # beta_bar (T + 1,), then pi (1,) or (D,), in units of 2**-32, uint64
    # C: one pi, (2 T + 2, 6), columns of a bit that shows v at t in row 2 t + v; a pi per bit, (T + 1, 6) steps, then
    # (2, D) pi
    table: Any
    form: int  # PER_BIT, X_PREV, SKIP
    T: int
    bce: float  # weight of the cross entropy of x_0 in the gradient
    C: np.dtype  # of logits and gradients
    structs: dict[int, np.ndarray]  # the same as structs of bernoulli.cuh, by D

    @property
    def per_bit(self) -> int:
        return self.form & PER_BIT


def law(arrays, chain: Chain, predict: str, skip: bool, bce_weight: float, dtype) -> Law:
    """The tables of a chain on the device. arrays : arrays_*.py"""
    host, per_bit = tables(chain, predict), chain.pi.ndim > 0
    table = np.concatenate([host.steps.ravel(), host.pi.ravel()]) if per_bit else host.table.ravel()
    form = PER_BIT * per_bit + X_PREV * (predict == "x_prev") + SKIP * skip
    noise = np.concatenate([host.lost, host.pi_words])
    return Law(
        arrays.asarray(noise),
        arrays.asarray(table.astype(dtype)),
        form,
        chain.T,
        bce_weight / chain.T,
        np.dtype(dtype),
        {},
    )


def read(arrays, read_into, x_t, t, features, weight=None) -> tuple[Any, Any]:
    """As bernoulli_numpy.read. arrays, read_into : module arrays_* and the launch of one technology"""
    (B, D), C = x_t.shape, features.dtype
    x, f = arrays.empty((B, D if weight is None else 2 * D), C), arrays.empty((B, features.shape[1]), C)
    read_into(arrays.asarray(x_t), arrays.asarray(t, np.int64), features, weight, x, f)
    return x, f


class DeviceKernels(FamilyKernels):
    """The kernels for one chain and one meaning of the network's output; arguments and shapes as in
    bernoulli_numpy.Kernels, arrays on the device.

    A technology fills in two modules: `arrays`, how arrays are made, and `launch`, its launches.
    """

    arrays: Any

    def __init__(self, chain: Chain, predict: str = "x0", skip: bool = True, bce_weight: float = 0.0, dtype=np.float32):
        self.chain, self.predict, self.skip, self.dtype = chain, predict, skip, np.dtype(dtype)
        self.law = law(self.arrays, chain, predict, skip, bce_weight, dtype)
        self.clock = self.arrays.zeros(2, np.uint64)  # stands still
        self.flags = self.arrays.asarray(np.array([0, 1], np.uint8))
        self._zeros: dict[int, Any] = {}

    def q_sample(self, x0, t, key: Key, first_row: int = 0):
        x0, x_t = self._bits(x0), self.arrays.empty(x0.shape, np.uint8)
        self.launch.q_sample(self.law, x0, self._steps(t), key, first_row, x_t)
        return x_t

    def kl_grad(self, logits, x0, x_t, t, value: bool = True):
        """As bernoulli_numpy.Kernels.kl_grad; kl (B,) is of the kernels' dtype."""
        B, D = logits.shape
        kl, dlogits = self.arrays.empty(B, self.dtype), self.arrays.empty((B, D), self.dtype)
        bits, logged = (self._bits(x0), self._bits(x_t)), self.flags[int(value) :]
        self.launch.kl_grad(
            self.law, self.arrays.asarray(logits), self.zeros(D), *bits, self._steps(t), logged, self.clock, kl, dlogits
        )
        return kl if value else None, dlogits

    def p_flip(self, logits, x_t, t):
        p = self.arrays.empty(logits.shape, self.dtype)
        self.launch.p_flip(self.law, self.arrays.asarray(logits), self._bits(x_t), self._steps(t), p)
        return p

    def p_sample(self, logits, x_t, t, key: Key, first_row: int = 0):
        logits, x_t, x_s = self.arrays.asarray(logits), self._bits(x_t), self.arrays.empty(x_t.shape, np.uint8)
        self.launch.p_sample(self.law, logits, self.zeros(x_t.shape[1]), x_t, self._steps(t), None, key, first_row, x_s)
        return x_s

    def prior(self, rows: int, D: int, key: Key, first_row: int = 0):
        x = self.arrays.empty((rows, D), np.uint8)
        if rows:
            self.launch.prior(self.law, key, first_row, x)
        return x

    def zeros(self, D: int):
        """A bias of nothing, (D,)."""
        if D not in self._zeros:
            self._zeros[D] = self.arrays.zeros(D, self.dtype)
        return self._zeros[D]

    def _bits(self, x):
        """(B, D) uint8 on the device."""
        return self.arrays.asarray(x if self.arrays.is_there(x) else np.asarray(x, np.uint8))

    def _steps(self, t):
        """(B,) int64 on the device."""
        return self.arrays.asarray(t if self.arrays.is_there(t) else np.asarray(t, np.int64))
