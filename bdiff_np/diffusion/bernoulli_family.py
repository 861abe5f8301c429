"""Bernoulli diffusion as the program knows it: its settings, and the definition (bernoulli.py, bernoulli_floor.py)
under the contract's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from bdiff_np import diffusion
from bdiff_np.diffusion import bernoulli, bernoulli_floor
from bdiff_np.diffusion.bernoulli import Chain
from bdiff_np.settings import Disagreements, Settings

LISTED = 2048  # rows up to which the oracle's floor is worked out; it weighs every row for every bit


class Model(Settings):
    """The process, and what the network's output means."""

    T: int = Field(default=2000, ge=1, le=100_000)
    """Number of steps of the chain."""
    schedule: Literal["paper", "linear", "quadratic", "constant", "cosine", "sigmoid"] = "paper"
    """Noise schedule beta_t; paper is 1/(T - t + 1)."""
    pi: Annotated[float, Field(ge=1e-9, le=1 - 1e-9)] | Literal["data"] = 0.5
    """Stationary probability that a bit is 1; data takes the mean of each bit over train."""
    predict: Literal["x0", "x_prev"] = "x0"
    """What the logits stand for: the clean bit x_0, or the bit one step earlier, x_{t-1}."""
    skip: bool = True
    """Whether x_t's own evidence is added to the net's output."""


class Training(Settings):
    """The auxiliary loss."""

    bce_weight: float | None = Field(default=None, ge=0, le=1e6)
    """Weight of the auxiliary cross entropy of x_0, in nats per nat of the bound; null is 1 with predict x0, else 0."""

    @classmethod
    def disagreements(cls, model, training, data) -> Disagreements:
        if training.bce_weight and model.predict != "x0":
            reason = (
                f"must be 0 with model.predict: {model.predict}, for there is no x_0 to compare (got "
                f"{training.bce_weight})"
            )
            yield (("training", "bce_weight"), ("model", "predict")), reason


class Bernoulli(diffusion.Family):
    """Diffusion of bits: each step throws some of them away and redraws them from B(pi) (Sohl-Dickstein et al. 2015).
    Methods: diffusion.Family."""

    name, data = "bernoulli", "bits"
    Settings, Training = Model, Training
    bounds = {
        "learned": diffusion.BoundKind(1, "last step learned"),
        "paper": diffusion.BoundKind(2, "last step fixed, as in the paper"),  # it is the forward kernel
    }
    floor_words = "the least that any reverse chain with independent bits within a step can reach"

    def make_chain(self, settings, data) -> Chain:
        pi = bernoulli.data_pi(data.mean(), len(data)) if settings.pi == "data" else settings.pi
        return bernoulli.make_chain(settings.schedule, settings.T, pi)

    def state(self, chain) -> dict[str, np.ndarray]:
        return {"pi": chain.pi}

    def restore(self, settings, state: Mapping[str, np.ndarray]) -> Chain:
        return bernoulli.make_chain(settings.schedule, settings.T, state["pi"])

    def misfit(self, chain, D: int) -> str | None:
        if chain.pi.shape not in ((), (D,)):
            return f"pi has shape {chain.pi.shape}, expected () or {(D,)}"
        if not ((chain.pi > 0) & (chain.pi < 1)).all():
            return "pi holds values that are not probabilities"
        return None

    def kernel_options(self, settings, training=None) -> dict[str, Any]:
        weight = 0.0 if training is None else training.bce_weight
        weight = float(settings.predict == "x0") if weight is None else weight
        return {"predict": settings.predict, "skip": settings.skip, "bce_weight": weight}

    def all_steps(self, settings) -> str | None:
        return "predict: x_prev" if settings.predict == "x_prev" else None

    def q_sample(self, chain, x0, t, words):
        return bernoulli.q_sample(chain, x0, t, words)

    def exact_terms(self, chain, x0, kind="learned"):
        return bernoulli.exact_terms(chain, x0, kind)

    def null_bound(self, chain, x0):
        return bernoulli.null_bound(chain, x0)

    def check_batch(self, chain, generator, rows, D):
        x0 = generator.integers(0, 2, (rows, D)).astype(np.uint8)
        return x0, np.where(generator.random((rows, D)) < 0.2, 1 - x0, x0).astype(np.uint8)

    def baseline(self, data) -> tuple[str, float]:
        return "independent bits", float(bernoulli.binary_entropy(data.mean()).sum())

    def floor(self, chain, population, kind="learned", seed=0):
        """Up to LISTED rows it is the oracle's; beyond, the entropy log N without an error, below which nothing lies
        either."""
        if chain.alpha_bar[-1] > 0:
            return None
        if len(population) > LISTED:
            return float(np.log(len(population))), 0.0
        nats, error = bernoulli_floor.floor(chain, population, seed)
        if kind == "paper":  # the same steps but the last, which costs what the forward kernel costs
            last, its_error = bernoulli_floor.last_step(chain, population, seed)
            return nats - last + float(bernoulli.fixed_last_step(chain, population).mean()), float(
                np.hypot(error, its_error)
            )
        return nats, error

    def floor_per_step(self, chain, settings, population, out, evaluations, seed=0):
        if len(population) > LISTED or settings.predict != "x0":
            return None
        each = max(1, min(evaluations // chain.T, (1 << 26) // (chain.T * population.size)))
        add = 1.0 if settings.skip else 0.0
        logits = lambda x_t, t: out(x_t, t) + add * bernoulli.evidence(chain, "x0", x_t, t)  # noqa: E731
        return bernoulli_floor.kl_per_step(chain, population, logits, seed, each)


FAMILY = Bernoulli()
