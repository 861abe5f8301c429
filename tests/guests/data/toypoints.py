"""A toy kind of data: points, one a line, numbers with blanks between them."""

from __future__ import annotations

import zlib

import numpy as np

from bdiff_np import data
from bdiff_np.errors import InputError
from bdiff_np.runfolder.files import write_whole


class Near:
    names = ("train", "other")

    def __init__(self, train):
        self.limit = np.abs(train.all()).max()

    def __call__(self, samples):
        inside = (np.abs(samples.all()).max(1) <= self.limit).mean() if len(samples) else 0.0
        return {"n": len(samples), "train": float(inside), "other": float(1 - inside)}

    def words(self, found):
        return f"samples    {found['n']}: {found['train']:.1%} within the range of train"

    def shares(self, found):
        return f"{found['train']:.1%} within the range"

    def proportions(self, columns):
        return {name: columns[name] for name in self.names}

    stack = proportions


class Points(data.Data):
    ENDINGS, elements, dtype, example = (".pts",), "coordinates", np.dtype(np.float32), "write an example by hand into"

    def __init__(self, array):
        self.array, self.D = np.asarray(array, np.float32), array.shape[1]

    @classmethod
    def from_array(cls, array, name="rows"):
        return cls(array)

    def __len__(self):
        return len(self.array)

    def take(self, index):
        return self.array[index]

    @property
    def nbytes(self):
        return self.array.nbytes

    def fingerprint(self):
        return zlib.crc32(self.array.tobytes())

    def join(self, other):
        return Points(np.concatenate([self.array, other.array]))

    @classmethod
    def read(cls, path):
        try:
            return cls(np.loadtxt(path, ndmin=2))
        except ValueError as fault:
            raise InputError(f"{path}: {fault}") from None

    def write(self, path):
        write_whole(path, self.text(self.array).encode())

    @classmethod
    def text(cls, array):
        return "".join(" ".join(f"{x:.4f}" for x in row) + "\n" for row in array)

    def census(self, val, settings):
        return Near(self)


DATA = Points
