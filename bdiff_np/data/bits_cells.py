"""The cells of a table of text, line by line, by Python's csv module, and the places where they stand."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

from bdiff_np.data import bits_words, source
from bdiff_np.errors import InputError

SEPARATORS = (";", "\t", "|", ",", " ")
SAID = {";": "semicolons", "\t": "tabs", "|": "bars"}
OPEN = "this quotation mark is not closed in its line; a cell, or a name, may hold no line break"
NOTHING = "\x1f"  # a separator that no line has
CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f]")
DECIMAL = re.compile(r"[+-]?\d+,\d+")


def separator_of(head: list[str]) -> str:
    """What stands between the columns of a table's first lines, equally often in most of them; " " for blanks, "" for
    nothing."""
    lines = [_bare(line).strip(" \t\r") for line in head if line.strip()]

    def agreeing(mark: str) -> int:
        counts = [line.count(mark) if mark != " " else int(mark in line) for line in lines]
        return max((counts.count(count) for count in set(counts) - {0}), default=0)

    def lines_with(mark: str) -> int:
        return sum(mark in line for line in lines)

    best = max(SEPARATORS, key=lambda mark: (agreeing(mark), lines_with(mark)))  # the first of several
    return best if 2 * lines_with(best) >= max(1, len(lines)) else ""


def _bare(line: str) -> str:
    """A line with a letter in the place of what stands in quotes."""
    parts = line.split('"')
    return "".join(part if k % 2 == 0 else "x" for k, part in enumerate(parts))


class Cells:
    """Of an opened file. name : in messages. separator : between its columns, of `separator_of`. skipped : comment
    lines before the first row; rows are counted from 0 after them"""

    def __init__(self, file: BinaryIO, name: str, separator: str, skipped: int):
        self.file, self.name, self.separator, self.skipped = file, name, separator, skipped

    def plain(self, cell: str) -> str:
        """A cell as bits_words.plain has it; where no comma separates, it may be that of a decimal number."""
        decimal = self.separator in SAID and DECIMAL.fullmatch(cell.strip())
        return bits_words.plain(cell.replace(",", ".") if decimal else cell)

    def rows(self) -> Iterator[list[str]]:
        """The cells of each line from the first row on. Raises InputError for broken quotes, a blank line between rows,
        and what is not text."""
        blank, number = self.separator in (" ", ""), self.skipped

        def texts() -> Iterator[str]:
            nonlocal number
            for line in islice(source.lines(self.file, self.name), self.skipped, None):
                number += 1
                try:
                    text = line.decode().strip(" \t" if blank else " ")
                except UnicodeDecodeError as fault:
                    column = len(line[: fault.start].decode()) + 1
                    reason = f"the byte 0x{line[fault.start]:02x} is not text (UTF-8); save the file as CSV in UTF-8"
                    raise self.fault(number, column, reason) from None
                if not text:
                    raise _Blank
                if odd := CONTROL.search(text):
                    at = line.index(odd.group().encode()) + 1
                    fix = "save the file as UTF-8" if odd.group() == "\0" else "end lines by newlines, or delete it"
                    raise self.fault(number, at, f"the character {odd.group()!r} is not text; {fix}")
                yield text

        reader = csv.reader(texts(), delimiter=self.separator or NOTHING, skipinitialspace=True, strict=True)
        rows = 0
        while True:
            try:
                row = next(reader, None)
            except _Blank:
                if any(line.strip(b" \t") for line in islice(source.lines(self.file, self.name), number, None)):
                    raise self.fault(number, 1, "a blank line between rows; delete it") from None
                return
            except csv.Error as fault:
                after = "text follows a closing quotation mark, or a cell holds a line break; take either out"
                reason = OPEN if "end of data" in str(fault) else after
                raise self.fault(self.skipped + rows + 1, self._quote(rows), reason) from None
            if row is None:
                return
            rows += 1
            if reader.line_num != rows:
                at = self.skipped + rows
                raise self.fault(at, self._quote(rows - 1), OPEN)
            yield row

    def line(self, row: int) -> str:
        """The line of row 0, 1, ..."""
        return next(islice(source.lines(self.file, self.name), self.skipped + row, None), b"").decode(
            "utf-8", "replace"
        )

    def _quote(self, row: int) -> int:
        return self.line(row).rfind('"') + 1 or 1

    def fault(self, line: int, column: int, reason: str) -> InputError:
        return InputError(f"{self.name}:{line}:{column}: {reason}")

    def place(self, row: int, cell: int) -> tuple[int, int]:
        """Line and column at which a cell begins."""
        line, at, inside = self.line(row), 0, False
        if self.separator in (" ", ""):
            at = len(line) - len(line.lstrip())
        while cell and at < len(line):
            mark = line[at]
            inside ^= mark == '"'
            at += 1
            if not inside and (mark == self.separator or self.separator == " " and mark == "\t"):
                cell -= 1
                while at < len(line) and line[at] == " ":
                    at += 1
        return self.skipped + row + 1, at + 1


class _Blank(Exception):
    """A line without anything."""
