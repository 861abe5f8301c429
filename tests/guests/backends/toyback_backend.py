"""A toy back end."""

from __future__ import annotations

from bdiff_np.backends import Backend


class ToyBack(Backend):
    name = "toyback"
    packages = {"Click": ("click",)}


BACKEND = ToyBack()
