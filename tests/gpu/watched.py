"""Every kernel once or twice, small and ragged, for the modes in which it is watched closely. Run by
test_rung3_sanitizers.py, in own sessions:

    cd tests && python -m cuda_on_cpu.sanitize address -m pytest gpu/watched.py

Results are compared as well, but what counts is that nothing is reported.
"""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from bdiff_np import rng, sample
from bdiff_np.diffusion.bernoulli import make_chain
from bdiff_np.kernels.bernoulli import bernoulli_numpy
from bdiff_np.model import load_ops
from bdiff_np.rng import Key
from gpu.training import CASES, buffers, distance, take, training

KEY = Key(5, rng.Q_NOISE, 9)


@pytest.mark.parametrize("B, D", [(1, 1), (35, 8), (33, 13)])
@pytest.mark.parametrize("pi", ["one", "per-bit"])
def test_kernels(card, B, D, pi):
    """Bits in bytes that are not full, rows that no block fills, and rows of whole words."""
    generator, T = np.random.default_rng(B), 7
    chain = make_chain("paper", T, 0.3 if pi == "one" else np.linspace(0.1, 0.9, D))
    ours, numpys = card.family.Kernels(chain), bernoulli_numpy.Kernels(chain)
    x0, t = generator.integers(0, 2, (B, D)).astype(np.uint8), generator.integers(1, T + 1, B)
    logits = generator.normal(size=(B, D)).astype(np.float32)
    x_t, host = numpys.q_sample(x0, t, KEY), card.ops.to_host
    np.testing.assert_array_equal(host(ours.q_sample(x0, t, KEY)), x_t)
    np.testing.assert_array_equal(host(ours.prior(B, D, KEY)), numpys.prior(B, D, KEY))
    np.testing.assert_array_equal(host(ours.p_sample(logits, x_t, t, KEY)), numpys.p_sample(logits, x_t, t, KEY))
    for found, expected in zip(
        (*ours.kl_grad(logits, x0, x_t, t), ours.p_flip(logits, x_t, t)), (*numpys.kl_grad(logits, x0, x_t, t), None)
    ):
        assert expected is None or np.allclose(host(found), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("H", [5, 36])
def test_operations(card, H):
    """Everything between products, forward and backward, beside NumPy; widths of whole fours and others."""
    generator, B, numpy, results = np.random.default_rng(H), 19, load_ops("numpy"), []
    z, bias, film, dy = (generator.normal(size=s).astype(np.float32) for s in ((B, H), H, (B, 2 * H), (B, H)))
    for on in (card.ops, numpy):
        y, tape = on.activate(on.asarray(z), on.asarray(bias), "silu", on.asarray(film))
        n, norms = on.layer_norm(y, on.asarray(bias), on.asarray(bias))
        db, dgain, dshift = (on.zeros(H, np.float32) for _ in range(3))
        dn = on.layer_norm_backward(on.asarray(dy), norms, dgain, dshift)
        found = [
            y,
            n,
            dn,
            *on.activate_backward(on.asarray(dy), tape, db),
            db,
            dgain,
            dshift,
            on.keep_mask(KEY, (B, H), 0.4, np.float32),
        ]
        results.append([on.to_host(array) for array in found])
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["plain", "17-bits", "odds_input"])
@pytest.mark.parametrize("way", ["FusedSteps", "CapturedSteps", "five lines"])
def test_steps(card, way, case):
    """Two steps: three groups of rows for two blocks, a group in several parts, the last of which does not fill the
    rows of a block."""
    values = CASES[case] | {"hidden": (9, 6), "batch_size": 101, "steps_per_epoch": 64}
    with nullcontext() if card.real else card.pretending(multiprocessors=2, shared_memory=20 << 10):
        here, there = training("numpy", **values), take(training("cupy", **values), way, card)
        if way == "FusedSteps" and not card.real:
            assert there.fused.groups == 3 and there.fused.grid == 2 and there.fused.plan.rows < 101 // 3
        start = buffers(here)
        for job in (here, there):
            job.advance(2)
    found, expected = buffers(there), buffers(here)
    for name in start:
        assert distance(found[name] - start[name], expected[name] - start[name]) < 1e-5, name


@pytest.mark.parametrize("case", ["plain", "contrary", "pi-of-each-bit-x_prev"])
def test_rows(card, case):
    """The fused chain, several blocks, the network asked in parts; some bits known."""
    values = {"T": 6, "hidden": (9,)} | CASES.get(case, {"T": 30, "D": 2, "N": 4})
    here, there = training("numpy", **values).averaged, training("cupy", **values).averaged
    for model in (here, there) if case == "contrary" else ():
        be_contrary(model)
    known = np.full((70, here.D), -1, np.int8)
    known[3:60, 1] = 1
    np.testing.assert_array_equal(
        sample.draw(there, 70, seed=3, known=known), sample.draw(here, 70, seed=3, known=known)
    )


def be_contrary(model):
    """The network is sure of the opposite of what it sees: bits flip as often as they can, and each that is missed
    shows in the row."""
    first, last = model.net.dense[0].name, model.net.dense[-1].name
    weights = {name: np.zeros(view.shape, np.float32) for name, view in model.params.items()}
    for d in range(model.D):
        weights[f"{first}/W"][d, d], weights[f"{last}/W"][d, d], weights[f"{last}/b"][d] = -20, 10, -100
    model.params.fill(weights)
