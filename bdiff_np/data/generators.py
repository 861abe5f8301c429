"""Rules that rows can obey, and example data made from them.

A rule knows all of its valid rows by number, without listing them, so that one definition serves the generators, the
check of samples and the exact optimum of a data set. Adding a rule is a class here and its line in RULES.
"""

from __future__ import annotations

import dataclasses
import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bdiff_np import memory, rng
from bdiff_np.data.bits import Bits
from bdiff_np.errors import InputError
from bdiff_np.rng import Key, Sequence

# Notation: B rows, D bits. A row's number runs from 0 to count(D) - 1 and can exceed 64 bits: numbers are Python
# integers.

LONGEST = 1 << 24  # bits of an example row
COPIES = 4  # of rows that are in memory at once while they are made
MOST_ROWS = 1 << 22  # what is listed or drawn at once; beyond it, a subset is drawn


@dataclass(frozen=True)
class Rule(ABC):
    """A set of valid rows for each length D; its dataclass fields are its parameters, positive integers."""

    name: ClassVar[str]

    def __post_init__(self) -> None:
        for parameter, value in dataclasses.asdict(self).items():
            object.__setattr__(self, parameter, _whole(self.name, parameter, value, 1))

    def check(self, D: int) -> None:
        """Raise InputError if no row of length D can obey the rule."""
        _whole(self.name, "length", D, 1)

    @abstractmethod
    def count(self, D: int) -> int:
        """How many rows of length D are valid."""

    @abstractmethod
    def rows_at(self, D: int, numbers: Iterable[int]) -> np.ndarray:
        """The rows with these numbers, (B, D) uint8. Different numbers give different rows."""

    @abstractmethod
    def valid(self, bits: np.ndarray) -> np.ndarray:
        """Which of the rows, (B, D) of 0 and 1, obey the rule: (B,) bool."""

    def rows(self, D: int) -> np.ndarray:
        """All valid rows in order, (count(D), D) uint8.

        Raises
        ------
        InputError : there are more than MOST_ROWS.
        """
        count = self.count(D)
        if count > MOST_ROWS:
            raise InputError(
                f"{self.name}: {_figure(count)} rows of length {D} are valid, more than the {MOST_ROWS} that are "
                "listed at once;"
                " take a smaller length, or draw a part of them (--rows; num_rows in Python)"
            )
        _fits(self.name, count, D)
        return self.rows_at(D, range(count))


@dataclass(frozen=True)
class Heartbeat(Rule):
    """A 1 at every `period`-th place, 0 elsewhere. Row number phi has its ones at phi, phi + period, ..."""

    name = "heartbeat"
    period: int

    def check(self, D: int) -> None:
        super().check(D)
        if D < self.period:
            raise InputError(
                f"heartbeat: the period {self.period} is longer than a row of {D} bits; take at least {self.period} "
                "bits"
            )

    def count(self, D: int) -> int:
        self.check(D)
        return self.period

    def rows_at(self, D: int, numbers: Iterable[int]) -> np.ndarray:
        self.check(D)
        phase = np.array(list(numbers), dtype=np.int64)
        return (np.arange(D) % self.period == phase[:, None]).astype(np.uint8)

    def valid(self, bits: np.ndarray) -> np.ndarray:
        self.check(bits.shape[1])
        return _repeats(bits, self.period) & (bits[:, : self.period].sum(axis=1, dtype=np.int64) == 1)


