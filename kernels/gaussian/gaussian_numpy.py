"""The kernels of Gaussian diffusion on NumPy arrays, by the tables of gaussian_tables.py."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bdiff_np import diffusion, rng
from bdiff_np.diffusion import gaussian
from bdiff_np.diffusion.gaussian import Chain
from bdiff_np.kernels.gaussian.gaussian_tables import Tables, tables
from bdiff_np.rng import Key


def read(chain: Chain, x_t, t, features, weight=None):
    """Task.read, as gaussian.read, in the dtype of the features."""
    x = np.asarray(x_t, features.dtype)
    if chain.waves.size:
        waves, seen = _seen(chain, features.dtype)
        phase, seen = features.dtype.type(2 * np.pi) * (x @ waves), seen[t]
        x = np.concatenate([x, seen * np.cos(phase), seen * np.sin(phase)], axis=1)
    return x if weight is None else np.concatenate([x, x * weight[t, None]], axis=1), features[t]


@lru_cache(4)
def _seen(chain: Chain, dtype) -> tuple[np.ndarray, np.ndarray]:
    """The waves (D, n), and how much of each is left at a t as the network gets it, (T + 1, n)."""
    return chain.waves.astype(dtype), gaussian.seen(chain).astype(dtype)


def deviates(key: Key, rows: int, D: int, first_row: int = 0, dtype=np.float32) -> np.ndarray:
    """rng.normals, (rows, D), worked out in `dtype`."""
    w, C = rng.words(key, rows, D + D % 2, first_row), np.dtype(dtype).type
    u = (2 * (w[:, ::2] >> np.uint32(9)) + np.uint32(1)).astype(C) * C(2.0**-24)
    r, a = np.sqrt(C(-2) * np.log(u)), w[:, 1::2].astype(C) * C(2 * np.pi / 2**32)
    z = np.empty((rows, w.shape[1]), C)
    np.multiply(r, np.cos(a), out=z[:, ::2])
    np.multiply(r, np.sin(a), out=z[:, 1::2])
    return z[:, :D]


class Kernels(diffusion.Kernels):
    """The kernels for one chain, one meaning of the network's output and one kind of variance (gaussian.reverse). x_t
    is of `dtype`. first : factor on the gradient at t = 1; None for gaussian.first_weight"""

    def __init__(
        self, chain: Chain, predict: str = "v", variance: str = "learned", first: float | None = 1.0, dtype=np.float32
    ):
        first = gaussian.first_weight(chain) if first is None else first
        self.chain, self.dtype, self.learned = chain, np.dtype(dtype), variance == "learned"
        self.wide = tables(chain, predict, variance, first)  # float64
        self.tables = Tables(*(column.astype(dtype) for column in self.wide))
        self.root = self.dtype.type(chain.time[-1] ** -0.5)

    def standard(self, x0: np.ndarray) -> np.ndarray:
        """u, in the data's own precision until it is near 0."""
        return ((x0 - self.chain.mean) / self.chain.scale).astype(self.dtype)

    def q_sample(self, x0, t, key: Key, first_row: int = 0):
        noise = deviates(key, len(x0), x0.shape[1], first_row, self.dtype)
        return self.tables.s[t, None] * self.standard(x0) + self.tables.n[t, None] * noise

    def kl_grad(self, out, x0, x_t, t, value: bool = True):
        columns = (column[t, None] for column in self.tables)
        D, (s, _, g, h, _, _, k, rho, _, beta, _, w, _, weight) = x0.shape[1], columns
        x_t, u = x_t.astype(self.dtype, copy=False), self.standard(x0)
        off = out[:, :D] - g * (x_t - s * u) - h * u
        if self.learned:
            w = self._w(out[:, D:], beta)
        square = rho + k * off**2
        dout = np.empty(out.shape, self.dtype)
        np.multiply(weight * k * w, off, out=dout[:, :D])
        if self.learned:
            np.multiply((w - beta) * (1 / w - square), weight * (0.5 * self.root), out=dout[:, D:])
        if not value:
            return None, dout
        return self._value(out, x0, x_t, t), dout

    def _value(self, out, x0, x_t, t) -> np.ndarray:
        """The KL with its control variate, in float64: both are small differences where beta_1 is."""
        D, (s, _, g, h, _, _, k, rho, offset, beta, _, w, _, _) = x0.shape[1], (column[t, None] for column in self.wide)
        u, out = gaussian.standard(self.chain, x0), out.astype(np.float64)
        off = out[:, :D] - g * (x_t - s * u) - h * u
        if self.learned:
            w = beta + (1 - beta) * np.exp(-float(self.root) * out[:, D:])
        kl = ((rho + k * off**2) * w - np.log(w) - offset - 1).sum(1) / 2
        return kl + gaussian.control(self.chain, x0, x_t.astype(np.float64), t)

    def p_sample(self, out, x_t, t, key: Key, first_row: int = 0):
        D, (_, _, _, _, a, c, _, _, _, beta, sigma, w, _, _) = x_t.shape[1], (column[t, None] for column in self.tables)
        if self.learned:
            w = self._w(out[:, D:], beta)
        noise = deviates(key, len(x_t), D, first_row, self.dtype)
        return a * x_t + c * out[:, :D] + sigma / np.sqrt(w) * noise

    def prior(self, rows: int, D: int, key: Key, first_row: int = 0):
        return deviates(key, rows, D, first_row, self.dtype)

    def _w(self, z: np.ndarray, beta: np.ndarray) -> np.ndarray:
        """beta / sigma_p^2 of a learned variance."""
        return beta + (1 - beta) * np.exp(-self.root * z)
