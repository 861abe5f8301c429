"""What the network multiplies first, from rows of the data and their times, in the place that mlp_numba.py has for
it."""

from __future__ import annotations

from bdiff_np.kernels.mlp import mlp_numba as mlp
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.training import hooks_numba as family


@njit(inline="always")
def read(plan, law, x_t, t, runs, buffer):
    """The network's input for rows x_t (B, D) at t (B,), and the features of each run's time."""
    B = x_t.shape[0]
    inputs, features = _input(plan, buffer, B), mlp.padded(plan, buffer, plan.slots[0], B, plan.features.shape[1])
    for r in range(B):
        family.read_row(law, t[r], x_t[r], inputs[r])
        _weigh(plan, t[r], inputs[r])
    for k in range(runs.size - 1):
        mlp.copy(plan.features[t[runs[k]]], features[k])


@njit(inline="always")
def read_at(plan, law, x_t, t, buffer):
    """The network's input for rows that are all at one t."""
    B = x_t.shape[0]
    inputs = _input(plan, buffer, B)
    for r in range(B):
        family.read_row(law, t, x_t[r], inputs[r])
        _weigh(plan, t, inputs[r])


@njit(inline="always")
def _input(plan, buffer, B):
    """Where the first layer's input lies, (B, >= n_in)."""
    return mlp.padded(plan, buffer, plan.layers[0, mlp.X], B, plan.layers[0, mlp.N_IN])


@njit(inline="always")
def _weigh(plan, t, row):
    """The row a second time where there are odds, weighted by them."""
    if plan.odds.size > 0:
        odds, n = plan.odds[t], plan.layers[0, mlp.N_IN] // 2
        for i in range(n):
            row[n + i] = odds * row[i]
