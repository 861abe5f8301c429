"""bdiff_np: diffusion models for binary data, from scratch.

    import bdiff_np
    model = bdiff_np.load("runs/heartbeat_paper")  # or bdiff_np.fit(X), of rows of 0 and 1
    rows = model.sample(10, seed=0)     # (10, D) uint8
    bits = model.score(rows)            # (10,) upper bounds on -log2 p(row)

Importing this package loads nothing but the standard library; the rest comes with the first use.
"""

from __future__ import annotations

import sys as _sys
from importlib.machinery import ModuleSpec as _ModuleSpec
from importlib.util import module_from_spec as _module_from_spec
from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bdiff_np.errors import InputError
    from bdiff_np.model import Model

__version__ = "0.1.0"

_here = _Path(__file__).resolve().parent
if not (_here / "kernels").is_dir() and (_here.parent / "kernels" / "shared").is_dir():
    # A checkout on a file system without symbolic links: bdiff_np/kernels is one to ../kernels (setup.py maps it
    # likewise). Registered by hand, nothing else beside the package becomes importable through it.
    _spec = _ModuleSpec(f"{__name__}.kernels", None, is_package=True)
    _spec.submodule_search_locations = [str(_here.parent / "kernels")]
    _sys.modules[_spec.name] = _module_from_spec(_spec)


__all__ = ["InputError", "Model", "__version__", "fit", "load"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name == "Model":  # loads NumPy
        from bdiff_np.model import Model

        return Model
    if name == "InputError":
        from bdiff_np.errors import InputError

        return InputError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def fit(X: Any, val: Any = None, *, seed: int | None = 0, backend: str = "auto", **settings: Any) -> Model:
    """A model trained on rows.

    X, val : training rows and held-out rows, (N, D): an array of any dtype, a list, a data frame, a tensor, a sparse
        matrix that holds nothing but 0 and 1, or words for them. Without val a share of 600 rows or more is held out;
        val="none" trains on all
    seed : of all random words; for None one is drawn, and said on stderr
    backend : what computes, "numpy", "numba", "cupy" or "numba-cuda"; "auto" takes what suits the work
    settings : of docs/settings.md, by their names alone: T=500, hidden=[64, 64], epochs=20, lr=1e-3

    Raises InputError for rows and settings that are at fault, and where training diverges.
    """
    from bdiff_np.runfolder import in_memory

    return in_memory.fit(X, val, seed=seed, backend=backend, settings=settings)


def load(target: str | _Path, backend: str = "auto") -> Model:
    """A trained model.

    target : a checkpoint, a results folder or a run folder (then its newest results)
    backend : "numpy", "numba", "cupy" or "numba-cuda"; with "auto" each call takes the one that suits its work

    Raises InputError where there is none.
    """
    from bdiff_np.backends.auto import AUTO
    from bdiff_np.model import Model

    model = Model.load(target, backend="numpy" if backend == AUTO else backend)
    model.auto = backend == AUTO
    return model
