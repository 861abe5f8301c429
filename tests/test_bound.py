"""The bound against enumeration: of all trajectories of tiny chains, of all 2^n states of a random network; its
estimates; samples."""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import TRAIN, build, invoke
from tiny import model as tiny_model

from bdiff_np import config as configuration
from bdiff_np import evaluate, sample
from bdiff_np.backends import numpy_ops
from bdiff_np.data.bits import Bits
from bdiff_np.diffusion import bernoulli
from bdiff_np.diffusion.bernoulli import Chain, make_chain
from bdiff_np.diffusion.bernoulli_family import FAMILY
from bdiff_np.errors import InputError
from bdiff_np.kernels.bernoulli.bernoulli_numpy import Kernels

LN2 = math.log(2)


def states(D):
    """All 2**D rows, (2**D, D); row i spells i."""
    return np.array(list(product((0, 1), repeat=D)), np.uint8)


def number(rows):
    return rows @ (1 << np.arange(rows.shape[1])[::-1])


# A model that is a table, and what the paper says of it in plain probabilities
# ------------------------------------------------------------


@dataclass
class Table:
    """What `evaluate` and `sample` need of a model, around logits that are drawn at random for every state and step."""

    chain: Chain
    predict: str
    D: int
    skip: bool = True
    seed: int = 0

    def __post_init__(self):
        self.config = SimpleNamespace(model=SimpleNamespace(predict=self.predict, skip=self.skip))
        self.family, self.kind, self.x_dtype = FAMILY, Bits, np.dtype(np.uint8)
        self.ops, self.threads = numpy_ops, nullcontext()
        self.table = 1.5 * np.random.default_rng(self.seed).standard_normal((self.chain.T + 1, 2**self.D, self.D))

    def steps(self, K):
        return self.chain if K is None else self.chain.every(K)

    def kernels(self, chain=None):
        return Kernels(chain or self.chain, self.predict, self.skip, dtype=np.float64)

    def fused(self, what):
        return None

    def output(self, x_t, t):
        return self.table[t, number(x_t)]


def forward(chain, t):
    """q(x_t | x_{t-1}), (2**D, 2**D) from row to column, from one resampling probability per step."""
    beta, S = 1 - chain.alpha_bar[t] / chain.alpha_bar[t - 1], states(chain.pi.size)
    stationary = np.where(S == 1, chain.pi, 1 - chain.pi)
    return np.prod((1 - beta) * (S[:, None] == S[None]) + beta * stationary[None], axis=2)


def chance(chain, t, x_t, guess):
    """P(x_{t-1} = 1 | x_t, x_0 = guess) of every bit of x_t (B, D), by Bayes' rule."""
    ab_s, beta = chain.alpha_bar[t - 1], 1 - chain.alpha_bar[t] / chain.alpha_bar[t - 1]
    one = ab_s * guess + (1 - ab_s) * chain.pi
    given_1 = np.where(x_t == 1, 1 - beta + beta * chain.pi, beta * (1 - chain.pi))
    given_0 = np.where(x_t == 1, beta * chain.pi, 1 - beta + beta * (1 - chain.pi))
    return one * given_1 / (one * given_1 + (1 - one) * given_0)


def reverse(model, chain, t):
    """p(x_{t-1} | x_t), (2**D, 2**D) from row to column, from the logits of the model at the time that `chain` tells
    it."""
    S = states(model.D)
    grow = np.exp(-model.output(S, np.full(len(S), chain.time[t])).astype(float))
    ab_s, ab_t = chain.alpha_bar[t - 1], chain.alpha_bar[t]
    if model.predict == "x0":
        like = [ab_t * (S == u) + (1 - ab_t) * np.where(S == 1, chain.pi, 1 - chain.pi) for u in (0, 1)]
        odds = chain.pi * like[1] / ((1 - chain.pi) * like[0]) if model.skip else 1.0
        m = odds / (odds + grow)
        one = m * chance(chain, t, S, 1) + (1 - m) * chance(chain, t, S, 0)
    else:
        keep = ab_t / ab_s
        back = keep * S + (1 - keep) * chain.pi  # the forward kernel, from x_t to a 1
        odds = back / (1 - back) if model.skip else 1.0
        one = odds / (odds + grow)
    return np.prod(np.where(S[None] == 1, one[:, None], 1 - one[:, None]), axis=2)


