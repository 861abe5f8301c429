"""Arrays of the CuPy stand-in: NumPy's, in memory of their own, with all roads to NumPy closed that CuPy closes, and
some more.

Nothing converts to NumPy unasked, host arrays do not mix with device arrays, and what CuPy would move to the device
silently, such as a list of indices, is refused: a back end says what it moves. NumPy's own functions are refused too,
though CuPy would send some of them to its own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np

from . import device
from .device import Memory

SCALARS = (bool, int, float, complex, np.generic)


class MemoryPointer:
    """Where an array begins."""

    def __init__(self, ptr: int):
        self.ptr, self.device_id = ptr, 0


class Flags:
    def __init__(self, flags):
        self.c_contiguous, self.f_contiguous = flags.c_contiguous, flags.f_contiguous


class ndarray:
    """As cupy.ndarray. Its memory is full of NaN, or of 0xFF, until it is written."""

    __array_ufunc__ = None  # np.exp(device array) is refused, np.float32(2) * device array comes here
    __hash__ = None

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order: str = "C"):
        if memptr is not None or strides is not None:
            raise NotImplementedError("the stand-in has no arrays in given memory")
        shape, dtype = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape), _checked(np.dtype(dtype))
        self._memory = device.allocate(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        self._host = self._memory.array(shape, dtype, order)

    def __array__(self, *_, **__):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __array_function__(self, *_, **__):
        return NotImplemented

    # What it is

    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    dtype = property(lambda self: self._host.dtype)
    itemsize = property(lambda self: self._host.itemsize)
    size = property(lambda self: self._host.size)
    ndim = property(lambda self: self._host.ndim)
    nbytes = property(lambda self: self._host.nbytes)
    flags = property(lambda self: Flags(self._host.flags))
    device = property(lambda self: device.Device())

    @property
    def data(self) -> MemoryPointer:
        return MemoryPointer(self._host.__array_interface__["data"][0] if self.size else self._memory.ptr)

    @property
    def __cuda_array_interface__(self) -> dict:
        strides = None if self.flags.c_contiguous else self.strides
        layout = {"shape": self.shape, "strides": strides, "typestr": self.dtype.str, "descr": self.dtype.descr}
        return layout | {"data": (self.data.ptr, False), "version": 3}

    def __len__(self) -> int:
        return len(self._host)

    # Between host and device

    def get(self, stream=None, order: str = "C", out: np.ndarray | None = None, blocking: bool = True) -> np.ndarray:
        """A copy on the host. Waits for the device; raises CUDARuntimeError while the current stream captures."""
        if out is not None and not isinstance(out, np.ndarray):
            raise TypeError("Only numpy.ndarray can be obtained from cupy.ndarray")
        if out is not None and (out.dtype != self.dtype or out.shape != self.shape):
            raise TypeError(f"{out.dtype}{out.shape} cannot be obtained from {self.dtype}{self.shape}")
        device.wait("get")
        if not self.flags.c_contiguous and not self.flags.f_contiguous:
            device.allocate(self.nbytes)  # CuPy makes them contiguous first
        device.events.append(("d2h", self.nbytes))
        if out is None:
            return self._host.copy(order)
        out[...] = self._host
        return out

    def set(self, arr: np.ndarray, stream=None) -> None:
        """Copies an array of the same shape and dtype here. Raises TypeError or ValueError for any other."""
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not self.flags.c_contiguous and not self.flags.f_contiguous:
            raise RuntimeError("Cannot set to non-contiguous array")
        _upload(self, arr)

    def item(self, *index):
        return self.get().item(*index)

    def tolist(self):
        return self.get().tolist()

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __index__(self) -> int:
        return operator.index(self.get().item())

    def __bool__(self) -> bool:
        return bool(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __format__(self, form: str) -> str:
        return format(self.get(), form)

    # Views and copies

    T = property(lambda self: _view(self, self._host.T))

    def transpose(self, *axes) -> ndarray:
        return _view(self, self._host.transpose(*axes))

    def squeeze(self, axis=None) -> ndarray:
        return _view(self, self._host.squeeze(axis))

    def view(self, dtype=None) -> ndarray:
        return _view(self, self._host.view(self.dtype if dtype is None else dtype))

    def reshape(self, *shape, order: str = "C") -> ndarray:
        return _view_or_copy(self, self._host.reshape(*shape, order=order))

    def ravel(self, order: str = "C") -> ndarray:
        return _view_or_copy(self, self._host.ravel(order))

    def copy(self, order: str = "C") -> ndarray:
        return _copy(self, self.dtype, order)

    def astype(self, dtype, order: str = "K", casting=None, subok=None, copy: bool = True) -> ndarray:
        return self if not copy and self.dtype == dtype else _copy(self, np.dtype(dtype), order)

    def fill(self, value) -> None:
        _operate("fill", lambda own, value: np.copyto(own, value, casting="unsafe"), self, value, writes=self)

    def __getitem__(self, key) -> ndarray:
        """A view for numbers and slices; a copy for device arrays of indices, or of bools, which the host has to wait
        for."""
        key, arrays = _key(key)
        if not arrays:
            return _view(self, self._host[key])
        if any(array.dtype == bool for array in arrays):
            device.wait("boolean mask")
        return _new("take", self._host[key])

    def __setitem__(self, key, value) -> None:
        """value : a scalar or a device array"""
        key, arrays = _key(key)
        if isinstance(value, ndarray) and any(array.dtype == bool for array in arrays):
            device.wait("boolean mask")
        name = "copy" if isinstance(value, ndarray) else "fill"
        _operate(name, lambda own, value, *_: own.__setitem__(key, value), self, value, *arrays, writes=self)

    # Sums and the like

    def sum(self, axis=None, dtype=None, out=None, keepdims: bool = False) -> ndarray:
        return _reduce("sum", self, axis, out, keepdims, dtype=dtype)

    def mean(self, axis=None, dtype=None, out=None, keepdims: bool = False) -> ndarray:
        return _reduce("mean", self, axis, out, keepdims, dtype=dtype)

    def max(self, axis=None, out=None, keepdims: bool = False) -> ndarray:
        return _reduce("max", self, axis, out, keepdims)

    def min(self, axis=None, out=None, keepdims: bool = False) -> ndarray:
        return _reduce("min", self, axis, out, keepdims)

    def all(self, axis=None, out=None, keepdims: bool = False) -> ndarray:
        return _reduce("all", self, axis, out, keepdims)

    def any(self, axis=None, out=None, keepdims: bool = False) -> ndarray:
        return _reduce("any", self, axis, out, keepdims)


# How they come about
# ----------------------------------------------------------------------------------------------------------------------


def _checked(dtype: np.dtype) -> np.dtype:
    if dtype.char not in "?bhilqBHILQefdFD":
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype


def _wrap(host: np.ndarray, memory: Memory) -> ndarray:
    made = ndarray.__new__(ndarray)
    made._host, made._memory = host, memory
    return made


def _view(base: ndarray, host: np.ndarray) -> ndarray:
    return _wrap(host, base._memory)


def _new(name: str, host: np.ndarray) -> ndarray:
    """What an operation found, in new memory."""
    order = "F" if host.flags.f_contiguous and not host.flags.c_contiguous else "C"
    made = ndarray(host.shape, host.dtype, order=order)
    device.submit(("op", name), lambda: np.copyto(made._host, host), [made._memory])
    return made


def _copy(base: ndarray, dtype: np.dtype, order: str) -> ndarray:
    with np.errstate(all="ignore"):
        return _new("copy", base._host.astype(dtype, order))


def _view_or_copy(base: ndarray, host: np.ndarray) -> ndarray:
    return _view(base, host) if np.may_share_memory(host, base._host) or not host.size else _new("copy", host)


def _upload(to: ndarray, host: np.ndarray) -> None:
    if device.get_current_stream().is_capturing():
        raise RuntimeError("a host array is copied to the device during stream capture")
    device.submit(("h2d", to.nbytes), lambda: np.copyto(to._host, host), [to._memory])


def _key(key) -> tuple[tuple, list[ndarray]]:
    """A key for NumPy, with `...` so that it gives no scalars, and the device arrays in it."""
    parts, arrays = key if isinstance(key, tuple) else (key,), []
    for part in parts:
        if isinstance(part, ndarray):
            if part.dtype.kind not in "biu":
                raise IndexError(f"arrays used as indices must be of integer or boolean type, not {part.dtype}")
            arrays.append(part)
        elif isinstance(part, (bool, np.bool_)) or not (
            part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice))
        ):
            raise TypeError(f"an index on the host: {part!r}")
    parts = tuple(part._host if isinstance(part, ndarray) else part for part in parts)
    return parts if any(part is Ellipsis for part in parts) else (*parts, ...), arrays


def _value(x):
    """An operand for NumPy. Raises TypeError for what CuPy does not take."""
    if isinstance(x, ndarray):
        return x._host
    if isinstance(x, SCALARS):
        return x
    raise TypeError(f"Unsupported type {type(x)}")


def _operate(name: str, work: Callable, *operands, writes: ndarray) -> None:
    """work(*operands), as NumPy sees them, now or in the graph."""
    values = [_value(x) for x in operands]

    def run() -> None:
        with np.errstate(all="ignore"):
            work(*values)

    device.submit(("op", name), run, [x._memory for x in (*operands, writes) if isinstance(x, ndarray)])


def elementwise(name: str) -> Callable[..., ndarray]:
    """NumPy's ufunc of this name, for device arrays and scalars."""
    ufunc: np.ufunc = getattr(np, name)

    def function(*operands, out: ndarray | None = None, dtype=None) -> ndarray:
        values, extra = [_value(x) for x in operands], {} if dtype is None else {"dtype": dtype}
        if isinstance(out, tuple):
            (out,) = out
        if out is None:
            with np.errstate(all="ignore"):
                return _new(name, np.asarray(ufunc(*values, **extra)))
        if not isinstance(out, ndarray):
            raise TypeError(f"out must be a cupy.ndarray, not {type(out)}")
        found = ufunc.resolve_dtypes(
            (*(v.dtype if isinstance(v, (np.ndarray, np.generic)) else type(v) for v in values), None)
        )[-1]
        if not np.can_cast(found, out.dtype, "same_kind"):
            raise TypeError(f"output of cupy.{name} is {found}, which is not cast to {out.dtype}")
        _operate(name, lambda *v: ufunc(*v[:-1], out=v[-1], casting="same_kind", **extra), *operands, out, writes=out)
        return out

    function.__name__ = name
    return function


