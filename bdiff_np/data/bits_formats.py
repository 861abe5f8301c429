"""Files of bits that are not text: arrays of NumPy, SciPy and MATLAB, Parquet, genotypes of PLINK, and haplotypes."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import islice
from typing import Any, BinaryIO

import numpy as np

from bdiff_np import memory
from bdiff_np.data import bits_arrays, bits_text, source
from bdiff_np.data.bits_arrays import Reading
from bdiff_np.errors import InputError, short

WHOLE = ("X", "x", "data", "train", "rows", "arr_0")  # names under which a file of several arrays may hold the rows


def _needs(module: str, extra: str, name: str) -> Any:
    """A library that reads a format. Raises InputError, with the command that installs it."""
    try:
        return import_module(module)
    except ImportError:
        package = {"scipy": "SciPy", "pyarrow": "pyarrow", "bed_reader": "bed-reader"}[module.split(".")[0]]
        raise InputError(
            f'{name}: is read by {package}, which is not installed: pip install "bdiff_np[{extra}]"'
        ) from None


def npy(file: BinaryIO, path: str, name: str) -> Reading:
    """An array of numpy.save."""
    return bits_arrays.read(source.npy(file, path, name), name)


def npz(file: BinaryIO, path: str, name: str) -> Reading:
    """The array of numpy.savez, or the matrix of scipy.sparse.save_npz."""
    try:
        with zipfile.ZipFile(file) as packed:
            size = sum(entry.file_size for entry in packed.infolist())
        memory.check(2 * size, f"{name}: unpacked", "save its rows with numpy.save, as uint8")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            if {"format", "shape", "data"} <= set(arrays.files):
                sparse = _needs("scipy.sparse", "mat", name)
                file.seek(0)
                matrix = sparse.load_npz(file)
                if hasattr(matrix, "check_format"):
                    matrix.check_format(full_check=True)  # else a wrong index reads other memory
                return bits_arrays.read(matrix, name)
            return _one_of({key: arrays[key] for key in arrays.files}, name)
    except InputError:
        raise
    except Exception as fault:  # damaged archives surface as almost any error
        raise InputError(f"{name}: is not a whole .npz of arrays of numbers ({short(fault)}); save it again") from fault


def mat(file: BinaryIO, path: str, name: str) -> Reading:
    """The matrix of a file of MATLAB, up to version 7."""
    reader = _needs("scipy.io", "mat", name)
    try:
        variables = reader.loadmat(file)
    except NotImplementedError:
        raise InputError(f"{name}: is of MATLAB's version 7.3; save it with -v7") from None
    except Exception as fault:
        raise InputError(f"{name}: is not a whole .mat ({short(fault)}); save it again with -v7") from fault
    matrices = {
        key: value for key, value in variables.items() if not key.startswith("__") and getattr(value, "ndim", 0) >= 2
        and value.dtype.kind in "biuf" and np.prod(value.shape) > 1
    }  # fmt: skip
    return _one_of(matrices, name)


def parquet(file: BinaryIO, path: str, name: str) -> Reading:
    """A table of Parquet; columns that pandas wrote as its index are left out."""
    reader = _needs("pyarrow.parquet", "parquet", name)
    try:
        table = reader.read_table(file)
    except Exception as fault:
        raise InputError(f"{name}: is not a whole Parquet file ({short(fault)}); save it again") from fault
    return bits_arrays.read(table, name)


def bed(file: BinaryIO, path: str, name: str) -> Reading:
    """Genotypes of PLINK, beside their .bim and .fam. Each, 0, 1 or 2 copies of an allele, is two bits: one copy or
    more, two copies."""
    reader = _needs("bed_reader", "plink", name)
    try:
        with reader.open_bed(path) as opened:
            copies, variants = opened.read(dtype="int8"), [str(variant) for variant in opened.sid]
    except Exception as fault:
        raise InputError(f"{name}: cannot be read ({short(fault)}); its .bim and .fam must stand beside it") from fault
    bits = np.stack([copies >= 1, copies == 2], axis=2).reshape(len(copies), -1)
    missing = np.repeat(copies < 0, 2, axis=1)
    names = [f"{variant}{which}" for variant in variants for which in (">=1", ">=2")]
    reading = bits_arrays.read(np.where(missing, np.nan, bits.astype(np.float32)) if missing.any() else bits, name)
    note = f"{len(copies)} samples of {len(variants)} genotypes, each two bits: one copy or more, two copies"
    return reading._replace(form=bits_arrays.form_of(names, [("0", "1")]), notes=[note])


def haplotypes(file: BinaryIO, path: str, name: str) -> Reading:
    """Haplotypes as IMPUTE (.hap) and SHAPEIT (.haps) write them: a line for each variant, a column for each row here;
    .haps has five columns before that tell of the variant."""
    skip = 5 if ".haps" in os.fspath(path).lower() else 0
    names: list[str] = []

    def digits() -> Any:
        for lines in iter(lambda: list(islice(every, 4096)), []):
            parts = [line.split(None, skip) if skip else [line] for line in lines]
            names.extend(part[1].decode("utf-8", "replace") for part in parts if skip and len(part) > 1)
            yield b"".join((part[skip] if len(part) > skip else b"?") + b"\n" for part in parts)

    every = source.lines(file, name)
    found = bits_text.equal_lines(digits(), " ")
    if found is None:
        what = "five columns of the variant and then" if skip else "nothing but"
        raise InputError(f"{name}: is not one line a variant with {what} 0 and 1, all lines of one length")
    packed, rows = found
    bits = np.unpackbits(packed, axis=1, count=rows).T
    return Reading(
        np.packbits(bits, axis=1), bits.shape[1], form=bits_arrays.form_of(names, [("0", "1")]),
        notes=[f"{rows} haplotypes of {bits.shape[1]} variants, turned: a row for each haplotype"],
    )  # fmt: skip


def _one_of(arrays: Mapping[str, Any], name: str) -> Reading:
    """The rows of a file of arrays. Raises InputError where several could be they."""
    known = list(arrays) if len(arrays) == 1 else [key for key in WHOLE if key in arrays]
    if len(known) != 1:
        listed = ", ".join(f"{key} {tuple(value.shape)}" for key, value in list(arrays.items())[:8]) or "none"
        raise InputError(f"{name}: which array are the rows? There is {listed}; save the one alone, or call it X")
    reading = bits_arrays.read(arrays[known[0]], name)
    others = ", ".join(key for key in arrays if key != known[0])
    return reading._replace(
        notes=[*reading.notes, *[f"the array {known[0]}; {short(others, 60)} left out"] * bool(others)]
    )


FORMATS: dict[str, Callable[[BinaryIO, str, str], Reading]] = {
    ".npy": npy, ".npz": npz, ".mat": mat, ".parquet": parquet, ".bed": bed, ".hap": haplotypes, ".haps": haplotypes,
    ".hap.gz": haplotypes, ".haps.gz": haplotypes,
}  # fmt: skip
