"""Many optimiser steps with a perceptron on CuPy; the first of three ways that the network allows:

one kernel for many steps, weights in shared memory (the family's `take`); a captured graph of a step's launches, for
narrow nets that are too large for that; launches one by one with cuBLAS, for wide nets.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from bdiff_np.kernels.dense import arrays_cupy, dense_cupy
from bdiff_np.kernels.mlp import mlp_plan
from bdiff_np.kernels.mlp.mlp_device import Technology, is_narrow
from bdiff_np.kernels.shared.cuda_cupy import multiprocessors, shared_limit, struct
from bdiff_np.kernels.shared.cuda_grid import blocks
from bdiff_np.kernels.training import training_cupy
from bdiff_np.kernels.training.fused_step_device import DeviceSteps, LaunchedSteps
from bdiff_np.kernels.training.hooks_device import FamilyKernels, can_fuse

ROWS = (64, 32, 16, 8, 4)  # that a block takes together, whatever fits first; the result is the same


def build(model, kernels, optimizer, *, rows, batch: int, seed: int) -> DeviceSteps | None:
    """The steps of a training, or None where hooks_device.can_fuse says no. Arguments: `DeviceSteps`."""
    if not can_fuse(model.net, kernels):
        return None
    fused = kernels.take is not None and plan(model.net) is not None
    kind = LaunchedSteps if not is_narrow(model.net) else FusedSteps if fused else CapturedSteps
    return kind(technology(kernels), model, kernels, optimizer, rows=rows, batch=batch, seed=seed)


def technology(kernels: FamilyKernels) -> Technology:
    return Technology(arrays_cupy, dense_cupy, training_cupy, kernels.launch)


def plan(net, rows: int = ROWS[0]) -> mlp_plan.Plan | None:
    """How a network lies in shared memory, if it fits, for as many of a group's `rows` as there is room for, to the
    next four."""
    candidates = tuple(together for together in ROWS if together < rows + 4)
    return mlp_plan.largest(net, shared_limit(), candidates, training=True, extra=mlp_plan.SUMS)


class FusedSteps(DeviceSteps):
    """One cooperative kernel for all steps of a call; see bernoulli_step.cu, the family's."""

    def __init__(self, on: Technology, model, kernels, optimizer, **options):
        super().__init__(on, model, kernels, optimizer, **options)
        net, P, arrays = model.net, self.params.flat.size, on.arrays
        fitting = plan(net, -(-self.batch // self.groups))
        assert fitting is not None, "build() has asked"
        self.plan = fitting
        self.numbers = arrays.asarray(self.plan.numbers)
        self.tables = arrays.asarray(
            net.features.ravel() if net.odds is None else np.concatenate([net.features.ravel(), net.odds])
        )
        self.grads, self.arrived = arrays.empty(self.groups * P, np.float32), arrays.empty(1, np.uint32)
        # One block on each multiprocessor: all of a cooperative launch must be there at once. More than there is work
        # for would only wait.
        self.grid = min(multiprocessors(), max(self.groups, blocks(P, 4096)))

    def floats(self) -> int:
        return self.groups * self.params.flat.size

    def load(self) -> None:
        self.kernels.take.get("take")

    def run(self, first: int, count: int) -> None:
        o = self.optimizer
        self.on.arrays.fill(self.arrived, 0)
        steps = struct(
            training_cupy.STEPS, plan=self.numbers, tables=self.tables, params=self.params.flat, m=o.m.flat,
            v=o.v.flat, ema=o.ema.flat, decayed=self.decayed, data=self.data.array, index=self.index, rates=self.rates,
            logged=self.logged, losses=self.losses, norms=self.norms, kl=self.kl, grads=self.grads, total=self.total,
            squares=self.squares, arrived=self.arrived, seed=self.seed, first=first, most=self.clip, count=count,
            rows=self.rows_of_batch, B=self.batch, groups=self.groups, R=self.plan.rows, pieces=len(self.squares),
        )  # fmt: skip
        shared = 4 * self.plan.floats + mlp_plan.SUMS
        self.kernels.take.launch("take", np.float32, (self.grid,), steps, self.kernels.argument(self.D), shared=shared)


class CapturedSteps(LaunchedSteps):
    """The launches of a step captured once in a CUDA graph and replayed, products by our own kernels: the host only
    says "again"."""

    graph: Any = None  # cupy.cuda.Graph, from the first step on

    def prepare(self, b: int) -> None:
        """A step that changes nothing, so that all kernels are loaded; then a step that is recorded and not run. Once
        for each size of batch."""
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
