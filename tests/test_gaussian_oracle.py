"""The ideal network for mixtures of Gaussians against Bayes' rule on grids; the best Gaussian step against other steps;
the floor of the bound against quadrature, entropies and the specification's figures."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from bdiff_np.diffusion import gaussian, gaussian_oracle
from bdiff_np.diffusion.gaussian import make_chain

MEAN, SCALE = np.array([0.5, -2.0, 10.0]), np.array([2.0, 0.3, 1.0])
SCHEDULES = "logsnr", "paper", "sigmoid", "linear", "cosine"
PAIR, SHARES = np.array([[-1.0], [2.0]]), np.array([2.0, 1.0])  # a law with mean 0 and a variance of 2 without noise


def pair_chain(schedule, T, sd, beta_1=None):
    return make_chain(schedule, T, np.zeros(1), np.array([math.sqrt(2 + sd**2)]), beta_1)


def density(x, mean, variance):
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


@pytest.mark.parametrize("sd", [0.3, [0.3, 0.1, 2.0]], ids=["one", "per axis"])
def test_denoiser_is_bayes_on_a_grid(sd):
    """Mean and variance of one axis of u given x_t: for each centre a weight by the other axes, and an integral over
    this one."""
    chain, generator = make_chain("paper", 12, MEAN, SCALE), np.random.default_rng(0)
    centres, weights = MEAN + SCALE * generator.standard_normal((5, 3)), generator.uniform(0.2, 3, 5)
    u, own = (centres - MEAN) / SCALE, np.broadcast_to(sd, 3) / SCALE
    t = np.array([1, 3, 7, 12, 2, 12])
    x_t = generator.standard_normal((6, 3))
    mean, variance = gaussian_oracle.denoise(chain, centres, sd, x_t, t, weights)
    for b, d in np.ndindex(6, 3):
        left = chain.alpha_bar[t[b]]
        weight = weights.copy()
        for other in {0, 1, 2} - {d}:
            weight *= density(x_t[b, other], np.sqrt(left) * u[:, other], left * own[other] ** 2 + 1 - left)
        # where u[d] can be, given x_t and not given it
        grid = np.linspace(-10, 10, 40001) * (own[d] + np.ptp(u[:, d]) / 10) + u[:, d].mean()
        law = sum(w * density(grid, m, own[d] ** 2) for w, m in zip(weight, u[:, d]))
        law = law * density(x_t[b, d], np.sqrt(left) * grid, 1 - left)
        law /= law.sum()
        np.testing.assert_allclose(mean[b, d], law @ grid, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(variance[b, d], law @ (grid - law @ grid) ** 2, rtol=1e-6)


def test_denoiser_of_points_is_their_weighted_mean():
    """sd = 0, one row and one point at a time; far from all points the nearest has all the weight, without overflow."""
    chain, generator = make_chain("logsnr", 30, MEAN[:2], SCALE[:2]), np.random.default_rng(1)
    points = MEAN[:2] + SCALE[:2] * generator.standard_normal((40, 2))
    u, t = (points - MEAN[:2]) / SCALE[:2], np.arange(1, 31)
    x_t = generator.standard_normal((30, 2))
    mean, variance = gaussian_oracle.denoise(chain, points, 0.0, x_t, t)
    for b in range(30):
        left = chain.alpha_bar[t[b]]
        log = [-((x_t[b] - np.sqrt(left) * point) ** 2).sum() / (2 * (1 - left)) for point in u]
        weight = np.array([math.exp(value - max(log)) for value in log])
        weight /= weight.sum()
        np.testing.assert_allclose(mean[b], weight @ u, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(variance[b], weight @ (u - weight @ u) ** 2, rtol=1e-8, atol=1e-13)
    far = gaussian_oracle.denoise(chain, points, 0.0, np.full((1, 2), 1e6), np.array([1]))
    np.testing.assert_allclose(far[0][0], u[np.argmax(u.sum(1))])
    assert np.all(far[1] == 0)


def test_a_normal_laws_reverse_step_is_the_forward_kernel():
    """Of data N(mean, scale^2): mean sqrt(1 - beta) x_t, variance beta."""
    for schedule in SCHEDULES:
        chain, t = make_chain(schedule, 9, MEAN, SCALE), np.arange(1, 10)
        x_t = np.random.default_rng(0).standard_normal((9, 3))
        mean, variance = gaussian_oracle.reverse(chain, MEAN[None], SCALE, x_t, t)
        np.testing.assert_allclose(mean, np.sqrt(1 - chain.beta[t, None]) * x_t, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(variance, np.repeat(chain.beta[t, None], 3, 1), rtol=1e-9)


@pytest.mark.parametrize("t", [2, 5, 10])
def test_no_other_gaussian_step_costs_less(t):
    """E KL given x_t over the two points, by the definition, at the mean and the variance of `reverse`: half the log of
    var_p / var_q; more anywhere else, four times as much twice as far away; and its minimum by search is there."""
    chain, at = pair_chain("paper", 10, 0.0), np.array([t])
    x_t = np.array([[0.3]])
    mean, variance = gaussian_oracle.reverse(chain, PAIR, 0.0, x_t, at, SHARES)
    u, left = PAIR / chain.scale, chain.alpha_bar[t]
    weight = SHARES * density(x_t[0, 0], np.sqrt(left) * u[:, 0], 1 - left)
    weight /= weight.sum()

    def cost(mean, variance):
        beta = chain.beta[t]
        first = (mean - np.sqrt(1 - beta) * x_t[0, 0]) / np.sqrt(beta)  # the output of "forward"
        z = (np.log(variance) - np.log1p(-variance) - np.log(beta) + np.log1p(-beta)) * chain.T**0.5
        out = np.array([[first, z]] * 2)
        return float(weight @ gaussian.kl(chain, "forward", "learned", out, PAIR, x_t.repeat(2, 0), at.repeat(2))[0])

    own = float(mean[0, 0]), float(variance[0, 0])
    least = cost(*own)
    np.testing.assert_allclose(least, 0.5 * math.log(own[1] / chain.posterior_variance[t]), rtol=1e-9)
    for dm, dv in ((1, 0), (0, 1), (-0.5, 0.7), (1, -1)):
        near, far = (cost(own[0] + size * dm, own[1] * (1 + size * dv)) - least for size in (1e-3, 2e-3))
        assert 0 < near < far and 3.9 < far / near < 4.1
    best, size = (own[0] + 0.1, own[1] * 1.3), 0.1
    while size > 1e-6:  # a search that knows nothing of moments
        around = [(best[0] + size * i, best[1] * (1 + size * j)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        better = min(around, key=lambda step: cost(*step))
        size, best = (size, better) if cost(*better) < cost(*best) else (size / 2, best)
    np.testing.assert_allclose(best, own, atol=2e-4)


# The floor
# ----------------------------------------------------------------------------------------------------------------------


def pair_costs(chain, sd):
    """E KL of the best step of each t, (T,), by quadrature over x_t, written out for two centres on one axis."""
    u, own, share, costs = PAIR[:, 0] / chain.scale, (sd / chain.scale[0]) ** 2, SHARES / SHARES.sum(), []
    for t in range(1, chain.T + 1):
        left, before, beta = chain.alpha_bar[t], chain.alpha_bar[t - 1], chain.beta[t]
        wide = left * own + 1 - left
        x = np.unique(np.concatenate([np.sqrt(left) * m + np.sqrt(wide) * np.linspace(-9, 9, 4001) for m in u]))
        law = [w * density(x, np.sqrt(left) * m, wide) for w, m in zip(share, u)]
        first = law[0] / (law[0] + law[1])
        mixed = first * (1 - first) * (u[0] - u[1]) ** 2
        variance = own * (1 - left) / wide + ((1 - left) / wide) ** 2 * mixed
        tilde = beta * (1 - before) / (1 - left)
        by_u = np.sqrt(before) * beta / (1 - left)
        with np.errstate(divide="ignore"):
            cost = 0.5 * np.log((tilde + by_u**2 * variance) / (beta if t == 1 else tilde))
        costs.append(np.sum((law[0] + law[1]) * cost * np.gradient(x)) if t > 1 or sd else np.nan)
    return np.array(costs)


@pytest.mark.parametrize("schedule, T, sd", [("paper", 10, 0.0), ("logsnr", 12, 0.5), ("cosine", 20, 0.2)])
def test_floor_per_step_is_its_quadrature(schedule, T, sd):
    """Within 4.5 standard errors over 12 seeds, and 2e-5 for what is too rare to be drawn; nan at t = 1 for points."""
    chain = pair_chain(schedule, T, sd, 0.01)
    exact = pair_costs(chain, sd)
    found = np.array([gaussian_oracle.floor_per_step(chain, PAIR, sd, seed, 2048, SHARES) for seed in range(12)])
    error = found.std(0, ddof=1) / 12**0.5
    assert found.shape == (12, T) and np.array_equal(np.isnan(found[0]), np.isnan(exact))
    used = ~np.isnan(exact)
    assert np.all(np.abs(found.mean(0) - exact)[used] < 4.5 * error[used] + 2e-5) and np.all(error[used] < 3e-3)
    again = gaussian_oracle.floor_per_step(chain, PAIR, sd, 3, 2048, SHARES)
    np.testing.assert_array_equal(again, found[3])  # of the same seed


@pytest.mark.parametrize("kind, sd", [("learned", 0.5), ("paper", 0.5), ("paper", 0.0)])
@pytest.mark.parametrize("T", [1, 2, 15])
def test_floor_is_its_quadrature(kind, sd, T):
    """Within 4.5 of its standard errors, and above the entropy of the law."""
    chain = pair_chain("paper", T, sd)
    costs = pair_costs(chain, sd)[1 if kind == "paper" else 0 :].sum()
    beta, left = chain.beta[1], chain.alpha_bar[-1]
    exact = costs + math.log(chain.scale[0]) + gaussian.entropy(beta) - 0.5 * math.log(1 - left)  # variance of u is 1
    found, error = gaussian_oracle.floor(chain, PAIR, sd, kind, 5, 2**17 // T, SHARES)
    assert abs(found - exact) < 4.5 * error + 1e-5 and error < 5e-3
    if sd:
        x, step = np.linspace(-6, 8, 20001, retstep=True)
        law = sum(w * density(x, m, sd**2) for w, m in zip(SHARES / 3, PAIR[:, 0]))
        assert found + 4.5 * error > -step * law @ np.log(law)


def test_the_standard_error_is_the_spread_over_seeds():
    """In its units the errors of 150 seeds have mean 0 and the variance of Student's t with 15 degrees of freedom."""
    chain = pair_chain("paper", 5, 0.5)
    exact = pair_costs(chain, 0.5).sum() + math.log(chain.scale[0]) + gaussian.entropy(chain.beta[1])
    exact -= 0.5 * math.log(1 - chain.alpha_bar[-1])
    found = np.array([gaussian_oracle.floor(chain, PAIR, 0.5, "learned", s, 256, SHARES) for s in range(150)])
    z = (found[:, 0] - exact) / found[:, 1]
    assert abs(z.mean()) < 0.37 and abs(z.var() - 15 / 13) < 4.5 * (2 / 150) ** 0.5 * 15 / 13


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("T", [1, 2, 40])
def test_one_gaussian_costs_its_entropy(schedule, T):
    """In both kinds of bound and without an error, for every T and in one to three dimensions."""
    for D in (1, 2, 3):
        chain = make_chain(schedule, T, MEAN[:D], SCALE[:D])
        for kind in ("learned", "paper"):
            found, error = gaussian_oracle.floor(chain, MEAN[None, :D], SCALE[:D], kind, each=32)
            np.testing.assert_allclose(found, D * gaussian.entropy(1.0) + np.log(SCALE[:D]).sum(), rtol=1e-10)
            assert error < 1e-10


