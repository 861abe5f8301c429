"""A perceptron of dense layers in compiled code, on a slice of the rows at a time: forward and backward.

What nets/layers.py does layer by layer with new arrays happens here inside one buffer, laid out once: all that a slice needs stays in the cache of
the core that works on it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdiff_np.kernels import dense_numba as dense
from bdiff_np.kernels.blas_numba import multiply, multiply_left, multiply_right
from bdiff_np.kernels.compiled_numba import njit

ALIGN = 16  # floats of a cache line
N_IN, N_OUT, CODE, FILMED, W, BIAS, F, X, U, Y, SLOPE, TABLE, DZ = range(13)  # columns of Plan.layers
f32 = np.float32


class Plan(NamedTuple):
    """Where everything lies, for compiled code. Offsets into the parameters count floats, those into the buffer count floats per row."""

    layers: np.ndarray  # (L, 13) int64, one row a layer: its widths, its activation, offsets of its parameters and of its arrays
    features: np.ndarray  # (T + 1, n) float32, features of time
    odds: np.ndarray  # (T + 1,) float32, or empty
    slots: np.ndarray  # (2,) int64: offset of the features in the buffer, and all floats of a row
    sgemm: int  # address of cblas_sgemm


def make_plan(net, sgemm: int) -> Plan:
    """Lays out a network.

    net : with `dense`, its layers, `features` and `odds` (nets/mlp.py)
    """
    places, start = {}, 0
    for name, shape in net.shapes.items():
        places[name] = start
        start += int(np.prod(shape))
    used = 0

    def take(width: int) -> int:
        nonlocal used
        used += -(-width // ALIGN) * ALIGN
        return used - -(-width // ALIGN) * ALIGN

    inputs, features = take(net.dense[0].shapes[f"{net.dense[0].name}/W"][0]), take(net.features.shape[1])
    rows = []
    for k, layer in enumerate(net.dense):
        n_in, n_out = layer.shapes[f"{layer.name}/W"]
        hidden = k + 1 < len(net.dense)
        row = np.zeros(13, np.int64)
        row[[N_IN, N_OUT, CODE, FILMED]] = n_in, n_out, dense.CODES[layer.activation], layer.film > 0
        row[[W, BIAS, F]] = places[f"{layer.name}/W"], places[f"{layer.name}/b"], places.get(f"{layer.name}/F", 0)
        row[[X, U, DZ]] = inputs, take(n_out), take(n_out)
        row[[Y, SLOPE]] = (take(n_out), take(n_out)) if hidden else (row[U], row[U])
        row[TABLE] = take(2 * n_out) if layer.film else 0
        inputs = row[Y]
        rows.append(row)
    odds = np.zeros(0, f32) if net.odds is None else net.odds
    slots = np.array((features, used), np.int64)
    return Plan(np.array(rows), net.features, odds, slots, sgemm)


@njit(inline="always")
def matrix(flat, start, height, width):
    """A view of `height` rows of `width` entries."""
    return flat[start : start + height * width].reshape(height, width)


@njit
def read(plan, x_t, t, buffer):
    """The network's input, bits as -1 and +1, and the features of time, for rows x_t (B, D) at t (B,)."""
    B, D = x_t.shape
    inputs = room(plan, buffer, plan.layers[0, X], B, plan.layers[0, N_IN])
    features = room(plan, buffer, plan.slots[0], B, plan.features.shape[1])
    for r in range(B):
        _choose_sign(x_t[r], f32(1), inputs[r, :D])
        if plan.odds.size > 0:
            _choose_sign(x_t[r], plan.odds[t[r]], inputs[r, D:])
        copy(plan.features[t[r]], features[r])


@njit
def read_at(plan, x_t, t, buffer):
    """The network's input for rows that are all at one t; no features, which forward_at does not need."""
    B, D = x_t.shape
    inputs = room(plan, buffer, plan.layers[0, X], B, plan.layers[0, N_IN])
    for r in range(B):
        _choose_sign(x_t[r], f32(1), inputs[r, :D])
        if plan.odds.size > 0:
            _choose_sign(x_t[r], plan.odds[t], inputs[r, D:])


@njit
def _choose_sign(x_t, size, out):
    for d in range(x_t.size):
        out[d] = size if x_t[d] != 0 else -size


@njit
def copy(x, out):
    for k in range(x.size):
        out[k] = x[k]


