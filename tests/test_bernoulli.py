"""The mathematics of diffusion/bernoulli.py against Bayes' rule, enumeration, exact fractions and the figures of the
specification."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from bdiff_np.diffusion import bernoulli
from bdiff_np.diffusion.bernoulli import SCHEDULES, WORD, Chain, make_chain

ENDED = ("paper", "cosine", "sigmoid")  # schedules with alpha_bar_T = 0
PIS = {"half": 0.5, "scalar": 0.2, "per bit": np.array([0.5, 0.2, 0.93])}
LN2 = math.log(2)


def forward(chain, t, pi):
    """q(x_t = column | x_{t-1} = row) of one bit, (2, 2), from the words of the definition: kept, or redrawn from
    B(pi)."""
    beta = 1 - chain.alpha_bar[t] / chain.alpha_bar[t - 1]
    return (1 - beta) * np.eye(2) + beta * np.array([[1 - pi, pi], [1 - pi, pi]])


def composed(chain, s, t, pi):
    """q(x_t | x_s) of one bit, (2, 2), step by step."""
    matrix = np.eye(2)
    for step in range(s + 1, t + 1):
        matrix = matrix @ forward(chain, step, pi)
    return matrix


def bit_pis(pi, D=3):
    return np.broadcast_to(pi, D)


def every_pair(D):
    """x0, x_t, (4, D): each bit passes through all four pairs."""
    return np.repeat([[0], [0], [1], [1]], D, 1).astype(np.uint8), np.repeat([[0], [1], [0], [1]], D, 1).astype(
        np.uint8
    )


def entropy_bits(p):
    return sum(-q * math.log2(q) for q in (p, 1 - p) if q > 0)


# Schedules
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("T", [1, 2, 7, 50, 2000])
def test_schedule_falls_from_one(name, T):
    """alpha_bar has T + 1 entries, is exactly 1 before the first step, falls strictly, and ends at exactly 0 where the
    schedule says so."""
    alpha_bar = make_chain(name, T, 0.5).alpha_bar
    assert alpha_bar.shape == (T + 1,) and alpha_bar.dtype == np.float64
    assert alpha_bar[0] == 1 and np.all(np.diff(alpha_bar) < 0)
    assert (alpha_bar[-1] == 0) if name in ENDED else (0 < alpha_bar[-1] < 0.91)


@pytest.mark.parametrize("T", [1, 4, 2000])
def test_paper_schedule_is_linear(T):
    """beta_t = 1/(T - t + 1) multiplies up to alpha_bar_t = 1 - t/T."""
    t = np.arange(T + 1)
    alpha_bar = make_chain("paper", T, 0.5).alpha_bar
    np.testing.assert_array_equal(alpha_bar, 1 - t / T)
    np.testing.assert_allclose(1 - alpha_bar[1:] / alpha_bar[:-1], 1 / (T - t[1:] + 1), rtol=1e-11)


def test_linear_schedule_is_ddpm_at_1000():
    """At T = 1000 the betas are those of Ho et al.: 1e-4 to 0.02 in even steps, which leave alpha_bar_T = 4.0358e-5."""
    alpha_bar = make_chain("linear", 1000, 0.5).alpha_bar
    expected = math.exp(math.fsum(math.log1p(-(1e-4 + i * (0.02 - 1e-4) / 999)) for i in range(1000)))
    np.testing.assert_allclose(alpha_bar[-1], expected, rtol=1e-11)
    np.testing.assert_allclose(alpha_bar[-1], 4.0358e-5, rtol=1e-4)
    np.testing.assert_allclose(1 - alpha_bar[1], 1e-4, rtol=1e-11)


def test_quadratic_schedule_is_even_in_the_root():
    """Square roots of beta_t go from 0.01 to 0.02**0.5 in even steps at T = 1000, and betas double when T is halved."""
    for T in (1000, 500):
        alpha_bar = make_chain("quadratic", T, 0.5).alpha_bar
        root = np.sqrt((1 - alpha_bar[1:] / alpha_bar[:-1]) * T / 1000)
        np.testing.assert_allclose(root, 0.01 + np.arange(T) / (T - 1) * (0.02**0.5 - 0.01), rtol=1e-9)


@pytest.mark.parametrize("T", [20, 2000])
def test_constant_schedule_is_a_power(T):
    """beta_t = 10/T at every step: alpha_bar_t = (1 - 10/T)**t."""
    np.testing.assert_allclose(make_chain("constant", T, 0.5).alpha_bar, (1 - 10 / T) ** np.arange(T + 1), rtol=1e-11)


@pytest.mark.parametrize("T", [5, 1000])
def test_cosine_schedule_is_the_squared_cosine(T):
    """alpha_bar_t = f(t)/f(0), f(t) = cos^2((t/T + 0.008)/1.008 pi/2), whose last value is 0 without any shift."""
    f = [math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T + 1)]
    np.testing.assert_allclose(make_chain("cosine", T, 0.5).alpha_bar, np.array(f) / f[0], rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("T", [5, 1000])
def test_sigmoid_schedule_is_a_stretched_tanh(T):
    """alpha_bar_t = (tanh(3 (1 - 2t/T)) + tanh 3) / (2 tanh 3)."""
    expected = [(math.tanh(3 * (1 - 2 * t / T)) + math.tanh(3)) / (2 * math.tanh(3)) for t in range(T + 1)]
    np.testing.assert_allclose(make_chain("sigmoid", T, 0.5).alpha_bar, expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("alpha_bar", [[0.9, 0.5, 0], [1, 0.5, 0.5], [1, 0.5, 0.6], [1, 0.5, -0.1], [1, np.nan]])
def test_chain_refuses_what_does_not_fall(alpha_bar):
    """alpha_bar begins at 1, falls strictly, and is never negative nor nan."""
    with pytest.raises(ValueError, match="must fall"):
        Chain(np.array(alpha_bar), 0.5)


@pytest.mark.parametrize("pi", [0.0, 1.0, 2.0**-33, 1 - 2.0**-33, np.array([0.5, 0.0]), np.nan])
def test_chain_refuses_a_pi_that_words_cannot_draw(pi):
    """pi, every bit's, is at least one word of 2**32 away from 0 and from 1."""
    with pytest.raises(ValueError, match="pi must lie"):
        make_chain("paper", 4, pi)


