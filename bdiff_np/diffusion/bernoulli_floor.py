"""The exact floor of the bound: what the best factorised reverse chain would pay for a finite set of rows.

Rows uniform over N different ones have log N nats of entropy, and no bound lies below. A chain of T steps pays a little
more, since within a step it treats bits as independent. That little is estimated here on its own: in continuous time
the oracle's cost is the entropy exactly (derivation, section 10), so the difference between its cost in T steps and in
continuous time, taken on the same paths, is all that is left to chance. It is small, and so is its error.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bdiff_np import rng
from bdiff_np.diffusion.bernoulli import Chain, oracle_at, q_flip, q_marginal, sigmoid, softplus
from bdiff_np.rng import Key, Sequence

BATCH = 2048
LEAST = 1e-290  # a probability below which float64 loses digits


def floor(chain: Chain, population: np.ndarray, seed: int = 0, evaluations: int | None = None) -> tuple[float, float]:
    """Lowest bound, last step learned, of any factorised reverse chain, in nats per row, and its standard error.

    population : (N, D) bits, different rows, all equally likely. Cost: evaluations * N * D multiplications
    evaluations : steps looked at; by default 2**17, and 2**15 for a population of more than 2048 bits
    Raises ValueError for a chain that keeps some signal at T: its continuous cost is not the entropy.
    """
    if chain.alpha_bar[-1] > 0:
        raise ValueError("the floor is known only for a chain that ends without signal, alpha_bar_T = 0")
    N = len(population)
    if evaluations is None:
        evaluations = 1 << 17 if population.size <= 2048 else 1 << 15
    generator = Sequence(Key(seed, rng.FLOOR, 0))
    means = []
    for _ in range(max(2, evaluations // BATCH)):
        t = 1 + ((np.arange(BATCH) + generator.random()) * chain.T / BATCH).astype(np.int64)
        x0 = population[(generator.permutation(BATCH) + generator.integers(N, 1)) % N]
        means.append(np.mean(_excess(chain, population, x0, t, generator)) * chain.T)
    return float(np.log(N) + np.mean(means)), float(np.std(means, ddof=1) / len(means) ** 0.5)


def excess(
    chain: Chain, population: np.ndarray, logits: Callable, seed: int = 0, evaluations: int = 1 << 17
) -> tuple[float, float]:
    """How far a model that predicts x_0 lies above the floor, in nats per row, and the standard error.

    It is the mean KL from the oracle's reverse step to the model's. The noise of the floor itself is not in it, so
    small differences between models show with few evaluations.

    population : (N, D) bits, different rows, all equally likely
    logits : (x_t (B, D), t (B,)) -> (B, D), of x_0 = 1, evidence included
    """
    generator = Sequence(Key(seed, rng.FLOOR_EXCESS, 0))
    means = []
    for _ in range(max(2, evaluations // BATCH)):
        t = 1 + ((np.arange(BATCH) + generator.random()) * chain.T / BATCH).astype(np.int64)
        _, x_t = _draw(chain, population, t, generator)
        law, best = q_flip(chain, x_t, t), _agreement(chain.signal(t)[1], chain.pi, population, x_t)
        means.append(chain.T * float(_kl_from_oracle(law, best, x_t, logits(x_t, t)).mean()))
    return float(np.mean(means)), float(np.std(means, ddof=1) / len(means) ** 0.5)


def kl_per_step(
    chain: Chain, population: np.ndarray, logits: Callable, seed: int = 0, each: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Mean KL of each step t = 1..T, of a model and of the oracle, each (T,) nats per row, from the same `each` draws
    of x_t per step.

    logits : as in `excess`
    """
    generator = Sequence(Key(seed, rng.FLOOR_STEPS, 0))
    model, oracle = np.zeros(chain.T + 1), np.zeros(chain.T + 1)
    every = np.repeat(np.arange(1, chain.T + 1), each)
    for t in np.array_split(every, max(1, len(every) // BATCH)):
        _, x_t = _draw(chain, population, t, generator)
        law, a = q_flip(chain, x_t, t), _agreement(chain.signal(t)[1], chain.pi, population, x_t)
        least = (_spread(a, law.agree, law.disagree) + _spread(a, law.not_agree, law.not_disagree)).sum(1)
        np.add.at(oracle, t, least)
        np.add.at(model, t, least + _kl_from_oracle(law, a, x_t, logits(x_t, t)))
    return model[1:] / each, oracle[1:] / each


def last_step(chain: Chain, population: np.ndarray, seed: int = 0, groups: int = 16) -> tuple[float, float]:
    """The oracle's E[-log p(x_0 | x_1)] in nats per row, and its standard error; at t = 1 nearly nothing is left to
    chance."""
    generator = Sequence(Key(seed, rng.FLOOR_LAST, 0))
    means = []
    for _ in range(groups):
        t = np.ones(BATCH, int)
        x0, x_1 = _draw(chain, population, t, generator)
        logit = oracle_at(chain.signal(t)[1], chain.pi, population, x_1)
        means.append(softplus(np.where(x0 != 0, -logit, logit)).sum(1).mean())
    return float(np.mean(means)), float(np.std(means, ddof=1) / groups**0.5)


def _draw(chain: Chain, population: np.ndarray, t: np.ndarray, generator: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """x_0 uniform over the population and x_t ~ q(x_t | x_0), each (B, D), for t (B,)."""
    x0 = population[generator.integers(len(population), len(t))]
    return x0, (generator.random(x0.shape) < q_marginal(chain, x0, t)).astype(np.uint8)


def _kl_from_oracle(law, best: tuple[np.ndarray, np.ndarray], x_t: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """KL from the oracle's reverse step to that of logits of x_0 = 1, (B,) nats; infinite only beyond float64.
    best : as `_agreement` gives it"""
    own = np.where(x_t != 0, 1.0, -1.0) * logits.astype(np.float64)
    guess, log_guess = (sigmoid(own), sigmoid(-own)), (-softplus(-own), -softplus(own))
    total = np.zeros(len(x_t))
    for agree, disagree in ((law.agree, law.disagree), (law.not_agree, law.not_disagree)):
        q, p = best[0] * agree + best[1] * disagree, guess[0] * agree + guess[1] * disagree
        with np.errstate(divide="ignore"):
            # a network that is very sure leaves less than float64 can say; its logarithm can be said
            log_p = np.where(
                p > LEAST, np.log(p), np.logaddexp(log_guess[0] + np.log(agree), log_guess[1] + np.log(disagree))
            )
        used = q > 0
        total += np.where(used, q * (np.log(np.where(used, q, 1)) - np.where(used, log_p, 0)), 0.0).sum(1)
    return total


def _excess(chain: Chain, population: np.ndarray, x0: np.ndarray, t: np.ndarray, generator: Sequence) -> np.ndarray:
    """Cost of step t in nats, (B,), less the continuous cost of the same stretch of time on the same path."""
    ab_s, ab_t = chain.signal(t)
    middle = ab_t + (ab_s - ab_t) * (1 - generator.random((len(t), 1)))  # a moment within the step, where alpha_bar > 0
    x = (generator.random(x0.shape) < middle * x0 + (1 - middle) * chain.pi).astype(np.uint8)
    redrawn = (generator.random(x0.shape) < chain.pi).astype(np.uint8)
    x_t = np.where(generator.random(x0.shape) < ab_t / middle, x, redrawn)

    pi_v = np.where(x != 0, chain.pi, 1 - chain.pi)
    # rates of a flip per unit of alpha_bar
    agree = pi_v * (1 - middle) * (1 - pi_v) / ((middle + (1 - middle) * pi_v) * middle)
    disagree = (middle + (1 - middle) * (1 - pi_v)) / ((1 - middle) * middle)
    continuous = (ab_s - ab_t) * _spread(_agreement(middle, chain.pi, population, x), agree, disagree)

    law, a = q_flip(chain, x_t, t), _agreement(chain.signal(t)[1], chain.pi, population, x_t)
    step = _spread(a, law.agree, law.disagree) + _spread(a, law.not_agree, law.not_disagree)
    return (step - continuous).sum(1)


def _agreement(
    alpha_bar: np.ndarray, pi: np.ndarray, population: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """P(x_0 = x | x) and P(x_0 != x | x) for each bit, (B, D), by the oracle, for rows with signal alpha_bar (B, 1)."""
    logit = np.where(x != 0, 1.0, -1.0) * oracle_at(alpha_bar, pi, population, x)
    return sigmoid(logit), sigmoid(-logit)


def _spread(weights: tuple[np.ndarray, np.ndarray], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """E[r log(r / E r)] of a quantity r that is `first` or `second` with these weights, 0 log 0 = 0."""
    mean = weights[0] * first + weights[1] * second
    total = np.zeros_like(mean)
    for weight, r in zip(weights, (first, second)):
        used = (weight > 0) & (r > 0)
        total[used] += (weight * r * np.log(np.where(used, r, 1) / np.where(used, mean, 1)))[used]
    return total
