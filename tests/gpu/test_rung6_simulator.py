"""Rung 6: Numba-CUDA's kernels in Numba's simulator, which must be asked for before Numba is imported: in a session of
its own."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


@pytest.mark.skipif(
    find_spec("numba_cuda") is None, reason='Numba-CUDA is not installed: pip install "bdiff_np[gpu-check]"'
)
@pytest.mark.child("plain", "gpu/simulated.py", "--simulator")
def test_numba_cuda_in_the_simulator(child):
    """Each kernel on tiny grids, a training step and a chain: tests/gpu/simulated.py."""
    assert child.code == 0 and " passed" in child.output, child
