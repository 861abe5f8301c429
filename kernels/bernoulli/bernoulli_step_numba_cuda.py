"""Many optimiser steps of Bernoulli diffusion with a perceptron in Numba-CUDA: the launches of bernoulli_step_device.py."""

from __future__ import annotations

from bdiff_np.kernels.bernoulli import bernoulli_numba_cuda
from bdiff_np.kernels.bernoulli.bernoulli_step_device import LaunchedSteps, fits
from bdiff_np.kernels.dense import arrays_numba_cuda, dense_numba_cuda
from bdiff_np.kernels.mlp.mlp_device import Technology

ON = Technology(arrays_numba_cuda, dense_numba_cuda, bernoulli_numba_cuda)


def build(model, kernels, optimizer, *, rows, batch: int, seed: int) -> LaunchedSteps | None:
    """The steps of a training, or None where the network is not one of dense layers alone or not float32. Arguments: `Steps`."""
    return LaunchedSteps(ON, model, kernels, optimizer, rows=rows, batch=batch, seed=seed) if fits(model.net) else None
