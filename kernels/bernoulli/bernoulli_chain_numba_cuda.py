"""The reverse chain of Bernoulli diffusion with a perceptron in Numba-CUDA: the launches of bernoulli_chain_device.py."""

from __future__ import annotations

from bdiff_np.kernels.bernoulli.bernoulli_chain_device import LaunchedChain
from bdiff_np.kernels.bernoulli.bernoulli_step_device import fits
from bdiff_np.kernels.bernoulli.bernoulli_step_numba_cuda import ON


def build(model, kernels, rows: int) -> LaunchedChain | None:
    """The chain of a model, or None where its network is not one of dense layers alone or not float32. Arguments: `Chain`."""
    return LaunchedChain(ON, model, kernels, rows) if fits(model.net) else None