def test_data_pi_keeps_half_an_observation_of_doubt():
    """Only means nearer to 0 or 1 than half a row of N are moved."""
    np.testing.assert_array_equal(
        bernoulli.data_pi(np.array([0, 0.05, 0.3, 0.95, 1]), 10), [0.05, 0.05, 0.3, 0.95, 0.95]
    )


# Forward process
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("pi", PIS.values(), ids=PIS)
def test_marginal_is_the_composition_of_steps(name, pi):
    """q(x_t | x_0) in closed form equals the product of the t one-step kernels, for every t in 0..T."""
    chain = make_chain(name, 7, pi)
    for t in range(8):
        for x0 in (0, 1):
            expected = [composed(chain, 0, t, p)[x0, 1] for p in bit_pis(pi)]
            np.testing.assert_allclose(
                bernoulli.q_marginal(chain, np.full((1, 3), x0), np.array([t]))[0], expected, rtol=1e-12, atol=1e-15
            )


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("T", [1, 2, 5])
@pytest.mark.parametrize("pi", PIS.values(), ids=PIS)
def test_posterior_is_bayes(name, T, pi):
    """P(x_{t-1} = 1 | x_t, x_0) equals Bayes' rule over both values of x_{t-1}, for every t and every pair of bits."""
    chain = make_chain(name, T, pi)
    x0, x_t = every_pair(3)
    for t in range(1, T + 1):
        found = bernoulli.q_posterior(chain, x0, x_t, np.full(4, t))
        for d, p in enumerate(bit_pis(pi)):
            before, step = composed(chain, 0, t - 1, p), forward(chain, t, p)
            joint = before[x0[:, d], :] * step[:, x_t[:, d]].T  # (4, 2), over x_{t-1}
            np.testing.assert_allclose(found[:, d], joint[:, 1] / joint.sum(1), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("pi, table", [
    (0.5, [[0.027778, 0.583333, 0.416667, 0.972222], [0.1, 0.5, 0.5, 0.9], [0.375, 0.625, 0.375, 0.625]]),
    (0.2, [[0.014815, 0.533333, 0.366667, 0.977778], [0.047059, 0.4, 0.4, 0.9], [0.15, 0.4, 0.15, 0.4]]),
])  # fmt: skip
def test_posterior_is_the_table_of_the_specification(pi, table):
    """T = 4, t = 2, 3, 4; columns (x_t, x_0) = (0, 0), (0, 1), (1, 0), (1, 1)."""
    chain = make_chain("paper", 4, pi)
    x_t, x0 = every_pair(1)
    for t, expected in zip((2, 3, 4), table):
        np.testing.assert_allclose(bernoulli.q_posterior(chain, x0, x_t, np.full(4, t))[:, 0], expected, atol=5.1e-7)


@pytest.mark.parametrize("alpha_bar, pi, t", [
    *((1 - np.arange(2001) / 2000, pi, t) for pi in (0.5, 0.2) for t in (1, 2, 3, 1000, 1999, 2000)),
    # hardly any signal, a value hardly ever seen
    *((np.array([1, 1e-9, 4e-10, 0]), pi, t) for pi in (0.5, 1e-9) for t in (2, 3)),
], ids=str)  # fmt: skip
def test_flip_probabilities_keep_every_digit(alpha_bar, pi, t):
    """All five numbers of the flip law agree with exact fractions to 1e-12 relative, though some are 1e-9 and some next
    to 1."""
    chain = Chain(alpha_bar, pi)
    ab_s, ab_t = Fraction(alpha_bar[t - 1]), Fraction(alpha_bar[t])
    for v in (0, 1):
        pi_1 = Fraction(pi)
        pi_v = pi_1 if v else 1 - pi_1
        law = bernoulli.q_flip(chain, np.array([[v]], np.uint8), np.array([t]))
        keep = ab_t / ab_s
        exact = {}
        for name, u in (("agree", 1), ("disagree", 0)):  # u: whether x_0 shows v
            stay = (ab_s * u + (1 - ab_s) * pi_v) * (keep + (1 - keep) * pi_v)
            flip = (ab_s * (1 - u) + (1 - ab_s) * (1 - pi_v)) * (1 - keep) * pi_v
            exact[name], exact[f"not_{name}"] = flip / (flip + stay), stay / (flip + stay)
        exact["gap"] = exact["disagree"] - exact["agree"]
        for name, value in exact.items():
            np.testing.assert_allclose(getattr(law, name)[0, 0], float(value), rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("pi", PIS.values(), ids=PIS)
@pytest.mark.parametrize("K", [1, 3, 4, 9])
def test_fewer_steps_are_the_composed_kernels(name, pi, K):
    """A jump t -> s of the shorter chain has the posterior that Bayes' rule gives with all the steps between
    composed."""
    chain = make_chain(name, 9, pi)
    short = chain.every(K)
    assert short.T == K and short.time[0] == 0 and short.time[-1] == 9 and np.all(np.diff(short.time) > 0)
    np.testing.assert_array_equal(short.pi, chain.pi)
    x0, x_t = every_pair(3)
    for k in range(1, K + 1):
        s, t = short.time[k - 1], short.time[k]
        found = bernoulli.q_posterior(short, x0, x_t, np.full(4, k))
        for d, p in enumerate(bit_pis(pi)):
            joint = composed(chain, 0, s, p)[x0[:, d], :] * composed(chain, s, t, p)[:, x_t[:, d]].T
            np.testing.assert_allclose(found[:, d], joint[:, 1] / joint.sum(1), rtol=1e-12, atol=1e-15)


def test_fewer_steps_are_evenly_spread():
    """The steps kept are the multiples of T/K, rounded."""
    np.testing.assert_array_equal(make_chain("paper", 2000, 0.5).every(4).time, [0, 500, 1000, 1500, 2000])
    np.testing.assert_array_equal(make_chain("paper", 10, 0.5).every(3).time, [0, 3, 7, 10])


@pytest.mark.parametrize("K", [0, 6, -1])
def test_no_more_steps_than_there_are(K):
    """1 to T of the steps can be kept."""
    with pytest.raises(ValueError, match="a chain of 5 steps"):
        make_chain("paper", 5, 0.5).every(K)


@pytest.mark.parametrize(
    "pi", [0.5, 0.2, np.array([0.5, 0.2, 1e-6, 2.0**-32, 1 - 2.0**-32])], ids=["half", "scalar", "per bit"]
)
@pytest.mark.parametrize("name", SCHEDULES)
def test_sampling_thresholds_are_exact_to_31_bits(name, pi):
    """The words drawn as 1 are those below a threshold less than 2**-31 from P(x_t = 1 | x_0), in exact fractions."""
    T = 97
    chain = make_chain(name, T, pi)
    for t in (0, 1, 2, 13, 50, 96, 97):
        for x0 in (0, 1):
            for d, p in enumerate(bit_pis(pi, 5)):
                alpha_bar = Fraction(chain.alpha_bar[t])
                threshold = (alpha_bar * x0 + (1 - alpha_bar) * Fraction(float(p))) * WORD
                one, zero = math.floor(threshold - 2), math.ceil(threshold + 2) - 1
                row = np.full((1, 5), x0, np.uint8)
                for word, expected in ((one, 1), (zero, 0)):
                    if 0 <= word < WORD:
                        drawn = bernoulli.q_sample(chain, row, np.array([t]), np.full((1, 5), word, np.uint32))
                        assert drawn[0, d] == expected, (t, x0, d)


def test_clean_data_has_no_noise():
    """At t = 0 every word, the largest included, gives back x_0; at alpha_bar = 0 a word gives the same bit for both
    values of x_0."""
    chain = make_chain("paper", 5, 0.3)
    words = np.array([[0, 1, 2**31, 2**32 - 1]], np.uint32)
    ones, zeros = np.ones((1, 4), np.uint8), np.zeros((1, 4), np.uint8)
    for t, expected in ((0, (ones, zeros)), (5, ([[1, 1, 0, 0]], [[1, 1, 0, 0]]))):
        for x0, bits in zip((ones, zeros), expected):
            np.testing.assert_array_equal(bernoulli.q_sample(chain, x0, np.array([t]), words), bits)


@pytest.mark.parametrize("name", SCHEDULES)
def test_sampled_bits_follow_the_marginal(name):
    """Pearson's statistic of 4 steps x 2 values x 3 bits, 100,000 draws each, lies where a right law puts it; 1 % of
    other noise fails."""
    n, chain = 100_000, make_chain(name, 6, PIS["per bit"])
    words = np.random.default_rng(1).integers(0, WORD, (8, n, 3), dtype=np.uint32)
    found = np.empty((8, 3))
    cases = [(t, x0) for t in (1, 2, 4, 6) for x0 in (0, 1)]
    for k, (t, x0) in enumerate(cases):
        found[k] = bernoulli.q_sample(chain, np.full((n, 3), x0, np.uint8), np.full(n, t), words[k]).mean(0)

    def pearson(noise):
        law = np.array(
            [[(1 - noise) * composed(chain, 0, t, p)[x0, 1] + noise / 2 for p in PIS["per bit"]] for t, x0 in cases]
        )
        return float((n * (found - law) ** 2 / (law * (1 - law))).sum())

    assert abs(pearson(0) - 24) < 4 * 48**0.5
    assert pearson(1e-2) > 24 + 10 * 48**0.5


# KL and gradient
# ----------------------------------------------------------------------------------------------------------------------


def plain_kl(chain, predict, logits, x0, x_t, t):
    """The KL from probabilities, as the paper writes it, by Bayes' rule on (B, D) bits; t >= 2."""
    q = bernoulli.q_posterior(chain, x0, x_t, t)
    m = 1 / (1 + np.exp(-logits))
    p = m
    if predict == "x0":
        ones, zeros = np.ones_like(x0), np.zeros_like(x0)
        p = m * bernoulli.q_posterior(chain, ones, x_t, t) + (1 - m) * bernoulli.q_posterior(chain, zeros, x_t, t)
    return q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))


