"""The three kernels of Bernoulli diffusion on NumPy, in float32: q_sample, kl_grad, p_sample.

The mathematics is that of bdiff_np/diffusion/bernoulli.py, whose float64 functions these are tested against. What
differs: tables over t are laid out once, a batch takes few passes over its arrays, and the KL is summed from two terms
that are never negative (derivation, section 5), so that float32 inputs keep it exact where probabilities of 1e-8 meet.
"""

from __future__ import annotations

import numpy as np

from bdiff_np import diffusion, rng
from bdiff_np.diffusion import bernoulli
from bdiff_np.diffusion.bernoulli import Chain
from bdiff_np.kernels.bernoulli.bernoulli_codes import LEAST, LOW
from bdiff_np.kernels.bernoulli.bernoulli_tables import tables
from bdiff_np.rng import Key


class Kernels(diffusion.Kernels):
    """The kernels for one chain and one meaning of the network's output.

    chain : the forward process
    predict : "x0" or "x_prev", what the logits are of
    skip : add x_t's own evidence to the network's output
    bce_weight : weight, in the bound's own units, of the cross entropy of x_0 that is added to the gradient (not to the
        value)
    dtype : of logits and gradients; float64 for gradient checks
    """

    def __init__(self, chain: Chain, predict: str = "x0", skip: bool = True, bce_weight: float = 0.0, dtype=np.float32):
        self.chain, self.predict, self.skip, self.dtype = chain, predict, skip, np.dtype(dtype)
        self.bce = bce_weight / chain.T
        self.lost, self.pi_words = bernoulli.integer_law(chain)
        self.kept = np.uint64(bernoulli.WORD) - self.lost
        self.threshold_0 = (
            self.lost[:, None] * self.pi_words // np.uint64(bernoulli.WORD) if chain.pi.ndim == 0 else None
        )
        # What depends on (t, v) alone, v the value shown, stands at entry 2 t + v of a table, (columns, 2 T + 2);
        # entries 0 and 1 are never read. With a law per bit the table would be D times as large, and its columns are
        # worked out for each batch instead.
        table = tables(chain, predict).table
        self.table = np.ascontiguousarray(table.T, self.dtype) if len(table) else None

    def q_sample(self, x0: np.ndarray, t: np.ndarray, key: Key, first_row: int = 0) -> np.ndarray:
        """x_t ~ q(x_t | x_0), (B, D) uint8, for x0 (B, D) uint8 and t (B,); the same bits as the definition's."""
        threshold = (
            self.threshold_0[t]
            if self.threshold_0 is not None
            else self.lost[t, None] * self.pi_words // np.uint64(bernoulli.WORD)
        )
        threshold = threshold + x0 * self.kept[t, None]
        return rng.below(key, threshold, len(x0), x0.shape[1], first_row).view(np.uint8)

    def kl_grad(self, logits: np.ndarray, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray, value: bool = True):
        """KL of the reverse step and its gradient, in one pass.

        logits : (B, D), the network's output. value : whether the KL is wanted, which takes logarithms, or the gradient
            alone

        Returns
        -------
        kl : (B,) float64, nats, summed over bits; at t = 1 the cross entropy of x_0. None where it is not wanted
        dlogits : (B, D), d kl / d logits, plus the auxiliary cross entropy's if bce_weight was given
        """
        agree, disagree, not_agree, not_disagree, gap, own = self._rows(x_t, t)
        logits = logits + own if self.skip else logits
        same = x0 == x_t
        q, not_q = np.where(same, agree, disagree), np.where(same, not_agree, not_disagree)
        last = np.flatnonzero(t == 1)
        if self.predict == "x0":
            a, b = _sigmoids(_sign(x_t, self.dtype) * logits)  # P(x_0 = x_t | x_t), and what it leaves
            with np.errstate(invalid="ignore"):  # 0/0 at t = 1 alone
                p, not_p = a * agree + b * disagree, a * not_agree + b * not_disagree
                weight = gap * gap * a * b / (p * not_p)
            weight[last] = 1
            weight += self.bce
            missing = np.where(same, b, a)  # probability that the net does not give to the true x_0
            dlogits = weight * missing * _sign(1 - x0, self.dtype)
            off = missing * gap * _sign(same, self.dtype)  # p - q, to full precision
        else:
            shown = _sign(x_t, self.dtype)
            # nothing holds these logits back: float32 would underflow at 104
            p, not_p = _sigmoids((-shown * logits).astype(np.float64))
            off = p - q
            dlogits = (-shown * off).astype(self.dtype)
        if not value:
            return None, dlogits
        with np.errstate(divide="ignore", invalid="ignore"):
            off = off.astype(np.float64)
            ratio, not_ratio = (np.log(part / whole, dtype=np.float64) for part, whole in ((p, q), (not_p, not_q)))
            if self.predict == "x_prev":  # there, the logits' own logarithm has more range than the probabilities
                z = shown.astype(np.float64) * logits
                ratio = np.where(p > LEAST, ratio, -np.logaddexp(0.0, z) - np.log(q))
                not_ratio = np.where(not_p > LEAST, not_ratio, -np.logaddexp(0.0, -z) - np.log(not_q))
            kl = q * _phi(off / q, ratio) + not_q * _phi(-off / not_q, not_ratio)
            sure = np.where(x0[last] != 0, logits[last], -logits[last])
            kl[last] = np.logaddexp(0.0, -sure.astype(np.float64))
            return kl.sum(1), dlogits

    def p_flip(self, logits: np.ndarray, x_t: np.ndarray, t: np.ndarray) -> np.ndarray:
        """p(x_{t-1} != x_t | x_t) of the learned reverse step, (B, D)."""
        agree, disagree, _, _, _, own = self._rows(x_t, t)
        logits = logits + own if self.skip else logits
        a, b = _sigmoids(_sign(x_t, self.dtype) * logits)
        return b if self.predict == "x_prev" else a * agree + b * disagree

    def p_sample(self, logits: np.ndarray, x_t: np.ndarray, t: np.ndarray, key: Key, first_row: int = 0) -> np.ndarray:
        """x_{t-1} ~ p(x_{t-1} | x_t), (B, D) uint8."""
        flip = self.p_flip(logits, x_t, t) * float(bernoulli.WORD)
        return x_t ^ rng.below(key, flip, len(x_t), x_t.shape[1], first_row)

    def prior(self, rows: int, D: int, key: Key, first_row: int = 0) -> np.ndarray:
        """x_T ~ B(pi), (rows, D) uint8."""
        return rng.below(key, self.pi_words, rows, D, first_row).view(np.uint8)

    def _rows(self, x_t: np.ndarray, t: np.ndarray) -> np.ndarray | list[np.ndarray]:
        """The flip law's five columns and the evidence for each bit of the batch, each (B, D)."""
        if self.table is not None:
            return self.table.take(2 * t[:, None] + x_t, axis=1)
        columns = (*bernoulli.q_flip(self.chain, x_t, t), bernoulli.evidence(self.chain, self.predict, x_t, t))
        return [column.astype(self.dtype) for column in columns]


