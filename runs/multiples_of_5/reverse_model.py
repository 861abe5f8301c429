"""A network that knows that a row is a number, but not which numbers are allowed.

For every modulus p = 2..9 it asks: if only multiples of p were allowed, what would the rest of the row say about bit i?
That is a question about a chain of remainders (reading from the highest bit, remainder r becomes 2 r + bit, modulo p),
answered exactly by one pass from the left and one from the right (docs/derivation.md, section 10). The logit of bit i
is a learned weighted sum of the eight answers. Eight weights and a bias are the whole network: training finds out which
modulus the data obeys. A perceptron does not learn this data set, since no few bits say anything about another;
benchmarks/RESULTS.md has both.
"""

import numpy as np

MODULI = range(2, 10)
DOUBT = 1e-6  # probability that a row obeys no rule, so that no answer is infinite


class ReverseModel:
    def __init__(self, D, alpha_bar, pi):
        self.D, self.alpha_bar, self.pi = D, alpha_bar, pi
        self.shapes = {"weight": (len(MODULI),), "bias": (1,)}
        states = [(p, r) for p in MODULI for r in range(p)]  # the remainders of all moduli side by side
        number = {state: k for k, state in enumerate(states)}
        self.read = np.zeros((2, len(states), len(states)))  # read[bit]: where reading a bit leads from each remainder
        for p, r in states:
            for bit in (0, 1):
                self.read[bit, number[p, r], number[p, (2 * r + bit) % p]] = 1
        self.zero = np.array([r == 0 for _, r in states], float)
        self.group = np.array([[p == modulus for modulus in MODULI] for p, _ in states], float)

    def init(self, generator):
        return {"weight": np.zeros(len(MODULI)), "bias": np.zeros(1)}

    def forward(self, ops, params, x_t, t):
        answers = self.answers(x_t, t, params["weight"].dtype)
        return answers @ params["weight"] + params["bias"], answers

    def backward(self, ops, params, tape, dlogits):
        return {"weight": np.tensordot(dlogits, tape, axes=([0, 1], [0, 1])), "bias": dlogits.sum(keepdims=True)[0]}

    def answers(self, x_t, t, dtype):
        """log P(the row is a multiple of p | the other bits of x_t, bit i is 1) less the same for 0; (B, D, moduli)."""
        signal, noise = self.alpha_bar[t, None], (1 - self.alpha_bar[t, None]) * np.where(x_t, self.pi, 1 - self.pi)
        q = [signal * (x_t == bit) + noise for bit in (0, 1)]  # q(x_t | x_0 = bit)
        one = (q[1] / (q[0] + q[1])).astype(dtype)  # P(x_0 = 1 | x_t's own bit), both values alike before
        read, group = self.read.astype(dtype), self.group.astype(dtype)
        # left[i]: law of the remainders of the bits before i
        left = np.empty((self.D, len(x_t), len(self.zero)), dtype)
        right = np.empty_like(left)  # right[i]: probability that the bits after i lead from each remainder to 0
        left[0] = right[-1] = self.zero
        for i in range(1, self.D):
            p = one[:, i - 1, None]
            left[i] = (left[i - 1] * (1 - p)) @ read[0] + (left[i - 1] * p) @ read[1]
        for i in range(self.D - 1, 0, -1):
            p = one[:, i, None]
            right[i - 1] = (1 - p) * (right[i] @ read[0].T) + p * (right[i] @ read[1].T)
        zero, one = (np.log((left * (right @ read[bit].T)) @ group + dtype.type(DOUBT)) for bit in (0, 1))
        return (one - zero).transpose(1, 0, 2)