@njit(inline="always")
def room(plan, buffer, slot, B, width):
    """The array (B, width) that begins at a slot of the buffer."""
    start = slot * (buffer.size // plan.slots[1])
    return buffer[start : start + B * width].reshape(B, width)


@njit(inline="always")
def weight(flat, start, height, width):
    """The matrix that begins at an offset of a flat buffer."""
    return flat[start : start + height * width].reshape(height, width)


@njit
def forward(plan, params, buffer, B):
    """All layers, for B rows."""
    count, last = plan.features.shape[1], plan.layers.shape[0] - 1
    features = room(plan, buffer, plan.slots[0], B, count)
    for k in range(last + 1):
        layer = plan.layers[k]
        n_in, n_out = layer[N_IN], layer[N_OUT]
        u, bias = room(plan, buffer, layer[U], B, n_out), params[layer[BIAS] : layer[BIAS] + n_out]
        multiply(plan.sgemm, room(plan, buffer, layer[X], B, n_in), weight(params, layer[W], n_in, n_out), u, f32(0))
        if k == last:
            dense.add_bias(u, bias)
            continue
        y = room(plan, buffer, layer[Y], B, n_out)
        if layer[FILMED] != 0:
            table = room(plan, buffer, layer[TABLE], B, 2 * n_out)
            multiply(plan.sgemm, features, weight(params, layer[F], count, 2 * n_out), table, f32(0))
            dense.film(u, bias, table, y)
        else:
            dense.affine(u, bias, y)
        dense.act(layer[CODE], y.reshape(-1), room(plan, buffer, layer[SLOPE], B, n_out).reshape(-1))


@njit
def forward_at(plan, params, tables, buffer, B):
    """All layers, for B rows at one t: `tables` (n,) has the scale and shift that they share, layer after layer."""
    start = 0
    for k in range(plan.layers.shape[0]):
        layer = plan.layers[k]
        n_in, n_out = layer[N_IN], layer[N_OUT]
        u, bias = room(plan, buffer, layer[U], B, n_out), params[layer[BIAS] : layer[BIAS] + n_out]
        multiply(plan.sgemm, room(plan, buffer, layer[X], B, n_in), weight(params, layer[W], n_in, n_out), u, f32(0))
        if k + 1 == plan.layers.shape[0]:
            dense.add_bias(u, bias)
            continue
        y = room(plan, buffer, layer[Y], B, n_out)
        if layer[FILMED] != 0:
            dense.film_shared(u, bias, tables[start : start + n_out], tables[start + n_out : start + 2 * n_out], y)
            start += 2 * n_out
        else:
            dense.affine(u, bias, y)
        dense.act(layer[CODE], y.reshape(-1), room(plan, buffer, layer[SLOPE], B, n_out).reshape(-1))


@njit
def backward(plan, params, buffer, B, grads, add):
    """Gradients of all parameters from the last layer's dz, for B rows, into `grads` or, if `add`, on top of it."""
    count, beta = plan.features.shape[1], f32(1) if add else f32(0)
    features = room(plan, buffer, plan.slots[0], B, count)
    for k in range(plan.layers.shape[0] - 1, -1, -1):
        layer = plan.layers[k]
        n_in, n_out = layer[N_IN], layer[N_OUT]
        dz = room(plan, buffer, layer[DZ], B, n_out)
        if k + 1 < plan.layers.shape[0]:
            slope = room(plan, buffer, layer[SLOPE], B, n_out)
            if layer[FILMED] != 0:
                table = room(plan, buffer, layer[TABLE], B, 2 * n_out)
                dense.film_backward(dz, slope, room(plan, buffer, layer[U], B, n_out), table)
                multiply_left(plan.sgemm, features, table, weight(grads, layer[F], count, 2 * n_out), beta)
            else:
                dense.scale_by(dz, slope)
        dense.column_sums(dz, grads[layer[BIAS] : layer[BIAS] + n_out], add)
        multiply_left(plan.sgemm, room(plan, buffer, layer[X], B, n_in), dz, weight(grads, layer[W], n_in, n_out), beta)
        if k > 0:
            below = room(plan, buffer, plan.layers[k - 1, DZ], B, n_in)
            multiply_right(plan.sgemm, dz, weight(params, layer[W], n_in, n_out), below, f32(0))
