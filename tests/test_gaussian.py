"""Gaussian diffusion: diffusion/gaussian.py against Bayes' rule, quadrature and the figures of the specification; the
NumPy kernels against it; and the normal deviates of rng.py."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from bdiff_np import rng
from bdiff_np.diffusion import gaussian
from bdiff_np.diffusion.gaussian import PREDICT, VARIANCE, make_chain
from bdiff_np.kernels.gaussian import gaussian_numba, gaussian_numpy
from bdiff_np.rng import Key

SCHEDULES = "logsnr", "paper", "sigmoid", "linear", "cosine"
MEAN, SCALE = np.array([0.5, -2.0, 10.0]), np.array([2.0, 0.3, 1.0])
KEY = Key(11, rng.Q_NOISE, 3)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(5)  # exact for polynomials up to degree 9
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def chain_of(schedule, T, beta_1=None, D=3):
    return make_chain(schedule, T, MEAN[:D], SCALE[:D], beta_1)


def density(x, mean, variance):
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def batch(chain, B=200, seed=0, variance="learned", spread=1.0):
    """out, x0, x_t, t; t runs over 1, 2, T and others."""
    generator = np.random.default_rng(seed)
    D = len(chain.mean)
    x0 = chain.mean + chain.scale * generator.standard_normal((B, D))
    t = np.resize(np.unique([1, min(2, chain.T), chain.T, *generator.integers(1, chain.T + 1, B // 2)]), B)
    x_t = gaussian.q_sample(chain, x0, t, generator.standard_normal((B, D)))
    return spread * generator.standard_normal((B, 2 * D if variance == "learned" else D)), x0, x_t, t


# Schedules
# ----------------------------------------------------------------------------------------------------------------------


def test_schedules_are_those_of_the_specification():
    np.testing.assert_allclose(
        chain_of("paper", 5).beta[1:], [0.200799, 0.235293, 0.285712, 0.363633, 0.499995], atol=6e-7
    )
    assert abs(chain_of("paper", 1000).alpha_bar[-1] - 0.00099) < 1e-5
    sigmoid = chain_of("sigmoid", 40)
    assert abs(sigmoid.beta[1] - 1e-5) < 1e-8 and abs(sigmoid.beta[-1] - 0.3) < 1e-4
    assert round(sigmoid.alpha_bar[-1], 4) == 0.0064 and (sigmoid.beta > 0.01).sum() == 19
    for T in (1, 7, 1000):
        np.testing.assert_allclose(chain_of("linear", T).alpha_bar[-1], math.exp(-10.05), rtol=1e-10)
    np.testing.assert_allclose(chain_of("linear", 1000).beta[[1, 1000]], [1.0994e-4, 0.019792], rtol=1e-4)
    level = [math.cos((u / 50 + 0.008) / 1.008 * math.pi / 2) ** 2 for u in range(51)]
    np.testing.assert_allclose(chain_of("cosine", 50).alpha_bar[:-1], np.array(level[:-1]) / level[0], rtol=1e-12)
    assert abs(chain_of("cosine", 50).beta[-1] - 0.999) < 1e-12


@pytest.mark.parametrize("beta_1", [1e-5, 1e-7, 0.01])
def test_logsnr_falls_along_a_line(beta_1):
    left = chain_of("logsnr", 30, beta_1).alpha_bar[1:]
    logit = np.log(left) - np.log1p(-left)
    assert abs(1 - left[0] - beta_1) < 1e-15 and abs(logit[-1] - math.log(1e-4 / (1 - 1e-4))) < 1e-12
    np.testing.assert_allclose(np.diff(logit), (logit[-1] - logit[0]) / 29, rtol=1e-6)


@pytest.mark.parametrize("schedule, T", [*product(SCHEDULES, (1, 2, 40, 1000))])
def test_alpha_bar_falls_from_one(schedule, T):
    """Strictly, and never to 0; beta_1 takes the place of the first step's variance."""
    for beta_1 in (None, 1e-7, 0.02):
        chain = chain_of(schedule, T, beta_1)
        assert chain.T == T and chain.alpha_bar[0] == 1 and np.all(np.diff(chain.alpha_bar) < 0) and chain.beta[0] == 0
        assert chain.alpha_bar[-1] > 0 and np.all(chain.posterior_variance[2:] > 0)
        assert beta_1 is None or abs(chain.beta[1] / beta_1 - 1) < 1e-8


