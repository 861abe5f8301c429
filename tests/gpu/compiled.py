"""Compiles each kernel as it is compiled where there is a GPU, without one: CUDA C by NVRTC with CuPy's options,
Numba's kernels by Numba-CUDA."""

from __future__ import annotations

import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

from bdiff_np.kernels.shared.cuda_source import source

ARCHITECTURES = ("75", "80", "90", "100", "120")
REGISTERS, SHARED = 65536, 48 << 10  # of a multiprocessor; of a block, static
HEADER = (
    r"Function properties for (\S+)|(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill "
    r"loads|Used (\d+) registers(.*)"
)


class Kernel(NamedTuple):
    """One kernel as a back end asks for it.

    file, name : as in kernels/*_cupy.py. registers : that it may use, on any architecture. shared : bytes, static.
        loads : what its SASS must have
    """

    file: str
    name: str
    registers: int
    shared: int = 0
    loads: str = ""


# Budgets: 256 threads with 64 registers each are four blocks on a multiprocessor, with 80 three, with 128 two; the
# fused step is alone there.
KERNELS = [
    Kernel("bernoulli.cu", "unpack<256>", 48),
    Kernel("bernoulli.cu", "prior<256>", 64),
    *(
        Kernel("bernoulli.cu", f"{name}<256, float>", 64)
        for name in ("q_sample", "q_batch", "kl_grad", "p_flip", "p_sample")
    ),
    Kernel("bernoulli.cu", "read<256, float>", 40),
    Kernel("dense.cu", "activate<float, 1>", 40),
    Kernel("dense.cu", "activate<float, 4>", 48, loads="LDG.E.128 STG.E.128"),
    Kernel("dense.cu", "activate_backward<float, 1>", 40, 1024),
    Kernel("dense.cu", "activate_backward<float, 4>", 56, 4096, loads="LDG.E.128 STG.E.128"),
    Kernel("dense.cu", "column_sums<float, 1>", 48, 1024),
    Kernel("dense.cu", "column_sums<float, 4>", 48, 4096, loads="LDG.E.128"),
    Kernel("dense.cu", "sum_parts<float>", 48, 1024),
    Kernel("dense.cu", "norm<float>", 48, 1024),
    Kernel("dense.cu", "adamw<float>", 56),
    Kernel("dense.cu", "layer_norm<float>", 64),
    Kernel("dense.cu", "layer_norm_backward<float>", 64),
    Kernel("dense.cu", "layer_norm_sums<float>", 48, 2048),
    Kernel("dropout.cu", "keep_mask<256, float>", 64),
    Kernel("training.cu", "shuffle_words<256>", 48),
    Kernel("training.cu", "draw_t<256>", 32, 8),
    Kernel("training.cu", "finish<256, float>", 48, 32),
    *(
        Kernel("gemm.cu", f"multiply<{a}, {b}, float>", 80, 8704, "LDS.128")
        for a, b in (("false", "false"), ("true", "false"), ("false", "true"))
    ),
    Kernel("bernoulli_step.cu", "take", 216, loads="LDS.128 STS.128"),
    Kernel("bernoulli_chain.cu", "walk_back", 120, loads="LDS.128"),
]
# for gradient checks
DOUBLE = [
    k
    for k in KERNELS
    if k.file in ("bernoulli.cu", "dense.cu", "dropout.cu", "gemm.cu", "training.cu") and "float" in k.name
]


class Use(NamedTuple):
    """What a compiled kernel takes: registers of a thread; bytes of the stack, of spills, of static shared memory."""

    registers: int
    stack: int
    spill: int
    shared: int


def missing() -> str | None:
    """What is not installed for this to work."""
    for module in ("cupy", "cupy_backends"):
        if find_spec(module) is None:
            return 'CuPy is not installed: pip install "bdiff_np[gpu-check]"'
    return None if binary("nvdisasm") else 'nvdisasm is not installed: pip install "bdiff_np[gpu-check]"'


def binary(name: str) -> Path | None:
    """A program of NVIDIA's wheels."""
    found = find_spec("nvidia")
    for folder in (found.submodule_search_locations or []) if found else []:
        for path in (Path(folder) / "cu13" / "bin" / name, *Path(folder).glob(f"*/bin/{name}")):
            if path.is_file():
                return path
    return None


@lru_cache
def compile_file(file: str, names: tuple[str, ...], architecture: str) -> tuple[bytes, dict[str, Use], dict[str, str]]:
    """A .cu file for one architecture: the cubin, what each kernel takes, and their names in it. Raises RuntimeError
    with the compiler's words."""
    from cupy._core import core
    from cupy_backends.cuda.libs import nvrtc

    options = core.assemble_cupy_compiler_options(("-std=c++17",))
    options += ("-ftz=true", f"-arch=sm_{architecture}", "--device-as-default-execution-space", "--ptxas-options=-v")
    program = nvrtc.createProgram(source(file), file, (), ())
    try:
        for name in names:
            nvrtc.addNameExpression(program, name)
        try:
            nvrtc.compileProgram(program, options)
        except nvrtc.NVRTCError as fault:
            raise RuntimeError(nvrtc.getProgramLog(program)) from fault
        lowered = {nvrtc.getLoweredName(program, name): name for name in names}
        # CuPy cuts the last byte off, as if it were a text
        log, cubin = nvrtc.getProgramLog(program), nvrtc.getCUBIN(program) + b"\0"
    finally:
        nvrtc.destroyProgram(program)
    if "warning" in log:
        raise RuntimeError(log)
    return cubin, uses(log, lowered), lowered


