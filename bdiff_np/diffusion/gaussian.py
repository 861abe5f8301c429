"""Gaussian diffusion in float64: the definition that every kernel is tested against.

Sohl-Dickstein et al. 2015 (the process, the bound), Ho et al. 2020 (the noise as the network's output), Salimans and Ho
2022 (v), Kingma et al. 2021 (the schedule that is linear in the log of the signal-to-noise ratio). All is derived in
docs/derivation_gaussian.md.

    u   = (x_0 - mean) / scale                               axes of variance 1; x_1 .. x_T are in these units
    x_t = sqrt(alpha_bar_t) u + sqrt(1 - alpha_bar_t) eps    eps ~ N(0, I)
    p(x_{t-1} | x_t) = N(mu_p, diag(sigma_p^2))              what the network's output says

B examples of D elements, t = 1..T, values in nats.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bdiff_np import rng
from bdiff_np.rng import Key

PREDICT = "v", "noise", "x0", "forward"
VARIANCE = "learned", "beta", "posterior"
LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, eq=False)
class Chain:
    """The forward process.

    alpha_bar : (T + 1,) share of the signal's variance, 1 at t = 0. time : (T + 1,) t as the network gets it
    mean, scale : (D,) of the data
    levels : (T + 1,) sqrt(1 - alpha_bar) of the whole chain, by the network's t. waves : (D, n), see `waves`
    """

    alpha_bar: np.ndarray
    time: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    levels: np.ndarray
    waves: np.ndarray

    @property
    def T(self) -> int:
        return len(self.alpha_bar) - 1

    @cached_property
    def beta(self) -> np.ndarray:
        """(T + 1,) variance that a step adds; 0 at t = 0."""
        return np.concatenate([[0.0], 1 - self.alpha_bar[1:] / self.alpha_bar[:-1]])

    @cached_property
    def posterior_variance(self) -> np.ndarray:
        """(T + 1,) variance of q(x_{t-1} | x_t, x_0), beta tilde; 0 at t = 0 and t = 1."""
        left = 1 - self.alpha_bar
        return np.concatenate([[0.0], self.beta[1:] * left[:-1] / left[1:]])

    @cached_property
    def by_u(self) -> np.ndarray:
        """(T + 1,) by how much the posterior's mean moves with u; 0 at t = 0."""
        now, before = self.alpha_bar[1:], self.alpha_bar[:-1]
        return np.concatenate([[0.0], np.sqrt(before) * self.beta[1:] / (1 - now)])

    @cached_property
    def k_v(self) -> np.ndarray:
        """(T + 1,) twice what v^2 counts in the forward kernel's KL; 0 at t = 0."""
        now, before = self.alpha_bar[1:], self.alpha_bar[:-1]
        return np.concatenate([[0.0], self.beta[1:] * before / (1 - now)])

    def every(self, K: int) -> Chain:
        if not 1 <= K <= self.T:
            raise ValueError(f"{K} steps of {self.T}")
        kept = np.round(np.linspace(0, self.T, K + 1)).astype(int)
        return replace(self, alpha_bar=self.alpha_bar[kept], time=self.time[kept])


# Schedules
# ----------------------------------------------------------------------------------------------------------------------


def alpha_bar(schedule: str, T: int, beta_1: float | None = None, last: float | None = None) -> np.ndarray:
    """(T + 1,) of a schedule. beta_1 : in the place of the first step's variance; of "logsnr", where the line begins.
    last : alpha_bar_T of "logsnr", where it ends, 1e-4 by default

    paper : beta_t = 1 / linspace(T, 2, T), which leaves about 1 / T of the variance, and .001 more in the first
        step, as the code of Sohl-Dickstein et al. has it
    sigmoid : beta from 1e-5 to .3 along a sigmoid, as the re-implementation for points has it
    linear : the variance-preserving process of Song et al. 2021, beta from .1 to 20 over all steps
    cosine : Nichol and Dhariwal 2021
    logsnr : log(alpha_bar / (1 - alpha_bar)) falls along a line from that of beta_1, 1e-5 by default, to that of `last`
    """
    u = np.arange(T + 1) / T
    if schedule == "logsnr":
        first, last = 1e-5 if beta_1 is None else beta_1, 1e-4 if last is None else last
        logit = np.linspace(np.log1p(-first) - np.log(first), np.log(last) - np.log1p(-last), T)
        return np.concatenate([[1.0], 1 / (1 + np.exp(-logit))])
    if schedule == "linear":
        beta = -np.expm1(-np.diff(0.1 * u + 9.95 * u**2))
    elif schedule == "cosine":
        level = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
        beta = np.minimum(1 - level[1:] / level[:-1], 0.999)
    elif schedule == "sigmoid":
        beta = 1e-5 + (0.3 - 1e-5) / (1 + np.exp(-np.linspace(-18, 10, T)))
    elif schedule == "paper":
        least = np.full(T, 1e-6)
        least[0] += 0.001
        beta = least + (1 - least - 1e-5) / np.linspace(T, 2, T)
    else:
        raise ValueError(f"there is no schedule {schedule!r}")
    if beta_1 is not None:
        beta[0] = beta_1
    return np.concatenate([[1.0], np.cumprod(1 - beta)])


