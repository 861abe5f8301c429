"""The reverse chain with a perceptron on a GPU, a step being a few launches in arrays laid out once, by any
technology."""

from __future__ import annotations

import numpy as np

from bdiff_np import rng
from bdiff_np.kernels.mlp.mlp_device import Perceptron, Technology
from bdiff_np.rng import Key


class DeviceChain:
    """What all ways of walking share: scale and shift of every hidden layer at every t, which all rows of a step have
    in common.

    model : of the weights to use. kernels : of the chain to walk, which may leave steps out. rows : how many there will
        be at a time, at most
    """

    function = None  # nothing that Numba keeps on disk

    def __init__(self, on: Technology, model, kernels, rows: int):
        self.on, self.net, self.params, self.kernels, self.D = on, model.net, model.params, kernels, model.D
        time, net, asarray = kernels.chain.time, model.net, on.arrays.asarray
        self.features = asarray(net.features[time])
        # (T + 1, 2H) each
        self.films = [on.arrays.matmul(self.features, self.params[f"{layer.name}/F"]) for layer in net.dense[:-1]]
        self.odds = asarray(np.zeros(len(time), np.float32) if net.odds is None else net.odds[time])

    def held(self, known):
        """Elements that stay as they are, (B, D) uint8 on the device, or None."""
        return None if known is None else self.on.arrays.asarray(self.on.arrays.to_host(known).astype(np.uint8))


class LaunchedChain(DeviceChain):
    """A step's kernels launched one by one."""

    def __init__(self, on: Technology, model, kernels, rows: int):
        need = 4 * Perceptron.floats(model.net, rows, 0, 0)
        on.arrays.reserve(
            need, f"Walking {rows} rows at a time", "take narrower layers (model.hidden), or --backend numba"
        )
        super().__init__(on, model, kernels, rows)
        self.rows = 0

    def __call__(self, x, first: int, steps: int, *, seed: int, first_row: int = 0, known=None) -> None:
        """Takes x (B, D), in place, from x_first to x_{first - steps}. known : (B, D) bool or uint8, elements that stay
        as they are"""
        (B, _), arrays, held = x.shape, self.on.arrays, self.held(known)
        if B != self.rows:
            self.rows, self.t = B, arrays.empty(B, np.int64)
            self.perceptron = Perceptron(self.on, self.net, self.params, B)
        for t in range(first, first - steps, -1):
            arrays.fill(self.t, t)
            films = [film[t : t + 1] for film in self.films]
            self.perceptron.forward_at(x, self.t, self.features, self.odds, films)
            net, key = self.perceptron, Key(seed, rng.P_NOISE, t)
            self.on.family.p_sample(self.kernels.law, net.z[-1], net.logits_bias, x, self.t, held, key, first_row, x)
