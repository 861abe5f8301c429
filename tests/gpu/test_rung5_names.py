"""Rung 5: every name of CuPy's and Numba-CUDA's that the code uses exists in the real library, which has never seen
this code run."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
KERNELS = ROOT / "kernels"
FILES = sorted(
    [*KERNELS.glob("*/*_cupy.py"), *KERNELS.glob("*/*_numba_cuda.py"), *(ROOT / "bdiff_np" / "backends").glob("*.py")]
)
FILES += [ROOT / "benchmarks" / "gpu_check.py", ROOT / "benchmarks" / "gpu_timings.py"]
PACKAGES = ("cupy", "cupyx", "numba")

CHECK = """
import importlib, json, sys
missing = []
for name in json.loads(sys.argv[1]):
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:k]))
            break
        except ImportError:
            continue
    else:
        missing.append(name)
        continue
    for part in parts[k:]:
        if not hasattr(found, part):
            missing.append(name)
            break
        found = getattr(found, part)
print(json.dumps(missing))
"""


def names(text: str) -> set[str]:
    """Dotted names of the packages that a source uses, such as cupy.cuda.Stream."""
    tree, known, found = ast.parse(text), {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in PACKAGES:
                    known[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PACKAGES:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                found.add(f"{node.module}.{alias.name}")

    def visit(node):
        chain, inner = [], node
        while isinstance(inner, ast.Attribute):
            chain.append(inner.attr)
            inner = inner.value
        if chain and isinstance(inner, ast.Name) and inner.id in known:
            found.add(".".join([known[inner.id], *reversed(chain)]))
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def missing(wanted: set[str]) -> list[str]:
    """Those that do not exist, asked in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK, json.dumps(sorted(wanted))], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(
    find_spec("cupy") is None or find_spec("numba_cuda") is None,
    reason='not installed: pip install "bdiff_np[gpu-check]"',
)
def test_every_name_exists():
    """All names of all files at once; what a class's objects have is looked at by the tests of the stand-in."""
    used = {path.name: names(path.read_text()) for path in FILES if path.is_file()}
    wanted = set().union(*used.values())
    assert len(wanted) > 30 and "cupy.cuda.Stream" in wanted and "numba.cuda.syncthreads" in wanted
    lacking = missing(wanted)
    assert not lacking, {name: [file for file, found in used.items() if name in found] for name in lacking}


@pytest.mark.skipif(find_spec("cupy") is None, reason='CuPy is not installed: pip install "bdiff_np[gpu-check]"')
def test_a_wrong_name_is_found():
    """A misspelt function, a class that is not there, and one inside a call."""
    text = (
        "import cupy as cp\nfrom cupy import nothing\nfrom numba import cuda\n"
        "cp.zeroes(cp.cuda.Streams(cp.float32(1)))\ncuda.syncthread()"
    )
    assert missing(names(text)) == ["cupy.cuda.Streams", "cupy.nothing", "cupy.zeroes", "numba.cuda.syncthread"]
