"""Many optimiser steps with a perceptron on a GPU, without the host waiting for any of them, for the family that
hooks_device.py describes.

Data, weights and noise stay on the device; the losses and norms of all steps of a call come back together at its end.
Here a step is a sequence of launches, by any technology; fused_step_cupy.py adds a captured graph of it, and one kernel
for many steps.
"""

from __future__ import annotations

import numpy as np

from bdiff_np import rng
from bdiff_np.kernels.dense.dense_codes import rates_table
from bdiff_np.kernels.mlp.mlp_device import Perceptron, Technology
from bdiff_np.kernels.shared.cuda_grid import Parts, pieces

GROUP, MOST_GROUPS = 32, 512  # rows of a group at least, groups at most: each has a gradient of its own
GRADIENTS = 1 << 23  # floats of all their gradients, at most
AT_ONCE, WAITING = 1024, 1 << 22  # steps whose rates and rows wait on the device, and how many of these rows, at most


class DeviceSteps:
    """What all ways of taking steps share: data, numbers of each step, and what comes back.

    model : of the network to train, in place. kernels : hooks_device.FamilyKernels. optimizer : optim.AdamW. rows :
        data.Data
    batch : rows of a step, repeats included. seed : of all noise. Raises InputError where the card has too little
        memory.
    """

    function = None  # nothing that Numba keeps on disk; CuPy compiles in seconds

    def __init__(self, on: Technology, model, kernels, optimizer, *, rows, batch: int, seed: int):
        P, own, arrays = model.params.flat.size, min(len(rows), batch), on.arrays
        self.on, self.net, self.params, self.kernels, self.optimizer = on, model.net, model.params, kernels, optimizer
        self.batch, self.seed, self.D = batch, seed, model.D
        self.groups = max(1, min(MOST_GROUPS, batch // GROUP, GRADIENTS // P))
        self.rows_of_batch = 0
        self.at_once = max(1, min(AT_ONCE, WAITING // own))
        orders = 40 * max(len(rows), self.at_once * own)  # words and places of a shuffle, and what a sort takes besides
        need = 4 * (self.floats() + P) + rows.nbytes + self.at_once * (4 * own + 48) + orders
        fix = (
            f"take a smaller data.batch_size or model.num_sample_steps (a step has {batch} rows now), or narrower "
            "layers (model.hidden)"
        )
        arrays.reserve(need, "A training step", fix)
        self.empty = new = arrays.empty
        self.data = rows.resident(model.ops)
        self.decayed = optimizer.decayed
        self.rates, self.logged = new((self.at_once, 8), np.float32), new(self.at_once, np.uint8)
        self.losses = arrays.zeros(self.at_once, np.float32)  # all come back, also of steps that are not logged
        self.norms, self.kl = new(self.at_once, np.float32), new(batch, np.float32)
        self.total, self.squares = new(P, np.float32), new(pieces(P), np.float32)
        self.clip = float(optimizer.settings.clip_thresh or np.inf)

    def floats(self) -> int:
        """What this way takes of the card's memory besides, in float32 numbers, about."""
        raise NotImplementedError

    def run(self, first: int, count: int) -> None:
        """Takes steps first .. first + count - 1, whose numbers are on the device."""
        raise NotImplementedError

    def load(self) -> None:
        """Compiles and loads all that a step needs, and changes nothing."""
        raise NotImplementedError

    def orders(self, first: int, passes: int, N: int):
        """rng.permutations of N rows for so many passes over the data, (passes, N) int32, on the device."""
        words = self.empty((passes, N), np.uint64)
        self.on.training.shuffle_words(self.seed, rng.SHUFFLE, first, words)
        return self.on.arrays.argsort(words)

    def __call__(self, index, first: int, numbers: dict, logged: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
        """Steps first, first + 1, ..., in place on the optimiser's buffers.

        index : (steps, b) int32 rows of the data, on the device. numbers : ops.adamw's numbers of each step
        logged : (steps,) bool, whether a step's loss is wanted

        Returns
        -------
        taken : fewer than asked if a gradient is not finite. losses : (steps,) mean KL in nats where wanted. norms :
            (steps,) of the gradients
        """
        (count, b), arrays = index.shape, self.on.arrays
        losses, norms, taken = np.zeros(count), np.full(count, np.nan), 0
        table = rates_table(count, numbers)
        self.prepare(b)
        if not count:
            self.load()
        for lo in range(0, count, self.at_once):
            now, some = slice(lo, lo + self.at_once), min(self.at_once, count - lo)
            self.index[: some * b] = index[now].reshape(some * b)
            arrays.upload(self.rates[:some], table[now])
            arrays.upload(self.logged[:some], logged[now].astype(np.uint8))
            arrays.fill(self.norms, np.nan)
            self.run(first + lo, some)
            norms[now] = arrays.to_host(self.norms[:some]).astype(np.float64) * numbers["scale"]
            losses[now] = np.where(logged[now], arrays.to_host(self.losses[:some]), 0.0)
            good = int(np.isfinite(norms[now]).sum())
            taken += good
            if good < some:
                break
        return taken, losses, norms

    def prepare(self, b: int) -> None:
        """For batches of b rows of the data."""
        if b != self.rows_of_batch:
            self.rows_of_batch, self.index = b, self.empty(self.at_once * b, np.int32)


class LaunchedSteps(DeviceSteps):
    """A step's kernels launched one by one."""

    def __init__(self, on: Technology, model, kernels, optimizer, **options):
        super().__init__(on, model, kernels, optimizer, **options)
        B, D, arrays = self.batch, self.D, on.arrays
        self.perceptron = Perceptron(on, self.net, self.params, B, self.groups)
        self.x0, self.x_t = arrays.empty((B, D), model.kind.dtype), arrays.empty((B, D), model.x_dtype)
        self.t = arrays.empty(B, np.int64)
        self.clock, self.halted = arrays.zeros(2, np.uint64), arrays.zeros(1, np.int32)

    def floats(self) -> int:
        return Perceptron.floats(self.net, self.batch, self.groups, self.params.flat.size) + self.batch * (
            self.D // 2 + 2
        )

    def run(self, first: int, count: int) -> None:
        self.reset(first)
        for _ in range(count):
            self.step()

    def load(self) -> None:
        for array in (self.index, self.rates, self.logged):
            self.on.arrays.fill(array, 0)
        self.reset(0)
        self.on.arrays.fill(self.halted, 1)  # a step whose gradient counts as not finite is not taken
        self.step()
        self.on.arrays.wait()

    def reset(self, first: int) -> None:
        """The clock at step `first`, the first of a call."""
        self.on.arrays.upload(self.clock, np.array([first, 0], np.uint64))
        self.on.arrays.fill(self.halted, 0)

    def step(self) -> None:
        """The launches of one step, in the order of train.py's five lines."""
        net, o, P, law = self.perceptron, self.optimizer, self.params.flat.size, self.kernels.law
        dense, training, family = self.on.dense, self.on.training, self.on.family
        training.draw_t(self.seed, rng.TIME, self.clock, law.T, self.t)
        family.q_batch(
            law,
            self.data,
            self.index,
            self.rows_of_batch,
            self.t,
            self.seed,
            rng.Q_NOISE,
            self.clock,
            self.x0,
            self.x_t,
        )
        net.forward(self.x_t, self.t)
        family.kl_grad(
            law, net.z[-1], net.logits_bias, self.x0, self.x_t, self.t, self.logged, self.clock, self.kl, net.dy[-1]
        )
        net.backward()
        grad = self.total if net.groups > 1 else net.grads
        dense.sum_parts(Parts(net.grads, net.groups, P), self.total if net.groups > 1 else None, self.squares)
        dense.norm(self.squares, self.norms, self.clock, self.halted)
        buffers = self.params.flat, grad, o.m.flat, o.v.flat, o.ema.flat
        dense.adamw(*buffers, self.decayed, self.norms, self.rates, self.clip, self.clock)
        training.finish(self.kl, self.logged, self.clock, self.losses)