def test_no_such_schedule():
    with pytest.raises(ValueError, match="there is no schedule 'quadratic'"):
        gaussian.alpha_bar("quadratic", 3)


def test_a_chain_with_steps_left_out():
    """Has the same alpha_bar at the steps that are kept, and tells the network their names."""
    chain = chain_of("cosine", 40)
    part = chain.every(4)
    np.testing.assert_array_equal(part.time, [0, 10, 20, 30, 40])
    np.testing.assert_array_equal(part.alpha_bar, chain.alpha_bar[::10])
    for K in (0, 41):
        with pytest.raises(ValueError, match=f"{K} steps of 40"):
            chain.every(K)


# The process
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_jump_is_the_composition_of_steps(schedule):
    """Mean and variance of x_t given x_0, step by step from N(sqrt(1 - beta) x, beta)."""
    chain = chain_of(schedule, 40)
    x0 = MEAN + SCALE * [[1.3, -0.4, 2.0]]
    mean, variance = np.array([[1.3, -0.4, 2.0]]), 0.0
    for t in range(1, 41):
        mean, variance = np.sqrt(1 - chain.beta[t]) * mean, (1 - chain.beta[t]) * variance + chain.beta[t]
        at, one = np.array([t]), np.ones((1, 3))
        np.testing.assert_allclose(gaussian.q_sample(chain, x0, at, 0 * one), mean, rtol=1e-10)
        spread = gaussian.q_sample(chain, x0, at, one) - gaussian.q_sample(chain, x0, at, 0 * one)
        np.testing.assert_allclose(spread**2, variance * one, rtol=1e-9)


@pytest.mark.parametrize("schedule, t", [*product(SCHEDULES, (2, 3, 8))])
def test_the_posterior_is_bayes(schedule, t):
    """Mean and variance of q(x_{t-1} | x_0) q(x_t | x_{t-1}), normalised on a grid about where it is large."""
    chain, x0, x_t = chain_of(schedule, 8, D=1), np.array([[MEAN[0] + 0.7 * SCALE[0]]]), np.array([[0.2]])
    mean, variance = (float(part[0, 0]) for part in gaussian.posterior(chain, x0, x_t, np.array([t])))
    x = mean + np.sqrt(variance) * np.linspace(-12, 12, 4001)
    log = -((x - np.sqrt(chain.alpha_bar[t - 1]) * 0.7) ** 2) / (2 - 2 * chain.alpha_bar[t - 1])
    log = log - (x_t[0, 0] - np.sqrt(1 - chain.beta[t]) * x) ** 2 / (2 * chain.beta[t])
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    np.testing.assert_allclose(weight @ x, mean, rtol=1e-9)
    np.testing.assert_allclose(weight @ (x - weight @ x) ** 2, variance, rtol=1e-9)


def test_the_posterior_of_the_first_step_is_x_0():
    chain = chain_of("paper", 5)
    mean, variance = gaussian.posterior(chain, MEAN + SCALE * [[1, 2, 3]], np.ones((1, 3)), np.array([1]))
    np.testing.assert_allclose(mean, [[1, 2, 3]], rtol=1e-12)
    assert np.all(variance == 0)


def outputs_of_one_mean(chain, x_t, t, u):
    """What each `predict` must put out to say that x_0 is u."""
    s, n = np.sqrt(chain.alpha_bar[t, None]), np.sqrt(1 - chain.alpha_bar[t, None])
    noise = (x_t - s * u) / n
    mean = gaussian.posterior(chain, chain.mean + chain.scale * u, x_t, t)[0]
    forward = (mean - np.sqrt(1 - chain.beta[t, None]) * x_t) / np.sqrt(chain.beta[t, None])
    return {"x0": u, "noise": noise, "v": s * noise - n * u, "forward": forward}


