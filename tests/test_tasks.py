"""How many threads the work of a size keeps busy, counted: docs/training.md, "More cores"."""

from __future__ import annotations

import numpy as np
import pytest
from test_fused_steps import training

from bdiff_np.kernels.training.fused_step_numba import FusedSteps

CASES = [
    # batch, hidden, threads wanted, threads busy
    (64, (50, 50), 16, 2),
    (512, (128, 128), 16, 2),
    (4096, (50, 50), 16, 16),
    (16384, (50, 50), 64, 64),
    (65536, (50, 50), 64, 64),
    (256, (300, 300), 16, 2),
    (4096, (300, 300), 16, 16),
]


@pytest.mark.parametrize("batch, hidden, wanted, busy", CASES)
def test_threads_of_a_training(batch, hidden, wanted, busy):
    """As many as there are groups, where the batch allows."""
    job = training(N=2, D=1, hidden=hidden, batch_size=2)
    fused = FusedSteps(
        job.model.net, job.kernels, job.model.params, job.optimizer, rows=job.rows, batch=batch, seed=0, threads=wanted
    )
    assert min(fused.threads, fused.space.groups) == busy
    lengths = np.diff([batch * group // fused.space.groups for group in range(fused.space.groups + 1)])
    assert lengths.max() - lengths.min() <= 1  # no thread waits for one with a larger part
