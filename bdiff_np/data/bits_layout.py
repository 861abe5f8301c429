"""Which line of a table names the columns, and whether its first column numbers or names the rows."""

from __future__ import annotations

import re
from collections.abc import Callable

from bdiff_np.data import bits_words

INDEX = re.compile(  # how an index column is named
    r"|unnamed: 0|index|rows?|row[ ._]?(names?|id|number)|(.*[ ._-])?(no|nr|number|key|code)|.*id|samples?|names?"
    r"|subjects?|patients?"
)


def read_as_row(row: list[str], line: int) -> list[str]:
    """A note where a line that is read as a row could be names, as pandas numbers columns; else none."""
    texts = [text.strip() for text in row]
    numbered = texts == [str(k) for k in range(len(texts))]
    return [f"line {line} ({', '.join(texts)}) read as a row, not as names"] * numbered


class Layout:
    """What can be said of the first line and the first column.

    plain : a cell as bits_words.plain has it. Arguments: head, the cells of the first line; first, those of the first
    column below; columns, the different cells of each other column
    """

    def __init__(self, plain: Callable[[str], str]):
        self.plain = plain

    def is_index(self, head: list[str], first: list[str], columns: list[set[str]]) -> bool:
        """Whether the first column numbers or names the rows. All its cells differ then; numbers follow one another, or
        stand below a name for such a column; and more than one cell is no bit, which could be a slip."""
        if len(head) < 2 or not len(first):
            return False
        header = self.is_numbered(head, first) or not self.some_fit(head[1:], columns)
        words = [self.plain(cell) for cell in (first if header else [head[0], *first])]
        if len(set(words)) < len(words) or set(words) & set(bits_words.MISSING):
            return False
        named = header and bool(INDEX.fullmatch(head[0].strip().lower()))
        if set(words) <= set(bits_words.pair_of(set(words))):
            return named
        if all(map(bits_words.NUMBER.fullmatch, words)):
            if not all(word.lstrip("-").isdigit() for word in words):
                return False
            numbers = sorted(map(int, words))
            follow = numbers[-1] - numbers[0] == len(numbers) - 1
            return named or follow and len(numbers) > (2 if header else 3)
        return self._are_names(words) and (header or len(words) > 1)

    def is_numbered(self, head: list[str], first: list[str] | None = None) -> bool:
        """Whether the first line numbers the columns from 0 or 1, as pandas does: four at least, which no slip makes of
        a row; or, given the first column, beside an index that has such a column's name."""
        texts = [text.strip() for text in head]
        if first is not None:
            words = [self.plain(cell) for cell in first]
            counts = len(words) > 2 and words == [str(k) for k in range(len(words))]
            named = INDEX.fullmatch(texts[0].lower()) and (counts or self._are_names(words))
            if not named:
                return False
            texts = texts[1:]
        elif len(texts) < 4:
            return False
        return texts in ([str(k) for k in range(len(texts))], [str(k + 1) for k in range(len(texts))])

    @staticmethod
    def _are_names(words: list[str]) -> bool:
        """Whether words that all differ name rows: each has a letter, or is a date, and none is a word for a bit."""
        return len(set(words)) == len(words) and all(
            re.search(r"[^\W\d_]|\d[-/:.]\d.*[-/:.]\d", word) and word not in (*bits_words.BITS, *bits_words.MISSING)
            for word in words
        )

    def fits(self, head: list[str], columns: list[set[str]]) -> list[bool]:
        """Whether each cell of the first line could be a value of its column."""
        fits = []
        for text, cells in zip(head, columns):
            word = self.plain(text)
            words = {word, *map(self.plain, cells)} - set(bits_words.MISSING)
            fits.append(word in bits_words.MISSING or words <= set(bits_words.pair_of(words)))
        return fits

    def some_fit(self, head: list[str], columns: list[set[str]]) -> bool:
        """Whether a cell of the first line that holds something could be a value of its column."""
        named = [self.plain(text) not in bits_words.MISSING for text in head]
        return any(fit and there for fit, there in zip(self.fits(head, columns), named))
