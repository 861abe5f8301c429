"""Trainings for the tests of this folder: one and the same on NumPy and on a GPU, in the middle of its way."""

from __future__ import annotations

import numpy as np
from tiny import build, settings

from bdiff_np.data.bits import Bits
from bdiff_np.train import Training

STEP = 1000  # steps taken before those that are looked at

# A batch is cut into groups, a group into the rows that a block takes, a row of bits into blocks of random words: sizes
# leave a rest at each cut.
CASES = {
    "plain": {},
    "narrow": {"hidden": (5,)},
    "deep": {"hidden": (50, 50, 50)},
    **{name: {"activation": name} for name in ("relu", "gelu", "tanh", "sigmoid")},
    "odds_input": {"odds_input": True},
    "pi-of-each-bit": {"pi": np.linspace(0.1, 0.9, 9)},
    "pi-of-each-bit-x_prev": {"pi": np.linspace(0.1, 0.9, 9), "predict": "x_prev"},
    "x_prev-no-skip": {"predict": "x_prev", "skip": False},
    "no-skip": {"skip": False},
    "bce": {"bce_weight": 0.3},
    "repeats-3": {"num_sample_steps": 3},
    "batch-1": {"batch_size": 1},
    "batch-5": {"batch_size": 5},
    "batch-250": {"batch_size": 250},
    "clipped": {"clip_thresh": 0.01},
    "no-clip": {"clip_thresh": None},
    "weight-decay": {"weight_decay": 0.3},
    "passes-end-in-a-batch": {"N": 10, "batch_size": 4, "D": 4},
    "one-step-chain": {"T": 1},
    "long-chain": {"T": 1000, "schedule": "linear"},
    "one-bit": {"D": 1, "N": 2},
    "17-bits": {"D": 17, "time_features": 2},
    "whole-fours": {"D": 8, "N": 250, "hidden": (32, 16), "time_features": 8},
    "128-wide": {"hidden": (128,), "batch_size": 40},
    "no-average": {"ema": 0.0, "lr_schedule": "constant"},
    "largest-seed": {"seed": 2**63 - 2},
}


def training(backend: str, N: int = 300, D: int = 9, pi=0.25, **values) -> Training:
    """A training on N different rows, row k the number k in binary, in its middle: each layer has a gradient, no moment
    is zero."""
    chosen = {"steps_per_epoch": 64, "epochs": 100, "hidden": (33, 17), "batch_size": 64, "clip_thresh": 100.0} | values
    rows = Bits.from_array((np.arange(N)[:, None] >> np.arange(D)) & 1)
    job = Training(build(settings(**chosen), D, np.asarray(pi), backend=backend), rows)
    generator, P, o, asarray = (
        np.random.default_rng(1),
        job.model.params.flat.size,
        job.optimizer,
        job.model.ops.asarray,
    )
    params, ema = 0.4 * generator.normal(size=(2, P))
    m, v = 1e-3 * generator.normal(size=P), 1e-4 * generator.uniform(0.5, 1.5, size=P)
    for buffer, values_of_it in ((job.model.params.flat, params), (o.ema.flat, ema), (o.m.flat, m), (o.v.flat, v)):
        buffer[:] = asarray(values_of_it.astype(np.float32))
    o.taken = STEP
    return job


def take(job: Training, how: str, card) -> Training:
    """The same training, its steps taken in one of the ways: FusedSteps, CapturedSteps, LaunchedSteps, or by the five
    lines."""
    if how == "five lines":
        job.fused, job.resident = None, job.rows.resident(job.model.ops)
    else:
        options = {"rows": job.rows, "batch": job.batch_rows * job.repeats, "seed": job.seed}
        job.fused = getattr(card.step, how)(
            card.step.technology(job.kernels), job.model, job.kernels, job.optimizer, **options
        )
    return job


def buffers(job: Training) -> dict[str, np.ndarray]:
    """Copies on the host."""
    o = job.optimizer
    flat = {"params": job.model.params.flat, "m": o.m.flat, "v": o.v.flat, "ema": o.ema.flat}
    return {name: np.array(job.model.ops.to_host(array)) for name, array in flat.items()}


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Relative, in norm."""
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b))
