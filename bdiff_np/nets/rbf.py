"""A network of normalised radial basis functions, as Sohl-Dickstein et al. 2015 train on the swiss roll: one layer of
units that share the space among them, and a read-out that depends on t.

    phi_j(x) = exp(-|x - c_j|^2 / (2 s_j^2)) / sum_k exp(-|x - c_k|^2 / (2 s_k^2))
    y        = phi W_t + b_t

The read-out starts at zero: an untrained network adds nothing to what the family knows without one. Formulas:
docs/derivation_gaussian.md, section 13.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from bdiff_np import rng
from bdiff_np.nets import Net
from bdiff_np.nets.layers import BumpReadout, Context, StepReadout
from bdiff_np.nets.mlp import time_table
from bdiff_np.params import Params
from bdiff_np.rng import Key
from bdiff_np.settings import Settings


class RBFSettings(Settings):
    """The settings of a network of radial basis functions in the section `model`."""

    units: int = Field(default=16, ge=1, le=1 << 16)
    """Number of radial basis functions, in one layer."""
    time: Literal["readout", "bumps", "fourier"] = "bumps"
    """How the read-out depends on t: one per timestep (the paper's), or linear in bumps in t or in Fourier features."""
    time_features: int = Field(default=16, ge=2, le=1024, multiple_of=2)
    """Number of features of t, for fourier and bumps."""


class RadialBasis:
    """phi (B, units), each row positive with the sum 1: softmax over j of -|x - c_j|^2 / (2 s_j^2). A layer in NumPy.

    Centres c (n_in, units) start standard normal, as data of variance 1 is; log widths start at what about fills the
    space between so many: log(sqrt(n_in) units^(-1 / n_in)).
    """

    decayed = ()

    def __init__(self, name: str, n_in: int, units: int):
        self.name = name
        self.shapes: dict[str, tuple[int, ...]] = {f"{name}/c": (n_in, units), f"{name}/log_s": (units,)}

    def init(self, normal) -> dict[str, np.ndarray]:
        n_in, units = shape = self.shapes[f"{self.name}/c"]
        log_s = 0.5 * np.log(n_in) - np.log(units) / n_in
        return {f"{self.name}/c": normal(shape), f"{self.name}/log_s": np.full(units, log_s)}

    def forward(self, ops, params, x, context):
        c, precision = params[f"{self.name}/c"], np.exp(-2 * params[f"{self.name}/log_s"])
        square = np.zeros((len(x), c.shape[1]), x.dtype)  # |x - c|^2 / s^2, from differences: they lose no digits
        for d in range(len(c)):
            square += (x[:, d, None] - c[d]) ** 2
        square *= precision
        phi = np.exp(-0.5 * (square - square.min(1, keepdims=True)))
        phi /= phi.sum(1, keepdims=True)
        return phi, (x, c, precision, square, phi)

    def backward(self, ops, params, grads, tape, dy, need_dx=True):
        x, c, precision, square, phi = tape
        dlogits = phi * (dy - (phi * dy).sum(1, keepdims=True))
        np.sum(dlogits * square, axis=0, out=grads[f"{self.name}/log_s"])
        pull = dlogits * precision
        np.subtract(ops.matmul(x.T, pull), c * pull.sum(0), out=grads[f"{self.name}/c"])
        return ops.matmul(pull, c.T) - x * pull.sum(1, keepdims=True) if need_dx else None


class RBF(Net):
    """A layer of radial basis functions over all that the family reads of x_t, and a read-out.

    task : diffusion.Task. units : of the layer
    time : "readout", weights of their own for every step; "bumps" or "fourier", weights linear in features of t
    """

    Settings = RBFSettings
    on_host = True
    smaller = "take fewer units (model.units)"

    def __init__(self, task, *, units, time, time_features, dtype=np.float32):
        self.task, self.D, self.width, self.dtype = task, task.D, units, np.dtype(dtype)
        self.features = time_table(time, task.chain.alpha_bar, time_features).astype(dtype)
        self.layers: list = [RadialBasis("rbf", task.inputs, units)]
        if time == "readout":
            self.layers.append(StepReadout("out", units, task.outputs, task.chain.T))
        else:
            self.layers.append(BumpReadout("out", units, task.outputs, time_features))
        self.shapes = {name: shape for layer in self.layers for name, shape in layer.shapes.items()}

    @classmethod
    def build(cls, task, settings, dtype=np.float32) -> RBF:
        return cls(task, dtype=dtype, **{name: getattr(settings, name) for name in RBFSettings.model_fields})

    def decays(self) -> dict[str, bool]:
        # Centres and widths are places and lengths: 0 is no smaller a value than others.
        return {name: name in layer.decayed for layer in self.layers for name in layer.shapes}

    def init(self, seed: int) -> dict[str, np.ndarray]:
        """First values of all parameters, float64, from the seed alone."""
        draw = lambda shape: rng.normal(Key(seed, rng.INIT, 0), shape)  # noqa: E731  of the centres alone
        return {name: array for layer in self.layers for name, array in layer.init(draw).items()}

    def forward(self, ops, params, x_t, t, key: Key | None = None):
        x, features = self.task.read(ops, x_t, t, self.features)
        context, tape = Context(t, features, key), []
        for layer in self.layers:
            x, saved = layer.forward(ops, params, x, context)
            tape.append(saved)
        return x, tape

    def backward(self, ops, params, tape, dout) -> Params:
        return self._backward(ops, params, tape, dout, False)[0]

    def backward_input(self, ops, params, tape, dout):
        return self._backward(ops, params, tape, dout, True)

    def _backward(self, ops, params, tape, dout, need_dx: bool):
        grads, (basis, readout) = self.gradients(ops), self.layers
        dphi = readout.backward(ops, params, grads, tape[1], dout)
        return grads, basis.backward(ops, params, grads, tape[0], dphi, need_dx)


NET = RBF