def batch(chain, seed=0, B=60):
    generator = np.random.default_rng(seed)
    x0, x_t = generator.integers(0, 2, (2, B, 3)).astype(np.uint8)
    return 2 * generator.standard_normal((B, 3)), x0, x_t, 1 + np.arange(B) % chain.T


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("pi", PIS.values(), ids=PIS)
def test_kl_is_the_plain_formula(predict, name, pi):
    """q log(q/p) + (1-q) log((1-q)/(1-p)) where no probability is extreme."""
    chain = make_chain(name, 8, pi)
    logits, x0, x_t, t = batch(chain)
    t = np.maximum(t, 2)
    value, _ = bernoulli.kl(chain, predict, logits, x0, x_t, t)
    np.testing.assert_allclose(value, plain_kl(chain, predict, logits, x0, x_t, t), rtol=1e-10, atol=1e-14)
    assert np.all(value > -1e-15)


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("pi", PIS.values(), ids=PIS)
def test_kl_gradient_is_the_derivative(predict, name, pi):
    """Central differences in random directions, t = 1 included, agree to 1e-8, so that a gradient 0.1 % off would not
    pass."""
    chain = make_chain(name, 8, pi)
    logits, x0, x_t, t = batch(chain)
    _, gradient = bernoulli.kl(chain, predict, logits, x0, x_t, t)
    h, generator = 1e-5, np.random.default_rng(5)
    for _ in range(5):
        direction = generator.standard_normal(logits.shape)
        above, below = (bernoulli.kl(chain, predict, logits + s * h * direction, x0, x_t, t)[0].sum() for s in (1, -1))
        numeric = (above - below) / (2 * h)
        size = np.abs(gradient * direction).sum()
        assert abs((gradient * direction).sum() - numeric) < 1e-8 * size
        assert abs((1.001 * gradient * direction).sum() - numeric) > 1e-4 * abs(numeric) - 1e-8 * size


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
def test_kl_gradient_is_right_entry_by_entry(predict):
    """Every entry's own central difference, at every t of a chain of 8 steps, is within 1e-7 of the gradient's
    entry."""
    chain = make_chain("paper", 8, PIS["per bit"])
    logits, x0, x_t, t = batch(chain)
    _, gradient = bernoulli.kl(chain, predict, logits, x0, x_t, t)
    h = 1e-5
    # entries are independent
    above, below = (bernoulli.kl(chain, predict, logits + s * h, x0, x_t, t)[0] for s in (1, -1))
    np.testing.assert_allclose(gradient, (above - below) / (2 * h), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
def test_first_step_is_the_cross_entropy(predict):
    """At t = 1 x_{t-1} is x_0: both parametrisations give log(1 + exp(-(2 x_0 - 1) logit)), with gradient
    sigmoid(logit) - x_0."""
    chain = make_chain("paper", 8, 0.2)
    logits, x0, x_t, _ = batch(chain)
    value, gradient = bernoulli.kl(chain, predict, logits, x0, x_t, np.ones(60, int))
    np.testing.assert_allclose(value, np.log(1 + np.exp(-(2.0 * x0 - 1) * logits)), rtol=1e-12)
    np.testing.assert_allclose(gradient, 1 / (1 + np.exp(-logits)) - x0, rtol=1e-12, atol=1e-15)


def logit(p):
    return math.log(p / (1 - p))


@pytest.mark.parametrize("alpha_bar, x0, p, bits", [([1, 0.2, 0], 0, 0.8, 0.550978), ([1, 0.6, 0], 1, 0.4, 0.483007)])
def test_kl_vectors_of_the_specification(alpha_bar, x0, p, bits):
    """KL(B(.4)||B(.8)) and KL(B(.8)||B(.4)): with alpha_bar_2 = 0, q(x_1 | x_2, x_0) is q(x_1 | x_0)."""
    chain = Chain(np.array(alpha_bar), 0.5)
    for x_t in (0, 1):
        value, _ = bernoulli.kl(
            chain, "x_prev", np.array([[logit(p)]]), np.array([[x0]]), np.array([[x_t]]), np.array([2])
        )
        np.testing.assert_allclose(value / LN2, [[bits]], atol=5.1e-7)


def test_kl_of_rare_flips_keeps_its_digits():
    """t = 2, T = 2000, the net's flip odds 10 % off: 4.233e-10 bits, by the specification and by the series in exact
    fractions."""
    q = (
        Fraction(1, 2)
        * Fraction(1, 2000)
        * Fraction(1, 1999)
        * Fraction(1, 2)
        / (1 - Fraction(1, 2) * Fraction(2, 2000))
    )
    odds = Fraction(11, 10) * q / (1 - q)
    p = odds / (1 + odds)
    series = sum(
        Fraction((-1) ** k, k) * (p - q) ** k * (q ** (1 - k) + (-1) ** k * (1 - q) ** (1 - k)) for k in range(2, 14)
    )
    assert 4.2325e-10 < float(series) / LN2 < 4.2335e-10
    chain = make_chain("paper", 2000, 0.5)
    for x_t in (0, 1):
        logits = np.array([[(1 - 2 * x_t) * math.log(odds)]])
        value, _ = bernoulli.kl(chain, "x_prev", logits, np.array([[x_t]]), np.array([[x_t]]), np.array([2]))
        np.testing.assert_allclose(value, float(series), rtol=1e-6)


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
@pytest.mark.parametrize("size", [30.0, 80.0])
def test_extreme_logits_are_finite_and_asymptotic(predict, size):
    """A net that is sure and wrong pays about its logit where the true law is certain, and warns of nothing."""
    chain = make_chain("paper", 2000, 0.5)
    x0, x_t = every_pair(1)
    with np.errstate(all="raise", under="ignore"):
        for t in (1, 2, 1000, 2000):
            for sign in (-1, 1):
                value, gradient = bernoulli.kl(chain, predict, np.full((4, 1), sign * size), x0, x_t, np.full(4, t))
                assert np.isfinite(value).all() and np.isfinite(gradient).all()
                if t == 1:
                    wrong = (x0 == 1) != (sign > 0)
                    np.testing.assert_allclose(value[wrong], size, rtol=1e-12)
                    np.testing.assert_allclose(value[~wrong], math.exp(-size), rtol=1e-12)


# The bound
# ----------------------------------------------------------------------------------------------------------------------


def expected_kl(chain, predict, x0, first=1):
    """sum over t >= first of E_q KL, exactly, for a net that adds nothing to x_t's own evidence: (B, D) for bits x0 (B,
    D)."""
    total = 0.0
    for t in range(first, chain.T + 1):
        steps = np.full(len(x0), t)
        one = bernoulli.q_marginal(chain, x0, steps)
        for v, weight in ((0, 1 - one), (1, one)):
            x_t = np.full_like(x0, v)
            total = (
                total
                + weight
                * bernoulli.kl(chain, predict, bernoulli.evidence(chain, predict, x_t, steps), x0, x_t, steps)[0]
            )
    return total


@pytest.mark.parametrize("predict", ["x0", "x_prev"])
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("T", [1, 2, 7, 60])
@pytest.mark.parametrize("pi", PIS.values(), ids=PIS)
def test_untrained_net_pays_the_stationary_law(predict, name, T, pi):
    """With the evidence alone, KLs and prior term of every row sum to -log pi(x_0) exactly, whatever the schedule
    leaves at T."""
    chain = make_chain(name, T, pi)
    x0 = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 1]], np.uint8)
    null = -np.log(np.where(x0 == 1, bit_pis(pi), 1 - bit_pis(pi))).sum(1)
    np.testing.assert_allclose(expected_kl(chain, predict, x0).sum(1) + bernoulli.prior_kl(chain, x0), null, rtol=1e-11)
    np.testing.assert_allclose(bernoulli.null_bound(chain, x0), null, rtol=1e-14)


