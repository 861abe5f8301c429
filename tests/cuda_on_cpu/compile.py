"""Compiles a .cu source for the CPU and launches its kernels on NumPy arrays, with the arguments of CuPy's RawModule
and RawKernel.

    module = compile.RawModule(code=source, name_expressions=("scale<float>",))
    module.get_function("scale<float>")((4,), (256,), (x, np.float32(2), np.int32(x.size)), shared_mem=0)

What a card would take without a word is an error here: a scalar of another width than the parameter's, an array of
another dtype, one that is not contiguous. What the kernel itself does wrong is found in part in every mode, and more of
it in each of the modes "address", "thread" and "poison".
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

FOLDER = Path(__file__).parent
COMPILER = os.environ.get("CXX", "g++")
# What each adds to the command for the kernels, -O1 since sanitizers are slow to compile; the runtime is compiled
# without them.
MODES = {
    "plain": (),
    "address": ("-O1", "-g", "-fsanitize=address,undefined,float-cast-overflow", "-fsanitize-recover=all"),
    "thread": ("-O1", "-g", "-fsanitize=thread"),
    "poison": ("-ftrivial-auto-var-init=pattern",),
}
# a name in the sanitizer's library, which has to be there first: sanitize.py
NEEDS = {"address": "__asan_init", "thread": "__tsan_init"}

# Settings, for all launches.
mode = os.environ.get("CUDA_ON_CPU_MODE", "plain")  # one of MODES; not to be changed once a kernel was compiled
# of the threads in a block and of the blocks: 0 forward, 1 backward, n > 1 shuffled, threads anew in each round, n
# being the seed
order = 0
flush_denormals = True  # as CuPy has it on the card
patience = 10.0  # seconds in which no thread gets on, all of them waiting in loops: the launch has failed
# whether fibers are switched by ucontext, which asks the system each time
by_c_library = platform.machine() != "x86_64"
most_blocks = 64  # of a cooperative launch: each has a thread of the system

DEFAULT_SHARED, MOST_SHARED = 48 << 10, 227 << 10  # bytes of dynamic shared memory: without asking, and at all
MOST_THREADS, MOST_Z = 1024, 64  # in a block, in its third direction
MOST_GRID = (2**31 - 1, 65535, 65535)
# threads at a time in the mode "thread": the sanitizer's own limit is some more, for all that are and were
MOST_WATCHED = 6000


class CompileError(RuntimeError):
    """g++ refuses the source; the message is its own, with the source's lines."""


class LaunchError(RuntimeError):
    """A launch that a card would refuse, or one that has failed: who waited where for whom."""


class RawModule:
    """The kernels of one source, compiled at first use.

    code : CUDA C++; its own #line directives are kept. options : -D, -I and -U are passed on, all others mean nothing
        here
    name_expressions : kernels as C++ names them, such as "f<float, 3>"; those that are extern "C" need not be named
    enable_cooperative_groups : whether all blocks of a launch run at the same time
    """

    def __init__(
        self,
        *,
        code: str,
        options: Sequence[str] = (),
        name_expressions: Sequence[str] | None = None,
        enable_cooperative_groups: bool = False,
    ):
        self.code, self.options, self.name_expressions = code, tuple(options), tuple(name_expressions or ())
        self.enable_cooperative_groups = enable_cooperative_groups

    def get_function(self, name: str) -> RawKernel:
        """Raises CompileError, or KeyError where the source has no such kernel."""
        if name not in self._entries:
            raise KeyError(
                f'no kernel {name!r} among {sorted(self._entries)}: those that are not extern "C" must be in '
                "name_expressions"
            )
        return RawKernel(self, name)

    @cached_property
    def _entries(self) -> dict[str, _Entry]:
        library = _load(self.code, self.name_expressions, self.options, self.enable_cooperative_groups)
        library.cuda_on_cpu_kernels.restype = ctypes.POINTER(_Entry)
        table, found = library.cuda_on_cpu_kernels(), {}
        while table[len(found)].name:
            found[table[len(found)].name.decode()] = table[len(found)]
        return found


