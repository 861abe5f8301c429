"""The oracle of a finite data set against brute force; the floor of the bound against enumeration and the
specification's figures."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np
import pytest

from bdiff_np.data.generators import Heartbeat
from bdiff_np.diffusion import bernoulli, bernoulli_floor
from bdiff_np.diffusion.bernoulli import make_chain
from bdiff_np.diffusion.bernoulli_family import FAMILY

LN2 = math.log(2)
PAIR = np.array([[0, 0], [1, 1]], np.uint8)  # two bits of a repeating pattern
STATES = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.uint8)
HEARTBEAT = Heartbeat(5).rows(20)


@pytest.mark.parametrize("pi", [0.5, 0.2, np.array([0.5, 0.2, 0.9, 0.4])], ids=["half", "scalar", "per bit"])
@pytest.mark.parametrize("schedule", ["paper", "linear"])
def test_oracle_is_bayes_over_the_population(pi, schedule):
    """P(x_0 = 1 | x_t) per bit: weights q(x_t | row), one row and one bit at a time; infinite exactly where all rows
    agree."""
    chain = make_chain(schedule, 6, pi)
    population = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [1, 1, 0, 1], [0, 0, 0, 1], [1, 0, 0, 1]], np.uint8)
    x_t = np.random.default_rng(0).integers(0, 2, (30, 4)).astype(np.uint8)
    t = 1 + np.arange(30) % 6
    found = bernoulli.oracle_logits(chain, population, x_t, t)
    for b in range(30):
        weights = []
        for row in population:
            weight = 1.0
            for d in range(4):
                ab, p = chain.alpha_bar[t[b]], np.broadcast_to(pi, 4)[d]
                one = ab * row[d] + (1 - ab) * p
                weight *= one if x_t[b, d] else 1 - one
            weights.append(weight)
        for d in (0, 1):
            ones = sum(w for w, row in zip(weights, population) if row[d])
            np.testing.assert_allclose(found[b, d], math.log(ones / (sum(weights) - ones)), rtol=1e-9, atol=1e-12)
    assert np.all(found[:, 2] == -np.inf) and np.all(found[:, 3] == np.inf)


def test_oracle_of_a_long_row_does_not_overflow():
    """The likelihoods of two rows of 1000 ones, but for the last bit, are e^2944 times that of zeros: that bit's logit
    is still log 19."""
    population = np.ones((2, 1000), np.uint8)
    population[1, -1] = 0
    found = bernoulli.oracle_logits(
        make_chain("paper", 10, 0.5), population, np.ones((1, 1000), np.uint8), np.array([1])
    )
    np.testing.assert_allclose(found[0, -1], math.log(0.95 / 0.05), rtol=1e-9)
    assert np.all(found[0, :-1] == np.inf)


# Two bits that are equal: four states, so that everything can be enumerated
# ---------------------------------------------------------------


def pair_cost(chain, t, shift=0.0):
    """E KL_t in nats for rows {00, 11}, over both rows and all four x_t; `shift` (4, 2) is added to the oracle's
    logits."""
    steps, total = np.full(4, t), 0.0
    logits = bernoulli.oracle_logits(chain, PAIR, STATES, steps) + shift
    for row in PAIR:
        x0 = np.tile(row, (4, 1))
        one = bernoulli.q_marginal(chain, x0, steps)
        weight = np.prod(np.where(STATES == 1, one, 1 - one), axis=1)
        total += 0.5 * weight @ bernoulli.kl(chain, "x0", logits, x0, STATES, steps)[0].sum(1)
    return total


@lru_cache
def pair_floor(T, pi=0.5):
    chain = make_chain("paper", T, pi)
    return sum(pair_cost(chain, t) for t in range(1, T + 1))


@pytest.mark.parametrize("T, bits, digits", [(100, 10.297, 3), (500, 10.071, 3), (1000, 10.038, 3), (2000, 10.0203, 4)])
def test_pairs_cost_what_the_specification_says(T, bits, digits):
    """Repeating patterns of 20 bits are ten such pairs: their exact floor, to the digits of the table."""
    assert round(10 * pair_floor(T) / LN2, digits) == bits


@pytest.mark.parametrize("T, pi", [(1, 0.5), (10, 0.5), (100, 0.5), (10, 0.2), (100, 0.8)])
def test_floor_of_pairs_is_their_enumeration(T, pi):
    """Within 4 standard errors, each below 0.01 nats."""
    nats, error = bernoulli_floor.floor(make_chain("paper", T, pi), PAIR, seed=2)
    assert 0 < error < 1e-2
    assert abs(nats - pair_floor(T, pi)) < 4 * error


@pytest.mark.parametrize("T, pi", [(1, 0.5), (10, 0.5), (10, 0.2)])
def test_excess_and_floor_make_the_bound(T, pi):
    """For logits that are off by up to 0.7, the excess is the enumerated bound less the floor, within 4 standard
    errors; of the oracle it is 0."""
    chain, shift = make_chain("paper", T, pi), np.random.default_rng(2).normal(0, 0.4, (4, 2))

    def shifted(x_t, t):
        return bernoulli.oracle_logits(chain, PAIR, x_t, t) + shift[2 * x_t[:, 0] + x_t[:, 1]]

    bound = sum(pair_cost(chain, t, shift) for t in range(1, T + 1))
    nats, error = bernoulli_floor.excess(chain, PAIR, shifted, seed=1)
    assert 0 < error < 0.05 * nats
    assert abs(nats - (bound - pair_floor(T, pi))) < 4 * error
    assert bernoulli_floor.excess(
        chain, PAIR, lambda x_t, t: bernoulli.oracle_logits(chain, PAIR, x_t, t), evaluations=4096
    ) == (0.0, 0.0)


def test_floors_standard_error_is_the_spread_over_seeds(monkeypatch):
    """Over 100 seeds the errors in units of their standard error have mean 0 and a variance near 1 (16 groups:
    Student's t, 15/13)."""
    monkeypatch.setattr(bernoulli_floor, "BATCH", 128)
    found = np.array([bernoulli_floor.floor(make_chain("paper", 10, 0.5), PAIR, seed, 16 * 128) for seed in range(100)])
    z = (found[:, 0] - pair_floor(10)) / found[:, 1]
    assert abs(z.mean()) < 0.4
    assert abs(z.var() - 15 / 13) < 4 * (2 / 100) ** 0.5 * 15 / 13


@pytest.mark.parametrize("t", [1, 2, 5, 10])
def test_no_other_logits_cost_less_than_the_oracles(t):
    """At every step any other answer costs more, and more the farther it is; twice as far about four times: a minimum,
    not a slope."""
    chain, generator = make_chain("paper", 10, 0.3), np.random.default_rng(t)
    least = pair_cost(chain, t)
    for _ in range(10):
        shift = generator.standard_normal((4, 2))
        near, far = (pair_cost(chain, t, size * shift) - least for size in (0.01, 0.02))
        assert 0 < near < far < pair_cost(chain, t, shift) - least
        assert 3.8 < far / near < 4.2


def test_floor_needs_a_chain_that_ends_without_signal():
    """With signal left at T the continuous cost is not the entropy: ValueError, and `evaluate` says None."""
    chain = make_chain("linear", 1000, 0.5)
    with pytest.raises(ValueError, match="alpha_bar_T = 0"):
        bernoulli_floor.floor(chain, PAIR)
    assert FAMILY.floor(chain, PAIR, "learned") is None


# Heartbeats: columns of one phase are alike, so that counts of ones per phase are all that matters
# ----------------------------------------


@lru_cache
def heartbeat_costs(T, pi):
    """E KL_t of the oracle, (T + 1,) nats, for 20 bits of period 5, exactly: over ones in the true phase (0..4) and in
    the four others."""
    chain, period, beats = make_chain("paper", T, pi), 5, 4
    ways = np.array([math.comb(beats, k) for k in range(beats + 1)], float)
    others = list(combinations_with_replacement(range(beats + 1), period - 1))
    orders = [math.factorial(4) / math.prod(math.factorial(o.count(k)) for k in range(beats + 1)) for o in others]
    cost = np.zeros(T + 1)
    t = np.arange(1, T + 1)
    r1 = bernoulli.q_marginal(chain, np.ones((T, 1), np.uint8), t)[:, 0]
    r0 = bernoulli.q_marginal(chain, np.zeros((T, 1), np.uint8), t)[:, 0]
    shown = {v: np.full((T, 1), v, np.uint8) for v in (0, 1)}
    law = {v: bernoulli.q_flip(chain, shown[v], t) for v in (0, 1)}
    gain = np.log(r1 / r0) - np.log((1 - r1) / (1 - r0))  # of a phase's log weight for each of its bits that shows a 1
    for mine in range(beats + 1):
        for theirs, order in zip(others, orders):
            counts = np.array([mine, *theirs])
            weight = order * ways[counts].prod() * r1**mine * (1 - r1) ** (beats - mine)
            weight = weight * r0 ** sum(theirs) * (1 - r0) ** (16 - sum(theirs))
            odds = np.exp(gain[:, None] * (counts - counts.max()))
            m = odds / odds.sum(1, keepdims=True)  # P(phase = c | x_t)
            for c, count in enumerate(counts):
                for v, bits in ((1, count), (0, beats - count)):
                    agree, disagree, not_agree, not_disagree, _ = (part[:, 0] for part in law[v])
                    here, elsewhere = m[:, c], np.delete(m, c, 1).sum(1)
                    right, wrong = (here, elsewhere) if v else (elsewhere, here)
                    q, not_q = (agree, not_agree) if v == (c == 0) else (disagree, not_disagree)
                    for part, total in (
                        (q, right * agree + wrong * disagree),
                        (not_q, right * not_agree + wrong * not_disagree),
                    ):
                        cost[1:] += (
                            bits * weight * np.where(part > 0, part * np.log(np.where(part > 0, part, 1) / total), 0)
                        )
    return cost


@pytest.mark.parametrize(
    "T, bits", [(10, 2.869), (20, 2.581), (50, 2.423), (100, 2.372), (1000, 2.327), (2000, 2.3244)]
)
def test_heartbeats_cost_what_the_specification_says(T, bits):
    """The enumerated floor of 20 bits, period 5, pi = 1/2 agrees with the table of 1.9, whose own error is 0.003
    bits."""
    assert abs(heartbeat_costs(T, 0.5).sum() / LN2 - bits) < 0.003


@pytest.mark.parametrize("T, pi", [(10, 0.5), (100, 0.5), (2000, 0.5), (10, 0.2), (2000, 0.2)])
def test_floor_of_heartbeats_is_their_enumeration(T, pi):
    """Within 4 standard errors, each below 0.01 bits."""
    nats, error = bernoulli_floor.floor(make_chain("paper", T, pi), HEARTBEAT, seed=2)
    assert 0 < error < 0.01 * LN2
    assert abs(nats - heartbeat_costs(T, pi).sum()) < 4 * error


def test_oracles_steps_are_their_enumeration():
    """Mean KL of each step within 5 standard errors over 20 seeds, where it is not made of rare events, and the sum of
    all within 4."""
    chain = make_chain("paper", 20, 0.5)

    def oracle(x_t, t):
        return bernoulli.oracle_logits(chain, HEARTBEAT, x_t, t)

    both = np.array([bernoulli_floor.kl_per_step(chain, HEARTBEAT, oracle, seed, each=400) for seed in range(20)])
    np.testing.assert_array_equal(both[:, 0], both[:, 1])  # of a model that is the oracle
    found = both[:, 1]
    exact, error = heartbeat_costs(20, 0.5)[1:], found.std(0, ddof=1) / 20**0.5
    often = exact > 0.05
    assert found.shape == (20, 20) and often.sum() >= 12 and np.all(error[often] < 0.05 * exact[often])
    assert np.all(np.abs(found.mean(0) - exact)[often] < 5 * error[often]) and np.all(found.mean(0)[~often] < 0.06)
    assert abs(found.sum(1).mean() - exact.sum()) < 4 * found.sum(1).std(ddof=1) / 20**0.5


@pytest.mark.parametrize("size", [50.0, 800.0, 1e5, 1e30, 1e300])
def test_kl_from_the_oracle_of_a_very_sure_network(size):
    """Finite and exact for logits whose probability float64 cannot hold: where the network is sure of the other value
    at t = 1, it is the logit itself, and where x_t is trusted wrongly, the KL of the law's own two sides."""
    chain = make_chain("paper", 10, 0.5)
    x_t, t = np.array([[1, 0], [1, 0]], np.uint8), np.array([1, 5])
    law = bernoulli.q_flip(chain, x_t, t)
    sure = np.ones((2, 2)), np.zeros((2, 2))  # the oracle: x_0 is what x_t shows
    wrong = np.where(x_t != 0, -size, size)
    found = bernoulli_floor._kl_from_oracle(law, sure, x_t, wrong)
    np.testing.assert_allclose(found[0], 2 * size, rtol=1e-14)
    agree, disagree = law.agree[1], law.disagree[1]
    expected = agree * np.log(agree / disagree) + (1 - agree) * np.log((1 - agree) / law.not_disagree[1])
    np.testing.assert_allclose(found[1], expected.sum(), rtol=1e-12)
    np.testing.assert_allclose(bernoulli_floor._kl_from_oracle(law, sure, x_t, -wrong), 0, atol=1e-15)


def test_kl_from_the_oracle_overflows_only_where_it_is_too_large():
    """An infinite logit of the wrong value costs infinitely much at t = 1, and nothing where it is right."""
    chain, x_t, t = make_chain("paper", 10, 0.5), np.array([[1], [1]], np.uint8), np.array([1, 1])
    law, sure = bernoulli.q_flip(chain, x_t, t), (np.ones((2, 1)), np.zeros((2, 1)))
    found = bernoulli_floor._kl_from_oracle(law, sure, x_t, np.array([[-np.inf], [np.inf]]))
    np.testing.assert_array_equal(found, [np.inf, 0])


# The floor as `evaluate` reports it
# -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T, pi, bits", [(2000, 0.5, 2.392), (2000, 0.2, 2.3683), (100, 0.5, None), (10, 0.5, None)])
def test_floor_of_the_papers_protocol_is_its_enumeration(T, pi, bits):
    """All steps but the first, and the forward kernel for it: within 4 of the error that is reported, and the
    specification's figure."""
    chain = make_chain("paper", T, pi)
    nats, error = FAMILY.floor(chain, HEARTBEAT, "paper")
    exact = heartbeat_costs(T, pi)[2:].sum() + bernoulli.fixed_last_step(chain, HEARTBEAT).mean()
    assert bits is None or abs(exact / LN2 - bits) < 0.0006
    assert abs(nats - exact) < 4 * error


@pytest.mark.parametrize("kind", ["learned", "paper"])
def test_floor_of_many_rows_is_below_every_bound(kind):
    """Where rows are too many for the oracle the floor is their entropy: 4096 rows of 12 bits at T = 1 cost 12 bits by
    either bound."""
    population = ((np.arange(4096)[:, None] >> np.arange(12)) & 1).astype(np.uint8)
    nats, error = FAMILY.floor(make_chain("paper", 1, 0.5), population, kind)
    np.testing.assert_allclose(nats / LN2, 12, rtol=1e-12)
    assert error == 0
