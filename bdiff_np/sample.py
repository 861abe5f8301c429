"""Drawing rows from a model: the reverse chain from noise. Derivation, section 11."""

from __future__ import annotations

import time
import warnings

import numpy as np

from bdiff_np import memory, rng
from bdiff_np.errors import InputError
from bdiff_np.rng import Key
from bdiff_np.runfolder.progress import compiling, pace

# rows, and their elements, that meet the network together at most; which rows share a batch changes nothing
BATCH, ELEMENTS = 4096, 1 << 21
METHODS = "clamp", "rejection"
HEURISTIC = "what is known was clamped, a heuristic whose rows may be far from the model's law given it"
EXACT = '; method "rejection" draws from that law'
LIMIT = 1 << 20  # rows that rejection draws at most, unless told otherwise
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


def heuristic(model) -> str:
    """What is to be said of rows that were clamped."""
    return HEURISTIC if model.kind.continuous else HEURISTIC + EXACT


def draw(
    model,
    n: int,
    *,
    seed: int = 0,
    steps: int | None = None,
    batch: int | None = None,
    known: np.ndarray | None = None,
    method: str = "clamp",
    limit: int = LIMIT,
    progress=None,
) -> np.ndarray:
    """n rows, (n, D) of the data's dtype. Row i depends on the seed, on i and on what is known of it alone.

    steps : how many of the chain's T steps to take, all for None
    known : (D,) or (n, D), what is known of a row, as its kind of data has it (`Data.check_known`)
    method : how rows come to agree with what is known. "rejection": as `rejected` draws them, exactly. "clamp": it
        stands fixed through the whole chain, the posterior of Sohl-Dickstein et al. 2015, section 2.5, or with
        Family.noises_known is drawn from q(x_t | x_0) at each t, as Song et al. 2021 have it: a heuristic, which may
        be far off (derivation, section 11), and a UserWarning says so
    limit : how many rows "rejection" draws at most
    progress : called with the number of steps done of all those of all batches; by "rejection" as it says
    """
    check_number(model, n)
    if method == "rejection" and known is not None and model.kind.continuous:
        raise InputError(
            f'method "rejection" waits for rows that agree in every digit, which {model.kind.elements} never do; take '
            'method "clamp"'
        )
    if method not in METHODS:
        raise InputError(f"the method is {' or '.join(map(repr, METHODS))}, not {method!r}")
    if known is None:
        fixed = values = None
    else:
        fixed, values = model.kind.check_known(known, n, model.D)
        if method == "rejection":
            return rejected(model, fixed, values, seed=seed, steps=steps, batch=batch, limit=limit, progress=progress)
        warnings.warn(heuristic(model), UserWarning, stacklevel=3)  # at whoever calls Model.sample
    batch = min(batch or n, rows_at_once(model)) or 1
    walk_back = _sampler(model, min(n, batch), seed, steps, progress)
    rows = np.empty((n, model.D), model.kind.dtype)
    for first in range(0, n, batch):
        part = slice(first, min(first + batch, n))
        held = None if fixed is None or values is None else (fixed[part], values[part])
        rows[part] = walk_back(first, part.stop - first, held)
    return rows


def rejected(
    model,
    fixed: np.ndarray,
    values: np.ndarray,
    *,
    seed: int = 0,
    steps: int | None = None,
    batch: int | None = None,
    limit: int = LIMIT,
    progress=None,
) -> np.ndarray:
    """Rows of the model's law given what is known of them, exactly: of the rows that `draw` gives without it, in their
    order, those that agree.

    Row k of those of which the same is known is the k-th that agrees. Different things known are held against the same
    draws: each row has its exact law, but rows of which different things are known may be one and the same draw.

    fixed, values : (n, D), which elements are known, and what they are
    progress : called with the rows drawn and how many rows are found in all
    Raises InputError where `limit` draws do not have rows enough that agree.
    """
    n = len(fixed)
    rows = np.empty((n, model.D), model.kind.dtype)
    wanting = _alike(fixed, values)
    most = min(batch or limit, rows_at_once(model), limit)
    walk_back = _sampler(model, most, seed, steps, None)
    drawn, at_once = 0, min(most, max(64, 2 * n))
    while wanting and drawn < limit:
        count = min(at_once, limit - drawn)
        found, still = walk_back(drawn, count, None), []
        for members in wanting:  # rows of which the same is known, and that have none yet
            some = np.flatnonzero(fixed[members[0]])
            agree = np.flatnonzero((found[:, some] == values[members[0], some]).all(1))[: len(members)]
            rows[members[: len(agree)]] = found[agree]
            if len(agree) < len(members):
                still.append(members[len(agree) :])
        wanting, drawn, at_once = still, drawn + count, min(most, 2 * at_once)
        if progress:
            progress(count, n - sum(map(len, wanting)))
    if wanting:
        lacking = sum(map(len, wanting))
        raise InputError(
            f"{n - lacking} of {n} rows that agree with what is known were found in {drawn} draws; let less be known, "
            'draw more (limit), or take method "clamp", which is quick but only a heuristic'
        )
    return rows


