"""CuPy as the kernels of this folder use it: compiled modules, launches, and the card's limits."""

from __future__ import annotations

from functools import lru_cache

import cupy
import numpy as np

from bdiff_np.kernels.shared.cuda_grid import THREADS
from bdiff_np.kernels.shared.cuda_source import source

NAMES = {"f": "float", "d": "double"}  # of a dtype, in C
DEFAULT_SHARED = 48 << 10  # bytes that a block may have without asking


class Module:
    """The kernels of one .cu file, compiled at first use for each dtype; CuPy keeps the result on disk.

    file : its name. kernels : as C++ names them, "{C}" standing for the dtype, such as "activate<{C}, 4>"
    cooperative : whether all blocks of a launch must run at the same time
    """

    def __init__(self, file: str, *kernels: str, cooperative: bool = False):
        self.file, self.kernels, self.cooperative = file, kernels, cooperative
        self._modules: dict[str, cupy.RawModule] = {}
        self._kernels: dict[tuple[str, str], cupy.RawKernel] = {}

    def get(self, kernel: str, dtype=np.float32):
        """One of `kernels` for a dtype, to be called as kernel(grid, block, arguments, shared_mem=...)."""
        char = np.dtype(dtype).char
        if (kernel, char) not in self._kernels:
            if char not in self._modules:
                names = tuple(name.format(C=NAMES[char]) for name in self.kernels)
                self._modules[char] = cupy.RawModule(
                    code=source(self.file),
                    options=("-std=c++17",),
                    name_expressions=names,
                    enable_cooperative_groups=self.cooperative,
                )
            self._kernels[kernel, char] = self._modules[char].get_function(kernel.format(C=NAMES[char]))
        return self._kernels[kernel, char]

    def launch(self, kernel: str, dtype, grid: tuple[int, ...], *arguments, shared: int = 0) -> None:
        """Starts a kernel on the current stream. arguments : device arrays, and NumPy scalars of the exact C types.
        shared : bytes, dynamic"""
        function = self.get(kernel, dtype)
        if shared > DEFAULT_SHARED:
            function.max_dynamic_shared_size_bytes = shared
        function(grid, (THREADS,), arguments, shared_mem=shared)


def struct(layout: np.dtype, **values) -> np.ndarray:
    """A struct (1,) with a layout of cuda_source.py, which a kernel takes by value: numbers, device arrays and None for
    pointers.

    The arrays must be kept for as long as the kernel runs. Raises TypeError for a member that is missing, too many or
    of another type.
    """
    assert layout.names is not None and layout.fields is not None
    if values.keys() != set(layout.names):
        raise TypeError(f"members of the struct: {sorted(values.keys() ^ set(layout.names))}")
    filled = np.zeros(1, layout)
    for name, value in values.items():
        to = dict(layout.fields[name][0].metadata or {}).get("to")
        if to is None:
            filled[name] = value
        elif value is not None:
            if (
                not isinstance(value, cupy.ndarray)
                or to.kind != "V"
                and value.dtype != to
                or not value.flags.c_contiguous
            ):
                raise TypeError(
                    f"{name} of the struct points to {to}, contiguous on the device, not to {type(value)} "
                    f"{getattr(value, 'dtype', '')}"
                )
            filled[name] = value.data.ptr
    return filled


@lru_cache(1)
def multiprocessors() -> int:
    return int(cupy.cuda.Device().attributes["MultiProcessorCount"])


@lru_cache(1)
def shared_limit() -> int:
    """Bytes of shared memory that one block can have."""
    return int(cupy.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"])