def enumerated(model, chain, kind):
    """E_q[log q(x_1..x_T | x_0) - log p(x_0..x_T)] in nats of every x_0, (2**D,), over all 2**(D T) trajectories."""
    S, T = states(model.D), chain.T
    Q = [forward(chain, t) for t in range(1, T + 1)]
    P = [reverse(model, chain, t) for t in range(1, T + 1)]
    if kind == "paper":
        P[0] = Q[0]
    prior = np.prod(np.where(S == 1, chain.pi, 1 - chain.pi), axis=1)
    path = np.indices((len(S),) * T).reshape(T, -1)  # x_1 .. x_T as numbers
    cost = []
    for x0 in range(len(S)):
        before = np.concatenate([np.full((1, path.shape[1]), x0), path])
        q = np.prod([Q[t][before[t], before[t + 1]] for t in range(T)], axis=0)
        log_p = np.log(prior[path[-1]]) + sum(np.log(P[t][before[t + 1], before[t]]) for t in range(T))
        used = q > 0
        cost.append(np.sum(q[used] * (np.log(q[used]) - log_p[used])))
    return np.array(cost)


def summed(model, chain, kind):
    """The same by the bound's formula: expected KLs of single steps, the prior's term, and the last step where it is
    fixed."""
    S = states(model.D)
    total = bernoulli.prior_kl(chain, S) + (bernoulli.fixed_last_step(chain, S) if kind == "paper" else 0)
    for t in range(2 if kind == "paper" else 1, chain.T + 1):
        total = total + step_cost(model, chain, t)
    return total


def step_cost(model, chain, t):
    """E_q KL_t in nats of every x_0, (2**D,), by the definition."""
    S = states(model.D)
    x0, x_t = np.repeat(S, len(S), 0), np.tile(S, (len(S), 1))
    steps = np.full(len(x0), t)
    logits = model.output(x_t, chain.time[steps]).astype(float)
    if model.skip:
        logits = logits + bernoulli.evidence(chain, model.predict, x_t, steps)
    one = bernoulli.q_marginal(chain, x0, steps)
    weight = np.prod(np.where(x_t == 1, one, 1 - one), axis=1)
    return (weight * bernoulli.kl(chain, model.predict, logits, x0, x_t, steps)[0].sum(1)).reshape(len(S), -1).sum(1)


PIS = {1: [0.3], 2: [0.5, 0.2], 3: [0.5, 0.2, 0.9]}
CASES = {
    "one step": (1, 1, "paper"), "two steps": (2, 2, "cosine"), "two bits": (2, 5, "paper"), "three bits": (3, 4,
    "sigmoid"), "signal left": (2, 4, "linear"), "signal left, three bits": (3, 3, "constant"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["learned", "paper"])
@pytest.mark.parametrize("predict, skip", [("x0", True), ("x0", False), ("x_prev", True), ("x_prev", False)])
@pytest.mark.parametrize("case", CASES)
def test_bound_is_the_enumeration_of_all_trajectories(case, predict, skip, kind):
    """Sum of expected KLs, prior and last step = E_q[log q - log p] over whole paths, for every x_0 of a random table
    of logits."""
    D, T, schedule = CASES[case]
    chain = make_chain(schedule, T, np.array(PIS[D]))
    model = Table(chain, predict, D, skip)
    np.testing.assert_allclose(summed(model, chain, kind), enumerated(model, chain, kind), rtol=1e-11)


@pytest.mark.parametrize("kind", ["learned", "paper"])
def test_bound_with_fewer_steps_is_the_enumeration(kind):
    """A chain of 3 of 7 steps, its net told the times of the whole chain."""
    model = Table(make_chain("cosine", 7, np.array(PIS[2])), "x0", 2)
    short = model.steps(3)
    np.testing.assert_allclose(summed(model, short, kind), enumerated(model, short, kind), rtol=1e-11)


# Estimates
# ----------------------------------------------------------------------------------------------------------------------

DATA = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [1, 0, 1], [0, 1, 1]], np.uint8)  # one row twice, and not every state


