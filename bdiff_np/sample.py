"""Drawing rows from a model: the reverse chain from noise. Derivation, section 11."""

from __future__ import annotations

import time

import numpy as np

from bdiff_np import memory, rng
from bdiff_np.errors import InputError
from bdiff_np.rng import Key
from bdiff_np.runfolder.progress import compiling, pace

# rows, and their elements, that meet the network together at most; which rows share a batch changes nothing
BATCH, ELEMENTS = 4096, 1 << 21
COPIES = 4  # of drawn rows that are in memory at once where they are counted, written or printed
# the same for a GPU, which idles on fewer; units of a layer, inputs included: its memory is small
DEVICE_BATCH, DEVICE_UNITS = 1 << 17, 1 << 24


def rows_at_once(model) -> int:
    """Rows of a batch."""
    if model.ops.on_device and model.net.dense is not None:  # rows of other nets take far more memory
        return max(1, min(DEVICE_BATCH, DEVICE_UNITS // max(model.D, model.net.width)))
    return max(1, min(BATCH, ELEMENTS // model.D))


def check_number(model, n: int, copies: int = 1) -> None:
    """Raises InputError unless n rows fit into memory, so many times."""
    if n < 0:
        raise InputError(f"{n} rows cannot be drawn; take 0 or more")
    need = copies * n * model.D * np.dtype(model.kind.dtype).itemsize
    memory.check(need, f"{n} rows of {model.D} {model.kind.elements}", "draw fewer rows (-n)")


def draw(
    model,
    n: int,
    *,
    seed: int = 0,
    steps: int | None = None,
    batch: int | None = None,
    known: np.ndarray | None = None,
    progress=None,
) -> np.ndarray:
    """n rows, (n, D) of the data's dtype. Row i depends on the seed, on i and on what is known of it alone.

    steps : how many of the chain's T steps to take, all for None
    known : (D,) or (n, D), what is known of a row, as its kind of data has it (`Data.check_known`). It stands fixed
        through the whole chain, the posterior of Sohl-Dickstein et al. 2015, section 2.5: a heuristic, not the exact
        conditional law (derivation, section 11)
    progress : called with the number of steps done of all those of all batches
    """
    check_number(model, n)
    chain = model.steps(steps)
    kernels = model.kernels(chain)
    batch = min(batch or n, rows_at_once(model)) or 1
    fixed = values = None
    if known is not None:
        fixed, values = model.kind.check_known(known, n, model.D)
    fused_chain = model.fused("chain")
    fused = fused_chain and fused_chain.build(model, kernels, min(n, batch))
    ops = model.ops
    if fused:
        with compiling("sampler", fused.function):
            fused(ops.zeros((1, model.D), model.x_dtype), chain.T, 1, seed=seed)
        if progress:
            progress(0)
    walk = fused or _walk_by_steps(model, kernels, chain)
    rows, at_once = np.empty((n, model.D), model.kind.dtype), 10
    for first in range(0, n, batch):
        count = min(batch, n - first)
        start = np.array(ops.to_host(kernels.prior(count, model.D, Key(seed, rng.PRIOR, 0), first)), model.x_dtype)
        held = None
        if fixed is not None and values is not None:
            held = fixed[first : first + batch]
            start[held] = values[first : first + batch][held]
            held = ops.asarray(held)
        with model.threads:
            x, t = ops.asarray(start), chain.T
            while t > 0:
                began, steps_now = time.perf_counter(), min(at_once, t)
                walk(x, t, steps_now, seed=seed, first_row=first, known=held)
                ops.wait()
                t, at_once = t - steps_now, pace(steps_now, time.perf_counter() - began)
                if progress:
                    progress(steps_now)
            rows[first : first + count] = model.family.to_data(ops.to_host(x))
    return rows


def _walk_by_steps(model, kernels, chain):
    """What kernels/training/ does in one call, step by step."""

    def walk(x, first, steps, *, seed, first_row, known):
        for t in range(first, first - steps, -1):
            new = step_back(model, kernels, chain, x, t, seed=seed, first_row=first_row)
            x[...] = new if known is None else model.ops.where(known, x, new)

    return walk


def trajectory(model, n: int, *, seed: int = 0, frames: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """One walk of n rows from noise to data, seen at about `frames` moments: times (F,) falling to 0, states (F, n,
    D)."""
    chain, kernels = model.chain, model.kernels()
    x = kernels.prior(n, model.D, Key(seed, rng.PRIOR, 0))
    shown = set(np.round(np.linspace(0, chain.T, min(frames, chain.T + 1))).astype(int).tolist())
    times, states = [chain.T], [model.ops.to_host(x)]
    with model.threads:
        for t in range(chain.T, 0, -1):
            x = step_back(model, kernels, chain, x, t, seed=seed)
            if t - 1 in shown:
                times.append(t - 1)
                states.append(model.ops.to_host(x))
    return np.array(times), np.stack(states)


def step_back(model, kernels, chain, x_t: np.ndarray, t: int, *, seed: int, first_row: int = 0) -> np.ndarray:
    """x_{t-1} ~ p(x_{t-1} | x_t) for all rows, (B, D)."""
    every = np.full(len(x_t), t)
    now, model_time = model.ops.asarray(every), model.ops.asarray(chain.time[every])
    return kernels.p_sample(model.output(x_t, model_time), x_t, now, Key(seed, rng.P_NOISE, t), first_row)
