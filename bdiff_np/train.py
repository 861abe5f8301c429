"""Training: one step is five lines, in the order of the paper. A back end may fuse many of them into one compiled call.

Everything random is addressed by (seed, step), so that a training needs nothing but its weights, its moments and its
step to go on exactly.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from bdiff_np import rng
from bdiff_np.data import Data
from bdiff_np.data.orders import Orders
from bdiff_np.errors import InputError
from bdiff_np.model import Model
from bdiff_np.nets.netcheck import rehearse
from bdiff_np.optim.adamw import AdamW, Diverged
from bdiff_np.rng import Key
from bdiff_np.runfolder.progress import compiling

MOST_STEPS = 1000  # of an epoch whose length the configuration leaves open; an epoch ends with a line of the report
SOME = 1024  # rows that the exact terms of the logged loss are averaged over
ROW = 32  # bytes of a batch's row in a fused step, which takes the rows in slices: its number, step and losses
CALL_ELEMENTS = 1 << 25  # of the rows that one compiled call is given


class Training:
    """A model, its data and its optimiser.

    model : untrained; its parameters are set here, from the seed
    rows : the training rows
    """

    def __init__(self, model: Model, rows: Data):
        self.model, self.rows = model, rows
        self.settings, self.seed = model.config.training, model.config.training.seed
        self.T, self.repeats = model.chain.T, model.config.model.num_sample_steps
        self.batch_rows = min(model.config.data.batch_size, len(rows))
        # By default an epoch shows every row at as many timesteps as the chain has, as an epoch of the reference does.
        whole = -(-len(rows) // self.batch_rows) * -(-self.T // self.repeats)
        self.steps_per_epoch = self.settings.steps_per_epoch or min(whole, MOST_STEPS)
        self.total_steps = self.settings.epochs * self.steps_per_epoch
        if self.total_steps >= rng.STEPS:
            raise InputError(
                f"training.epochs: {self.settings.epochs} epochs of {self.steps_per_epoch} steps are 2^32 steps or "
                "more, which have no random words; take fewer"
            )
        model.ops.allow_tf32(self.settings.tf32)
        # gradients, two moments and averages; on the host the first weights in float64 beside them
        buffers = 4 if model.ops.on_device else 7
        model.ops.reserve(buffers * model.params.flat.nbytes, "The optimiser", model.net.smaller)
        self.kernels = model.kernels(training=self.settings)
        model.params.fill(model.net.init(self.seed))
        # from the sum of KLs over a batch to the bound in nats per element
        scale = self.T / (self.batch_rows * self.repeats * model.D)
        self.optimizer = AdamW(model.ops, model.params, model.net.decays(), self.settings, self.total_steps, scale)
        # the bound's exact terms, averaged over rows evenly spread
        some = np.linspace(0, len(rows) - 1, min(SOME, len(rows))).astype(np.int64)
        self.added = float(model.family.exact_terms(model.chain, rows.take(some)).mean())
        self.averaged = replace(model, params=self.optimizer.ema)
        self._orders: tuple[object, Orders] | None = None  # what made them, and they
        self.most_at_once = max(1, CALL_ELEMENTS // (self.batch_rows * model.D))
        fused_step, batch = model.fused("step"), self.batch_rows * self.repeats
        self.fused = fused_step and fused_step.build(
            model, self.kernels, self.optimizer, rows=rows, batch=batch, seed=self.seed
        )
        self.resident = None
        if self.fused is None:
            if model.ops.on_device:
                self.reserve()
            self.resident = rows.resident(model.ops)

        wrong = [name for name in model.family.state(model.chain) if "/" in name or name in ("m", "v")]
        if wrong:
            raise InputError(f"the family {model.family.name}: a state is named {wrong[0]!r}; m, v and / are taken")
        if model.net.stages is None:
            self._check_output()

    def reserve(self) -> None:
        """Raises InputError where a step needs more memory than there is. On the host it is asked of the back end that
        trains in the end."""
        model, batch = self.model, self.batch_rows * self.repeats
        fix = f"take a smaller data.batch_size or model.num_sample_steps, or {model.net.smaller.removeprefix('take ')}"
        what = f"A training on {self.batch_rows} rows x {self.repeats} timesteps a step"
        need = memory(model, batch) if self.fused is None else ROW * batch
        model.ops.reserve(need + self.rows.nbytes, what, fix)

    def _check_output(self) -> None:
        """Raises InputError for a network whose output has not the shape that the family asks for, and for one of the
        user's own that fails."""
        model = self.model
        if model.net.path is not None:
            return rehearse(model, self.kernels)
        B = min(self.batch_rows, 8)
        x0, t = model.ops.asarray(self.rows.take(np.arange(B))), model.ops.asarray(np.ones(B, np.int64))
        shape = tuple(model.output(self.kernels.q_sample(x0, t, Key(self.seed, rng.Q_NOISE, 0)), t).shape)
        expected = B, model.family.outputs(model.D, model.config.model)
        if shape != expected:
            raise InputError(
                f"model.net: {model.config.model.net} gives an output of shape {shape}; the family "
                f"{model.family.name} asks for {expected}"
            )

    def step(self) -> float | None:
        """One optimiser step. Returns the batch's estimate of the bound in nats per row where `logged` says so, else
        None.

        Raises optim.Diverged, having changed nothing.
        """
        ops, net, params, K = self.model.ops, self.model.net, self.model.params, self.kernels
        step = self.optimizer.taken + 1
        key, logged = Key(self.seed, rng.Q_NOISE, step), self.logged(step)
        x0, t = self.batch(step)

        x_t = K.q_sample(x0, t, key)  # (B, D) noisy data
        out, tape = net.forward(ops, params, x_t, t, key)  # (B, M) what the family asks of its network
        kl, dout = K.kl_grad(out, x0, x_t, t, logged)  # (B,) nats, (B, M): loss and gradient leave one kernel together
        grads = net.backward(ops, params, tape, dout)
        self.optimizer.step(ops, params, grads)
        if not logged:
            return None
        self.optimizer.settle()
        return self.T * float(kl.mean()) + self.added

    def advance(self, count: int) -> list[float]:
        """`count` optimiser steps, in one compiled call where the back end has one. Returns the logged ones' losses;
        raises as `step`."""
        if self.fused is None or not count:
            return [loss for _ in range(count) if (loss := self.step()) is not None]
        optimizer, first = self.optimizer, self.optimizer.taken + 1
        steps = np.arange(first, first + count)
        logged = self.logged(steps)
        index = self._index(first, count).reshape(count, self.batch_rows)
        taken, losses, norms = self.fused(index, first, optimizer.numbers(steps), logged)
        if taken:
            optimizer.taken, optimizer.grad_norm = first + taken - 1, float(norms[taken - 1])
        if taken < count:
            optimizer.check(first + taken, float("nan"))
        return [self.T * float(loss) + self.added for loss in losses[logged]]

    def compile(self) -> None:
        """Compiles what `advance` needs and is not compiled yet, and says so on stderr; it comes with the first step
        otherwise."""
        if self.fused is not None:
            with compiling("training step", self.fused.function):
                self.fused(
                    np.zeros((0, self.batch_rows), np.int64), 1, self.optimizer.numbers(np.zeros(0)), np.zeros(0, bool)
                )

    def logged(self, step):
        """Whether the loss of a step, a number or an array, is worked out, which takes logarithms: one in 32 of an
        epoch with steps enough."""
        return step % max(1, min(32, self.steps_per_epoch // 32)) == 0

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows x0 (B, D) and their timesteps t (B,) of an optimiser step, B = batch_rows * repeats.

        Rows come from an endless sequence of passes over the data, each in an order of its own. A row's timesteps are
        spread over the chain.
        """
        index = np.tile(self.model.ops.to_host(self._index(step, 1)), self.repeats)
        t = rng.stratified_t(Key(self.seed, rng.TIME, step), self.batch_rows * self.repeats, self.T)
        return (self.resident or self.rows).take(index), self.model.ops.asarray(t)

    def _index(self, first: int, count: int):
        """The rows of steps first .. first + count - 1, (count * batch_rows,); on the device where the fused steps make
        their orders there."""
        N, b, seed = len(self.rows), self.batch_rows, self.seed
        if self._orders is None or self._orders[0] is not self.fused:
            if self.fused is None:
                orders, empty = partial(rng.permutations, seed, rng.SHUFFLE), np.empty
            else:
                orders, empty = self.fused.orders, self.fused.empty
            self._orders = self.fused, Orders(lambda first, passes: orders(first, passes, N), empty, N)
        return self._orders[1].take((first - 1) * b, count * b)

    def check_finite(self) -> None:
        """Raises optim.Diverged where a step on a device did, and for values that are not finite, of which no gradient
        told."""
        self.optimizer.settle()
        optimizer = self.optimizer
        arrays = {"weights": (self.model.params, optimizer.ema), "moments": (optimizer.m, optimizer.v)}
        for what, params in arrays.items():
            if not all(np.isfinite(self.model.ops.to_host(part.flat)).all() for part in params):
                raise Diverged(f"the {what} after step {optimizer.taken} are not finite numbers")

    def tensors(self) -> dict[str, np.ndarray]:
        """All that a checkpoint holds of the arrays. Raises optim.Diverged as `check_finite`."""
        self.check_finite()
        host = self.model.ops.to_host
        named = {f"params/{name}": host(array) for name, array in self.model.params.items()}
        named |= {f"ema/{name}": host(array) for name, array in self.optimizer.ema.items()}
        return named | {
            "m": host(self.optimizer.m.flat),
            "v": host(self.optimizer.v.flat),
            **self.model.family.state(self.model.chain),
        }

    def restore(self, tensors: dict[str, np.ndarray], step: int) -> None:
        """Goes back to where `tensors` were taken. Raises InputError if they are of another network."""
        try:
            self.model.params.fill({name[7:]: array for name, array in tensors.items() if name.startswith("params/")})
            self.optimizer.ema.fill({name[4:]: array for name, array in tensors.items() if name.startswith("ema/")})
            asarray = self.model.ops.asarray
            self.optimizer.m.flat[:], self.optimizer.v.flat[:] = asarray(tensors["m"]), asarray(tensors["v"])
        except (KeyError, ValueError) as fault:
            raise InputError(
                f"the checkpoint does not fit the network: {fault}; was reverse_model.py changed since?"
            ) from None
        self.optimizer.taken = step


def memory(model: Model, batch: int) -> int:
    """About what the five lines take beside the data and the optimiser, in bytes: two buffers of parameters, and each
    unit of a batch six times."""
    units = sum(shape[-1] for name, shape in model.net.shapes.items() if len(shape) > 1) + 4 * model.D
    return model.net.dtype.itemsize * (2 * model.params.flat.size + 6 * batch * units)