@lru_cache
def table_model(predict, last=0.15):
    return Table(Chain(np.array([1, 0.9, 0.7, 0.5, 0.3, last]), np.array(PIS[3])), predict, 3)


@pytest.mark.parametrize("kind, predict, steps", [("learned", "x0", None), ("learned", "x_prev", None), ("paper", "x0",
None),
                                                  ("learned", "x0", 3), ("paper", "x0", 2)])  # fmt: skip
def test_estimated_bound_is_the_enumerated_one(kind, predict, steps):
    """Within 4 of its standard errors, which are below 1 %; nats are bits times log 2; the gain is over bits of the
    stationary law."""
    model = table_model(predict)
    chain = model.steps(steps)
    found = evaluate.bound(model, Bits.from_array(DATA), kind=kind, steps=steps, evaluations=100_000, seed=1)
    exact = enumerated(model, chain, kind)[number(DATA)].mean()
    assert 0 < found.standard_error_bits < 0.01 * found.bits_per_sequence
    assert abs(found.nats_per_sequence - exact) < 4 * found.standard_error_bits * LN2
    np.testing.assert_allclose(found.bits_per_sequence * LN2, found.nats_per_sequence, rtol=1e-14)
    null = -np.log2(np.where(DATA == 1, PIS[3], 1 - np.array(PIS[3]))).sum(1).mean()
    np.testing.assert_allclose(found.k_minus_null_bits, null - found.bits_per_sequence, rtol=1e-12)
    assert (found.n_sequences, found.steps, found.bound, found.floor_bits) == (5, chain.T, kind, None)


@pytest.mark.parametrize("per_group, kind", [(3, "learned"), (5, "learned"), (37, "learned"), (15, "paper")])
def test_standard_error_is_the_spread_over_seeds(per_group, kind):
    """Over 250 seeds the estimates have no bias and the variance that they report, whether a group meets all rows or a
    part."""
    model, seeds = table_model("x0"), 250
    exact = enumerated(model, model.chain, kind)[number(DATA)].mean()
    found = [
        evaluate.bound(model, Bits.from_array(DATA), kind=kind, evaluations=per_group * 32, seed=seed)
        for seed in range(seeds)
    ]
    off = np.array([f.nats_per_sequence - exact for f in found])
    assert abs(off.mean()) < 4 * off.std() / seeds**0.5
    assert abs(off.var() / np.mean([(f.standard_error_bits * LN2) ** 2 for f in found]) - 1) < 4 * (2 / seeds) ** 0.5


def test_bound_does_not_depend_on_batches(monkeypatch):
    """Rows that meet the network 7 at a time give the same estimate as all at once."""
    model = table_model("x0")
    whole = evaluate.bound(model, Bits.from_array(DATA), evaluations=3200)
    monkeypatch.setattr(sample, "BATCH", 7)
    parts = evaluate.bound(model, Bits.from_array(DATA), evaluations=3200)
    np.testing.assert_allclose(parts.bits_per_sequence, whole.bits_per_sequence, rtol=1e-12)
    np.testing.assert_allclose(parts.standard_error_bits, whole.standard_error_bits, rtol=1e-9)


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
@pytest.mark.parametrize("last", [0.0, 0.15])
def test_score_is_the_bound_of_each_row(predict, last):
    """In bits and without bias: the mean over 40 seeds of every one of 8 rows is within 4 standard errors of its
    enumerated bound."""
    model = table_model(predict, last)
    found = np.array([evaluate.score(model, states(3), seed=seed, evaluations=1000) for seed in range(40)])
    error = found.std(0, ddof=1) / 40**0.5
    exact = enumerated(model, model.chain, "learned") / LN2
    assert np.all(error < 0.02 * exact)
    assert np.all(np.abs(found.mean(0) - exact) < 4 * error)


