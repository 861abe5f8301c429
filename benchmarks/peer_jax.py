"""The training step and the sampler in JAX, as a skilled user writes them: a pure step on donated buffers, and loops
that never leave the device."""

from __future__ import annotations

from functools import partial

import contestants
import families
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

# Notation: `c` is a family's table, of all steps (K + 1,), at each row's t (B, 1), or of one step (). A family's
# `target` is what its loss compares the network's output with.


class Bits:
    """A bit is 0 or 1."""

    def __init__(self, family: families.Bits):
        self.auxiliary = family.auxiliary

    def data(self, rows: np.ndarray):
        """(N, D) as x is."""
        return jnp.asarray(rows)

    def rows(self, x) -> np.ndarray:
        """The reverse of `data`."""
        return np.asarray(x)

    def given(self, chain: families.BitSteps, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray):
        """x_t and target of `noisy`, for noise that is known."""
        return x_t, x0

    def shown(self, x_t):
        """What the network reads."""
        return x_t.astype(jnp.float32) * 2 - 1

    def noisy(self, key, x0, c: families.BitSteps):
        """x_t, and x0 as the target."""
        return x0 ^ (jax.random.uniform(key, x0.shape) < c.noise), x0

    def loss(self, out, x_t, x0, c: families.BitSteps):
        """What is differentiated, and the cross entropy of the reverse step; summed, in nats."""
        z = self.shown(x_t) * out + c.own  # logit of x_0 = x_t
        a, b, same = jax.nn.sigmoid(z), jax.nn.sigmoid(-z), x0 == x_t
        q, not_q = jnp.where(same, c.agree, c.disagree), jnp.where(same, c.not_agree, c.not_disagree)
        flips, stays = c.agree + b * (c.disagree - c.agree), c.not_disagree + a * (c.not_agree - c.not_disagree)
        cross = -(q * jnp.log(flips) + not_q * jnp.log(stays)).sum()
        return cross - self.auxiliary * jnp.log(jnp.where(same, a, b)).sum(), cross

    def prior(self, key, n: int, D: int):
        """x_T."""
        return jax.random.bernoulli(key, 0.5, (n, D)).astype(jnp.uint8)

    def back(self, key, out, x, c: families.BitSteps):
        """x_{t-1} from x_t."""
        b = jax.nn.sigmoid(-(self.shown(x) * out + c.own))
        return x ^ (jax.random.uniform(key, x.shape) < c.agree + b * (c.disagree - c.agree))


class Points:
    """Methods: Bits. The target is v."""

    def __init__(self, family: families.Points):
        self.family = family

    def data(self, rows: np.ndarray):
        return jnp.asarray(self.family.standard(rows), jnp.float32)

    def rows(self, x) -> np.ndarray:
        return np.asarray(x) * self.family.scale + self.family.mean

    def given(self, chain: families.PointSteps, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray):
        return x_t, self.family.target(chain, x0, x_t, t).astype(np.float32)

    def shown(self, x_t):
        return x_t

    def noisy(self, key, x0, c: families.PointSteps):
        noise = jax.random.normal(key, x0.shape)
        return c.s * x0 + c.n * noise, c.s * noise - c.n * x0

    def loss(self, out, x_t, v, c: families.PointSteps):
        mean, w = self.split(out, c)
        nats = ((c.rho + c.k * (mean - v) ** 2) * w - jnp.log(w)).sum() / 2
        return nats, nats

    def prior(self, key, n: int, D: int):
        return jax.random.normal(key, (n, D))

    def back(self, key, out, x, c: families.PointSteps):
        mean, w = self.split(out, c)
        return c.a * x + c.c * mean + c.sigma * jax.lax.rsqrt(w) * jax.random.normal(key, x.shape)

    def split(self, out, c: families.PointSteps):
        """What stands for the mean, and beta / variance."""
        mean, z = jnp.split(out, 2, axis=1)
        return mean, c.beta + (1 - c.beta) * jnp.exp(-self.family.root * z)


FAMILIES = {"bernoulli": Bits, "gaussian": Points}


