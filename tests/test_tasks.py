"""How many threads the work of a size keeps busy, counted: docs/training.md, "More cores"."""

from __future__ import annotations

import numpy as np
import pytest
from test_fused_steps import training

from bdiff_np.kernels.training.fused_step_numba import KEPT, FusedSteps

CASES = [
    # batch, hidden, threads wanted; threads busy, pieces of AdamW, tiles of the gradient of a wide net
    (64, (50, 50), 16, 2, 1, 0),
    (512, (128, 128), 16, 2, 1, 0),
    (4096, (50, 50), 16, 16, 1, 0),
    (16384, (50, 50), 64, 64, 2, 0),
    (65536, (50, 50), 64, 64, 2, 0),
    (256, (300, 300), 16, 2, 5, 5),
    (4096, (300, 300), 16, 16, 5, 5),
    (4096, (1024, 1024), 16, 16, 65, 9),
    (1 << 14, (1024, 1024), 64, 15, 65, 0),  # more slices than are kept, of which each has a gradient: 2^24 floats
]


def fused(batch: int, hidden: tuple[int, ...], threads: int) -> FusedSteps:
    job = training(N=2, D=1, hidden=hidden, batch_size=2)
    options = {"rows": job.rows, "batch": batch, "seed": 0, "threads": threads}
    return FusedSteps(job.model.net, job.kernels, job.model.params, job.optimizer, **options)


@pytest.mark.parametrize("batch, hidden, wanted, busy, pieces, tiles", CASES)
def test_threads_of_a_training(batch, hidden, wanted, busy, pieces, tiles):
    """As many as there are groups, where the batch allows; and tasks of the other phases."""
    one = fused(batch, hidden, wanted)
    groups = one.space.groups
    assert min(one.threads, groups) == busy and one.space.pieces == pieces
    assert (one.space.squares.size if one.keeps else 0) == tiles
    lengths = np.diff([batch * group // groups for group in range(groups + 1)])
    assert lengths.max() - lengths.min() <= 1  # no thread waits for one with a larger part


def test_slices_are_kept_while_they_fit():
    """Up to 2^26 floats, the sum over rows of all that a slice holds."""
    floats = int(fused(256, (300, 300), 2).plan.slots[1])
    edge = KEPT // floats
    assert fused(edge, (300, 300), 2).keeps and not fused(edge + 1, (300, 300), 2).keeps
