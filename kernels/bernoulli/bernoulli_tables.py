"""What compiled kernels are told of a chain: tables worked out once in float64, with the definition's own functions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdiff_np.diffusion import bernoulli
from bdiff_np.diffusion.bernoulli import Chain


class Tables(NamedTuple):
    """A chain of T steps, for rows of D bits."""

    lost: np.ndarray  # (T + 1,) uint64, beta_bar in units of 2**-32
    pi_words: np.ndarray  # (1,) or (D,) uint64, pi in the same units
    # (2 T + 2, 6) float64, q_flip's columns and the evidence of a bit that shows v at t in row 2 t + v; empty for a pi
    # per bit
    table: np.ndarray
    # (T + 1, 6) float64: alpha_bar before and after t, what each leaves to 1, and what a step keeps and redraws
    steps: np.ndarray
    pi: np.ndarray  # (2, 1) or (2, D) float64: probabilities of 0 and of 1


def tables(chain: Chain, predict: str) -> Tables:
    """The tables of a chain; predict : "x0" or "x_prev", what the evidence is of."""
    lost, pi_words = bernoulli.integer_law(chain)
    t = np.arange(1, chain.T + 1)
    steps, table = np.zeros((chain.T + 1, 6)), np.zeros((0, 6))
    ab_s, ab_t = chain.signal(t)
    steps[1:] = np.concatenate([ab_s, ab_t, 1 - ab_s, 1 - ab_t, ab_t / ab_s, (ab_s - ab_t) / ab_s], axis=1)
    if chain.pi.ndim == 0:
        table = np.zeros((2 * chain.T + 2, 6))
        every, v = np.repeat(t, 2), np.tile([[0], [1]], (chain.T, 1)).astype(np.uint8)
        table[2:] = np.stack(
            [*bernoulli.q_flip(chain, v, every), bernoulli.evidence(chain, predict, v, every)], axis=2
        )[:, 0]
    pi = np.stack([1 - np.atleast_1d(chain.pi), np.atleast_1d(chain.pi)])
    return Tables(lost, np.atleast_1d(pi_words), table, steps, pi)
