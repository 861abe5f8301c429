"""Kinds of data, and the contract through which the rest of the program knows them.

A kind <name> is data/<name>.py with DATA, a class derived from `Data`, and is found by the name that a family gives as
`Family.data`. Pictures of its examples, if there are any, are drawn by show/<name>_pictures.py. Commands that make
examples are COMMANDS of data/<name>_examples.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bdiff_np.data import source
from bdiff_np.errors import InputError, short
from bdiff_np.settings import Settings


class Census(Protocol):
    """What tells how good samples are: counts what they are. `census(samples)` gives figures by name.

    names : the figures that metrics.csv follows over the epochs, shares between 0 and 1
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    def __call__(self, samples: Any) -> dict[str, Any]:
        """Figures of samples (Data), those of `names` and others; their number is `n`."""

    def words(self, counts: dict[str, Any]) -> str:
        """All of them as lines for a terminal."""

    def shares(self, counts: dict[str, Any]) -> str:
        """Those of `names` in half a line."""

    def proportions(self, columns: dict[str, Any]) -> dict[str, Any]:
        """Figures over the epochs as results.json has them. columns : name -> one value an epoch"""

    def stack(self, columns: dict[str, Any]) -> dict[str, Any]:
        """The same as shares that sum to 1, by the name that the picture gives each."""


class Data:
    """N examples of one kind. Methods without a body must be written; the others have the default that stands here.

    D : elements of an example. dtype : of what `take` gives
    form : how the examples stood in their file, as far as samples are written back so: names of columns, words for 0
        and 1. JSON, kept in checkpoints
    understood : what was understood of a file beyond its plain values, in one line; empty where there was nothing
    first_missing : place of the first missing value, as file:line:column; empty where none is
    """

    Settings: type[Settings] = Settings  # its settings in the section `data`
    dtype: np.dtype
    elements: str  # what an example consists of, in the plural: "bits"
    one: str = "example"  # what an example is called: "sequence"
    example: str  # how a user makes an example: a command that ends where the name of the run folder goes
    ENDINGS: tuple[str, ...]  # of its files' names, the preferred one first
    D: int
    continuous: bool = False  # whether two examples are never equal in an element
    form: Mapping[str, Any] = {}
    understood: str = ""
    first_missing: str = ""

    # In memory
    # ------------------------------------------------------------------------------------------------------------------

    @classmethod
    def from_array(cls, array: np.ndarray, name: str = "rows") -> Data:
        """Data from an (N, D) array; or from what Python users hold such arrays in, as far as the kind knows it: lists,
        data frames, tensors. Raises InputError, beginning with `name`, for a value that the kind has not."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def take(self, index: np.ndarray | slice) -> np.ndarray:
        """The examples at `index`, (B,) integers, a (N,) mask or a slice, as (B, D)."""
        raise NotImplementedError

    def all(self) -> np.ndarray:
        """All examples, (N, D)."""
        return self.take(slice(None))

    @property
    def nbytes(self) -> int:
        """What they take in memory."""
        raise NotImplementedError

    def fingerprint(self) -> int:
        """A checksum, to tell at resume whether they are still the same."""
        raise NotImplementedError

    def join(self, other: Any) -> Data:
        """These, then the others, of as many elements."""
        raise NotImplementedError

    def select(self, index: np.ndarray) -> Data:
        """The examples at `index` as data of their own, with all that is known of them."""
        rows = type(self).from_array(self.take(index))
        rows.form = self.form
        return rows

    def resident(self, ops):
        """The data where a back end reads it: something with len and take(index (B,)) -> (B, D) on the back end.

        For the fused paths of a GPU it has `array` too, all of the data there, in a form that kernels of the families
        of this kind read.
        """
        return OnDevice(self, ops) if ops.on_device else self

    # In files
    # ------------------------------------------------------------------------------------------------------------------

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Data:
        """The examples of a file, a pipe or, for "-", standard input: data.source opens all three. Raises InputError,
        one sentence with file, line and column, for everything that is not as it should be."""
        raise NotImplementedError

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes a file that `read` reads back, whole or not at all."""
        raise NotImplementedError

    def in_form(self, form: Mapping[str, Any], name: str) -> Data:
        """These examples as others of the form of the training data stand: columns of the same names in its order.
        Raises InputError, beginning with `name`, where they are others."""
        return self

    @classmethod
    def check_form(cls, form: Any, D: int) -> str | None:
        """What is wrong with a form that stands in a checkpoint of examples of D elements; None for a good one."""
        return None

    def with_file(self, settings):
        """The section `data` with what the file itself says where the settings leave it open, for the pictures."""
        return settings

    @classmethod
    def check_out(cls, path: str | os.PathLike[str]) -> None:
        """Raises InputError for a name that `write` should not write to."""

    @classmethod
    def text(cls, array: np.ndarray) -> str:
        """Examples (B, D) as lines for a terminal."""
        raise NotImplementedError

    def summary(self, rows: np.ndarray) -> str:
        """Half a sentence that compares samples (B, D) with these examples; empty for none."""
        return ""

    # What is known of it
    # ------------------------------------------------------------------------------------------------------------------

    @classmethod
    def check_known(cls, known: np.ndarray, n: int, D: int) -> tuple[np.ndarray, np.ndarray]:
        """Which elements of n examples are known, (n, D) bool, and what they are, (n, D). known : as the kind lets a
        user say it, (D,) or (n, D)

        Raises InputError for a shape or a value that does not fit.
        """
        raise NotImplementedError

    @classmethod
    def read_known(cls, text: str, D: int) -> np.ndarray:
        """What a text on the command line says of the elements of an example, (D,), for `check_known`. Raises
        InputError, beginning with `--known`, for a text that does not fit."""
        raise InputError(
            f"--known: what is known of {cls.elements} can be said in Python alone: model.sample(known=...)"
        )

    def misfits(self, settings) -> Iterator[tuple[str, str]]:
        """Settings of the section `data` that these examples do not fit: "data.field" and the reason."""
        yield from ()

    @classmethod
    def population(cls, settings, *files: Any) -> np.ndarray | None:
        """All examples, (N, D), that the law of the data gives with equal probability; None where it is not known.
        files : Data, or None"""
        return None

    @classmethod
    def entropy(cls, settings, *files: Any) -> float | None:
        """The entropy of the data's law in nats per example, below which no bound can lie; None where it is not known,
        or where the files are not of that law."""
        return None

    def census(self, val: Any, settings) -> Census | None:
        """What tells whether samples are like these examples, the training data, and the held-out ones (Data or None).

        settings : section `data`. None where the kind has no such figures.
        """
        return None