@pytest.mark.parametrize("pi", [0.5, 0.2])
@pytest.mark.parametrize("T", [1, 2, 5, 50])
def test_stationary_data_cost_their_entropy(pi, T):
    """Data that are i.i.d. B(pi), the reverse step the forward kernel: L_P = L_L = n h(pi) for every T (specification
    1.1.5)."""
    chain = make_chain("paper", T, pi)
    x0, weight = np.array([[0], [1]], np.uint8), np.array([1 - pi, pi])
    learned = weight @ expected_kl(chain, "x0", x0)[:, 0]
    paper = weight @ (
        np.broadcast_to(expected_kl(chain, "x0", x0, first=2), (2, 1))[:, 0] + bernoulli.fixed_last_step(chain, x0)
    )
    np.testing.assert_allclose([learned / LN2, paper / LN2], entropy_bits(pi), rtol=1e-12)


@pytest.mark.parametrize("pi", PIS.values(), ids=PIS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_fixed_last_step_is_its_definition(name, pi):
    """E over x_1 of -log T_pi(x_0 | x_1; beta_1), the forward kernel from x_1 to x_0, summed over bits."""
    chain = make_chain(name, 4, pi)
    x0 = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 1]], np.uint8)
    kernels = [forward(chain, 1, p) for p in bit_pis(pi)]
    expected = [sum(-k[b, v] * math.log(k[v, b]) for k, b in zip(kernels, row) for v in (0, 1)) for row in x0]
    np.testing.assert_allclose(bernoulli.fixed_last_step(chain, x0), expected, rtol=1e-12)


