"""A perceptron in compiled code, on a slice of the rows at a time: forward and backward of its stages (nets.Stage).

What nets/layers.py does layer by layer with new arrays happens here inside one buffer, laid out once: all that a slice
needs stays in the cache of the core that works on it. Rows lie a whole number of cache lines apart (`pitch`), so that
what happens between two products is one loop over all rows, in aligned vectors and without ends of rows in it; what
lies behind the end of a row stays finite and unused.

Rows of a batch are in the order of t (rng.stratified_t), so that in a large batch many that follow one another share
it: a run. Scale and shift of the units are worked out once for each run.

Residual blocks add to their input in place: backward needs none of its states, only the rows as LayerNorm left them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdiff_np import rng
from bdiff_np.kernels.dense import dense_numba as dense
from bdiff_np.kernels.dense import product_numba as product
from bdiff_np.kernels.dense.dense_codes import LAYER_NORM_EPS, code, drop_threshold
from bdiff_np.kernels.dense.runs_numba import film_runs_backward
from bdiff_np.kernels.mlp.mlp_plan import parameter_offsets
from bdiff_np.kernels.shared import philox_numba
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.shared.philox_numba import Noise

LINE = 16  # floats of a cache line
FAR = 256  # floats of a row from which an even number of lines would put all rows in the same few sets of the cache
# columns of Plan.layers: every layer's; and those of LayerNorm, of a residual block's end and of dropout
N_IN, N_OUT, CODE, W, F_, X, U, Y, SCALE, SHIFT, DZ = range(11)
GAIN, RESIDUAL, UNIT, RSTD, DX, ADDS, INDEX, WORDS = range(11, 19)
COLUMNS = WORDS + 1
LAYER, KIND, FIRST, LAST, START, STOP = range(6)  # columns of Plan.tiles
OF_WEIGHTS, OF_FILM, OF_NORM = range(3)  # their kinds
TILE = 1 << 18  # parameters of a tile, about
# width from which slices must be large for matrix products to run at full rate, and gradients are too large to have
# several
WIDE = 256
f32, u64 = np.float32, np.uint64


class Plan(NamedTuple):
    """Where everything lies, for compiled code. Offsets into the parameters count floats, those into the buffer count
    floats per row."""

    # (L, COLUMNS) int64, one row a stage: its widths, its activation, offsets of its parameters and of its arrays
    layers: np.ndarray
    # (n, 6) int64: layer; of W and b, of F, or of gain and shift; first and last row of these; first and last parameter
    tiles: np.ndarray
    thresholds: np.ndarray  # (L,) uint64, of the words below which a unit is dropped; 0 for no dropout
    kept: np.ndarray  # (L,) float32, what units are scaled by that are not
    features: np.ndarray  # (T + 1, n) float32, features of time
    odds: np.ndarray  # (T + 1,) float32, or empty
    one: np.ndarray  # (1,) float32, a 1
    slots: np.ndarray  # (2,) int64: offset of the features in the buffer, and all floats of a row
    panels: int  # floats of room that a thread needs for products
    product: int  # their address


def make_plan(net, training: bool = True) -> Plan:
    """Lays out a network with `stages`, `features` and `odds` (nets.Net). Only where there is a product to call."""
    address = product.address()
    assert address is not None, "build() has asked"
    places, used = parameter_offsets(net), 0

    def take(width: int) -> int:
        nonlocal used
        used += pitch(width)
        return used - pitch(width)

    first = net.stages[0].dense
    inputs, features = take(first.shapes[f"{first.name}/W"][0]), take(net.features.shape[1])
    rows, tiles, widest, residual = [], [], 0, 0
    for k, (layer, norm, rate, index, adds) in enumerate(net.stages):
        n_in, n_out = layer.shapes[f"{layer.name}/W"]
        widest = max(widest, n_in, n_out)
        row = np.zeros(COLUMNS, np.int64)
        row[[N_IN, N_OUT, CODE, W, X, ADDS, DZ]] = (
            n_in, n_out, code(layer.activation), places[f"{layer.name}/W"], inputs, adds, take(n_out),
        )  # fmt: skip
        row[GAIN] = -1
        if norm:
            row[[GAIN, RESIDUAL]] = places[f"{norm}/gain"], inputs
            row[[X, UNIT, DX, RSTD]] = (*(take(n_in) for _ in range(3)), take(1))
        if adds:
            row[Y] = residual
        else:
            row[U] = take(n_out)
        if layer.film:
            row[F_] = places[f"{layer.name}/F"]
            row[[Y, SCALE, SHIFT]] = [take(n_out) for _ in range(3)]
        if rate and training:
            row[[INDEX, WORDS]] = index, take(4 * -(-n_out // 16))
        inputs, residual = row[Y], row[Y] if adds or not norm else residual
        rows.append(row)
        for kind, height, width, at in (
            (OF_WEIGHTS, n_in + 1, n_out, row[W]), (OF_FILM, layer.film, 2 * n_out, row[F_]),
            (OF_NORM, 2 * bool(norm), n_in, row[GAIN]),
        ):  # fmt: skip
            parts = -(-height * width // TILE) if kind != OF_NORM else 1
            edges = [height * part // parts for part in range(parts + 1)] if height else []
            tiles += [
                (k, kind, first, last, at + first * width, at + last * width) for first, last in zip(edges, edges[1:])
            ]
    rates = [stage.rate if training else 0.0 for stage in net.stages]
    odds = np.zeros(0, f32) if net.odds is None else net.odds
    slots = np.array((features, used), np.int64)
    return Plan(
        np.array(rows), np.array(tiles, np.int64), np.array([drop_threshold(rate) for rate in rates], np.uint64),
        np.array([1 / (1 - rate) for rate in rates], f32), net.features, odds, np.ones(1, f32), slots,
        product.room(1 << 20, widest), address,
    )  # fmt: skip


def fits(net) -> bool:
    """Whether compiled code can take a network: stages as nets.Stage has them, in float32. Hidden ones have FiLM and an
    activation, the last has nothing behind its product."""
    if net.stages is None or net.dtype != f32:
        return False
    *hidden, last = net.stages
    begun = False  # a residual block
    for stage in hidden:
        layer = stage.dense
        ends = stage.adds and not (stage.norm or stage.rate or layer.film or layer.activation)
        if not (ends if begun else layer.film and layer.activation and not stage.adds):
            return False
        begun = bool(stage.norm)
    behind = last.adds or last.rate or last.dense.film or last.dense.activation
    return bool(hidden) and not (begun or net.stages[0].norm or behind)


def pitch(width: int) -> int:
    """Floats from one row of an array to the next."""
    lines = -(-width // LINE)
    return LINE * (lines + (lines % 2 == 0 and LINE * lines >= FAR))


def aligned(count: int, floats: int) -> np.ndarray:
    """Zeros, (count, floats) float32, whose rows begin with a cache line; floats : a multiple of LINE"""
    raw = np.zeros(count * floats + LINE, f32)
    start = -(raw.ctypes.data // 4) % LINE
    return raw[start : start + count * floats].reshape(count, floats)


@njit
def copy(x, out):
    for k in range(x.size):
        out[k] = x[k]


@njit(inline="always")
def _pitch(width):
    lines = (width + LINE - 1) // LINE
    return LINE * (lines + 1) if lines % 2 == 0 and LINE * lines >= FAR else LINE * lines


@njit(inline="always")
def array_at(plan, buffer, slot, B, far):
    """The array (B, far) that begins at a slot of the buffer."""
    start = slot * (buffer.size // plan.slots[1])
    return buffer[start : start + B * far].reshape(B, far)


@njit(inline="always")
def padded(plan, buffer, slot, B, width):
    """The array (B, pitch of the width) that begins at a slot of the buffer."""
    return array_at(plan, buffer, slot, B, _pitch(width))


@njit(inline="always")
def outputs(plan, buffer, slot, B):
    """The network's output, or its gradient: the last layer's U or DZ, (B, M), which families read without ends of
    rows."""
    layer = plan.layers[plan.layers.shape[0] - 1]
    return array_at(plan, buffer, layer[slot], B, layer[N_OUT])


@njit(inline="always")
def _out(width, last):
    """Floats from row to row of a layer's U and DZ."""
    return width if last else _pitch(width)


