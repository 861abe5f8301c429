"""The bound on the log likelihood of rows, estimated without bias, with its standard error. Derivation, sections 4 and
9."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bdiff_np import memory, rng
from bdiff_np.data import Data
from bdiff_np.errors import InputError
from bdiff_np.rng import Key
from bdiff_np.runfolder.progress import compiling
from bdiff_np.sample import rows_at_once

LN2 = float(np.log(2.0))  # nats per bit
EVALUATION = 40  # bytes that one takes in its group: its step, its number and the sums of both
EVALUATIONS = 1 << 19  # unless told otherwise
# of a bound within a tolerance: what the commands ask for, in bits and as a share of the bound; the first round; and
# the evaluations that all rounds together do not exceed
TOLERANCE, RELATIVE, FIRST, MOST = 0.02, 0.0005, 1 << 16, 1 << 23
ROUND = 64  # addresses between two rounds: those of GROUPS groups, and the one of `kl_per_step` behind them
ELEMENTS, LEAST = 1 << 27, 1 << 12  # of all the examples that are looked at unasked; and evaluations that it takes
GROUPS = 32  # independent estimates, whose spread gives the standard error


class NotFinite(InputError):
    """A bound that is no finite number."""


@dataclass(frozen=True)
class Bound:
    """What `evaluate` says of N rows. The bound is an upper bound on -log p(row), averaged over the rows."""

    bits_per_sequence: float
    nats_per_sequence: float
    standard_error_bits: float  # of the estimate, for these rows
    # gain over a model that knows nothing but the process: K - L_null with K = -bits_per_sequence
    k_minus_null_bits: float
    n_sequences: int
    floor_bits: float | None  # the lowest that any network can reach on the law of the data, where that is known
    floor_standard_error_bits: float | None
    bound: str  # its kind, one of Family.bounds
    steps: int
    evaluations: int = 0  # steps of the chain that were looked at
    process: str = ""  # what the bound rests on beside T, Family.process

    def as_dict(self) -> dict:
        return asdict(self)


def unasked(model, evaluations: int) -> int:
    """So many evaluations, or of wide examples fewer, so that what nobody asked for is a matter of seconds."""
    return min(evaluations, max(LEAST, ELEMENTS // model.D))


def bound(
    model,
    rows: Data,
    *,
    kind="learned",
    steps=None,
    evaluations: int | None = None,
    tolerance: float | None = None,
    relative: float = 0.0,
    seed=0,
    population: np.ndarray | None = None,
    entropy: float | None = None,
    progress=None,
    groups=GROUPS,
    exact: dict[str, float] | None = None,
) -> Bound:
    """The bound of a model on rows.

    kind : one of Family.bounds: "learned", all reverse steps are the network's; "paper", the last is the forward kernel
        (Sohl-Dickstein et al. 2015)
    steps : evaluate a chain with fewer steps, as `sample` would draw from it
    evaluations : steps of the chain to look at, about; EVALUATIONS unless a tolerance is given. From GROUPS a row on,
        each group looks at every row equally often; with fewer it looks at a part of the rows, and the standard error
        is then that of a sample of rows. Each group looks at equally many
    tolerance : in place of a number of evaluations: look at more and more, in rounds that double and have random
        numbers of their own, until the standard error is at most so many bits, or `relative` times the bound if that
        is more; MOST evaluations are the end. Rounds are weighted by their sizes, which chance has no say in: for each
        number of rounds the estimate has no bias. That their number depends on the error seen adds one far below the
        error itself
    population : (N, D) all rows that the data's law gives, equally likely: then the floor is worked out too
    entropy : of the data's law, in nats, where the population says nothing: then that is the floor
    progress : called with nothing after each of the groups; with a tolerance, with the evaluations done and how many it
        will be in all, as it looks
    groups : independent estimates of a round. exact : what `exact_terms` gave for these rows, which knows nothing of
        the weights

    Raises InputError for options that contradict one another, and NotFinite for weights whose KL float32 does not hold.
    """
    check_width(model, rows)
    if kind not in model.family.bounds:
        raise InputError(f"the bound is {' or '.join(map(repr, model.family.bounds))}, not {kind!r}")
    if tolerance is not None and evaluations is not None:
        raise InputError("give a tolerance or a number of evaluations, not both")
    if tolerance is not None and not tolerance > 0:
        raise InputError(f"the tolerance is {tolerance} bits; it must be above 0")
    chain = model.steps(steps)
    estimator = _Estimator(model, chain, rows, kind, seed, groups)
    exact = exact or exact_terms(model, chain, rows, kind)
    if tolerance is None:
        wanted = EVALUATIONS if evaluations is None else evaluations
        nats, error, looked = estimator.round(0, wanted, None if progress is None else lambda _: progress())
    else:

        def enough(nats: float) -> float:
            return max(tolerance * LN2, relative * abs(nats + exact["added"]))

        nats, error, looked = _until(enough, estimator, progress)
    nats += exact["added"]
    if not np.isfinite(nats):
        raise NotFinite(
            "the bound is not a finite number: the network's outputs are too large for float32; take an earlier "
            "checkpoint, train with a lower training.lr, or leave out rows that are far from all others"
        )
    low = None if population is None else model.family.floor(chain, population, kind, seed)
    if low is None and entropy is not None:
        low = entropy, 0.0
    return Bound(
        bits_per_sequence=nats / LN2,
        nats_per_sequence=nats,
        standard_error_bits=error / LN2,
        k_minus_null_bits=(exact["null"] - nats) / LN2,
        n_sequences=len(rows),
        floor_bits=None if low is None else low[0] / LN2,
        floor_standard_error_bits=None if low is None else low[1] / LN2,
        bound=kind,
        steps=chain.T,
        evaluations=looked,
        process=model.family.process(chain),
    )


def _until(enough: Callable[[float], float], estimator: _Estimator, progress) -> tuple[float, float, int]:
    """Mean, standard error and evaluations of doubling rounds, when the error is at most `enough` of the mean."""
    means: list[float] = []
    errors: list[float] = []
    sizes: list[int] = []
    expected = FIRST * 3
    while True:
        number, wanted = len(sizes), FIRST << len(sizes)
        report = None if progress is None else lambda done, total=expected: progress(done, total)
        mean, error, looked = estimator.round(number, wanted, report)
        means.append(mean)
        errors.append(error)
        sizes.append(looked)
        weights = np.array(sizes) / sum(sizes)
        mean, error = float(weights @ means), float(np.sqrt((weights**2) @ np.square(errors)))
        if not np.isfinite(error) or number > 0 and error <= enough(mean) or sum(sizes) + 2 * wanted > MOST:
            return mean, error, sum(sizes)
        needed = min(MOST, sum(sizes) * min(MOST, error / enough(mean)) ** 2)
        expected = sum(sizes) + 2 * wanted
        while expected < needed and 2 * expected < MOST:
            expected = 2 * expected


@dataclass(frozen=True)
class _Estimator:
    """Estimates of the bound of rows, without the exact terms, in nats.

    kind : of bound. groups : independent estimates of a round
    """

    model: Any
    chain: Any
    rows: Data
    kind: str
    seed: int
    groups: int

    def round(self, number: int, evaluations: int, progress) -> tuple[float, float, int]:
        """Mean, standard error and evaluations. number : of the round, each of which has other random numbers
        progress : called with the evaluations of each group"""
        wanted = max(1, round(evaluations / self.groups))
        count = wanted if wanted < len(self.rows) else round(wanted / len(self.rows)) * len(self.rows)
        memory.check(EVALUATION * count, f"{evaluations} evaluations", "take fewer (--evaluations)")
        # whole on a GPU where each row is looked at
        rows = self.rows.resident(self.model.ops) if len(self.rows) <= evaluations else self.rows
        kl, estimates = _kl(self.model, self.model.kernels(self.chain)), []
        # what overflows is told by whoever gets the mean
        with self.model.threads, np.errstate(over="ignore", invalid="ignore"):
            for group in range(self.groups):
                estimates.append(self._one(kl, rows, count, ROUND * number + group))
                if progress:
                    progress(count)
        with np.errstate(over="ignore", invalid="ignore"):
            error = float(np.std(estimates, ddof=1) / self.groups**0.5)
            return float(np.mean(estimates)), error, self.groups * count

    def _one(self, kl, rows, count: int, group: int) -> float:
        """T times the mean KL of `count` steps. The steps are stratified; the rows (Data.resident) follow one another
        from a random one on."""
        model, chain, parts = self.model, self.chain, []
        t_all = rng.stratified_t(Key(self.seed, rng.EVAL_TIME, group), count, chain.T)
        start = int(rng.words(Key(self.seed, rng.EVAL_TIME, group), 2, 1)[1, 0]) * len(rows) >> 32
        key, batch = Key(self.seed, rng.EVAL_NOISE, group), rows_at_once(model)
        for first in range(0, count, batch):
            t = t_all[first : first + batch]
            x0 = rows.take((start + np.arange(first, first + len(t))) % len(rows))
            parts.append((t, kl(x0, t, key, first)))
        total = 0.0  # a device works on all parts before the first one is read
        for t, value in parts:
            value = model.ops.to_host(value).astype(np.float64)
            total += float(value[t >= model.family.bounds[self.kind].first].sum())
        return chain.T * total / count


def _kl(model, kernels):
    """A function of (x0, t, key, first_row, each), as kernels.training.FusedKL says; in one compiled call where the
    back end has that."""
    module = model.fused("kl")
    fused = module and module.build(model, kernels, rows_at_once(model))
    if fused:
        with compiling("evaluation", fused.function):
            fused(np.zeros((1, model.D), model.kind.dtype), np.ones(1, np.int64), Key(0, rng.EVAL_NOISE, 0))
        return fused
    asarray, family, chain = model.ops.asarray, model.family, kernels.chain

    def kl(x0, t, key: Key, first_row: int = 0, each: bool = False):
        if each:
            noise = family.noise(key, len(t), model.D, first_row)
            x0, t, noise = np.tile(x0, (len(t), 1)), np.repeat(t, len(x0)), np.repeat(noise, len(x0), axis=0)
            x_t = asarray(family.q_sample(chain, x0, t, noise).astype(model.x_dtype))
        x0, now, model_time = asarray(x0), asarray(t), asarray(chain.time[t])
        if not each:
            x_t = kernels.q_sample(x0, now, key, first_row)
        return kernels.kl_grad(model.output(x_t, model_time), x0, x_t, now)[0]

    return kl


def exact_terms(model, chain, rows: Data, kind: str = "learned") -> dict[str, float]:
    """The terms of the bound that need no network, in nats, averaged over the rows."""
    family = model.family
    added = null = 0.0
    batch = rows_at_once(model)
    for first in range(0, len(rows), batch):
        x0 = rows.take(slice(first, first + batch))
        added += family.exact_terms(chain, x0, kind).sum()
        null += family.null_bound(chain, x0).sum()
    return {"added": float(added) / len(rows), "null": float(null) / len(rows)}


def score(model, rows: Data | np.ndarray, *, seed: int = 0, evaluations: int = 2000) -> np.ndarray:
    """The bound of each row on its own, (N,) bits, for rows (N, D). Every row meets the same steps and the same
    noise."""
    data = rows if isinstance(rows, Data) else model.kind.from_array(rows)
    check_width(model, data)
    family, chain, kl = model.family, model.chain, _kl(model, model.kernels())
    memory.check(8 * evaluations, f"{evaluations} evaluations of each row", "take fewer (evaluations)")
    steps, key = rng.stratified_t(Key(seed, rng.EVAL_TIME, 0), evaluations, chain.T), Key(seed, rng.EVAL_NOISE, 0)
    total = np.zeros(len(data))
    batch = rows_at_once(model)
    for first in range(0, len(data), batch):
        x0 = data.take(slice(first, first + batch))
        at_once = max(1, batch // len(x0))
        for e in range(0, evaluations, at_once):
            value = model.ops.to_host(kl(x0, steps[e : e + at_once], key, e, each=True))
            total[first : first + batch] += value.reshape(-1, len(x0)).sum(0, dtype=np.float64)
        total[first : first + batch] += family.exact_terms(chain, x0) * evaluations / chain.T
    return total * chain.T / evaluations / LN2


def kl_per_step(model, rows: Data, population: np.ndarray | None = None, *, evaluations: int = 1 << 18, seed: int = 0):
    """Mean KL of each step t = 1..T, (T,) bits per row, of the model; and of the best there can be. evaluations : at
    most

    The latter where the family knows it for the `population`, else None.
    """
    check_width(model, rows)
    chain = model.chain
    if population is not None:
        to_host, asarray = model.ops.to_host, model.ops.asarray
        out = lambda x_t, t: to_host(model.output(asarray(x_t), asarray(t)))  # noqa: E731
        exact = model.family.floor_per_step(chain, model.config.model, population, out, evaluations, seed)
        if exact is not None:
            return exact[0] / LN2, exact[1] / LN2
    each = max(1, unasked(model, evaluations) // chain.T)
    total = np.zeros(chain.T + 1)
    every = np.repeat(np.arange(1, chain.T + 1), each)
    key = Key(seed, rng.EVAL_NOISE, GROUPS)
    pick = rng.permutation(Key(seed, rng.EVAL_TIME, GROUPS), len(every)) % len(rows)
    batch, kl = rows_at_once(model), _kl(model, model.kernels())
    for first in range(0, len(every), batch):
        t, x0 = every[first : first + batch], rows.take(pick[first : first + batch])
        np.add.at(total, t, model.ops.to_host(kl(x0, t, key, first)))
    return total[1:] / each / LN2, None


def check_width(model, rows: Data) -> None:
    """Raises InputError unless the rows have as many elements as the model's."""
    if rows.D != model.D:
        raise InputError(f"the rows have {rows.D} {rows.elements}, the model was trained on rows of {model.D}")