class Jax:
    """mode : "jit", one compiled step a call; "scan", one compiled loop over all steps of a call.

    The loop is fori_loop, which takes as long as lax.scan here and need not be compiled for each number of steps.
    """

    def __init__(self, problem: contestants.Problem, mode: str, threads: int):
        self.problem, self.mode = problem, mode
        jax.config.update(
            "jax_default_prng_impl", "unsafe_rbg" if threads > 1 else "threefry2x32"
        )  # whichever is faster, by some 5 % of a step
        self.family = FAMILIES[problem.family.name](problem.family)
        self.chain, self.rows = jax.tree.map(jnp.asarray, problem.chain), self.family.data(problem.rows)
        # One flat buffer makes the optimiser one loop, which pays while a call costs more than memory.
        self.start, self.unflatten = ravel_pytree({name: jnp.asarray(value) for name, value in problem.weights.items()})
        self.decayed = ravel_pytree(
            {name: jnp.full(value.shape, float(problem.decayed[name])) for name, value in problem.weights.items()}
        )[0]
        zeros = jnp.zeros_like(self.start)
        self.state = (self.start + 0, zeros, zeros + 0, self.start + 0, jnp.int32(0), jax.random.key(contestants.SEED))
        if mode == "jit":
            self.step = jax.jit(self._step, donate_argnums=0)
        else:
            self.loop = jax.jit(
                lambda state, steps: jax.lax.fori_loop(0, steps, lambda _, s: self._step(s), state), donate_argnums=0
            )

    def forward(self, w, x_t, features):
        y = self.family.shown(x_t)
        for k, H in enumerate(self.problem.size.hidden):
            F = w[f"dense{k}/F"]  # cut before the product: the gradient of a slice of activations is slow
            y = jax.nn.silu((y @ w[f"dense{k}/W"] + w[f"dense{k}/b"]) * (1 + features @ F[:, :H]) + features @ F[:, H:])
        return y @ w["out/W"] + w["out/b"]

    def loss(self, flat, x_t, target, c):
        """The scaled loss less what no weight changes, and what stands in it of the bound, summed, in nats."""
        out = self.forward(self.unflatten(flat), x_t, c.features)
        nats, bound = self.family.loss(out, x_t, target, c)
        return nats * self.problem.scale, bound

    def loss_and_grads(self, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        batch = *self.family.given(self.problem.chain, x0, x_t, t), self.at(t)
        (_, bound), grad = jax.jit(jax.value_and_grad(self.loss, has_aux=True))(self.start, *batch)
        named = {name: np.asarray(value) for name, value in self.unflatten(grad).items()}
        return self.problem.nats(float(bound), x0, x_t, t), named

    def at(self, t):
        """The tables at each row's t (B,), (B, 1) or, of the features, (B, F)."""
        return jax.tree.map(lambda column: column[t].reshape(len(t), -1), self.chain)

    def batch(self, key):
        """x_t and the loss's target (B, D), and the tables at t."""
        B, T = self.problem.size.batch, self.problem.T
        which, when, noise = jax.random.split(key, 3)
        x0 = self.rows[jax.random.bits(which, (B,)) % len(self.rows)]
        c = self.at(1 + (jnp.arange(B) * T + jax.random.randint(when, (), 0, T)) // B)
        return *self.family.noisy(noise, x0, c), c

    def _step(self, state):
        s = self.problem.optimizer
        flat, m, v, ema, taken, key = state
        taken, k = taken + 1, (taken + 1).astype(jnp.float32)
        grad, _ = jax.grad(self.loss, has_aux=True)(flat, *self.batch(jax.random.fold_in(key, taken)))
        grad *= jnp.minimum(1, s.clip / jnp.sqrt(jnp.vdot(grad, grad)))
        rate = (
            s.lr * jnp.minimum(1, k / s.warmup_steps) * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(1, k / s.total_steps)))
        )
        m += (1 - s.beta1) * (grad - m)
        v += (1 - s.beta2) * (grad * grad - v)
        change = rate / (1 - s.beta1**k) * m / (jnp.sqrt(v) / jnp.sqrt(1 - s.beta2**k) + s.eps)
        flat = flat * (1 - rate * s.weight_decay * self.decayed) - change
        ema += (1 - jnp.minimum(s.ema, (1 + k) / (10 + k))) * (flat - ema)
        return flat, m, v, ema, taken, key

    def run(self, steps: int) -> None:
        if self.mode == "jit":
            for _ in range(steps):
                self.state = self.step(self.state)
        else:
            self.state = self.loop(self.state, steps)
        jax.block_until_ready(self.state)

    def weights(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(value) for name, value in self.unflatten(self.state[3]).items()}

    def sample(self, n: int, steps: int) -> np.ndarray:
        chain = jax.tree.map(jnp.asarray, self.problem.chains[steps])
        return self.family.rows(self._chain(self.state[0], chain, jax.random.key(contestants.SEED), n))

    @partial(jax.jit, static_argnums=(0, 4))
    def _chain(self, flat, chain, key, n):
        """n rows (n, D). What the time does to the units is worked out for all steps at once."""
        w, films = self.unflatten(flat), []
        for k, H in enumerate(self.problem.size.hidden):
            scale, shift = jnp.split(chain.features @ w[f"dense{k}/F"], [H], axis=1)
            films.append((1 + scale, w[f"dense{k}/b"] * (1 + scale) + shift))

        def back(x, now):
            films, c, key = now
            y = self.family.shown(x)
            for k, (scale, shift) in enumerate(films):
                y = jax.nn.silu((y @ w[f"dense{k}/W"]) * scale + shift)
            return self.family.back(key, y @ w["out/W"] + w["out/b"], x, c), None

        keys = jax.random.split(key, len(chain.features))
        every = jax.tree.map(lambda column: column[:0:-1], (films, chain, keys))
        return jax.lax.scan(back, self.family.prior(keys[0], n, self.problem.size.D), every)[0]
