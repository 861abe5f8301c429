"""Numbers that kernels of Bernoulli diffusion share in every language; bernoulli.cuh has the same names."""

from __future__ import annotations

PER_BIT, X_PREV, SKIP = 1, 2, 4  # a law pi for each bit; logits are of x_{t-1}; x_t's own evidence is added to them

# phi(y) = y - log(1 + y): below LOW it takes the logarithm of the ratio 1 + y, since y has lost that ratio's digits;
# from NEAR_LOW to NEAR_HIGH float32 takes the series, where the two terms would cancel (derivation, section 5).
LOW, NEAR_LOW, NEAR_HIGH = -0.5, -0.25, 0.5
LEAST = 1e-30  # a probability below which the logits' logarithm has more range
TINY = 1e-37  # least of the two sigmoids: keeps 0/0 at t = 1 away, where the network is surer than exp can say
MARGIN = 1e-5  # relative, on the largest probability of a flip: float32 may round p above it
