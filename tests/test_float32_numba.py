"""exp and log in float32 against NumPy's in float64. Errors count units in the last place of the exact result."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bdiff_np.kernels.dense.dense_numba import FUSED
from bdiff_np.kernels.shared import float32_numba
from bdiff_np.kernels.shared.compiled_numba import njit
from bdiff_np.kernels.shared.float32_numba import exp, exp_of, log, log_of

f32 = np.float32
LOWEST, HIGHEST = f32(-87.3), f32(88.3)
SMALLEST, LARGEST = np.finfo(f32).tiny, np.finfo(f32).max  # of normal numbers
WORST = 1.05  # of all float32: 1.010 for exp with fused multiplications, 0.990 without, 0.829 for log
DRIFT = 0.06  # mean error in any 64th of the reduced range, where rounding averages out; found: 0.045


@njit(fastmath=FUSED)
def exp_fused(x, out):
    """As the kernels have it: in loops where multiplications and additions may be fused."""
    for i in range(x.size):
        out[i] = exp(x[i])


@njit(fastmath=FUSED)
def log_fused(x, out):
    for i in range(x.size):
        out[i] = log(x[i])


both_exps = pytest.mark.parametrize("function", [exp_of, exp_fused])
both_logs = pytest.mark.parametrize("function", [log_of, log_fused])


def value(function, x):
    out = np.empty_like(x)
    function(x, out)
    return out


def errors(found, exact):
    return (found.astype(np.float64) - exact) / np.spacing(np.abs(exact).astype(f32)).astype(np.float64)


def drift(error, place, bins=64):
    """Largest mean error over the parts of the range of `place`, 0..1."""
    part = np.minimum((place * bins).astype(int), bins - 1)
    counts = np.bincount(part, minlength=bins)
    assert counts.min() > 0
    return np.abs(np.bincount(part, error, bins) / counts).max()


def exp_place(x):
    """Where an argument lies between two multiples of log 2, the middle between which is reduced to 0."""
    return (x.astype(np.float64) / math.log(2) + 0.5) % 1


def log_place(x):
    """Where a mantissa lies between the root of 1/2 and the root of 2."""
    return (np.log2(x.astype(np.float64)) + 0.5) % 1


@both_exps
@pytest.mark.parametrize("ends", [(LOWEST, HIGHEST), (-0.36, 0.36), (-1e-3, 1e-3)])
def test_exp_is_right_to_the_last_place(function, ends):
    """Below 1.05 units over the whole range, in the middle piece and near 0; and no part of the pieces is off on
    average."""
    x = np.linspace(*ends, 1 << 18).astype(f32)
    error = errors(value(function, x), np.exp(x.astype(np.float64)))
    assert np.abs(error).max() < WORST
    if ends[0] == LOWEST:
        assert drift(error, exp_place(x)) < DRIFT


@both_logs
def test_log_is_right_to_the_last_place(function):
    """Below 1.05 units for normal numbers of every size, next to 1 too, where the result is small; and no part of the
    mantissas is off on average."""
    every = np.linspace(SMALLEST.view(np.uint32), LARGEST.view(np.uint32), 1 << 18).astype(np.uint32).view(f32)
    piece = np.linspace(0.5, 2, 1 << 18).astype(f32)
    beside = (
        (f32(1).view(np.uint32) + np.concatenate([np.arange(-1000, 0), np.arange(1, 1000)])).astype(np.uint32).view(f32)
    )
    for x in (every, piece[piece != 1], beside, f32(2) ** np.setdiff1d(np.arange(-126, 128), 0).astype(f32)):
        error = errors(value(function, x), np.log(x.astype(np.float64)))
        assert np.abs(error).max() < WORST
        if len(x) > 1e5:
            assert drift(error, log_place(x)) < DRIFT


@both_exps
def test_exp_is_held_at_its_ends(function):
    """Beyond -87.3 and 88.3 the result is that of the end: a normal number, neither 0 nor infinite."""
    low, high = value(function, np.array([LOWEST, HIGHEST]))
    assert SMALLEST < low < 2 * SMALLEST and LARGEST / 2 < high < LARGEST
    beyond = np.array([np.nextafter(LOWEST, f32(-np.inf)), -88, -104, -1e10, -LARGEST, -np.inf], f32)
    np.testing.assert_array_equal(value(function, beyond), low)
    np.testing.assert_array_equal(value(function, -beyond + f32(1)), high)


@both_exps
def test_exp_of_what_is_no_number_is_none(function):
    """In vectors and in what is left of them: a training that has diverged must not look sound."""
    assert np.isnan(value(function, np.full(37, np.nan, f32))).all()


@pytest.mark.parametrize("functions", [(exp_of, log_of), (exp_fused, log_fused)])
def test_exact_values(functions):
    """exp 0 is 1 and log 1 is 0, of either sign of 0, with no error at all."""
    np.testing.assert_array_equal(value(functions[0], np.array([0.0, -0.0], f32)), 1)
    np.testing.assert_array_equal(value(functions[1], np.array([1.0], f32)), 0)


@pytest.mark.parametrize("function, ends", [(exp_of, (-90, 90)), (log_of, (0.01, 100))])
def test_results_do_not_depend_on_the_place(function, ends):
    """A number has one result, in a vector or in what is left of the last one: lengths 0 to 70 are the beginnings of
    the longest."""
    x = np.linspace(*ends, 71).astype(f32)
    whole = value(function, x)
    for n in range(71):
        np.testing.assert_array_equal(value(function, x[:n]), whole[:n])


@pytest.mark.parametrize("function, library, x", [
    (exp_of, math.exp, np.linspace(-740, 700, 999)), (log_of, math.log, np.exp(np.linspace(-740, 700, 999))),
])  # fmt: skip
def test_float64_has_the_librarys_functions(function, library, x):
    """Double precision, to a unit in its last place, and a range beyond float32's."""
    exact = np.array([library(number) for number in x])
    np.testing.assert_allclose(value(function, x), exact, rtol=2**-52, atol=5e-324)


