"""The reverse chain of Bernoulli diffusion with a perceptron on CuPy: one kernel for all rows and many steps where the weights fit into the shared
memory of a block (bernoulli_chain.cu); else a step is a few launches."""

from __future__ import annotations

import cupy
import numpy as np

from bdiff_np.kernels.bernoulli.bernoulli_chain_device import Chain, LaunchedChain
from bdiff_np.kernels.bernoulli.bernoulli_step_cupy import ON, ROWS
from bdiff_np.kernels.bernoulli.bernoulli_step_device import fits
from bdiff_np.kernels.mlp import mlp_plan
from bdiff_np.kernels.mlp.mlp_device import Technology, is_narrow
from bdiff_np.kernels.shared.cuda_cupy import Module, multiprocessors, shared_limit

LEAST_ROWS, MOST_ROWS = 8, 512  # of a block
i32, u64 = np.int32, np.uint64
CHAIN = Module("bernoulli_chain.cu", "walk_back")


def build(model, kernels, rows: int) -> Chain | None:
    """The chain of a model, or None where its network is not one of dense layers alone or not float32. Arguments: `Chain`."""
    if not fits(model.net):
        return None
    return (FusedChain if is_narrow(model.net) and plan(model.net) else LaunchedChain)(ON, model, kernels, rows)


def plan(net) -> mlp_plan.Plan | None:
    """How a network lies in shared memory beside the rows of a block, if it fits. The rows it is asked for together do not change the result."""
    return mlp_plan.largest(net, shared_limit(), ROWS, training=False, extra=beside(MOST_ROWS, net.D))


def beside(rows: int, D: int) -> int:
    """Bytes that a block of so many rows takes beside the network: their bits, a flag and a place in a list for each."""
    return 4 * (-(-rows * -(-D // 8) // 4) + -(-rows // 32) + rows)


class FusedChain(Chain):
    """One kernel for all steps of a call."""

    def __init__(self, on: Technology, model, kernels, rows: int):
        super().__init__(on, model, kernels, rows)
        fitting = plan(model.net)
        assert fitting is not None, "build() has asked"
        self.plan = fitting
        self.numbers, self.film = on.arrays.asarray(self.plan.numbers), on.arrays.asarray(cupy.concatenate(self.films, axis=1))

    def __call__(self, x, first: int, steps: int, *, seed: int, first_row: int = 0, known=None) -> None:
        """As LaunchedChain's."""
        B, law = len(x), self.kernels.law
        if not B:
            return
        rows = max(LEAST_ROWS, min(MOST_ROWS, -(-B // multiprocessors())))
        CHAIN.launch(
            "walk_back", np.float32, (-(-B // rows),), self.numbers, law.noise, law.table, i32(law.form), i32(law.T), self.params.flat, self.film,
            i32(self.film.shape[1]), self.odds, self.held(known), u64(seed), u64(first_row), x, i32(B), i32(rows), i32(self.plan.rows), i32(first),
            i32(steps), shared=4 * self.plan.floats + beside(rows, self.D),
        )  # fmt: skip
