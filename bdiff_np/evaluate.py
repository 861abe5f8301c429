"""The bound on the log likelihood of rows, in bits, estimated without bias, with its standard error. Derivation, sections 4 and 9."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass

import numpy as np

from bdiff_np import rng
from bdiff_np.data import Rows
from bdiff_np.errors import InputError
from bdiff_np.rng import Key

LN2 = float(np.log(2.0))  # nats per bit
GROUPS = 32  # independent estimates, whose spread gives the standard error
BATCH = 4096  # rows that meet the network together
LISTED = 2048  # rows up to which the oracle's floor is worked out; it weighs every row for every bit


@dataclass(frozen=True)
class Bound:
    """What `evaluate` says of N rows. The bound is an upper bound on -log p(row), averaged over the rows."""

    bits_per_sequence: float
    nats_per_sequence: float
    standard_error_bits: float  # of the estimate, for these rows
    k_minus_null_bits: float  # gain over independent bits of the stationary law: K - L_null with K = -bits_per_sequence
    n_sequences: int
    floor_bits: float | None  # the lowest that any factorised reverse chain can reach on the law of the data, where that is known
    floor_standard_error_bits: float | None
    bound: str  # "learned" or "paper": the last reverse step
    steps: int

    def as_dict(self) -> dict:
        return asdict(self)


def bound(
    model, rows: Rows, *, kind="learned", steps=None, evaluations=1 << 19, seed=0, population: np.ndarray | None = None, progress=None
) -> Bound:
    """The bound of a model on rows.

    kind : "learned", the last reverse step is the network's; "paper", it is the forward kernel (Sohl-Dickstein et al. 2015)
    steps : evaluate a chain with fewer steps, as `sample` would draw from it
    evaluations : steps of the chain to look at, about. From GROUPS a row on, each group looks at every row equally often; with fewer it
        looks at a part of the rows, and the standard error is then that of a sample of rows
    population : (N, D) all rows that the data's law gives, equally likely: then the floor is worked out too
    progress : called with nothing after each of GROUPS parts
    """
    check_width(model, rows)
    if kind not in ("learned", "paper"):
        raise InputError(f"the bound is 'learned' or 'paper', not {kind!r}")
    chain = model.steps(steps)
    kernels = model.kernels(chain)
    wanted = max(1, round(evaluations / GROUPS))
    count = wanted if wanted < len(rows) else round(wanted / len(rows)) * len(rows)
    estimates = []
    with model.threads:
        for group in range(GROUPS):
            estimates.append(_estimate(model, chain, kernels, rows, kind, count, seed, group))
            if progress:
                progress()
    nats, error = float(np.mean(estimates)), float(np.std(estimates, ddof=1) / GROUPS**0.5)
    exact = _exact_terms(model, chain, rows, kind)
    nats += exact["added"]
    low = floor(model, chain, kind, population, seed)
    return Bound(
        bits_per_sequence=nats / LN2,
        nats_per_sequence=nats,
        standard_error_bits=error / LN2,
        k_minus_null_bits=(exact["null"] - nats) / LN2,
        n_sequences=len(rows),
        floor_bits=low and low[0] / LN2,
        floor_standard_error_bits=low and low[1] / LN2,
        bound=kind,
        steps=chain.T,
    )


def _estimate(model, chain, kernels, rows: Rows, kind: str, count: int, seed: int, group: int) -> float:
    """T times the mean KL of `count` steps in nats. The steps are stratified; the rows follow one another from a random one on."""
    total = 0.0
    t_all = rng.stratified_t(Key(seed, rng.EVAL_TIME, group), count, chain.T)
    start = int(rng.words(Key(seed, rng.EVAL_TIME, group), 2, 1)[1, 0]) * len(rows) >> 32
    key = Key(seed, rng.EVAL_NOISE, group)
    for first in range(0, count, BATCH):
        t = t_all[first : first + BATCH]
        x0 = rows.take((start + np.arange(first, first + len(t))) % len(rows))
        x_t = kernels.q_sample(x0, t, key, first)
        value, _ = kernels.kl_grad(model.logits(x_t, chain.time[t]), x0, x_t, t)
        total += float(value[t > 1].sum() if kind == "paper" else value.sum())
    return chain.T * total / count


def _exact_terms(model, chain, rows: Rows, kind: str) -> dict[str, float]:
    """The terms of the bound that need no network, in nats, averaged over the rows."""
    family = importlib.import_module(f"bdiff_np.diffusion.{model.config.model.family}")
    added = null = 0.0
    for first in range(0, len(rows), BATCH):
        x0 = rows.take(slice(first, first + BATCH))
        added += family.prior_kl(chain, x0).sum() + (family.fixed_last_step(chain, x0).sum() if kind == "paper" else 0.0)
        null += family.null_bound(chain, x0).sum()
    return {"added": float(added) / len(rows), "null": float(null) / len(rows)}


def floor(model, chain, kind: str, population: np.ndarray | None, seed: int = 0) -> tuple[float, float] | None:
    """The exact floor and its standard error in nats, or None where it is not known.

    Up to LISTED rows it is the oracle's; beyond, the entropy log N, below which nothing lies either.
    """
    if population is None or chain.alpha_bar[-1] > 0:
        return None
    family = importlib.import_module(f"bdiff_np.diffusion.{model.config.model.family}")
    if len(population) > LISTED:
        nats, error = float(np.log(len(population))), 0.0
    else:
        nats, error = importlib.import_module(f"bdiff_np.diffusion.{model.config.model.family}_floor").floor(chain, population, seed)
    if kind == "paper" and len(population) <= LISTED:  # the same steps but the last, which costs what the forward kernel costs
        nats += float(family.fixed_last_step(chain, population).mean()) - _oracle_last_step(family, chain, population)
    return nats, error


def floor_per_step(model, population: np.ndarray | None) -> np.ndarray | None:
    """The oracle's mean KL of each step, (T,) bits per row, or None where it is not known."""
    if population is None or len(population) > LISTED:
        return None
    family_floor = importlib.import_module(f"bdiff_np.diffusion.{model.config.model.family}_floor")
    return family_floor.kl_per_step(model.chain, population) / LN2


