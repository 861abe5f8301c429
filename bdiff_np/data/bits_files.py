"""Files of bits: which reader takes which, and how rows are written.

Text files hold one row per line: digits 0 and 1 with nothing or blanks between them (bits_text.py), or a table as
people have it (bits_table.py). Other formats are in bits_formats.py. Every fault is reported as file:line:column with
what stands there and how to mend it.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import warnings
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from bdiff_np.data import bits_cells, bits_formats, bits_layout, bits_table, bits_text, bits_words, source
from bdiff_np.data.bits_arrays import Reading
from bdiff_np.errors import InputError
from bdiff_np.runfolder.files import write_whole

# Notation: N rows in all, B rows of one batch, D bits.

SEPARATED = tuple(f"sep={mark}" for mark in ",;|\t")  # a first line with which Excel says what separates the columns
TEXT = (".txt", ".csv", ".tsv", ".data", ".amat")
WRITTEN = (*TEXT, *(f"{ending}.gz" for ending in TEXT), ".npy")
ENDINGS = (*WRITTEN, *(ending for ending in bits_formats.FORMATS if ending != ".npy"))


def read(path: str | os.PathLike[str]) -> Reading:
    """The rows of a file; "-" is standard input.

    A UTF-8 or UTF-16 mark at the start, Windows line ends and empty lines at the end of the file pass.

    Raises
    ------
    InputError : the file is missing or unreadable, empty, damaged, or holds what cannot be read as bits in one way
        alone. The message gives file:line:column.
    """
    name, lower = source.shown(path), os.fspath(path).lower()
    for mark, fix in (".xlsx", "save the sheet as CSV"), (".vcf", "bcftools convert --hapsample makes a .hap.gz of it"):
        if lower.removesuffix(".gz").endswith(mark):
            raise InputError(f"{name}: files of this format are not read; {fix}")
    reading = _read(path, name, lower)
    if not len(reading.packed):
        raise InputError(f"{name}: holds no rows; write one at least into it")
    return reading


def _read(path: str | os.PathLike[str], name: str, lower: str) -> Reading:
    with source.opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn of what is read all the same
        for ending in sorted(bits_formats.FORMATS, key=len, reverse=True):
            if lower.endswith(ending):
                return bits_formats.FORMATS[ending](file, os.fspath(path), name)
        if source.begins(file, source.NPY):
            return bits_formats.npy(file, os.fspath(path), name)
        source.refuse_foreign(file, name)
        return _read_text(file, name)


def _read_text(file: BinaryIO, name: str) -> Reading:
    """Rows of digits where all lines are equal; else a table, or the fault of what was meant to be digits."""
    head, skipped = _head(file, name)
    first = head[1].strip() if len(head) > 1 else ""
    separator = bits_cells.separator_of(head[1:])
    names = [bits_words.plain(cell) for cell in head[0].lstrip("# ").split(separator or None)]
    if separator not in ("", " ") and head[0].count(separator) == head[1].count(separator) > 0:
        if not any(name in bits_words.BITS for name in names):
            skipped -= 1  # a header that begins with #
    found = None if skipped else bits_text.equal_lines(source.blocks(file, name), separator)
    if separator == " " and bits_text.may_be_lists(first, found is not None):
        bits_text.check_lists(file, name)
    if found is not None:
        if separator not in bits_cells.SAID:
            notes = bits_layout.read_as_row(first.split(","), 1) if separator == "," else []
            return Reading(*found, notes=notes)
        notes = [f"{bits_cells.SAID[separator]} between the columns"]
        notes += bits_layout.read_as_row(first.split(separator), 1)
        return Reading(*found, form={"separator": separator}, notes=notes)
    below = [line.strip() for line in head[2:4] if line.strip()]
    digits = bool(below) and all(len(line) > 1 and set(line) <= set("01") for line in below)
    if digits or separator in ("", " ") and bits_text.looks_like_digits(head[1:]):
        raise bits_text.first_fault(file, name)
    return bits_table.read(file, name, separator, skipped)


def _head(file: BinaryIO, name: str) -> tuple[list[str], int]:
    """The last comment line before the first row ("" for none) and up to 50 lines from that row on, without their ends;
    and how many comment lines there are."""
    comment, skipped = "", 0
    head: list[str] = []
    for line in source.lines(file, name):
        text = line.decode("utf-8", "replace")
        if not head and (text.startswith("#") or text.strip() in SEPARATED):
            comment, skipped = text, skipped + 1
        else:
            head.append(text)
            if len(head) == 50:
                break
    return [comment, *head], skipped


def check_out(path: str | os.PathLike[str]) -> None:
    """Raises InputError for a name that `write` should not write to: one with an ending that means something else than
    rows."""
    name = os.path.basename(os.fspath(path)).lower()
    if "." in name.lstrip(".") and not name.endswith(WRITTEN):
        raise InputError(f"{path}: its ending is not one of rows; use {', '.join(WRITTEN)}")


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


def table(bits: np.ndarray, form: Mapping[str, Any]) -> str:
    """(B, D) bits as the table that they were read from was: its header, words, separator; an index column that had a
    name counts from 0."""
    B, D = bits.shape
    separator = form.get("separator", ",")
    words = form.get("words")
    if words is None and "names" not in form:
        return text(bits, separator)
    lines = io.StringIO()
    writer = csv.writer(lines, delimiter=separator, lineterminator="\n")
    index = form.get("index")
    if "names" in form:
        head = ([] if index is None else [index]) + form["names"]
        # a single name with another separator in it would be taken for several names
        odd = len(head) == 1 and re.search(r"[,;|\t]", head[0])
        csv.writer(lines, writer.dialect, quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL).writerow(head)
    pairs = [tuple(pair) for pair in words or [("0", "1")]]
    pairs = pairs * D if len(pairs) == 1 else pairs
    for number, row in enumerate(bits.tolist()):
        writer.writerow(([] if index is None else [number]) + [pair[bit] for pair, bit in zip(pairs, row)])
    return lines.getvalue()


def write(path: str | os.PathLike[str], bits: np.ndarray, form: Mapping[str, Any] | None = None) -> None:
    """Writes (N, D) uint8 so that `read` reads them back: .npy as they are; .csv and .tsv as tables, in the form
    (bits_arrays.form_of) that the training rows had; else plain digits; .gz compresses."""
    lower = os.fspath(path).lower()
    if lower.endswith(".npy"):
        buffer = io.BytesIO()
        np.save(buffer, bits, allow_pickle=False)
        write_whole(path, buffer.getbuffer())
        return
    plain = lower.removesuffix(".gz")
    if plain.endswith((".csv", ".tsv")):
        form = dict(form or {})
        if plain.endswith(".tsv"):
            form["separator"] = "\t"
        elif form.get("separator") == "\t":
            del form["separator"]
        data = table(bits, form).encode()
    else:
        data = text(bits).encode("ascii")
    write_whole(path, gzip.compress(data, compresslevel=1, mtime=0) if lower.endswith(".gz") else data)
