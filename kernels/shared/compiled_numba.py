"""The decorator of all compiled functions."""

from __future__ import annotations

import numba

from bdiff_np.kernels.shared.compiled import cache_folder


def njit(function=None, *, inner=False, **options):
    """numba.njit whose result is kept on disk, in a folder for this version of all kernels; compiled anew each time
    where none can be written.

    Without Numba's reference counts (_nrt): each view of an array would add one to a counter that all threads share,
    which took longer than the work on a slice of a narrow net. So compiled functions allocate nothing: they are given
    room for what they need.

    inner : of a function that compiled code alone calls. It is compiled without what unpacks Python's arguments, which
        for a tuple of arrays is more code than most functions; called from Python, it ends the process
    """
    if function is None:
        return lambda f: njit(f, inner=inner, **options)
    before, folder = numba.config.CACHE_DIR, cache_folder()
    numba.config.CACHE_DIR = str(folder or "")
    try:
        options |= {"cache": folder is not None, "no_cpython_wrapper": inner, "no_cfunc_wrapper": True, "_nrt": False}
        return numba.njit(**options)(function)
    finally:
        numba.config.CACHE_DIR = before