class OnDevice:
    """Data that is taken on the host and copied to a device, batch by batch."""

    def __init__(self, data: Data, ops):
        self._data, self._asarray, self._to_host = data, ops.asarray, ops.to_host

    def __len__(self) -> int:
        return len(self._data)

    def take(self, index):
        return self._asarray(self._data.take(index if isinstance(index, np.ndarray | slice) else self._to_host(index)))


def column_order(names: list[str] | None, own: list[str] | None, name: str) -> list[int] | None:
    """Where columns with the names `own` have those of the training rows, `names`; None where they stand in that order
    already, or where one of them has no names. Raises InputError, beginning with `name`, where they are others."""
    if not names or not own or names == own:
        return None
    if sorted(names) != sorted(own) or len(set(names)) < len(names):
        lacking, more = sorted(set(names) - set(own)), sorted(set(own) - set(names))
        what = [f"there is no column {short(repr(lacking[0]), 40)}"] if lacking else []
        what += [f"column {short(repr(more[0]), 40)} is not one of them"] if more else []
        fault = ", ".join(what) or "they are named alike"
        raise InputError(f"{name}: its columns are not those of the training rows: {fault}")
    return [own.index(column) for column in names]


SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}  # how their files are named


def find_file(kind: type[Data], folder: str | os.PathLike[str], split: str) -> Path | None:
    """The file of a split, "train", "val" or "test", in a run folder: its name with one of the kind's endings, or
    NAME.train.data, as the density estimation suite has it. None where there is no "val" or "test".

    Raises
    ------
    InputError : the run folder or its "train" is missing, or two files claim one split.
    """
    run = Path(folder)
    if not run.is_dir():
        raise InputError(f"{run}: there is no such run folder; {kind.example} {run}")
    wanted = {name + ending for name in SPLITS[split] for ending in kind.ENDINGS}
    order = {ending: place for place, ending in enumerate(kind.ENDINGS)}
    every = sorted(run.iterdir(), key=lambda file: (order.get("".join(file.suffixes[-1:]), 0), file.name))
    found = [file for file in every if file.name.lower() in wanted]
    found = found or [file for file in every if _split_name(file.name, kind.ENDINGS) in wanted]
    if len(found) > 1:
        raise InputError(
            f"{run}: {' and '.join(file.name for file in found)} both claim to be the {split} rows; keep one of them"
        )
    if split == "train" and not found:
        others = ", ".join(ending for ending in kind.ENDINGS[1:] if not ending.endswith(".gz"))
        others += ", .gz" * any(ending.endswith(".gz") for ending in kind.ENDINGS)
        held = {name + ending for split in ("val", "test") for name in SPLITS[split] for ending in kind.ENDINGS}
        rows = [file.name for file in every if file.name.lower().endswith(kind.ENDINGS)]
        rows = [name for name in rows if _split_name(name, kind.ENDINGS) not in held]
        if len(rows) == 1:
            ending = max((end for end in kind.ENDINGS if rows[0].lower().endswith(end)), key=len)
            raise InputError(f"{run}: has no train{kind.ENDINGS[0]}; if {rows[0]} are the rows, call it train{ending}")
        raise InputError(
            f"{run}: has no train{kind.ENDINGS[0]} (nor {others}); put your rows there, or {kind.example} {run}"
        )
    if found and not found[0].is_file() and not found[0].is_dir():
        raise InputError(f"{found[0]}: is not a regular file; put the rows into one")
    return found[0] if found else None


