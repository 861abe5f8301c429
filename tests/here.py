"""Back ends as tests meet them: those that work here, others skipped with their own reason; kernels of every kind from host arrays to host arrays."""

from __future__ import annotations

import importlib
import types

import numpy as np
import pytest

from bdiff_np.errors import Unavailable
from bdiff_np.model import load_ops


def ops_of(backend: str):
    """The operations of a back end; skips the test where it cannot run."""
    try:
        return load_ops(backend)
    except Unavailable as fault:
        pytest.skip(str(fault))


def kernels_of(backend: str):
    """The module of the family's kernels on a back end, whose results are on the host; skips the test where it cannot run."""
    ops = ops_of(backend)
    written = importlib.import_module(f"bdiff_np.kernels.bernoulli_{backend.replace('-', '_')}")
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
