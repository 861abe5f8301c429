"""The text of a .cu file with its includes put in place: what NVRTC compiles for CuPy, and g++ in the tests.

Put in place because CuPy names a compiled kernel by the text it was given: an included file that changes would go
unnoticed. And so no compiler needs to know where the package lies.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent.parent  # of all kernels, whose file names are unique across its subjects


@lru_cache
def source(name: str) -> str:
    """The text of `name`, such as "dense.cu", each included file once, with #line marks so that a compiler names the
    right place."""
    seen: set[str] = set()

    def text(file: str) -> str:
        seen.add(file)
        lines = [f'#line 1 "{file}"']
        (path,) = FOLDER.glob(f"*/{file}")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            include = re.fullmatch(r'#include "([\w.]+)"', line)
            if include is None:
                lines.append(line)
            elif include[1] not in seen:
                lines += [text(include[1]), f'#line {number + 1} "{file}"']
        return "\n".join(lines)

    return text(name)


# of a struct's members
TYPES = {"float": "f4", "double": "f8", "int": "i4", "u8": "u1", "u32": "u4", "u64": "u8", "void": "V"}


def layout(file: str, name: str, C: str = "f") -> np.dtype:
    """A struct of a .cuh file as the host fills it in: the same members at the same places. C : the dtype that its
    parameter C stands for. A pointer's metadata say what it points to."""
    types = {**TYPES, "C": C}
    (body,) = re.findall(rf"struct {name} {{(.*?)}};", re.sub(r"//.*", "", source(file)), re.DOTALL)
    members = []
    for kind, names in re.findall(r"(?:const )?(\w+) ([^;]+);", body):
        pointer = np.dtype("u8", metadata={"to": np.dtype(types[kind])})
        members += [(member.lstrip("*"), pointer if member[0] == "*" else types[kind]) for member in names.split(", ")]
    return np.dtype(members, align=True)
