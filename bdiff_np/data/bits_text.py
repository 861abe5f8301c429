"""Plain rows of text: digits 0 and 1 with nothing, blanks, commas or another separator between them, all lines equal.

Such a text is a table of equal lines, checked by a few passes over its bytes, part by part. Whatever is not, is read by
bits_table.py or refused by `first_fault`, line by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

from bdiff_np.data import bits_words, source
from bdiff_np.errors import InputError

LISTS = (
    "these lines are rows of bits, or lists of numbers such as the items of baskets; if they are bits, put commas "
    "between them, one column each; if they are lists, make a column of 0 and 1 for each item"
)
DIGITS = re.compile(rb"[01][01 \t]*")  # a line of them


def equal_lines(blocks: Iterable[bytes], separator: str) -> tuple[np.ndarray, int] | None:
    """Rows of blocks of whole lines, packed as numpy.packbits does, and their length; None where the lines are not
    digits alone or are not equal. separator : as bits_table.separator_of gives it"""
    parts, D, empty = [], 0, False
    marks = separator.strip(" ").encode()
    ends = re.compile(rb"[ \t]+$|^[ \t]+", re.M)
    for block in blocks:
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n")
        if marks not in (b"", b","):
            block = block.replace(b",", b"?").replace(marks, b",")
        if b" " in block or b"\t" in block:
            if not marks:
                if (
                    block[:1] in b" \t"
                    or block[-1:] in b" \t"
                    or any(end in block for end in (b" \n", b"\t\n", b"\n ", b"\n\t"))
                ):
                    block = ends.sub(b"", block)
                if (b" " in block or b"\t" in block) and _several_digits(block):
                    return None
            block = block.translate(None, b" \t")
        block = block.rstrip(b"\r\n")
        if not block or empty:  # blank lines, of which there are some at the end at most
            empty = True
            if block:
                return None
            continue
        block += b"\n"
        width = block.index(b"\n")
        D = D or (width // 2 + 1 if marks else width)
        if not width or width != (2 * D - 1 if marks else D) or len(block) % (width + 1):
            return None
        table = np.frombuffer(block, dtype=np.uint8).reshape(-1, width + 1)
        bits = (table[:, :width:2] if marks else table[:, :width]) ^ np.uint8(ord("0"))
        between = table[:, 1:width:2] if marks else table[:, :0]
        if bits.max() > 1 or (table[:, width] != ord("\n")).any() or (between != ord(",")).any():
            return None
        parts.append(np.packbits(bits, axis=1))
    return (np.concatenate(parts), D) if parts else None


def _several_digits(block: bytes) -> bool:
    """Whether lines with blanks hold numbers of more than one digit, which none begins with 0: then they are lists of
    numbers as well as bits in groups."""
    digit = np.frombuffer(block, np.uint8) > ord(" ")
    if not (digit[1:] & digit[:-1]).any():
        return False
    return not any(len(token) > 1 and token[:1] == b"0" for token in set(block.split()))


def looks_like_digits(head: list[str]) -> bool:
    """Whether lines that are not rows of digits are meant to be: most of their characters are, and their words do not
    stand for bits as they are."""
    words = [word for line in head for word in line.split()]
    text, below = "".join(words), [line for line in head[1:] if line.strip()]
    known = (*bits_words.BITS, *bits_words.MISSING)
    if below and (
        all(bits_words.plain(line) in known for line in below)  # a column of them, with or without a header
        or all(bits_words.plain(word) in known for line in below for word in line.split())
    ):
        return False
    return not text or 2 * (text.count("0") + text.count("1")) >= len(text) > len(words)


def may_be_lists(first: str, equal: bool) -> bool:
    """Whether lines of digits with blanks could be lists of numbers, by the first of them: one has several digits, or
    there are two on each of equal lines."""
    tokens = first.split()
    if len(tokens) < 2 or not DIGITS.fullmatch(first.encode()):
        return False
    return max(map(len, tokens)) > 1 or equal and len(tokens) == 2


def check_lists(file: BinaryIO, name: str) -> None:
    """Raises InputError for lines with blanks that can be read in two ways: as bits, or as lists of numbers, such as
    the items of market baskets, that happen to have no digits but 0 and 1."""
    grouped = repeated = False  # a group begins with 0; a row holds a digit twice: no list of items does
    several = False
    for block in source.blocks(file, name):
        tokens = set(block.split())
        if not all(token.isdigit() for token in tokens):
            return
        several |= any(len(token) > 1 for token in tokens)
        grouped |= any(len(token) > 1 and token[:1] == b"0" for token in tokens)
        if not several and not repeated:
            repeated = any(len(set(row)) < len(row) for row in map(bytes.split, block.split(b"\n")))
    if not (grouped if several else repeated):
        raise InputError(f"{name}:1:1: {LISTS}")


def first_fault(file: BinaryIO, name: str) -> InputError:
    """Go through rows of digits that are known to have a fault, line by line, to say where the first one is."""
    D, blank, number = 0, 0, 0
    for number, line in enumerate(source.lines(file, name), 1):
        if not line.strip(b" \t"):
            blank = blank or number
            continue
        if blank:
            return InputError(f"{name}:{blank}:1: a blank line between rows; delete it")
        if found := re.search(rb"[^01 \t]", line):
            column = len(line[: found.start()].decode("utf-8", "replace")) + 1
            return InputError(f"{name}:{number}:{column}: {_describe(line[found.start() :])}")
        bits = line.count(b"0") + line.count(b"1")
        D = D or bits
        if bits != D:
            columns = [bit.start() for bit in re.finditer(rb"[01]", line)]
            column = columns[D] if bits > D else columns[-1] + 1
            return InputError(
                f"{name}:{number}:{column + 1}: this row has length {bits}, but line 1 has length {D}; make all rows "
                "as long"
            )
    if not D:
        return InputError(f"{name}:1:1: the file is empty; write one row of 0 and 1 per line into it")
    return InputError(f"{name}:1:1: {LISTS}")


def _describe(rest: bytes) -> str:
    """What the first character of `rest` is, for a message, and what should be there."""
    if rest[:1] in b",;|":
        return f"{rest[:1].decode()!r} is here, but line 1 has none between its bits; write all rows in one way"
    for size in range(1, 5):
        try:
            character = rest[:size].decode()
        except UnicodeDecodeError:
            continue
        return (
            f"the character {character!r} is not a bit; a row holds only 0 and 1, with nothing, blanks or commas "
            "between them"
        )
    return (
        f"the byte 0x{rest[0]:02x} is not text (UTF-8); save the rows as plain text, or name the file by its true "
        "format"
    )
