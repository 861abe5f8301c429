"""Bernoulli diffusion, complete, in plain float64 NumPy: the definition that every kernel and every back end is tested
against.

Notation (docs/derivation.md, section 1). B rows, D bits, T steps; x_t in {0, 1}; time runs t = 1..T and tables have T +
1 entries, entry 0 is the clean data. beta_t: probability that step t throws a bit away and redraws it from the
stationary law B(pi). alpha_bar_t: probability that a bit was never redrawn up to t; beta_bar = 1 - alpha_bar. v = x_t
is the value that a bit shows now; to flip is x_{t-1} != v. pi_v is the stationary probability of v. Probabilities of
flips are built from products and sums of positive numbers only: nothing cancels, and so no clip and no eps is needed
anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

WORD = 2**32  # a random word is uniform over 0 .. WORD - 1

# Schedules
# ----------------------------------------------------------------------------------------------------------------------


def _from_beta(beta: np.ndarray) -> np.ndarray:
    return np.concatenate([[1.0], np.cumprod(1.0 - beta)])


def _from_signal(signal: Callable[[np.ndarray], np.ndarray], T: int) -> np.ndarray:
    """A curve over u = t/T, moved and stretched to run from exactly 1 to exactly 0."""
    value = signal(np.arange(T + 1) / T)
    return (value - value[-1]) / (value[0] - value[-1])


# Each gives alpha_bar, (T + 1,) float64. linear and quadratic have the betas of DDPM (Ho et al. 2020; quadratic in its
# code), from 1e-4 to .02 for T = 1000, scaled by 1000/T to keep the whole chain the same for every T; constant is ours.
# These three leave a trace of the signal, about exp(-10), at T, which the bound accounts for; betas of very short
# chains stop at .999, so that no step but the last erases everything.
SCHEDULES: dict[str, Callable[[int], np.ndarray]] = {
    "paper": lambda T: 1.0 - np.arange(T + 1) / T,  # beta_t = 1/(T - t + 1): erases 1/T of the first signal each step
    "linear": lambda T: _from_beta(np.minimum(np.linspace(1e-4, 0.02, T) * 1000 / T, 0.999)),
    "quadratic": lambda T: _from_beta(np.minimum(np.linspace(1e-4**0.5, 0.02**0.5, T) ** 2 * 1000 / T, 0.999)),
    "constant": lambda T: _from_beta(np.full(T, min(10.0 / T, 0.999))),
    # Nichol and Dhariwal 2021
    "cosine": lambda T: _from_signal(lambda u: np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2, T),
    "sigmoid": lambda T: _from_signal(lambda u: 1 / (1 + np.exp(6 * (2 * u - 1))), T),
}


@dataclass(frozen=True, eq=False)
class Chain:
    """The forward process q: how a bit forgets.

    alpha_bar : (T + 1,) float64, 1 at entry 0, falling, 0 or nearly so at entry T
    pi : float64, () or (D,): stationary probability of a 1, in (0, 1)
    time : (T + 1,) int64, what the network is told as t. 0..T but for a chain with steps left out
    """

    alpha_bar: np.ndarray
    pi: np.ndarray
    time: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self):
        object.__setattr__(self, "pi", np.asarray(self.pi, np.float64))
        if self.time is None:
            object.__setattr__(self, "time", np.arange(len(self.alpha_bar)))
        if not (self.alpha_bar[0] == 1 and np.all(np.diff(self.alpha_bar) < 0) and self.alpha_bar[-1] >= 0):
            raise ValueError("alpha_bar must fall from 1 towards 0, strictly")
        if not np.all((self.pi >= 1 / WORD) & (self.pi <= 1 - 1 / WORD)):
            raise ValueError("pi must lie between 2**-32 and 1 - 2**-32")

    @property
    def T(self) -> int:
        return len(self.alpha_bar) - 1

    def signal(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """alpha_bar before and after step t: two arrays (B, 1) for t (B,)."""
        t = np.asarray(t)
        return self.alpha_bar[t - 1, None], self.alpha_bar[t, None]

    def every(self, K: int) -> Chain:
        """The same process seen at K of its T steps, evenly spread. Jumps t -> s are steps of another chain, by the
        same formulas."""
        if not 1 <= K <= self.T:
            raise ValueError(f"a chain of {self.T} steps has no {K}")
        kept = np.round(np.linspace(0, self.T, K + 1)).astype(np.int64)
        return Chain(self.alpha_bar[kept], self.pi, self.time[kept])


def make_chain(schedule: str, T: int, pi: float | np.ndarray) -> Chain:
    """Chain of a named schedule. Raises KeyError for a name that SCHEDULES lacks."""
    return Chain(SCHEDULES[schedule](T), np.asarray(pi, np.float64))


def data_pi(mean: np.ndarray, N: int) -> np.ndarray:
    """Stationary law from the data's mean per bit, (D,), of N rows.

    A bit that never varies keeps half an observation of doubt: with pi = 0 its noise could not be undone, and one other
    row would have probability zero.
    """
    return np.clip(mean, 0.5 / N, 1 - 0.5 / N)


# Forward process
# ----------------------------------------------------------------------------------------------------------------------


def q_marginal(chain: Chain, x0: np.ndarray, t: np.ndarray) -> np.ndarray:
    """P(x_t = 1 | x_0), (B, D), for bits x0 (B, D) and t (B,) in 0..T. Derivation, section 2."""
    alpha_bar = chain.alpha_bar[np.asarray(t), None]
    return alpha_bar * x0 + (1 - alpha_bar) * chain.pi


def q_sample(chain: Chain, x0: np.ndarray, t: np.ndarray, words: np.ndarray) -> np.ndarray:
    """x_t ~ q(x_t | x_0), (B, D) uint8, from words (B, D) uint32. Integers only, so that every back end draws the same
    bits.

    Derivation, section 14. Each probability is off by less than 2**-31.
    """
    beta_bar, pi = integer_law(chain)
    lost = beta_bar[np.asarray(t), None]
    threshold = (lost * pi) // np.uint64(WORD) + np.where(x0 != 0, np.uint64(WORD) - lost, np.uint64(0))
    return (words < threshold).astype(np.uint8)


def integer_law(chain: Chain) -> tuple[np.ndarray, np.ndarray]:
    """beta_bar (T + 1,) and pi (() or (D,)) in units of 2**-32, uint64."""
    return np.round((1 - chain.alpha_bar) * WORD).astype(np.uint64), np.round(chain.pi * WORD).astype(np.uint64)


class FlipLaw(NamedTuple):
    """q(x_{t-1} != x_t | x_t, x_0) where x_0 agrees with x_t and where it does not; with what each leaves to 1, and
    their difference."""

    agree: np.ndarray
    disagree: np.ndarray
    not_agree: np.ndarray
    not_disagree: np.ndarray
    gap: np.ndarray


def q_flip(chain: Chain, x_t: np.ndarray, t: np.ndarray) -> FlipLaw:
    """The posterior in the flip domain, each (B, D). Derivation, section 3. At t = 1, agree is 0 and disagree is 1."""
    ab_s, ab_t = chain.signal(t)
    bb_s, bb_t = 1 - ab_s, 1 - ab_t
    keep, redraw = ab_t / ab_s, (ab_s - ab_t) / ab_s
    pi_v = np.where(x_t != 0, chain.pi, 1 - chain.pi)
    pi_o = np.where(x_t != 0, 1 - chain.pi, chain.pi)  # of the other value
    still = ab_t + bb_t * pi_v  # 1 - bb_t pi_o: probability of x_t when x_0 agrees
    return FlipLaw(
        agree=bb_s * pi_o * redraw * pi_v / still,
        disagree=(ab_s + bb_s * pi_o) * redraw / bb_t,
        not_agree=(ab_s + bb_s * pi_v) * (keep + redraw * pi_v) / still,
        not_disagree=bb_s * (keep + redraw * pi_v) / bb_t,
        gap=redraw * (ab_s * pi_v + ab_t * pi_o) / (bb_t * still),
    )


def q_posterior(chain: Chain, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray) -> np.ndarray:
    """P(x_{t-1} = 1 | x_t, x_0), (B, D)."""
    law = q_flip(chain, x_t, t)
    flip, stay = np.where(x0 == x_t, law.agree, law.disagree), np.where(x0 == x_t, law.not_agree, law.not_disagree)
    return np.where(x_t != 0, stay, flip)


# What a network's output means
# -----------------------------------------------------------------------------------------------------------


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)), to full relative precision however small."""
    e = np.exp(-np.abs(z))
    return np.where(np.asarray(z) >= 0, 1.0, e) / (1 + e)