def test_score_of_a_row_does_not_depend_on_the_others():
    """Every row meets the same steps and the same noise, in whatever company."""
    model = table_model("x0")
    whole = evaluate.score(model, states(3), seed=3, evaluations=300)
    np.testing.assert_allclose(
        evaluate.score(model, states(3)[[6, 1]], seed=3, evaluations=300), whole[[6, 1]], rtol=1e-12
    )


def test_score_does_not_depend_on_batches(monkeypatch):
    """3 rows at a time, steps left over or not, give the same scores."""
    model = table_model("x0")
    whole = evaluate.score(model, states(3), evaluations=301)
    monkeypatch.setattr(sample, "BATCH", 3)
    np.testing.assert_allclose(evaluate.score(model, states(3), evaluations=301), whole, rtol=1e-12)
    monkeypatch.setattr(sample, "BATCH", 20)
    np.testing.assert_allclose(evaluate.score(model, states(3), evaluations=301), whole, rtol=1e-12)


def test_definition_of_the_bound_is_the_enumeration():
    """`bernoulli.bound`, from the enumerated KL of each step, is the bound of all trajectories, last step learned or
    fixed."""
    for last in ("learned", "paper"):
        model = table_model("x0", 0.15)
        S, T = states(3), model.chain.T
        kl = np.zeros((T, len(S)))
        for t in range(1, T + 1):
            for x_t in S:
                again, steps = np.tile(x_t, (len(S), 1)), np.full(len(S), t)
                one = bernoulli.q_marginal(model.chain, S, steps)
                weight = np.prod(np.where(again == 1, one, 1 - one), axis=1)
                logits = model.output(again, steps) + bernoulli.evidence(model.chain, "x0", again, steps)
                kl[t - 1] += weight * bernoulli.kl(model.chain, "x0", logits, S, again, steps)[0].sum(1)
        found = bernoulli.bound(model.chain, S, kl, last)
        np.testing.assert_allclose(found, enumerated(model, model.chain, last), rtol=1e-9)


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
def test_kl_of_each_step_is_its_enumeration(predict):
    """Mean over the rows in bits, each step within 4 standard errors over 30 seeds."""
    model = table_model(predict)
    found = np.array(
        [evaluate.kl_per_step(model, Bits.from_array(DATA), evaluations=20_000, seed=seed)[0] for seed in range(30)]
    )
    exact = np.array([step_cost(model, model.chain, t)[number(DATA)].mean() / LN2 for t in range(1, 6)])
    error = found.std(0, ddof=1) / 30**0.5
    assert found.shape == (30, 5) and np.all(error < 0.02 * exact + 1e-3)
    assert np.all(np.abs(found.mean(0) - exact) < 4 * error)


@pytest.mark.parametrize("tolerance", [0.05, 0.02])
def test_tolerance_is_kept(tolerance):
    """The standard error is at most that, in as few rounds as it takes; the bound is the enumerated one, within 4 of
    it."""
    model = table_model("x0")
    exact = enumerated(model, model.chain, "learned")[number(DATA)].mean() / LN2
    found = evaluate.bound(model, Bits.from_array(DATA), tolerance=tolerance, seed=1)
    assert found.standard_error_bits <= tolerance and abs(found.bits_per_sequence - exact) < 4 * tolerance
    again = evaluate.bound(model, Bits.from_array(DATA), tolerance=tolerance, seed=1)
    assert again == found != evaluate.bound(model, Bits.from_array(DATA), tolerance=tolerance, seed=2)


def test_rounds_are_groups_of_their_own(monkeypatch):
    """Two rounds are what their groups are one by one, weighted by size: the first is that of so many evaluations, the
    second has other random numbers."""
    model, rows = table_model("x0"), Bits.from_array(DATA)
    monkeypatch.setattr(evaluate, "FIRST", 3200)
    found = evaluate.bound(model, rows, tolerance=1e9, seed=4)
    first = evaluate.bound(model, rows, evaluations=3200, seed=4)
    kl = evaluate._kl(model, model.kernels(model.chain))
    estimator = evaluate._Estimator(model, model.chain, rows, "learned", 4, 32)
    second = [estimator._one(kl, rows, 200, 64 + g) / LN2 for g in range(32)]
    added = bernoulli.exact_terms(model.chain, DATA).mean() / LN2
    expected = (first.bits_per_sequence + 2 * (np.mean(second) + added)) / 3
    np.testing.assert_allclose(found.bits_per_sequence, expected, rtol=1e-12)
    error = np.hypot(first.standard_error_bits, 2 * np.std(second, ddof=1) / 32**0.5) / 3
    np.testing.assert_allclose(found.standard_error_bits, error, rtol=1e-12)
    assert found.evaluations == 3 * 3200 and first.evaluations == 3200


