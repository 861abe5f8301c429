"""Where compiled kernels are kept, and whether they are there: to be asked without loading a compiler.

Numba keeps a compiled function until the file that it stands in changes, but the function holds code of those it calls, from other files: after
an update one would run old kernels inside new ones. Here all files together, those whose constants they hold, Numba's version and Python's make
the key.
"""

from __future__ import annotations

import hashlib
import os
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parent


@lru_cache(1)
def place() -> Path:
    """Under NUMBA_CACHE_DIR if that is set, beside the kernels if one may write there, else in the user's cache."""
    every = hashlib.sha256(f"{_numba_version()} {sys.version}".encode())
    constants = [find_spec(f"bdiff_np.{name}").origin for name in ("rng", "diffusion.bernoulli")]
    for path in [*sorted(FOLDER.glob("*_numba.py")), *map(Path, constants)]:
        every.update(path.name.encode() + b"\0" + path.read_bytes())
    name = f"bdiff_np-{every.hexdigest()[:12]}"
    if os.environ.get("NUMBA_CACHE_DIR"):
        return Path(os.environ["NUMBA_CACHE_DIR"]) / name
    beside = FOLDER / "__pycache__"
    if os.access(beside if beside.is_dir() else FOLDER, os.W_OK):
        return beside / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / name


def is_compiled(function: str) -> bool:
    """Whether a function, named file.function, has been compiled here. Those that it calls have been, then."""
    return any(place().glob(f"*/{function}-*.nbi"))


def _numba_version() -> str:
    try:
        return version("numba")
    except PackageNotFoundError:
        return ""
