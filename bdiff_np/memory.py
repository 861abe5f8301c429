"""How much memory there is, and whether something fits: asked before anything is allocated, since a system that lends
more than it has kills the program later, without a word."""

from __future__ import annotations

import math
import os
from functools import lru_cache
from pathlib import Path

from bdiff_np.errors import InputError

LIMITS = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"  # of a container


@lru_cache(1)
def total() -> float:
    """Bytes that the machine has, or its container may use; infinite where that cannot be told."""
    found = math.inf
    try:
        found = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # not a Unix
        pass
    for path in LIMITS:
        try:
            found = min(found, float(Path(path).read_text()))
        except (OSError, ValueError):  # no such file, or the word max
            pass
    return found


def fault(need: int, what: str, fix: str) -> str | None:
    """A sentence if `need` bytes for `what` are more than there is at all, else None; `fix` says what to change."""
    if need <= total():
        return None
    return f"{what}: {figure(need)} of memory needed, {figure(total())} there; {fix}"


def check(need: int, what: str, fix: str) -> None:
    """Raises InputError where `fault` has something to say."""
    if (sentence := fault(need, what, fix)) is not None:
        raise InputError(sentence)


def figure(size: float) -> str:
    """Bytes in words; a whole number may be too large for a float."""
    return f"{size / 2**30:.3g} GiB" if size < 1e299 else "over 1e+289 GiB"
