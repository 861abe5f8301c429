"""The decorator of all compiled functions."""

from __future__ import annotations

from contextlib import contextmanager

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
    with _kept() as kept:
        return numba.njit(cache=kept, _nrt=False, no_cfunc_wrapper=True, **options)(function)


def cfunc(signature, **options):
    """numba.cfunc, to be called by its address, kept on disk as well."""

    def compiled(function):
        with _kept() as kept:
            return numba.cfunc(signature, cache=kept, _nrt=False, **options)(function)

    return compiled


@contextmanager
def _kept():
    """Whether what is compiled inside can be kept, in the folder for this version."""
    before, folder = numba.config.CACHE_DIR, cache_folder()
    numba.config.CACHE_DIR = str(folder or "")
    try:
        yield folder is not None
    finally:
        numba.config.CACHE_DIR = before
