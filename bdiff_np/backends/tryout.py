"""Whether a back end computes what it should: two operations on a handful of numbers."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakSet

import numpy as np

from bdiff_np.errors import Unavailable
from bdiff_np.params import Params

tried: WeakSet = WeakSet()  # back ends that were tried out and work


def try_out(ops, reinstall: Callable[[], str]) -> None:
    """A product and a kernel of our own, once for each back end. Raises Unavailable with what a library, a compiler or
    the driver said.

    reinstall : gives the command that mends the installation
    """
    if ops in tried:
        return
    try:
        check(ops)
        tried.add(ops)
    except MemoryError as fault:
        fix = "nvidia-smi shows who has it; or take the back end numba"
        raise Unavailable(ops.name, f"the GPU's memory is full ({_first(fault)})", fix) from fault
    except Exception as fault:  # of any kind
        raise Unavailable(ops.name, f"it fails: {_first(fault)}", reinstall()) from fault


def check(ops) -> None:
    """A product of two matrices and the length of a buffer that was filled, on any back end. Raises ArithmeticError for
    a wrong result."""
    a = np.array([[3, 4], [0, 1]], np.float32)
    filled = Params(ops, {"a": (2, 2)}).fill({"a": a})
    product = ops.to_host(ops.matmul(filled["a"], ops.asarray(np.ascontiguousarray(a.T))))
    length = np.asarray(ops.to_host(ops.norm(filled.flat))).item()
    if product.tolist() != [[25, 4], [4, 1]] or abs(length - 26**0.5) > 1e-5:
        raise ArithmeticError(
            f"a product is {product.tolist()}, not [[25, 4], [4, 1]], or a length is {length}, not {26**0.5}"
        )


def _first(fault: Exception) -> str:
    """The first line of what an exception says that says something, a heading with the line below it."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()] or [type(fault).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