def test_tolerance_without_bias(monkeypatch):
    """Over 100 seeds the estimates that stop by their own error have no bias that shows, and about the variance that
    they report."""
    model, seeds = table_model("x0"), 100
    monkeypatch.setattr(evaluate, "FIRST", 32 * 5)
    exact = enumerated(model, model.chain, "learned")[number(DATA)].mean()
    found = [evaluate.bound(model, Bits.from_array(DATA), tolerance=0.08, seed=seed) for seed in range(seeds)]
    assert len({f.evaluations for f in found}) > 1
    off = np.array([f.nats_per_sequence - exact for f in found])
    assert abs(off.mean()) < 4 * off.std() / seeds**0.5
    assert abs(off.var() / np.mean([(f.standard_error_bits * LN2) ** 2 for f in found]) - 1) < 4 * (2 / seeds) ** 0.5


def test_tolerance_ends(monkeypatch):
    """After MOST evaluations at the latest; a share of the bound counts where it is more; progress adds up to what it
    says it will be."""
    model, rows, calls = table_model("x0"), Bits.from_array(DATA), []
    monkeypatch.setattr(evaluate, "FIRST", 3200)
    monkeypatch.setattr(evaluate, "MOST", 30_000)
    found = evaluate.bound(model, rows, tolerance=1e-9, progress=lambda done, total: calls.append((done, total)))
    assert found.evaluations == 7 * 3200 and found.standard_error_bits > 1e-9
    assert sum(done for done, _ in calls) == calls[-1][1] == 7 * 3200
    assert evaluate.bound(model, rows, tolerance=1e-9, relative=10.0).evaluations == 3 * 3200


def test_evaluations_and_tolerance_exclude_each_other():
    model, rows = table_model("x0"), Bits.from_array(DATA)
    with pytest.raises(InputError, match="a tolerance or a number of evaluations, not both"):
        evaluate.bound(model, rows, tolerance=0.1, evaluations=100)
    for tolerance in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="it must be above 0"):
            evaluate.bound(model, rows, tolerance=tolerance)


def test_bound_refuses_rows_of_another_length_and_unknown_kinds():
    """InputError says both lengths, or what the bound can be."""
    model = table_model("x0")
    with pytest.raises(InputError, match="4 bits.*rows of 3"):
        evaluate.bound(model, Bits.from_array(np.zeros((2, 4), np.uint8)))
    with pytest.raises(InputError, match="'learned' or 'paper', not 'fixed'"):
        evaluate.bound(model, Bits.from_array(DATA), kind="fixed")


# A random network, all 2^n states
# ---------------------------------------------------------------------------------------------------------


@lru_cache
def network(D, T, predict, size=0.3, schedule="paper"):
    """A small MLP in float64 with random weights everywhere, as `Table` offers what it needs."""
    section = {"T": T, "hidden": (12,), "predict": predict, "time_features": 4, "schedule": schedule}
    config = configuration.validate({"model": section})
    model = build(config, D, np.linspace(0.3, 0.6, D), dtype=np.float64)
    model.params.fill(model.net.init(3))
    model.params.flat += size * np.random.default_rng(1).standard_normal(model.params.flat.shape)
    model.predict, model.skip = predict, True
    return model


def propagated(model, chain):
    """The law of x_0 when x_T ~ B(pi) walks the reverse chain, (2**D,), exactly."""
    S = states(model.D)
    law = np.prod(np.where(S == 1, chain.pi, 1 - chain.pi), axis=1)
    for t in range(chain.T, 0, -1):
        law = law @ reverse(model, chain, t)
    return law


