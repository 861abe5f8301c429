"""Gaussian diffusion as the program knows it: its settings, and the definition (gaussian.py, gaussian_oracle.py) under
the contract's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from bdiff_np import diffusion, rng
from bdiff_np.diffusion import gaussian, gaussian_oracle
from bdiff_np.diffusion.gaussian import Chain
from bdiff_np.errors import InputError
from bdiff_np.settings import Disagreements, Settings


class Model(Settings):
    """The process, and what the network's output means."""

    T: int = Field(default=1000, ge=1, le=100_000)
    """Number of steps of the chain."""
    schedule: Literal["logsnr", "paper", "sigmoid", "linear", "cosine"] = "logsnr"
    """Noise schedule; logsnr falls along a line in log(alpha_bar / (1 - alpha_bar)); paper is 1 / linspace(T, 2, T)."""
    beta_1: float | None = Field(default=None, ge=1e-12, lt=1)
    """Variance of the first step's noise, in units of the data's; null: the schedule's own, 1e-5 of logsnr."""
    alpha_bar_T: float | None = Field(default=None, gt=0, lt=1)
    """Share of the data's variance that the last step of logsnr leaves; null: 1e-4."""
    predict: Literal["v", "noise", "x0", "forward"] = "v"
    """What the output stands for: v, the noise, x_0, or a change of the forward kernel's mean (the paper's)."""
    variance: Literal["learned", "beta", "posterior"] = "learned"
    """Variance of a reverse step: the network's, or that of the forward step, or that of the posterior."""
    scale: Literal["axis", "all", "none"] = "axis"
    """Units: each axis at mean 0 and variance 1; or one factor for all axes; or the data as they are."""
    waves: int = Field(default=0, ge=0, le=256)
    """Waves over x_t that the network reads beside it, from long to as short as the first step's noise."""

    @classmethod
    def disagreements(cls, model, training, data) -> Disagreements:
        if model.alpha_bar_T is not None and model.schedule != "logsnr":
            reason = f"is of the schedule logsnr alone (got {model.schedule}); leave it out"
            yield (("model", "alpha_bar_T"), ("model", "schedule")), reason
        elif (model.alpha_bar_T or 0) >= 1 - (model.beta_1 or 0):
            reason = f"must be below 1 - model.beta_1, {1 - (model.beta_1 or 0):g} (got {model.alpha_bar_T:g})"
            yield (("model", "alpha_bar_T"), ("model", "beta_1")), reason
        if model.schedule == "logsnr" and model.T < 2:
            yield (("model", "T"), ("model", "schedule")), "must be at least 2 with the schedule logsnr, a line (got 1)"


class Training(Settings):
    """The weight of the first step."""

    first_weight: float | None = Field(default=None, ge=0, le=1)
    """Weight of the first step's gradient; null: so much that its noise is the second's; 1: that of the bound."""


class Gaussian(diffusion.Family):
    """Diffusion of numbers: each step shrinks them a little and adds normal noise (Sohl-Dickstein et al. 2015).
    Methods: diffusion.Family."""

    name, data = "gaussian", "points"
    Settings, Training = Model, Training
    x_dtype, noises_known = np.dtype(np.float32), True
    bounds = {
        "learned": diffusion.BoundKind(1, "last step learned"),
        "paper": diffusion.BoundKind(2, "last step fixed, as in the paper"),
    }
    floor_words = "the least that any chain of Gaussian steps with independent axes can reach, the last step fixed"

    def inputs(self, D: int, settings) -> int:
        return D + 2 * settings.waves

    def outputs(self, D: int, settings) -> int:
        return 2 * D if settings.variance == "learned" else D

    def all_steps(self, settings) -> str | None:
        return "predict: forward" if settings.predict == "forward" else None

    def make_chain(self, settings, data) -> Chain:
        mean, scale = np.zeros(data.D), np.ones(data.D)
        if settings.scale != "none":
            mean, scale = data.moments()
        if settings.scale == "all":
            scale = np.full(data.D, np.sqrt((scale**2).mean()))
        return self._chain(settings, mean, scale)

    def _chain(self, settings, mean, scale) -> Chain:
        line = settings.beta_1, settings.alpha_bar_T
        chain = gaussian.make_chain(settings.schedule, settings.T, mean, scale, *line, settings.waves)
        if (np.diff(chain.alpha_bar) >= 0).any() or chain.alpha_bar[-1] < np.finfo(np.float32).tiny:
            raise InputError(
                f"model.T: of the schedule {settings.schedule} with {settings.T} steps the last add nothing that "
                "float32 holds; take fewer steps"
            )
        return chain

    def process(self, chain) -> str:
        return f"beta_1 = {chain.beta[1]:.3g}"

    def state(self, chain) -> dict[str, np.ndarray]:
        return {"mean": chain.mean, "scale": chain.scale}

    def restore(self, settings, state: Mapping[str, np.ndarray]) -> Chain:
        return self._chain(settings, state["mean"], state["scale"])

    def misfit(self, chain, D: int) -> str | None:
        for name in ("mean", "scale"):
            values = getattr(chain, name)
            if values.shape != (D,):
                return f"{name} has shape {values.shape}, expected {(D,)}"
            if not np.isfinite(values).all():
                return f"{name} holds values that are not finite numbers"
        return None if (chain.scale > 0).all() else "scale holds values that are not above 0"

    def kernel_options(self, settings, training=None) -> dict[str, Any]:
        options = {"predict": settings.predict, "variance": settings.variance}
        return options if training is None else options | {"first": training.first_weight}

    def to_data(self, chain, x_0):
        return x_0.astype(np.float64) * chain.scale + chain.mean

    def from_data(self, chain, x0):
        return gaussian.standard(chain, x0)

    def noise(self, key, rows, D, first_row=0):
        return rng.normals(key, rows, D, first_row)

    def q_sample(self, chain, x0, t, noise):
        return gaussian.q_sample(chain, x0, t, noise)

    def exact_terms(self, chain, x0, kind="learned"):
        return gaussian.exact_terms(chain, x0, kind)

    def null_bound(self, chain, x0):
        return gaussian.null_bound(chain, x0)

    def drift(self, chain, settings, out, x_t, t):
        return gaussian.reverse(chain, settings.predict, settings.variance, out, x_t, t)[0] - x_t

    def check_batch(self, chain, generator, rows, D):
        u = generator.standard_normal((rows, D))
        return self.to_data(chain, u), (u + 0.3 * generator.standard_normal((rows, D))).astype(np.float32)

    def baseline(self, data) -> tuple[str, float] | None:
        variances = np.linalg.eigvalsh(data.covariance())
        flat = variances.min() <= 1e-12 * variances.max()
        return None if flat else ("one Gaussian", float(gaussian.entropy(variances).sum()))

    def floor(self, chain, population, kind="learned", seed=0):
        """Of points along a curve; by chains with the last step fixed, for the learned one has no least bound. None
        where the noise of the first step does not cover the way from one point to the next."""
        apart = np.sqrt((np.diff(gaussian.standard(chain, population), axis=0) ** 2).sum(1)).max()
        if kind != "paper" or apart > np.sqrt(chain.beta[1]):
            return None
        return gaussian_oracle.floor(chain, population, 0.0, kind, seed)


FAMILY = Gaussian()