def _oracle_last_step(family, chain, population: np.ndarray) -> float:
    """E[-log p(x_0 | x_1)] of the oracle in nats, by 16384 draws: at t = 1 nearly nothing is left to chance."""
    N = len(population)
    x0 = population[np.arange(16384) % N]
    t = np.ones(len(x0), int)
    x_1 = family.q_sample(chain, x0, t, rng.words(Key(0, rng.EVAL_NOISE, 0), *x0.shape))
    logits = family.oracle_logits(chain, population, x_1, t)
    return float(family.softplus(np.where(x0 != 0, -logits, logits)).sum(1).mean())


def score(model, rows: np.ndarray, *, seed: int = 0, evaluations: int = 2000) -> np.ndarray:
    """The bound of each row on its own, (N,) bits, for bits (N, D). Every row meets the same steps and the same noise."""
    rows = np.asarray(rows)
    packed = Rows.from_bits(rows)
    check_width(model, packed)
    family = importlib.import_module(f"bdiff_np.diffusion.{model.config.model.family}")
    chain, kernels = model.chain, model.kernels()
    steps = rng.stratified_t(Key(seed, rng.EVAL_TIME, 0), evaluations, chain.T)
    words = rng.words(Key(seed, rng.EVAL_NOISE, 0), evaluations, model.D)
    total = np.zeros(len(rows))
    for first in range(0, len(rows), BATCH):
        x0 = packed.take(slice(first, first + BATCH))
        at_once = max(1, BATCH // len(x0))
        for e in range(0, evaluations, at_once):
            t = np.repeat(steps[e : e + at_once], len(x0))
            again = np.tile(x0, (len(t) // len(x0), 1))
            x_t = family.q_sample(chain, again, t, np.repeat(words[e : e + at_once], len(x0), axis=0))
            value, _ = kernels.kl_grad(model.logits(x_t, t), again, x_t, t)
            total[first : first + BATCH] += value.reshape(-1, len(x0)).sum(0)
        total[first : first + BATCH] += family.prior_kl(chain, x0) * evaluations / chain.T
    return total * chain.T / evaluations / LN2


def kl_per_step(model, rows: Rows, *, evaluations: int = 1 << 17, seed: int = 0) -> np.ndarray:
    """Mean KL of each step t = 1..T, (T,) bits per row."""
    check_width(model, rows)
    chain, kernels = model.chain, model.kernels()
    each = max(1, evaluations // chain.T)
    total = np.zeros(chain.T + 1)
    every = np.repeat(np.arange(1, chain.T + 1), each)
    key = Key(seed, rng.EVAL_NOISE, GROUPS)
    pick = rng.permutation(Key(seed, rng.EVAL_TIME, GROUPS), len(every)) % len(rows)
    for first in range(0, len(every), BATCH):
        t, x0 = every[first : first + BATCH], rows.take(pick[first : first + BATCH])
        x_t = kernels.q_sample(x0, t, key, first)
        value, _ = kernels.kl_grad(model.logits(x_t, chain.time[t]), x0, x_t, t)
        np.add.at(total, t, value)
    return total[1:] / each / LN2


def check_width(model, rows: Rows) -> None:
    """Raises InputError unless the rows have the model's number of bits."""
    if rows.D != model.D:
        raise InputError(f"the rows have {rows.D} bits, the model was trained on rows of {model.D}")
