"""Numba-CUDA's device arrays, as the launches of this folder need them; arrays_cupy.py offers the same names.

Matrix products are borrowed from CuPy where it is installed, which reads these arrays in place through
__cuda_array_interface__; else they are our own, tile by tile (dense_numba_cuda.py).
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec

import numpy as np
from numba import config, cuda
from numba.cuda.cudadrv.devicearray import is_cuda_ndarray

from bdiff_np.errors import InputError
from bdiff_np.kernels.dense import dense_numba_cuda as dense

config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # type: ignore[attr-defined]  # of grids with few blocks, at each launch: narrow nets have few
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


def where(mask, a, b):
    """a where mask is set, else b: on the host, for what runs here is fused and does not ask."""
    return asarray(np.where(*map(to_host, (mask, a, b))))


def upload(array, host: np.ndarray) -> None:
    """array = host, of one shape and dtype."""
    array.copy_to_device(host)


def fill(array, value) -> None:
    # by a kernel: an assignment would copy the number to the device, and wait
    dense.fill(array.reshape(array.size), value)


def matmul(a, b, out=None, *, left: bool = False, right: bool = False):
    """a @ b, with the left or the right factor transposed; by cuBLAS where CuPy is installed, else by our own kernel.
    `out` is contiguous.

    Factors are not to be transposed beforehand: `T` of these arrays makes a copy, by a kernel that is compiled each
    time.
    """
    out = empty((a.shape[int(left)], b.shape[1 - int(right)]), a.dtype) if out is None else out
    if _cupy() is not None:
        a, b, c = (_cupy().asarray(array) for array in (a, b, out))
        _cupy().matmul(a.T if left else a, b.T if right else b, out=c)
    elif left:
        dense.multiply_left(a, b, dense.Parts(out, 1, 0))
    else:
        (dense.multiply_right if right else dense.multiply)(a, b, out)
    return out


def allow_tf32(allowed: bool) -> None:
    """As arrays_cupy's; our own product knows float32 alone."""
    if _cupy() is not None:
        from bdiff_np.kernels.dense import arrays_cupy

        arrays_cupy.allow_tf32(allowed)


def argsort(words):
    """The order of each row of words (passes, n) uint64, ties as they stood, (passes, n) int32: by CuPy where it is
    installed, else on the host."""
    if _cupy() is None:
        return asarray(np.argsort(to_host(words), axis=1, kind="stable"), np.int32)
    from bdiff_np.kernels.dense import arrays_cupy

    order = empty(words.shape, np.int32)
    _cupy().asarray(order)[...] = arrays_cupy.argsort(_cupy().asarray(words))
    return order


@lru_cache(1)
def _cupy():
    """CuPy, or None where it is not installed, does not work, or has no card but Numba's simulator of one."""
    if find_spec("cupy") is None or config.ENABLE_CUDASIM:
        return None
    try:
        import cupy

        cupy.empty((2, 2), np.float32) @ cupy.empty((2, 2), np.float32)  # which loads cuBLAS
    except Exception:  # of any kind
        return None
    return cupy


def wait() -> None:
    """Returns when all that was launched is done."""
    cuda.synchronize()


def reserve(need: int, what: str, fix: str) -> None:
    """Raises InputError, before anything is allocated, unless the card has `need` bytes free."""
    free = cuda.current_context().get_memory_info().free
    if need > free:
        raise InputError(f"{what} needs {need / 2**30:.2f} GiB on the GPU, {free / 2**30:.2f} GiB are free; {fix}")


def versions() -> dict[str, str]:
    """What the doctor says of this technology where it works."""
    major, minor = cuda.runtime.get_version()
    return {
        "CUDA runtime": f"{major}.{minor}",
        "matrix products": "by CuPy's cuBLAS" if _cupy() is not None else "our own",
    }
