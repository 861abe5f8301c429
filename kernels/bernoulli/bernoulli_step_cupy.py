"""Many optimiser steps of Bernoulli diffusion with a perceptron on CuPy; the first of three ways that the network allows:

one kernel for many steps, weights in shared memory (bernoulli_step.cu); a captured graph of a step's launches, for narrow nets that are too large
for that; launches one by one with cuBLAS, for wide nets.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from bdiff_np.kernels.bernoulli import bernoulli_cupy
from bdiff_np.kernels.bernoulli.bernoulli_step_device import LaunchedSteps, Steps, fits
from bdiff_np.kernels.dense import arrays_cupy, dense_cupy
from bdiff_np.kernels.mlp import mlp_plan
from bdiff_np.kernels.mlp.mlp_device import Technology, is_narrow
from bdiff_np.kernels.shared.cuda_cupy import Module, multiprocessors, shared_limit
from bdiff_np.kernels.shared.cuda_grid import blocks

ROWS = (64, 32, 16, 8, 4)  # that a block takes together, whatever fits first; the result is the same
ON = Technology(arrays_cupy, dense_cupy, bernoulli_cupy)
STEP = Module("bernoulli_step.cu", "take", cooperative=True)
i32, u64 = np.int32, np.uint64


def build(model, kernels, optimizer, *, rows, batch: int, seed: int) -> Steps | None:
    """The steps of a training, or None where the network is not one of dense layers alone or not float32. Arguments: `Steps`."""
    if not fits(model.net):
        return None
    kind = LaunchedSteps if not is_narrow(model.net) else FusedSteps if plan(model.net) else CapturedSteps
    return kind(ON, model, kernels, optimizer, rows=rows, batch=batch, seed=seed)


def plan(net, rows: int = ROWS[0]) -> mlp_plan.Plan | None:
    """How a network lies in shared memory, if it fits, for as many of a group's `rows` as there is room for, to the next four."""
    candidates = tuple(together for together in ROWS if together < rows + 4)
    return mlp_plan.largest(net, shared_limit(), candidates, training=True, extra=mlp_plan.SUMS)


class FusedSteps(Steps):
    """One cooperative kernel for all steps of a call; see bernoulli_step.cu."""

    def __init__(self, on: Technology, model, kernels, optimizer, **options):
        super().__init__(on, model, kernels, optimizer, **options)
        net, P, arrays = model.net, self.params.flat.size, on.arrays
        fitting = plan(net, -(-self.batch // self.groups))
        assert fitting is not None, "build() has asked"
        self.plan = fitting
        self.numbers = arrays.asarray(self.plan.numbers)
        self.tables = arrays.asarray(net.features.ravel() if net.odds is None else np.concatenate([net.features.ravel(), net.odds]))
        self.grads, self.arrived = arrays.empty(self.groups * P, np.float32), arrays.empty(1, np.uint32)
        # One block on each multiprocessor: all of a cooperative launch must be there at once. More than there is work for would only wait.
        self.grid = min(multiprocessors(), max(self.groups, blocks(P, 4096)))

    def floats(self) -> int:
        return self.groups * self.params.flat.size

    def load(self) -> None:
        STEP.get("take")

    def run(self, first: int, count: int) -> None:
        law, o = self.kernels.law, self.optimizer
        self.on.arrays.fill(self.arrived, 0)
        STEP.launch(
            "take", np.float32, (self.grid,), self.numbers, law.noise, law.table, i32(law.form), i32(law.T), np.float32(law.bce), self.tables,
            self.params.flat, o.m.flat, o.v.flat, o.ema.flat, self.decayed, self.packed, self.index, self.rates, self.logged, self.losses, self.norms,
            self.kl, self.grads, self.total, self.squares, self.arrived, u64(self.seed), u64(first), np.float32(self.clip), i32(count),
            i32(self.rows_of_batch), i32(self.batch), i32(self.groups), i32(self.plan.rows), i32(len(self.squares)),
            shared=4 * self.plan.floats + mlp_plan.SUMS,
        )  # fmt: skip


class CapturedSteps(LaunchedSteps):
    """The launches of a step captured once in a CUDA graph and replayed, products by our own kernels: the host only says "again"."""

    graph: Any = None  # cupy.cuda.Graph, from the first step on

    def prepare(self, b: int) -> None:
        """A step that changes nothing, so that all kernels are loaded; then a step that is recorded and not run. Once for each size of batch."""
        if b == self.rows_of_batch:
            return
        super().prepare(b)  # the graph holds the old array of rows
        super().load()
        stream = cupy.cuda.Stream()
        with stream:
            stream.begin_capture()
            self.step()
            self.graph = stream.end_capture()

    def run(self, first: int, count: int) -> None:
        self.reset(first)
        for _ in range(count):
            self.graph.launch()

    def load(self) -> None:
        """`prepare` has done it."""
