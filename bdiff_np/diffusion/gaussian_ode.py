"""What the network of a Gaussian model says beside its reverse chain: rows by DDIM, and the likelihood of the
probability-flow ODE. Both ask it at whole t only, and neither uses a learned variance.

Song, Meng, Ermon 2021 (DDIM), Song et al. 2021 (the ODE); derivation_gaussian, section 12. The likelihood is that of
another model than the reverse chain, with the same network: a check on the bound, and no bound. The two agree as far as
the network is ideal and the steps are fine.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bdiff_np import rng
from bdiff_np.diffusion import gaussian
from bdiff_np.diffusion.gaussian import LOG_2PI, Chain
from bdiff_np.rng import Key

Network = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (x_t (B, D), t (B,) as the network gets it) -> out (B, M)
ROWS = 4096  # rows that meet the network together
STEP = 1e-4  # of a central difference, in units of the noise in x_t: its error is about STEP^2


def ddim(model, n: int, *, seed: int = 0, steps: int | None = None, eta: float = 0.0) -> np.ndarray:
    """n rows of a trained Gaussian model (model.Model), (n, D) float64 in the data's units. Row i depends on the seed,
    on i and on `steps` and `eta` alone; prior and noise are those of Model.sample.

    steps : how many of the chain's T steps to take, all for None. eta : see `ddim_step`
    Raises ValueError unless 0 <= eta <= 1, InputError for steps that the chain has not.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta} is not between 0 and 1")
    chain, network, rows = model.steps(steps), _network(model), np.empty((n, model.D))
    for first in range(0, n, ROWS):
        count = min(ROWS, n - first)
        x = rng.normals(Key(seed, rng.PRIOR, 0), count, model.D, first)
        for t in range(chain.T, 0, -1):
            every = np.full(count, t)
            whole = chain.time[every]  # t in the model's own chain, where each output has its meaning
            u = gaussian.clean(model.chain, model.config.model.predict, network(x, whole), x, whole)
            x = ddim_step(chain, u, x, every, eta, rng.normals(Key(seed, rng.P_NOISE, t), count, model.D, first))
        rows[first : first + count] = model.family.to_data(chain, x)
    return rows


def ddim_step(chain: Chain, u: np.ndarray, x_t: np.ndarray, t: np.ndarray, eta: float, noise: np.ndarray) -> np.ndarray:
    """x_{t-1} (B, D), given what the network takes for u (B, D), by equation 12 of Song, Meng, Ermon 2021.

    eta : 0, nothing is random; 1, the ancestral step with the posterior's variance, which is 0 at t = 1
    noise : (B, D) standard normal
    """
    now, before = chain.alpha_bar[t, None], chain.alpha_bar[t - 1, None]
    variance = eta**2 * chain.posterior_variance[t, None]
    said = (x_t - np.sqrt(now) * u) / np.sqrt(1 - now)  # the noise in x_t, if u is right
    return np.sqrt(before) * u + np.sqrt(1 - before - variance) * said + np.sqrt(variance) * noise


def log_likelihood(model, rows: np.ndarray, steps: int | None = None) -> np.ndarray:
    """log p(row) by the probability-flow ODE of a trained Gaussian model (model.Model), (N,) nats, for rows (N, D) in
    the data's units; see `log_density`. The network is asked in float64, 2 D + 2 times a step."""
    rows = np.asarray(rows, float)
    if rows.ndim != 2 or rows.shape[1] != model.D:
        raise ValueError(f"rows of shape {rows.shape}, expected (N, {model.D})")
    exact = type(model).build(model.config, model.D, model.chain, code=model.net.path, dtype=np.float64)
    exact.params.flat[...] = model.ops.to_host(model.params.flat)
    network, values = _network(exact), np.empty(len(rows))
    for first in range(0, len(rows), ROWS):
        part = slice(first, first + ROWS)
        values[part] = log_density(model.chain, model.config.model.predict, network, rows[part], steps)
    return values


def log_density(chain: Chain, predict: str, network: Network, x0: np.ndarray, steps: int | None = None) -> np.ndarray:
    """log p(x_0), (N,) nats, of the law that the ODE makes of x_T ~ N(0, I), for x0 (N, D) in the data's units.

    dx / dr = s (s x - u(x, t)) is followed from x_1 = u at t = 1 to T in r = log(1 / alpha_bar - 1) / 2 by Heun's
    method, its divergence by central differences: an error of second order in the steps of r. Before t = 1 nothing is
    done: it is the density of x_1, of data blurred by beta_1.

    steps : from 1 to T, at whole t; 1 .. T - 1, all of them for None
    """
    if steps is not None and not 1 <= steps < chain.T:
        raise ValueError(f"{steps} steps from 1 to {chain.T}")
    times = np.round(np.linspace(1, chain.T, (steps or chain.T - 1) + 1)).astype(int)
    x, grown = gaussian.standard(chain, x0), np.zeros(len(x0))

    def velocity(x: np.ndarray, t: int) -> np.ndarray:
        every, s = np.full(len(x), t), np.sqrt(chain.alpha_bar[t])
        return s * (s * x - gaussian.clean(chain, predict, network(x, chain.time[every]), x, every))

    def divergence(x: np.ndarray, t: int) -> np.ndarray:
        total, size = np.zeros(len(x)), STEP * np.sqrt(1 - chain.alpha_bar[t])
        for d, axis in enumerate(np.eye(x.shape[1])):
            above, below = x + size * axis, x - size * axis
            total += (velocity(above, t) - velocity(below, t))[:, d] / (above - below)[:, d]
        return total

    r = 0.5 * (np.log1p(-chain.alpha_bar[times]) - np.log(chain.alpha_bar[times]))
    now, spread = velocity(x, 1), divergence(x, 1)
    for t, step in zip(times[1:], np.diff(r)):
        x = x + step / 2 * (now + velocity(x + step * now, t))
        now, before, spread = velocity(x, t), spread, divergence(x, t)
        grown = grown + step / 2 * (before + spread)
    return grown - 0.5 * (LOG_2PI + x**2).sum(1) - np.log(chain.scale).sum()


def _network(model) -> Network:
    """The network of a model, from host arrays to host arrays."""
    ops = model.ops

    def network(x_t: np.ndarray, t: np.ndarray) -> np.ndarray:
        with model.threads:
            return ops.to_host(model.output(ops.asarray(x_t, model.net.dtype), ops.asarray(t)))

    return network
