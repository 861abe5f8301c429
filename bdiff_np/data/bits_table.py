"""Tables of text as people have them: a header or none, an index column, words for bits, quotes, any usual separator.

What is unambiguous is read, and `Reading.notes` says what was understood; what is not is refused with its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

from bdiff_np.data import bits_layout, bits_text, bits_words, source
from bdiff_np.data.bits_arrays import Reading, form_of, slices
from bdiff_np.data.bits_cells import SAID, Cells
from bdiff_np.errors import InputError, short

MOST_WORDS = 200  # different cells that are told apart; a table of bits has a few
ITEMS = "; if each line is a list of items, make a column of 0 and 1 for each item"
MOST_CELLS = 1 << 16  # spellings whose codes are kept
LOOK = 4096  # rows after which a table that must be refused is read no further


class _Codes(dict):
    """Cell -> code of its plain word. words : plain word -> code, by order of appearance. texts : code -> a cell of it
    odd : whether a word stands neither for a bit nor for a missing value; the table is then refused"""

    def __init__(self, plain: Callable[[str], str]):
        self._plain, self.odd = plain, False
        self.words: dict[str, int] = {}
        self.texts: list[str] = []

    def __missing__(self, cell: str) -> int:
        word = self._plain(cell)
        code = self.words.get(word)
        if code is None:
            self.odd |= word not in (*bits_words.BITS, *bits_words.MISSING)
            if len(self.words) > MOST_WORDS:
                return MOST_WORDS  # one of them is odd: the table is refused
            code = self.words[word] = len(self.words)
            self.texts.append(cell)
        if len(self) < MOST_CELLS:
            self[cell] = code
        return code


def read(file: BinaryIO, name: str, separator: str, skipped: int = 0) -> Reading:
    """The table in an opened file. separator : between its columns, of `separator_of`. skipped : comment lines before
    the first row

    Raises InputError with file, line and column for whatever it cannot be.
    """
    return _Table(Cells(file, name, separator, skipped)).reading()


class _Table:
    """A table as it comes to be understood. cells : of the file"""

    def __init__(self, cells: Cells):
        self.cells, self.separator, skipped = cells, cells.separator, cells.skipped
        self.layout = bits_layout.Layout(cells.plain)
        self.notes = [f"{skipped} comment line{'s' * (skipped > 1)} passed over"] if skipped else []
        self.notes += [f"{SAID[self.separator]} between the columns"] if self.separator in SAID else []

    def _ragged(self, row: int, cells: int, wanted: int = 0) -> InputError:
        """The fault of a row whose length is not that of the first line; or, where a header has one name less, not
        `wanted`."""
        line = self.cells.skipped + (1 if wanted in (0, len(self.head)) else 2)
        wanted = wanted or len(self.head)
        text = self.cells.line(row).replace(self.separator or " ", " ").split() + self.head
        return self.cells.fault(
            *self.cells.place(row, min(cells, wanted) - (cells < wanted)),
            f"this row has {cells} cell{'s' * (cells > 1)}, but line {line} has {wanted}; make all rows as long"
            + (ITEMS if all(cell.strip().isdigit() for cell in text) else ""),
        )

    def reading(self) -> Reading:
        rows = self.cells.rows()
        head = next(rows, None)
        if head is None:
            raise self.cells.fault(1, 1, "the file is empty; write one row of 0 and 1 per line into it")
        if not self.separator and (mark := re.search("[,;|\t]", head[0])) and '"' not in self.cells.line(0):
            reason = f"several names above lines of one cell: {mark.group()!r} stands here and in no other line"
            raise self.cells.fault(self.cells.skipped + 1, mark.start() + 1, reason)
        if not self.separator and re.fullmatch(r"\d+(\s+\d+)+", head[0].strip()):
            raise self.cells.fault(self.cells.skipped + 1, 1, f"several numbers above lines of one{ITEMS}")
        self.head = [head[0].lstrip("# ") if head[0].startswith("#") else head[0], *head[1:]]
        if (plain := self._plain_below()) is not None:
            return plain
        first, codes, width = self._body(rows)
        trailing = width > 1 and self._all_empty(first, codes, width - 1) and (not head[-1] or len(head) < width)
        if trailing and codes.shape[1]:
            codes, self.head = codes[:, :-1], head[: width - 1]
            self.notes.append(f"a {'comma' if self.separator == ',' else 'separator'} at each line's end passed over")
        return self._resolved(first, codes)

    def _plain_below(self) -> Reading | None:
        """The table where below a header there are digits alone."""
        if bits_layout.INDEX.fullmatch(self.head[0].strip().lower()) or self.separator == "":
            return None
        found = bits_text.equal_lines(
            _without(source.blocks(self.cells.file, self.cells.name), self.cells.skipped + 1), self.separator
        )
        if found is None or found[1] != len(self.head) or not self._is_header(self.head, [{"0", "1"}] * found[1]):
            return None
        names = [name.strip() for name in self.head]
        self.notes.append(_named(names))
        return self._reading(*found, names, None, [("0", "1")])

    def _body(self, rows: Iterator[list[str]]) -> tuple[list[str], np.ndarray, int]:
        """First cells of all rows but the head, codes (N, width - 1) of the others, and the width."""
        self.codes, first, table, head = _Codes(self.cells.plain), [], bytearray(), self.head
        width, ended = len(head), not head[-1]
        code: Callable[[str], int] = self.codes.__getitem__
        for number, row in enumerate(rows, 1):
            if number == 1 and len(row) == width + 1 and head[-1]:  # R names its index, pandas does not; or a trailing
                width += 1  # separator that the header has not
            if len(row) != width:
                if len(row) == width + 1 and not row[-1]:
                    row.pop()
                elif len(row) == width - 1 and ended:
                    row.append("")
                elif number == 2 and width > len(head):
                    raise self._ragged(1, width)
                elif number == 1 and len(row) == width - 1 and not head[-1]:
                    head.pop()
                    width -= 1
                else:
                    raise self._ragged(number, len(row), width)
            ended &= not row[-1]  # each row by a separator, which some leave out
            first.append(row[0])
            table += bytes(map(code, row[1:]))
            if not number % LOOK and (self.codes.odd or number == LOOK and self._is_neither(first)):
                break
        return first, np.frombuffer(table, np.uint8).reshape(len(first), width - 1), width

    def _all_empty(self, first: list[str], codes: np.ndarray, column: int) -> bool:
        if not len(first):
            return not self.head[-1]
        if not column:
            return False
        return bool((codes[:, column - 1] == self.codes.words.get("", 255)).all())

    def _is_neither(self, first: list[str]) -> bool:
        """Whether the cells of a first column are neither bits nor an index."""
        cells = set(first)
        words = {self.cells.plain(cell) for cell in cells} - set(bits_words.MISSING)
        return len(cells) < len(first) and not words <= set(bits_words.pair_of(words))

    def _resolved(self, first: list[str], codes: np.ndarray) -> Reading:
        """Which columns are bits, which line is a header, which column an index."""
        cells = self.codes.texts
        columns = [self._cells(codes[:, j], cells) for j in range(codes.shape[1])]
        head, names, index = self.head, None, None
        if len(first) and len(head) == codes.shape[1]:  # R leaves out the name of its index
            words = {self.cells.plain(cell) for cell in first}
            if len(words) < max(2, len(first)) or words <= set(bits_words.pair_of(words)):
                raise self._ragged(1, len(head) + 1)
            index, head = "", ["", *head]
            first_cells: set[str] = set()
        else:
            first_cells = set(first)
            if self.layout.is_index(head, first, columns):
                index = head[0].strip()
        self.names = head
        lists = columns if index is not None else [first_cells, *columns]
        start = int(index is not None)
        for j, texts in enumerate(lists):  # before a header is blamed
            self._check_words(start + j, texts, True)
        pairs = []
        header = index is not None and self.layout.is_numbered(head, first) or self._is_header(head[start:], lists)
        if len(self.head) < len(head) and not header:
            raise self._ragged(1, len(head))
        every: list[set[str]] = []
        for j, texts in enumerate(lists):
            used = texts if header else texts | {head[start + j]}
            pair = self._check_words(start + j, used, header)
            pairs.append(bits_words.spelt(pair, sorted(text for text in used if self.cells.plain(text) in pair)))
            every.append({self.cells.plain(text) for text in used} - set(bits_words.MISSING))
        if (odd := bits_words.disagreement(every)) is not None:
            raise self._blamed(start + odd[0], {odd[1]}, header, lambda _: odd[2])
        if header:
            names = [name.strip() for name in head[start:]]
            self.notes.append(_named(names))
        if index is not None:
            self.notes.append("column 1 left out as an index" + f" ({short(index, 30)})" * bool(index))
        if not header:
            self.notes += bits_layout.read_as_row(self.head, self.cells.skipped + 1)
        self.notes += bits_words.notes_of(pairs, names)
        if not lists:
            raise self.cells.fault(self.cells.skipped + 1, 1, "there is no column of bits beside the index")
        if header and not len(first):
            raise self.cells.fault(
                self.cells.skipped + 1, 1, "there is a header and no row; write one row of 0 and 1 per line"
            )
        return self._filled(first, codes, pairs, names, index, header)

    def _filled(self, first, codes, pairs, names, index, header) -> Reading:
        """The bits of a table that has been understood."""
        extra = self.codes
        table = codes
        if index is None:
            left = np.fromiter(map(extra.__getitem__, first), np.uint8, len(first))
            table = np.concatenate([left[:, None], codes], axis=1)
        if not header:
            start = int(index is not None)
            top = np.array([[extra[cell] for cell in self.head[start:]]], np.uint8).reshape(1, -1)
            table = np.concatenate([top, table])
        lookup, absent = np.zeros(256, np.uint8), np.zeros(256, bool)
        for word, code in extra.words.items():
            lookup[code], absent[code] = bits_words.BITS.get(word, 0), word in bits_words.MISSING
        N, D = table.shape
        packed, missing, place = np.empty((N, -(-D // 8)), np.uint8), None, ""
        for part in slices(N, D):
            packed[part] = np.packbits(lookup[table[part]], axis=1)
            gone = absent[table[part]]
            if gone.any():
                missing = np.zeros_like(packed) if missing is None else missing
                missing[part] = np.packbits(gone, axis=1)
                if not place:
                    row, cell = np.argwhere(gone)[0].tolist()
                    line, column = self.cells.place(part.start + row + header, cell + (index is not None))
                    place = f"{self.cells.name}:{line}:{column}: {self._column(cell + (index is not None))}"
        return self._reading(packed, D, names, index, pairs, missing, place)

    def _reading(self, packed, D, names, index, pairs, missing=None, place="") -> Reading:
        separator = None if self.separator in (",", " ", "") else self.separator
        form = form_of(names, pairs, index=index if names else None, separator=separator)
        return Reading(packed, D, missing, place, form, self.notes)

    def _cells(self, codes: np.ndarray, cells: list[str]) -> set[str]:
        """The different cells of a column."""
        return {cells[code] for code in np.flatnonzero(np.bincount(codes, minlength=len(cells)))}

    def _is_header(self, head: list[str], columns: list[set[str]]) -> bool:
        """Whether the first line names the columns. Raises InputError where it could be either."""
        fits = self.layout.fits(head, columns)
        if not any(columns):  # one line alone
            return not any(fits)
        if self.layout.is_numbered(head):
            return True
        if all(fits):
            return False
        if not self.layout.some_fit(head, columns):
            return True
        cell = fits.index(False)
        line, column = self.cells.place(0, cell + len(self.head) - len(head))
        words = {self.cells.plain(text) for text in (*columns[cell], head[cell])}
        raise self.cells.fault(
            line, column,
            f"{bits_words.refusal(head[cell].strip(), words)}; or is line {line} a header? Then no name in it may look "
            "like a bit",
        )  # fmt: skip

    def _check_words(self, column: int, cells: set[str], header: bool) -> tuple[str, str]:
        """The pair of words of a column. Raises InputError at its first cell that is not of it."""
        words = {self.cells.plain(cell) for cell in cells} - set(bits_words.MISSING)
        pair = bits_words.pair_of(words)
        wrong = words - set(pair)
        if not wrong:
            return pair

        def reason(text: str) -> str:
            why = bits_words.refusal(text, words)
            if self.separator == " " and text.isdigit():
                return why + ITEMS
            number = column == 0 and len(words) > 2 and bits_words.NUMBER.fullmatch(self.cells.plain(text))
            return why + ("; if column 1 numbers the rows, write a header that calls it id" if number else "")

        raise self._blamed(column, wrong, header, reason)

    def _column(self, column: int) -> str:
        """How messages call a column: by its number, and its name where line 1 seems to have names."""
        name = self.names[column].strip() if column < len(self.names) else ""
        named = name and self.cells.plain(name) not in (*bits_words.BITS, *bits_words.MISSING)
        return f"column {column + 1}" + (f" ({short(name, 30)})" if named else "")

    def _blamed(self, column: int, wrong: set[str], header: bool, reason: Callable[[str], str]) -> InputError:
        """The fault of the first cell of a column, below a header, that is one of some words."""
        for row, cells in enumerate(self.cells.rows()):
            text = cells[column] if column < len(cells) else ""
            if not (row == 0 and header) and self.cells.plain(text) in wrong:
                return self.cells.fault(
                    *self.cells.place(row, column), f"{self._column(column)}: {reason(text.strip())}"
                )
        raise AssertionError(f"{self.cells.name}: refused, yet without a fault")


def _named(names: list[str]) -> str:
    return f"header with {len(names)} name{'s' * (len(names) > 1)}"


def _without(blocks: Iterator[bytes], lines: int) -> Iterator[bytes]:
    """Blocks without the first lines."""
    for block in blocks:
        while lines and block:
            block = block.partition(b"\n")[2]
            lines -= 1
        if block:
            yield block
