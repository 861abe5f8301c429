"""What the network multiplies first, from rows of the data and their times, in the place that mlp_numba.py has for
it."""

from __future__ import annotations

import numpy as np

from bdiff_np.kernels.mlp import mlp_numba as mlp
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.training import hooks_numba as family

f32 = np.float32


@njit
def read(plan, law, x_t, t, buffer):
    """The network's input and the features of time, for rows x_t (B, D) at t (B,)."""
    B, n_in = x_t.shape[0], plan.layers[0, mlp.N_IN]
    inputs = mlp.array_at(plan, buffer, plan.layers[0, mlp.X], B, n_in + 1)
    features = mlp.array_at(plan, buffer, plan.slots[0], B, plan.features.shape[1])
    for r in range(B):
        _read_row(plan, law, x_t[r], t[r], inputs[r])
        mlp.copy(plan.features[t[r]], features[r])


@njit
def read_at(plan, law, x_t, t, buffer):
    """The network's input for rows that are all at one t."""
    B, n_in = x_t.shape[0], plan.layers[0, mlp.N_IN]
    inputs = mlp.array_at(plan, buffer, plan.layers[0, mlp.X], B, n_in + 1)
    for r in range(B):
        _read_row(plan, law, x_t[r], t, inputs[r])


@njit
def _read_row(plan, law, x_t, t, row):
    """One row, a second time weighted by odds[t] where there are odds, and the one that brings the bias."""
    D = x_t.size
    family.read_row(law, x_t, f32(1), row[:D])
    if plan.odds.size > 0:
        family.read_row(law, x_t, plan.odds[t], row[D:])
    row[row.size - 1] = f32(1)
