"""CuPy's arrays, as the launches of this folder need them; arrays_numba_cuda.py offers the same names."""

from __future__ import annotations

import cupy
import numpy as np
from cupy._core import _routines_linalg as products

from bdiff_np.errors import InputError

name = "cupy"


def is_there(array) -> bool:
    """Whether something is an array on the device."""
    return isinstance(array, cupy.ndarray)


def empty(shape, dtype) -> cupy.ndarray:
    """Room, with anything in it."""
    return cupy.empty(shape, dtype)


def zeros(shape, dtype) -> cupy.ndarray:
    return cupy.zeros(shape, dtype)


def asarray(array, dtype=None) -> cupy.ndarray:
    """On the device, contiguous; what is there already stays, host arrays are copied."""
    return cupy.ascontiguousarray(cupy.asarray(array, dtype))


def to_host(array) -> np.ndarray:
    """As NumPy's array; waits for the device."""
    return cupy.asnumpy(array)


def where(mask: cupy.ndarray, a: cupy.ndarray, b: cupy.ndarray) -> cupy.ndarray:
    """a where mask is set, else b."""
    return cupy.where(mask, a, b)


def upload(array: cupy.ndarray, host: np.ndarray) -> None:
    """array = host, of one shape and dtype."""
    array.set(host)


def fill(array: cupy.ndarray, value) -> None:
    array.fill(value)


def matmul(
    a: cupy.ndarray, b: cupy.ndarray, out: cupy.ndarray | None = None, *, left: bool = False, right: bool = False
) -> cupy.ndarray:
    """a @ b by cuBLAS, with the left or the right factor transposed; `out` is contiguous."""
    return cupy.matmul(a.T if left else a, b.T if right else b, out=out)


def allow_tf32(allowed: bool) -> None:
    """Whether products of float32 may round their factors to 10 bits of mantissa from now on, in this process; off
    where nobody asks.

    CuPy's own switch, the variable CUPY_TF32, is read before the first product of a process and never again.
    """
    products.set_compute_type(np.float32, products.COMPUTE_TYPE_TF32 if allowed else products.COMPUTE_TYPE_DEFAULT)


def argsort(words: cupy.ndarray) -> cupy.ndarray:
    """The order of each row of words (passes, n) uint64, ties as they stood, (passes, n) int32."""
    return cupy.argsort(words, axis=1, kind="stable").astype(np.int32)


def wait() -> None:
    """Returns when all that was launched is done."""
    cupy.cuda.get_current_stream().synchronize()


def reserve(need: int, what: str, fix: str) -> None:
    """Raises InputError, before anything is allocated, unless the card has `need` bytes free."""
    free = cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()
    if need > free:
        raise InputError(f"{what} needs {need / 2**30:.2f} GiB on the GPU, {free / 2**30:.2f} GiB are free; {fix}")


def versions() -> dict[str, str]:
    """What the doctor says of this technology where it works."""
    runtime = cupy.cuda.runtime.runtimeGetVersion()
    return {"CUDA runtime": f"{runtime // 1000}.{runtime % 1000 // 10}"}
