"""Fused steps of wide nets, whose slices are kept and whose gradient is worked out tile by tile. What is wide is made
narrow here, to be quick."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from test_fused_steps import buffers, in_the_middle, training

from bdiff_np.kernels.mlp import mlp_numba
from bdiff_np.kernels.training import fused_step_numba

BLOCKS = {"hidden": (33, 33), "residual": True, "dropout": 0.3}


@pytest.fixture
def wide(monkeypatch):
    """Every net is wide, and its tiles are of a few rows."""
    monkeypatch.setattr(mlp_numba, "WIDE", 4)
    monkeypatch.setattr(mlp_numba, "TILE", 100)


@pytest.mark.parametrize("batch", [256, 300, 513, 700])
@pytest.mark.parametrize("values", [{}, {"odds_input": True}, {"num_sample_steps": 3}, {"clip_thresh": 1e-3}, BLOCKS])
def test_tiles_take_the_five_lines_steps(wide, batch, values):
    """Weights, moments and average after three steps agree with those of the five lines to float32 rounding, at sizes
    that tiles do not divide."""
    fused, plain = (in_the_middle(training(batch_size=batch, N=400, **values)) for _ in range(2))
    assert fused.fused.keeps and fused.fused.space.groups > 1 and len(fused.fused.plan.tiles) > 10
    plain.fused = None
    fused.advance(3)
    plain.advance(3)
    for name, found in buffers(fused).items():
        expected = buffers(plain)[name]
        assert np.linalg.norm(found.astype(float) - expected) < 2e-6 * np.linalg.norm(expected), name
    assert fused.optimizer.grad_norm == pytest.approx(plain.optimizer.grad_norm, rel=1e-5)


@pytest.mark.parametrize("values", [{}, BLOCKS], ids=str)
def test_weights_do_not_depend_on_the_number_of_threads(wide, values):
    """The digest of the weights after 200 steps is the same for 1, 2 and 3 threads, which take slices and tiles from
    one another."""
    found = set()
    for threads in (1, 2, 3):
        job = training(batch_size=384, num_sample_steps=2, N=400, threads=threads, **values)
        assert job.fused.keeps
        job.advance(200)
        found.add(zlib.crc32(job.model.params.flat.tobytes()))
    assert len(found) == 1


@pytest.mark.parametrize("values", [{}, BLOCKS], ids=str)
def test_tiles_cover_every_parameter_once(wide, values):
    """The parameters of all tiles, laid end to end, are the flat buffer."""
    job = training(**values)
    plan, P = job.fused.plan, job.model.params.flat.size
    covered = np.zeros(P, int)
    for tile in plan.tiles:
        covered[tile[mlp_numba.START] : tile[mlp_numba.STOP]] += 1
    assert (covered == 1).all()


def test_without_room_slices_are_not_kept(wide, monkeypatch):
    """A batch too large to keep falls back to gradients of groups, with the same result to rounding."""
    kept = in_the_middle(training(batch_size=300, N=400))
    monkeypatch.setattr(fused_step_numba, "KEPT", 1000)
    other = in_the_middle(training(batch_size=300, N=400))
    assert kept.fused.keeps and not other.fused.keeps
    kept.advance(3)
    other.advance(3)
    np.testing.assert_allclose(kept.model.params.flat, other.model.params.flat, rtol=1e-5, atol=1e-6)
