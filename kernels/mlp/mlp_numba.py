"""A perceptron of dense layers in compiled code, on a slice of the rows at a time: forward and backward.

What nets/layers.py does layer by layer with new arrays happens here inside one buffer, laid out once: all that a slice
needs stays in the cache of the core that works on it. Two tricks save passes over it. A layer's input has one more
column, of ones, so that the product with W and the row b that follows it in the parameters brings the bias, and its
transpose with dz the gradient of both. And hidden arrays are that much wider too, so that what happens between two
products is one loop over all rows, without ends of rows in it; the column too many stays finite and unused.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdiff_np.kernels.dense import dense_numba as dense
from bdiff_np.kernels.dense.dense_codes import CODES
from bdiff_np.kernels.mlp.mlp_plan import parameter_offsets
from bdiff_np.kernels.shared import blas_numba
from bdiff_np.kernels.shared.blas_numba import multiply, multiply_left, multiply_right
from bdiff_np.kernels.shared.compiled_numba import njit

ALIGN = 16  # floats of a cache line
N_IN, N_OUT, CODE, W, F, X, U, Y, SCALE, SHIFT, DZ = range(11)  # columns of Plan.layers
LAYER, OF_FILM, FIRST, LAST, START, STOP = range(6)  # columns of Plan.tiles
TILE = 1 << 19  # parameters of a tile, about
f32 = np.float32


class Plan(NamedTuple):
    """Where everything lies, for compiled code. Offsets into the parameters count floats, those into the buffer count
    floats per row."""

    # (L, 11) int64, one row a layer: its widths, its activation, offsets of its parameters and of its arrays
    layers: np.ndarray
    # (n, 6) int64: layer, whether of F or of W and b, first and last row of these, first and last parameter
    tiles: np.ndarray
    features: np.ndarray  # (T + 1, n) float32, features of time
    odds: np.ndarray  # (T + 1,) float32, or empty
    slots: np.ndarray  # (2,) int64: offset of the features in the buffer, and all floats of a row
    sgemm: int  # address of cblas_sgemm


def make_plan(net) -> Plan:
    """Lays out a network with `dense`, its layers, `features` and `odds` (nets/mlp.py). Only where BLAS shows its
    sgemm."""
    sgemm = blas_numba.sgemm()
    assert sgemm is not None, "build() has asked"
    places, used = parameter_offsets(net), 0

    def take(width: int) -> int:
        nonlocal used
        used += -(-width // ALIGN) * ALIGN
        return used - -(-width // ALIGN) * ALIGN

    inputs, features = take(net.dense[0].shapes[f"{net.dense[0].name}/W"][0] + 1), take(net.features.shape[1])
    rows, tiles = [], []
    for k, layer in enumerate(net.dense):
        n_in, n_out = layer.shapes[f"{layer.name}/W"]
        row = np.zeros(11, np.int64)
        row[[N_IN, N_OUT, W]] = n_in, n_out, places[f"{layer.name}/W"]
        if layer is net.dense[-1]:
            row[[X, U, DZ]] = inputs, take(n_out), take(n_out)
        else:
            row[[CODE, F]] = CODES[layer.activation], places[f"{layer.name}/F"]
            row[[X, U, Y, SCALE, SHIFT, DZ]] = inputs, *(take(n_out + 1) for _ in range(5))
            inputs = row[Y]
        rows.append(row)
        for of_film, height, width, at in ((0, n_in + 1, n_out, row[W]), (1, layer.film, 2 * n_out, row[F])):
            parts = -(-height * width // TILE)
            edges = [height * part // parts for part in range(parts + 1)] if height else []
            tiles += [
                (k, of_film, first, last, at + first * width, at + last * width)
                for first, last in zip(edges, edges[1:])
            ]
    odds = np.zeros(0, f32) if net.odds is None else net.odds
    slots = np.array((features, used), np.int64)
    return Plan(np.array(rows), np.array(tiles, np.int64), net.features, odds, slots, sgemm)


@njit
def copy(x, out):
    for k in range(x.size):
        out[k] = x[k]


@njit(inline="always")
def array_at(plan, buffer, slot, B, width):
    """The array (B, width) that begins at a slot of the buffer."""
    start = slot * (buffer.size // plan.slots[1])
    return buffer[start : start + B * width].reshape(B, width)


@njit(inline="always")
def weight(flat, start, height, width):
    """The matrix that begins at an offset of a flat buffer."""
    return flat[start : start + height * width].reshape(height, width)


@njit
def forward(plan, params, buffer, B, shared):
    """All layers, for B rows.

    shared : (n,) scale beside shift of each hidden layer, if all rows are at one t; then `features` are not needed.
        Else empty
    """
    count = plan.features.shape[1]
    features = array_at(plan, buffer, plan.slots[0], B, count)
    start = 0
    for k in range(plan.layers.shape[0]):
        layer = plan.layers[k]
        n_in, n_out = layer[N_IN], layer[N_OUT]
        x, matrix = array_at(plan, buffer, layer[X], B, n_in + 1), weight(params, layer[W], n_in + 1, n_out)
        if k + 1 == plan.layers.shape[0]:
            multiply(plan.sgemm, x, matrix, array_at(plan, buffer, layer[U], B, n_out), f32(0))
            return
        u, y = array_at(plan, buffer, layer[U], B, n_out + 1), array_at(plan, buffer, layer[Y], B, n_out + 1)
        scale, shift = (
            array_at(plan, buffer, layer[SCALE], B, n_out + 1),
            array_at(plan, buffer, layer[SHIFT], B, n_out + 1),
        )
        multiply(plan.sgemm, x, matrix, u[:, :n_out], f32(0))
        if shared.size > 0:
            for r in range(B):
                copy(shared[start : start + n_out], scale[r, :n_out])
                copy(shared[start + n_out : start + 2 * n_out], shift[r, :n_out])
            start += 2 * n_out
        else:
            table = weight(params, layer[F], count, 2 * n_out)
            multiply(plan.sgemm, features, table[:, :n_out], scale[:, :n_out], f32(0))
            multiply(plan.sgemm, features, table[:, n_out:], shift[:, :n_out], f32(0))
        dense.film_act(layer[CODE], u.reshape(-1), scale.reshape(-1), shift.reshape(-1), y.reshape(-1))
        for r in range(B):
            y[r, n_out] = f32(1)


@njit
def backward(plan, params, buffer, B):
    """From the last layer's dz down to the first's, for B rows; the gradients of scale and shift take their places."""
    last = plan.layers.shape[0] - 1
    for k in range(last - 1, -1, -1):
        layer, above = plan.layers[k], plan.layers[k + 1]
        n_out, n_above = layer[N_OUT], above[N_OUT]
        dz, dz_above = (
            array_at(plan, buffer, layer[DZ], B, n_out + 1),
            array_at(plan, buffer, above[DZ], B, n_above if k + 1 == last else n_above + 1),
        )
        multiply_right(
            plan.sgemm, dz_above[:, :n_above], weight(params, above[W], n_out, n_above), dz[:, :n_out], f32(0)
        )
        u, scale = array_at(plan, buffer, layer[U], B, n_out + 1), array_at(plan, buffer, layer[SCALE], B, n_out + 1)
        slope = array_at(plan, buffer, layer[SHIFT], B, n_out + 1)
        dense.film_act_backward(dz.reshape(-1), u.reshape(-1), scale.reshape(-1), slope.reshape(-1))


@njit
def weight_gradient(plan, buffer, B, tile, grads, add):
    """One tile of the parameters' gradients, for B rows, into `grads` or, if `add`, on top of it; backward has been
    there."""
    k, first, last = tile[LAYER], tile[FIRST], tile[LAST]
    layer, beta = plan.layers[k], f32(1) if add else f32(0)
    n_in, n_out = layer[N_IN], layer[N_OUT]
    if tile[OF_FILM] != 0:
        count = plan.features.shape[1]
        features, table = array_at(plan, buffer, plan.slots[0], B, count), weight(grads, layer[F], count, 2 * n_out)
        scale, shift = (
            array_at(plan, buffer, layer[SCALE], B, n_out + 1),
            array_at(plan, buffer, layer[SHIFT], B, n_out + 1),
        )
        multiply_left(plan.sgemm, features[:, first:last], scale[:, :n_out], table[first:last, :n_out], beta)
        multiply_left(plan.sgemm, features[:, first:last], shift[:, :n_out], table[first:last, n_out:], beta)
    else:
        dz = array_at(plan, buffer, layer[DZ], B, n_out if k + 1 == plan.layers.shape[0] else n_out + 1)
        x = array_at(plan, buffer, layer[X], B, n_in + 1)
        multiply_left(
            plan.sgemm, x[:, first:last], dz[:, :n_out], weight(grads, layer[W], n_in + 1, n_out)[first:last], beta
        )
