"""What the network multiplies first, from rows of the data and their times, in the place that mlp_numba.py has for
it."""

from __future__ import annotations

import numpy as np

from bdiff_np.kernels.mlp import mlp_numba as mlp
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.training import hooks_numba as family

f32 = np.float32


@njit(inline="always")
def read(plan, law, x_t, t, buffer):
    """The network's input and the features of time, for rows x_t (B, D) at t (B,)."""
    B, D = x_t.shape
    inputs, features = _input(plan, buffer, B), mlp.array_at(plan, buffer, plan.slots[0], B, plan.features.shape[1])
    family.read_rows(law, x_t, inputs)
    for r in range(B):
        _weigh(plan, t[r], D, inputs[r])
        mlp.copy(plan.features[t[r]], features[r])


@njit(inline="always")
def read_at(plan, law, x_t, t, buffer):
    """The network's input for rows that are all at one t."""
    B, D = x_t.shape
    inputs = _input(plan, buffer, B)
    family.read_rows(law, x_t, inputs)
    for r in range(B):
        _weigh(plan, t, D, inputs[r])


@njit(inline="always")
def _input(plan, buffer, B):
    """Where the first layer's input lies, (B, n_in + 1)."""
    return mlp.array_at(plan, buffer, plan.layers[0, mlp.X], B, plan.layers[0, mlp.N_IN] + 1)


@njit(inline="always")
def _weigh(plan, t, D, row):
    """The row a second time where there are odds, weighted by them; and the one that brings the bias."""
    if plan.odds.size > 0:
        odds = plan.odds[t]
        for d in range(D):
            row[D + d] = odds * row[d]
    row[row.size - 1] = f32(1)
