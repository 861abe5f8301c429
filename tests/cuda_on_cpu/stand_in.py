"""A strict stand-in for the parts of CuPy that a back end uses, on NumPy arrays, with kernels run by compile.py.

    with stand_in.installed():
        import cupy
        ...

`card` is the pretended card, whose limits a test may change; `events` is what happened on it, `clear` empties and
`count` counts it. Every name that `cupy` has meanwhile exists in the real CuPy with the same meaning; what the real one
does not forgive, or forgives silently, is an error.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from . import compile, device, functions
from .arrays import ndarray
from .device import card, clear, count, events

__all__ = ["RawKernel", "RawModule", "card", "clear", "count", "events", "install", "installed", "uninstall"]

THREADS_OF_MULTIPROCESSOR, BLOCKS_OF_MULTIPROCESSOR = 2048, 32


class RawModule(compile.RawModule):
    """As cupy.RawModule."""

    def __init__(
        self,
        *,
        code: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        enable_cooperative_groups: bool = False,
        name_expressions=None,
    ):
        if not isinstance(options, tuple):
            raise TypeError(f"options must be a tuple, not {type(options).__name__}")
        super().__init__(
            code=code,
            options=options,
            name_expressions=name_expressions,
            enable_cooperative_groups=enable_cooperative_groups,
        )

    def get_function(self, name: str) -> RawKernel:
        self.compile()
        kernel = RawKernel.__new__(RawKernel)
        compile.RawKernel.__init__(kernel, self, super().get_function(name).name)
        return kernel

    def compile(self, log_stream=None) -> None:
        assert self._entries is not None


class RawKernel(compile.RawKernel):
    """As cupy.RawKernel, of device arrays."""

    def __init__(
        self,
        code: str,
        name: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        *,
        enable_cooperative_groups: bool = False,
    ):
        super().__init__(
            RawModule(code=code, options=options, enable_cooperative_groups=enable_cooperative_groups), name
        )

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple, *, shared_mem: int = 0, stream=None
    ) -> None:
        if not isinstance(grid, tuple) or not isinstance(block, tuple):
            raise TypeError(f"{self.name}: grid and block must be tuples, not {grid!r} and {block!r}")
        prepared = self.prepare(grid, block, args, shared_mem)
        memories = [argument._memory for argument in args if isinstance(argument, ndarray)]
        device.submit(("launch", self.name, grid, block, shared_mem), lambda: self.run(prepared), memories, stream)

    @property
    def most_shared(self) -> int:
        return card.shared_memory

    def most_blocks(self, threads: int, shared_mem: int) -> int:
        """As many as fit on the pretended card at the same time, registers aside."""
        room = (card.shared_memory + 1024) // (shared_mem + 1024)
        each = min(THREADS_OF_MULTIPROCESSOR // threads, BLOCKS_OF_MULTIPROCESSOR, room)
        return min(compile.most_blocks, card.multiprocessors * each)

    def _value(self, k: int, argument, pointer: bool, dtype: np.dtype):
        if isinstance(argument, np.ndarray):
            raise TypeError(f"{self.name}: argument {k}: Unsupported type {type(argument)}: a host array")
        return super()._value(k, argument._host if isinstance(argument, ndarray) else argument, pointer, dtype)


# Modules
# ----------------------------------------------------------------------------------------------------------------------

NUMBERS = (
    "bool_", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128", "dtype", "newaxis", "pi", "inf", "nan",
)  # fmt: skip


def _module(name: str, **names) -> types.ModuleType:
    made = types.ModuleType(name, "The stand-in of tests/cuda_on_cpu.")
    made.__spec__ = importlib.machinery.ModuleSpec(name, None)
    made.__dict__.update(names)
    return made


def _modules() -> dict[str, types.ModuleType]:
    runtime = _module(
        "cupy.cuda.runtime", CUDARuntimeError=device.CUDARuntimeError, getDeviceCount=lambda: 1, getDevice=lambda: 0,
        memGetInfo=lambda: device.Device().mem_info, getDeviceProperties=device.properties,
        driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13000, deviceSynchronize=device.device_synchronize,
    )  # fmt: skip
    memory = _module("cupy.cuda.memory", OutOfMemoryError=device.OutOfMemoryError)
    cuda = _module(
        "cupy.cuda", runtime=runtime, memory=memory, Stream=device.Stream, Graph=device.Graph, Event=device.Event,
        Device=device.Device, get_current_stream=device.get_current_stream, get_elapsed_time=device.get_elapsed_time,
        is_available=lambda: True,
    )  # fmt: skip
    cuda.__path__ = []
    cupy = _module(
        "cupy", cuda=cuda, ndarray=ndarray, RawModule=RawModule, RawKernel=RawKernel,
        get_default_memory_pool=device.get_default_memory_pool, __version__="14.2.0", **{name: getattr(np,
        name) for name in NUMBERS}, **{name: getattr(functions, name) for name in functions.__all__},
    )  # fmt: skip
    cupy.__path__ = []
    chosen = {"f": 1}  # of each dtype, how it is multiplied
    products = _module(
        "cupy._core._routines_linalg", COMPUTE_TYPE_DEFAULT=1, COMPUTE_TYPE_TF32=7,
        get_compute_type=lambda dtype: chosen[np.dtype(dtype).char], set_compute_type=lambda dtype,
        kind: chosen.update({np.dtype(dtype).char: kind}),
    )  # fmt: skip
    core = _module("cupy._core", _routines_linalg=products)
    core.__path__ = []
    return {module.__name__: module for module in (cupy, cuda, runtime, memory, core, products)}


_before: dict[str, types.ModuleType] | None = None  # what the stand-in took the place of
_loaded: set[str] = set()  # all modules' names then


def install() -> types.ModuleType:
    """Makes `import cupy` give the stand-in, which is returned; does nothing if it is there already."""
    global _before, _loaded
    if _before is None:
        _before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "cupy"}
        _loaded = set(sys.modules)
        sys.modules.update(_modules())
    return sys.modules["cupy"]


def uninstall() -> None:
    """Puts back what was there; modules imported meanwhile that use the stand-in, or one of these, are forgotten."""
    global _before
    if _before is None:
        return
    gone = {name for name in sys.modules if name.partition(".")[0] == "cupy"}
    new = {
        name: module
        for name, module in sys.modules.items()
        if name not in _loaded and isinstance(module, types.ModuleType)
    }
    while True:
        found = {
            name
            for name, module in new.items()
            if name not in gone and any(_origin(value) in gone for value in vars(module).values())
        }
        if not found:
            break
        gone |= found
    for name in gone:
        sys.modules.pop(name)
        parent, _, child = name.rpartition(".")
        if parent in sys.modules:
            vars(sys.modules[parent]).pop(child, None)
    sys.modules.update(_before)
    _before = None


def _origin(value) -> str | None:
    """The module that a value is, or that it comes from."""
    return value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)


@contextmanager
def installed() -> Iterator[types.ModuleType]:
    """The stand-in for a while."""
    there = _before is not None
    try:
        yield install()
    finally:
        if not there:
            uninstall()
