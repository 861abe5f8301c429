"""Rung 1: every kernel compiles for every architecture as it will where there is a GPU, within its budget and without
spilling a register."""

from __future__ import annotations

import re

import pytest

from bdiff_np.kernels.shared.cuda_source import FOLDER
from gpu import compiled

if compiled.missing():
    pytest.skip(compiled.missing(), allow_module_level=True)


def over_budget(kernel: compiled.Kernel, use: compiled.Use) -> list[str]:
    """What a kernel takes and must not."""
    found = []
    if use.stack or use.spill:
        found.append(f"{use.spill} bytes spilled, {use.stack} of stack")
    if use.registers > kernel.registers:
        found.append(f"{use.registers} registers, budget {kernel.registers}")
    if use.shared > kernel.shared:
        found.append(f"{use.shared} bytes of static shared memory, budget {kernel.shared}")
    return found


@pytest.mark.parametrize("architecture", compiled.ARCHITECTURES)
def test_cuda_c_compiles_within_its_budget(architecture):
    """NVRTC with CuPy's own options: no warning, no spill, no stack, registers and shared memory as stated."""
    found = compiled.compile_all(architecture)
    assert set(found) == set(compiled.KERNELS)
    assert {k.name: faults for k, use in found.items() if (faults := over_budget(k, use))} == {}


def test_float64_compiles(architecture="90"):
    """The operations in float64, for gradient checks on a card."""
    found = compiled.compile_all(architecture, tuple(compiled.DOUBLE), "double")
    assert all(use.spill == 0 for use in found.values())


def test_every_kernel_of_every_file_is_looked_at():
    """Each __global__ function is among those that are compiled here, and each that a back end asks CuPy for too."""
    for path in FOLDER.glob("*/*.cu"):
        defined = set(re.findall(r"__global__ void __launch_bounds__\([^)]*\)\s+(\w+)\(", path.read_text()))
        named = {k.name.partition("<")[0] for k in compiled.KERNELS if k.file == path.name}
        assert defined == named, path.name
    asked = set()
    for path in FOLDER.glob("*/*_cupy.py"):
        asked |= set(re.findall(r"launch\(\s*f?\"(\w+)[<\"]", path.read_text())) | set(
            re.findall(r"_multiply\(\"(\w+)<", path.read_text())
        )
    assert asked == {k.name.partition("<")[0] for k in compiled.KERNELS}


@pytest.mark.parametrize("architecture", ["90"])
def test_numba_kernels_compile_without_float64(architecture):
    """PTX without .f64 and SASS without a spill: a float64 constant in float32 code would be slow, and pass all other
    tests. 96 registers are two blocks of a multiprocessor; most have three."""
    for kernel, signature in compiled.numba_kernels().items():
        ptx, use = compiled.compile_numba(kernel, signature, architecture)
        assert ".f64" not in ptx, kernel.py_func.__name__
        assert use.spill == 0 and use.registers <= 96, (kernel.py_func.__name__, use)


def test_the_detectors_detect(monkeypatch):
    """A kernel that spills, one that takes too much, one that does not compile, one that warns, and one with a float64
    are found."""
    from numba import cuda, float32

    spilling = """
    extern "C" __global__ void __launch_bounds__(1024, 2) spill(float *x) {
      float a[48];
      for (int i = 0; i < 48; ++i) a[i] = x[i * 7];
      for (int k = 0; k < 9; ++k)
        for (int i = 0; i < 48; ++i) a[i] = a[i] * a[(i * 5 + k) % 48] + a[(i + 1) % 48];
      for (int i = 0; i < 48; ++i) x[i] = a[i];
    }"""
    cases = {
        "spilling": (spilling, "spill"),
        "large": (
            'extern "C" __global__ void large(float *x) { __shared__ float s[4000]; s[threadIdx.x] = *x; *x = s[9]; }',
            "large",
        ),
        "wrong": ('extern "C" __global__ void wrong(float *x) { y = 1; }', "wrong"),
        "warning": (
            'extern "C" __global__ void warning(float *x) { int unused = 3; *x = 1; return; *x = 2; }',
            "warning",
        ),
    }
    outcomes = {}
    for name, (text, kernel) in cases.items():
        monkeypatch.setattr(compiled, "source", lambda file, text=text: text)
        try:
            use = compiled.compile_file(f"{name}.cu", (kernel,), "90")[1][kernel]
            outcomes[name] = over_budget(compiled.Kernel("x.cu", kernel, 64), use)
        except RuntimeError as fault:
            outcomes[name] = [str(fault)]
    assert "spilled" in outcomes["spilling"][0] and "static shared memory" in outcomes["large"][0]
    assert "undefined" in outcomes["wrong"][0] and "warning" in outcomes["warning"][0]

    @cuda.jit
    def careless(x):
        x[0] = x[0] * 0.1

    assert ".f64" in compiled.compile_numba(careless, (float32[::1],), "90")[0]