@njit(inline="always")
def weight(flat, start, height, width):
    """The matrix that begins at an offset of a flat buffer."""
    return flat[start : start + height * width].reshape(height, width)


@njit
def find_runs(t, runs):
    """First row of each run of equal t, and the number of rows behind the last, into `runs`; returns how many runs
    there are. Where hardly any two rows share a t, each row is a run of its own: the loops over all rows are
    faster."""
    B, count = t.size, 0
    for r in range(B):
        if r == 0 or t[r] != t[r - 1]:
            runs[count] = r
            count += 1
    if 2 * count > B:
        count = B
        for r in range(B):
            runs[r] = r
    runs[count] = B
    return count


@njit(inline="always")
def _film(plan, buffer, layer, B, count):
    """Scale and shift of a layer's units, a row for each of `count` runs. Of fewer runs than rows both lie in the
    place of scale, and that of shift is free for the activation's slope."""
    place = padded(plan, buffer, layer[SCALE], B, layer[N_OUT])
    if count == B:
        return place, padded(plan, buffer, layer[SHIFT], B, layer[N_OUT])
    return place[:count], place[count : 2 * count]


@njit
def forward(plan, params, buffer, runs, shared, panels, noise):
    """All layers, for the rows of the runs.

    runs : (n + 1,) int64, find_runs
    shared : (m,) scale beside shift of each hidden layer, if all rows are one run; then `features` are not needed. Else
        empty
    panels : (plan.panels,) float32, the thread's
    noise : what dropout's is addressed by, (seed, step, numbers of the rows); None where no gradient is wanted
    """
    count, B = runs.size - 1, runs[runs.size - 1]
    F = plan.features.shape[1]
    features = padded(plan, buffer, plan.slots[0], B, F)[:count, :F]
    start, last = 0, plan.layers.shape[0] - 1
    for k in range(last + 1):
        layer = plan.layers[k]
        n_in, n_out = layer[N_IN], layer[N_OUT]
        x, u = padded(plan, buffer, layer[X], B, n_in), array_at(plan, buffer, layer[U], B, _out(n_out, k == last))
        end = layer[W] + n_in * n_out
        if layer[GAIN] >= 0:
            _norm(plan, params, buffer, layer, B)
        if layer[ADDS] != 0:
            y = padded(plan, buffer, layer[Y], B, n_out)
            for r in range(B):
                dense.add_to(y[r, :n_out], params[end : end + n_out])
            product.multiply_add(plan.product, x[:, :n_in], weight(params, layer[W], n_in, n_out), y[:, :n_out], panels)
            continue
        product.multiply_bias(
            plan.product, x[:, :n_in], weight(params, layer[W], n_in, n_out), params[end : end + n_out], u[:, :n_out],
            panels,
        )  # fmt: skip
        if k == last:
            return
        scale, shift = _film(plan, buffer, layer, B, count)
        if shared.size > 0:
            copy(shared[start : start + n_out], scale[0, :n_out])
            copy(shared[start + n_out : start + 2 * n_out], shift[0, :n_out])
            start += 2 * n_out
        else:
            table = weight(params, layer[F_], F, 2 * n_out)
            product.multiply(plan.product, features, table[:, :n_out], scale[:, :n_out], panels)
            product.multiply(plan.product, features, table[:, n_out:], shift[:, :n_out], panels)
        y, slope = padded(plan, buffer, layer[Y], B, n_out), padded(plan, buffer, layer[SHIFT], B, n_out)
        if noise is None:
            dense.film_runs(u, scale, shift, runs, y)
            dense.act_alone(layer[CODE], y.reshape(-1))
            continue
        if count == B:
            dense.film_act(layer[CODE], u.reshape(-1), scale.reshape(-1), shift.reshape(-1), y.reshape(-1))
        else:
            dense.film_runs(u, scale, shift, runs, y)
            dense.act(layer[CODE], y.reshape(-1), slope.reshape(-1))
        if plan.thresholds[k] > 0:
            _drop(plan, buffer, k, noise, y, slope)


