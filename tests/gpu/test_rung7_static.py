"""Rung 7: what the machine code tells of speed: wide loads where they are meant to be, no local memory, no float64, and
what a card has in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu import compiled, occupancy

if compiled.missing() or occupancy.missing():
    pytest.skip(compiled.missing() or occupancy.missing(), allow_module_level=True)

BY_FILE = sorted({k.file for k in compiled.KERNELS})


@pytest.mark.parametrize("architecture", ["80", "90", "120"])
@pytest.mark.parametrize("file", BY_FILE)
def test_machine_code(file, architecture):
    """No load from or store to local memory, no float64, and the wide loads that each kernel's banner counts on."""
    found = compiled.instructions(file, architecture)
    for kernel in (k for k in compiled.KERNELS if k.file == file):
        code = found[kernel.name]
        assert len(code) > 20
        assert not [i for i in code if i.startswith(("LDL", "STL"))], kernel.name
        assert not [
            i for i in code if i.startswith(("DADD", "DMUL", "DFMA", "DSETP")) or i.startswith("F2F") and "F64" in i
        ], kernel.name
        for wanted in kernel.loads.split():
            assert [i for i in code if i.startswith(wanted.removesuffix(".128")) and ".128" in i], (
                f"{kernel.name}: no {wanted}"
            )


PRODUCTS = [
    ("gemm.cu", "multiply<false, false, float>"),
    ("bernoulli_step.cu", "take"),
    ("bernoulli_chain.cu", "walk_back"),
]


@pytest.mark.parametrize("file, kernel", PRODUCTS)
def test_products_read_eight_numbers_for_sixteen_operations(file, kernel):
    """In the inner loops: a load of 16 bytes from shared memory for eight multiply-adds, which is what their bound is
    worked out from."""
    code = compiled.instructions(file, "90")[kernel]
    loads, operations = sum("LDS" in i and ".128" in i for i in code), sum(i.startswith("FFMA") for i in code)
    assert loads and operations / loads >= 6  # what else the kernel does has some of both


def test_occupancy_is_what_results_say():
    """On an H100: half of all threads or more for what streams through memory, three blocks of a product; one of the
    fused step, two of the chain."""
    uses = compiled.compile_all("90")
    found = occupancy.blocks({k.name: (use.registers, use.shared) for k, use in uses.items()})
    for kernel in compiled.KERNELS:
        share = found[kernel.name] * 256 / 2048
        least = {"take": 0.12, "walk_back": 0.24}.get(kernel.name, 0.37 if "multiply" in kernel.name else 0.5)
        assert share >= least, (kernel.name, share)


def test_the_detectors_detect(monkeypatch):
    """Narrow loads, local memory and float64 are seen in code that has them."""
    text = """
    extern "C" __global__ void careless(float *x, int n) {
      float a[16];
      for (int i = 0; i < 16; ++i) a[i] = x[threadIdx.x * 16 + i];
      a[n] += 1.0f;
      for (int i = 0; i < n; ++i) a[i * i % 16] *= a[i];
      x[threadIdx.x] = float(double(a[n / 2]) * 0.1);
    }"""
    monkeypatch.setattr(compiled, "source", lambda file: text)
    monkeypatch.setattr(compiled, "KERNELS", [compiled.Kernel("careless.cu", "careless", 64)])
    code = compiled.instructions("careless.cu", "90")["careless"]
    assert [i for i in code if i.startswith(("LDL", "STL"))] and [i for i in code if i.startswith("DMUL")]
    assert not [i for i in code if i.startswith("LDS") and ".128" in i]
    assert occupancy.blocks({"heavy": (255, 0), "light": (32, 0), "roomy": (32, 100 << 10)}) == {
        "heavy": 1,
        "light": 8,
        "roomy": 2,
    }


def test_the_table_of_results_is_what_the_compiler_says(monkeypatch):
    """benchmarks/RESULTS.md has the figures of these kernels as they are now; python benchmarks/gpu_kernels.py prints
    them."""
    root = Path(__file__).parent.parent.parent
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import gpu_kernels

    assert gpu_kernels.table() in (root / "benchmarks" / "RESULTS.md").read_text()
