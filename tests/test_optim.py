"""The optimiser and the flat buffers it works on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tiny import model, settings

from bdiff_np.backends import numpy_ops as ops
from bdiff_np.optim.adamw import AdamW, Diverged
from bdiff_np.params import Params

SHAPES = {"W": (2, 3), "b": (3,), "out/W": (3, 2, 2), "out/b": (4, 2), "norm/gain": (3,), "one": ()}


def optimizer(total: int = 100, scale: float = 1.0, shapes=SHAPES, **values):
    params = Params(ops, shapes, np.float64)
    params.flat[...] = np.arange(1, params.flat.size + 1)
    decays = {name: name.endswith("W") for name in shapes}
    return params, AdamW(ops, params, decays, settings(**values).training, total, scale)


# Flat buffers
# ----------------------------------------------------------------------------------------------------------------------


def test_views_share_the_buffer():
    """Every name is a view of `flat`, in the order of the shapes, without gaps; a write to one side is seen on the
    other."""
    params = Params(ops, SHAPES)
    assert (
        list(params) == list(SHAPES) and params.flat.dtype == np.float32 and params.flat.size == 6 + 3 + 12 + 8 + 3 + 1
    )
    params.flat[...] = np.arange(params.flat.size)
    np.testing.assert_array_equal(
        np.concatenate([view.ravel() for view in params.values()]), np.arange(params.flat.size)
    )
    for name, view in params.items():
        assert view.shape == SHAPES[name] and np.shares_memory(view, params.flat)
        view[...] = -1
    assert (params.flat == -1).all()


def test_fill_copies():
    """fill takes arrays of any order and dtype, returns itself, and keeps no hold on what it was given."""
    params = Params(ops, {"a": (2, 2), "b": (3,)}, np.float64)
    given = {"b": np.array([7, 8, 9]), "a": np.array([[1, 2], [3, 4]], np.float32).T, "not needed": np.zeros(9)}
    assert params.fill(given) is params
    given["a"][...] = 0
    np.testing.assert_array_equal(params.flat, [1, 3, 2, 4, 7, 8, 9])


def test_fill_refuses_what_does_not_fit():
    """A missing name is a KeyError, another shape a ValueError that names both, even where NumPy would broadcast."""
    params = Params(ops, {"a": (2, 2)}, np.float64)
    with pytest.raises(KeyError, match="a"):
        params.fill({"b": np.zeros((2, 2))})
    for shape in ((2,), (1, 2), (4,), ()):
        with pytest.raises(ValueError, match="a has shape .*expected \\(2, 2\\)"):
            params.fill({"a": np.zeros(shape)})


# Learning rate
# ----------------------------------------------------------------------------------------------------------------------


def test_learning_rate_warms_up_and_falls():
    """lr min(1, k / warm-up) times half a cosine: exact values at the start, in the middle and at the end, which is
    0."""
    _, o = optimizer(100, lr=0.5, warmup_steps=10, lr_schedule="cosine")
    half = lambda k: 0.5 * (1 + math.cos(math.pi * k / 100))  # noqa: E731
    for step, factor in ((1, 0.1), (5, 0.5), (10, 1.0), (11, 1.0), (50, 1.0), (99, 1.0)):
        assert o.learning_rate(step) == pytest.approx(0.5 * factor * half(step), rel=1e-14)
    assert o.learning_rate(50) == pytest.approx(0.25, rel=1e-14)
    assert o.learning_rate(100) == 0 and o.learning_rate(150) == 0


@pytest.mark.parametrize(
    "warmup_steps, step, rate", [(4, 1, 0.125), (4, 3, 0.375), (4, 4, 0.5), (4, 1000, 0.5), (0, 1, 0.5), (1, 1, 0.5)]
)
def test_constant_learning_rate(warmup_steps, step, rate):
    """After the warm-up, or at once without one, the rate is lr for ever."""
    assert optimizer(100, lr=0.5, warmup_steps=warmup_steps, lr_schedule="constant")[1].learning_rate(step) == rate


def test_rate_of_each_step_is_used():
    """Step k moves the weights by learning_rate(k): with a constant gradient, AdamW's step has exactly that length."""
    params, o = optimizer(20, lr=0.5, warmup_steps=3, clip_thresh=None)
    grads = Params(ops, SHAPES, np.float64)
    grads.flat[...] = 0.25
    for step in range(1, 21):
        before = params.flat.copy()
        o.step(ops, params, grads)
        assert o.taken == step
        np.testing.assert_allclose(before - params.flat, o.learning_rate(step), rtol=1e-6, atol=1e-12)


