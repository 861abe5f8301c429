"""Functions of the CuPy stand-in: making arrays, moving them, and products of matrices as CuPy gives them to cuBLAS."""

from __future__ import annotations

import numpy as np

from . import device
from .arrays import BINARY, COMPARE, UNARY, _copy, _new, _operate, _reduce, _upload, _value, elementwise, ndarray

UFUNCS = (
    *BINARY.values(), *COMPARE.values(), *UNARY.values(), "abs", "divide", "maximum", "minimum", "exp", "expm1", "log",
    "log1p", "sqrt", "square", "tanh", "sign", "floor", "ceil", "rint", "isfinite", "isnan", "isinf", "logical_and",
    "logical_or", "logical_not",
)  # fmt: skip


def empty(shape, dtype=float, order: str = "C") -> ndarray:
    """Not zeros: NaN, or 0xFF."""
    return ndarray(shape, dtype, order=order)


def full(shape, fill_value, dtype=None, order: str = "C") -> ndarray:
    made = empty(shape, np.asarray(fill_value).dtype if dtype is None else dtype, order)
    made.fill(fill_value)
    return made


def zeros(shape, dtype=float, order: str = "C") -> ndarray:
    return full(shape, 0, dtype, order)


def ones(shape, dtype=float, order: str = "C") -> ndarray:
    return full(shape, 1, dtype, order)


def empty_like(prototype: ndarray, dtype=None) -> ndarray:
    return empty(prototype.shape, prototype.dtype if dtype is None else dtype)


def zeros_like(a: ndarray, dtype=None) -> ndarray:
    return zeros(a.shape, a.dtype if dtype is None else dtype)


def ones_like(a: ndarray, dtype=None) -> ndarray:
    return ones(a.shape, a.dtype if dtype is None else dtype)


def arange(start, stop=None, step=1, dtype=None) -> ndarray:
    return _new("arange", np.arange(*((0, start) if stop is None else (start, stop)), step, dtype))


def array(obj, dtype=None, copy: bool = True, order: str = "K") -> ndarray:
    """A device array of a host array, a number or lists of numbers; of a device array, a copy or itself."""
    if isinstance(obj, ndarray):
        return obj.astype(obj.dtype if dtype is None else dtype, order, copy=copy)
    host = np.asarray(obj, dtype)
    made = ndarray(
        host.shape, host.dtype, order="F" if host.flags.f_contiguous and not host.flags.c_contiguous else "C"
    )
    _upload(made, host)
    return made


def asarray(a, dtype=None, order: str | None = None) -> ndarray:
    return array(a, dtype, copy=False)


def ascontiguousarray(a, dtype=None) -> ndarray:
    a = asarray(a, dtype)
    return a if a.flags.c_contiguous else a.copy()


def asnumpy(a, stream=None, order: str = "C", out=None, *, blocking: bool = True) -> np.ndarray:
    return a.get(stream, order, out) if isinstance(a, ndarray) else np.asarray(a, order=order)


def copyto(dst: ndarray, src) -> None:
    if not isinstance(dst, ndarray):
        raise TypeError("dst must be cupy.ndarray")
    dst[...] = src


def concatenate(tup, axis: int = 0, out: ndarray | None = None) -> ndarray:
    return _join("concatenate", tup, axis, out)


def stack(tup, axis: int = 0, out: ndarray | None = None) -> ndarray:
    return _join("stack", tup, axis, out)


def _join(name: str, tup, axis: int, out: ndarray | None) -> ndarray:
    if not all(isinstance(x, ndarray) for x in tup):
        raise TypeError(f"cupy.{name} takes device arrays only")
    join = getattr(np, name)
    if out is None:
        return _new(name, join([x._host for x in tup], axis))
    _operate(name, lambda *v: join(v[:-1], axis, out=v[-1]), *tup, out, writes=out)
    return out


def where(condition: ndarray, x, y) -> ndarray:
    if not isinstance(condition, ndarray):
        raise TypeError(f"Unsupported type {type(condition)}")
    return _new("where", np.where(_value(condition), _value(x), _value(y)))


def sum(a: ndarray, axis=None, dtype=None, out=None, keepdims: bool = False) -> ndarray:  # noqa: A001
    return _reduce("sum", a, axis, out, keepdims, dtype=dtype)


def mean(a: ndarray, axis=None, dtype=None, out=None, keepdims: bool = False) -> ndarray:
    return _reduce("mean", a, axis, out, keepdims, dtype=dtype)


