"""What the fused paths on a GPU ask of a family: a class that its `Kernels` there are derived from."""

from __future__ import annotations

from typing import Any

import numpy as np

from bdiff_np import diffusion


class FamilyKernels(diffusion.Kernels):
    """What a family fills into the step and the chain on a GPU.

    law : tables on the device, with T, the number of steps
    launch : a module of launches into arrays that are there; B rows of D elements, `clock` (step, count) on the device:
        q_batch(law, data, index, rows, t, seed, stream, clock, x0, x_t)     x_0 and x_t of a batch, from rows of
            data.Data.resident
        read_into(x_t, t, features, odds, x, f)                              what the network multiplies first
        kl_grad(law, out, bias, x0, x_t, t, logged, clock, kl, dout)         of out + bias; kl where logged[clock[1]]
        p_sample(law, out, bias, x_t, t, held, key, first_row, x_s)          held elements stay
    take, walk_back : fused kernels (cuda_cupy.Module) of those names, which take training.cuh's Steps or Walk and
        `argument(D)`; None for none
    """

    launch: Any
    take: Any = None
    walk_back: Any = None

    def argument(self, D: int) -> np.ndarray:
        """The law as the fused kernels take it by value, a struct (cuda_source.layout)."""
        raise NotImplementedError


def can_fuse(net, kernels) -> bool:
    """Whether these paths can take a network and a family's kernels: dense layers alone, in float32, a family that
    fills them."""
    return net.dense is not None and net.dtype == np.float32 and isinstance(kernels, FamilyKernels)
