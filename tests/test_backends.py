"""The shared operations of every back end against plain float64 formulas and finite differences.

The references are written out here, from docs/derivation.md, section 12, and share no code with the back ends.
"""

from __future__ import annotations

import math
import platform
import subprocess
import sys

import numpy as np
import pytest
from here import ABSENT, BACKENDS

from bdiff_np import backends, diffusion, rng
from bdiff_np.backends import load_ops
from bdiff_np.data.bits import Bits
from bdiff_np.errors import InputError

ACTIVATIONS = ("relu", "silu", "gelu", "tanh", "sigmoid")
B, H = 7, 5
KEY = rng.Key(11, rng.DROPOUT, 3)
CLOSE = {np.float64: 1e-13, np.float32: 3e-6}


@pytest.fixture(params=BACKENDS)
def ops(request):
    return load_ops(request.param)


@pytest.fixture(params=["numpy", "numba"])
def host_ops(request):
    """Operations that can be given random words; those of a GPU make them."""
    return load_ops(request.param)


def number(ops, norm) -> float:
    return np.asarray(ops.to_host(norm)).item()


def plain(name: str | None, z: float) -> float:
    """The activations of the derivation's table, one number at a time."""
    sigmoid = 1 / (1 + math.exp(-z))
    gelu = 0.5 * z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    return {None: z, "relu": max(z, 0.0), "silu": z * sigmoid, "gelu": gelu, "tanh": math.tanh(z), "sigmoid": sigmoid}[
        name
    ]


def plain_layer(z, bias, activation, film):
    u = z + bias
    if film is not None:
        u = u * (1 + film[:, :H]) + film[:, H:]
    return np.vectorize(lambda value: plain(activation, value))(u)


def plain_norm(x, gain, shift):
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt(x.var(1, keepdims=True) + 1e-5) * gain + shift


def slope(function, where: np.ndarray, direction: np.ndarray, h: float = 1e-5) -> float:
    """Derivative of the sum that `function` gives, along a direction; good to about 1e-10."""
    return (function(where + h * direction) - function(where - h * direction)) / (2 * h)


def moved(ops, *arrays):
    """Copies on the back end, so that a write to them does not change what they are compared with."""
    return [None if a is None else ops.asarray(a.copy()) for a in arrays]


def inputs(dtype, film: bool, seed: int = 0):
    generator = np.random.default_rng(seed)
    z, bias, dy = generator.normal(size=(B, H)), generator.normal(size=H), generator.normal(size=(B, H))
    table = 0.7 * generator.normal(size=(B, 2 * H)) if film else None
    return [None if a is None else a.astype(dtype) for a in (z, bias, table, dy)]


layers = pytest.mark.parametrize("activation, film", [(a, f) for a in (*ACTIVATIONS, None) for f in (False, True)])
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def test_a_name_is_looked_up_and_never_guessed():
    """An unknown back end is a fault that lists those there are."""
    with pytest.raises(InputError, match="numpy"):
        load_ops("nothing")
    assert "numpy" in backends.names()
    assert {"numpy", "numba", "cupy", "numba-cuda"} <= set(backends.names())


@pytest.mark.parametrize("backend", backends.names())
def test_a_back_end_runs_here(backend):
    """Those that do not are left out of all tests of this file and of test_kernels.py, and seen to be."""
    if backend in ABSENT:
        pytest.skip(ABSENT[backend])
    assert backend in BACKENDS


def test_a_back_end_knows_its_name(ops, request):
    assert ops.name == request.node.callspec.params["ops"]


# Arrays
# ----------------------------------------------------------------------------------------------------------------------


@dtypes
def test_arrays_come_back_as_they_were(ops, dtype):
    """asarray and to_host lose nothing, whatever the memory order; zeros are zeros of the dtype asked for."""
    host = np.random.default_rng(0).normal(size=(4, 6)).astype(dtype)[:, ::2]
    back = ops.to_host(ops.asarray(host))
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, host)
    zeros = ops.to_host(ops.zeros((2, 3), dtype))
    assert zeros.dtype == dtype and zeros.shape == (2, 3) and not zeros.any()


