"""bdiff_np: diffusion models for binary data, from scratch.

    import bdiff_np
    model = bdiff_np.load("runs/heartbeat_paper")   # a run folder, a results folder or a checkpoint
    rows = model.sample(10, seed=0)                 # (10, D) uint8
    bits = model.score(rows)                        # (10,) upper bounds on -log2 p(row)

Importing this package loads nothing but the standard library; the rest comes with the first use.
"""

from __future__ import annotations

import sys as _sys
from importlib.machinery import ModuleSpec as _ModuleSpec
from importlib.util import module_from_spec as _module_from_spec
from pathlib import Path as _Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bdiff_np.model import Model

__version__ = "0.1.0"

_here = _Path(__file__).resolve().parent
if not (_here / "kernels").is_dir() and (_here.parent / "kernels" / "shared").is_dir():
    # A checkout on a file system without symbolic links: bdiff_np/kernels is one to ../kernels (setup.py maps it
    # likewise). Registered by hand, nothing else beside the package becomes importable through it.
    _spec = _ModuleSpec(f"{__name__}.kernels", None, is_package=True)
    _spec.submodule_search_locations = [str(_here.parent / "kernels")]
    _sys.modules[_spec.name] = _module_from_spec(_spec)


def load(target: str | _Path, backend: str = "numpy") -> Model:
    """A trained model.

    target : a checkpoint, a results folder or a run folder (then its newest results)
    backend : "numpy", or "numba", which samples many times faster once it has compiled

    Raises InputError where there is none.
    """
    from bdiff_np.model import Model

    return Model.load(target, backend=backend)
