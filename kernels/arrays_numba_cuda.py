"""Numba-CUDA's device arrays, as the launches of this folder need them; arrays_cupy.py offers the same names.

Matrix products are borrowed from CuPy where it is installed, which reads these arrays in place through __cuda_array_interface__; else they are our
own, tile by tile (dense_numba_cuda.py).
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numba import config, cuda
from numba.cuda.cudadrv.devicearray import is_cuda_ndarray

from bdiff_np.errors import InputError
from bdiff_np.kernels import dense_numba_cuda as dense

name = "numba-cuda"
is_there = is_cuda_ndarray  # whether something is an array on the device


def empty(shape, dtype):
    """Room, with anything in it."""
    return cuda.device_array(shape, dtype)


def zeros(shape, dtype):
    return cuda.to_device(np.zeros(shape, dtype))


def asarray(array, dtype=None):
    """On the device, contiguous; what is there already stays, host arrays are copied."""
    if is_there(array) and dtype in (None, array.dtype):
        return array
    return cuda.to_device(np.ascontiguousarray(to_host(array), dtype))


def to_host(array) -> np.ndarray:
    """As NumPy's array; waits for the device."""
    return array.copy_to_host() if is_there(array) else np.asarray(array)


def upload(array, host: np.ndarray) -> None:
    """array = host, of one shape and dtype."""
    array.copy_to_device(host)


def fill(array, value) -> None:
    array[...] = value


def matmul(a, b, out=None):
    """a @ b, also of a transposed view; by cuBLAS where CuPy is installed, else by our own kernel. `out` is contiguous."""
    out = empty((a.shape[0], b.shape[1]), a.dtype) if out is None else out
    if _cupy() is not None:
        lent = [_cupy().asarray(array) for array in (a, b, out)]
        _cupy().matmul(lent[0], lent[1], out=lent[2])
    elif a.flags["C_CONTIGUOUS"] and b.flags["C_CONTIGUOUS"]:
        dense.multiply(a, b, out)
    elif a.flags["C_CONTIGUOUS"]:
        dense.multiply_right(a, b.T, out)
    else:
        dense.multiply_left(a.T, b, dense.Parts(out, 1, 0))
    return out


def _cupy():
    """CuPy, or None where it is not installed, or where there is no card but Numba's simulator of one."""
    if find_spec("cupy") is None or config.ENABLE_CUDASIM:
        return None
    import cupy

    return cupy


def wait() -> None:
    """Returns when all that was launched is done."""
    cuda.synchronize()


def reserve(need: int, what: str, cure: str) -> None:
    """Raises InputError, before anything is allocated, unless the card has `need` bytes free."""
    free = cuda.current_context().get_memory_info().free
    if need > free:
        raise InputError(f"{what} needs {need / 2**30:.2f} GiB on the GPU, {free / 2**30:.2f} GiB are free; {cure}")


def versions() -> dict[str, str]:
    """What the doctor says of this technology where it works."""
    major, minor = cuda.runtime.get_version()
    return {"CUDA runtime": f"{major}.{minor}", "matrix products": "by CuPy's cuBLAS" if _cupy() is not None else "our own"}