def read(
    chain: Chain, x_t: np.ndarray, t: np.ndarray, features: np.ndarray, weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """What a network multiplies first: bits x_t (B, D) as -1 and +1, and where weight (T + 1,) is given each a second
    time, times weight[t]; (B, D or 2 D). And the features of time, (B, F), for features (T + 1, F) and t (B,)."""
    x = x_t.astype(features.dtype) * 2 - 1
    return x if weight is None else np.concatenate([x, x * weight[t, None]], axis=1), features[t]


def _sign(x: np.ndarray, dtype) -> np.ndarray:
    """0, 1 -> -1, +1."""
    return x.astype(dtype) * 2 - 1


def _sigmoids(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sigmoid(z) and sigmoid(-z), each to its own full relative precision: one of them may be as small as 1e-38."""
    e = np.exp(-np.abs(z))  # of a negative number: never too large
    large = 1 / (1 + e)
    small = e * large
    up = z >= 0
    return np.where(up, large, small), np.where(up, small, large)


def _phi(y: np.ndarray, log_ratio: np.ndarray) -> np.ndarray:
    """y - log(1 + y) >= 0, float64. log_ratio : log(1 + y), wanted where y is nearly -1 and has lost its digits"""
    return y - np.where(y < LOW, log_ratio, np.log1p(np.maximum(y, LOW)))