@pytest.mark.parametrize("schedule, variance", [*product(SCHEDULES, VARIANCE)])
def test_outputs_that_mean_the_same_give_the_same_step(schedule, variance):
    """Of all four meanings: mean, variance and KL. At the true x_0 the mean is the posterior's."""
    chain = chain_of(schedule, 20)
    out, x0, x_t, t = batch(chain, variance=variance)
    for u in (out[:, :3], gaussian.standard(chain, x0)):
        found = []
        for predict, mean in outputs_of_one_mean(chain, x_t, t, u).items():
            whole = np.concatenate([mean, out[:, 3:]], axis=1)
            step = gaussian.reverse(chain, predict, variance, whole, x_t, t)
            found.append([*step, gaussian.kl(chain, predict, variance, whole, x0, x_t, t)[0][:, None]])
        for other in found[1:]:
            for a, b in zip(found[0], other):
                np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found[0][0], gaussian.posterior(chain, x0, x_t, t)[0], rtol=1e-12, atol=1e-12)


def test_the_learned_variance_lies_between_0_and_1():
    """A second output of 0 is beta; the others shift its logit by z / sqrt(T), T that of the whole chain."""
    for chain in (chain_of("paper", 9), chain_of("paper", 36).every(9)):
        t, x_t = np.arange(1, 10), np.ones((9, 3))
        for z in (0.0, 5.0, -5.0):
            out = np.concatenate([np.zeros((9, 3)), np.full((9, 3), z)], axis=1)
            found = gaussian.reverse(chain, "v", "learned", out, x_t, t)[1]
            logit = np.log(chain.beta[t]) - np.log1p(-chain.beta[t]) + z / chain.time[-1] ** 0.5
            np.testing.assert_allclose(found, np.repeat(1 / (1 + np.exp(-logit))[:, None], 3, 1), rtol=1e-10)


# KL and its gradient
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance, t", [*product(VARIANCE, (1, 2, 9))])
def test_kl_is_the_integral_of_two_densities(variance, t):
    """For t >= 2; at t = 1 it is -log p(u | x_1) less the entropy of N(., beta_1)."""
    chain, at = chain_of("paper", 9, D=1), np.array([t])
    x0, x_t, out = np.array([[MEAN[0] + 0.7 * SCALE[0]]]), np.array([[0.4]]), np.array([[0.3, -0.8]])
    out = out if variance == "learned" else out[:, :1]
    found = gaussian.kl(chain, "v", variance, out, x0, x_t, at)[0][0]
    mean_p, var_p = (float(part[0, 0]) for part in gaussian.reverse(chain, "v", variance, out, x_t, at))
    if t == 1:
        expected = -math.log(density(0.7, mean_p, var_p)) - 0.5 * math.log(2 * math.pi * math.e * chain.beta[1])
    else:
        mean_q, var_q = (float(part[0, 0]) for part in gaussian.posterior(chain, x0, x_t, at))
        x, step = np.linspace(mean_q - 10 * var_q**0.5, mean_q + 10 * var_q**0.5, 4001, retstep=True)
        q, p = density(x, mean_q, var_q), density(x, mean_p, var_p)
        expected = step * np.sum(q * (np.log(q) - np.log(p)))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def slope_error(chain, predict, variance, gradient_of, seed):
    """Largest relative difference between a gradient in a random direction and the central difference, over rows."""
    out, x0, x_t, t = batch(chain, 60, seed, variance)
    way = np.random.default_rng(seed + 100).standard_normal(out.shape)
    value = lambda step: gaussian.kl(chain, predict, variance, out + step * way, x0, x_t, t)[0]  # noqa: E731
    expected = (8 * (value(1e-3) - value(-1e-3)) - value(2e-3) + value(-2e-3)) / 12e-3
    found = (gradient_of(out, x0, x_t, t) * way).sum(1)
    return np.max(np.abs(found - expected) / (np.abs(found) + np.abs(expected) + 1e-3))


@pytest.mark.parametrize("predict, variance", [*product(PREDICT, VARIANCE)])
def test_the_gradient_is_the_slope_in_random_directions(predict, variance):
    """And a gradient that is wrong by a thousandth in its first column, or in its last, is caught."""
    for schedule, seed in product(("logsnr", "paper", "sigmoid"), (0, 1)):
        chain = chain_of(schedule, 20)

        def right(out, x0, x_t, t):
            return gaussian.kl(chain, predict, variance, out, x0, x_t, t)[1]  # noqa: B023

        assert slope_error(chain, predict, variance, right, seed) < 1e-6
        for column in (0, -1):
            wrong = lambda *a: right(*a) * np.where(np.arange(a[0].shape[1]) == column % a[0].shape[1], 1.001, 1)  # noqa
            assert slope_error(chain, predict, variance, wrong, seed) > 1e-5