# Steps
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold, expected", [(None, 20.0), (25.0, 20.0), (20.0, 20.0), (5.0, 5.0)])
def test_clipping_is_of_the_scaled_global_norm(threshold, expected):
    """The gradient times `scale` is cut to the threshold; the first moment shows it. grad_norm is the norm before the
    cut."""
    params, o = optimizer(scale=4.0, clip_thresh=threshold)
    grads = Params(ops, SHAPES, np.float64)
    grads["b"][0], grads["W"][1, 2] = 3.0, -4.0  # norm 5, scaled 20
    kept = grads.flat.copy()
    o.step(ops, params, grads)
    assert o.grad_norm == pytest.approx(20, rel=1e-14)
    np.testing.assert_allclose(o.m.flat, 0.1 * kept * expected / 5, rtol=1e-13)
    np.testing.assert_allclose(o.v.flat, 0.001 * (kept * expected / 5) ** 2, rtol=1e-12)
    np.testing.assert_array_equal(grads.flat, kept)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_diverged_changes_nothing(bad):
    """A gradient that is not finite raises, naming the step; parameters, moments, average, step and grad_norm stay as
    they were."""
    params, o = optimizer(weight_decay=0.1)
    grads = Params(ops, SHAPES, np.float64)
    grads.flat[...] = 1
    o.step(ops, params, grads)
    kept = [a.copy() for a in (params.flat, o.m.flat, o.v.flat, o.ema.flat)], o.taken, o.grad_norm
    grads["out/W"][1, 0, 1] = bad
    with pytest.raises(Diverged, match="step 2"):
        o.step(ops, params, grads)
    for now, before in zip((params.flat, o.m.flat, o.v.flat, o.ema.flat), kept[0]):
        np.testing.assert_array_equal(now, before)
    assert (o.taken, o.grad_norm) == kept[1:]
    grads.flat[...] = 1
    o.step(ops, params, grads)  # and the training could go on
    assert o.taken == 2 and np.isfinite(params.flat).all()


def test_only_matrices_decay():
    """Without a gradient, matrices shrink by 1 - lr * weight_decay; biases, gains, shifts and tables of biases stay
    exactly."""
    params, o = optimizer(lr=0.25, warmup_steps=0, lr_schedule="constant", weight_decay=0.5)
    before = {name: view.copy() for name, view in params.items()}
    o.step(ops, params, Params(ops, SHAPES, np.float64))
    for name, view in params.items():
        np.testing.assert_allclose(
            view, before[name] * (0.875 if name in ("W", "out/W") else 1), rtol=1e-15, err_msg=name
        )


@pytest.mark.parametrize("time, residual", [("fourier", False), ("bumps", True), ("readout", True)])
def test_matrices_of_the_network_decay(time, residual):
    """Of the built-in network these are all W, and nothing else: F, time's hold on the units, would decay before it is
    learned."""
    m = model(np.float64, time=time, residual=residual, hidden=(6, 6), time_features=4)
    o = AdamW(m.ops, m.params, m.net.decays(), m.config.training, 10, 1.0)
    marked = Params(ops, m.net.shapes, np.float64)
    marked.flat[...] = o.decayed
    for name, view in marked.items():
        assert (view == name.endswith("/W")).all(), name


def test_average_starts_fast():
    """EMA's decay is min(ema, (1 + k) / (10 + k)) at step k: 2/11, 3/12, 4/13, and at last ema."""
    params, o = optimizer(100, ema=0.3, lr=1.0, warmup_steps=0, lr_schedule="constant")
    grads, average = Params(ops, SHAPES, np.float64), params.flat.copy()
    grads.flat[...] = 1
    np.testing.assert_array_equal(o.ema.flat, params.flat)
    for decay in (2 / 11, 3 / 12, 0.3, 0.3):
        o.step(ops, params, grads)
        average = decay * average + (1 - decay) * params.flat
        np.testing.assert_allclose(o.ema.flat, average, rtol=1e-13)


def test_average_switched_off():
    """With ema 0 the averaged weights are the weights."""
    params, o = optimizer(ema=0.0)
    grads = Params(ops, SHAPES, np.float64)
    grads.flat[...] = 1
    for _ in range(3):
        o.step(ops, params, grads)
    np.testing.assert_allclose(o.ema.flat, params.flat, rtol=1e-15)
