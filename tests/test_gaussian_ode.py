"""DDIM and the probability-flow ODE: exact for a normal law, of second order, against the density of a mixture, and
with any network a density that integrates to 1; DDIM's steps against the ancestral ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bdiff_np import config, rng
from bdiff_np.diffusion import gaussian, gaussian_ode, gaussian_oracle
from bdiff_np.diffusion.gaussian import PREDICT, make_chain
from bdiff_np.errors import InputError
from bdiff_np.model import Model
from bdiff_np.rng import Key

MEAN, SCALE = np.array([0.5, -2.0]), np.array([2.0, 0.3])
PAIR, SHARES = np.array([[-1.0], [2.0]]), np.array([2.0, 1.0])


def outputs(chain, u, x_t, t):
    """What each `predict` must put out to say that x_0 is u."""
    s, n, root = (np.sqrt(column[t, None]) for column in (chain.alpha_bar, 1 - chain.alpha_bar, chain.beta))
    noise, mean = (x_t - s * u) / n, gaussian.posterior(chain, chain.mean + chain.scale * u, x_t, t)[0]
    forward = (mean - np.sqrt(1 - root**2) * x_t) / root
    return {"x0": u, "noise": noise, "v": s * noise - n * u, "forward": forward}


def of_law(chain, predict, denoise):
    """The ideal network of a law. denoise(x_t, t) : mean of u"""
    return lambda x_t, t: outputs(chain, denoise(x_t, t), x_t, t)[predict]


def normal_law(chain, predict, variance=1.0):
    def denoise(x_t, t):
        left = chain.alpha_bar[t, None]
        return np.sqrt(left) * variance * x_t / (left * variance + 1 - left)

    return of_law(chain, predict, denoise)


def mixture(T, sd=0.5):
    """Chain of a law of two normals, its ideal network, rows, and their log densities."""
    chain = make_chain("logsnr", T, np.zeros(1), np.full(1, math.sqrt(2 + sd**2)))
    network = of_law(chain, "v", lambda x, t: gaussian_oracle.denoise(chain, PAIR, sd, x, t, SHARES)[0])
    x = np.linspace(-3, 4, 29)[:, None]
    law = (SHARES / 3 * np.exp(-((x - PAIR[:, 0]) ** 2) / (2 * sd**2))).sum(1) / (sd * math.sqrt(2 * math.pi))
    return chain, network, x, np.log(law)


def model_of(D=2, T=30, seed=0, spread=0.3, dtype=np.float32, **values):
    """A Gaussian model whose network has random weights."""
    made = config.of({"family": "gaussian", "T": T, "hidden": [16], "time_features": 4, **values})
    chain = make_chain("logsnr", T, MEAN[:D], SCALE[:D], n=made.model.waves)
    model = Model.build(made, D, chain, dtype=dtype)
    model.params.fill(model.net.init(seed))
    model.params.flat[...] += spread * np.random.default_rng(seed).standard_normal(model.params.flat.shape)
    return model


@pytest.mark.parametrize("predict", PREDICT)
def test_the_output_says_u(predict):
    chain, generator = make_chain("paper", 9, MEAN, SCALE), np.random.default_rng(0)
    u, x_t, t = generator.normal(size=(9, 2)), generator.normal(size=(9, 2)), np.arange(1, 10)
    out = np.concatenate([outputs(chain, u, x_t, t)[predict], generator.normal(size=(9, 2))], axis=1)
    np.testing.assert_allclose(gaussian.clean(chain, predict, out, x_t, t), u, rtol=1e-9, atol=1e-9)


# The ODE
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule, T", [("logsnr", 1000), ("logsnr", 7), ("paper", 20), ("cosine", 20), ("linear", 1)])
def test_of_a_normal_law_it_is_the_density(schedule, T):
    """Nothing moves: exact for every chain, from any number of steps, in the units of the data."""
    chain, x0 = make_chain(schedule, T, MEAN, SCALE), MEAN + SCALE * np.random.default_rng(0).normal(size=(9, 2))
    for predict in PREDICT if T < 100 else ["v"]:
        for steps in (None, T // 2) if T > 1 else (None,):
            found = gaussian_ode.log_density(chain, predict, normal_law(chain, predict), x0, steps)
            np.testing.assert_allclose(found, -gaussian.null_bound(chain, x0), rtol=1e-7)
    zeros = gaussian_ode.log_density(chain, "v", lambda x, t: np.zeros((len(x), 4)), x0)
    np.testing.assert_allclose(zeros, -gaussian.null_bound(chain, x0), rtol=1e-12)


@pytest.mark.parametrize("variance", [0.01, 4.0])
def test_the_order_is_the_second(variance):
    """Of a normal law of another variance the ODE is linear, and solved by the ratio of the standard deviations."""
    x0, errors = np.array([[0.0], [0.1], [-0.3]]), []
    for T in (201, 401, 801):
        chain = make_chain("logsnr", T, np.zeros(1), np.ones(1))
        found = gaussian_ode.log_density(chain, "x0", normal_law(chain, "x0", variance), x0)
        first, last = (1 - left + left * variance for left in chain.alpha_bar[[1, -1]])
        exact = -0.5 * (gaussian.LOG_2PI + x0[:, 0] ** 2 * last / first - np.log(last / first))
        errors.append(np.abs(found - exact).max())
    assert errors[0] < 0.005
    np.testing.assert_allclose(np.array(errors[:-1]) / errors[1:], 4, rtol=0.1)
    law = -0.5 * (gaussian.LOG_2PI + x0[:, 0] ** 2 / variance + np.log(variance))
    np.testing.assert_allclose(found, law, atol=6e-3)  # .01 is blurred by beta_1


def test_of_a_mixture_it_is_the_density():
    """And the error falls as the square of the steps, by their differences too."""
    found = [gaussian_ode.log_density(*mixture(T)[:1], "v", *mixture(T)[1:3]) for T in (251, 501, 1001)]
    errors = [np.abs(values - mixture(9)[3]).max() for values in found]
    assert errors[2] < 1e-3 and errors[2] < errors[1] < errors[0]
    ratio = np.abs(found[0] - found[1]).max() / np.abs(found[1] - found[2]).max()
    assert 3.5 < ratio < 4.5


@pytest.mark.parametrize("waves", [0, 2])
def test_of_any_network_it_integrates_to_one(waves):
    """In the plane, in the units of the data: over 16 standard deviations each way, to the error of the steps."""
    model = model_of(T=60, spread=0.1, waves=waves)
    axes = [mean + scale * np.linspace(-8, 8, 65) for mean, scale in zip(MEAN, SCALE)]
    rows = np.stack(np.meshgrid(*axes, indexing="ij"), axis=2).reshape(-1, 2)
    found = gaussian_ode.log_likelihood(model, rows)
    assert abs(np.exp(found).sum() * math.prod(axis[1] - axis[0] for axis in axes) - 1) < 1e-4
    near = np.abs((rows - MEAN) / SCALE).max(1) < 2
    assert np.abs(found + gaussian.null_bound(model.chain, rows))[near].max() > 0.5  # it is no normal law


def test_of_a_model_it_is_that_of_its_network():
    """In float64, by blocks of rows, with fewer steps nearly the same, nothing written."""
    model = model_of(D=1, T=200)
    rows = np.linspace(-3, 3, gaussian_ode.ROWS + 3)[:, None]
    kept = rows.copy(), model.params.flat.copy()
    found = gaussian_ode.log_likelihood(model, rows, 40)
    for part in (slice(5), slice(-2, None)):
        np.testing.assert_allclose(found[part], gaussian_ode.log_likelihood(model, rows[part], 40), rtol=1e-6)
    some = np.abs(rows[:, 0]) < 0.002
    np.testing.assert_allclose(found[some], gaussian_ode.log_likelihood(model, rows[some]), atol=0.02)
    for before, after in zip(kept, (rows, model.params.flat)):
        np.testing.assert_array_equal(before, after)


def test_faults():
    model = model_of(T=5)
    for steps in (0, 5):
        with pytest.raises(ValueError, match=f"{steps} steps from 1 to 5"):
            gaussian_ode.log_likelihood(model, np.zeros((2, 2)), steps)
    with pytest.raises(ValueError, match=r"rows of shape \(2, 3\), expected \(N, 2\)"):
        gaussian_ode.log_likelihood(model, np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"eta = 1.1 is not between 0 and 1"):
        gaussian_ode.ddim(model, 3, eta=1.1)
    with pytest.raises(InputError, match="the model has 5 steps"):
        gaussian_ode.ddim(model, 3, steps=6)


# DDIM
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [50, 100, 200])
def test_of_a_normal_law_ddim_shrinks_the_prior_a_little(T):
    """Without noise each step multiplies by the cosine of the angle that it goes: one to one, and of first order."""
    model = model_of(T=T, spread=0.0)
    n = gaussian_ode.ROWS + 5
    rows = gaussian_ode.ddim(model, n, seed=3)
    angle = np.arccos(np.sqrt(model.chain.alpha_bar))
    prior = rng.normals(Key(3, rng.PRIOR, 0), n, 2)
    factor = np.cos(np.diff(angle)).prod()
    np.testing.assert_allclose((rows - MEAN) / SCALE, factor * prior, rtol=1e-5, atol=1e-6)
    assert T * (1 - factor) == pytest.approx(2.4, rel=0.2)
    standard = (rows - MEAN) / SCALE / factor
    assert np.abs(standard.mean(0)).max() < 0.08 and np.abs(standard.std(0) - 1).max() < 0.06
    np.testing.assert_array_equal(gaussian_ode.ddim(model, 7, seed=3), rows[:7])
    assert not np.array_equal(gaussian_ode.ddim(model, 7, seed=4), rows[:7])


@pytest.mark.parametrize("predict", PREDICT)
def test_with_eta_1_a_step_is_the_ancestral_one(predict):
    """With the posterior's variance, on the same noise; at t = 1 the mean alone."""
    generator = np.random.default_rng(0)
    for schedule in ("logsnr", "paper", "cosine"):
        chain, t = make_chain(schedule, 12, MEAN, SCALE), np.arange(1, 13)
        out, x_t, noise = generator.normal(size=(3, 12, 2))
        mean, variance = gaussian.reverse(chain, predict, "posterior", out, x_t, t)
        expected = mean + np.where(t[:, None] > 1, np.sqrt(variance), 0) * noise
        u = gaussian.clean(chain, predict, out, x_t, t)
        np.testing.assert_allclose(gaussian_ode.ddim_step(chain, u, x_t, t, 1.0, noise), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("steps", [None, 10])
def test_with_eta_1_it_draws_what_sampling_draws(steps):
    """But for the noise of the last step."""
    model = model_of(variance="posterior", dtype=np.float64)
    beta = model.steps(steps).beta[1]
    last = SCALE * math.sqrt(beta) * rng.normals(Key(5, rng.P_NOISE, 1), 50, 2)
    found = gaussian_ode.ddim(model, 50, seed=5, steps=steps, eta=1.0) + last
    np.testing.assert_allclose(found, model.sample(50, 5, steps), atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_of_a_mixture_it_draws_the_mixture(eta):
    """Shares and moments of 4000 rows. Without noise the map from the prior is one to one: on a line it keeps order."""
    chain, network, *_ = mixture(200)
    model = model_of(D=1, T=200, dtype=np.float64)
    model.chain, model.output = chain, network
    rows = gaussian_ode.ddim(model, 4000, seed=1, eta=eta)
    left = rows < 0.5
    assert abs(left.mean() - 2 / 3) < 0.03
    for part, centre in ((rows[left], -1), (rows[~left], 2)):
        assert abs(part.mean() - centre) < 0.06 and abs(part.std() - 0.5) < 0.05
    order = np.argsort(rng.normals(Key(1, rng.PRIOR, 0), 4000, 1)[:, 0])
    assert bool(np.all(np.diff(rows[order, 0]) > 0)) == (eta == 0)
