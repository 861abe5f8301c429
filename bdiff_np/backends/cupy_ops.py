"""The shared operations on CuPy: arrays on an NVIDIA GPU, matrix products by cuBLAS, everything between them in our own CUDA C."""

from __future__ import annotations

from bdiff_np.backends.cupy_backend import BACKEND

BACKEND.require()

from bdiff_np.backends.device import Operations, threads  # noqa: E402
from bdiff_np.kernels.dense import arrays_cupy, dense_cupy  # noqa: E402
from bdiff_np.kernels.dense.arrays_cupy import allow_tf32, asarray, empty, matmul, reserve, to_host, versions, wait, where, zeros  # noqa: E402

name, on_device = "cupy", True
_on = Operations(arrays_cupy, dense_cupy)
activate, activate_backward, adamw, keep_mask = _on.activate, _on.activate_backward, _on.adamw, _on.keep_mask
layer_norm, layer_norm_backward, norm = _on.layer_norm, _on.layer_norm_backward, _on.norm

__all__ = [
    "activate", "activate_backward", "adamw", "allow_tf32", "asarray", "check_net", "empty", "keep_mask", "layer_norm", "layer_norm_backward",
    "matmul", "norm", "reserve", "threads", "to_host", "versions", "wait", "where", "zeros",
]  # fmt: skip


def check_net(net) -> None:
    """Every net runs here."""