def softplus(z: np.ndarray) -> np.ndarray:
    """log(1 + exp(z)) without overflow."""
    return np.logaddexp(0.0, z)


def evidence(chain: Chain, predict: str, x_t: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Logit of x_0 = 1 (predict x0) or of x_{t-1} = 1 (predict x_prev) that x_t's own bit gives, (B, D), for bits that
    are B(pi) a priori.

    By reversibility it is the forward kernel read backwards, so that a network that adds nothing has the bound L_null.
    Derivation, sections 7, 8.
    """
    ab_s, ab_t = chain.signal(t)
    signal = ab_t if predict == "x0" else ab_t / ab_s
    lost = 1 - signal if predict == "x0" else (ab_s - ab_t) / ab_s
    pi_v = np.where(x_t != 0, chain.pi, 1 - chain.pi)
    return np.where(x_t != 0, 1.0, -1.0) * np.log((signal + lost * pi_v) / (lost * (1 - pi_v)))


def p_flip_logit(chain: Chain, predict: str, logits: np.ndarray, x_t: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Logit of p(x_{t-1} != x_t | x_t), the learned reverse step, (B, D).

    logits : (B, D), of x_0 = 1 (predict x0: the mixture of section 6) or of x_{t-1} = 1 (predict x_prev), evidence
        included
    """
    shown = np.where(x_t != 0, 1.0, -1.0)
    if predict == "x_prev":
        return -shown * logits
    law = q_flip(chain, x_t, t)
    # log probability that x_0 agrees, that it does not
    stays, goes = -softplus(-shown * logits), -softplus(shown * logits)
    with np.errstate(divide="ignore"):
        flip = np.logaddexp(stays + np.log(law.agree), goes + np.log(law.disagree))
        stay = np.logaddexp(stays + np.log(law.not_agree), goes + np.log(law.not_disagree))
    return flip - stay


def kl(
    chain: Chain, predict: str, logits: np.ndarray, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) and its gradient.

    Returns
    -------
    kl : (B, D) nats, >= 0 up to rounding (1e-15). At t = 1 it is -log p(x_0 | x_1).
    dlogits : (B, D), d kl / d logits

    Derivation, sections 5 to 7.
    """
    law, agree, shown = q_flip(chain, x_t, t), x0 == x_t, np.where(x_t != 0, 1.0, -1.0)
    q, not_q = np.where(agree, law.agree, law.disagree), np.where(agree, law.not_agree, law.not_disagree)
    p_logit = p_flip_logit(chain, predict, logits, x_t, t)
    last = (q == 0) | (not_q == 0)  # t = 1: x_{t-1} is x_0, and the KL a cross entropy
    with np.errstate(divide="ignore", invalid="ignore"):
        value = q * (np.log(q) + softplus(-p_logit)) + not_q * (np.log(not_q) + softplus(p_logit))
        value = np.where(last, np.where(q == 0, softplus(p_logit), softplus(-p_logit)), value)
    if predict == "x_prev":
        return value, -shown * (sigmoid(p_logit) - q)
    a, p, not_p = sigmoid(shown * logits), sigmoid(p_logit), sigmoid(-p_logit)
    with np.errstate(divide="ignore", invalid="ignore"):
        # C: how much the step tells about x_0
        weight = np.where(last, 1.0, law.gap**2 * a * sigmoid(-shown * logits) / (p * not_p))
    return value, weight * (sigmoid(logits) - x0)


# The bound on the log likelihood
# ---------------------------------------------------------------------------------------------------------


def binary_entropy(p: np.ndarray) -> np.ndarray:
    """h(p) in nats, elementwise; h(0) = h(1) = 0."""
    return -_xlogx(p) - _xlogx(1 - np.asarray(p, np.float64))


def _xlogx(p: np.ndarray) -> np.ndarray:
    p = np.asarray(p, np.float64)
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0)


def marginal_entropy(chain: Chain, x0: np.ndarray, t: int) -> np.ndarray:
    """H_q(X_t | X_0 = x_0) in nats per row, (B,)."""
    return binary_entropy(q_marginal(chain, x0, np.full(len(x0), t))).sum(1)


def prior_kl(chain: Chain, x0: np.ndarray) -> np.ndarray:
    """KL(q(x_T | x_0) || B(pi)) in nats per row, (B,): zero for a chain that ends without signal."""
    r = q_marginal(chain, x0, np.full(len(x0), chain.T))
    return (_xlogx(r) - r * np.log(chain.pi) + _xlogx(1 - r) - (1 - r) * np.log1p(-chain.pi)).sum(1)


def fixed_last_step(chain: Chain, x0: np.ndarray) -> np.ndarray:
    """E[-log p(x_0 | x_1)] in nats per row, (B,), when the last reverse step is not learned but the forward kernel (the
    paper's protocol).

    For pi = 1/2, or in the mean when the data's mean is pi, this is H_q(X_1 | X_0), and the bound is the paper's eq.
    14. Derivation, section 4.
    """
    r = q_marginal(chain, x0, np.ones(len(x0), int))  # P(x_1 = 1 | x_0)
    # the kernel from x_1 = v to a 1
    back = [q_marginal(chain, np.full_like(x0, v), np.ones(len(x0), int)) for v in (0, 1)]
    cost = [-np.log(np.where(x0 != 0, back[v], 1 - back[v])) for v in (0, 1)]
    return ((1 - r) * cost[0] + r * cost[1]).sum(1)


def bound(chain: Chain, x0: np.ndarray, kl: np.ndarray, last: str = "learned") -> np.ndarray:
    """The bound on -log p(x_0) in nats per row, (B,), from the mean KL of each step. Derivation, section 4.

    kl : (T, B) nats, E KL_t for t = 1..T, summed over bits
    last : "learned", the last reverse step is the model's; "paper", it is the forward kernel, and kl[0] is not used
    """
    return kl[1 if last == "paper" else 0 :].sum(0) + exact_terms(chain, x0, last)


def exact_terms(chain: Chain, x0: np.ndarray, last: str = "learned") -> np.ndarray:
    """The part of the bound that needs no model, in nats per row, (B,). K, the paper's figure, is minus the whole
    bound; K - L_null is `null_bound` less the whole bound."""
    return prior_kl(chain, x0) + (fixed_last_step(chain, x0) if last == "paper" else 0.0)


def null_bound(chain: Chain, x0: np.ndarray) -> np.ndarray:
    """-log of the stationary law in nats per row, (B,): what a model that knows nothing but pi pays. The mean of its
    negative is L_null."""
    return -np.where(x0 != 0, np.log(chain.pi), np.log1p(-chain.pi)).sum(1)


# The oracle
# ----------------------------------------------------------------------------------------------------------------------


def oracle_logits(chain: Chain, population: np.ndarray, x_t: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Logit of P(x_0 = 1 | x_t) when x_0 is uniform over the rows of `population`, (B, D); +-inf where all of them
    agree.

    No reverse chain that treats bits as independent within a step can have a lower bound than the one with these
    logits. Derivation, section 10.

    population : (N, D) bits
    """
    return oracle_at(chain.alpha_bar[np.asarray(t), None], chain.pi, population, x_t)


def oracle_at(alpha_bar: np.ndarray, pi: np.ndarray, population: np.ndarray, x: np.ndarray) -> np.ndarray:
    """`oracle_logits` for rows x (B, D) that each have a signal of their own, alpha_bar (B, 1)."""
    bits = population.astype(np.float64)
    one, zero = alpha_bar + (1 - alpha_bar) * pi, (1 - alpha_bar) * pi  # P(x = 1 | x_0 = 1), P(x = 1 | x_0 = 0)
    evidence_1 = np.where(x != 0, np.log(one) - np.log(zero), np.log1p(-one) - np.log1p(-zero))
    log_weight = evidence_1 @ bits.T  # (B, N), up to a constant per row
    weight = np.exp(log_weight - log_weight.max(1, keepdims=True))
    with np.errstate(divide="ignore"):
        return np.log(weight @ bits) - np.log(weight @ (1 - bits))
