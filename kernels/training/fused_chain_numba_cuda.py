"""The reverse chain with a perceptron in Numba-CUDA: the launches of fused_chain_device.py."""

from __future__ import annotations

from bdiff_np.kernels.training.fused_chain_device import LaunchedChain
from bdiff_np.kernels.training.fused_step_numba_cuda import technology
from bdiff_np.kernels.training.hooks_device import can_fuse


def build(model, kernels, rows: int) -> LaunchedChain | None:
    """The chain of a model, or None where hooks_device.can_fuse says no. Arguments: `DeviceChain`."""
    return LaunchedChain(technology(kernels), model, kernels, rows) if can_fuse(model.net, kernels) else None