# The bound
# ----------------------------------------------------------------------------------------------------------------------


def bound(chain, x0, predict, variance, kind, network):
    """The bound of each row of x0 (B, 1), exactly: the KL is a polynomial of the noise of degree 2 where the network
    is linear. network(x_t, t) : out"""
    total = gaussian.exact_terms(chain, x0, kind)
    for t, (node, weight) in product(range(2 if kind == "paper" else 1, chain.T + 1), zip(NODES, WEIGHTS)):
        at = np.full(len(x0), t)
        x_t = gaussian.q_sample(chain, x0, at, np.full(x0.shape, node))
        total = total + weight * gaussian.kl(chain, predict, variance, network(x_t, at), x0, x_t, at)[0]
    return total


def zero(x_t, t):
    return np.zeros((len(x_t), 2))


@pytest.mark.parametrize("schedule, T, predict", [*product(SCHEDULES, (1, 2, 40), ("v", "forward"))])
def test_a_network_of_zeros_pays_what_a_normal_law_costs(schedule, T, predict):
    """The reverse of the forward chain is the forward kernel if the data is N(mean, scale^2): the bound of every row is
    its -log density, and its mean over that law H(1) and the log of the scale, without a gap."""
    for beta_1, kind in product((None, 1e-5), ("learned", "paper")):
        chain = chain_of(schedule, T, beta_1, D=1)
        x0 = MEAN[0] + SCALE[0] * NODES[:, None]
        found = bound(chain, x0, predict, "learned", kind, zero)
        np.testing.assert_allclose(found, gaussian.null_bound(chain, x0), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(WEIGHTS @ found, 1.41893853320 + math.log(SCALE[0]), atol=1e-10)
        np.testing.assert_allclose(
            bound(chain, x0, predict, "beta", kind, lambda x, t: 0 * x), gaussian.null_bound(chain, x0), atol=1e-10
        )


def test_the_papers_bound_is_its_formula():
    """Sum of KL from t = 2 on, H(beta_1) - H(1 - alpha_bar_T) + H(1), in the mean over data of variance 1."""
    chain = make_chain("paper", 5, np.zeros(1), np.ones(1))
    found = WEIGHTS @ gaussian.exact_terms(chain, NODES[:, None], "paper")
    H = lambda variance: 0.5 * math.log(2 * math.pi * math.e * variance)  # noqa: E731
    np.testing.assert_allclose(found, H(chain.beta[1]) - H(1 - chain.alpha_bar[-1]) + H(1), rtol=1e-12)


@pytest.mark.parametrize("T, kind", [*product((1, 2, 40), ("learned", "paper"))])
def test_the_bound_of_a_wrong_network_is_above_the_cost_of_its_density(T, kind):
    """Of a linear network the density p(x_0) is normal and known; the mean of its cost, by quadrature, is at least the
    entropy, and the bound is at least that cost for every row."""
    chain, shift, z = make_chain("paper", T, np.zeros(1), np.ones(1)), 0.3, -1.5
    network = lambda x, t: np.concatenate([shift + 0.2 * x, z + 0 * x], axis=1)  # noqa: E731
    mean, variance = 0.0, 1.0
    for t in range(T, 0, -1):
        fixed = t == 1 and kind == "paper"
        beta = chain.beta[t]
        mean_at = [gaussian.reverse(chain, "forward", "learned", (zero if fixed else network)(x, 0), x, np.array([t]))
                   for x in (np.zeros((1, 1)), np.ones((1, 1)))]  # fmt: skip
        add, var_p = (float(part[0, 0]) for part in mean_at[0])
        gain = float(mean_at[1][0][0, 0]) - add
        assert abs(gain - np.sqrt(1 - beta) - (0 if fixed else 0.2 * np.sqrt(beta))) < 1e-12
        mean, variance = gain * mean + add, gain**2 * variance + var_p
    x, step = np.linspace(-8, 8, 2001, retstep=True)
    found = bound(chain, x[:, None], "forward", "learned", kind, network)
    cost = -np.log(density(x, mean, variance))
    assert np.all(found > cost - 1e-9)
    law = step * density(x, 0, 1)
    if (T, kind) != (1, "paper"):  # which has no step of the network's
        assert law @ found > law @ cost > gaussian.entropy(1.0)


def test_functions_leave_their_inputs_alone(Kernels):
    chain = chain_of("logsnr", 6)
    out, x0, x_t, t = batch(chain)
    before = [a.copy() for a in (out, x0, x_t, t)]
    for array in (out, x0, x_t, t, chain.alpha_bar, chain.mean, chain.scale):
        array.flags.writeable = False
    for predict, variance in product(PREDICT, VARIANCE):
        own = out if variance == "learned" else out[:, :3]
        gaussian.kl(chain, predict, variance, own, x0, x_t, t)
        for dtype in (np.float32, np.float64):
            kernels = Kernels(chain, predict, variance, dtype=dtype)
            kernels.kl_grad(own.astype(dtype), x0, x_t, t)
            kernels.p_sample(own, x_t, t, KEY)
            kernels.q_sample(x0, t, KEY)
    for a, b in zip(before, (out, x0, x_t, t)):
        np.testing.assert_array_equal(a, b)


# The NumPy kernels
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[gaussian_numpy, gaussian_numba], ids=["numpy", "numba"])
def Kernels(request):
    return request.param.Kernels


