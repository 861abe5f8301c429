"""Back ends as tests meet them: those that work here, and kernels of every kind from host arrays to host arrays."""

from __future__ import annotations

import importlib
import types

import numpy as np

from bdiff_np import backends
from bdiff_np.backends import load_ops
from bdiff_np.errors import Unavailable

# back ends that cannot run here, and why; test_backends.py skips a test for each, so that it is seen
ABSENT: dict[str, str] = {}
for _name in backends.names():
    try:
        load_ops(_name)
    except Unavailable as _fault:
        ABSENT[_name] = str(_fault)
BACKENDS = [name for name in backends.names() if name not in ABSENT]


def kernels_of(backend: str):
    """The module of the family's kernels on a back end, whose results are on the host."""
    ops = load_ops(backend)
    written = importlib.import_module(f"bdiff_np.kernels.bernoulli.bernoulli_{backend.replace('-', '_')}")
    if not ops.on_device:
        return written

    class Kernels(written.Kernels):
        """Results come back, the value of the KL in float64, as evaluate.py sums it."""

        def q_sample(self, *arguments):
            return ops.to_host(super().q_sample(*arguments))

        def p_flip(self, *arguments):
            return ops.to_host(super().p_flip(*arguments))

        def p_sample(self, *arguments):
            return ops.to_host(super().p_sample(*arguments))

        def prior(self, *arguments):
            return ops.to_host(super().prior(*arguments))

        def kl_grad(self, *arguments, **options):
            value, gradient = super().kl_grad(*arguments, **options)
            return None if value is None else ops.to_host(value).astype(np.float64), ops.to_host(gradient)

    return types.SimpleNamespace(Kernels=Kernels)
