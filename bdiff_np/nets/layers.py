"""The layers that networks are built of. Each has `shapes`, `decayed` (names of the parameters that decay), `init`,
`forward` and `backward`.

    y, tape = layer.forward(ops, params, x, context)
    dx      = layer.backward(ops, params, grads, tape, dy)      # writes its own entries of grads

Rows are the first axis: x (B, n_in), y (B, n_out). Formulas: docs/derivation.md, section 12.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdiff_np import rng
from bdiff_np.rng import Key


class Context(NamedTuple):
    """What layers need beside their input: t (B,), the time features (B, F), and the key of the noise of dropout, None
    when sampling."""

    t: np.ndarray
    features: np.ndarray
    key: Key | None


class Dense:
    """y = act((x W + b) * (1 + scale) + shift), where [scale, shift] = features F; without `film` y = act(x W + b).

    film : number of time features that scale and shift the units, 0 for none
    gain : W starts normal with standard deviation gain / sqrt(n_in); F and b start at 0, so time has no influence at
        first
    """

    def __init__(
        self, name: str, n_in: int, n_out: int, activation: str | None = None, film: int = 0, gain: float = 1.0
    ):
        self.name, self.activation, self.film, self.gain = name, activation, film, gain
        self.shapes: dict[str, tuple[int, ...]] = {f"{name}/W": (n_in, n_out), f"{name}/b": (n_out,)}
        self.decayed = (f"{name}/W",)
        if film:
            self.shapes[f"{name}/F"] = (film, 2 * n_out)

    def init(self, normal) -> dict[str, np.ndarray]:
        arrays = {name: np.zeros(shape) for name, shape in self.shapes.items()}
        W = self.shapes[f"{self.name}/W"]
        arrays[f"{self.name}/W"] = normal(W) * self.gain / W[0] ** 0.5
        return arrays

    def forward(self, ops, params, x, context):
        film = ops.matmul(context.features, params[f"{self.name}/F"]) if self.film else None
        y, inner = ops.activate(
            ops.matmul(x, params[f"{self.name}/W"]), params[f"{self.name}/b"], self.activation, film
        )
        return y, (x, inner, context.features)

    def backward(self, ops, params, grads, tape, dy, need_dx=True):
        x, inner, features = tape
        dz, dfilm = ops.activate_backward(dy, inner, grads[f"{self.name}/b"])
        if self.film:
            ops.matmul(features.T, dfilm, out=grads[f"{self.name}/F"])
        ops.matmul(x.T, dz, out=grads[f"{self.name}/W"])
        return ops.matmul(dz, params[f"{self.name}/W"].T) if need_dx else None


class BumpReadout:
    """y = sum_j g_j(t) (x W_j + b_j): read-out weights that are a smooth function of t. W is (n_in, J n_out), b is (J,
    n_out).

    The features are the bumps g (B, J), which sum to 1 (Sohl-Dickstein et al. 2015, appendix, "temporal dependence").
    Starts at 0.
    """

    def __init__(self, name: str, n_in: int, n_out: int, bumps: int):
        self.name, self.n_out, self.bumps = name, n_out, bumps
        self.shapes, self.decayed = {f"{name}/W": (n_in, bumps * n_out), f"{name}/b": (bumps, n_out)}, (f"{name}/W",)

    def init(self, normal) -> dict[str, np.ndarray]:
        return {name: np.zeros(shape) for name, shape in self.shapes.items()}

    def forward(self, ops, params, x, context):
        g = context.features
        parts = ops.matmul(x, params[f"{self.name}/W"]).reshape(len(x), self.bumps, self.n_out)
        return (parts * g[:, :, None]).sum(1) + ops.matmul(g, params[f"{self.name}/b"]), (x, g)

    def backward(self, ops, params, grads, tape, dy, need_dx=True):
        x, g = tape
        ops.matmul(g.T, dy, out=grads[f"{self.name}/b"])
        dparts = (g[:, :, None] * dy[:, None, :]).reshape(len(x), self.bumps * self.n_out)
        ops.matmul(x.T, dparts, out=grads[f"{self.name}/W"])
        return ops.matmul(dparts, params[f"{self.name}/W"].T) if need_dx else None


class StepReadout:
    """y = x W_t + b_t: a read-out of its own for every step, as in the reference. W is (T + 1, n_in, n_out); entry 0 is
    unused. Starts at 0."""

    def __init__(self, name: str, n_in: int, n_out: int, T: int):
        self.name = name
        self.shapes, self.decayed = {f"{name}/W": (T + 1, n_in, n_out), f"{name}/b": (T + 1, n_out)}, (f"{name}/W",)

    def init(self, normal) -> dict[str, np.ndarray]:
        return {name: np.zeros(shape) for name, shape in self.shapes.items()}

    def forward(self, ops, params, x, context):
        W = params[f"{self.name}/W"][context.t]
        return ops.matmul(x[:, None, :], W)[:, 0] + params[f"{self.name}/b"][context.t], (x, context.t, W)

    def backward(self, ops, params, grads, tape, dy, need_dx=True):
        x, t, W = tape
        dW, db = grads[f"{self.name}/W"], grads[f"{self.name}/b"]
        dW[...] = 0
        db[...] = 0
        t = ops.to_host(t)
        order = np.argsort(t, kind="stable")  # rows of one step are summed together, in a fixed order
        edges = np.flatnonzero(np.diff(t[order], prepend=-1))
        for rows in np.split(order, edges[1:]):
            now, rows = int(t[rows[0]]), ops.asarray(rows)
            ops.matmul(x[rows].T, dy[rows], out=dW[now])
            db[now] = dy[rows].sum(0)
        return ops.matmul(W, dy[:, :, None])[:, :, 0] if need_dx else None


class LayerNorm:
    """y = gain * (x - mean) / sqrt(variance + eps) + shift, over the units of a row (Ba et al. 2016)."""

    def __init__(self, name: str, n: int):
        self.name = name
        self.shapes, self.decayed = {f"{name}/gain": (n,), f"{name}/shift": (n,)}, ()

    def init(self, normal) -> dict[str, np.ndarray]:
        return {
            f"{self.name}/gain": np.ones(self.shapes[f"{self.name}/gain"]),
            f"{self.name}/shift": np.zeros(self.shapes[f"{self.name}/shift"]),
        }

    def forward(self, ops, params, x, context):
        return ops.layer_norm(x, params[f"{self.name}/gain"], params[f"{self.name}/shift"])

    def backward(self, ops, params, grads, tape, dy, need_dx=True):
        return ops.layer_norm_backward(dy, tape, grads[f"{self.name}/gain"], grads[f"{self.name}/shift"])


class Dropout:
    """Each unit is left out with probability `rate` while training, the others are scaled up (Srivastava et al. 2014).

    index : tells the noise of one dropout layer from another's
    """

    def __init__(self, rate: float, index: int):
        self.rate, self.index = rate, index
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.decayed = ()

    def init(self, normal) -> dict[str, np.ndarray]:
        return {}

    def forward(self, ops, params, x, context):
        if context.key is None:
            return x, None
        key = Key(context.key.seed, rng.DROPOUT + (self.index << 8), context.key.step)
        mask = ops.keep_mask(key, x.shape, self.rate, x.dtype)
        return x * mask, mask

    def backward(self, ops, params, grads, tape, dy, need_dx=True):
        return dy if tape is None else dy * tape


class Residual:
    """y = x + inner(x), where inner is a list of layers that keeps the width."""

    def __init__(self, layers: list):
        self.layers = layers
        self.shapes = {name: shape for layer in layers for name, shape in layer.shapes.items()}
        self.decayed = tuple(name for layer in layers for name in layer.decayed)

    def init(self, normal) -> dict[str, np.ndarray]:
        return {name: array for layer in self.layers for name, array in layer.init(normal).items()}

    def forward(self, ops, params, x, context):
        y, tape = x, []
        for layer in self.layers:
            y, saved = layer.forward(ops, params, y, context)
            tape.append(saved)
        return x + y, tape

    def backward(self, ops, params, grads, tape, dy, need_dx=True):
        dx = dy
        for layer, saved in zip(reversed(self.layers), reversed(tape)):
            dx = layer.backward(ops, params, grads, saved, dx)
        return dy + dx
