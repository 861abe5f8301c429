"""What the speed benchmark measures of each family of diffusion: sizes, data, the tables that peers read, and what it
holds losses and samples against.

A family's class has, beside the constants below,

    data(rows, D, generator)         what all train on
    of(training)                     itself, with what a peer must know beside tables and weights
    steps(model, chain)              the tables of a chain
    noisy(steps, x0, t, generator)   x_t (B, D)
    rest(steps, x0, x_t, t)          nats, summed over a batch: what no weight changes, and peers leave out of the loss
    apart(rows, others)              how far two contestants' samples are from one law, in standard deviations
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# Notation: B rows of a batch, D elements of a row, F time features, K steps of a chain: all of them, or fewer.

DENSITY = 0.3  # of ones among bits


class BitSteps(NamedTuple):
    """K steps of the chain as float32 tables over 0..K; entry 0 is never read. With pi = 1/2 no entry depends on the
    value of a bit.

    features : (K + 1, F), of the time; the rest (K + 1,)
    noise : P(x_t != x_0). own : log odds that x_0 = x_t, by x_t's own bit
    agree, disagree : q(x_{t-1} != x_t | x_t, x_0) where x_0 is x_t and where it is not. not_agree, not_disagree : what
        they leave to 1
    """

    features: np.ndarray
    noise: np.ndarray
    own: np.ndarray
    agree: np.ndarray
    disagree: np.ndarray
    not_agree: np.ndarray
    not_disagree: np.ndarray


class Bits(NamedTuple):
    """Bernoulli diffusion. auxiliary : weight of the cross entropy of x_0 beside one step's KL"""

    auxiliary: float

    name, title = "bernoulli", ""
    sizes = "20-50-50-20@64,20-50-50-50-20@64,20-128-128-20@512,784-512x3-784@256,784-1024x3-784@512"
    sampler, rows, T = "20-50-50-50-20@64", 1000, 2000  # whose sampler draws so many rows at once, in T steps
    # what changes: the axis, and the points along it
    scaling = {
        "batch": ("rows of a batch (20-50-50-20)", {str(2**k): f"20-50-50-20@{2**k}" for k in range(4, 17, 2)}),
        "width": (
            "width of both hidden layers (20 bits, batch 256)",
            {str(2**k): f"20-{2**k}-{2**k}-20@256" for k in range(5, 11)},
        ),
    }

    @staticmethod
    def data(rows: int, D: int, generator: np.random.Generator):
        from bdiff_np.data import bits

        return bits.Bits.from_array(generator.random((rows, D), np.float32) < DENSITY)

    @classmethod
    def of(cls, training) -> Bits:
        return cls(training.kernels.bce)

    @staticmethod
    def steps(model, chain) -> BitSteps:
        from bdiff_np.diffusion import bernoulli

        k, ones = np.arange(1, chain.T + 1), np.ones((chain.T, 1), np.uint8)
        columns = (
            (1 - chain.alpha_bar[1:, None]) / 2,
            bernoulli.evidence(chain, "x0", ones, k),
            *bernoulli.q_flip(chain, ones, k)[:4],
        )
        return BitSteps(
            model.net.features[chain.time],
            *(np.concatenate([[0], column[:, 0]]).astype(np.float32) for column in columns),
        )

    @staticmethod
    def noisy(steps: BitSteps, x0: np.ndarray, t: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return x0 ^ (generator.random(x0.shape) < steps.noise[t, None])

    @staticmethod
    def rest(steps: BitSteps, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray) -> float:
        """Less the entropy of q(x_{t-1} | x_t, x_0): what lies between a cross entropy and the KL."""
        agree, disagree = steps.agree.astype(np.float64), steps.disagree.astype(np.float64)
        q = np.where(x0 == x_t, agree[t, None], disagree[t, None])
        inside = q[(q > 0) & (q < 1)]
        return float((inside * np.log(inside) + (1 - inside) * np.log1p(-inside)).sum())

    @staticmethod
    def apart(rows: np.ndarray, others: np.ndarray) -> float:
        """By the means of the bits, the largest of all."""
        return float(np.abs(rows.mean(0) - others.mean(0)).max() / (0.5 / len(rows)) ** 0.5)


FAMILIES: dict[str, Any] = {family.name: family for family in (Bits,)}
