"""bdiff_np: diffusion models for binary data, from scratch.

    import bdiff_np
    model = bdiff_np.load("runs/heartbeat_paper")   # a run folder, a results folder or a checkpoint
    rows = model.sample(10, seed=0)                 # (10, D) uint8
    bits = model.score(rows)                        # (10,) upper bounds on -log2 p(row)

Importing this package loads nothing but the standard library; the rest comes with the first use.
"""

from __future__ import annotations

from pathlib import Path as _Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bdiff_np.model import Model

__version__ = "0.1.0"

# In a checkout the sub-package bdiff_np.kernels lives in ../kernels (setup.py maps it there); an installed package has it inside.
_here = _Path(__file__).resolve().parent
if not (_here / "kernels").is_dir() and (_here.parent / "kernels" / "bernoulli_numpy.py").is_file():
    __path__.append(str(_here.parent))


def load(target: str | _Path, backend: str = "numpy") -> Model:
    """A trained model.

    target : a checkpoint, a results folder or a run folder (then its newest results). backend : "numpy", or "numba", which samples many times
    faster once it has compiled. Raises InputError where there is none.
    """
    from bdiff_np.model import Model

    return Model.load(target, backend=backend)
