"""Many optimiser steps with a perceptron in Numba-CUDA: the launches of fused_step_device.py."""

from __future__ import annotations

from bdiff_np.kernels.dense import arrays_numba_cuda, dense_numba_cuda
from bdiff_np.kernels.mlp.mlp_device import Technology
from bdiff_np.kernels.training import training_numba_cuda
from bdiff_np.kernels.training.fused_step_device import LaunchedSteps
from bdiff_np.kernels.training.hooks_device import FamilyKernels, can_fuse


def build(model, kernels, optimizer, *, rows, batch: int, seed: int) -> LaunchedSteps | None:
    """The steps of a training, or None where hooks_device.can_fuse says no. Arguments: `DeviceSteps`."""
    if not can_fuse(model.net, kernels):
        return None
    return LaunchedSteps(technology(kernels), model, kernels, optimizer, rows=rows, batch=batch, seed=seed)


def technology(kernels: FamilyKernels) -> Technology:
    return Technology(arrays_numba_cuda, dense_numba_cuda, training_numba_cuda, kernels.launch)