@njit
def _norm(plan, params, buffer, layer, B):
    """The layer's input, from that of its residual block."""
    n = layer[N_IN]
    residual, x = padded(plan, buffer, layer[RESIDUAL], B, n), padded(plan, buffer, layer[X], B, n)
    unit, rstd = padded(plan, buffer, layer[UNIT], B, n), padded(plan, buffer, layer[RSTD], B, 1)
    gain, shift = weight(params, layer[GAIN], 2, n)
    for r in range(B):
        rstd[r, 0] = dense.norm_row(residual[r, :n], gain, shift, LAYER_NORM_EPS, (x[r, :n], unit[r, :n]))


@njit
def _norm_backward(plan, params, buffer, layer, dresidual):
    """The gradient of the block's input by way of the layer's."""
    B, n = dresidual.shape[0], layer[N_IN]
    dx, unit = padded(plan, buffer, layer[DX], B, n), padded(plan, buffer, layer[UNIT], B, n)
    rstd, gain = padded(plan, buffer, layer[RSTD], B, 1), weight(params, layer[GAIN], 1, n)[0]
    for r in range(B):
        dense.norm_row_backward(dx[r, :n], unit[r, :n], rstd[r, 0], gain, dresidual[r, :n])


@njit
def _drop(plan, buffer, k, noise, y, slope):
    """Dropout behind layer k."""
    (seed, step, row), layer = noise, plan.layers[k]
    B, H = y.shape[0], layer[N_OUT]
    stream, blocks = u64(rng.DROPOUT + (layer[INDEX] << 8)), (H + 15) // 16
    words = array_at(plan, buffer, layer[WORDS], B, 4 * blocks).reshape(-1).view(np.uint32).reshape(B * blocks, 4)
    philox_numba.fill(seed, stream, step, u64(row[0]) * u64(blocks), words)
    both = Noise(words.reshape(B, 4 * blocks), row, seed, stream, step)
    dense.drop(both, plan.thresholds[k], plan.kept[k], H, y, slope)


