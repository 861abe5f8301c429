"""Bits: rows of D values 0 and 1, held packed, eight to a byte."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from pydantic import Field

from bdiff_np import data, settings
from bdiff_np.data import bits_arrays, bits_files
from bdiff_np.data.census import RowCensus
from bdiff_np.errors import InputError
from bdiff_np.settings import Count


class Heartbeat(settings.Settings):
    """A one at every period-th bit, in any phase."""

    name: Literal["heartbeat"] = "heartbeat"
    """The rule."""
    period: Count
    """Distance between ones, in bits."""


class Repeating(settings.Settings):
    """One block of bits, repeated."""

    name: Literal["repeating"] = "repeating"
    """The rule."""
    block: Count
    """Length of the repeated block, in bits."""


class Multiples(settings.Settings):
    """Multiples of k as binary numbers, most significant bit first."""

    name: Literal["multiples"] = "multiples"
    """The rule."""
    k: int = Field(ge=1, le=1 << 62)
    """Divisor of the number that a row spells."""


RuleSettings = Heartbeat | Repeating | Multiples


class BitsSettings(settings.Settings):
    """What is known of the rows."""

    shape: tuple[Count, Count] | None = Field(default=None, strict=False)
    """Height and width in bits, where rows are images; for the pictures."""
    rule: RuleSettings | None = Field(default=None, discriminator="name")
    """The rule that valid rows follow, where one is known."""


class Bits(data.Data):
    """N rows of D bits.

    packed : (N, ceil(D / 8)) uint8
        As numpy.packbits makes it: the first bit is the highest of the first byte, and the last byte is filled up with
        zeros. One row has one packed form, so that equal bytes mean equal rows.
    D : bits per row
    missing : as packed, 1 where a value is missing; None where none is
    """

    Settings, ENDINGS, elements, dtype = BitsSettings, bits_files.ENDINGS, "bits", np.dtype(np.uint8)
    one = "sequence"
    example = "make an example: python cli.py data heartbeat --length 20 --period 5 --out"

    def __init__(self, packed: np.ndarray, D: int):
        self.packed, self.D = packed, D
        self.missing: np.ndarray | None = None

    @classmethod
    def _of(cls, reading: bits_arrays.Reading) -> Bits:
        rows = cls(reading.packed, reading.D)
        rows.missing, rows.first_missing = reading.missing, reading.first_missing
        rows.form, rows.understood = reading.form, "; ".join(reading.notes)
        return rows

    @classmethod
    def from_array(cls, array: Any, name: str = "rows") -> Bits:
        """Packs (N, D) values of any dtype, or what turns into such an array: a list, a data frame, a tensor, a sparse
        matrix. `name` stands in front of the message if a value is not 0 or 1."""
        return cls._of(bits_arrays.read(array, name))

    def __len__(self) -> int:
        return len(self.packed)

    def take(self, index: np.ndarray | slice) -> np.ndarray:
        """The rows at `index`, (B,) integers, a (N,) mask or a slice, as (B, D) uint8."""
        return np.unpackbits(self.packed[index], axis=1, count=self.D)

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes

    def fingerprint(self) -> int:
        whole = zlib.crc32(np.ascontiguousarray(self.packed).tobytes(), self.D)
        return whole if self.missing is None else zlib.crc32(np.ascontiguousarray(self.missing).tobytes(), whole)

    def _like(self, packed: np.ndarray, missing: np.ndarray | None) -> Bits:
        """Other rows in the form of these. missing : as packed, or None"""
        rows = Bits(packed, self.D)
        rows.missing, rows.form, rows.understood = missing, self.form, self.understood
        rows.first_missing = self.first_missing if missing is not None and missing.any() else ""
        return rows

    def join(self, other: Bits) -> Bits:
        parts = [rows.missing if rows.missing is not None else np.zeros_like(rows.packed) for rows in (self, other)]
        both = self._like(np.concatenate([self.packed, other.packed]), np.concatenate(parts))
        both.first_missing = both.first_missing and (self.first_missing or other.first_missing)
        return both

    def select(self, index: np.ndarray) -> Bits:
        return self._like(self.packed[index], None if self.missing is None else self.missing[index])

    def mean(self) -> np.ndarray:
        """The share of ones in each column, (D,) float64. Exact sums, whatever the number of rows."""
        ones = np.zeros(self.D, dtype=np.int64)
        for part in bits_arrays.slices(len(self), self.D):
            ones += self.take(part).sum(axis=0, dtype=np.int64)
        return ones / len(self)

    def keys(self) -> np.ndarray:
        """(N,) void: each row as one value, for numpy.isin, numpy.unique and sets of bytes. Comparable between Bits of
        one D."""
        packed = np.ascontiguousarray(self.packed)
        return packed.view(np.dtype((np.void, packed.shape[1]))).reshape(-1)

    def resident(self, ops):
        # all families of bits share its launch
        name = f"bdiff_np.kernels.bernoulli.bernoulli_{ops.name.replace('-', '_')}"
        return Resident(ops, import_module(name), self) if ops.on_device and find_spec(name) else super().resident(ops)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Bits:
        return cls._of(bits_files.read(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        bits_files.write(path, self.all(), self.form)

    def in_form(self, form: Mapping[str, Any], name: str) -> Bits:
        names = form.get("names")
        if (order := data.column_order(names, self.form.get("names"), name)) is None:
            return self
        missing = None
        if self.missing is not None:
            missing = np.packbits(np.unpackbits(self.missing, axis=1, count=self.D)[:, order], axis=1)
        rows = self._like(np.packbits(self.all()[:, order], axis=1), missing)
        rows.form, rows.understood = {**self.form, "names": names}, f"{self.understood}; columns put in order by name"
        return rows

    @classmethod
    def check_form(cls, form: Any, D: int) -> str | None:
        return bits_arrays.form_fault(form, D)

    def with_file(self, settings: BitsSettings) -> BitsSettings:
        shape = self.form.get("shape")
        return settings.model_copy(update={"shape": tuple(shape)}) if shape and settings.shape is None else settings

    @classmethod
    def check_out(cls, path: str | os.PathLike[str]) -> None:
        bits_files.check_out(path)

    @classmethod
    def text(cls, array: np.ndarray) -> str:
        return bits_files.text(array)

    def summary(self, rows: np.ndarray) -> str:
        return f"share of ones {rows.mean():.4f}, in train {float(self.mean().mean()):.4f}"

    @classmethod
    def check_known(cls, known: np.ndarray, n: int, D: int) -> tuple[np.ndarray, np.ndarray]:
        """known : (D,) or (n, D), 0 or 1 where a bit is known, -1 where it is not"""
        try:
            known = np.ma.filled(np.ma.asarray(known), -1)  # what is masked is not known
        except ValueError:
            raise InputError(f"what is known has rows of several lengths; give ({D},) or ({n}, {D})") from None
        if known.shape not in ((D,), (n, D)):
            raise InputError(
                f"what is known of {n} rows of {D} bits has shape {known.shape}; give ({D},) or ({n}, {D})"
            )
        if not np.isin(known, (-1, 0, 1)).all():
            raise InputError("what is known of a bit is 0, 1 or, where it is to be drawn, -1; another value was given")
        known = np.broadcast_to(known, (n, D))
        return known >= 0, known

    @classmethod
    def read_known(cls, text: str, D: int) -> np.ndarray:
        """text : 0, 1 or, for a bit to be drawn, ?, one for each bit; blanks and commas between them count nothing"""
        marks = [(place, mark) for place, mark in enumerate(text, 1) if mark not in " ,\t"]
        wrong = next(((place, mark) for place, mark in marks if mark not in "01?"), None)
        if wrong is not None:
            raise InputError(f"--known: character {wrong[0]} is {wrong[1]!r}; give 0, 1 or ? for each bit")
        if len(marks) != D:
            raise InputError(f"--known: is of {len(marks)} bits, the rows have {D}; give 0, 1 or ? for each bit")
        return np.array([{"0": 0, "1": 1, "?": -1}[mark] for _, mark in marks])

    def misfits(self, settings) -> Iterator[tuple[str, str]]:
        if settings.shape and settings.shape[0] * settings.shape[1] != self.D:
            yield (
                "data.shape",
                f"{settings.shape[0]} x {settings.shape[1]} is not {self.D}, the number of bits of a row",
            )
        try:
            if (rule := make_rule(settings)) is not None:
                rule.check(self.D)
        except InputError as fault:
            yield "data.rule", str(fault)

    @classmethod
    def population(cls, settings, *files: Bits | None) -> np.ndarray | None:
        """All different rows of the files. None where no rule is known, where a row breaks it, or where some rows of a
        file come more often than others: there is no such law then."""
        given, rule = [rows for rows in files if rows is not None], make_rule(settings)
        if rule is None:
            return None
        for rows in given:
            _, times = np.unique(rows.keys(), return_counts=True)
            if times.min() != times.max() or not all(
                rule.valid(rows.take(slice(k, k + 65536))).all() for k in range(0, len(rows), 65536)
            ):
                return None
        return cls(np.unique(np.concatenate([rows.packed for rows in given]), axis=0), given[0].D).all()

    def census(self, val: Bits | None, settings) -> RowCensus:
        return RowCensus(self, val, make_rule(settings))


DATA = Bits


class Resident:
    """Rows that lie packed on a device, and are unpacked there.

    array : (N, ceil(D / 8)) uint8, all of them
    """

    def __init__(self, ops, kernels, rows: Bits):
        self._kernels = kernels
        self._ops, self.array, self.D = ops, ops.asarray(rows.packed), rows.D

    def __len__(self) -> int:
        return len(self.array)

    def take(self, index: np.ndarray):
        """Rows index (B,), as (B, D) uint8."""
        x = self._ops.empty((len(index), self.D), np.uint8)
        self._kernels.unpack(self.array, self._ops.asarray(np.asarray(index, np.int32)), x)
        return x


def make_rule(settings) -> Any:
    """The rule (generators.Rule) that the section `data` names, or None."""
    from bdiff_np.data import generators

    return generators.make_rule(**settings.rule.model_dump()) if settings.rule else None