def uses(log: str, names: dict[str, str]) -> dict[str, Use]:
    """What ptxas says of each kernel."""
    found, current, frame = {}, None, (0, 0)
    for kernel, stack, stores, loads, registers, rest in re.findall(HEADER, log):
        if kernel:
            current = names.get(kernel)
        elif stack:
            frame = int(stack), int(stores) + int(loads)
        elif current is not None:
            shared = re.search(r"(\d+) bytes smem", rest)
            found[current] = Use(int(registers), *frame, int(shared[1]) if shared else 0)
    return found


def compile_all(architecture: str, kernels=tuple(KERNELS), dtype: str = "float") -> dict[Kernel, Use]:
    """Every kernel for one architecture; files beside one another, the longest first."""
    files = sorted({k.file for k in kernels}, key=lambda file: -len(source(file)))
    names = {file: tuple(k.name.replace("float", dtype) for k in kernels if k.file == file) for file in files}
    # alone: NVRTC loads a library of its own at first use, and no two threads may
    compile_file(files[-1], names[files[-1]], architecture)
    with ThreadPoolExecutor(2) as pool:
        done = dict(zip(files, pool.map(lambda file: compile_file(file, names[file], architecture)[1], files)))
    return {k: done[k.file][k.name.replace("float", dtype)] for k in kernels}


@lru_cache
def instructions(file: str, architecture: str) -> dict[str, list[str]]:
    """The SASS of each kernel of a file: its instructions, with their modifiers."""
    names = tuple(k.name for k in KERNELS if k.file == file)
    cubin, _, lowered = compile_file(file, names, architecture)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as path:
        path.write(cubin)
        path.flush()
        text = subprocess.run(
            [str(binary("nvdisasm")), "-c", path.name], capture_output=True, text=True, check=True
        ).stdout
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        section = re.match(r"\.text\.(\S+):|\s*\.section\s+\.text\.(\S+?),", line)
        if section:
            current = found.setdefault(lowered.get((section[1] or section[2]).strip('"'), ""), [])
        instruction = re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9_.]+)", line)
        if instruction:
            current.append(instruction[1])
    return found


# Numba
# ----------------------------------------------------------------------------------------------------------------------


def numba_kernels() -> dict:
    """Numba-CUDA's kernels and the types that float32 trainings call them with."""
    from numba import boolean, float32, int32, int64, types, uint8, uint64

    from bdiff_np.kernels.bernoulli import bernoulli_numba_cuda as b
    from bdiff_np.kernels.dense import dense_numba_cuda as d
    from bdiff_np.kernels.training import training_numba_cuda as t

    f1, f2, u1, b1, b2, l1, i1, key = (
        float32[::1],
        float32[:, ::1],
        uint64[::1],
        uint8[::1],
        uint8[:, ::1],
        int64[::1],
        int32[::1],
        (uint64,) * 3,
    )
    law = u1, int64, int64
    return {
        b._read: (b2, l1, f1, f2, f2, f2), d._activate: (f2, f1, f2, boolean, int64, f2), d._column_sums: (f2, f1,
        int64), d._activate_backward: (f2, f2, f1, f2, boolean, int64, f2, f2, f1, int64), d._sum_parts: (f1, int64,
        int64, f1, boolean, f1, int64), d._norm: (f1, f1, u1, i1), d._adamw: (f1, f1, f1, f1, f1, b1, f1, f2, float32,
        u1), d._layer_norm: (f2, f1, f1, float32, f2, f2), d._layer_norm_backward: (f2, f2, f1, f2, f2),
        d._layer_norm_sums: (f2, f2, f2, f1, int64), d._fill: (f1, float32), t._shuffle_words: (uint64, uint64, uint64,
        uint64[:, ::1]), d._keep_mask: (*key, uint64, float32, f2), d._multiply: (f1, f1, f1, int64, int64,
        types.UniTuple(int64, 3), types.UniTuple(boolean, 2)), b._prior: (u1, boolean, *key, uint64, b2),
        t._draw_t: (uint64, uint64, u1, int64, l1), b._unpack: (b2, i1, b2), b._q_sample: (*law, b2, l1, *key, uint64,
        b2), b._q_batch: (*law, b2, i1, uint64, l1, uint64, uint64, u1, b2, b2), b._kl_grad: (u1, f1, int64, int64,
        float32, f2, f1, b2, b2, l1, b1, u1, f1, f2), b._p_flip: (f1, int64, int64, f2, b2, l1, f2), b._p_sample: (f1,
        int64, int64, f2, f1, b2, l1, b2, boolean, *key, uint64, b2), t._finish: (f1, b1, u1, f1),
    }  # fmt: skip


def compile_numba(kernel, signature: tuple, architecture: str) -> tuple[str, Use]:
    """PTX of a Numba-CUDA kernel, and what its SASS takes."""
    from cuda.core import Linker, LinkerOptions, ObjectCode
    from numba import cuda, types

    capability = int(architecture[:-1]), int(architecture[-1])
    device = SimpleNamespace(compute_capability=capability)  # what compiled functions that a kernel calls ask for
    with mock.patch("numba.cuda.dispatcher.get_current_device", lambda: device):
        ptx, _ = cuda.compile(
            kernel.py_func, types.void(*signature), cc=capability, device=False, abi="numba", output="ptx"
        )
    linker = Linker(
        ObjectCode.from_ptx(ptx.encode()), options=LinkerOptions(arch=f"sm_{architecture}", ptxas_options=["-v"])
    )
    linker.link("cubin")
    log = linker.get_info_log()
    (name,) = re.findall(r"Compiling entry function '(\S+)'", log)
    (use,) = uses(log, {name: name}).values()
    return ptx, use
