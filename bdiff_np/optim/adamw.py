"""AdamW on flat buffers, with warm-up, decay, clipping and a moving average of the weights. Derivation, section 13."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from bdiff_np.params import Params
from bdiff_np.settings import MOST, Settings

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
UNREAD = 32  # norms at most that a device has and the host has not looked at


class AdamWSettings(Settings):
    """The optimiser's settings in the section `training`."""

    lr: float = Field(default=1e-3, gt=0, le=1e30)
    """Peak learning rate of AdamW, per optimiser step."""
    lr_schedule: Literal["constant", "cosine"] = "cosine"
    """Course of the learning rate after the warm-up."""
    warmup_steps: int = Field(default=100, ge=0, le=MOST)
    """Optimiser steps in which the learning rate rises linearly from 0."""
    weight_decay: float = Field(default=0.02, ge=0, le=1e6)
    """Decoupled weight decay of AdamW, as a share of the weights per unit of learning rate."""
    ema: float = Field(default=0.999, ge=0, lt=1)
    """Decay per optimiser step of the running average of the weights; 0 switches it off."""
    clip_thresh: float | None = Field(default=1.0, gt=0, le=1e30)
    """Largest global norm of the gradient of the loss in nats per element of an example; null does not clip."""


class Diverged(ArithmeticError):
    """A training whose numbers are none. spoilt : whether the weights are of no use; else the step was not taken, and
    they are those of the step before"""

    def __init__(self, message: str, spoilt: bool = False):
        super().__init__(message)
        self.spoilt = spoilt


class AdamW:
    """Holds what a training carries from step to step beside the parameters: both moments, the averaged weights and the
    step.

    decays : parameter name -> whether it decays (Net.decays). settings : the `training` section of the configuration
    total_steps : where the cosine ends
    scale : factor that makes the gradients handed in those of the loss
    """

    def __init__(self, ops, params: Params, decays: Mapping[str, bool], settings, total_steps: int, scale: float):
        dtype, shapes = params.flat.dtype, {name: array.shape for name, array in params.items()}
        self._to_host = ops.to_host
        self.m, self.v, self.ema = (Params(ops, shapes, dtype) for _ in range(3))
        self.ema.flat[:] = params.flat
        decayed = np.repeat([decays[name] for name in shapes], [int(np.prod(shape)) for shape in shapes.values()])
        # bytes: a fourth of what a kernel has to read
        self.decayed = ops.asarray(decayed.astype(np.uint8 if ops.on_device else dtype))
        self.settings, self.total_steps, self.scale = settings, total_steps, scale
        self.taken = 0
        self._norm, self.halted = math.nan, ops.zeros(1, np.int32)
        self._unread: list = []  # norms of the newest steps, as ops.norm gave them

    def learning_rate(self, step, total: int | None = None):
        """Of step 1..total, a number or an array: linear warm-up, then constant or half a cosine down to 0. total :
        None for total_steps"""
        s, total = self.settings, total or self.total_steps
        rate = s.lr * np.minimum(1.0, step / max(1, s.warmup_steps))
        if s.lr_schedule == "cosine":
            rate = rate * (0.5 * (1 + np.cos(math.pi * np.minimum(1.0, step / total))))
        return rate

    def numbers(self, step) -> dict:
        """What ops.adamw is told of step 1..total_steps, a number or an array, before clipping."""
        s = self.settings
        return {
            "lr": self.learning_rate(step), "scale": self.scale, "beta1": BETA1, "beta2": BETA2, "eps": EPS,
            "weight_decay": s.weight_decay, "ema_decay": np.minimum(s.ema, (1 + step) / (10 + step)), "step": step,
        }  # fmt: skip

    @property
    def grad_norm(self) -> float:
        """Length of the scaled gradient of the newest step, before clipping; nan before the first."""
        self.settle()
        return self._norm

    @grad_norm.setter
    def grad_norm(self, norm: float) -> None:
        self._norm = norm

    def step(self, ops, params: Params, grads: Params) -> None:
        """One step, in place on `params`. Raises Diverged, with nothing changed, if the gradient's norm is not finite.

        On a device the host goes on before it knows the norm. A step whose norm is not finite changes nothing there,
        nor does any after it, and Diverged comes from `settle`, UNREAD steps later at most.
        """
        most, numbers = (
            self.settings.clip_thresh,
            {name: float(value) for name, value in self.numbers(self.taken + 1).items()},
        )
        norm = ops.norm(grads.flat, self.halted)
        ops.adamw(
            params.flat,
            grads.flat,
            self.m.flat,
            self.v.flat,
            self.ema.flat,
            self.decayed,
            norm,
            clip=math.inf if most is None else most,
            **numbers,
        )
        self._unread.append(norm)
        self.taken += 1
        if not ops.on_device or len(self._unread) == UNREAD:
            self.settle()

    def settle(self) -> None:
        """Looks at the norms of all steps up to now. Raises Diverged if one is not finite; then `taken` is that of the
        steps before it."""
        unread, self._unread = [np.asarray(self._to_host(norm)).item() * self.scale for norm in self._unread], []
        good = next((k for k, norm in enumerate(unread) if not math.isfinite(norm)), len(unread))
        if good:
            self._norm = unread[good - 1]
        if good < len(unread):
            self.taken -= len(unread) - good
            self.halted[:] = 0
            self.check(self.taken + 1, unread[good])

    @staticmethod
    def check(step: int, norm: float) -> None:
        """Raises Diverged if the norm of a step's gradient is not finite."""
        if not math.isfinite(norm):
            raise Diverged(f"the gradient of step {step} is not a number")