# The comparison itself
# --------------------------------------------------------------------------------------------------------------------
#
# The polynomials are read by Python here, number by number, the three functions that look at bits replaced by the
# library's.

# A function, a coefficient of it, and a shift that moves results by half a unit at the ends of the reduced range; for
# LN2_HIGH its last place.
SHIFTS = [("exp", f"E{k}", 2**-25 / 0.34 ** (7 - k)) for k in range(6)] + [
    ("log", f"L{k}", 2**-26 / 0.4 ** (11 - k)) for k in range(9)
]
SHIFTS += [(name, *shift) for name in ("exp", "log") for shift in (("LN2_HIGH", 2**-24), ("LN2_LOW", 2**-25))]


@pytest.fixture
def by_python(monkeypatch):
    monkeypatch.setattr(float32_numba, "_two_to", lambda shifted: np.ldexp(f32(1), int(shifted - float32_numba.SHIFT)))
    monkeypatch.setattr(float32_numba, "_mantissa", lambda x: np.frexp(x)[0])
    monkeypatch.setattr(float32_numba, "_exponent", lambda x: f32(np.frexp(x)[1]))
    points = {"exp": np.linspace(-10, 10, 6000).astype(f32), "log": np.linspace(0.5, 2, 6000).astype(f32)}

    def apply(name):
        return points[name], np.array([getattr(float32_numba, f"{name}_polynomial")(x) for x in points[name]])

    return apply


def seen(name, x, found):
    """Whether the tests above would fail for these values."""
    exact, place = (np.exp, exp_place) if name == "exp" else (np.log, log_place)
    error = errors(found, exact(x.astype(np.float64)))
    return np.abs(error).max() >= WORST or drift(error, place(x), 8) >= DRIFT


@pytest.mark.parametrize("name, function", [("exp", exp_of), ("log", log_of)])
def test_python_reads_the_same_function(name, function, by_python):
    """Bit for bit, and no fault is seen in it."""
    x, found = by_python(name)
    assert found.dtype == f32
    np.testing.assert_array_equal(found, value(function, x))
    assert not seen(name, x, found)


@pytest.mark.parametrize("name, coefficient, shift", SHIFTS)
def test_a_wrong_coefficient_is_seen(name, coefficient, shift, by_python, monkeypatch):
    """Each coefficient, moved by what moves results by half a unit."""
    monkeypatch.setattr(float32_numba, coefficient, f32(getattr(float32_numba, coefficient) + shift))
    assert seen(name, *by_python(name))