@pytest.mark.parametrize("predict, T, steps, schedule", [("x0", 6, None, "paper"), ("x_prev", 6, None, "paper"), ("x0",
9, 4, "cosine"),
                                                         ("x0", 6, None, "linear"), ("x0", 1, None,
                                                         "paper")])  # fmt: skip
def test_bound_is_above_the_true_likelihood(predict, T, steps, schedule):
    """-log p(x_0) by propagating all 128 states is below the bound of every row, and the bound is not idle: below its
    double."""
    model = network(7, T, predict, schedule=schedule)
    chain = model.steps(steps)
    law = propagated(model, chain)
    np.testing.assert_allclose(law.sum(), 1, rtol=1e-12)
    gap = summed(model, chain, "learned") + np.log(law)
    assert gap.min() > 0 and law @ gap < -(law @ np.log(law))


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
def test_bound_of_an_untrained_net_is_its_likelihood(predict):
    """With a last layer of zeros the chain's law is B(pi), and the bound leaves no gap, for any of 128 rows."""
    model = network(7, 3, predict, size=0.0)
    law = propagated(model, model.chain)
    S = states(7)
    np.testing.assert_allclose(law, np.prod(np.where(S == 1, model.chain.pi, 1 - model.chain.pi), axis=1), rtol=1e-11)
    np.testing.assert_allclose(summed(model, model.chain, "learned"), -np.log(law), rtol=1e-11)


@pytest.mark.parametrize("predict, steps", [("x0", None), ("x_prev", None), ("x0", 3)])
def test_samples_follow_the_propagated_law(predict, steps):
    """Pearson's statistic of 60,000 rows over 64 states is where the chain's own law puts it; that of smaller weights
    is not."""
    model, n = network(6, 7, predict), 60_000
    law = propagated(model, model.steps(steps))
    counts = np.bincount(number(sample.draw(model, n, seed=2, steps=steps)), minlength=64)

    def pearson(law):
        return ((counts - n * law) ** 2 / (n * law)).sum()

    assert abs(pearson(law) - 63) < 4 * 126**0.5
    assert np.abs(counts / n - law).sum() / 2 < 1.5 * np.sqrt(2 * law / (np.pi * n)).sum() / 2  # total variation
    # weights a tenth smaller
    assert pearson(propagated(network(6, 7, predict, 0.27), model.steps(steps))) > 63 + 8 * 126**0.5


# Rows of which something is known
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [None, 3])
def test_rejection_is_the_free_rows_that_agree(steps):
    """Bit for bit the first of `draw`'s own rows that agree, in their order, whatever the batches; rows of which
    different things are known each have those of their own pattern."""
    model = network(6, 7, "x0")
    free = sample.draw(model, 4000, seed=5, steps=steps)
    known = np.array([1, -1, -1, 0, -1, -1])
    expected = free[(free[:, 0] == 1) & (free[:, 3] == 0)][:200]
    for batch in (None, 7, 100):
        found = sample.draw(model, 200, seed=5, steps=steps, known=known, method="rejection", batch=batch)
        np.testing.assert_array_equal(found, expected)
    found = sample.draw(model, 200, seed=5, steps=steps, known=known, method="rejection")
    np.testing.assert_array_equal(found, expected)
    mixed = np.tile([[1, -1, -1, 0, -1, -1], [-1, 0, -1, -1, -1, -1], [-1] * 6], (20, 1))
    found = sample.draw(model, 60, seed=5, steps=steps, known=mixed, method="rejection")
    np.testing.assert_array_equal(found[::3], expected[:20])
    np.testing.assert_array_equal(found[1::3], free[free[:, 1] == 0][:20])
    np.testing.assert_array_equal(found[2::3], free[:20])


