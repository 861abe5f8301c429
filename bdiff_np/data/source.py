"""Where the bytes of a file come from: a file, a pipe, standard input, packed by gzip or not, always in parts.

A part is small, so that a file is refused at its first fault, long before the whole of it, packed a thousand times
smaller perhaps, has been taken into memory.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np

from bdiff_np.errors import InputError, short

STDIN = "-"  # the name that means standard input
PART = 1 << 22  # bytes read at a time
LONGEST = 1 << 26  # bytes of a line
GZIP, NPY, ZIP, PARQUET = b"\x1f\x8b", b"\x93NUMPY", b"PK\x03\x04", b"PAR1"  # how files of these formats begin

# How files begin that hold no rows, and what to do.
FOREIGN = {
    ZIP: "is an archive, perhaps an Excel workbook; save the sheet as CSV, or name the file by its true format",
    PARQUET: "is a Parquet file; name it .parquet",
    b"[": "looks like JSON; make a table of it, one row a line",
    b"{": "looks like JSON; make a table of it, one row a line",
    b"<": "looks like HTML or XML; make a table of it, one row a line",
    b"%PDF": "is a PDF; save its table as CSV",
}


def shown(path: str | os.PathLike[str]) -> str:
    """How messages name a file."""
    return "standard input" if os.fspath(path) == STDIN else os.fspath(path)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """The bytes of a file as they are. A pipe, or standard input for "-", is copied first, so that it can be read
    again; one that is not text nor of a format that is known here is refused at its first part.

    Raises InputError for a file that is missing, is a folder or cannot be read, while it is being read as well.
    """
    name = shown(path)
    try:
        if os.fspath(path) == STDIN:
            if sys.stdin is None:
                raise InputError(f"{name} is closed; name a file")
            with _copied(sys.stdin.buffer, name) as file:
                yield file
            return
        with open(path, "rb") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                yield file
                return
            with _copied(file, name) as copy:
                yield copy
    except FileNotFoundError as fault:
        raise InputError(f"{name}: there is no such file") from fault
    except IsADirectoryError as fault:
        raise InputError(f"{name}: is a folder; name a file of rows") from fault
    except OSError as fault:
        raise InputError(f"{name}: cannot be read: {fault.strerror or fault}") from fault


@contextmanager
def _copied(stream: BinaryIO, name: str) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as file:
        part = stream.read(PART)
        if b"\0" in part and not part.startswith((GZIP, NPY, ZIP, PARQUET, b"\xff\xfe", b"\xfe\xff")):
            raise InputError(f"{name}: holds bytes that are neither text nor a format that is read here")
        while part:
            file.write(part)
            part = stream.read(PART)
        file.seek(0)
        yield file


def begins(file: BinaryIO, *marks: bytes) -> bool:
    """Whether a file begins with one of the marks; it is read from its start afterwards."""
    start = file.read(max(map(len, marks)))
    file.seek(0)
    return start.startswith(marks)


def refuse_foreign(file: BinaryIO, name: str) -> None:
    """Raises InputError for a file that begins as one of FOREIGN."""
    for mark, what in FOREIGN.items():
        if begins(file, mark):
            raise InputError(f"{name}:1:1: {what}")


def npy(file: BinaryIO, path: str, name: str) -> np.ndarray:
    """An array of numpy.save: mapped where it is a file of its own, not read into memory. Raises InputError for one
    that is damaged, or of Python objects."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        if os.path.isfile(path):
            array: np.ndarray = np.lib.format.open_memmap(
                path, mode="r"
            )  # refuses pickled objects, which could run code
            wanted = array.offset + array.nbytes  # type: ignore[attr-defined]
        else:
            array, wanted = np.lib.format.read_array(file, allow_pickle=False), size
    except Exception as fault:  # a damaged header surfaces as almost any error of its parser
        raise InputError(
            f"{name}: is not a whole .npy array of numbers ({short(fault)}); save it again with numpy.save"
        ) from fault
    if size != wanted:
        raise InputError(f"{name}: has {size} bytes, but its header asks for {wanted}; save it again with numpy.save")
    return array


def text_of(file: BinaryIO) -> BinaryIO:
    """The bytes of the text in an opened file, from its start: unpacked, and as UTF-8 where it begins with the mark of
    UTF-16 or UTF-8."""
    file.seek(0)
    packed = begins(file, GZIP)
    stream: BinaryIO = gzip.GzipFile(fileobj=file, mode="rb") if packed else file  # type: ignore[assignment]
    start = stream.read(3)
    stream.seek(0)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return _Recoded(codecs.getreader("utf-16")(stream))  # type: ignore[return-value]
    if start == b"\xef\xbb\xbf":
        stream.read(3)
    return stream


class _Recoded(io.RawIOBase):
    """Text of another coding as the bytes of UTF-8."""

    def __init__(self, text: codecs.StreamReader):
        self._text = text

    def read(self, size: int = -1) -> bytes:
        return self._text.read(size).encode()


def blocks(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The text of an opened file in parts of whole lines, each but the last ended by a newline.

    Raises InputError for damaged gzip, and for a line that is longer than LONGEST.
    """
    rest, line = [], 1
    try:
        stream = text_of(file)
        while part := stream.read(PART):
            end = part.rfind(b"\n") + 1
            rest.append(part[:end] if end else part)
            if end:
                block = b"".join(rest)
                line += block.count(b"\n")
                yield block
                rest = [part[end:]]
            elif sum(map(len, rest)) > LONGEST:
                raise InputError(f"{name}:{line}:1: this line has more than {LONGEST} characters; end rows by newlines")
    except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
        raise InputError(
            f"{name}: is not gzip, or damaged ({fault}); compress it again, or drop .gz from its name"
        ) from fault
    except UnicodeDecodeError as fault:
        raise InputError(f"{name}: begins as UTF-16 and is not ({fault.reason}); save it as UTF-8") from fault
    if any(rest):
        yield b"".join(rest)


def lines(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The same, line by line, without their ends."""
    for block in blocks(file, name):
        for line in block.removesuffix(b"\n").split(b"\n"):
            yield line.removesuffix(b"\r")
