"""Compiled operations of dense layers that the shared operations do not show, or not in every size; see
test_backends.py for the rest.

Where entries are small integers every result is exact, whatever the order and however operations are fused.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from bdiff_np.kernels.dense import dense_numba as dense
from bdiff_np.kernels.dense.dense_codes import CODES, Rates, rates
from bdiff_np.model import load_ops

f32 = np.float32
SIZES = range(1, 68)  # whole vectors, what is left of them, and less than one
ACTIVATIONS = ("relu", "silu", "gelu", "tanh", "sigmoid")


def integers(generator, *shape):
    return generator.integers(-9, 10, shape).astype(f32)


# Between two products
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_film_act_is_the_shared_operation(activation):
    """act(u (1 + scale) + shift) and, in the place of shift, its slope: those of `activate` on NumPy in float64; u and
    scale stay."""
    generator = np.random.default_rng(0)
    for n in SIZES:
        u, scale, shift = (size * generator.standard_normal(n).astype(f32) for size in (f32(2), f32(0.5), f32(1)))
        kept, y, slope = (u.copy(), scale.copy()), np.full(n, np.nan, f32), shift.copy()
        dense.film_act(CODES[activation], u, scale, slope, y)
        table = np.concatenate([scale, shift])[None].astype(np.float64)
        expected, (_, _, expected_slope) = load_ops("numpy").activate(
            u[None].astype(np.float64), np.zeros(n), activation, table
        )
        np.testing.assert_allclose(y, expected[0], rtol=2e-6, atol=1e-6)
        # gelu: 1 - w**2 by some 30 for |v| near 8
        np.testing.assert_allclose(slope, expected_slope[0], rtol=2e-6, atol=4e-6)
        np.testing.assert_array_equal((u, scale), kept)


def test_film_act_backward_is_exact():
    """dz = dy slope (1 + scale), dscale = dy slope u in the place of scale, dshift = dy slope in the place of slope; u
    stays."""
    generator = np.random.default_rng(1)
    for n in SIZES:
        dy, u, scale, slope = integers(generator, 4, n)
        dz, dscale, dshift, kept = dy.copy(), scale.copy(), slope.copy(), u.copy()
        dense.film_act_backward(dz, u, dscale, dshift)
        np.testing.assert_array_equal(dz, dy * slope * (1 + scale))
        np.testing.assert_array_equal(dscale, dy * slope * u)
        np.testing.assert_array_equal(dshift, dy * slope)
        np.testing.assert_array_equal(u, kept)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_no_number_stays_none(activation):
    """A unit that is no number is none after its activation, and no other unit is: what has diverged must be seen."""
    for place in range(37):
        v, zero = np.linspace(-3, 3, 37).astype(f32), np.zeros(37, f32)
        v[place] = np.nan
        acted, filmed = v.copy(), np.empty_like(v)
        dense.act(CODES[activation], acted, np.empty_like(v))
        dense.film_act(CODES[activation], v, zero, zero.copy(), filmed)
        for y in (acted, filmed):
            np.testing.assert_array_equal(np.isnan(y), np.arange(37) == place)


# Sums and products
# ----------------------------------------------------------------------------------------------------------------------


def test_column_sums_are_exact():
    """In the place of what is there, NaN say."""
    generator = np.random.default_rng(2)
    for n in SIZES:
        x, total = integers(generator, 1 + n // 3, n), np.full(n, np.nan, f32)
        dense.column_sums(x, total)
        np.testing.assert_array_equal(total, x.sum(0))


def test_scale_by_is_exact():
    """One rounded product an entry; the factors stay."""
    generator = np.random.default_rng(3)
    for n in SIZES:
        x, factor = generator.standard_normal((2, 3, n)).astype(f32)
        found, kept = x.copy(), factor.copy()
        dense.scale_by(found, factor)
        np.testing.assert_array_equal(found, x * factor)
        np.testing.assert_array_equal(factor, kept)


def test_add_to_is_exact():
    """One rounded sum an entry, for pieces of a buffer that begin anywhere; nothing beside them is written."""
    generator = np.random.default_rng(4)
    for n in SIZES:
        start = n % 19
        x, more = generator.standard_normal((2, 90)).astype(f32)
        found, kept = x.copy(), more.copy()
        dense.add_to(found[start : start + n], more[start : start + n])
        x[start : start + n] += more[start : start + n]
        np.testing.assert_array_equal(found, x)
        np.testing.assert_array_equal(more, kept)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_square_sum_is_in_float64(dtype):
    """Squares that float32 has no room for, and sums of them, are exact; of nothing the sum is 0."""
    for n in (0, *SIZES, 1003):
        x = np.resize([4097, -5003, 1, 8191, 3], n).astype(dtype)
        assert dense.square_sum(x) == sum(int(number) ** 2 for number in x)


# AdamW's numbers
# ----------------------------------------------------------------------------------------------------------------------

TOLD = {"lr": 0.003, "scale": 0.37, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.2, "ema_decay": 0.9999}


@pytest.mark.parametrize("step", [1, 2, 10, 1000, 10**6])
def test_rates_are_what_adamw_multiplies_by(step):
    """Bias corrections by logarithms, which lose no digits where the power is next to 1; the others as they are
    told."""
    told = rates(**TOLD, step=step)
    correction = {beta: -math.expm1(step * math.log(TOLD[beta])) for beta in ("beta1", "beta2")}
    expected = Rates(0.37, 0.1, 0.001, 0.003 / correction["beta1"], correction["beta2"] ** -0.5, 1e-8, 0.0006, 0.0001)
    for name, found in told._asdict().items():
        assert found == pytest.approx(getattr(expected, name), rel=1e-11), name


def test_rates_of_many_steps_are_those_of_each():
    """Arrays of learning rates, averages and steps give arrays, and what is one number stays one."""
    steps = np.arange(1, 2000, 7)
    changing = {"lr": 0.01 / steps, "ema_decay": steps / (9.0 + steps), "step": steps}
    many = rates(**TOLD | changing)
    assert many.eps == 1e-8 and many.scale == 0.37
    for k in range(len(steps)):
        one = rates(**TOLD | {name: values[k].item() for name, values in changing.items()})
        np.testing.assert_allclose([np.broadcast_to(rate, len(steps))[k] for rate in many], one, rtol=1e-13)