@dtypes
@pytest.mark.parametrize("transposed", [False, True])
def test_matmul(ops, dtype, transposed):
    """The product in full precision, of transposed views too, as a new array or into `out`; inputs stay."""
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=(4, 9)).astype(dtype), generator.normal(size=(9, 3)).astype(dtype)
    left, right = moved(ops, a.T if transposed else a, b)
    left = left.T if transposed else left
    expected = a.astype(np.float64) @ b.astype(np.float64)
    product = ops.matmul(left, right)
    out = ops.asarray(np.full((4, 3), np.nan, dtype))
    ops.matmul(left, right, out=out)
    assert ops.to_host(product).dtype == dtype
    np.testing.assert_allclose(ops.to_host(product), expected, rtol=CLOSE[dtype], atol=CLOSE[dtype])
    np.testing.assert_array_equal(ops.to_host(out), ops.to_host(product))
    np.testing.assert_array_equal(ops.to_host(left), a)
    np.testing.assert_array_equal(ops.to_host(right), b)


@dtypes
def test_matmul_writes_into_a_view_of_a_flat_buffer(ops, dtype):
    """`out` may be a slice of a larger buffer, whose other entries stay: gradients are views of one buffer."""
    flat = ops.asarray(np.full(20, 7, dtype))
    a, b = np.arange(6, dtype=dtype).reshape(2, 3), np.arange(12, dtype=dtype).reshape(3, 4)
    ops.matmul(ops.asarray(a), ops.asarray(b), out=flat[5:13].reshape(2, 4))
    np.testing.assert_array_equal(ops.to_host(flat), [7] * 5 + [20, 23, 26, 29, 56, 68, 80, 92] + [7] * 7)


@dtypes
def test_norm(ops, dtype):
    """The Euclidean length, on the host a number of Python; not finite where an entry is not."""
    found = ops.norm(ops.asarray(np.array([3.0, -4.0, 12.0], dtype)))
    assert isinstance(found, float) != ops.on_device and number(ops, found) == pytest.approx(13.0, rel=1e-7)
    for bad in (math.nan, math.inf, -math.inf):
        assert not math.isfinite(number(ops, ops.norm(ops.asarray(np.array([1.0, bad], dtype)))))
    for size in (1, 31, 32, 33, 5000, 70_001):  # pieces of one column and of many, the last one short
        flat = np.random.default_rng(size).normal(size=size).astype(dtype)
        wide = flat.astype(np.float64)
        assert number(ops, ops.norm(ops.asarray(flat))) == pytest.approx(
            math.sqrt(wide @ wide), rel=2e-6 if dtype == np.float32 else 1e-13
        )
    with np.errstate(over="ignore"):
        long = number(ops, ops.norm(ops.asarray(np.array([3e20, 4e20], dtype))))  # float32 does not hold its square
    assert not math.isfinite(long) if dtype == np.float32 else long == 5e20


@dtypes
def test_a_norm_that_is_not_finite_halts(ops, dtype):
    """It sets `halted`, which then makes every norm nan, and a step of AdamW with such a norm changes nothing."""
    halted, good = ops.zeros(1, np.int32), ops.asarray(np.array([3.0, 4.0], dtype))
    assert number(ops, ops.norm(good, halted)) == 5 and ops.to_host(halted)[0] == 0
    assert (
        not math.isfinite(number(ops, ops.norm(ops.asarray(np.array([1.0, math.inf], dtype)), halted)))
        and ops.to_host(halted)[0] == 1
    )
    norm = ops.norm(good, halted)
    assert math.isnan(number(ops, norm))
    start = np.array([1.0, 2.0], dtype)
    buffers = moved(ops, start, start, start, start)
    options = RATES | dict(clip=1.0, lr=0.1, weight_decay=0.1, ema_decay=0.5, step=3)
    ops.adamw(buffers[0], good, *buffers[1:], ops.asarray(np.ones(2, dtype)), norm, **options)
    for buffer in buffers:
        np.testing.assert_array_equal(ops.to_host(buffer), start)


