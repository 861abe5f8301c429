"""Drawing rows from a model: the reverse chain from noise. Derivation, section 11."""

from __future__ import annotations

import numpy as np

from bdiff_np import rng
from bdiff_np.errors import InputError
from bdiff_np.rng import Key

BATCH, BITS = 4096, 1 << 21  # rows, and bits, that meet the network together at most; which rows share a batch changes nothing


def rows_at_once(D: int) -> int:
    """Rows of a batch, for rows of D bits."""
    return max(1, min(BATCH, BITS // D))


def draw(model, n: int, *, seed: int = 0, steps: int | None = None, batch: int | None = None, progress=None) -> np.ndarray:
    """n rows, (n, D) uint8. Row i depends on the seed and on i alone.

    steps : how many of the chain's T steps to take, all for None
    progress : called with the number of steps done, once for each step of each batch
    """
    if n < 0:
        raise InputError(f"{n} rows cannot be drawn")
    chain = model.steps(steps)
    kernels = model.kernels(chain)
    batch = min(batch or BATCH, rows_at_once(model.D))
    rows = np.empty((n, model.D), np.uint8)
    for first in range(0, n, batch):
        part = rows[first : first + batch]
        part[...] = kernels.prior(len(part), model.D, Key(seed, rng.PRIOR, 0), first)
        with model.threads:
            for t in range(chain.T, 0, -1):
                part[...] = step_back(model, kernels, chain, part, t, seed=seed, first_row=first)
                if progress:
                    progress(1)
    return rows


def trajectory(model, n: int, *, seed: int = 0, frames: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """One walk of n rows from noise to data, seen at about `frames` moments: times (F,) falling to 0, states (F, n, D) uint8."""
    chain, kernels = model.chain, model.kernels()
    x = kernels.prior(n, model.D, Key(seed, rng.PRIOR, 0))
    shown = set(np.round(np.linspace(0, chain.T, min(frames, chain.T + 1))).astype(int).tolist())
    times, states = [chain.T], [x]
    with model.threads:
        for t in range(chain.T, 0, -1):
            x = step_back(model, kernels, chain, x, t, seed=seed)
            if t - 1 in shown:
                times.append(t - 1)
                states.append(x)
    return np.array(times), np.stack(states)


def step_back(model, kernels, chain, x_t: np.ndarray, t: int, *, seed: int, first_row: int = 0) -> np.ndarray:
    """x_{t-1} ~ p(x_{t-1} | x_t) for all rows, (B, D) uint8."""
    every = np.full(len(x_t), t)
    return kernels.p_sample(model.logits(x_t, chain.time[every]), x_t, every, Key(seed, rng.P_NOISE, t), first_row)
