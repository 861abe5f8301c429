"""The operations of dense layers in compiled code: what numpy_ops does in several passes, here in one. Formulas:
derivation, section 12.

Loops run over flat arrays or over the units of a row, so that they vectorise; rows follow one another, so that sums
over rows have one order.
"""

from __future__ import annotations

import math

import numpy as np

from bdiff_np.kernels.dense.dense_codes import GELU, RELU, SILU, TANH
from bdiff_np.kernels.shared import philox_numba
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.shared.float32_numba import exp
from bdiff_np.kernels.shared.vectors_numba import whole_vectors

GELU_1, GELU_3 = (2 / np.pi) ** 0.5, (2 / np.pi) ** 0.5 * 0.044715
FUSED = {"contract"}  # multiply and add in one instruction; nothing else of fast-math, which would change sums
SUMS = FUSED | {"reassoc"}  # a row's sums in vectors


@njit(fastmath=FUSED, error_model="numpy")
def _silu(v, one):
    s = one / (one + exp(-v))
    return v * s, s + v * s * (one - s)


@njit(fastmath=FUSED, error_model="numpy")
def _gelu(v, one, c1, c3):
    half = one / (one + one)
    w = one - (one + one) / (one + exp((one + one) * v * (c1 + c3 * v * v)))
    return half * v * (one + w), half * (one + w) + half * v * (one - w * w) * (c1 + (one + one + one) * c3 * v * v)


@njit(fastmath=FUSED, error_model="numpy")
def _tanh(v, one):
    w = one - (one + one) / (one + exp((one + one) * v))
    return w, one - w * w


@njit(fastmath=FUSED, error_model="numpy")
def _sigmoid(v, one):
    s = one / (one + exp(-v))
    return s, s * (one - s)


@njit(fastmath=FUSED, error_model="numpy")
def act_of(code, v, one, c1, c3):
    """act(v) and act'(v) of one number. code : one of CODES. one, c1, c3 : 1, GELU_1 and GELU_3 in its type"""
    if code == RELU:
        return (one - one if v <= 0 else v), (one if v > 0 else one - one)
    if code == SILU:
        return _silu(v, one)
    if code == GELU:
        return _gelu(v, one, c1, c3)
    if code == TANH:
        return _tanh(v, one)
    return _sigmoid(v, one)


@njit(fastmath=FUSED, error_model="numpy")
def act(code, y, slope):
    """y holds v on entry and act(v) on return; slope receives act'(v). Both 1-D, of one dtype. code : one of CODES"""
    whole_vectors()
    zero, one, c1, c3 = y.dtype.type(0), y.dtype.type(1), y.dtype.type(GELU_1), y.dtype.type(GELU_3)
    if code == RELU:
        for j in range(y.size):
            slope[j] = one if y[j] > 0 else zero
            y[j] = zero if y[j] <= 0 else y[j]  # NaN stays NaN
    elif code == SILU:
        for j in range(y.size):
            y[j], slope[j] = _silu(y[j], one)
    elif code == GELU:
        for j in range(y.size):
            y[j], slope[j] = _gelu(y[j], one, c1, c3)
    elif code == TANH:
        for j in range(y.size):
            y[j], slope[j] = _tanh(y[j], one)
    else:
        for j in range(y.size):
            y[j], slope[j] = _sigmoid(y[j], one)


@njit(fastmath=FUSED, error_model="numpy")
def act_alone(code, y):
    """y holds v on entry and act(v) on return; 1-D. code : one of CODES"""
    whole_vectors()
    zero, one, c1, c3 = y.dtype.type(0), y.dtype.type(1), y.dtype.type(GELU_1), y.dtype.type(GELU_3)
    if code == RELU:
        for j in range(y.size):
            y[j] = zero if y[j] <= 0 else y[j]
    elif code == SILU:
        for j in range(y.size):
            y[j] = _silu(y[j], one)[0]
    elif code == GELU:
        for j in range(y.size):
            y[j] = _gelu(y[j], one, c1, c3)[0]
    elif code == TANH:
        for j in range(y.size):
            y[j] = _tanh(y[j], one)[0]
    else:
        for j in range(y.size):
            y[j] = _sigmoid(y[j], one)[0]


@njit(fastmath=FUSED, error_model="numpy")
def film_act(code, u, scale, shift, y):
    """y = act(v) and, in the place of shift, act'(v), for v = u * (1 + scale) + shift; all 1-D, of one dtype. code : of
    CODES"""
    whole_vectors()
    zero, one, c1, c3 = y.dtype.type(0), y.dtype.type(1), y.dtype.type(GELU_1), y.dtype.type(GELU_3)
    if code == RELU:
        for j in range(y.size):
            v = u[j] * (one + scale[j]) + shift[j]
            y[j] = zero if v <= 0 else v
            shift[j] = one if v > 0 else zero
    elif code == SILU:
        for j in range(y.size):
            y[j], shift[j] = _silu(u[j] * (one + scale[j]) + shift[j], one)
    elif code == GELU:
        for j in range(y.size):
            y[j], shift[j] = _gelu(u[j] * (one + scale[j]) + shift[j], one, c1, c3)
    elif code == TANH:
        for j in range(y.size):
            y[j], shift[j] = _tanh(u[j] * (one + scale[j]) + shift[j], one)
    else:
        for j in range(y.size):
            y[j], shift[j] = _sigmoid(u[j] * (one + scale[j]) + shift[j], one)


