"""The reverse chain with a perceptron on CuPy: one kernel of the family for all rows and many steps where the weights
fit into the shared memory of a block; else a step is a few launches."""

from __future__ import annotations

import cupy
import numpy as np

from bdiff_np.kernels.mlp import mlp_plan
from bdiff_np.kernels.mlp.mlp_device import Technology, is_narrow
from bdiff_np.kernels.shared.cuda_cupy import multiprocessors, shared_limit, struct
from bdiff_np.kernels.training import training_cupy
from bdiff_np.kernels.training.fused_chain_device import DeviceChain, LaunchedChain
from bdiff_np.kernels.training.fused_step_cupy import ROWS, technology
from bdiff_np.kernels.training.hooks_device import can_fuse

LEAST_ROWS, MOST_ROWS = 8, 512  # of a block


def build(model, kernels, rows: int) -> DeviceChain | None:
    """The chain of a model, or None where hooks_device.can_fuse says no. Arguments: `DeviceChain`."""
    if not can_fuse(model.net, kernels):
        return None
    fused = kernels.walk_back is not None and is_narrow(model.net) and plan(model.net) is not None
    return (FusedChain if fused else LaunchedChain)(technology(kernels), model, kernels, rows)


def plan(net) -> mlp_plan.Plan | None:
    """How a network lies in shared memory beside the rows of a block, if it fits. The rows it is asked for together do
    not change the result."""
    return mlp_plan.largest(net, shared_limit(), ROWS, training=False, extra=beside(MOST_ROWS, net.D))


def beside(rows: int, D: int) -> int:
    """Bytes that a block of so many rows takes beside the network: their elements, eight to a byte, a flag and a place
    in a list for each."""
    return 4 * (-(-rows * -(-D // 8) // 4) + -(-rows // 32) + rows)


class FusedChain(DeviceChain):
    """One kernel for all steps of a call."""

    def __init__(self, on: Technology, model, kernels, rows: int):
        super().__init__(on, model, kernels, rows)
        fitting = plan(model.net)
        assert fitting is not None, "build() has asked"
        self.plan = fitting
        self.numbers, self.film = (
            on.arrays.asarray(self.plan.numbers),
            on.arrays.asarray(cupy.concatenate(self.films, axis=1)),
        )

    def __call__(self, x, first: int, steps: int, *, seed: int, first_row: int = 0, known=None) -> None:
        """As LaunchedChain's."""
        B, held = len(x), self.held(known)
        if not B:
            return
        rows = max(LEAST_ROWS, min(MOST_ROWS, -(-B // multiprocessors())))
        walk = struct(
            training_cupy.WALK, plan=self.numbers, params=self.params.flat, films=self.film, odds=self.odds, held=held,
            x=x, seed=seed, first_row=first_row, width=self.film.shape[1], B=B, rows=rows, C=self.plan.rows,
            first=first, steps=steps,
        )  # fmt: skip
        shared = 4 * self.plan.floats + beside(rows, self.D)
        self.kernels.walk_back.launch(
            "walk_back", np.float32, (-(-B // rows),), walk, self.kernels.argument(self.D), shared=shared
        )
