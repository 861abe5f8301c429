"""Drawing rows from a model: the reverse chain from noise. Derivation, section 11."""

from __future__ import annotations

import time

import numpy as np

from bdiff_np import rng
from bdiff_np.errors import InputError
from bdiff_np.rng import Key
from bdiff_np.runfolder.progress import compiling, pace

BATCH, BITS = 4096, 1 << 21  # rows, and bits, that meet the network together at most; which rows share a batch changes nothing
DEVICE_BATCH, DEVICE_UNITS = 1 << 17, 1 << 24  # the same for a GPU, which idles on fewer; units of a layer, bits included, since its memory is small


def rows_at_once(model) -> int:
    """Rows of a batch."""
    if model.ops.on_device and getattr(model.net, "dense", None) is not None:  # rows of other nets take far more room
        return max(1, min(DEVICE_BATCH, DEVICE_UNITS // max(model.D, getattr(model.net, "width", model.D))))
    return max(1, min(BATCH, BITS // model.D))


def draw(
    model, n: int, *, seed: int = 0, steps: int | None = None, batch: int | None = None, known: np.ndarray | None = None, progress=None
) -> np.ndarray:
    """n rows, (n, D) uint8. Row i depends on the seed, on i and on what is known of it alone.

    steps : how many of the chain's T steps to take, all for None
    known : (D,) or (n, D) int8, a bit's value where it is known, -1 where it is to be drawn. Known bits stand fixed through the whole chain, the
        posterior of Sohl-Dickstein et al. 2015, section 2.5: a heuristic, not the exact conditional law (derivation, section 11)
    progress : called with the number of steps done of all those of all batches
    """
    if n < 0:
        raise InputError(f"{n} rows cannot be drawn")
    chain = model.steps(steps)
    kernels = model.kernels(chain)
    batch = min(batch or n, rows_at_once(model)) or 1
    known = None if known is None else check_known(known, n, model.D)
    written = model.fused("chain")
    fused = written and written.build(model, kernels, min(n, batch))
    ops = model.ops
    if fused:
        with compiling("sampler", fused.function):
            fused(ops.zeros((1, model.D), np.uint8), chain.T, 1, seed=seed)
        if progress:
            progress(0)
    walk = fused or _walk_by_steps(model, kernels, chain)
    rows, at_once = np.empty((n, model.D), np.uint8), 10
    for first in range(0, n, batch):
        part = rows[first : first + batch]
        part[...] = ops.to_host(kernels.prior(len(part), model.D, Key(seed, rng.PRIOR, 0), first))
        fixed = None
        if known is not None:
            fixed = known[first : first + batch] >= 0
            part[fixed] = known[first : first + batch][fixed]
            fixed = ops.asarray(fixed)
        with model.threads:
            x, t = ops.asarray(part), chain.T
            while t > 0:
                start, count = time.perf_counter(), min(at_once, t)
                walk(x, t, count, seed=seed, first_row=first, known=fixed)
                ops.wait()
                t, at_once = t - count, pace(count, time.perf_counter() - start)
                if progress:
                    progress(count)
            part[...] = ops.to_host(x)
    return rows


def check_known(known: np.ndarray, n: int, D: int) -> np.ndarray:
    """`known` for every row, (n, D). Raises InputError for another shape or other values than -1, 0 and 1."""
    known = np.asarray(known)
    if known.shape not in ((D,), (n, D)):
        raise InputError(f"what is known of {n} rows of {D} bits has shape {known.shape}; give ({D},) or ({n}, {D})")
    if not np.isin(known, (-1, 0, 1)).all():
        raise InputError("what is known of a bit is 0, 1 or, where it is to be drawn, -1; another value was given")
    return np.broadcast_to(known, (n, D))


def _walk_by_steps(model, kernels, chain):
    """What kernels/*_chain_* do in one call, step by step."""

    def walk(x, first, steps, *, seed, first_row, known):
        held = None if known is None else known.astype(np.uint8)
        for t in range(first, first - steps, -1):
            turned = x ^ step_back(model, kernels, chain, x, t, seed=seed, first_row=first_row)
            x ^= turned if held is None else turned & (1 - held)

    return walk


def trajectory(model, n: int, *, seed: int = 0, frames: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """One walk of n rows from noise to data, seen at about `frames` moments: times (F,) falling to 0, states (F, n, D) uint8."""
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
    """x_{t-1} ~ p(x_{t-1} | x_t) for all rows, (B, D) uint8."""
    every = np.full(len(x_t), t)
    now, told = model.ops.asarray(every), model.ops.asarray(chain.time[every])
    return kernels.p_sample(model.logits(x_t, told), x_t, now, Key(seed, rng.P_NOISE, t), first_row)
