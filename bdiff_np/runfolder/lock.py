"""One process at a time trains a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from bdiff_np.errors import InputError
from bdiff_np.nets.custom import FILE as CODE


class Lock:
    """Held on a results folder from its making to `release`, or to the end of the process, however it ends: it is the
    system's, and leaves nothing behind. It hangs on the network's file, which is written once. Where the file system
    refuses one, or the file is gone, all goes on without.

    Raises InputError where another holds it.
    """

    def __init__(self, results: Path) -> None:
        self._file: IO | None = None
        try:
            file = open(results / CODE, "r+b")
        except OSError:
            return
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            file.close()
            raise InputError(
                f"{results}: another process trains it at this moment; wait for its end, or start a training beside "
                "it, without --resume"
            ) from None
        except OSError:
            file.close()
            return
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


def _lock(file: IO) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(1 << 30)  # behind its end: others may read what is not locked alone
        return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