def test_points_have_no_floor_where_the_last_step_is_learned():
    chain = pair_chain("paper", 4, 0.0)
    assert all(math.isnan(number) for number in gaussian_oracle.floor(chain, PAIR, 0.0, "learned", each=16))


def test_eight_gaussians_come_down_to_their_entropy():
    """2.8319 nats by the specification: a chain of 1000 steps is .002 above it or less, fewer steps cost more."""
    angle = np.arange(8) * np.pi / 4
    centres, sd = 4 / 1.414 * np.stack([np.cos(angle), np.sin(angle)], axis=1), 0.5 / 1.414
    scale = np.sqrt((centres**2).mean(0) + sd**2)
    costs = {}
    for T in (5, 40, 1000):
        costs[T], error = gaussian_oracle.floor(make_chain("logsnr", T, np.zeros(2), scale), centres, sd, each=1024)
        assert error < 0.01
    assert costs[5] > costs[40] + 0.5 > costs[1000] + 0.5 and abs(costs[1000] - 2.8319) < 0.01
    # for any data the steps cost at most D (e^delta - 1)(1 + Lambda) / 2 more than the entropy
    width = math.log(1e5) + 9
    for T, cost in costs.items():
        assert 2.8319 - 0.02 < cost < 2.8319 + math.expm1(width / (T - 1)) * (1 + width) + 0.01


def test_the_ceiling_of_the_papers_roll():
    """K of a curve without noise at beta_1 = 1e-2: -2.398 bits by the specification, less what 100 steps cost."""
    tau = 1.5 * np.pi * (1 + 2 * (np.arange(1024) + 0.5) / 1024)
    roll = np.stack([tau * np.sin(tau), -tau * np.cos(tau)], axis=1)
    chain = make_chain("logsnr", 100, roll.mean(0), roll.std(0), 1e-2)
    nats, error = gaussian_oracle.floor(chain, roll, 0.0, "paper", each=64)
    K = -(nats - np.log(chain.scale).sum()) / math.log(2)
    assert error < 0.03 and -2.398 - 0.15 < K < -2.398 + 0.05


def test_many_centres_take_little_memory():
    """32768 of them, below 64 MB."""
    centres = np.random.default_rng(0).standard_normal((32768, 2))
    chain = make_chain("paper", 2, np.zeros(2), np.ones(2))
    tracemalloc.start()
    gaussian_oracle.floor_per_step(chain, centres, 0.1, each=512)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64e6