# What is read
# ----------------------------------------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("odds", [False, True])
@pytest.mark.parametrize("rows, D, F", [(1, 1, 2), (7, 9, 4), (300, 33, 16), (5, 70, 40)])
def test_read_gives_signs_and_features(ops, rows, D, F, odds, dtype):
    """Bits as -1 and +1, a second time times the odds of their t, and the features of their t; nothing is rounded."""
    generator, T = np.random.default_rng(D), 11
    x_t, t = generator.integers(0, 2, (rows, D)).astype(np.uint8), generator.integers(1, T + 1, rows)
    features, weights = generator.normal(size=(T + 1, F)).astype(dtype), generator.normal(size=T + 1).astype(dtype)
    x, f = diffusion.kernels("bernoulli", ops).read(
        None, ops.asarray(x_t), ops.asarray(t), ops.asarray(features), ops.asarray(weights) if odds else None
    )
    signs = np.where(x_t, 1, -1).astype(dtype)
    np.testing.assert_array_equal(
        ops.to_host(x), np.concatenate([signs, signs * weights[t, None]], 1) if odds else signs
    )
    np.testing.assert_array_equal(ops.to_host(f), features[t])
    assert ops.to_host(x).dtype == ops.to_host(f).dtype == dtype


@pytest.mark.parametrize("D", [1, 8, 20, 64, 65])
def test_resident_rows_are_the_rows(ops, D):
    """Rows taken by number, some of them twice, are those of the data."""
    bits = np.random.default_rng(D).integers(0, 2, (50, D)).astype(np.uint8)
    index = np.array([3, 49, 0, 3, 17])
    found = ops.to_host(Bits.from_array(bits).resident(ops).take(index))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, bits[index])


# Layers
# ----------------------------------------------------------------------------------------------------------------------


@layers
@dtypes
def test_activate_is_the_formula(ops, activation, film, dtype):
    """act((z + b)(1 + scale) + shift), in the dtype of its input, with inputs unchanged."""
    z, bias, table, _ = inputs(dtype, film)
    given = moved(ops, z, bias, table)
    y, _ = ops.activate(given[0], given[1], activation, given[2])
    assert ops.to_host(y).dtype == dtype
    wide = [None if a is None else a.astype(np.float64) for a in (z, bias, table)]
    np.testing.assert_allclose(
        ops.to_host(y), plain_layer(wide[0], wide[1], activation, wide[2]), rtol=CLOSE[dtype], atol=CLOSE[dtype]
    )
    for after, before in zip(given, (z, bias, table)):
        assert before is None or np.array_equal(ops.to_host(after), before)


@layers
def test_activate_backward_is_the_derivative(ops, activation, film):
    """dz, dbias and dfilm agree with finite differences of the plain formula in random directions to 1e-8; relu's kink
    is not near."""
    z, bias, table, dy = inputs(np.float64, film)
    tape = ops.activate(*moved(ops, z, bias), activation, *moved(ops, table))[1]
    dbias = ops.asarray(np.full(H, np.nan))
    dz, dfilm = ops.activate_backward(ops.asarray(dy), tape, dbias)
    value = lambda z, bias, table: float((plain_layer(z, bias, activation, table) * dy).sum())  # noqa: E731
    generator = np.random.default_rng(5)
    assert (dfilm is None) == (not film)
    for _ in range(3):
        checks = [(dz, z, lambda a: value(a, bias, table)), (dbias, bias, lambda a: value(z, a, table))]
        if film:
            checks.append((dfilm, table, lambda a: value(z, bias, a)))
        for gradient, where, function in checks:
            direction = generator.normal(size=where.shape)
            assert float((ops.to_host(gradient) * direction).sum()) == pytest.approx(
                slope(function, where, direction), rel=1e-7, abs=1e-9
            )


