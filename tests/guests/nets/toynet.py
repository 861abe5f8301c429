"""A toy net: one matrix, with a gain that is a setting of its own."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from bdiff_np import rng, settings
from bdiff_np.nets import Net
from bdiff_np.params import Params
from bdiff_np.rng import Key


class ToySettings(settings.Settings):
    """The toy net's settings."""

    gain: float = Field(default=0.1, gt=0)
    """Size of the first weights."""


class ToyNet(Net):
    Settings = ToySettings

    def __init__(self, task, gain, dtype):
        self.task, self.gain, self.D, self.dtype = task, gain, task.D, np.dtype(dtype)
        self.features = np.linspace(0, 1, task.chain.T + 1)[:, None].astype(dtype)
        self.shapes = {"W": (task.D, task.outputs), "F": (1, task.outputs), "b": (task.outputs,)}

    @classmethod
    def build(cls, task, settings, dtype=np.float32):
        return cls(task, settings.gain, dtype)

    def init(self, seed):
        return {
            name: self.gain * rng.normal(Key(seed, rng.INIT, k), shape)
            for k, (name, shape) in enumerate(self.shapes.items())
        }

    def forward(self, ops, params, x_t, t, key=None):
        x, f = self.task.read(ops, x_t, ops.asarray(t), ops.asarray(self.features))
        return ops.matmul(x, params["W"]) + ops.matmul(f, params["F"]) + params["b"], (x, f)

    def backward(self, ops, params, tape, dout):
        grads = Params(ops, self.shapes, self.dtype)
        ops.matmul(tape[0].T, dout, out=grads["W"])
        ops.matmul(tape[1].T, dout, out=grads["F"])
        grads["b"][:] = dout.sum(0)
        return grads


NET = ToyNet
