"""Files of bits, checked to the last character.

Text files hold one row per line, digits 0 and 1 with nothing, blanks or commas between them; .npy files hold an (N, D)
array. Every fault is reported as file:line:column with what stands there and how to mend it.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bdiff_np.errors import InputError
from bdiff_np.runfolder.files import write_whole

# Notation: N rows in all, B rows of one batch, D bits.

CHUNK = 1 << 22  # bits unpacked or checked at a time: few enough to stay in cache, many enough to hide Python
ENDINGS = (".txt", ".csv", ".data", ".amat", ".txt.gz", ".csv.gz", ".data.gz", ".amat.gz", ".npy")


def pack(bits: np.ndarray, name: str) -> np.ndarray:
    """An (N, D) array of bool or any integer type as (N, ceil(D / 8)) uint8, as numpy.packbits makes it.

    Raises InputError, with `name` in front, for another shape or dtype, or a value that is not 0 or 1.
    """
    if bits.ndim != 2 or bits.shape[1] == 0:
        raise InputError(f"{name}: the array has shape {bits.shape}; rows are an (N, D) array with D >= 1")
    if bits.dtype.kind not in "biu":
        raise InputError(
            f"{name}: the array has dtype {bits.dtype}; rows are bool or integer, e.g. array.astype(numpy.uint8)"
        )
    if bits.dtype == np.bool_:
        bits = bits.view(np.uint8)  # a bool array read from a file can hold any byte
    N, D = bits.shape
    packed = np.empty((N, -(-D // 8)), dtype=np.uint8)
    for part in slices(N, D):
        beyond = bits[part] >> 1  # 0 for 0 and 1 alone, negative numbers included
        if beyond.any():
            i, j = np.argwhere(beyond)[0]
            value = bits[part][i, j]
            raise InputError(
                f"{name}:{part.start + i + 1}:{j + 1}: the value {value} is not a bit; every value must be 0 or 1"
            )
        packed[part] = np.packbits(np.asarray(bits[part]), axis=1)
    return packed


def slices(N: int, D: int) -> Iterator[slice]:
    """N rows of D bits in parts of CHUNK bits."""
    step = max(1, CHUNK // D)
    return (slice(start, min(start + step, N)) for start in range(0, N, step))


def read(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """The rows of a file, packed as `pack` does it, and D. A name that ends in .npy holds an array, every other one
    text; .gz means compressed.

    Passed over in silence: Windows line ends, a missing last newline, a byte order mark, blanks around and between
    bits, blank lines at the end of the file.

    Raises
    ------
    InputError : the file is missing or unreadable, empty, damaged, not text, holds another character than 0 and 1, a
        blank line between rows, a row of another length, or an array of another dtype, shape or value. The message
        gives file:line:column.
    """
    name = os.fspath(path)
    lower = name.lower()
    check_name(name)
    try:
        if lower.endswith(".npy"):
            return _read_npy(name)
        raw = Path(path).read_bytes()
    except FileNotFoundError as fault:
        raise InputError(f"{name}: there is no such file") from fault
    except IsADirectoryError as fault:
        raise InputError(f"{name}: is a folder; name a file of rows") from fault
    except OSError as fault:
        raise InputError(f"{name}: cannot be read: {fault.strerror or fault}") from fault
    if lower.endswith(".gz"):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as fault:
            raise InputError(
                f"{name}: is not gzip, or damaged ({fault}); compress it again, or drop .gz from its name"
            ) from fault
    return _parse_text(raw, name)


def check_name(path: str | os.PathLike[str]) -> None:
    """Raises InputError for the endings of packed arrays, which are neither read nor written."""
    if os.fspath(path).lower().endswith((".npy.gz", ".npz")):
        raise InputError(f"{path}: packed arrays are not read or written; use .npy")


def check_out(path: str | os.PathLike[str]) -> None:
    """Raises InputError for a name that `write` should not write to: one with an ending that means something else than
    rows."""
    check_name(path)
    name = os.path.basename(os.fspath(path)).lower()
    if "." in name.lstrip(".") and not name.endswith(ENDINGS):
        raise InputError(f"{path}: its ending is not one of rows; use {', '.join(ENDINGS)}")


def _parse_text(raw: bytes, name: str) -> tuple[np.ndarray, int]:
    """Without blanks and with one kind of line end, a faultless file is a table of equal lines, checked by a few passes
    over its bytes."""
    raw = raw.removeprefix(codecs.BOM_UTF8)
    plain = raw.replace(b"\r\n", b"\n").translate(None, b" \t").rstrip(b"\r\n") + b"\n"
    if len(plain) == 1:
        raise InputError(f"{name}:1:1: the file is empty; write one row of 0 and 1 per line into it")
    width = plain.index(b"\n")
    commas = b"," in plain[:width]
    if width and len(plain) % (width + 1) == 0 and (width % 2 or not commas):
        table = np.frombuffer(plain, dtype=np.uint8).reshape(-1, width + 1)
        bits = (table[:, :width:2] if commas else table[:, :width]) ^ np.uint8(ord("0"))
        between = table[:, 1:width:2] if commas else table[:, :0]
        if bits.max() <= 1 and (table[:, width] == ord("\n")).all() and (between == ord(",")).all():
            return np.packbits(bits, axis=1), bits.shape[1]
    raise _first_fault(raw, name)


def _first_fault(raw: bytes, name: str) -> InputError:
    """Go through a file that is known to have a fault, line by line, to say where the first one is."""
    lines = raw.rstrip(b" \t\r\n").split(b"\n")
    commas = b"," in lines[0]
    alien = re.compile(rb"[^01, \t]" if commas else rb"[^01 \t]")
    comma_row = re.compile(rb"[ \t]*[01](?:[ \t]*,[ \t]*[01])*[ \t]*")
    D = 0
    for number, line in enumerate(lines, 1):
        line = line.removesuffix(b"\r")
        if not line.strip(b" \t"):
            return InputError(f"{name}:{number}:1: a blank line between rows; delete it")
        if found := alien.search(line):
            return InputError(f"{name}:{number}:{found.start() + 1}: {_describe(line[found.start() :])}")
        if commas:
            row = comma_row.match(line)
            end = row.end() if row else line.index(b",")
            if end < len(line):
                missing = (
                    "a bit is missing beside this comma"
                    if line[end : end + 1] == b","
                    else "a comma is missing before this bit"
                )
                return InputError(
                    f"{name}:{number}:{end + 1}: {missing}, but line 1 has commas; put one between each two bits"
                )
        bits = line.count(b"0") + line.count(b"1")
        D = D or bits
        if bits != D:
            columns = [bit.start() for bit in re.finditer(rb"[01]", line)]
            column = columns[D] if bits > D else columns[-1] + 1
            return InputError(
                f"{name}:{number}:{column + 1}: this row has length {bits}, but line 1 has length {D}; make all rows "
                "as long"
            )
    raise AssertionError(f"{name}: refused, yet without a fault")


def _describe(rest: bytes) -> str:
    """What the first character of `rest` is, for a message, and what should be there."""
    if rest[:1] == b",":
        return "a comma, but line 1 has no commas between its bits; write all rows in one way"
    for size in range(1, 5):
        try:
            character = rest[:size].decode()
        except UnicodeDecodeError:
            continue
        return (
            f"the character {character!r} is not a bit; a row holds only 0 and 1, with nothing, blanks or commas "
            "between them; no header"
        )
    return (
        f"the byte 0x{rest[0]:02x} is not text (UTF-8); save the rows as plain text, or name the file by its true "
        "format (.gz, .npy)"
    )


def _read_npy(name: str) -> tuple[np.ndarray, int]:
    try:
        with open(name, "rb") as file:  # a missing file or a folder is told from a damaged one
            size = os.fstat(file.fileno()).st_size
        array = np.lib.format.open_memmap(name, mode="r")  # refuses pickled objects, which could run code
    except OSError:
        raise
    except Exception as fault:  # a damaged header surfaces as almost any error of its parser
        raise InputError(
            f"{name}: is not a whole .npy array of numbers ({fault}); save it again with numpy.save"
        ) from fault
    if size != array.offset + array.nbytes:
        raise InputError(
            f"{name}: has {size} bytes, but its header asks for {array.offset + array.nbytes}; save it again with "
            "numpy.save"
        )
    packed = pack(array, name)
    if not len(packed):
        raise InputError(f"{name}: has no rows, its shape is {array.shape}")
    return packed, array.shape[1]


def text(bits: np.ndarray, separator: str = "") -> str:
    """(B, D) bits as lines of 0 and 1, each ended by a newline, with `separator`, one character or none, between the
    bits."""
    B, D = bits.shape
    stride = 1 + len(separator)
    width = stride * (D - 1) + 1
    lines = np.full((B, width + 1), ord(separator or "0"), dtype=np.uint8)
    np.add(bits, ord("0"), out=lines[:, :width:stride], casting="unsafe")
    lines[:, width] = ord("\n")
    return lines.tobytes().decode("ascii")


def write(path: str | os.PathLike[str], bits: np.ndarray) -> None:
    """Writes (N, D) uint8 so that `read` reads them back: .npy as they are, .csv with commas, else plain digits; .gz
    compresses."""
    check_name(path)
    lower = os.fspath(path).lower()
    if lower.endswith(".npy"):
        buffer = io.BytesIO()
        np.save(buffer, bits, allow_pickle=False)
        write_whole(path, buffer.getbuffer())
        return
    data = text(bits, "," if lower.removesuffix(".gz").endswith(".csv") else "").encode("ascii")
    write_whole(path, gzip.compress(data, compresslevel=1, mtime=0) if lower.endswith(".gz") else data)
