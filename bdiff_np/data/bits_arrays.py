"""Bits out of arrays of any dtype that hold nothing else, and out of what turns into such arrays: lists, data frames,
tensors, sparse matrices."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bdiff_np.data import bits_words
from bdiff_np.errors import InputError, short

CHUNK = 1 << 22  # bits unpacked or checked at a time: few enough to stay in cache, many enough to hide Python


class Reading(NamedTuple):
    """Rows of bits, and how they stood where they came from.

    packed : (N, ceil(D / 8)) uint8, as numpy.packbits makes it. D : bits per row
    missing : as packed, 1 where a value is missing (its bit is 0); None where none is. first_missing : its place
    form : what samples are written back with (`form_of`). notes : what was understood, each in a few words
    """

    packed: np.ndarray
    D: int
    missing: np.ndarray | None = None
    first_missing: str = ""
    form: dict[str, Any] = {}
    notes: Sequence[str] = ()


def slices(N: int, D: int) -> Iterator[slice]:
    """N rows of D bits in parts of CHUNK bits."""
    step = max(1, CHUNK // max(1, D))
    return (slice(start, min(start + step, N)) for start in range(0, N, step))


def read(given: Any, name: str) -> Reading:
    """The bits of an array, or of whatever turns into one: a list, a data frame, a tensor, a sparse matrix.

    Raises InputError, with `name` in front, for what cannot be read as bits, with row and column.
    """
    if given is None or isinstance(given, str | bytes | os.PathLike):
        raise InputError(f"{name}: is {short(repr(given), 60)}; give rows, an (N, D) array of 0 and 1")
    if hasattr(given, "detach"):  # a tensor of PyTorch
        given = given.detach().cpu().numpy()
    if isinstance(given, np.ma.MaskedArray):  # what is masked is missing
        numbers = given.dtype.kind in "biuf"
        given = np.ma.filled(given.astype(np.float64), np.nan) if numbers else np.ma.filled(given.astype(object), None)
    if hasattr(given, "tocsr") and given.shape[1]:  # a sparse matrix or array of SciPy
        rows = given.tocsr()
        return _sliced(given.shape, lambda part: rows[part].toarray(), name)
    if hasattr(given, "schema") and hasattr(given, "column"):  # a table of pyarrow
        index = (getattr(given.schema, "pandas_metadata", None) or {}).get("index_columns", ())
        kept = [k for k, column in enumerate(given.schema.names) if column not in index]
        arrays = [np.array(given.column(k).to_pylist(), object) for k in kept]
        reading = columns(arrays, [given.schema.names[k] for k in kept], name)
        left_out = ["the index left out"] * (len(kept) < len(given.schema.names))
        return reading._replace(notes=[*reading.notes, *left_out])
    if hasattr(given, "columns") and hasattr(given, "to_numpy"):  # a data frame of pandas or polars
        names = [str(column) for column in given.columns]
        series = [given.iloc[:, k] if hasattr(given, "iloc") else given[column] for k, column in enumerate(names)]
        return columns([column.to_numpy() for column in series], names, name)
    try:
        array = given if isinstance(given, np.ndarray) else np.asarray(given)
    except ValueError:
        raise InputError(f"{name}: the rows are not of one length; rows are an (N, D) array") from None
    if array.ndim < 2 or 0 in array.shape[1:]:
        raise InputError(
            f"{name}: the array has shape {array.shape}; rows are an (N, D) array with D >= 1"
            + ("; X.reshape(-1, 1) makes one column" if array.ndim == 1 else "")
        )
    if array.dtype.kind in "OSUT":
        flat = array.reshape(len(array), -1)
        return columns([flat[:, k] for k in range(flat.shape[1])], [], name)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: the array has dtype {array.dtype}; rows are numbers 0 and 1, or bool")
    form: dict[str, Any] = {}
    notes: list[str] = []
    if array.ndim > 2:
        sides = [side for side in array.shape[1:] if side > 1] or [1]
        notes.append(f"rows of {int(np.prod(array.shape[1:]))} bits from shape {array.shape[1:]}")
        if len(sides) == 2:
            form["shape"] = sides
    reading = _sliced(array.shape, lambda part: array[part], name)
    return reading._replace(form={**form, **reading.form}, notes=[*notes, *reading.notes])


def columns(arrays: Sequence[np.ndarray], names: Sequence[str], name: str) -> Reading:
    """The bits of columns, each an (N,) array of a dtype of its own. names : of the columns, or none"""
    if not arrays or not len(arrays[0]):
        raise InputError(f"{name}: holds no bits; give one row and one column at least")
    N, D = len(arrays[0]), len(arrays)
    bits, missing = np.empty((N, D), np.uint8), np.zeros((N, D), bool)
    pairs, every = [], []
    for j, array in enumerate(arrays):
        bits[:, j], missing[:, j], pair, wrong, words = bits_words.as_bits(np.asarray(array))
        if wrong.any():
            row = int(np.argmax(wrong))
            column = f" (column {names[j]!r})" if names else ""
            text = str(array[row]).strip()
            raise InputError(f"{name}:{row + 1}:{j + 1}{column}: {bits_words.refusal(text, words)}")
        pairs.append(pair)
        every.append(words)
    first = ""
    if missing.any():
        i, j = np.argwhere(missing)[0]
        first = f"{name}:{i + 1}:{j + 1}"
    if (odd := bits_words.disagreement(every)) is not None:
        j, word, reason = odd
        row = [bits_words.plain(str(cell)) for cell in arrays[j]].index(word)
        raise InputError(f"{name}:{row + 1}:{j + 1}{f' (column {names[j]!r})' if names else ''}: {reason}")
    numbered = list(names) == [str(k) for k in range(D)]
    notes = ([f"{D} columns with names"] if names and not numbered else []) + bits_words.notes_of(pairs, names)
    packed = np.packbits(missing, axis=1) if first else None
    return Reading(np.packbits(bits, axis=1), D, packed, first, form_of(names, pairs), notes)


def form_of(names: Sequence[str] | None, pairs: Sequence[tuple[str, str]], **others: Any) -> dict[str, Any]:
    """What a file is written back with: JSON. names : of the columns. words : (zero, one) of each, or the one pair of
    all; left out where they are 0 and 1"""
    form: dict[str, Any] = {"names": list(names)} if names else {}
    if set(pairs) - {("0", "1")}:
        form["words"] = [list(pair) for pair in (pairs if len(set(pairs)) > 1 else pairs[:1])]
    return form | {key: value for key, value in others.items() if value is not None}


class Form(BaseModel):
    """`form_of` as it must stand in a checkpoint."""

    model_config = ConfigDict(strict=True, extra="forbid")
    names: list[str] = []
    words: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    index: str = ""
    separator: Literal[",", ";", "\t", "|"] = ","
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)] | None = None


def form_fault(form: Any, D: int) -> str | None:
    """What is wrong with a form for rows of D bits, in a few words; None for a good one."""
    try:
        read = Form.model_validate(form)
    except ValidationError as faults:
        fault = faults.errors()[0]
        return f"its form {short('.'.join(map(str, fault['loc'])), 40)}: {fault['msg'].lower()}"
    if len(read.names) not in (0, D) or len(read.words) not in (0, 1, D):
        return f"its form has {len(read.names)} names and {len(read.words)} pairs of words for {D} bits"
    if read.shape and read.shape[0] * read.shape[1] != D:
        return f"its form has the shape {read.shape} for {D} bits"
    return None


class _Misfit(Exception):
    """A value that is not of a pair: its place in the array, and the value."""


def _sliced(shape: tuple, take: Callable[[slice], np.ndarray], name: str) -> Reading:
    """Packs what is taken in slices of rows: bool, integers or floats."""
    try:
        return _packed(shape, take, name, ("0", "1"))
    except _Misfit as misfit:
        row, column, value = misfit.args
        other = {255: ("0", "255"), -1: ("-1", "1")}.get(value)
        if other:
            try:
                return _packed(shape, take, name, other)
            except _Misfit:
                pass
        words = {"0", "1", bits_words.plain(str(value))}
        raise InputError(f"{name}:{row}:{column}: {bits_words.refusal(str(value), words)}") from None


def _packed(shape: tuple, take: Callable[[slice], np.ndarray], name: str, pair: tuple[str, str]) -> Reading:
    N, D, (zero, one) = shape[0], int(np.prod(shape[1:])), map(int, pair)
    packed, missing, first = np.empty((N, -(-D // 8)), np.uint8), None, ""
    for part in slices(N, D):
        values = np.asarray(take(part)).reshape(-1, D)
        if values.dtype == np.bool_:
            values = values.view(np.uint8)  # a bool array read from a file can hold any byte
        ones = values == one
        good = ones | (values == zero)
        if not good.all():
            absent = np.isnan(values) if values.dtype.kind == "f" else np.zeros_like(good)
            if not (good | absent).all():
                i, j = np.argwhere(~(good | absent))[0]
                raise _Misfit(part.start + i + 1, j + 1, values[i, j].item())
            missing = np.zeros_like(packed) if missing is None else missing
            missing[part] = np.packbits(absent, axis=1)
            i, j = np.argwhere(absent)[0]
            first = first or f"{name}:{part.start + i + 1}:{j + 1}"
        packed[part] = np.packbits(ones, axis=1)
    return Reading(packed, D, missing, first, form_of(None, [pair]), bits_words.notes_of([pair]))