def argsort(a: ndarray, axis: int = -1, kind: str | None = None) -> ndarray:
    """Stable, along one axis; waits, as thrust does for its room."""
    if kind not in (None, "stable"):
        raise ValueError("kind other than None or 'stable' is not supported")
    device.wait("argsort")
    return _new("argsort", np.argsort(_value(a), axis, kind="stable"))


def clip(a: ndarray, a_min, a_max, out: ndarray | None = None) -> ndarray:
    return minimum(maximum(a, a_min, out=out), a_max, out=out)  # noqa: F821


def matmul(x1: ndarray, x2: ndarray, /, out: ndarray | None = None) -> ndarray:
    """Product of vectors and matrices, by cuBLAS, which no graph may hold: raises NotImplementedError while the current
    stream captures.

    An operand that is contiguous in rows or in columns goes to cuBLAS as it is; any other is copied. `out` must be
    contiguous, of the right shape and dtype: CuPy makes a copy where it is not, here it is a ValueError. The product of
    one row with one column is no product of matrices but a sum.
    """
    if not isinstance(x1, ndarray) or not isinstance(x2, ndarray):
        raise TypeError(f"Unsupported type {type(x2 if isinstance(x1, ndarray) else x1)}")
    if x1.ndim == x2.ndim == 3 and len(x1) == len(x2):
        return _batched(x1, x2, out)
    if not 1 <= x1.ndim <= 2 or not 1 <= x2.ndim <= 2:
        raise ValueError("the stand-in multiplies vectors and matrices, and as many matrices as there are others")
    a, b = (x1 if x1.ndim == 2 else x1.reshape(1, -1)), (x2 if x2.ndim == 2 else x2.reshape(-1, 1))
    if a.shape[1] != b.shape[0]:
        raise ValueError("Axis dimension mismatch")
    shape, dtype = x1.shape[:-1] + x2.shape[:-2] + x2.shape[1:][-1:], np.promote_types(x1.dtype, x2.dtype)
    if out is not None and not isinstance(out, ndarray):
        raise TypeError(f"out must be a cupy.ndarray, not {type(out)}")
    if out is not None and (out.shape, out.dtype, out.flags.c_contiguous) != (shape, dtype, True):
        raise ValueError(f"out must be a contiguous {dtype}{shape}, not {out.dtype}{out.shape}")
    empty_sum, one = not (a.size and b.size), a.shape[0] == b.shape[1] == 1
    by_cublas = dtype.kind in "fc" and not empty_sum and not one
    if by_cublas and device.get_current_stream().is_capturing():
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    made = ndarray(shape, dtype) if out is None else out
    if empty_sum:
        made.fill(0)
        return made
    if one:
        device.allocate(a.size * dtype.itemsize)  # of the products
    a, b = (
        x if x.dtype == dtype and (x.flags.c_contiguous or x.flags.f_contiguous) else _copy(x, dtype, "C")
        for x in (a, b)
    )
    if any(np.may_share_memory(made._host, x._host) for x in (a, b)):
        device.allocate(made.nbytes)  # CuPy does not multiply in place
    product = made._host.reshape(a.shape[0], b.shape[1])
    event = ("gemm", a.shape, b.shape) if by_cublas else ("op", "matmul")
    device.submit(event, lambda: np.copyto(product, a._host @ b._host), [x._memory for x in (a, b, made)])
    return made


def _batched(a: ndarray, b: ndarray, out: ndarray | None) -> ndarray:
    """Products of as many matrices, one by one."""
    if device.get_current_stream().is_capturing():
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    made = ndarray((*a.shape[:2], b.shape[2]), np.promote_types(a.dtype, b.dtype)) if out is None else out
    device.submit(
        ("gemm", a.shape, b.shape),
        lambda: np.matmul(a._host, b._host, out=made._host),
        [x._memory for x in (a, b, made)],
    )
    return made


ndarray.__matmul__ = matmul
globals().update({name: elementwise(name) for name in UFUNCS})
MADE = (
    empty, full, zeros, ones, empty_like, zeros_like, ones_like, arange, array, asarray, ascontiguousarray, asnumpy,
    copyto, concatenate, stack, where, sum, mean, argsort, clip, matmul,
)  # fmt: skip
__all__ = [*UFUNCS, *(function.__name__ for function in MADE)]  # noqa: PLE0604