def test_fixed_last_step_is_the_entropy_of_the_first():
    """For pi = 1/2 it is n h(beta_bar_1 / 2) = H_q(X_1 | X_0) for every row; for another pi in the mean over data of
    that mean."""
    chain = make_chain("paper", 7, 0.5)
    x0 = np.array([[0, 1, 1, 0, 1]], np.uint8)
    np.testing.assert_allclose(bernoulli.fixed_last_step(chain, x0) / LN2, 5 * entropy_bits(1 / 14), rtol=1e-12)
    np.testing.assert_allclose(bernoulli.marginal_entropy(chain, x0, 1) / LN2, 5 * entropy_bits(1 / 14), rtol=1e-12)
    chain, x0 = (
        make_chain("paper", 7, 0.2),
        np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]),
    )
    cost, entropy = bernoulli.fixed_last_step(chain, x0), bernoulli.marginal_entropy(chain, x0, 1)
    np.testing.assert_allclose(cost.mean(), entropy.mean(), rtol=1e-12)
    lopsided = np.zeros((1, 5), int)
    assert abs(bernoulli.fixed_last_step(chain, lopsided) - bernoulli.marginal_entropy(chain, lopsided, 1)) > 1e-2


def test_entropies_have_their_known_values():
    """h(1/2) = 1 bit, h(1/5) = 0.721928 bits, h(0) = h(1) = 0; H_start of 20 bits at T = 2000 is 0.0670415 bits,
    H_prior 20 or 14.4386."""
    np.testing.assert_allclose(
        bernoulli.binary_entropy([0, 1, 0.5, 0.2]) / LN2, [0, 0, 1, 0.7219280948873623], rtol=1e-14
    )
    x0 = np.array([[0, 1] * 10, [1] * 20], np.uint8)
    chain = make_chain("paper", 2000, 0.5)
    np.testing.assert_allclose(bernoulli.marginal_entropy(chain, x0, 1) / LN2, 0.0670415, atol=5.1e-8)
    np.testing.assert_allclose(bernoulli.marginal_entropy(chain, x0, 2000) / LN2, 20, rtol=1e-14)
    np.testing.assert_allclose(bernoulli.marginal_entropy(chain, x0, 0), 0)
    np.testing.assert_allclose(
        bernoulli.marginal_entropy(make_chain("paper", 9, 0.2), x0, 9) / LN2, 20 * 0.7219280948873623, rtol=1e-14
    )


