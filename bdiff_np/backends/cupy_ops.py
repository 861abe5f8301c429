"""The shared operations on CuPy: arrays on an NVIDIA GPU, matrix products by cuBLAS, everything between them in our own
CUDA C."""

from __future__ import annotations

from bdiff_np.backends.cupy_backend import BACKEND

BACKEND.require()

from bdiff_np.backends.device import Operations, threads  # noqa: E402
from bdiff_np.kernels.dense import arrays_cupy as arrays  # noqa: E402
from bdiff_np.kernels.dense import dense_cupy as dense  # noqa: E402

name, on_device = "cupy", True
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
    """Every net runs here."""