@njit(fastmath=FUSED)
def film_act_backward(dz, u, scale, slope):
    """dz holds dy on entry and the gradient of z = u on return; scale and slope are replaced by the gradients of scale
    and shift. All 1-D."""
    whole_vectors()
    one = dz.dtype.type(1)
    for j in range(dz.size):
        dv = dz[j] * slope[j]
        dz[j] = dv * (one + scale[j])
        scale[j] = dv * u[j]
        slope[j] = dv


@njit(fastmath=FUSED)
def film_runs(u, scale, shift, runs, y):
    """y = u * (1 + scale) + shift, where rows runs[k] .. runs[k + 1] - 1 of u share row k of scale and shift."""
    for k in range(runs.size - 1):
        for r in range(runs[k], runs[k + 1]):
            _film_row(u[r], scale[k], shift[k], y[r])


@njit(fastmath=FUSED)
def _film_row(u, scale, shift, y):
    whole_vectors()
    one = u.dtype.type(1)
    for j in range(u.size):
        y[j] = u[j] * (one + scale[j]) + shift[j]


@njit(fastmath=FUSED)
def affine(u, bias, y):
    """u holds z on entry; u = y = z + bias, each row."""
    for r in range(u.shape[0]):
        for j in range(u.shape[1]):
            v = u[r, j] + bias[j]
            u[r, j] = v
            y[r, j] = v


@njit(fastmath=FUSED)
def film(u, bias, table, y):
    """u holds z on entry; u = z + bias, y = u * (1 + scale) + shift, each row. table (B, 2H) is scale beside shift."""
    H = u.shape[1]
    one = u.dtype.type(1)
    for r in range(u.shape[0]):
        scale, shift = table[r, :H], table[r, H:]
        for j in range(H):
            v = u[r, j] + bias[j]
            u[r, j] = v
            y[r, j] = v * (one + scale[j]) + shift[j]


@njit(fastmath=FUSED)
def film_backward(dz, slope, u, table):
    """dz holds dy on entry; on return dz is the gradient of z, and the table that of itself."""
    H = dz.shape[1]
    one = dz.dtype.type(1)
    for r in range(dz.shape[0]):
        # Three loops: in one, more pairs of arrays could overlap than LLVM is willing to check before it runs in
        # vectors.
        for j in range(H):
            table[r, H + j] = dz[r, j] * slope[r, j]
        for j in range(H):
            dz[r, j] = table[r, H + j] * (one + table[r, j])
        for j in range(H):
            table[r, j] = table[r, H + j] * u[r, j]


@njit
def scale_by(x, factor):
    """x *= factor, two arrays of one shape."""
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[r, j] *= factor[r, j]


@njit
def add_to(x, more):
    """x += more, 1-D."""
    whole_vectors()
    for i in range(x.size):
        x[i] += more[i]


@njit
def add(a, b, out):
    """out = a + b, 1-D."""
    whole_vectors()
    for i in range(out.size):
        out[i] = a[i] + b[i]


@njit
def column_sums(x, out):
    """Sum over the rows of x."""
    out[:] = 0
    for r in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[j] += x[r, j]


@njit
def layer_norm(x, gain, shift, eps, out):
    """y = gain * unit + shift, unit the rows of x at mean 0 and variance 1; rstd (B, 1) is 1 over their deviation. out
    : (y, unit, rstd)"""
    y, unit, rstd = out
    for r in range(x.shape[0]):
        rstd[r, 0] = norm_row(x[r], gain, shift, eps, (y[r], unit[r]))


@njit(fastmath=SUMS, error_model="numpy")
def norm_row(x, gain, shift, eps, out):
    """One row of `layer_norm`; returns its rstd."""
    whole_vectors()
    y, unit = out
    one, H, mean, square = x.dtype.type(1), x.dtype.type(x.size), x.dtype.type(0), x.dtype.type(0)
    for j in range(x.size):
        mean += x[j]
    mean /= H
    for j in range(x.size):
        square += (x[j] - mean) * (x[j] - mean)
    rstd = one / np.sqrt(square / H + x.dtype.type(eps))
    for j in range(x.size):
        unit[j] = (x[j] - mean) * rstd
    for j in range(x.size):
        y[j] = unit[j] * gain[j] + shift[j]
    return rstd