def test_rejection_follows_the_propagated_law_given_what_is_known():
    """Pearson's statistic over the 16 states that agree is where the model's own conditional law puts it; clamping is
    far from it."""
    model, n, known = network(6, 7, "x0", 0.5), 10_000, np.array([1, -1, -1, 0, -1, -1])
    agree = (states(6)[:, 0] == 1) & (states(6)[:, 3] == 0)
    law = np.where(agree, propagated(model, model.chain), 0)
    law /= law.sum()

    def pearson(rows):
        counts = np.bincount(number(rows), minlength=64)
        assert counts[~agree].sum() == 0
        return ((counts - n * law)[agree] ** 2 / (n * law)[agree]).sum()

    assert abs(pearson(sample.draw(model, n, seed=2, known=known, method="rejection")) - 15) < 4 * 30**0.5
    with pytest.warns(UserWarning, match="clamped"):
        assert pearson(sample.draw(model, n, seed=2, known=known)) > 15 + 8 * 30**0.5


def test_rejection_of_all_or_nothing_known():
    """With nothing known they are the free rows; of no rows there is none; with all known there are copies."""
    model = network(6, 7, "x0")
    free, none = sample.draw(model, 30, seed=1), np.full(6, -1)
    np.testing.assert_array_equal(sample.draw(model, 30, seed=1, known=none, method="rejection"), free)
    assert sample.draw(model, 0, known=none, method="rejection").shape == (0, 6)
    np.testing.assert_array_equal(
        sample.draw(model, 3, seed=1, known=free[0].astype(int), method="rejection"), np.tile(free[0], (3, 1))
    )


def test_rejection_ends_at_its_limit():
    """The sentence says how many of how many draws agreed, and what to do; to have the rows with the last draw is no
    fault."""
    model = network(6, 7, "x0")
    free = sample.draw(model, 100, seed=1)
    wanted = int((free[:, 0] == 1).sum())
    known = np.array([1, -1, -1, -1, -1, -1])
    assert len(sample.draw(model, wanted, seed=1, known=known, method="rejection", limit=100)) == wanted
    with pytest.raises(InputError) as caught:
        sample.draw(model, wanted + 2, seed=1, known=known, method="rejection", limit=100)
    assert str(caught.value) == (
        f"{wanted} of {wanted + 2} rows that agree with what is known were found in 100 draws; let less be known, draw "
        'more (limit), or take method "clamp", which is quick but only a heuristic'
    )


def test_methods_are_named():
    with pytest.raises(InputError, match="the method is 'clamp' or 'rejection', not 'exact'"):
        sample.draw(network(6, 7, "x0"), 1, known=np.full(6, -1), method="exact")


def test_clamping_warns_in_one_sentence():
    """With what to do instead; rejection and free rows say nothing. Where: test_python.py."""
    model, known = network(6, 7, "x0"), np.array([1, -1, -1, -1, -1, -1])
    with pytest.warns(UserWarning) as caught:
        sample.draw(model, 3, known=known)
    assert len(caught) == 1 and 'method "rejection" draws from that law' in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample.draw(model, 3, known=known, method="rejection")
        sample.draw(model, 3)


def test_walk_ends_in_the_drawn_rows():
    """`trajectory` and `draw` of one seed are the same walk: from the same noise to the same rows, seen at moments that
    fall to 0."""
    model = network(6, 7, "x0")
    times, seen = sample.trajectory(model, 50, seed=4, frames=4)
    assert times[0] == 7 and times[-1] == 0 and np.all(np.diff(times) < 0) and seen.shape == (len(times), 50, 6)
    np.testing.assert_array_equal(seen[-1], sample.draw(model, 50, seed=4))
    np.testing.assert_array_equal(sample.draw(model, 50, seed=4, batch=8), seen[-1])


def test_a_bound_that_is_no_number_is_refused(tmp_path):
    """Weights that are finite, and outputs that are not: one sentence, and no Infinity in JSON."""
    spoilt = tiny_model()
    spoilt.params.flat[:] = 1e30
    spoilt.save(tmp_path / "spoilt.safetensors")
    rows = tmp_path / "rows.txt"
    TRAIN.write(rows)
    for options in (), ("--json",):
        with np.errstate(all="ignore"):
            found = invoke("evaluate", tmp_path / "spoilt.safetensors", "--data", rows, *options)
        assert found.exit_code == 2 and found.stdout == ""
        assert found.stderr.splitlines()[-1].startswith("the bound is not a finite number: the network's outputs are")
