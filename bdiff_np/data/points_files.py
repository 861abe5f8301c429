"""Points out of arrays and files, and back into files.

Text files hold one point a line, its coordinates with commas, semicolons, tabs or blanks between them, and names of the
columns above them or not. Text is parsed by NumPy in large parts; a part that NumPy refuses is gone through cell by
cell, which finds the place of its fault.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from bdiff_np.data import bits_words, source
from bdiff_np.errors import InputError, short
from bdiff_np.runfolder.files import write_whole

# Notation: N rows in all, D coordinates.

TEXT = (".csv", ".txt", ".tsv")
ENDINGS = (".npy", *TEXT, *(f"{ending}.gz" for ending in TEXT))
MOST = 1e30  # of a coordinate's size: float32, in which networks compute, goes to 3e38, and squares are taken
SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", " ": "blanks"}  # in the order in which a line has them
INDEX = re.compile(r"|unnamed: 0|index|rows?|no|nr|number|(.*[ ._-])?id")  # how an index column is named
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


class Reading(NamedTuple):
    """Points, and how they stood where they came from.

    array : (N, D) float64, nan where a value is missing. first_missing : its place, "" where none is
    form : what samples are written back with: names, separator. notes : what was understood, each in a few words
    """

    array: np.ndarray
    first_missing: str = ""
    form: dict[str, Any] = {}
    notes: tuple[str, ...] = ()


class Form(BaseModel):
    """A form as it must stand in a checkpoint."""

    model_config = ConfigDict(strict=True, extra="forbid")
    names: list[str] = []
    separator: Literal[",", ";", "\t", " "] = ","


def form_fault(form: Any, D: int) -> str | None:
    """What is wrong with a form for points of D coordinates, in a few words; None for a good one."""
    try:
        read_form = Form.model_validate(form)
    except ValidationError as faults:
        fault = faults.errors()[0]
        return f"its form {short('.'.join(map(str, fault['loc'])), 40)}: {fault['msg'].lower()}"
    names = len(read_form.names)
    return None if names in (0, D) else f"its form has {names} names for {D} coordinates"


# Arrays
# ----------------------------------------------------------------------------------------------------------------------


def read_array(given: Any, name: str) -> Reading:
    """The points of an array, or of whatever turns into one: a list, a data frame, a tensor, a sparse matrix.

    Raises InputError, with `name` in front, for what is not an (N, D) array of real numbers, with row and column.
    """
    if given is None or isinstance(given, str | bytes | os.PathLike):
        raise InputError(f"{name}: is {short(repr(given), 60)}; give rows, an (N, D) array of numbers")
    if hasattr(given, "detach"):  # a tensor of PyTorch
        given = given.detach().cpu().numpy()
    if hasattr(given, "toarray"):  # a sparse matrix or array of SciPy
        given = given.toarray()
    if isinstance(given, np.ma.MaskedArray):  # what is masked is missing
        given = np.ma.filled(given.astype(np.float64), np.nan)
    if hasattr(given, "columns") and hasattr(given, "to_numpy"):  # a data frame of pandas or polars
        names = [str(column) for column in given.columns]
        numbered = names == [str(k) for k in range(len(names))]
        reading = read_array(given.to_numpy(), name)
        form = {} if numbered else {"names": names}
        return reading._replace(form=form, notes=() if numbered else (f"{len(names)} columns with names",))
    try:
        array = given if isinstance(given, np.ndarray) else np.asarray(given)
    except ValueError:
        raise InputError(f"{name}: the rows are not of one length; rows are an (N, D) array") from None
    if array.ndim != 2 or not array.shape[1]:
        fix = {1: "; X.reshape(-1, 1) makes points of one coordinate"}.get(array.ndim, "")
        fix = "; X.reshape(len(X), -1) makes rows of it" if array.ndim > 2 else fix
        raise InputError(f"{name}: the array has shape {array.shape}; points are an (N, D) array with D >= 1{fix}")
    if array.dtype.kind == "c":
        raise InputError(
            f"{name}: the array is complex; give real and imaginary parts as columns: np.hstack([X.real, X.imag])"
        )
    if array.dtype.kind in "OSUT":
        cells = [[_number(cell, f"{name}:{i}:{j}") for j, cell in enumerate(row, 1)] for i, row in enumerate(array, 1)]
        array = np.array(cells, np.float64).reshape(array.shape)
    elif array.dtype.kind not in "biuf":
        raise InputError(f"{name}: the array has dtype {array.dtype}; points are real numbers")
    with np.errstate(over="ignore"):  # of wider floats
        numbers = np.array(array, np.float64)
    good = np.abs(numbers) <= MOST  # nan is not
    if good.all():
        return Reading(numbers)
    for row, column in np.argwhere(~(good | np.isnan(numbers)))[:1]:
        raise _too_large(array[row, column], f"{name}:{row + 1}:{column + 1}")
    row, column = np.argwhere(np.isnan(numbers))[0]
    return Reading(numbers, f"{name}:{row + 1}:{column + 1}")


def _number(cell: Any, place: str) -> float:
    """A cell as a number, nan where its value is missing. Raises InputError, beginning with `place`."""
    text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)
    text = text.strip().strip('"').strip()
    try:
        if "_" in text:  # Python's own, in no file
            raise ValueError
        value = float(text)
    except ValueError:
        if text.lower() in bits_words.MISSING:
            return np.nan
        fix = "write one, or leave the column out, or the cell empty where its value is missing"
        if DECIMAL_COMMA.fullmatch(text):
            fix = f"write a decimal point, {text.replace(',', '.')}"
        raise InputError(f"{place}: {short(repr(text), 40)} is no number; {fix}") from None
    if abs(value) > MOST:
        raise _too_large(text, place)
    return value


def _too_large(value: Any, place: str) -> InputError:
    if np.isinf(float(value)):
        return InputError(f"{place}: {value} is not finite; leave the row out, or the cell empty if it is missing")
    return InputError(f"{place}: {value} is beyond {MOST:g}; give the column in another unit")


# Files
# ----------------------------------------------------------------------------------------------------------------------


def read(path: str | os.PathLike[str]) -> Reading:
    """The points of a file; "-" is standard input. A mark of UTF-8 or UTF-16 at the start, Windows line ends, comment
    lines above the rows and empty lines below them pass.

    Raises InputError for a file that is missing, unreadable, empty or damaged, or whose cells are not all numbers, as
    file:line:column; of .npy, file:row:column.
    """
    name = source.shown(path)
    with source.opened(path) as file:
        if source.begins(file, source.NPY):
            return read_array(source.npy(file, os.fspath(path), name), name)
        if os.fspath(path).lower().endswith(".npy"):
            raise InputError(f"{name}: does not begin as .npy does; save it with numpy.save, or name it by its format")
        if source.begins(file, source.PARQUET):
            raise InputError(f"{name}: is a Parquet file, which is not read as points; save its table as CSV or .npy")
        source.refuse_foreign(file, name)
        return _Text(file, name).reading()


class _Text:
    """Reading of one text file."""

    def __init__(self, file: BinaryIO, name: str):
        self.file, self.name = file, name
        self.separator, self.D, self.names, self.notes = "", 0, [], []  # type: ignore[var-annotated]
        self.blank, self.first_missing = 0, ""  # line number of the first of the last empty lines; 0 for none

    def reading(self) -> Reading:
        arrays = [array for number, text in self._parts() if len(array := self._rows(text, number))]
        if not arrays and self.names:
            raise InputError(f"{self.name}: holds names of columns and no points below them; write one a line")
        if not arrays:
            raise InputError(
                f"{self.name}: holds no points; write one a line, its coordinates with commas between them"
            )
        array, names = np.concatenate(arrays), self.names
        if self.D > 1 and array[0, 0] in (0, 1) and (array[:, 0] - array[0, 0] == np.arange(len(array))).all():
            if names and INDEX.fullmatch(names[0].lower()):
                array, names = np.ascontiguousarray(array[:, 1:]), names[1:]
                self.notes.append("column 1 left out as an index")
            elif len(array) > 2:
                self.notes.append("column 1 numbers the rows: leave it out if it is no coordinate")
        form: dict[str, Any] = {"names": names} if names else {}
        if self.separator != "," and self.D > 1:
            form["separator"] = self.separator
        return Reading(array, self.first_missing, form, tuple(self.notes))

    def _parts(self) -> Iterator[tuple[int, str]]:
        """Parts of whole lines below the header, and the number of the first line of each."""
        number = 1
        for block in source.blocks(self.file, self.name):
            try:
                text = block.decode("utf-8")
            except UnicodeDecodeError as fault:
                line = number + block[: fault.start].count(b"\n")
                raise InputError(f"{self.name}:{line}:1: is not UTF-8 text; save the file as UTF-8") from None
            lines = block.count(b"\n")
            if not self.D:
                above = self._header(text)
                yield number + above, text.split("\n", above)[-1] if above <= lines else ""
            else:
                yield number, text
            number += lines

    def _header(self, text: str) -> int:
        """Learns from the first part of the text what separates its cells, how many there are in a row, and their
        names; returns how many lines stand above the rows."""
        lines = (line.strip("\r") for line in text.split("\n"))
        above, comment = 0, ""
        first = next(lines, "")
        while first.startswith("#") or re.fullmatch("sep=.", first):
            above, comment, first = above + 1, first.lstrip("# ") if first.startswith("#") else comment, next(lines, "")
        while not first.strip() and (following := next(lines, None)) is not None:
            above, first = above + 1, following
        second = next((line for line in lines if line.strip()), "")
        self._divide(first)
        if re.fullmatch("[01]{4,}", first.strip()):
            raise InputError(
                f"{self.name}:{above + 1}:1: looks like a row of bits; set model.family to bernoulli, or put commas "
                "between the coordinates"
            )
        cells = [cell for _, cell in self._cells(first)]
        numbered = cells == [str(k) for k in range(self.D)] and self.D > 1 and "." in second  # of pandas
        is_row = any(_is_number(cell) or cell.lower() in bits_words.MISSING[1:] for cell in cells)
        if numbered or not is_row and any(cells):
            self._divide(second or first)
            cells = [cell for _, cell in self._cells(first)]
            if len(cells) != self.D:
                what = f"the header has {len(cells)} name{'s' * (len(cells) > 1)}, the row below it {self.D} cells"
                raise InputError(f"{self.name}:{above + 1}:1: {what}; make them as many")
            self.names, above = [] if numbered else cells, above + 1
        elif comment and len(named := [cell for _, cell in self._cells(comment)]) == self.D:
            self.names = [] if any(map(_is_number, named)) else named
        if self.names:
            self.notes.append(f"header with {self.D} name{'s' * (self.D > 1)}")
        elif numbered:
            self.notes.append(f"line {above} passed over as the numbers of the columns")
        if self.separator in ";\t":
            self.notes.append(f"{SEPARATORS[self.separator]} between the columns")
        return above

    def _divide(self, line: str) -> None:
        """What separates the cells of a line, and how many they are."""
        self.separator = next((mark for mark in SEPARATORS if mark in line.strip(" \r")), " ")
        self.D = len(self._cells(line))

    def _cells(self, line: str) -> list[tuple[int, str]]:
        """The cells of a line, each with the column at which it stands, from 1."""
        if self.separator == " ":
            return [(found.start() + 1, found.group().strip('"')) for found in re.finditer(r"\S+", line)]
        cells, column = [], 1
        for cell in line.split(self.separator):
            cells.append((column + len(cell) - len(cell.lstrip()), cell.strip().strip('"').strip()))
            column += len(cell) + 1
        return cells

    def _rows(self, text: str, number: int) -> np.ndarray:
        """The rows of a part whose first line has this number, (n, D)."""
        body = text.rstrip(" \r\n")
        lines = body.count("\n") + 1
        if body.strip() and not self.blank:
            try:
                delimiter = None if self.separator == " " else self.separator
                rows = np.loadtxt(io.StringIO(body), delimiter=delimiter, ndmin=2, comments=None, quotechar='"')
                if rows.shape == (lines, self.D) and (np.abs(rows) <= MOST).all():
                    self.blank = number + lines if text.count("\n", len(body)) > 1 else 0
                    return rows
            except ValueError:
                pass
        found = list(self._slowly(text, number))
        return np.array(found, np.float64).reshape(len(found), self.D)

    def _slowly(self, text: str, number: int) -> Iterator[list[float]]:
        """The same, cell by cell. Raises InputError for the first fault."""
        for line, content in enumerate(text.removesuffix("\n").split("\n"), number):
            content = content.rstrip("\r")
            if not content.strip():
                self.blank = self.blank or line
                continue
            if self.blank:
                raise InputError(f"{self.name}:{self.blank}:1: a blank line between rows; delete it")
            cells = self._cells(content)
            if len(cells) != self.D:
                at = cells[min(len(cells), self.D + 1) - 1][0]
                what = f"this row has {len(cells)} cell{'s' * (len(cells) > 1)}, those above it {self.D}"
                raise InputError(f"{self.name}:{line}:{at}: {what}; make all rows as long")
            row = [_number(cell, f"{self.name}:{line}:{at}") for at, cell in cells]
            if not self.first_missing and any(np.isnan(row)):
                self.first_missing = f"{self.name}:{line}:{cells[int(np.argmax(np.isnan(row)))][0]}"
            yield row


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def check_out(path: str | os.PathLike[str]) -> None:
    """Raises InputError for a name that `write` should not write to: one with an ending that means something else."""
    name = os.path.basename(os.fspath(path)).lower()
    if "." in name.lstrip(".") and not name.endswith(ENDINGS):
        raise InputError(f"{path}: its ending is not one of points; use {', '.join(ENDINGS)}")


def write(path: str | os.PathLike[str], array: np.ndarray, form: Mapping[str, Any]) -> None:
    """Writes (N, D) float64 so that `read` reads the same numbers back: .npy; or text with the names and the separator
    of `form`, else commas in .csv, tabs in .tsv and blanks elsewhere; .gz compresses."""
    lower, lines = os.fspath(path).lower(), io.StringIO()
    if lower.endswith(".npy"):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        return write_whole(path, buffer.getbuffer())
    plain, separator = lower.removesuffix(".gz"), form.get("separator", ",")
    if plain.endswith(".csv"):
        separator = separator if separator in ",;" else ","
    elif plain.endswith(".tsv"):
        separator = "\t"
    else:
        separator = separator if form else " "
    names = form.get("names", ())
    if names and not (separator == " " and any(re.search(r'[\s"]', name) or not name for name in names)):
        csv.writer(lines, delimiter=separator, lineterminator="\n").writerow(names)
    lines.writelines(separator.join(map(repr, row)) + "\n" for row in array.tolist())
    data = lines.getvalue().encode()
    write_whole(path, gzip.compress(data, compresslevel=1, mtime=0) if lower.endswith(".gz") else data)


def text(array: np.ndarray) -> str:
    """(B, D) numbers as lines for a terminal, in columns of one width: of six digits, more where a column needs them to
    show how its rows differ."""
    x = np.asarray(array, np.float64).reshape(-1, np.shape(array)[1])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        wide = np.log10(np.abs(x).max(axis=0, initial=0) / x.std(axis=0) if len(x) > 1 else np.ones(x.shape[1]))
    digits = [int(min(17, 6 + max(0, np.ceil(w)))) if np.isfinite(w) else 6 for w in wide]
    cells = [[f"{value:.{n}g}" for value, n in zip(row, digits)] for row in x.tolist()]
    width = max((len(cell) for row in cells for cell in row), default=0)
    return "".join(" ".join(cell.rjust(width) for cell in row) + "\n" for row in cells)
