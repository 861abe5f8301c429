"""The ideal network of Gaussian diffusion, and the exact floor of its bound, where the law of the data is known.

The law is a mixture: x_0 = centre i + sd * normal noise, i with probability weights[i]. In the arguments below

    centres : (M, D) in the data's units. weights : (M,), positive, of any sum; all alike by default
    sd : a number or (D,), in the data's units; 0 for a law that is a finite set of points

The law of u given x_t is then a mixture too, with mean and variance in closed form; and of all reverse steps with a
diagonal Gaussian the best has the mean and the variances of q(x_{t-1} | x_t). What the bound of those steps leaves to
chance is the mean over x_t alone. See derivation_gaussian, sections 10 and 11.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdiff_np import rng
from bdiff_np.diffusion import gaussian
from bdiff_np.diffusion.gaussian import Chain
from bdiff_np.rng import Key, Sequence

GROUPS = 16  # of draws that are independent of each other: the standard error is that of their means
TOGETHER = 1 << 21  # pairs of a row and a centre whose weights are held at once: 16 MB


def denoise(
    chain: Chain, centres: np.ndarray, sd, x_t: np.ndarray, t: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each axis, (B, D) each, of u = (x_0 - mean) / scale given x_t (B, D) at t (B,)."""
    law = _standard(chain, centres, sd, weights)
    mean, variance = np.empty(x_t.shape), np.empty(x_t.shape)
    for step in np.unique(t):
        mean[t == step], variance[t == step] = _denoise(law, chain.alpha_bar[step], x_t[t == step])
    return mean, variance


def reverse(
    chain: Chain, centres: np.ndarray, sd, x_t: np.ndarray, t: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each axis, (B, D) each, of q(x_{t-1} | x_t): the best Gaussian reverse step."""
    u, variance = denoise(chain, centres, sd, x_t, t, weights)
    mean = gaussian.posterior(chain, chain.mean + chain.scale * u, x_t, t)[0]
    return mean, chain.posterior_variance[t, None] + chain.by_u[t, None] ** 2 * variance


def floor_per_step(
    chain: Chain, centres: np.ndarray, sd, seed: int = 0, each: int = 1024, weights: np.ndarray | None = None
) -> np.ndarray:
    """Mean KL of the best Gaussian reverse step of each t = 1..T, as gaussian.kl counts it, (T,) nats, from about
    `each` draws of x_t a step.

    nan at t = 1 for a finite set: a density of points has no bound. Cost: T * each * M exponentials
    """
    return _costs(chain, _standard(chain, centres, sd, weights), Key(seed, rng.FLOOR_STEPS, 0), each, 1).mean(1)


def floor(
    chain: Chain,
    centres: np.ndarray,
    sd,
    kind: str = "learned",
    seed: int = 0,
    each: int | None = None,
    weights: np.ndarray | None = None,
) -> tuple[float, float]:
    """Lowest bound of any reverse chain with diagonal Gaussian steps, in nats per row, and its standard error.

    kind : as for gaussian.exact_terms. "learned" has no floor for a finite set: nan
    each : draws of x_t a step, about; by default what keeps T * each below 2**21 and T * each * M below 2**28, but 16
        at least. Cost: as of floor_per_step
    The error is told by what was drawn: of events so rare that none occurred it knows nothing.
    """
    if each is None:
        each = min(2**21, 2**28 // len(centres)) // chain.T
    law, first = _standard(chain, centres, sd, weights), 2 if kind == "paper" else 1
    sums = _costs(chain, law, Key(seed, rng.FLOOR, 0), each, first).sum(0)
    square = law.share @ law.centres**2 + law.own  # E u^2: exact_terms depend on nothing else
    rest = float(gaussian.exact_terms(chain, (chain.mean + chain.scale * np.sqrt(square))[None], kind)[0])
    return float(sums.mean()) + rest, float(sums.std(ddof=1)) / GROUPS**0.5


class Law(NamedTuple):
    """The mixture in the units of u. centres : (M, D). own : (D,), variances about them. share : (M,), of sum 1"""

    centres: np.ndarray
    own: np.ndarray
    share: np.ndarray


def _standard(chain: Chain, centres: np.ndarray, sd, weights) -> Law:
    share = np.ones(len(centres)) if weights is None else np.asarray(weights, float)
    return Law(gaussian.standard(chain, centres), (np.asarray(sd) / chain.scale) ** 2, share / share.sum())


def _denoise(law: Law, alpha_bar: float, x_t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`denoise` of rows that share one t."""
    (u, own, share), D, left = law, x_t.shape[1], 1 - alpha_bar
    wide = alpha_bar * own + left  # variance of x_t about its centre
    pull = np.sqrt(alpha_bar) * u / wide
    bias = np.log(share) - 0.5 * np.sqrt(alpha_bar) * (u * pull).sum(1)
    powers = np.concatenate([np.ones((len(u), 1)), u, u**2], axis=1)
    sums = np.empty((len(x_t), 1 + 2 * D))
    rows = max(1, TOGETHER // len(u))
    for lo in range(0, len(x_t), rows):
        weight = x_t[lo : lo + rows] @ pull.T
        weight += bias
        weight -= weight.max(1, keepdims=True)
        sums[lo : lo + rows] = np.exp(weight, out=weight) @ powers
    first, second = sums[:, 1 : D + 1] / sums[:, :1], sums[:, D + 1 :] / sums[:, :1]
    mean = (left * first + np.sqrt(alpha_bar) * own * x_t) / wide
    return mean, own * left / wide + (left / wide) ** 2 * np.maximum(second - first**2, 0)


def _costs(chain: Chain, law: Law, key: Key, each: int, first: int) -> np.ndarray:
    """Mean cost of steps `first`, ..., T in each group of draws, (T - first + 1, GROUPS) nats."""
    by_u, tilde = chain.by_u, chain.posterior_variance
    n = max(1, each // GROUPS)
    costs = np.empty((chain.T + 1, GROUPS))
    for t in range(first, chain.T + 1):
        if t == 1 and not np.all(law.own):
            costs[t] = np.nan
            continue
        x_t = _draw(law, chain.alpha_bar[t], Sequence(key._replace(step=t)), n)
        variance = _denoise(law, chain.alpha_bar[t], x_t)[1]
        ratio = np.log(variance / chain.beta[1]) if t == 1 else np.log1p(by_u[t] ** 2 / tilde[t] * variance)
        costs[t] = 0.5 * ratio.sum(1).reshape(GROUPS, n).mean(1)
    return costs[first:]


def _draw(law: Law, alpha_bar: float, generator: Sequence, n: int) -> np.ndarray:
    """x_t of GROUPS times n rows, (GROUPS * n, D): each group a Latin hypercube in the centre and the noise."""
    u, own, share = law
    D = u.shape[1]
    pairs = (D + 1) // 2
    shape = GROUPS, 1 + 2 * pairs, n
    order = np.argsort(generator.words(GROUPS * (1 + 2 * pairs) * n).reshape(shape), axis=2, kind="stable")
    place = ((order + generator.random(shape)) / n).transpose(0, 2, 1).reshape(GROUPS * n, -1)
    centre = np.searchsorted(np.cumsum(share)[:-1], place[:, 0], side="right")
    r, a = np.sqrt(-2 * np.log1p(-place[:, 1 : 1 + pairs])), 2 * np.pi * place[:, 1 + pairs :]
    noise = np.concatenate([r * np.cos(a), r * np.sin(a)], axis=1)[:, :D]
    return np.sqrt(alpha_bar) * u[centre] + np.sqrt(alpha_bar * own + 1 - alpha_bar) * noise