def _alike(fixed: np.ndarray, values: np.ndarray) -> list[np.ndarray]:
    """Rows of which the same is known, as lists of their numbers. fixed, values : (n, D)"""
    n = len(fixed)
    if not n or fixed.strides[0] == 0 and values.strides[0] == 0:  # one row, repeated
        return [np.arange(n)] * bool(n)
    held = np.ascontiguousarray(np.where(fixed, values, np.zeros((), values.dtype))).view(np.uint8).reshape(n, -1)
    asked = np.concatenate([np.packbits(fixed, axis=1), held], axis=1)
    asked = np.ascontiguousarray(asked).view(np.dtype((np.void, asked.shape[1]))).reshape(-1)
    groups = np.unique(asked, return_inverse=True)[1].reshape(-1)
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def _sampler(model, most: int, seed: int, steps: int | None, progress):
    """A function of (first row, number of rows, at most `most`, and None or which elements are held at what) that walks
    these rows back from noise to data."""
    ops, chain = model.ops, model.steps(steps)
    kernels = model.kernels(chain)
    fused_chain = model.fused("chain")
    fused = fused_chain and fused_chain.build(model, kernels, most)
    if fused:
        with compiling("sampler", fused.function):
            fused(ops.zeros((1, model.D), model.x_dtype), chain.T, 1, seed=seed)
        if progress:
            progress(0)
    walk, at_once = fused or _walk_by_steps(model, kernels, chain), 10

    def walk_back(first: int, count: int, held: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
        nonlocal at_once
        start = np.array(ops.to_host(kernels.prior(count, model.D, Key(seed, rng.PRIOR, 0), first)), model.x_dtype)
        fixed, take = None, walk
        if held is not None:
            fixed, values = ops.asarray(held[0]), np.where(held[0], held[1], 0).astype(model.kind.dtype)
            known = _noised(model, kernels, chain, values, seed, first) if model.family.noises_known else None
            take = walk if known is None else _walk_by_steps(model, kernels, chain, known)
            at_T = model.family.from_data(chain, values) if known is None else ops.to_host(known(chain.T))
            start[held[0]] = at_T[held[0]]
        with model.threads:
            x, t = ops.asarray(start), chain.T
            while t > 0:
                began, steps_now = time.perf_counter(), min(at_once, t)
                take(x, t, steps_now, seed=seed, first_row=first, known=fixed)
                ops.wait()
                t, at_once = t - steps_now, pace(steps_now, time.perf_counter() - began)
                if progress:
                    progress(steps_now)
            rows = model.family.to_data(chain, ops.to_host(x))
        return rows if held is None else np.where(held[0], held[1], rows).astype(model.kind.dtype)

    return walk_back


def _walk_by_steps(model, kernels, chain, at=None):
    """What kernels/training/ does in one call, step by step. at(t) : what is known, at t; None for what stands there"""

    def walk(x, first, steps, *, seed, first_row, known):
        for t in range(first, first - steps, -1):
            new = step_back(model, kernels, chain, x, t, seed=seed, first_row=first_row)
            x[...] = new if known is None else model.ops.where(known, x if at is None else at(t - 1), new)

    return walk


def _noised(model, kernels, chain, x0: np.ndarray, seed: int, first_row: int):
    """A function of t that gives examples x0 (B, D) at t: noised, or at t = 0 as the chain has them."""

    def at(t: int):
        if t == 0:
            return model.ops.asarray(model.family.from_data(chain, x0).astype(model.x_dtype))
        every = model.ops.asarray(np.full(len(x0), t))
        return kernels.q_sample(model.ops.asarray(x0), every, Key(seed, rng.KNOWN, t), first_row)

    return at


def trajectory(model, n: int, *, seed: int = 0, frames: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """One walk of n rows from noise to data, seen at about `frames` moments: times (F,) falling to 0, states (F, n,
    D) in the data's units."""
    chain, kernels = model.chain, model.kernels()
    seen = lambda x: model.family.to_data(chain, model.ops.to_host(x))  # noqa: E731
    x = kernels.prior(n, model.D, Key(seed, rng.PRIOR, 0))
    shown = set(np.round(np.linspace(0, chain.T, min(frames, chain.T + 1))).astype(int).tolist())
    times, states = [chain.T], [seen(x)]
    with model.threads:
        for t in range(chain.T, 0, -1):
            x = step_back(model, kernels, chain, x, t, seed=seed)
            if t - 1 in shown:
                times.append(t - 1)
                states.append(seen(x))
    return np.array(times), np.stack(states)


def step_back(model, kernels, chain, x_t: np.ndarray, t: int, *, seed: int, first_row: int = 0) -> np.ndarray:
    """x_{t-1} ~ p(x_{t-1} | x_t) for all rows, (B, D)."""
    every = np.full(len(x_t), t)
    now, model_time = model.ops.asarray(every), model.ops.asarray(chain.time[every])
    return kernels.p_sample(model.output(x_t, model_time), x_t, now, Key(seed, rng.P_NOISE, t), first_row)
