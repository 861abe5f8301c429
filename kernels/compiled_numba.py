"""Compilation that is kept on disk for as long as no kernel changes.

Numba keeps a compiled function until the file that it stands in changes, but the function holds code of those it calls, from other files: after
an update one would run old kernels inside new ones. Here all files together make the key.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numba

FOLDER = Path(__file__).parent


def _key() -> str:
    every = hashlib.sha256()
    for path in sorted(FOLDER.glob("*_numba.py")):
        every.update(path.read_bytes())
    return every.hexdigest()[:12]


KEY = _key()


def njit(function=None, **options):
    """numba.njit with its result kept on disk, in a folder of this version of the kernels.

    Without Numba's reference counts (_nrt): each view of an array would add one to a counter that all threads share, which took longer than the
    work on a slice of a narrow net. So compiled functions allocate nothing: they are given room for what they need.
    """
    if function is None:
        return lambda f: njit(f, **options)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(place())
    try:
        return numba.njit(cache=True, _nrt=False, **options)(function)
    finally:
        numba.config.CACHE_DIR = before


def place() -> Path:
    """Where compiled functions lie: under NUMBA_CACHE_DIR if that is set, beside the kernels if one may write there, else in the user's cache."""
    if numba.config.CACHE_DIR:
        return Path(numba.config.CACHE_DIR) / f"bdiff_np-{KEY}"
    beside = FOLDER / "__pycache__"
    if os.access(beside if beside.is_dir() else FOLDER, os.W_OK):
        return beside / f"numba-{KEY}"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / f"bdiff_np-{KEY}"