CHAINS = [("logsnr", 40, None), ("logsnr", 1000, 1e-7), ("paper", 1, None), ("paper", 7, 1e-7), ("cosine", 1000, None),
          ("sigmoid", 2000, None), ("linear", 3, None)]  # fmt: skip
CLOSE = {np.float64: 1e-8, np.float32: 3e-7}  # of numbers of about 1; float64 loses it in small 1 - alpha_bar


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("schedule, T, beta_1", CHAINS)
def test_kernels_draw_the_definitions_x_t(schedule, T, beta_1, dtype, Kernels):
    """From the first row on that is asked for; so does the prior."""
    chain, tolerance = chain_of(schedule, T, beta_1), 20 * CLOSE[dtype]
    _, x0, _, t = batch(chain)
    kernels = Kernels(chain, dtype=dtype)
    for first_row in (0, 41, 2**32 - 2):
        noise = rng.normals(KEY, 200, 3, first_row)
        found = kernels.q_sample(x0, t, KEY, first_row)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, gaussian.q_sample(chain, x0, t, noise), atol=tolerance)
        np.testing.assert_allclose(kernels.prior(200, 3, KEY, first_row), noise, atol=tolerance)


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("predict, variance", [*product(PREDICT, VARIANCE)])
@pytest.mark.parametrize("schedule, T, beta_1", CHAINS)
def test_kernels_kl_and_gradient_are_the_definitions(schedule, T, beta_1, predict, variance, dtype, Kernels):
    """A number of about 1 in x_t loses 1 / sqrt(1 - alpha_bar_t) as much in the noise that it shows, whatever the
    formula; nothing more is lost."""
    chain = chain_of(schedule, T, beta_1)
    out, x0, x_t, t = batch(chain, variance=variance)
    x_t, out = x_t.astype(dtype), out.astype(dtype)
    own = x_t.astype(np.float64), out.astype(np.float64)
    value, gradient = gaussian.kl(chain, predict, variance, own[1], x0, own[0], t)
    value += gaussian.control(chain, x0, own[0], t)
    kernels = Kernels(chain, predict, variance, dtype=dtype)
    found, slope = kernels.kl_grad(out, x0, x_t, t)
    assert found.dtype == np.float64 and slope.dtype == dtype and slope.shape == out.shape
    var_p = gaussian.reverse(chain, predict, variance, own[1], own[0], t)[1]
    curve = gaussian._slope(chain, predict, t) ** 2 / var_p  # of the KL, by the part of the output that is the mean
    off = np.abs(gradient[:, :3]) / np.maximum(curve, 1e-200)
    lost = CLOSE[dtype] * (1 + 1 / np.sqrt(1 - chain.alpha_bar[t, None]))
    room = CLOSE[dtype] * (1 + curve * off**2) + curve * off * lost
    v = (own[0] - np.sqrt(chain.alpha_bar[t, None]) * gaussian.standard(chain, x0)) / np.sqrt(
        1 - chain.alpha_bar[t, None]
    )
    in_control = (
        2 * chain.beta[t, None] / (1 - chain.alpha_bar[t, None]) * (1 + np.abs(v)) * (1 + np.abs(x0)) ** 2 * lost
    )
    assert np.all(np.abs(slope - gradient)[:, :3] <= curve * (1 + off) * lost + 1e-12)
    assert variance != "learned" or np.all(np.abs(slope - gradient)[:, 3:] <= room / T**0.5)
    assert np.all(np.abs(found - value) <= (room + in_control).sum(1))
    nothing, alone = kernels.kl_grad(out, x0, x_t, t, value=False)
    assert nothing is None and np.array_equal(alone, slope)


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("predict, variance", [*product(PREDICT, VARIANCE)])
@pytest.mark.parametrize("schedule, T, beta_1", CHAINS)
def test_kernels_draw_from_the_definitions_step(schedule, T, beta_1, predict, variance, dtype, Kernels):
    """With the noise of rng.normals; also where steps of the chain are left out."""
    chain = chain_of(schedule, T, beta_1)
    for part in (chain, chain.every(max(1, T // 5))):
        out, _, x_t, t = batch(part, variance=variance)
        mean, var_p = gaussian.reverse(part, predict, variance, out, x_t, t)
        kernels = Kernels(part, predict, variance, dtype=dtype)
        found = kernels.p_sample(out.astype(dtype), x_t.astype(dtype), t, KEY, 5)
        expected = mean + np.sqrt(var_p) * rng.normals(KEY, len(t), 3, 5)
        gain = 1 / np.sqrt(1 - part.beta[t, None]) if predict == "noise" else 1.0  # of x_t and the output alike
        assert found.dtype == dtype and np.all(np.abs(found - expected) <= 20 * CLOSE[dtype] * gain)


@pytest.mark.parametrize("predict, t", [*product(PREDICT, (1, 2, 1000))])
def test_no_difference_of_means_is_lost_in_float32(predict, t, Kernels):
    """A step whose mean is the posterior's has no more KL than its variances say, 0 with that of the posterior, also
    where two means would differ by less than float32 holds, and by less than its variance."""
    chain = make_chain("logsnr", 1000, np.zeros(2), np.ones(2), 1e-7)
    generator, at = np.random.default_rng(0), np.full(500, t)
    x0 = generator.standard_normal((500, 2)).astype(np.float32)
    x_t = gaussian.q_sample(chain, x0, at, generator.standard_normal((500, 2))).astype(np.float32)
    right = outputs_of_one_mean(chain, x_t.astype(float), at, x0.astype(float))[predict].astype(np.float32)
    value, gradient = Kernels(chain, predict, "posterior").kl_grad(right, x0, x_t, at)
    value -= gaussian.control(chain, x0.astype(float), x_t.astype(float), at)
    nothing = -1.0 if t == 1 else 0.0  # at t = 1 a variance of beta_1, and the entropy left out: -1/2 an element
    assert np.abs(value - nothing).max() < 2e-6
    assert np.abs(gradient).max() < 2e-3


def test_the_control_variate_has_mean_0():
    """Over x_t given x_0, by quadrature, at every step; and with it the forward kernel's KL has no spread at all."""
    chain = chain_of("logsnr", 40)
    weights = np.outer(WEIGHTS, WEIGHTS).reshape(-1)
    noise = np.stack([*map(np.ravel, np.meshgrid(NODES, NODES)), 0 * weights], axis=1)
    x0 = np.broadcast_to([[0.3, -1.0, 2.0]], noise.shape)
    for t in range(1, 41):
        at = np.full(len(noise), t)
        found = gaussian.control(chain, x0, gaussian.q_sample(chain, x0, at, noise), at)
        third = gaussian.control(chain, x0[:1], gaussian.q_sample(chain, x0[:1], at[:1], 0 * noise[:1]), at[:1])[0]
        x_t = gaussian.q_sample(chain, x0, at, noise)
        both = found + gaussian.kl(chain, "v", "beta", np.zeros((len(noise), 3)), x0, x_t, at)[0]
        assert np.ptp(both) < 1e-9 * max(1, np.abs(both).max())
        v = chain.beta[t] * chain.alpha_bar[t - 1] / (1 - chain.alpha_bar[t]) / 2 * chain.alpha_bar[t]
        assert abs(weights @ found - v) < 1e-12 and abs(third - 3 * v) < 1e-12


# Normal deviates
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("D", [1, 2, 3, 4, 5, 8])
def test_deviates_are_the_documented_formula(D):
    """In Python's own numbers, from the row's words; rows of a batch drawn apart are those drawn at once."""
    found = rng.normals(KEY, 6, D, 2**32 - 3)
    assert found.shape == (6, D) and found.dtype == np.float64
    for row, words in enumerate(rng.words(KEY, 6, D + D % 2, 2**32 - 3).tolist()):
        for d in range(D):
            w, v = words[d - d % 2], words[d - d % 2 + 1]
            r, a = math.sqrt(-2 * math.log((2 * (w // 2**9) + 1) / 2**24)), 2 * math.pi * v / 2**32
            np.testing.assert_allclose(
                found[row, d], r * (math.sin(a) if d % 2 else math.cos(a)), rtol=1e-13, atol=1e-13
            )
    parts = [rng.normals(KEY, rows, D, 2**32 - 3 + first) for first, rows in ((0, 1), (1, 3), (4, 2))]
    np.testing.assert_array_equal(np.concatenate(parts), found)


KNOWN = 0.9911376658774074, -0.9246625759110506, -0.6176089026558995, -0.48206854242294594


def test_known_deviates(Kernels):
    """Of Random123's first known answer, words 6627e8d5 e169c58d bc57ac4c 9b00dbd8."""
    np.testing.assert_array_equal(rng.words(Key(0, 0, 0), 1, 4)[0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8])
    found = rng.normals(Key(0, 0, 0), 1, 4)[0]
    np.testing.assert_allclose(found, KNOWN, rtol=1e-12)
    np.testing.assert_allclose(Kernels(chain_of("paper", 2)).prior(1, 4, Key(0, 0, 0))[0], KNOWN, atol=2e-6)


def test_moments_and_independence_of_deviates():
    """Of 2**20: moments of order 1 to 6, of neighbours' products, of neighbouring rows, streams and steps, within 4.5
    standard errors, and shares of bins of equal probability."""
    z = rng.normals(Key(3, rng.Q_NOISE, 9), 1 << 18, 4)
    n = z.size
    for order, (mean, square) in enumerate([(0, 1), (1, 3), (0, 15), (3, 105), (0, 945), (15, 10395)], 1):
        assert abs((z**order).mean() - mean) < 4.5 * math.sqrt((square - mean**2) / n)
    others = rng.normals(Key(3, rng.P_NOISE, 9), 1 << 18, 4), rng.normals(Key(3, rng.Q_NOISE, 10), 1 << 18, 4)
    pairs = [(z[:, i], z[:, j]) for i in range(4) for j in range(i)] + [(z[:-1], z[1:]), *((z, o) for o in others)]
    for a, b in pairs:
        for f in (lambda x: x, lambda x: x**2 - 1, np.sign):
            sizes = np.mean(f(a) ** 2) * np.mean(f(b) ** 2)
            assert abs(np.mean(f(a) * f(b))) < 4.5 * math.sqrt(sizes / a.size)
    edges = np.array([-1.2815515655, -0.8416212336, -0.5244005127, -0.2533471031, 0])  # of tenths
    counts = np.diff(np.searchsorted(np.sort(z.ravel()), np.concatenate([[-99], edges, -edges[-2::-1], [99]])))
    assert np.all(np.abs(counts - n / 10) < 4.5 * math.sqrt(0.09 * n))


def test_tails_of_deviates():
    """The share beyond k is erfc(k / sqrt 2), and the largest that words can say is 5.77."""
    z = np.abs(rng.normals(Key(4, rng.Q_NOISE, 0), 1 << 20, 4))
    for k in (2, 3, 4):
        share = math.erfc(k / 2**0.5)
        assert abs((z > k).mean() - share) < 4.5 * math.sqrt(share / z.size)
    assert 4.5 < z.max() < math.sqrt(48 * math.log(2)) < 5.77
    assert abs(math.erfc(5.77 / 2**0.5) - 8e-9) < 1e-9
