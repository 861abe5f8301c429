"""Files are written whole or not at all: a reader, or a run after a crash, sees the old file or the new one and never a
part of one."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from bdiff_np.errors import InputError


def write_whole(path: str | os.PathLike[str], data: bytes | bytearray | memoryview) -> None:
    """Replace or create the file `path` with `data`, in one indivisible act that is on the disk when this returns.

    The bytes go to a temporary file in the same folder, which takes the name at the end; on any failure, Ctrl-C
    included, it is removed and an earlier file stays as it was. Permissions follow the umask. A symbolic link is
    followed. A pipe or a device, such as /dev/stdout, cannot be replaced and is written to as it is.

    Raises
    ------
    InputError : the folder is missing or not writable, the disk is full, the path is a folder.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.is_dir():
            raise InputError(f"{path}: is a folder; name a file")
        if os.path.abspath(path).startswith(("/dev/", "/proc/")) or (target.exists() and not target.is_file()):
            with open(path, "ab") as stream:  # appending: /dev/stdout may stand for a file that others are writing
                stream.write(data)
            return
        temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except FileNotFoundError as fault:
        raise InputError(f"{path}: cannot be written, there is no folder {target.parent}; make it first") from fault
    except OSError as fault:
        raise InputError(
            f"{path}: cannot be written: {fault.strerror or fault}; free it or name another place"
        ) from fault
    if os.name == "posix":
        with suppress(OSError):  # some file systems refuse to sync a folder; the file itself is safe by then
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raises InputError for a path that is there and is no file, nor a link to one: who opens a pipe waits for ever."""
    if os.path.exists(path) and not os.path.isfile(path):
        what = "a folder" if os.path.isdir(path) else "a pipe or a device"
        raise InputError(f"{path}: is {what}, not a file; remove it, or put the file in its place")


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raises InputError if `path` is a folder, or has none to lie in: better before hours of work than after."""
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder; name a file")
    folder = Path(os.path.abspath(path)).parent
    if not folder.is_dir():
        raise InputError(f"{path}: cannot be written, there is no folder {folder}; make it first")
