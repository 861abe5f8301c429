"""Kernels of the toy family."""

from __future__ import annotations

import numpy as np

from bdiff_np import diffusion, rng


def deviates(words):
    """About normal numbers from words, one each."""
    u = (words + 0.5) / 2.0**32
    return np.log(u / (1 - u)) / 1.702


def read(chain, x_t, t, features, weight=None):
    x = x_t.astype(features.dtype)
    return x if weight is None else np.concatenate([x, x * weight[t, None]], 1), features[t]


class Kernels(diffusion.Kernels):
    def __init__(self, chain, dtype=np.float32):
        self.chain, self.dtype = chain, dtype

    def q_sample(self, x0, t, key, first_row=0):
        ab = self.chain.alpha_bar[t, None]
        x_t = np.sqrt(ab) * x0 + np.sqrt(1 - ab) * deviates(rng.words(key, *x0.shape, first_row))
        return x_t.astype(self.dtype)

    def kl_grad(self, out, x0, x_t, t, value=True):
        ab = self.chain.alpha_bar[t, None]
        off = out - (x_t - np.sqrt(ab) * x0) / np.sqrt(1 - ab)
        weight = 1 / self.chain.T
        return (0.5 * weight * off**2).sum(1, dtype=np.float64) if value else None, (weight * off).astype(self.dtype)

    def p_sample(self, out, x_t, t, key, first_row=0):
        now, before = self.chain.alpha_bar[t, None], self.chain.alpha_bar[t - 1, None]
        x0 = (x_t - np.sqrt(1 - now) * out) / np.sqrt(now)
        return (np.sqrt(before) * x0 + np.sqrt(1 - before) * deviates(rng.words(key, *x_t.shape, first_row))).astype(
            self.dtype
        )

    def prior(self, rows, D, key, first_row=0):
        return deviates(rng.words(key, rows, D, first_row)).astype(self.dtype)
