"""Rung 3: all kernels in sessions where every access to memory is watched. That the watchers see what they should,
tests/test_cuda_on_cpu.py shows with planted bugs, and `python tests/gpu/mutants.py` with bugs in the kernels
themselves."""

from __future__ import annotations

import pytest
from cuda_on_cpu import sanitize

from gpu import mutants

MODES = ["address", "thread", "poison"]


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.child(mode, "gpu/watched.py")) for mode in MODES]
)
def test_nothing_is_reported(child, mode):
    """address: bounds, alignment, overflow. thread: races within a block and between blocks. poison: memory that is
    read before it is written."""
    if sanitize.missing(mode):
        pytest.skip(sanitize.missing(mode))
    assert child.clean and " passed" in child.output, child


def test_mutants_can_be_planted():
    """Each text that mutants.py replaces stands in its file, once: the list has kept up with the kernels."""
    for mutant in mutants.MUTANTS:
        assert mutants.text(mutant.file).count(mutant.old) == 1, mutant
