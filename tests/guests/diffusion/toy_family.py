"""A toy family: each step shrinks a point and adds normal noise; the network guesses the noise. Its bound is a bound
only up to a constant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from bdiff_np import diffusion, settings
from bdiff_np.kernels.toy.toy_numpy import deviates


class Model(settings.Settings):
    """The toy's process."""

    T: int = Field(default=20, ge=1)
    """Number of steps."""


@dataclass(frozen=True, eq=False)
class Chain:
    alpha_bar: np.ndarray
    scale: np.ndarray
    time: np.ndarray

    @property
    def T(self) -> int:
        return len(self.alpha_bar) - 1

    def every(self, K):
        kept = np.round(np.linspace(0, self.T, K + 1)).astype(int)
        return Chain(self.alpha_bar[kept], self.scale, self.time[kept])


class Toy(diffusion.Family):
    name, data, Settings = "toy", "toypoints", Model

    def make_chain(self, settings, data):
        return self.restore(settings, {"scale": np.asarray(np.abs(data.all()).max(), np.float64)})

    def state(self, chain):
        return {"scale": chain.scale}

    def restore(self, settings, state):
        return Chain(np.linspace(1, 0.01, settings.T + 1), state["scale"], np.arange(settings.T + 1))

    def q_sample(self, chain, x0, t, words):
        ab = chain.alpha_bar[t, None]
        return np.sqrt(ab) * x0 + np.sqrt(1 - ab) * deviates(words)

    def exact_terms(self, chain, x0, kind="learned"):
        return 0.5 * chain.alpha_bar[-1] * (x0**2).sum(1).astype(np.float64)

    def null_bound(self, chain, x0):
        return 0.5 * (x0**2).sum(1).astype(np.float64)

    def check_batch(self, chain, generator, rows, D):
        return generator.standard_normal((rows, D)), generator.standard_normal((rows, D))


FAMILY = Toy()
