"""What is known of the back end CuPy before it is loaded."""

from __future__ import annotations

from bdiff_np.backends import Estimate, Work, gpu
from bdiff_np.errors import Unavailable

# of NumPy's time, and seconds until CuPy and the kernels are loaded; guesses, not yet measured on a GPU
SAVED, START = 0.9, 6.0


class CuPy(gpu.GPUBackend):
    """Arrays on an NVIDIA GPU, matrix products by cuBLAS, everything between them in our own CUDA C."""

    name, order, module = "cupy", 2, "cupy"
    packages = {
        "CuPy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
        "NVRTC": ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"),
    }
    wheels = ("cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy")

    def propose(self, work: Work, best: Estimate) -> Estimate:
        missing = self.fault()
        if missing is not None:
            return best._replace(reason=f"{best.reason}; {missing.reason if gpu.driver().devices else 'no GPU'}")
        if not work.dense:
            return best._replace(reason=f"{best.reason}; a GPU takes this network operation by operation")
        there = (1 - SAVED) * work.seconds + START
        if there >= best.seconds:
            return best._replace(reason=f"{best.reason}, {START:.0f} s to start the GPU")
        try:
            self.load()
        except Unavailable as fault:
            return best._replace(reason=f"{best.reason}; {fault}")
        return Estimate(
            self.name, there, f"about {work.seconds:.0f} s on NumPy, {there:.0f} s on the GPU, its start included"
        )


BACKEND = CuPy()