def make_chain(schedule: str, T: int, mean: np.ndarray, scale: np.ndarray, beta_1=None, last=None, n: int = 0) -> Chain:
    """The chain of a schedule, for data of this mean and scale, (D,) each, with n waves."""
    mean, scale, kept = np.asarray(mean, float), np.asarray(scale, float), alpha_bar(schedule, T, beta_1, last)
    levels = np.sqrt(1 - kept)
    return Chain(kept, np.arange(T + 1), mean, scale, levels, waves(mean.size, n, levels[1]))


# What the network reads
# ----------------------------------------------------------------------------------------------------------------------


def waves(D: int, n: int, finest: float) -> np.ndarray:
    """(D, n) wave vectors, in periods per unit, of frequencies from 1 / 8 to 1 / (2 pi finest) in even ratios and in
    random directions, always the same. finest : the noise of the first step, below which there is nothing to see

    A perceptron learns slowly what changes over short distances (Tancik et al. 2020); these tell it.
    """
    lengths = np.geomspace(0.125, max(0.25, 1 / (2 * np.pi * finest)), n)
    directions = rng.normals(Key(0, rng.WAVES, 0), n, D).T
    return lengths * directions / np.sqrt((directions**2).sum(0))


def read(chain: Chain, x_t: np.ndarray, t: np.ndarray) -> np.ndarray:
    """What the network reads, (B, D + 2 n): x_t, and cosine and sine of each wave, smaller where the noise of t hides
    it: their mean for a point that is known up to this noise. t : as the network gets it"""
    phase, left = 2 * np.pi * (x_t @ chain.waves), seen(chain)[t]
    return np.concatenate([x_t, left * np.cos(phase), left * np.sin(phase)], axis=1)


def seen(chain: Chain) -> np.ndarray:
    """(T + 1, n), the mean of cos(2 pi f (x + noise of t)) / cos(2 pi f x) for each wave f: a characteristic
    function."""
    return np.exp(-2 * np.pi**2 * chain.levels[:, None] ** 2 * (chain.waves**2).sum(0))


# The process
# ----------------------------------------------------------------------------------------------------------------------


def standard(chain: Chain, x0: np.ndarray) -> np.ndarray:
    """u (B, D)."""
    return (x0 - chain.mean) / chain.scale


