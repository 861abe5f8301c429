"""The kernels of Gaussian diffusion in compiled code, and what fills the fused step, the fused chain and the fused KL
with them.

The same operations as gaussian_numpy.py, element by element. Loops over elements are of flat arrays and without
branches, so that they run in vectors; the value of the KL is worked out in float64, and only where it is asked for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdiff_np.diffusion import gaussian
from bdiff_np.diffusion.gaussian import Chain
from bdiff_np.kernels.dense.dense_numba import FUSED
from bdiff_np.kernels.gaussian import gaussian_numpy
from bdiff_np.kernels.gaussian.gaussian_numpy import read
from bdiff_np.kernels.gaussian.gaussian_tables import Tables
from bdiff_np.kernels.shared import philox_numba
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.shared.float32_numba import exp, log
from bdiff_np.kernels.training import hooks_numba
from bdiff_np.rng import Key

__all__ = ["Kernels", "Law", "read"]
f32, u32 = np.float32, np.uint32
UNIT, MINUS_2 = f32(2.0**-24), f32(-2)
NINE, QUARTER, EIGHTH, REST, ONE_BIT = u32(9), u32(30), u32(1 << 29), u32((1 << 30) - 1), u32(1)
TURN = f32(np.pi / 2**31)  # of an angle in units of 2**-32 of a circle
# Cephes (S. Moshier, sinf.c): sine and cosine on -pi/4 .. pi/4
S0, S1, S2 = f32(-1.9515295891e-4), f32(8.3321608736e-3), f32(-1.6666654611e-1)
C0, C1, C2 = f32(2.443315711809948e-5), f32(-1.388731625493765e-3), f32(4.166664568298827e-2)
ONE, HALF, FOUR, FOURTH, WHOLE = f32(1), f32(0.5), f32(4), f32(0.25), f32(2 * np.pi)


S, N, G, H, A, C, K, RHO, OFFSET, BETA, SIGMA, W, K_V, WEIGHT = range(len(Tables._fields))  # columns of a law's tables


class Law(NamedTuple):
    """A chain and the meaning of the network's output, as compiled code reads them."""

    table: np.ndarray  # (T + 1, 14) float32, gaussian_tables.Tables
    wide: np.ndarray  # (T + 1, 14) float64, the same, for the value of the KL
    mean: np.ndarray  # (D,) float64, of the data
    scale: np.ndarray  # (D,) float64
    waves: np.ndarray  # (D, n) float32, what the network reads beside x_t (gaussian.read),
    seen: np.ndarray  # (T + 1, n) float32: and how much of it is left
    root: float  # float32, 1 / sqrt(T)
    learned: bool  # the variance is the network's