def _reduce(name: str, x: ndarray, axis, out: ndarray | None, keepdims: bool, dtype=None) -> ndarray:
    extra = {"axis": axis, "keepdims": keepdims} | ({} if dtype is None else {"dtype": dtype})
    if out is None:
        with np.errstate(all="ignore"):
            return _new(name, np.asarray(getattr(x._host, name)(**extra)))
    if not isinstance(out, ndarray):
        raise TypeError(f"out must be a cupy.ndarray, not {type(out)}")
    _operate(name, lambda x, out: getattr(x, name)(**extra, out=out), x, out, writes=out)
    return out


BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "left_shift", "rshift": "right_shift",
}  # fmt: skip
COMPARE = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}


def _method(name: str, order: str) -> Callable:
    function = elementwise(name)
    if order == "in place":
        return lambda self, other: function(self, other, out=self)
    if order == "reversed":
        return lambda self, other: function(other, self)
    return lambda self, *other: function(self, *other)


for _short, _name in {**BINARY, **COMPARE, **UNARY}.items():
    setattr(ndarray, f"__{_short}__", _method(_name, "given"))
for _short, _name in BINARY.items():
    setattr(ndarray, f"__r{_short}__", _method(_name, "reversed"))
    setattr(ndarray, f"__i{_short}__", _method(_name, "in place"))