def q_sample(chain: Chain, x0: np.ndarray, t: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """x_t ~ q(x_t | x_0) for standard normal `noise` (B, D): the jump over t steps."""
    left = chain.alpha_bar[t, None]
    return np.sqrt(left) * standard(chain, x0) + np.sqrt(1 - left) * noise


def posterior(chain: Chain, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (B, D) and variance (B, 1) of q(x_{t-1} | x_t, x_0); at t = 1 it is u itself."""
    now, before, beta = chain.alpha_bar[t, None], chain.alpha_bar[t - 1, None], chain.beta[t, None]
    mean = chain.by_u[t, None] * standard(chain, x0) + np.sqrt(1 - beta) * (1 - before) / (1 - now) * x_t
    return mean, chain.posterior_variance[t, None]


def clean(chain: Chain, predict: str, out: np.ndarray, x_t: np.ndarray, t: np.ndarray) -> np.ndarray:
    """u (B, D) as the first D columns of the network's output say it: the one at which `reverse` has the posterior's
    mean."""
    m, left = out[:, : x_t.shape[1]], chain.alpha_bar[t, None]
    if predict == "v":
        return np.sqrt(left) * x_t - np.sqrt(1 - left) * m
    if predict == "noise":
        return (x_t - np.sqrt(1 - left) * m) / np.sqrt(left)
    if predict == "forward":
        return np.sqrt(left) * x_t + (1 - left) / np.sqrt(chain.alpha_bar[t - 1, None] * chain.beta[t, None]) * m
    return m


def reverse(
    chain: Chain, predict: str, variance: str, out: np.ndarray, x_t: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance, (B, D) each, of p(x_{t-1} | x_t) for the network's output (B, D), or (B, 2 D) with a learned
    variance.

    predict : what the first D columns are
        forward : the mean is the forward kernel's and sqrt(beta) out, as in the code of Sohl-Dickstein et al. 2015
        x0, noise, v : u, eps, or v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) u; the mean is the posterior's
    variance : learned, sigmoid(z / sqrt(T) + logit(beta)) with z the other D columns, T that of the whole chain;
        beta; or posterior, beta tilde (at t = 1, where that is 0, beta)

    An output of 0 is the forward kernel for "forward" and "v": the exact reverse of data N(0, 1).
    """
    D, beta = x_t.shape[1], chain.beta[t, None]
    if predict == "forward":
        mean = np.sqrt(1 - beta) * x_t + np.sqrt(beta) * out[:, :D]
    else:
        mean = posterior(chain, chain.mean + chain.scale * clean(chain, predict, out, x_t, t), x_t, t)[0]
    if variance == "learned":
        return mean, 1 / (1 + np.exp(-out[:, D:] / np.sqrt(chain.time[-1])) * (1 - beta) / beta)
    wide = np.where(t[:, None] == 1, beta, chain.posterior_variance[t, None]) if variance == "posterior" else beta
    return mean, np.broadcast_to(wide, mean.shape)


def kl(
    chain: Chain, predict: str, variance: str, out: np.ndarray, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), (B,), and its gradient by `out`.

    At t = 1 it is -log p(u | x_1), less what a Gaussian of variance beta_1 costs, which `exact_terms` holds.
    """
    (mean_q, var_q), (mean_p, var_p) = posterior(chain, x0, x_t, t), reverse(chain, predict, variance, out, x_t, t)
    own = np.where(t[:, None] == 1, chain.beta[1], var_q)
    square = var_q + (mean_q - mean_p) ** 2
    value = 0.5 * (np.log(var_p / own) + square / var_p - 1)
    dmean = (mean_p - mean_q) / var_p * _slope(chain, predict, t)
    if variance != "learned":
        return value.sum(1), dmean
    dvar = 0.5 * (1 - square / var_p) * (1 - var_p) / np.sqrt(chain.time[-1])
    return value.sum(1), np.concatenate([dmean, dvar], axis=1)


def control(chain: Chain, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(B,) nats whose mean over x_t given x_0 is 0, to be added to `kl`, whose mean then has a far smaller error: by
    how much the KL of the forward kernel, a function of v^2, is below its mean. Where steps are small v is nearly the
    noise, which no network can tell, and all KLs share that part."""
    now, u = chain.alpha_bar[t, None], standard(chain, x0)
    v = np.sqrt(now) * (x_t - np.sqrt(now) * u) / np.sqrt(1 - now) - np.sqrt(1 - now) * u
    return (0.5 * chain.k_v[t, None] * (now + (1 - now) * u**2 - v**2)).sum(1)


def first_weight(chain: Chain) -> float:
    """Factor on the gradient at t = 1 with which its noise is that of the second step's. The first step takes all of
    x_1's noise, where others take a share of theirs: in a chain of 1000 steps its KL counts fifty times as much, and
    it is seen as rarely as any. There is little to learn in it."""
    if chain.T == 1:
        return 1.0
    return float(min(1.0, chain.k_v[2] / chain.k_v[1]))


def _slope(chain: Chain, predict: str, t: np.ndarray) -> np.ndarray:
    """By how much mu_p moves with the network's output, (B, 1)."""
    now, by_u = chain.alpha_bar[t, None], chain.by_u[t, None]
    return {
        "forward": np.sqrt(chain.beta[t, None]), "x0": by_u,
        "noise": -np.sqrt((1 - now) / now) * by_u, "v": -np.sqrt(1 - now) * by_u,
    }[predict]  # fmt: skip


# The bound
# ----------------------------------------------------------------------------------------------------------------------


def entropy(variance) -> np.ndarray:
    """Of N(m, variance), in nats."""
    return 0.5 * (LOG_2PI + 1 + np.log(variance))


def exact_terms(chain: Chain, x0: np.ndarray, kind: str = "learned") -> np.ndarray:
    """The part of the bound on -log p(x_0) that needs no network, (B,).

    learned : the last KL(q(x_T | x_0) || N(0, I)), the entropy of a Gaussian of variance beta_1 that `kl` left out at
        t = 1, and the units of the data
    paper : the last reverse step is the forward kernel, whose -log p(x_0 | x_1) in the mean over x_1 stands in the
        place of its KL. With `kl` from t = 2 on, and less log scale, the mean over the data is -K of Sohl-Dickstein et
        al. 2015; K grows without limit as beta_1 falls if the data lies on a curve
    """
    u, left = standard(chain, x0), chain.alpha_bar[-1]
    last = 0.5 * (left * u**2 - left - np.log1p(-left))
    if kind == "paper":
        last = last + 0.5 * chain.beta[1] * (u**2 - 1)
    return (last + entropy(chain.beta[1]) + np.log(chain.scale)).sum(1)


def null_bound(chain: Chain, x0: np.ndarray) -> np.ndarray:
    """-log N(x_0; mean, scale^2), (B,)."""
    return (0.5 * (LOG_2PI + standard(chain, x0) ** 2) + np.log(chain.scale)).sum(1)
