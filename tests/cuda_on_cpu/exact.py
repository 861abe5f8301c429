"""Memory of exactly the size that was asked for, whose ends the mode "address" watches: NumPy has small arrays in
larger blocks of its own."""

from __future__ import annotations

import ctypes
import weakref
from functools import lru_cache

import numpy as np

ALIGNED = 512  # bytes, as CuPy's pool has it


def take(size: int) -> ctypes.Array:
    """So many bytes, all 0xFF: NaN as a float. They live as long as the result does. Raises MemoryError."""
    address, libc = ctypes.c_void_p(), _libc()
    if libc.posix_memalign(ctypes.byref(address), ALIGNED, max(size, 1)):
        raise MemoryError(f"this machine has no {size:,} bytes")
    found = (ctypes.c_ubyte * size).from_address(address.value)
    weakref.finalize(found, libc.free, address.value)
    ctypes.memset(address.value, 0xFF, size)
    return found


def view(memory: ctypes.Array, shape: tuple[int, ...], dtype, order: str = "C") -> np.ndarray:
    """All of such memory as an array, which keeps it alive."""
    return np.frombuffer(memory, dtype).reshape(shape, order=order) if len(memory) else np.empty(shape, dtype, order)


def array(values, dtype=None) -> np.ndarray:
    """A copy of an array in exact memory, for kernels that are launched by compile.RawKernel."""
    values = np.asarray(values, dtype)
    made = view(take(values.nbytes), values.shape, values.dtype)
    made[...] = values
    return made


@lru_cache(1)
def _libc() -> ctypes.CDLL:
    found = ctypes.CDLL(None)
    found.posix_memalign.argtypes = ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t
    found.free.argtypes, found.free.restype = (ctypes.c_void_p,), None
    return found
