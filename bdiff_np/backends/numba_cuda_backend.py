"""What is known of the back end Numba-CUDA before it is loaded. `auto` never takes it: CuPy is faster wherever it
runs."""

from __future__ import annotations

from bdiff_np.backends import gpu


class NumbaCUDA(gpu.GPUBackend):
    """Arrays on an NVIDIA GPU, kernels in Python."""

    name, order, module = "numba-cuda", 3, "numba_cuda"
    packages = {
        "Numba-CUDA": ("numba-cuda",),
        "Numba": ("numba",),
        "CUDA runtime": ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"),
    }
    wheels = ("numba-cuda",)


BACKEND = NumbaCUDA()
