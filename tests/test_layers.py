"""The folders of kernels/ are layers: a family uses training, mlp, dense and shared, each of these those behind it."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
KERNELS = ROOT / "kernels"
LAYERS = ("shared", "dense", "mlp", "training")  # from the bottom; every other folder is a family, above them all
SIDE_BY_SIDE = ("diffusion", "nets", "backends", "data")  # folders of bdiff_np that know each other by contract alone


def imports(text: str) -> Iterator[str]:
    """Modules that a Python text imports, wherever in it, `from a import b` being both a and a.b."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from (node.module, *(f"{node.module}.{name.name}" for name in node.names))


def included(text: str) -> Iterator[str]:
    """The folder of each file that a .cu or .cuh text includes."""
    for name in re.findall(r'^#include "([\w.]+)"', text, re.MULTILINE):
        (path,) = KERNELS.glob(f"*/{name}")
        yield path.parent.name


def upward(folder: str, used: set[str]) -> set[str]:
    """What of the folders used lies above a folder, or is another family."""
    height = lambda name: LAYERS.index(name) if name in LAYERS else len(LAYERS)  # noqa: E731
    return {other for other in used if other != folder and height(other) >= height(folder)}


def uses(path: Path) -> set[str]:
    """Folders of kernels that a file of it imports from or includes."""
    text = path.read_text()
    if path.suffix != ".py":
        return set(included(text))
    return {m.split(".")[2] for m in imports(text) if re.match(r"bdiff_np\.kernels\.\w+\.", m)}


def test_no_arrow_points_upwards():
    files = [path for path in KERNELS.glob("*/*") if path.suffix in (".py", ".cu", ".cuh")]
    found = {path.name: upward(path.parent.name, uses(path)) for path in files}
    assert {name: folders for name, folders in found.items() if folders} == {}
    assert sum(len(uses(path)) for path in files) > 60, "the test sees no imports"


def test_an_arrow_upwards_would_be_seen():
    text = "def f():\n    from bdiff_np.kernels.bernoulli import bernoulli_numba\n"
    text += "from bdiff_np.kernels.mlp.mlp_plan import Plan"
    used = {module.split(".")[2] for module in imports(text) if re.match(r"bdiff_np\.kernels\.\w+\.", module)}
    assert used == {"bernoulli", "mlp"} and upward("training", used) == {"bernoulli"}
    assert upward("dense", used) == used and upward("bernoulli", {"gaussian", "dense"}) == {"gaussian"}
    assert set(included('#include "bernoulli.cuh"\n#include "sums.cuh"')) == {"bernoulli", "shared"}


def test_names_of_files_are_unique():
    """A .cuh is included by its name alone, and one grep finds a file."""
    names = Counter(path.name for path in KERNELS.glob("*/*") if path.is_file() and path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_contracts_lie_between_the_parts():
    """A family, a net, a back end and a kind of data import none of another kind."""
    for folder in SIDE_BY_SIDE:
        for path in (ROOT / "bdiff_np" / folder).glob("*.py"):
            others = {m.split(".")[1] for m in imports(path.read_text()) if re.match(r"bdiff_np\.\w+", m)}
            assert not others & (set(SIDE_BY_SIDE) - {folder}), path