@dataclass(frozen=True)
class Repeating(Rule):
    """Any `block` bits, repeated to the end. The block, read as a number with its first bit highest, is the row's
    number."""

    name = "repeating"
    block: int

    def check(self, D: int) -> None:
        super().check(D)
        if D % self.block:
            raise InputError(
                f"repeating: a row of {D} bits is not a whole number of blocks of {self.block}; take a multiple as "
                "length"
            )

    def count(self, D: int) -> int:
        self.check(D)
        return 1 << self.block

    def rows_at(self, D: int, numbers: Iterable[int]) -> np.ndarray:
        self.check(D)
        return np.tile(_digits(numbers, self.block), (1, D // self.block))

    def valid(self, bits: np.ndarray) -> np.ndarray:
        self.check(bits.shape[1])
        return _repeats(bits, self.block)


@dataclass(frozen=True)
class Multiples(Rule):
    """0, k, 2k, ... as binary numbers of D bits, the highest bit first. Row number i is i k."""

    name = "multiples"
    k: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _whole(self.name, "k", self.k, 1, 1 << 62)  # so that twice a remainder fits a machine word

    def count(self, D: int) -> int:
        self.check(D)
        return ((1 << D) - 1) // self.k + 1

    def rows_at(self, D: int, numbers: Iterable[int]) -> np.ndarray:
        self.check(D)
        return _digits((number * self.k for number in numbers), D)

    def valid(self, bits: np.ndarray) -> np.ndarray:
        self.check(bits.shape[1])
        remainder = np.zeros(len(bits), dtype=np.int64)
        for column in bits.T:
            remainder = (2 * remainder + column) % self.k
        return remainder == 0


RULES: dict[str, type[Rule]] = {rule.name: rule for rule in (Heartbeat, Repeating, Multiples)}


def make_rule(name: str, **parameters: Any) -> Rule:
    """The rule of that name, e.g. make_rule("heartbeat", period=5).

    Raises
    ------
    InputError : an unknown rule, a parameter that is missing, unknown or not a positive integer.
    """
    if name not in RULES:
        near = difflib.get_close_matches(str(name), RULES, n=1)
        raise InputError(
            f"there is no rule {name!r}; {f'did you mean {near[0]!r}?' if near else 'there are ' + ', '.join(RULES)}"
        )
    wanted = [field.name for field in dataclasses.fields(RULES[name])]
    if set(parameters) != set(wanted):
        raise InputError(f"{name}: takes {', '.join(wanted)}, not {', '.join(parameters) or 'nothing'}")
    return RULES[name](**parameters)


def generate(
    rule: Rule,
    D: int,
    *,
    val_fraction: float = 0.05,
    seed: int = 0,
    num_rows: int | None = None,
    hold_out: Iterable[int] | None = None,
) -> tuple[Bits, Bits | None]:
    """Training and validation rows of a rule: disjoint, and together all valid rows, or `num_rows` different ones drawn
    at random.

    Parameters
    ----------
    val_fraction : share of the rows that is held out, rounded to whole rows; the first ones of the shuffled order.
    seed : 0..2^64 - 1, of the words of rng.py that the order comes from: it is the same with every NumPy.
    num_rows : how many rows to draw; needed where a rule has more than MOST_ROWS.
    hold_out : instead of a share, exactly these rows, counted from 1 (for a heartbeat: the column of the first 1).
        Nothing is shuffled.

    Returns
    -------
    train, val : Bits, and Bits or None where nothing is held out.

    Raises
    ------
    InputError : an impossible length, share, number of rows or choice of rows; no row left to train on; too many rows
        to list.
    """
    D = _whole(rule.name, "length", D, 1, LONGEST)
    count = rule.count(D)
    if hold_out is not None:
        if num_rows is not None:
            raise InputError(f"{rule.name}: hold_out names rows among all of them, so num_rows cannot be given with it")
        bits = rule.rows(D)
        out = np.array(
            sorted({_whole(rule.name, "hold_out", number, 1, count) - 1 for number in hold_out}), dtype=np.int64
        )
        order = np.concatenate([out, np.delete(np.arange(count), out)])
        held = len(out)
    else:
        if not 0 <= val_fraction < 1:
            raise InputError(f"{rule.name}: val_fraction is {val_fraction}; it must be at least 0 and less than 1")
        seed = _whole(rule.name, "seed", seed, 0, (1 << 64) - 1)
        words = Sequence(Key(seed, rng.EXAMPLES, 0))
        if num_rows is None:
            bits = rule.rows(D)
        else:
            num_rows = _whole(rule.name, "num_rows", num_rows, 1, min(count, MOST_ROWS))
            _fits(rule.name, num_rows, D)
            bits = rule.rows_at(D, _distinct(words, count, num_rows))
        order = words.permutation(len(bits))
        held = round(val_fraction * len(bits))
    if held == len(bits):
        raise InputError(f"{rule.name}: all {held} rows would be held out; leave at least one to train on")
    rows = Bits.from_array(bits).packed[order]
    return Bits(rows[held:], D), Bits(rows[:held], D) if held else None


def _fits(rule: str, rows: int, D: int) -> None:
    """Raises InputError unless so many rows fit into memory."""
    memory.check(
        COPIES * rows * D, f"{rule}: {rows} rows of length {D}", "take a smaller length, or fewer rows (--rows)"
    )


def _distinct(words: Sequence, count: int, n: int) -> list[int]:
    """n different random numbers of 0..count-1."""
    if count <= 4 * MOST_ROWS:
        return words.permutation(count)[:n].tolist()
    size = count.bit_length()
    drawn: dict[int, None] = {}
    # a number is refused with probability below one half, and drawn twice with probability below one quarter
    while len(drawn) < n:
        parts = words.words((n - len(drawn)) * -(-size // 64)).astype("<u8").tobytes()
        step = 8 * -(-size // 64)
        for start in range(0, len(parts), step):
            number = int.from_bytes(parts[start : start + step], "little") >> (8 * step - size)
            if number < count:
                drawn[number] = None
    return list(drawn)


def _repeats(bits: np.ndarray, period: int) -> np.ndarray:
    return (bits[:, period:] == bits[:, :-period]).all(axis=1)


def _digits(numbers: Iterable[int], D: int) -> np.ndarray:
    """The D binary digits of each number, highest first, (B, D) uint8. Goes through bytes, so that D may pass 64."""
    size = -(-D // 8)
    packed = np.frombuffer(b"".join(number.to_bytes(size, "big") for number in numbers), dtype=np.uint8).reshape(
        -1, size
    )
    return np.ascontiguousarray(np.unpackbits(packed, axis=1)[:, 8 * size - D :])


def _whole(rule: str, what: str, value: Any, low: int, high: int | None = None) -> int:
    """`value` as a Python integer, or InputError."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, np.integer))
        or value < low
        or (high is not None and value > high)
    ):
        bounds = f"at least {low}" if high is None else f"from {low} to {_figure(high)}"
        raise InputError(f"{rule}: {what} is {value!r}; it must be a whole number, {bounds}")
    return int(value)


def _figure(count: int) -> str:
    """A count in full, or its power of two where the digits would fill the screen."""
    return str(count) if count < 1 << 65 else f"about 2^{count.bit_length() - 1}"