class Kernels(gaussian_numpy.Kernels):
    """As on NumPy, and what the fused paths ask for."""

    work = 1  # u, or noise

    def __init__(
        self, chain: Chain, predict: str = "v", variance: str = "learned", first: float | None = 1.0, dtype=np.float32
    ):
        super().__init__(chain, predict, variance, first, dtype)
        wide = np.stack(self.wide, axis=1)
        reads = chain.waves.astype(f32), gaussian.seen(chain).astype(f32)
        self.law = Law(wide.astype(f32), wide, chain.mean, chain.scale, *reads, f32(self.root), self.learned)

    def blocks(self, D: int) -> int:
        """A word for each element, of an even number of them."""
        return -(-D // 4)

    def limits(self, t: np.ndarray, D: int) -> np.ndarray:
        """None: every row changes at every step (may_change)."""
        return np.zeros((len(t), 0), np.uint8)

    def q_sample(self, x0, t, key: Key, first_row: int = 0):
        if self.dtype != f32:
            return super().q_sample(x0, t, key, first_row)
        x_t, noise = np.empty(x0.shape, f32), self._noise(key, len(x0), x0.shape[1], first_row)
        q_sample(self.law, np.asarray(t, np.int64), noise, np.ascontiguousarray(x0, np.float64), x_t)
        return x_t

    def kl_grad(self, out, x0, x_t, t, value: bool = True):
        if self.dtype != f32:
            return super().kl_grad(out, x0, x_t, t, value)
        dout, kl, work = np.empty(out.shape, f32), np.empty(len(out) if value else 0), np.empty(x0.shape[1], f32)
        x0, x_t = np.ascontiguousarray(x0, np.float64), np.ascontiguousarray(x_t, f32)
        kl_grad(self.law, np.asarray(t, np.int64), np.ascontiguousarray(out, f32), x0, x_t, work, dout, kl)
        return kl if value else None, dout

    def p_sample(self, out, x_t, t, key: Key, first_row: int = 0):
        if self.dtype != f32:
            return super().p_sample(out, x_t, t, key, first_row)
        x_s, work = np.array(x_t, f32), np.empty(x_t.shape[1], f32)
        noise = self._noise(key, len(x_t), x_t.shape[1], first_row)
        p_sample(self.law, np.asarray(t, np.int64), np.ascontiguousarray(out, f32), noise, work, x_s)
        return x_s

    def prior(self, rows: int, D: int, key: Key, first_row: int = 0):
        if self.dtype != f32:
            return super().prior(rows, D, key, first_row)
        x = np.empty((rows, D), f32)
        prior(self._noise(key, rows, D, first_row).words, x)
        return x

    def _noise(self, key: Key, rows: int, D: int, first_row: int):
        return philox_numba.noise(key, rows, self.blocks(D), first_row)


@njit(fastmath=FUSED, error_model="numpy")
def deviates(words, z):
    """Standard normal numbers z (D,) of a row's words (>= D, of pairs): rng.normals in float32."""
    D = z.size
    for i in range(D // 2):
        z[2 * i], z[2 * i + 1] = pair(words[2 * i], words[2 * i + 1])
    if D % 2 != 0:
        z[D - 1], _ = pair(words[D - 1], words[D])


@njit
def prior(words, x):
    for r in range(x.shape[0]):
        deviates(words[r], x[r])


@njit(fastmath=FUSED, error_model="numpy", inline="always")
def pair(w, v):
    """r cos a and r sin a. The angle is cut to an eighth of a circle around the next quarter, in integers."""
    u = f32(np.int32(((w >> NINE) << ONE_BIT) | ONE_BIT)) * UNIT
    r = np.sqrt(MINUS_2 * log(u))
    ahead = u32(v + EIGHTH)
    x, y = circle(f32(np.int32(ahead & REST) - np.int32(EIGHTH)) * TURN, u32(ahead >> QUARTER))
    return r * x, r * y


@njit(fastmath=FUSED, error_model="numpy", inline="always")
def circle(a, quarter):
    """Cosine and sine of a, -pi/4 .. pi/4, and so many quarters of a circle, 0 .. 3."""
    square = a * a
    sine = ((S0 * square + S1) * square + S2) * square * a + a
    cosine = ((C0 * square + C1) * square + C2) * square * square - HALF * square + ONE
    odd = (quarter & ONE_BIT) != 0
    x, y = sine if odd else cosine, cosine if odd else sine
    x = -x if quarter == u32(1) or quarter == u32(2) else x
    return x, -y if quarter > u32(1) else y


@njit(fastmath=FUSED, error_model="numpy")
def read_row(law, t, x_t, out):
    D, n = law.waves.shape
    for d in range(D):
        out[d] = x_t[d]
    for i in range(n):
        phase = f32(0)
        for d in range(D):
            phase += x_t[d] * law.waves[d, i]
        quarter = np.floor(FOUR * phase + HALF)
        x, y = circle((phase - FOURTH * quarter) * WHOLE, u32(np.int32(quarter) & np.int32(3)))
        left = law.seen[t, i]
        out[D + i], out[D + n + i] = left * x, left * y


@njit
def standard(law, x0, u):
    """u (D,) of a row x0."""
    for d in range(u.size):
        u[d] = f32((x0[d] - law.mean[d]) / law.scale[d])


@njit(fastmath=FUSED, error_model="numpy")
def q_sample(law, t, noise, x0, x_t):
    for r in range(x0.shape[0]):
        s, n = law.table[t[r], S], law.table[t[r], N]
        deviates(noise.words[r], x_t[r])
        for d in range(x0.shape[1]):
            x_t[r, d] = s * f32((x0[r, d] - law.mean[d]) / law.scale[d]) + n * x_t[r, d]


@njit(fastmath=FUSED, error_model="numpy")
def kl_grad(law, t, out, x0, x_t, work, dout, kl):
    B, D = x0.shape
    u = work[:D]
    for r in range(B):
        standard(law, x0[r], u)
        row = law.table[t[r]]
        s, g, h, k, rho, beta, w = row[S], row[G], row[H], row[K], row[RHO], row[BETA], row[W]
        weight = row[WEIGHT]
        for d in range(D):
            off = out[r, d] - g * (x_t[r, d] - s * u[d]) - h * u[d]
            if law.learned:
                w = beta + (ONE - beta) * exp(-law.root * out[r, D + d])
                dout[r, D + d] = weight * HALF * law.root * (w - beta) * (ONE / w - rho - k * off * off)
            dout[r, d] = weight * k * w * off
        if kl.size > 0:
            kl[r] = value(law, law.wide[t[r]], out[r], x0[r], x_t[r])


@njit(error_model="numpy")
def value(law, row, out, x0, x_t):
    """The KL of a row with its control variate, nats, in float64."""
    s, n, g, h, k, rho, offset = row[S], row[N], row[G], row[H], row[K], row[RHO], row[OFFSET]
    beta, w, k_v = row[BETA], row[W], row[K_V]
    D, total = x_t.size, 0.0
    for d in range(D):
        u = (x0[d] - law.mean[d]) / law.scale[d]
        rest = np.float64(x_t[d]) - s * u
        off = np.float64(out[d]) - g * rest - h * u
        v = s / n * rest - n * u
        if law.learned:
            w = beta + (1.0 - beta) * np.exp(-np.float64(law.root) * np.float64(out[D + d]))
        control = k_v * (s * s + n * u * n * u - v * v)
        total += (rho + k * off * off) * w - np.log(w) - offset - 1.0 + control
    return total / 2.0


@njit
def may_change(law, limits, noise, x, may):
    for r in range(x.shape[0]):
        may[r] = 1


@njit(fastmath=FUSED, error_model="numpy")
def p_sample(law, t, out, noise, work, x_t):
    D = x_t.shape[1]
    z = work[:D]
    for r in range(x_t.shape[0]):
        row = law.table[t[r]]
        a, c, beta, sigma, w = row[A], row[C], row[BETA], row[SIGMA], row[W]
        deviates(noise.words[r], z)
        for d in range(D):
            if law.learned:
                w = beta + (ONE - beta) * exp(-law.root * out[r, D + d])
            x_t[r, d] = a * x_t[r, d] + c * out[r, d] + sigma / np.sqrt(w) * z[d]


hooks_numba.fill(Law, read_row=read_row, q_sample=q_sample, kl_grad=kl_grad, may_change=may_change, p_sample=p_sample)
