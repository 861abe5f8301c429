"""Files are written whole or not at all: a reader, or a run after a crash, sees the old file or the new one and never a
part of one."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from bdiff_np.errors import InputError, short


def write_whole(path: str | os.PathLike[str], data: bytes | bytearray | memoryview) -> None:
    """Replace or create the file `path` with `data`, in one indivisible act that is on the disk when this returns.

    The bytes go to a temporary file in the same folder, which takes the name at the end; on any failure, Ctrl-C
    included, it is removed and an earlier file stays as it was. Permissions follow the umask. A symbolic link is
    followed. A pipe or a device, such as /dev/stdout, cannot be replaced and is written to as it is.

    Raises
    ------
    InputError : the path is a folder, or why it cannot be written: a folder that is missing, a link that leads
        nowhere, a file where a folder should be, a name that is too long, no permission, a full disk.
    BrokenPipeError : it stands for a pipe whose reader has left.
    """
    try:
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise InputError(f"{path}: is a folder; name a file")
        if _is_device(path) or (target.exists() and not target.is_file()):
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
            with suppress(OSError):
                temporary.unlink()
            raise
    except BrokenPipeError:  # a reader that has left, of /dev/stdout
        raise
    except OSError as fault:
        raise InputError(f"{path}: cannot be written{_obstacle(path) or _reason(fault)}") from fault
    if os.name == "posix":
        with suppress(OSError):  # some file systems refuse to sync a folder; the file itself is safe by then
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def write_own(path: str | os.PathLike[str], data: bytes | bytearray | memoryview) -> None:
    """As `write_whole`, a file of a results folder, where a pipe has no place: who opens it waits for ever."""
    check_regular(path)
    write_whole(path, data)


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raises InputError for a path that is there and is no file, nor a link to one: who opens a pipe waits for ever."""
    if os.path.exists(path) and not os.path.isfile(path):
        what = "a folder" if os.path.isdir(path) else "a pipe or a device"
        raise InputError(f"{path}: is {what}, not a file; remove it, or put the file in its place")


def check_readable(path: str | os.PathLike[str]) -> None:
    """Raises InputError for a path that cannot be looked at, such as a name that is too long, and for a folder that may
    not be read. One that is missing passes."""
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode) or os.access(path, os.R_OK | os.X_OK):
            return
        fault = OSError(errno.EACCES, os.strerror(errno.EACCES))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError for a null character
        return
    except OSError as other:
        fault = other
    raise InputError(f"{short(path)}: cannot be read{_reason(fault, 'allow reading it, or name another place')}")


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raises InputError if `path` is a folder, or cannot be written where it is to lie: better before hours of work
    than after."""
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder; name a file")
    fault = _obstacle(path)
    folder = os.path.dirname(os.path.realpath(path))
    if not fault and not _is_device(path) and not os.access(folder, os.W_OK | os.X_OK):
        fault = f": the folder {folder} is not writable; free it or name another place"
    if fault:
        raise InputError(f"{path}: cannot be written{fault}")


def _is_device(path: str | os.PathLike[str]) -> bool:
    return os.path.abspath(path).startswith(("/dev/", "/proc/"))


def _obstacle(path: str | os.PathLike[str]) -> str | None:
    """What on the way to a file does not let it be made, and the fix, as the end of a sentence; None where all of the
    way is there."""
    if _is_device(path):
        return None
    target = Path(os.path.realpath(path))  # beyond links, those that lead nowhere too
    for folder in reversed(target.parents):
        try:
            if not folder.is_dir() and folder.exists():
                return f": {folder} is a file, not a folder; name another place"
            missing = not folder.exists()
        except OSError as fault:
            return _reason(fault)
        if missing:
            link = next((p for p in (Path(path), *Path(path).parents) if p.is_symlink()), None)
            if link is None:
                return f", there is no folder {target.parent}; make it first"
            return f", there is no folder {target.parent}, where the link {link} leads; make it first, or mend the link"
    try:
        os.lstat(target)
    except FileNotFoundError:
        pass
    except OSError as fault:  # a name that is too long
        return _reason(fault)
    return None


def _reason(fault: OSError, otherwise: str = "free it or name another place") -> str:
    """The system's own words and what to do, as the end of a sentence."""
    fixes = {
        errno.ENOSPC: "free some space or name another place",
        errno.EDQUOT: "free some space or name another place",
        errno.ENAMETOOLONG: "take a shorter name",
        errno.EROFS: "name another place",
        errno.ELOOP: "mend the link or name another place",
    }
    return f": {fault.strerror or fault}; {fixes.get(fault.errno or 0, otherwise)}"