@njit
def layer_norm_backward(dy, tape, out):
    """tape : (unit, rstd, gain). out : (dx, dgain, dshift), dx (B, H) and two sums over rows (H,)"""
    unit, rstd, gain = tape
    dx, dgain, dshift = out
    dgain[:] = 0
    dshift[:] = 0
    for r in range(dy.shape[0]):
        norm_row_sums(dy[r], unit[r], dgain, dshift)
        norm_row_backward(dy[r], unit[r], rstd[r, 0], gain, dx[r])


@njit(fastmath=FUSED)
def norm_row_sums(dy, unit, dgain, dshift):
    """A row's part in the gradients of gain and shift."""
    whole_vectors()
    for j in range(dy.size):
        dshift[j] += dy[j]
    for j in range(dy.size):
        dgain[j] += dy[j] * unit[j]


@njit(fastmath=SUMS, error_model="numpy")
def norm_row_backward(dy, unit, rstd, gain, dx):
    """The gradient of a row of x."""
    whole_vectors()
    H, mean, along = dy.dtype.type(dy.size), dy.dtype.type(0), dy.dtype.type(0)
    for j in range(dy.size):
        mean += dy[j] * gain[j]
        along += dy[j] * gain[j] * unit[j]
    mean /= H
    along /= H
    for j in range(dy.size):
        dx[j] = rstd * (dy[j] * gain[j] - mean - unit[j] * along)


@njit
def keep_mask(noise, threshold, kept, mask):
    """mask (B, H): 0 where an element's word is below the threshold, else `kept`; as a rule its byte says so."""
    B, H = mask.shape
    bytes, top = noise.words.reshape(-1).view(np.uint8).reshape(B, -1), np.uint8(threshold >> 24)
    for r in range(B):
        ties = _keep(bytes[r], top, kept, mask[r])
        for j in range(H if ties else 0):
            if bytes[r, j] == top and philox_numba.tied_draw(noise, r, j, H, top) < threshold:
                mask[r, j] = 0


@njit
def _keep(bytes, top, kept, mask):
    """0 where a byte is below `top`; whether one is `top` itself, whose element is kept for now."""
    ties = np.uint8(0)
    for j in range(mask.size):
        mask[j] = kept if bytes[j] >= top else 0
        ties |= np.uint8(bytes[j] == top)
    return ties != 0


@njit
def drop(noise, threshold, kept, H, y, slope):
    """keep_mask's mask of H columns times y and slope (B, >= H)."""
    bytes, top = noise.words.reshape(-1).view(np.uint8).reshape(y.shape[0], -1), np.uint8(threshold >> 24)
    for r in range(y.shape[0]):
        ties = _drop(bytes[r], top, kept, y[r, :H], slope[r, :H])
        for j in range(H if ties else 0):
            if bytes[r, j] == top and philox_numba.tied_draw(noise, r, j, H, top) < threshold:
                y[r, j] = slope[r, j] = 0


@njit
def _drop(bytes, top, kept, y, slope):
    """`_keep`, times y and slope."""
    whole_vectors()
    ties, zero = np.uint8(0), y.dtype.type(0)
    for j in range(y.size):
        y[j] *= kept if bytes[j] >= top else zero
    for j in range(y.size):
        slope[j] *= kept if bytes[j] >= top else zero
    for j in range(y.size):
        ties |= np.uint8(bytes[j] == top)
    return ties != 0


@njit(fastmath=SUMS)
def square_sum(x):
    """Sum of squares of a 1-D array, float64."""
    whole_vectors()
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(x[i])
    return total


@njit(fastmath=FUSED, error_model="numpy")
def adamw_of(p, g, m, v, ema, rates, decay, one):
    """One AdamW step of one parameter with gradient g: p, m, v and ema after it. rates : dense_codes.Rates. decay : lr
    * weight_decay, or 0"""
    scale, rate_m, rate_v, step, root, eps, _, rate_ema = rates
    g = g * scale
    m = m + rate_m * (g - m)
    v = v + rate_v * (g * g - v)
    p = p * (one - decay) - step * m / (math.sqrt(v) * root + eps)
    return p, m, v, ema + rate_ema * (p - ema)


@njit(fastmath=FUSED, error_model="numpy")
def adamw(buffers, decayed, rates):
    """One AdamW step with its moving average of the weights, in one pass. Derivation, section 13.

    buffers : (params, grads, m, v, ema), flat. decayed : as long, of any type, 1 where weight decay applies
    """
    whole_vectors()
    params, grads, m, v, ema = buffers
    one = params.dtype.type(1)
    for i in range(params.size):
        now = adamw_of(params[i], grads[i], m[i], v[i], ema[i], rates, rates.decay * decayed[i], one)
        params[i], m[i], v[i], ema[i] = now
