"""What stands for 0 and 1 in files of people: 0.0 and 1.0, TRUE and FALSE, yes and no, 0 and 255."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from bdiff_np.errors import short

# Pairs of words, the first meaning 0. A word means the same in every pair, so that one word alone can be read.
PAIRS = (
    ("0", "1"), ("-1", "1"), ("0", "255"), ("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"), ("off", "on"),
    ("absent", "present"), ("negative", "positive"), ("neg", "pos"), ("-", "+"), ("falsch", "wahr"), ("nein", "ja"),
    ("n", "j"), ("faux", "vrai"), ("non", "oui"), ("falso", "verdadero"), ("no", "sí"), ("no", "si"),
)  # fmt: skip
BITS = {word: bit for pair in PAIRS for bit, word in enumerate(pair)}
NUMBERS = {"0", "1", "-1", "255"}
WEAK = ("-", "+", "f", "t", "n", "y", "j")  # that mean much else
MISSING = ("", "na", "n/a", "#n/a", "nan", "<na>", "null", "none", "nil", "?", ".")
NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)(e[+-]?\d+)?")


def plain(text: str) -> str:
    """A cell without the blanks around it, in small letters, a number in its shortest form: 1.0 and 1e0 are 1."""
    word = text.strip().lower()
    if word not in BITS and NUMBER.fullmatch(word):
        value = float(word)
        return str(int(value)) if abs(value) < 1e15 and value == int(value) else repr(value)
    return word


def pair_of(words: set[str]) -> tuple[str, str]:
    """The pair that plain words belong to, or most of them where they belong to none."""
    return max(PAIRS, key=lambda pair: len(words & set(pair)))


def spelt(pair: tuple[str, str], texts: list[str]) -> tuple[str, str]:
    """A pair as a file spells it. texts : its cells, as they stand there"""
    seen = {plain(text): text.strip() for text in reversed(texts)}
    if any(map(NUMBER.fullmatch, pair)):
        return pair
    model = next(iter(seen.values()), pair[0])
    how = str.upper if model.isupper() else str.capitalize if model[:1].isupper() else str
    return seen.get(pair[0], how(pair[0])), seen.get(pair[1], how(pair[1]))


def notes_of(pairs: list[tuple[str, str]], names: Sequence[str] | None = None) -> list[str]:
    """What was understood of the columns' words, each in a few words; nothing of 0 and 1. names : of the columns"""
    notes = []
    for pair in dict.fromkeys(pairs):
        if pair != ("0", "1"):
            note = f"{pair[1]} = 1, {pair[0]} = 0"
            columns = [names[j] if names else str(j + 1) for j, other in enumerate(pairs) if other == pair]
            if len(columns) < len(pairs):
                more = f" and {len(columns) - 3} more" if len(columns) > 3 else ""
                note += f" in column{'s' * (len(columns) > 1)} {', '.join(columns[:3])}{more}"
            notes.append(note)
    return notes


def disagreement(columns: Sequence[set[str]]) -> tuple[int, str, str] | None:
    """Where columns that are right on their own are not together. columns : the plain words of each

    A table has one pair of numbers; and a sign or a letter alone stands for a bit where the other of its pair is seen
    too. Returns the column, its word, and why it cannot be read; None where all agree.
    """
    numbers = [words & NUMBERS for words in columns]
    seen: set[str] = set().union(*numbers)
    usual = pair_of(seen)
    for j, words in enumerate(numbers):
        for word in sorted(words - set(usual)):
            reason = (
                f"the value {word} in a table of {usual[0]} and {usual[1]}: one pair of numbers stands for the bits"
            )
            return j, word, f"{reason}; leave a cell empty where its value is missing"
    whole = {pair for pair in PAIRS for words in columns if set(pair) <= words}
    for j, words in enumerate(columns):
        word = next(iter(words), "")
        if len(words) == 1 and word in WEAK and not any(word in pair for pair in whole):
            return j, word, f"{word!r} is alone in its column, and could mean 1 or something else; write 1 or 0 for it"
    return None


def refusal(text: str, words: set[str]) -> str:
    """Why a cell cannot be read as a bit. words : all plain words of its column that stand for something"""
    word, others = plain(text), sorted(words - {plain(text)})
    text = short(text, 40)
    if len(words) == 2 and (not words & set(BITS) or words <= {"1", "2"}):
        return (
            f"its column holds {text!r} and {short(others[0], 40)!r}, and either could be the 1; write 1 and 0 for them"
        )
    what = f"the value {text} is" if NUMBER.fullmatch(word) else f"{text!r} is"
    if word in BITS:
        return (
            f"{what} not a bit beside {short(others[0], 40)}: a column holds two words, 0 and 1, or -1 and 1, or 0 and "
            "255; leave a cell empty where its value is missing"
        )
    if word == "2" and words == {"0", "1", "2"}:
        return "the value 2 is not a bit; of a count make one column for each question, such as 1 or more, 2 or more"
    if len(words) > 2 and not words & set(BITS):
        return f"{what} not a bit; leave its column out, or make of it a column of 0 and 1 for each of its values"
    return f"{what} not a bit; write 0 or 1, or true and false, or yes and no"


def as_bits(column: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[str, str], np.ndarray, set[str]]:
    """Values (N,) of any dtype.

    Returns
    -------
    bits : (N,) uint8. missing : (N,) bool. pair : of words, as they are spelt. wrong : (N,) bool, which are no bits
    words : all plain words that stand for something
    """
    if column.dtype.kind in "OSUT":
        at: dict[str, int] = {}
        cells = [cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell) for cell in column.tolist()]
        codes = np.array([at.setdefault(cell, len(at)) for cell in cells], int)
        texts = list(at)
    else:
        values, codes = np.unique(column, return_inverse=True)
        texts = [str(value) for value in values.tolist()]
    plain_words = [plain(text) for text in texts]
    words = {word for word in plain_words if word not in MISSING}
    pair = pair_of(words)
    lookup = np.array(
        [(BITS.get(word, 0), word in MISSING, word in words and word not in pair) for word in plain_words], np.uint8
    ).reshape(-1, 3)[codes.reshape(-1)]
    return (
        lookup[:, 0], lookup[:, 1].astype(bool), spelt(pair, [t for t in texts if plain(t) in pair]),
        lookup[:, 2].astype(bool), words,
    )  # fmt: skip