@layers
def test_activate_backward_in_float32(ops, activation, film):
    """float32 in gives float32 out, the float64 gradient to rounding; dy and the saved inputs are unchanged, and a
    second call agrees."""
    arrays = inputs(np.float32, film)
    found = {}
    for dtype in (np.float64, np.float32):
        z, bias, table, dy = moved(ops, *(None if a is None else a.astype(dtype) for a in arrays))
        tape = ops.activate(z, bias, activation, table)[1]
        twice = []
        for _ in range(2):
            dbias = ops.asarray(np.full(H, np.nan, dtype))
            dz, dfilm = ops.activate_backward(dy, tape, dbias)
            twice.append([np.array(ops.to_host(g)) for g in (dz, dbias, dfilm) if g is not None])
        for first, second in zip(*twice):
            np.testing.assert_array_equal(first, second)
        for after, before in zip((z, bias, table, dy), arrays):
            assert before is None or np.array_equal(ops.to_host(after), before)
        found[dtype] = twice[0]
    for narrow, wide in zip(found[np.float32], found[np.float64]):
        assert narrow.dtype == np.float32
        np.testing.assert_allclose(narrow, wide, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@dtypes
def test_activations_survive_large_inputs(ops, activation, dtype):
    """At +-1e4 values and slopes are the limits, without a warning: relu, silu and gelu z or 0, tanh +-1, sigmoid 0 or
    1."""
    z = np.array([[-1e4, 1e4]], dtype)
    with np.errstate(all="raise", under="ignore"):
        y, tape = ops.activate(*moved(ops, z, np.zeros(2, dtype)), activation)
        dz = ops.activate_backward(ops.asarray(np.ones((1, 2), dtype)), tape, ops.zeros(2, dtype))[0]
    ends = {"tanh": [-1, 1], "sigmoid": [0, 1]}.get(activation, [0, 1e4])
    np.testing.assert_allclose(ops.to_host(y)[0], ends, atol=1e-12)
    np.testing.assert_allclose(ops.to_host(dz)[0], [0, 0] if activation in ("tanh", "sigmoid") else [0, 1], atol=1e-12)


def test_relu_has_slope_zero_at_its_kink(ops):
    """The derivation takes the derivative of relu at 0 as 0."""
    tape = ops.activate(ops.asarray(np.zeros((1, 1))), ops.asarray(np.zeros(1)), "relu")[1]
    assert ops.to_host(ops.activate_backward(ops.asarray(np.ones((1, 1))), tape, ops.zeros(1, np.float64))[0]) == 0


@dtypes
def test_layer_norm_is_the_formula(ops, dtype):
    """(x - mean) / sqrt(variance + 1e-5) * gain + shift, row by row, also for a row of equal numbers; inputs
    unchanged."""
    generator = np.random.default_rng(3)
    x, gain, shift = (generator.normal(size=s).astype(dtype) for s in ((B, H), H, H))
    x[2] = 0.25
    x[3] *= dtype(0.003)  # here the constant under the root matters
    given = moved(ops, x, gain, shift)
    y = ops.to_host(ops.layer_norm(*given)[0])
    assert y.dtype == dtype
    expected = plain_norm(*(a.astype(np.float64) for a in (x, gain, shift)))
    np.testing.assert_allclose(y, expected, rtol=10 * CLOSE[dtype], atol=10 * CLOSE[dtype])
    np.testing.assert_array_equal(y[2], shift)
    for after, before in zip(given, (x, gain, shift)):
        np.testing.assert_array_equal(ops.to_host(after), before)


def test_layer_norm_backward_is_the_derivative(ops):
    """dx, dgain and dshift agree with finite differences of the plain formula in random directions."""
    generator = np.random.default_rng(4)
    x, gain, shift, dy = (generator.normal(size=s) for s in ((B, H), H, H, (B, H)))
    x[3] *= 0.01
    dgain, dshift = ops.asarray(np.full(H, np.nan)), ops.asarray(np.full(H, np.nan))
    (given,) = moved(ops, dy)
    dx = ops.layer_norm_backward(given, ops.layer_norm(*moved(ops, x, gain, shift))[1], dgain, dshift)
    value = lambda x, gain, shift: float((plain_norm(x, gain, shift) * dy).sum())  # noqa: E731
    for _ in range(3):
        for gradient, where, function in (
            (dx, x, lambda a: value(a, gain, shift)),
            (dgain, gain, lambda a: value(x, a, shift)),
            (dshift, shift, lambda a: value(x, gain, a)),
        ):
            direction = generator.normal(size=where.shape)
            numeric = slope(function, where, direction, 1e-6)
            assert float((ops.to_host(gradient) * direction).sum()) == pytest.approx(numeric, rel=1e-6, abs=1e-8)
    np.testing.assert_array_equal(ops.to_host(given), dy)


def test_layer_norm_backward_in_float32(ops):
    """float32 in gives float32 out, the float64 gradient to rounding."""
    generator = np.random.default_rng(6)
    arrays = [generator.normal(size=s).astype(np.float32) for s in ((B, H), H, H, (B, H))]
    found = []
    for dtype in (np.float32, np.float64):
        x, gain, shift, dy = moved(ops, *(a.astype(dtype) for a in arrays))
        dgain, dshift = ops.zeros(H, dtype), ops.zeros(H, dtype)
        dx = ops.layer_norm_backward(dy, ops.layer_norm(x, gain, shift)[1], dgain, dshift)
        found.append([ops.to_host(g) for g in (dx, dgain, dshift)])
    for narrow, wide in zip(*found):
        assert narrow.dtype == np.float32
        np.testing.assert_allclose(narrow, wide, rtol=2e-5, atol=2e-5)


@dtypes
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_keep_mask_law(ops, rate, dtype):
    """Exactly the draws below round(rate 2^32) are left out, also where the rate is a draw itself, or the next number;
    the others give 1 / (1 - rate), so that the mean is 1."""
    draws = rng.draws(KEY, 40, 250)
    edge = int(draws.ravel()[np.argmin(np.abs(draws / 2**32 - rate))])
    for threshold in (edge, edge + 1, round(rate * 2**32)):
        mask = ops.to_host(ops.keep_mask(KEY, draws.shape, threshold / 2**32, dtype))
        np.testing.assert_array_equal(mask != 0, draws >= threshold)
        np.testing.assert_array_equal(mask[mask != 0], dtype(1 / (1 - threshold / 2**32)))
    assert mask.mean(dtype=np.float64) == pytest.approx(1, abs=4e-2 * (rate / (1 - rate)) ** 0.5)


@dtypes
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9])
def test_keep_mask_is_of_the_keys_words(ops, rate, dtype):
    """Every back end leaves out the same units: those whose word of the key lies below the rate, for ragged shapes and
    large keys."""
    for key in (KEY, rng.Key(2**63 - 1, rng.DROPOUT + (3 << 8), 2**32 - 1)):
        for shape in ((1, 1), (7, 8), (5, 13), (300, 65)):
            mask = ops.to_host(ops.keep_mask(key, shape, rate, dtype))
            kept = rng.draws(key, *shape) >= np.uint32(round(rate * 2**32))
            assert mask.dtype == dtype and mask.shape == shape
            np.testing.assert_array_equal(mask, np.where(kept, dtype(1 / (1 - rate)), dtype(0)))