@njit
def backward(plan, params, buffer, runs, panels):
    """From the last layer's dz down to the first's; the gradients of scale and shift take their places."""
    count, B = runs.size - 1, runs[runs.size - 1]
    last = plan.layers.shape[0] - 1
    for k in range(last - 1, -1, -1):
        layer, above = plan.layers[k], plan.layers[k + 1]
        n_out, n_above = layer[N_OUT], above[N_OUT]
        dz = padded(plan, buffer, layer[DZ], B, n_out)
        dz_above = array_at(plan, buffer, above[DZ], B, _out(n_above, k + 1 == last))
        dx = padded(plan, buffer, above[DX], B, n_out) if above[GAIN] >= 0 else dz
        product.multiply_right(
            plan.product, dz_above[:, :n_above], weight(params, above[W], n_out, n_above), dx[:, :n_out], panels
        )
        if above[GAIN] >= 0:
            _norm_backward(plan, params, buffer, above, dz)
            if k + 2 <= last and plan.layers[k + 2, ADDS] != 0:
                around = padded(plan, buffer, plan.layers[k + 2, DZ], B, n_out)
                dense.add_to(dz.reshape(-1), around.reshape(-1))
        if layer[ADDS] != 0:
            continue
        u, slope = padded(plan, buffer, layer[U], B, n_out), padded(plan, buffer, layer[SHIFT], B, n_out)
        scale, shift = _film(plan, buffer, layer, B, count)
        if count == B:
            dense.film_act_backward(dz.reshape(-1), u.reshape(-1), scale.reshape(-1), slope.reshape(-1))
        else:
            film_runs_backward(dz, u, scale, shift, slope, runs)


@njit
def weight_gradient(plan, buffer, runs, tile, grads, add, panels):
    """One tile of the parameters' gradients into `grads` or, if `add`, on top of it; backward has been there."""
    count, B = runs.size - 1, runs[runs.size - 1]
    k, first, last = tile[LAYER], tile[FIRST], tile[LAST]
    layer = plan.layers[k]
    n_in, n_out = layer[N_IN], layer[N_OUT]
    if tile[KIND] == OF_NORM:
        dx, unit = padded(plan, buffer, layer[DX], B, n_in), padded(plan, buffer, layer[UNIT], B, n_in)
        dgain, dshift = weight(grads, layer[GAIN], 2, n_in)
        if not add:
            grads[tile[START] : tile[STOP]] = 0
        for r in range(B):
            dense.norm_row_sums(dx[r, :n_in], unit[r, :n_in], dgain, dshift)
        return
    if tile[KIND] == OF_FILM:
        F = plan.features.shape[1]
        features, table = padded(plan, buffer, plan.slots[0], B, F), weight(grads, layer[F_], F, 2 * n_out)
        scale, shift = _film(plan, buffer, layer, B, count)
        now = features[:count, first:last]
        product.multiply_left(plan.product, now, scale[:, :n_out], table[first:last, :n_out], add, panels)
        product.multiply_left(plan.product, now, shift[:, :n_out], table[first:last, n_out:], add, panels)
        return
    dz = array_at(plan, buffer, layer[DZ], B, _out(n_out, k + 1 == plan.layers.shape[0]))[:, :n_out]
    x, both = padded(plan, buffer, layer[X], B, n_in), weight(grads, layer[W], n_in + 1, n_out)
    rows = min(last, n_in)
    product.multiply_left(plan.product, x[:, first:rows], dz, both[first:rows], add, panels)
    if last > n_in:
        product.sum_rows(plan.product, plan.one, dz, both[n_in:], add, panels)