class RawKernel:
    """One kernel, to be called as kernel(grid, block, arguments, shared_mem=bytes).

    max_dynamic_shared_size_bytes : how much dynamic shared memory a launch may ask for; can be raised to `most_shared`,
        as on the card
    """

    most_shared = MOST_SHARED

    def __init__(self, module: RawModule, name: str):
        self.name, self.module = name, module
        self._entry, self._shared = module._entries[name], DEFAULT_SHARED
        kinds = self._entry.signature.decode()
        self._parameters = [_Parameter(kind, np.dtype(letter)) for kind, letter in zip(kinds, kinds[len(kinds) // 2 :])]
        self._slots = struct.Struct("=" + "".join(map(_slot, self._parameters)))

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._shared

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if size > self.most_shared:
            raise LaunchError(
                f"{self.name}: {size} bytes of dynamic shared memory; a block can have {self.most_shared}"
            )
        self._shared = size

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple, *, shared_mem: int = 0, stream=None
    ) -> None:
        """Runs the kernel. args : NumPy arrays or None for pointers, NumPy scalars for numbers, arrays (1,) of a
        structured dtype for structs.

        Raises TypeError for arguments that do not fit the kernel's parameters, LaunchError for a launch that fails.
        """
        self.run(self.prepare(grid, block, args, shared_mem))

    def prepare(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple, shared_mem: int
    ) -> tuple[_Launch, bytes, list[np.ndarray]]:
        """All that is checked before a launch, and its arguments as the kernel gets them, structs as they are now. The
        arrays must outlive its run."""
        if len(args) != len(self._parameters):
            raise TypeError(f"{self.name} takes {len(self._parameters)} arguments, not {len(args)}")
        structs = [
            self._struct(k, argument) if parameter.kind == "{" else None
            for k, (argument, parameter) in enumerate(zip(args, self._parameters))
        ]
        values = [
            self._value(k, argument, parameter.kind == "*", parameter.dtype) if copy is None else copy.ctypes.data
            for k, (argument, copy, parameter) in enumerate(zip(args, structs, self._parameters))
        ]
        return (
            self._launch(_three(grid), _three(block), shared_mem),
            self._slots.pack(*values),
            [copy for copy in structs if copy is not None],
        )

    def run(self, prepared: tuple[_Launch, bytes, list[np.ndarray]]) -> None:
        """One launch of what was prepared. Raises LaunchError."""
        launch, slots, _ = prepared
        launch.order, launch.flush_denormals, launch.patience = order, flush_denormals, patience
        failure = self._entry.start(ctypes.byref(launch), slots)
        if failure:
            raise LaunchError(f"{self.name}: {failure.decode()}")

    def _struct(self, k: int, argument) -> np.ndarray:
        """A copy of a struct, whose layout is the caller's business and whose size is not."""
        size = self._entry.sizes[k]
        if (
            not isinstance(argument, np.ndarray)
            or argument.dtype.names is None
            or argument.size != 1
            or argument.dtype.itemsize != size
        ):
            raise TypeError(
                f"{self.name}: argument {k} must be a numpy.ndarray of one struct of {size} bytes, not {argument!r}"
            )
        return argument.copy()

    def _value(self, k: int, argument, pointer: bool, dtype: np.dtype):
        """The argument as a number that its slot takes."""
        where = f"{self.name}: argument {k}"
        if not pointer:
            if not isinstance(argument, np.generic) or argument.dtype != dtype:
                raise TypeError(f"{where} must be numpy.{dtype}, not {argument!r} of type {type(argument).__name__}")
            return argument
        if argument is None:
            return 0
        if not isinstance(argument, np.ndarray):
            raise TypeError(
                f"{where} is a pointer: it takes an array, not {argument!r} of type {type(argument).__name__}"
            )
        if argument.dtype != dtype:
            raise TypeError(f"{where} points to {dtype}, not to {argument.dtype}")
        if not argument.flags.c_contiguous:
            raise TypeError(f"{where} is not contiguous: shape {argument.shape}, strides {argument.strides}")
        return argument.ctypes.data

    def _launch(self, grid: tuple[int, ...], block: tuple[int, ...], shared_mem: int) -> _Launch:
        threads, cooperative = block[0] * block[1] * block[2], self.module.enable_cooperative_groups
        blocks = grid[0] * grid[1] * grid[2]
        if min(block) < 1 or threads > MOST_THREADS or block[2] > MOST_Z:
            raise LaunchError(
                f"{self.name}: a block has 1 to {MOST_THREADS} threads, at most {MOST_Z} of them in z, not {block}"
            )
        if min(grid) < 1 or any(n > most for n, most in zip(grid, MOST_GRID)):
            raise LaunchError(f"{self.name}: a grid has 1 to {MOST_GRID} blocks, not {grid}")
        if not 0 <= shared_mem <= self._shared:
            fix = ": raise max_dynamic_shared_size_bytes first" if self._shared == DEFAULT_SHARED else ""
            raise LaunchError(
                f"{self.name}: shared_mem={shared_mem}, but a launch may ask for {self._shared} bytes{fix}"
            )
        if cooperative and blocks > self.most_blocks(threads, shared_mem):
            raise LaunchError(
                f"{self.name}: {blocks} blocks cannot run at the same time, only "
                f"{self.most_blocks(threads, shared_mem)}"
            )
        at_once = min(blocks, blocks if cooperative else 2 if mode == "thread" else 1)
        if mode == "thread" and threads * at_once > MOST_WATCHED:
            raise LaunchError(
                f"{self.name}: mode 'thread' watches {MOST_WATCHED} threads at most, not {at_once} blocks of {threads}"
            )
        return _Launch(grid=grid, block=block, dynamic_shared=shared_mem, at_once=at_once)

    def most_blocks(self, threads: int, shared_mem: int) -> int:
        """Of a cooperative launch, each of so many threads with so much shared memory."""
        return most_blocks


class _Launch(ctypes.Structure):
    """runtime.h: Launch."""

    _fields_ = [
        ("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("dynamic_shared", ctypes.c_uint), ("order",
        ctypes.c_uint), ("at_once", ctypes.c_uint), ("flush_denormals", ctypes.c_uint), ("patience", ctypes.c_double),
    ]  # fmt: skip


class _Entry(ctypes.Structure):
    """launch.h: Entry."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("signature", ctypes.c_char_p),
        ("sizes", ctypes.POINTER(ctypes.c_uint)),
        ("start", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.POINTER(_Launch), ctypes.c_char_p)),
    ]


class _Parameter(NamedTuple):
    """Of a kernel. kind : "*" a pointer, "=" a number, "{" a struct. dtype : of the number, or of what the pointer
    points to"""

    kind: str
    dtype: np.dtype


def _slot(parameter: _Parameter) -> str:
    """How struct packs an argument into 8 bytes; of a struct its address."""
    dtype = parameter.dtype
    return (
        "Q"
        if parameter.kind != "="
        else f"{dtype.char if dtype.itemsize < 8 else {'i': 'q', 'u': 'Q', 'f': 'd'}[dtype.kind]}{8 - dtype.itemsize}x"
    )


def _three(size: tuple[int, ...]) -> tuple[int, ...]:
    return (*(int(n) for n in size), 1, 1)[:3]


# Compiling
# ----------------------------------------------------------------------------------------------------------------------

COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
BOUNDS = r"(?:__launch_bounds__\s*\([^{;]*?\)\s*)?"
KERNEL = re.compile(rf'extern\s*"C"\s*__global__\s+{BOUNDS}void\s+{BOUNDS}(\w+)\s*\([^()]*\)\s*\{{')


@lru_cache(1)
def _command() -> tuple[str, ...]:
    """The compiler with what all compilations have in common. No contraction of a * b + c: results are the same with
    and without the instruction."""
    command = (
        COMPILER,
        "-std=c++17",
        "-O2",
        "-shared",
        "-fPIC",
        "-fvisibility=hidden",
        "-fno-gnu-unique",
        "-ffp-contract=off",
    )
    command += (
        "-fno-strict-aliasing",
        "-fno-math-errno",
        "-fstack-clash-protection",
        "-w",
        "-Werror=return-type",
        "-Werror=uninitialized",
    )
    try:
        flags = re.search(r"^flags\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        flags = None
    has = flags.group(1).split() if flags and platform.machine() == "x86_64" else ()
    # fmaf is one instruction instead of a call
    return command + tuple(f"-m{name}" for name in ("fma", "avx2") if name in has)


@lru_cache(1)
def _headers() -> str:
    """All that a compiled file depends on beside its source: the headers, and the compiler's version."""
    try:
        version = subprocess.run([COMPILER, "-v"], capture_output=True, text=True, check=True).stderr
    except OSError as problem:
        raise CompileError(f"CUDA on the CPU needs {COMPILER} ({problem})") from problem
    return version + "".join(path.read_text() for path in sorted(FOLDER.glob("*.h")))


@lru_cache(1)
def _cache() -> Path:
    """A folder of this user alone."""
    folder = Path(tempfile.gettempdir()) / f"cuda_on_cpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder if folder.stat().st_uid == os.getuid() else Path(tempfile.mkdtemp(prefix="cuda_on_cpu-"))


def _build(text: str, flags: tuple[str, ...]) -> Path:
    """A shared library of a C++ text, compiled unless it is there already. Two processes may build the same one at the
    same time."""
    key = hashlib.sha256("\0".join([*_command(), *flags, _headers(), text]).encode()).hexdigest()[:24]
    library = _cache() / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=_cache()) as folder:
            source, built = Path(folder) / "source.cpp", Path(folder) / "built.so"
            source.write_text(text)
            done = subprocess.run(
                [*_command(), *flags, f"-I{FOLDER}", str(source), "-o", str(built)], capture_output=True, text=True
            )
            if done.returncode:
                raise CompileError(done.stderr)
            os.replace(built, library)
    return library


@lru_cache(1)
def _runtime() -> ctypes.CDLL:
    """The runtime's library, whose names all modules see."""
    if mode not in MODES:
        raise CompileError(f"CUDA_ON_CPU_MODE={mode}: one of {', '.join(MODES)}")
    if mode in NEEDS and not hasattr(ctypes.CDLL(None), NEEDS[mode]):
        raise CompileError(
            f"mode {mode!r} needs the sanitizer's library from the start of the process: run it through "
            "cuda_on_cpu.sanitize"
        )
    # a file for the second of its libraries, which passes over UBSAN_OPTIONS
    if mode == "address" and "CUDA_ON_CPU_REPORTS" in os.environ:
        ctypes.CDLL("libubsan.so.1")["__sanitizer_set_report_path"](os.environ["CUDA_ON_CPU_REPORTS"].encode())
    flags = (f"-DCUDA_ON_CPU_{mode.upper()}", "-pthread", *(("-DCUDA_ON_CPU_UCONTEXT",) if by_c_library else ()))
    return ctypes.CDLL(str(_build((FOLDER / "runtime.cpp").read_text(), flags)), mode=ctypes.RTLD_GLOBAL)


def _load(code: str, names: tuple[str, ...], options: tuple[str, ...], cooperative: bool) -> ctypes.CDLL:
    _runtime()
    flags = (
        f"-DCUDA_ON_CPU_{mode.upper()}",
        *MODES[mode],
        *(option for option in options if option[:2] in ("-D", "-I", "-U")),
    )
    if cooperative:
        flags += ("-DCUDA_ON_CPU_COOPERATIVE",)
    plain = tuple(name for name in KERNEL.findall(COMMENT.sub("", code)) if name not in names)
    table = "".join(f'::cuda_on_cpu::entry<&{name}>("{name}"), ' for name in plain + names)
    # In a namespace without a name, so that templates' static variables are the file's own: the address sanitizer
    # passes over others.
    text = f"""#include "cuda_on_cpu.h"
namespace {{
#line 1 "kernels.cu"
{code}
#line 1 "the table of kernels"
constexpr ::cuda_on_cpu::Entry entries[] = {{{table}{{}}}};
}}
extern "C" __attribute__((visibility("default"))) const ::cuda_on_cpu::Entry *cuda_on_cpu_kernels() {{
  return entries;
}}
"""
    return ctypes.CDLL(str(_build(text, flags)))
