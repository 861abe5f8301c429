"""One process at a time trains a results folder."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from bdiff_np.errors import InputError

FILE = ".lock"  # what is locked on Windows, where a folder cannot be


class Lock:
    """Held on a results folder from its making to `release`, or to the end of the process, however it ends: it is the
    system's, and hangs on the folder itself, whatever becomes of the files in it. Where the file system refuses one, or
    the folder is gone, all goes on without.

    Raises InputError where another holds it.
    """

    def __init__(self, results: Path) -> None:
        self._descriptor: int | None = None
        try:
            descriptor = _open(results)
        except OSError:
            return
        try:
            _lock(descriptor)
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            raise InputError(
                f"{results}: another process trains it at this moment; wait for its end, or start a training beside "
                "it, without --resume"
            ) from None
        except OSError:
            os.close(descriptor)
            return
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    def __del__(self) -> None:
        if self._descriptor is not None:
            warnings.warn("a lock on a results folder was not released", ResourceWarning, stacklevel=2, source=self)
            self.release()


def _open(results: Path) -> int:
    if os.name == "nt":
        return os.open(results / FILE, os.O_RDWR | os.O_CREAT)
    return os.open(results, os.O_RDONLY)


def _lock(descriptor: int) -> None:
    """Raises BlockingIOError or PermissionError where another process has it."""
    if os.name == "nt":
        import msvcrt

        return msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
