"""The shared operations on Numba-CUDA: arrays on an NVIDIA GPU, kernels in Python, matrix products by CuPy's cuBLAS
where it is installed.

Numba's device arrays have no operators, so networks with layers that use them (residual, dropout, bumps, readout) run
on CuPy, not here.
"""

from __future__ import annotations

from bdiff_np.backends.numba_cuda_backend import BACKEND

BACKEND.require()

from bdiff_np.backends.device import Operations, threads  # noqa: E402
from bdiff_np.errors import InputError  # noqa: E402
from bdiff_np.kernels.dense import arrays_numba_cuda as arrays  # noqa: E402
from bdiff_np.kernels.dense import dense_numba_cuda as dense  # noqa: E402

name, on_device = "numba-cuda", True
_on = Operations(arrays, dense)
activate, activate_backward, adamw, keep_mask = _on.activate, _on.activate_backward, _on.adamw, _on.keep_mask
layer_norm, layer_norm_backward, norm = _on.layer_norm, _on.layer_norm_backward, _on.norm
allow_tf32, asarray, empty, matmul = arrays.allow_tf32, arrays.asarray, arrays.empty, arrays.matmul
reserve, to_host, versions = arrays.reserve, arrays.to_host, arrays.versions
wait, where, zeros = arrays.wait, arrays.where, arrays.zeros

__all__ = [
    "activate", "activate_backward", "adamw", "allow_tf32", "asarray", "check_net", "empty", "keep_mask", "layer_norm",
    "layer_norm_backward", "matmul", "norm", "reserve", "threads", "to_host", "versions", "wait", "where", "zeros",
]  # fmt: skip


def check_net(net) -> None:
    """Raises InputError for a network that uses operators of arrays."""
    if net.dense is None:
        raise InputError(
            "--backend numba-cuda: knows dense layers with model.time: fourier alone, no model.residual, no "
            "model.dropout and no reverse_model.py; "
            "take --backend cupy"
        )