# AdamW
# ----------------------------------------------------------------------------------------------------------------------

RATES = dict(scale=0.37, beta1=0.9, beta2=0.999, eps=1e-8)


def plain_adamw(params, gradients, decayed, *, lr, weight_decay, ema_decay, scale, beta1, beta2, eps):
    """Loshchilov and Hutter 2019, algorithm 2, one number at a time; returns params, m, v and the moving average."""
    results = []
    for p, gs, wd in zip(params, zip(*gradients), decayed):
        m = v = 0.0
        ema = p
        for k, g in enumerate(gs, start=1):
            g = g * scale
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            m_hat, v_hat = m / (1 - beta1**k), v / (1 - beta2**k)
            p = p - lr[k - 1] * m_hat / (math.sqrt(v_hat) + eps) - lr[k - 1] * weight_decay * wd * p
            ema = ema_decay * ema + (1 - ema_decay) * p
        results.append((p, m, v, ema))
    return np.array(results).T


@dtypes
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adamw_is_the_literal_loop(ops, dtype, weight_decay):
    """Five steps of params, moments and moving average, with bias correction, equal the scalar algorithm; decay only
    where marked."""
    generator = np.random.default_rng(7)
    params, gradients = generator.normal(size=6).astype(dtype), generator.normal(size=(5, 6)).astype(dtype)
    gradients[:, 5] = 1e-9  # where eps matters
    decayed = np.array([0, 1, 0, 1, 1, 0], dtype)
    lr, ema_decay = [0.01, 0.02, 0.03, 0.02, 0.01], 0.8
    p, m, v, ema, mask = moved(ops, params, 0 * params, 0 * params, params, decayed)
    for k, g in enumerate(gradients, start=1):
        (given,) = moved(ops, g)
        options = dict(lr=lr[k - 1], weight_decay=weight_decay, ema_decay=ema_decay, step=k, clip=math.inf)
        ops.adamw(p, given, m, v, ema, mask, ops.norm(given), **options, **RATES)
        np.testing.assert_array_equal(ops.to_host(given), g)
    options = dict(weight_decay=weight_decay, ema_decay=ema_decay, **RATES)
    expected = plain_adamw(params.astype(float), gradients.astype(float), decayed, lr=lr, **options)
    rtol, atol = (1e-12, 0) if dtype == np.float64 else (2e-5, 1e-12)
    for found, wanted in zip((p, m, v, ema), expected):
        assert ops.to_host(found).dtype == dtype
        np.testing.assert_allclose(ops.to_host(found), wanted, rtol=rtol, atol=atol)
    np.testing.assert_array_equal(ops.to_host(mask), decayed)


