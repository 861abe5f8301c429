"""Whether there is an NVIDIA GPU that the GPU back ends can use; if not, why not and what cures it. Standard library only."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from bdiff_np.errors import Unavailable

OLDEST = 12000  # the driver's CUDA version, 1000 times the major one, from which on there are wheels of CuPy for it
MODULES = {"cupy": "cupy", "numba-cuda": "numba_cuda"}  # what each back end is made of, as it is imported


class Driver(NamedTuple):
    """What the driver says of itself.

    version : 13000 for CUDA 13.0, None where there is no driver. devices : names of the GPUs. fault : why there are none
    """

    version: int | None
    devices: tuple[str, ...]
    fault: str


@lru_cache(1)
def driver() -> Driver:
    """Asks the driver's own library, which needs no CUDA and no package."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return Driver(None, (), "there is no NVIDIA driver on this machine")
    version, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return Driver(version.value, (), "the NVIDIA driver finds no GPU")
    names = []
    for k in range(count.value):
        name = ctypes.create_string_buffer(256)
        cuda.cuDeviceGetName(name, 256, k)
        names.append(name.value.decode(errors="replace"))
    return Driver(version.value, tuple(names), "")


def extra() -> str:
    """The extra of this package that fits the driver."""
    version = driver().version
    return "cuda12" if version is not None and version < 13000 else "cuda13"


def fault(backend: str) -> Unavailable | None:
    """Why a GPU back end cannot run here, or None if it can, as far as can be told without starting it."""
    found, package, pip = driver(), MODULES[backend], f'pip install "bdiff_np[{extra()}]"'
    if find_spec(package) is None:
        cure = pip if found.devices else f"on a machine with an NVIDIA GPU: {pip}; here, take --backend numba"
        return Unavailable(backend, f"{backend} is not installed" + ("" if found.devices else f", and {found.fault}"), cure)
    if not found.devices:
        cure = "take --backend numba, or run it where there is an NVIDIA GPU with a driver for CUDA 12 or newer"
        return Unavailable(backend, found.fault, cure)
    if found.version is not None and found.version < OLDEST:
        known = f"{found.version // 1000}.{found.version % 1000 // 10}"
        return Unavailable(backend, f"the driver is for CUDA {known}", "update it to one for CUDA 12 or newer")
    return None


def require(backend: str) -> None:
    """Raises Unavailable unless a GPU back end can run here."""
    found = fault(backend)
    if found is not None:
        raise found
    try:
        import_module(MODULES[backend])
    except Exception as problem:  # of any kind: it comes from a library that does not fit the machine
        raise Unavailable(backend, f"{backend} cannot be imported ({problem})", f'pip install --force-reinstall "bdiff_np[{extra()}]"') from problem
