"""Makes the arrays of Numba's simulator nearly as strict as a card's, on the host's side: the simulator hands out
NumPy's, which can do more.

Keys go through the real library's own arithmetic of shapes (dummyarray.py, which needs no GPU), and only what its
arrays have can be asked for. Not refused, though a card does: assigning an array of more dimensions than there are, and
a reshape that needs a copy.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import numba_cuda
import numpy as np
from numba.cuda.simulator import kernel as simulator
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

REAL = Path(numba_cuda.__file__).parent / "numba" / "cuda" / "cudadrv"
KEPT = ("_ary", "_numba_type_", "flags", "itemsize", "__array_interface__")  # what the simulator itself asks for
running = 0  # kernels: inside one, an array is another thing


def install() -> None:
    """For the rest of the process."""
    found = importlib.util.spec_from_file_location("real_dummyarray", REAL / "dummyarray.py")
    dummyarray = importlib.util.module_from_spec(found)
    found.loader.exec_module(dummyarray)
    known = names() | set(KEPT)
    getitem, setitem, call, get = (
        FakeCUDAArray.__getitem__,
        FakeCUDAArray.__setitem__,
        simulator.FakeCUDAKernel.__call__,
        FakeCUDAArray.__getattr__,
    )

    def check(array, key) -> None:
        if not running:
            dummyarray.Array.from_desc(0, tuple(array._ary.shape), array._ary.strides, array._ary.itemsize)[key]

    def strict_getitem(self, key):
        check(self, key)
        return getitem(self, key)

    def strict_setitem(self, key, value):
        check(self, key)
        setitem(self, key, value._ary if isinstance(value, FakeCUDAArray) else value)

    def strict_get(self, name):
        if not running and name not in known:
            raise AttributeError(f"Numba's device arrays have no {name!r}")
        return get(self, name)

    def strict_call(self, *arguments):
        global running
        running += 1
        try:
            return call(self, *arguments)
        finally:
            running -= 1

    def transposed(self):
        raise AssertionError("T makes a copy, by a kernel that is compiled each time")

    FakeCUDAArray.__getitem__, FakeCUDAArray.__setitem__, FakeCUDAArray.__getattr__ = (
        strict_getitem,
        strict_setitem,
        strict_get,
    )
    FakeCUDAArray.T, simulator.FakeCUDAKernel.__call__ = property(transposed), strict_call
    for operator in ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "eq", "ne", "lt", "le", "gt", "ge"):
        delattr(FakeCUDAArray, f"__{operator}__")


def names() -> set[str]:
    """What the real library's device arrays have: methods, properties, and what is set when they are made."""
    found = set()
    for node in ast.walk(ast.parse((REAL / "devicearray.py").read_text())):
        if isinstance(node, ast.ClassDef) and node.name in ("DeviceNDArrayBase", "DeviceNDArray"):
            found |= {inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)}
            found |= {
                inner.attr
                for inner in ast.walk(node)
                if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
            }
    return found


def allowed(array: np.ndarray) -> list[str]:
    """Of things that NumPy's arrays can do and a card's cannot, those that are not refused."""
    from numba import cuda

    there, other, passed = cuda.to_device(array), cuda.to_device(array), []
    tries = {
        "[...]": lambda: there[...], "[...] =": lambda: there.__setitem__(..., 0), "[None]": lambda: there[None],
        "[list]": lambda: there[[0]], "mean": lambda: there.mean(), "astype": lambda: there.astype(int),
        "+": lambda: there + other, "^": lambda: there ^ other, "T": lambda: there.T,
    }  # fmt: skip
    for name, attempt in tries.items():
        try:
            attempt()
        except Exception:  # of any kind
            continue
        passed.append(name)
    return passed
