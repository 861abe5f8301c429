"""The shared operations on CuPy: arrays on an NVIDIA GPU, matrix products by cuBLAS, everything between them in our own CUDA C."""

from __future__ import annotations

from bdiff_np.backends.gpu import require

require("cupy")

from bdiff_np.backends.device import Operations, threads  # noqa: E402
from bdiff_np.kernels.bernoulli import bernoulli_cupy  # noqa: E402
from bdiff_np.kernels.dense import arrays_cupy, dense_cupy  # noqa: E402
from bdiff_np.kernels.dense.arrays_cupy import allow_tf32, asarray, matmul, reserve, to_host, versions, wait, zeros  # noqa: E402

name, on_device = "cupy", True
_on = Operations(arrays_cupy, dense_cupy, bernoulli_cupy)
activate, activate_backward, adamw, keep_mask = _on.activate, _on.activate_backward, _on.adamw, _on.keep_mask
layer_norm, layer_norm_backward, norm, read, resident = _on.layer_norm, _on.layer_norm_backward, _on.norm, _on.read, _on.resident

__all__ = [
    "activate", "activate_backward", "adamw", "allow_tf32", "asarray", "keep_mask", "layer_norm", "layer_norm_backward", "matmul", "norm", "read",
    "reserve", "resident", "threads", "to_host", "versions", "wait", "zeros",
]  # fmt: skip
