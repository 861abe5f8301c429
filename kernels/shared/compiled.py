"""Where compiled kernels are kept, and whether they are there: to be asked without loading a compiler.

Numba keeps a compiled function until the file that it stands in changes, but the function holds code of those it calls,
from other files: after an update one would run old kernels inside new ones. Here all files together, those whose
constants they hold, Numba's version and Python's make the key.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parent.parent  # of all kernels
MOST_THREADS = 1 << 12  # of all crews (crew_numba)


@lru_cache(1)
def cache_folder() -> Path | None:
    """The first that can be written to of: under NUMBA_CACHE_DIR if that is set, beside the kernels, the user's cache.
    None if there is none."""
    every = hashlib.sha256(f"{_numba_version()} {sys.version}".encode())
    package = Path(find_spec("bdiff_np.rng").origin).parent  # type: ignore[union-attr, arg-type]
    constants = [
        package / "rng.py",
        *sorted((package / "diffusion").glob("*.py")),
        *sorted(FOLDER.glob("*/*_codes.py")),
    ]
    for path in [*sorted(FOLDER.glob("*/*_numba.py")), *constants]:
        every.update(path.name.encode() + b"\0" + path.read_bytes())
    asked = os.environ.get("NUMBA_CACHE_DIR")
    for folder in ([Path(asked)] if asked else []) + [FOLDER / "__pycache__", *_users_cache()]:
        try:
            candidate = folder / f"bdiff_np-{every.hexdigest()[:12]}"
            candidate.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=candidate).close()
            return candidate
        except OSError:
            continue
    return None


def _users_cache() -> list[Path]:
    """The user's folder of caches; none for a user without a home, as a number without a name has none in a
    container."""
    if os.environ.get("XDG_CACHE_HOME"):
        return [Path(os.environ["XDG_CACHE_HOME"])]
    try:
        return [Path.home() / ".cache"]
    except RuntimeError:
        return []


def is_compiled(function: str) -> bool:
    """Whether a function, named file.function, has been compiled here. Those that it calls have been, then."""
    folder = cache_folder()
    return folder is not None and any(folder.glob(f"*/{function}-*.nbi"))


def _numba_version() -> str:
    try:
        return version("numba")
    except PackageNotFoundError:
        return ""