def _split_name(file: str, endings: tuple[str, ...]) -> str:
    """A file's name in small letters without what stands before .train.data."""
    lower = file.lower()
    ending = max((ending for ending in endings if lower.endswith(ending)), key=len, default="")
    return lower.removesuffix(ending).rpartition(".")[2] + ending


def read_file(kind: type[Data], path: str | os.PathLike[str], form: Mapping[str, Any] | None = None) -> Data:
    """The examples of a file, one at least; stderr says what was understood of it. form : of the training data, which
    they must fit

    Raises InputError as the kind's `read` and `in_form` do, and for what no kind can read: a file that is missing, is a
    folder, is not text where text is asked for, or holds nothing.
    """
    name = source.shown(path)
    try:
        rows = kind.read(path)
    except OSError as fault:
        raise InputError(f"{name}: cannot be read: {fault.strerror or fault}") from fault
    except UnicodeDecodeError as fault:
        raise InputError(f"{name}: is not UTF-8 text (byte {fault.start}); save it as UTF-8") from fault
    if not len(rows) or not rows.D:
        raise InputError(f"{name}: holds no {kind.elements}; write one example at least into it")
    rows = rows.in_form(form or {}, name)
    if rows.understood:
        print(f"{name}: {rows.understood}", file=sys.stderr)
    return rows


def refuse_missing(family, *files: Data | None) -> None:
    """Raises InputError for data with missing values, for a family (diffusion.Family) that cannot take them."""
    for rows in files:
        if rows is not None and rows.first_missing and not family.takes_missing:
            raise InputError(
                f"{rows.first_missing}: a value is missing, and the family {family.name} needs all of them; fill it "
                "in, or leave out the rows or columns that have holes"
            )


def read_run(kind: type[Data], folder: str | os.PathLike[str]) -> tuple[Data, Data | None]:
    """Training data of a run folder, and its held-out data or None. Raises InputError as `find_file` and `read_file`
    do, and for two lengths."""
    train_file, val_file = find_file(kind, folder, "train"), find_file(kind, folder, "val")
    assert train_file is not None  # find_file has raised
    train = read_file(kind, train_file)
    val = read_file(kind, val_file, train.form) if val_file else None
    if val is not None and val.D != train.D:
        raise InputError(
            f"{val_file}: rows have {val.D} {kind.elements}, those of {train_file} have {train.D}; make them of one "
            "length"
        )
    return train, val
