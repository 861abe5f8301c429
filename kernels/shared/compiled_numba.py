"""The decorator of all compiled functions."""

from __future__ import annotations

import numba

from bdiff_np.kernels.shared.compiled import cache_folder


def njit(function=None, **options):
    """numba.njit whose result is kept on disk, in a folder for this version of all kernels; compiled anew each time
    where none can be written.

    Without Numba's reference counts (_nrt): each view of an array would add one to a counter that all threads share,
    which took longer than the work on a slice of a narrow net. So compiled functions allocate nothing: they are given
    room for what they need.
    """
    if function is None:
        return lambda f: njit(f, **options)
    before, folder = numba.config.CACHE_DIR, cache_folder()
    numba.config.CACHE_DIR = str(folder or "")
    try:
        return numba.njit(cache=folder is not None, _nrt=False, no_cfunc_wrapper=True, **options)(function)
    finally:
        numba.config.CACHE_DIR = before
