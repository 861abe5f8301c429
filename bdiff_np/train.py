"""Training: one step is five lines, in the order of the paper.

Everything random is addressed by (seed, step), so that a training needs nothing but its weights, its moments and its step to go on exactly.
"""

from __future__ import annotations

import zlib

import numpy as np

from bdiff_np import rng
from bdiff_np.data import Rows
from bdiff_np.errors import InputError
from bdiff_np.model import Model, module
from bdiff_np.optim import AdamW
from bdiff_np.rng import Key

MOST_STEPS = 1000  # of an epoch whose length the configuration leaves open: what a user waits for between two looks


class Training:
    """A model, its data and its optimiser.

    model : untrained; its parameters are set here, from the seed
    rows : the training rows
    """

    def __init__(self, model: Model, rows: Rows):
        self.model, self.rows = model, rows
        self.settings, self.seed = model.config.training, model.config.training.seed
        self.T, self.repeats = model.chain.T, model.config.model.num_sample_steps
        self.batch_rows = min(model.config.data.batch_size, len(rows))
        # By default an epoch shows every row at as many timesteps as the chain has, as an epoch of the reference does.
        whole = -(-len(rows) // self.batch_rows) * -(-self.T // self.repeats)
        self.steps_per_epoch = self.settings.steps_per_epoch or min(whole, MOST_STEPS)
        self.total_steps = self.settings.epochs * self.steps_per_epoch
        auxiliary = self.settings.bce_weight
        if auxiliary is None:
            auxiliary = 1.0 if model.config.model.predict == "x0" else 0.0
        self.kernels = model.kernels(bce_weight=auxiliary)
        model.params.fill(model.net.init(self.seed))
        scale = self.T / (self.batch_rows * self.repeats * model.D)  # from the sum of KLs over a batch to the bound in nats per bit
        self.optimizer = AdamW(model.ops, model.params, model.net.shapes, self.settings, self.total_steps, scale)
        self.averaged = Model(model.config, model.D, model.ops, model.chain, model.net, self.optimizer.ema)
        self._orders: dict[int, np.ndarray] = {}

    def step(self) -> float:
        """One optimiser step. Returns the batch's estimate of the bound in nats per row. Raises optim.Diverged, having changed nothing."""
        ops, net, params, K = self.model.ops, self.model.net, self.model.params, self.kernels
        step = self.optimizer.taken + 1
        key = Key(self.seed, rng.Q_NOISE, step)
        x0, t = self.batch(step)

        x_t = K.q_sample(x0, t, key)  # (B, D) noisy bits
        logits, tape = net.forward(ops, params, x_t, t, key)  # (B, D) what the net adds to the logits
        kl, dlogits = K.kl_grad(logits, x0, x_t, t)  # (B,) nats, (B, D): loss and gradient leave one kernel together
        grads = net.backward(ops, params, tape, dlogits)
        self.optimizer.step(ops, params, grads)
        return self.T * float(kl.mean())

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows x0 (B, D) and their timesteps t (B,) of an optimiser step, B = batch_rows * repeats.

        Rows come from an endless sequence of passes over the data, each in an order of its own. A row's timesteps are spread over the chain.
        """
        N, b = len(self.rows), self.batch_rows
        position = np.arange((step - 1) * b, step * b)
        passes = position // N
        index = np.concatenate([self._order(p)[position[passes == p] % N] for p in range(passes[0], passes[-1] + 1)])
        x0 = self.rows.take(index)
        t = rng.stratified_t(Key(self.seed, rng.TIME, step), b * self.repeats, self.T)
        return (np.tile(x0, (self.repeats, 1)) if self.repeats > 1 else x0), t

    def _order(self, number: int) -> np.ndarray:
        if number not in self._orders:
            self._orders = {p: order for p, order in self._orders.items() if p == number - 1}  # a batch straddles two passes at most
            self._orders[number] = rng.permutation(Key(self.seed, rng.SHUFFLE, number), len(self.rows))
        return self._orders[number]

    def tensors(self) -> dict[str, np.ndarray]:
        """All that a checkpoint holds of the arrays."""
        host = self.model.ops.to_host
        named = {f"params/{name}": host(array) for name, array in self.model.params.items()}
        named |= {f"ema/{name}": host(array) for name, array in self.optimizer.ema.items()}
        return named | {"m": host(self.optimizer.m.flat), "v": host(self.optimizer.v.flat), "pi": self.model.chain.pi}

    def restore(self, tensors: dict[str, np.ndarray], step: int) -> None:
        """Goes back to where `tensors` were taken. Raises InputError if they are of another network."""
        try:
            self.model.params.fill({name[7:]: array for name, array in tensors.items() if name.startswith("params/")})
            self.optimizer.ema.fill({name[4:]: array for name, array in tensors.items() if name.startswith("ema/")})
            self.optimizer.m.flat[...], self.optimizer.v.flat[...] = tensors["m"], tensors["v"]
        except (KeyError, ValueError) as fault:
            raise InputError(f"the checkpoint does not fit the network: {fault}; was reverse_model.py changed since?") from None
        self.optimizer.taken = step


def stationary_law(settings, rows: Rows) -> np.ndarray:
    """pi of a `model` section as an array: () for a number, (D,) for "data"."""
    if settings.pi != "data":
        return np.asarray(settings.pi, np.float64)
    return module("diffusion", settings.family, "make_chain").data_pi(rows.mean(), len(rows))


def fingerprint(rows: Rows) -> int:
    """A checksum of rows, to tell at resume whether they are still the same."""
    return zlib.crc32(np.ascontiguousarray(rows.packed).tobytes(), rows.D)
