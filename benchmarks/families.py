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
    training = dict[str, float]()
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


class PointSteps(NamedTuple):
    """K steps of the chain as float32 tables over 0..K; entry 0 is never read. Where x_t = s u + n eps, the network
    predicts v = s eps - n u; a reverse step's mean is a x_t + c v, its variance beta / w.

    features : (K + 1, F), of the time; the rest (K + 1,)
    k : c^2 / beta. rho : variance of q(x_{t-1} | x_t, x_0) / beta. offset : its logarithm, 0 at t = 1
    sigma : sqrt(beta). control : factor of the control variate
    """

    features: np.ndarray
    s: np.ndarray
    n: np.ndarray
    a: np.ndarray
    c: np.ndarray
    k: np.ndarray
    rho: np.ndarray
    offset: np.ndarray
    beta: np.ndarray
    sigma: np.ndarray
    control: np.ndarray


class Points(NamedTuple):
    """Gaussian diffusion of points, whose reverse variance is learned: w = beta + (1 - beta) exp(-root z) for z, the
    other half of the network's output.

    mean, scale : (D,), u = (x_0 - mean) / scale. root : 1 / sqrt(T), T of the whole chain
    """

    mean: np.ndarray
    scale: np.ndarray
    root: float

    name, title = "gaussian", ", points"
    training = {"first_weight": 1.0}  # the gradient of the bound itself, as peers have it
    sizes = "2-128-128-2@512,2-128-128-2@4096"
    sampler, rows, T = "2-128-128-2@512", 10_000, 1000
    scaling = {
        "batch": ("rows of a batch (2-128-128-2)", {str(2**k): f"2-128-128-2@{2**k}" for k in range(4, 17, 2)}),
        "width": (
            "width of both hidden layers (2 coordinates, batch 512)",
            {str(2**k): f"2-{2**k}-{2**k}-2@512" for k in range(5, 11)},
        ),
    }

    @staticmethod
    def data(rows: int, D: int, generator: np.random.Generator):
        """Points of a swiss roll; each further pair of coordinates is that of another point."""
        from bdiff_np.data import points
        from bdiff_np.data.points_generators import Law

        seeds = generator.integers(1 << 31, size=-(-D // 2)).tolist()
        pairs = [Law("swiss-roll").draw(rows, seed) for seed in seeds]
        return points.Points(np.ascontiguousarray(np.concatenate(pairs, axis=1)[:, :D]))

    @classmethod
    def of(cls, training) -> Points:
        chain = training.model.chain
        return cls(chain.mean, chain.scale, float(training.kernels.root))

    @staticmethod
    def steps(model, chain) -> PointSteps:
        from bdiff_np.kernels.gaussian.gaussian_tables import tables

        t = tables(chain, "v", "learned")
        columns = t.s, t.n, t.a, t.c, t.k, t.rho, t.offset, t.beta, t.sigma, t.k_v
        return PointSteps(model.net.features[chain.time], *(column.astype(np.float32) for column in columns))

    def standard(self, x0: np.ndarray) -> np.ndarray:
        """u (B, D) float64."""
        return (x0 - self.mean) / self.scale

    def noisy(self, steps: PointSteps, x0: np.ndarray, t: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        noise = generator.standard_normal(x0.shape)
        return (steps.s[t, None] * self.standard(x0) + steps.n[t, None] * noise).astype(np.float32)

    def target(self, steps: PointSteps, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray) -> np.ndarray:
        """v (B, D) float64."""
        s, n, u = steps.s[t, None].astype(np.float64), steps.n[t, None].astype(np.float64), self.standard(x0)
        return s / n * (x_t - s * u) - n * u

    def rest(self, steps: PointSteps, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray) -> float:
        """The constants of the KL, and the control variate."""
        s, n, offset, control = (
            column[t, None].astype(np.float64) for column in (steps.s, steps.n, steps.offset, steps.control)
        )
        varies = s**2 + (n * self.standard(x0)) ** 2 - self.target(steps, x0, x_t, t) ** 2
        return float((control * varies - offset - 1).sum() / 2)

    @staticmethod
    def apart(rows: np.ndarray, others: np.ndarray) -> float:
        """By mean and variance of the coordinates, the largest of all."""
        centre, far = (rows.mean(0) + others.mean(0)) / 2, 0.0
        for power in (1, 2):
            one, other = (np.asarray(x - centre, np.float64) ** power for x in (rows, others))
            error = np.sqrt(one.var(0) / len(one) + other.var(0) / len(other))
            far = max(far, float((np.abs(one.mean(0) - other.mean(0)) / error).max()))
        return far


FAMILIES: dict[str, Any] = {family.name: family for family in (Bits, Points)}