def test_decay_is_decoupled(ops):
    """With no gradient the marked weights shrink by 1 - lr * weight_decay exactly, the others stay, and the moments
    stay 0."""
    p, g, m, v, ema = (
        ops.asarray(a) for a in (np.array([2.0, 2.0]), np.zeros(2), np.zeros(2), np.zeros(2), np.array([2.0, 2.0]))
    )
    mask = ops.asarray(np.array([1.0, 0.0]))
    ops.adamw(p, g, m, v, ema, mask, ops.norm(g), clip=1.0, lr=0.25, weight_decay=0.5, ema_decay=0.5, step=1, **RATES)
    np.testing.assert_array_equal(ops.to_host(p), [1.75, 2.0])
    np.testing.assert_array_equal(ops.to_host(ema), [1.875, 2.0])
    assert not ops.to_host(m).any() and not ops.to_host(v).any()


def test_adamw_first_step_has_the_length_of_the_learning_rate(ops):
    """Bias correction makes the first step lr * sign(g), whatever the size of g."""
    p, g = ops.asarray(np.zeros(3)), ops.asarray(np.array([1e-3, -5.0, 1e4]))
    zeros = [ops.asarray(np.zeros(3)) for _ in range(4)]
    ops.adamw(p, g, *zeros, ops.norm(g), clip=math.inf, lr=0.125, weight_decay=0.0, ema_decay=0.9, step=1, **RATES)
    np.testing.assert_allclose(ops.to_host(p), [-0.125, 0.125, -0.125], rtol=1e-4)


@dtypes
@pytest.mark.parametrize("clip, factor", [(math.inf, 1.0), (6.0, 1.0), (5.0, 1.0), (2.5, 0.5)])
def test_adamw_clips_the_scaled_gradient(ops, clip, factor, dtype):
    """A scaled gradient of length 5 is cut to `clip` where it is longer: the first moment shows it."""
    p, g, m, v, ema, mask = moved(ops, *(np.array(a, dtype) for a in ([0, 0], [6, 8], [0, 0], [0, 0], [0, 0], [1, 1])))
    options = RATES | dict(scale=0.5, clip=clip, lr=0.1, weight_decay=0.0, ema_decay=0.9, step=1)
    ops.adamw(p, g, m, v, ema, mask, ops.norm(g), **options)
    np.testing.assert_allclose(ops.to_host(m), 0.1 * factor * np.array([3, 4]), rtol=1e-6)
    np.testing.assert_array_equal(ops.to_host(g), [6, 8])


# Threads
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 10_000])
def test_threads_are_given_back(ops, width):
    """Inside the context operations work; after it, a fault inside included, BLAS has as many threads as before."""
    from threadpoolctl import threadpool_info

    before = [pool["num_threads"] for pool in threadpool_info()]
    with pytest.raises(ZeroDivisionError):
        with ops.threads(width):
            assert number(ops, ops.norm(ops.asarray(np.array([3.0, 4.0])))) == 5
            raise ZeroDivisionError
    assert [pool["num_threads"] for pool in threadpool_info()] == before


# Memory
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc hands freed arrays back at once")
def test_freed_arrays_are_used_again():
    """Arrays of 4 MiB, made and freed again and again, take hardly a page from the system; it was 994 each
    time."""
    code = (
        "import resource, numpy as np, bdiff_np.backends.numpy_ops\nfor k in range(130):\n"
        " if k == 30: before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        " a = np.ones(1 << 20, np.float32); b = a + a; del a, b\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 100)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert float(done.stdout) < 10, done.stderr
