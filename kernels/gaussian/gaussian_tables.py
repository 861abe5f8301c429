"""What the kernels of Gaussian diffusion read of a chain: one row for each t, worked out in float64.

The mean of the reverse step is a x_t + c out for every meaning of the network's output, and the posterior's is
a x_t + c target with a target that is linear too: target = g r + h u, r = x_t - s u. So the KL needs no difference of
two means, which float32 would lose at small t, and no x_0 out of x_t, which it would lose at large t: both summands are
about 1 at every t. With the variance beta / w (derivation_gaussian, section 6)

    KL = sum over elements of  (-ln w - offset + (rho + k (out - target)^2) w - 1) / 2
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdiff_np.diffusion.gaussian import Chain


class Tables(NamedTuple):
    """(T + 1,) float64 each; entry 0 is never asked for."""

    s: np.ndarray  # sqrt(alpha_bar): x_t = s u + n eps
    n: np.ndarray  # sqrt(1 - alpha_bar)
    g: np.ndarray
    h: np.ndarray
    a: np.ndarray
    c: np.ndarray
    k: np.ndarray  # c^2 / beta
    rho: np.ndarray  # beta tilde / beta: 0 at t = 1
    offset: np.ndarray  # its logarithm: 0 at t = 1, where exact_terms has the rest
    beta: np.ndarray
    sigma: np.ndarray  # sqrt(beta)
    w: np.ndarray  # beta / variance, where that is not learned
    k_v: np.ndarray  # of v: beta alpha_bar_{t-1} / (1 - alpha_bar_t), for the control variate
    weight: np.ndarray  # of the gradient: 1, but of the first step (gaussian.first_weight)


def tables(chain: Chain, predict: str, variance: str, first: float = 1.0) -> Tables:
    """Of a chain, a meaning of the network's output and a kind of variance (gaussian.reverse). first : weight of the
    first step's gradient"""
    now, before = chain.alpha_bar[1:], chain.alpha_bar[:-1]
    beta, left = chain.beta[1:], 1 - now
    s, n, keep = np.sqrt(now), np.sqrt(left), np.sqrt(1 - beta)
    rho = (1 - before) / left
    by_u, own = chain.by_u[1:], keep * rho  # the posterior's mean: by_u u + own x_t
    # what is predicted is g r + h u; r / n is eps
    g, h, a, c = {
        "x0": (0 * n, 1 + 0 * n, own, by_u),
        "noise": (1 / n, 0 * n, own + by_u / s, -by_u * n / s),
        "v": (s / n, -n, own + by_u * s, -by_u * n),
        "forward": (-by_u * s / np.sqrt(beta), by_u * left / np.sqrt(beta), keep, np.sqrt(beta)),
    }[predict]
    at_1 = np.arange(len(now)) == 0
    offset = np.log(np.where(at_1, 1.0, rho))
    w = np.where(at_1, 1.0, 1 / np.where(at_1, 1.0, rho)) if variance == "posterior" else np.ones(len(now))
    others = beta, np.sqrt(beta), w, chain.k_v[1:], np.where(at_1, first, 1.0)
    columns = s, n, g, h, a, c, c**2 / beta, rho, offset, *others
    return Tables(*(np.concatenate([[0.0], column]) for column in columns))