def test_prior_term_is_the_kl_at_the_end():
    """KL(B(.75)||B(.5)) = 0.188722 bits a bit for pi = .5 and alpha_bar_T = .5; 0 for a chain that ends without
    signal."""
    x0 = np.array([[1, 0, 1], [0, 0, 0]], np.uint8)
    np.testing.assert_allclose(
        bernoulli.prior_kl(Chain(np.array([1, 0.5]), 0.5), x0) / LN2, 3 * (1 - entropy_bits(0.25)), rtol=1e-13
    )
    np.testing.assert_allclose(bernoulli.prior_kl(make_chain("paper", 3, PIS["per bit"]), x0), 0, atol=1e-15)
    # P(x_1 = 1 | x_0 = 1), P(x_1 = 1 | x_0 = 0) with alpha_bar = 1/4, pi = .2
    r = np.array([0.75 * 0.2 + 0.25, 0.75 * 0.2])
    each = r * np.log(r / 0.2) + (1 - r) * np.log((1 - r) / 0.8)
    found = bernoulli.prior_kl(Chain(np.array([1, 0.25]), 0.2), x0)
    np.testing.assert_allclose(found, [2 * each[0] + each[1], 3 * each[1]], rtol=1e-12)


def test_functions_leave_their_inputs_alone():
    """No function writes into an array that it was given."""
    chain = make_chain("cosine", 6, PIS["per bit"])
    logits, x0, x_t, t = batch(chain)
    words = np.random.default_rng(0).integers(0, WORD, x0.shape, dtype=np.uint32)
    for array in (logits, x0, x_t, t, words, chain.alpha_bar, chain.pi):
        array.flags.writeable = False
    bernoulli.q_sample(chain, x0, t, words)
    bernoulli.q_posterior(chain, x0, x_t, t)
    bernoulli.oracle_logits(chain, x0[:4], x_t, t)
    for predict in ("x0", "x_prev"):
        bernoulli.evidence(chain, predict, x_t, t)
        bernoulli.kl(chain, predict, logits, x0, x_t, t)
    for function in (bernoulli.prior_kl, bernoulli.fixed_last_step, bernoulli.null_bound):
        assert function(chain, x0).shape == (60,)
