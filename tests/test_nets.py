"""The network: every gradient is the derivative, the checker that says so can fail, and noise and time enter as
documented."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from tiny import model

from bdiff_np import rng
from bdiff_np.backends import numpy_ops as ops
from bdiff_np.diffusion.bernoulli import make_chain
from bdiff_np.nets import mlp, netcheck
from bdiff_np.nets.layers import BumpReadout, Context, Dense, Dropout, LayerNorm, Residual, StepReadout
from bdiff_np.nets.rbf import RadialBasis
from bdiff_np.params import Params
from bdiff_np.rng import Key

ACTIVATIONS = ("relu", "silu", "gelu", "tanh", "sigmoid")
B, N_IN, N_OUT, T = 9, 6, 5, 8
STEPS = np.array([1, 8, 3, 3, 2, 8, 1, 5, 3])


class WithKey:
    """A network whose dropout noise is on and always the same."""

    def __init__(self, net):
        self.net, self.shapes, self.init, self.backward = net, net.shapes, net.init, net.backward

    def forward(self, ops, params, x_t, t):
        return self.net.forward(ops, params, x_t, t, Key(3, rng.Q_NOISE, 7))


class Spoilt(WithKey):
    """A network that multiplies one parameter's gradient by a factor."""

    def __init__(self, net, name: str, factor: float):
        super().__init__(net)
        self.name, self.factor = name, factor
        self.backward = self.spoil

    def spoil(self, ops, params, tape, dlogits):
        grads = self.net.backward(ops, params, tape, dlogits)
        grads[self.name] *= self.factor
        return grads


# Layers
# ----------------------------------------------------------------------------------------------------------------------

LAYERS = {
    **{
        f"dense {a} film {f}": (lambda a=a, f=f: Dense("d", N_IN, N_OUT, a, f), N_OUT)
        for a in (*ACTIVATIONS, None)
        for f in (0, 4)
    },
    "bumps": (lambda: BumpReadout("r", N_IN, N_OUT, 4), N_OUT),
    "steps": (lambda: StepReadout("s", N_IN, N_OUT, T), N_OUT),
    "radial basis": (lambda: RadialBasis("c", N_IN, N_OUT), N_OUT),
    "norm": (lambda: LayerNorm("n", N_IN), N_IN),
    "dropout": (lambda: Dropout(0.4, 1), N_IN),
    "residual": (
        lambda: Residual(
            [LayerNorm("n", N_IN), Dense("a", N_IN, N_IN, "silu", 4), Dropout(0.4, 2), Dense("b", N_IN, N_IN)]
        ),
        N_IN,
    ),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layer_gradients(kind):
    """dx and every parameter's gradient agree with central differences in random directions to 1e-8, dropout noise
    on."""
    make, width = LAYERS[kind]
    layer, generator = make(), np.random.default_rng(1)
    params, grads = Params(ops, layer.shapes, np.float64), Params(ops, layer.shapes, np.float64)
    params.flat[...] = generator.normal(size=params.flat.shape)
    grads.flat[...] = np.nan  # whatever stood there must be overwritten
    x, dy = generator.normal(size=(B, N_IN)), generator.normal(size=(B, width))
    context = Context(STEPS, generator.random((B, 4)), Key(5, rng.Q_NOISE, 2))
    y, tape = layer.forward(ops, params, x, context)
    assert y.shape == (B, width)
    kept = dy.copy(), x.copy(), params.flat.copy()
    dx = layer.backward(ops, params, grads, tape, dy)
    for array, before in zip((dy, x, params.flat), kept):
        np.testing.assert_array_equal(array, before)
    value = lambda: float((layer.forward(ops, params, x, context)[0] * dy).sum())  # noqa: E731
    for name, array, gradient in [("x", x, dx), *((name, params[name], grads[name]) for name in params)]:
        for _ in range(3):
            start, direction = array.copy(), generator.normal(size=array.shape)
            sides = []
            for sign in (1, -1):
                array[...] = start + sign * 1e-5 * direction
                sides.append(value())
            array[...] = start
            assert (gradient * direction).sum() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-8, abs=1e-8), name


@pytest.mark.parametrize("kind", ["dense silu film 4", "bumps", "steps", "radial basis"])
def test_first_layer_needs_no_dx(kind):
    """need_dx=False saves the product for dx and leaves the parameters' gradients as they are."""
    layer, generator = LAYERS[kind][0](), np.random.default_rng(2)
    params = Params(ops, layer.shapes, np.float64)
    params.flat[...] = generator.normal(size=params.flat.shape)
    context = Context(STEPS, generator.random((B, 4)), None)
    tape = layer.forward(ops, params, generator.normal(size=(B, N_IN)), context)[1]
    dy, both = generator.normal(size=(B, N_OUT)), []
    for need_dx in (True, False):
        grads = Params(ops, layer.shapes, np.float64)
        dx = layer.backward(ops, params, grads, tape, dy, need_dx)
        assert (dx is None) == (not need_dx)
        both.append(grads.flat)
    np.testing.assert_array_equal(*both)


def test_bump_readout_is_a_mixture_of_readouts():
    """y = sum_j g_j (x W_j + b_j): with all weight on one bump it is that bump's own dense layer."""
    layer, generator = BumpReadout("r", N_IN, N_OUT, 3), np.random.default_rng(3)
    params = Params(ops, layer.shapes, np.float64)
    params.flat[...] = generator.normal(size=params.flat.shape)
    x, g = generator.normal(size=(B, N_IN)), generator.random((B, 3))
    W = params["r/W"].reshape(N_IN, 3, N_OUT)
    expected = sum(g[:, j, None] * (x @ W[:, j] + params["r/b"][j]) for j in range(3))
    np.testing.assert_allclose(
        layer.forward(ops, params, x, Context(STEPS, g, None))[0], expected, rtol=1e-12, atol=1e-12
    )


def test_step_readout_takes_the_weights_of_its_step():
    """Row r is x_r W_t + b_t with its own t; steps that no row met have gradient 0."""
    layer, generator = StepReadout("s", N_IN, N_OUT, T), np.random.default_rng(4)
    params, grads = Params(ops, layer.shapes, np.float64), Params(ops, layer.shapes, np.float64)
    params.flat[...] = generator.normal(size=params.flat.shape)
    grads.flat[...] = np.nan
    x = generator.normal(size=(B, N_IN))
    y, tape = layer.forward(ops, params, x, Context(STEPS, np.zeros((B, 0)), None))
    for r, t in enumerate(STEPS):
        np.testing.assert_allclose(y[r], x[r] @ params["s/W"][t] + params["s/b"][t], rtol=1e-12, atol=1e-12)
    layer.backward(ops, params, grads, tape, np.ones((B, N_OUT)))
    for t in range(T + 1):
        assert bool(grads["s/W"][t].any()) == bool(grads["s/b"][t].any()) == (t in STEPS)
        np.testing.assert_allclose(grads["s/b"][t], (STEPS == t).sum(), rtol=1e-12)


# The whole network
# ----------------------------------------------------------------------------------------------------------------------

GRID = list(product(ACTIVATIONS, ("fourier", "bumps", "readout"), (False, True), (0.0, 0.3)))


def network(
    activation="silu", time="fourier", residual=False, dropout=0.0, hidden=(7, 7), D=5, T=12, dtype=np.float64, **more
):
    return model(
        dtype, D=D, T=T, activation=activation, time=time, residual=residual, dropout=dropout, hidden=hidden, **more
    )


@pytest.mark.parametrize("activation, time, residual, dropout", GRID)
def test_network_gradients(activation, time, residual, dropout):
    """Every parameter of every kind of network passes: the logits alone, and the loss of both parametrisations; dropout
    noise on."""
    for loss, predict in (("linear", "x0"), ("kl", "x0"), ("kl", "x_prev")):
        m = network(activation, time, residual, dropout, predict=predict)
        net = WithKey(m.net) if dropout else m.net
        found = netcheck.check(m, net=net, loss=loss)
        assert [c.name for c in found] == list(m.net.shapes)
        assert all(c.good for c in found), [c for c in found if not c.good]
        assert all(np.isfinite(c.error) for c in found) and max(abs(c.numeric) for c in found) > 1e-3


@pytest.mark.parametrize("factor", [1.0, 1.001])
@pytest.mark.parametrize("activation, time, residual, dropout", GRID)
def test_gradient_by_the_input(activation, time, residual, dropout, factor):
    """backward_input gives the gradients that backward gives, and that of the input: x_t enters as 2 x_t - 1. A
    thousandth more of it is noticed."""
    m, generator = network(activation, time, residual, dropout), np.random.default_rng(0)
    net = m.net
    params = Params(ops, net.shapes, np.float64).fill(net.init(0))
    params.flat += 0.1 * generator.standard_normal(params.flat.shape)
    x, t = generator.random((B, m.D)), 1 + STEPS % m.chain.T
    weight, direction = generator.standard_normal((B, net.task.outputs)), generator.standard_normal((B, m.D))
    value = lambda x_t: (net.forward(ops, params, x_t, t, Key(3, rng.Q_NOISE, 7))[0] * weight).sum()  # noqa: E731
    _, tape = net.forward(ops, params, x, t, Key(3, rng.Q_NOISE, 7))
    alone = net.backward(ops, params, tape, weight).flat.copy()
    grads, dx = net.backward_input(ops, params, tape, weight)
    np.testing.assert_array_equal(grads.flat, alone)
    numeric = (value(x + 1e-6 * direction) - value(x - 1e-6 * direction)) / 2e-6
    assert (factor * 2 * (dx * direction).sum() == pytest.approx(numeric, rel=1e-6)) == (factor == 1.0)


@pytest.mark.parametrize("time, residual", list(product(("fourier", "bumps", "readout"), (False, True))))
@pytest.mark.parametrize("factor", [1.001, 0.999, -1.0, 0.0])
def test_checker_names_the_wrong_gradient(time, residual, factor):
    """An error of 0.1 %, a wrong sign or a missing gradient in any one parameter is found, and no other is blamed."""
    m = network(time=time, residual=residual, dropout=0.3)
    for name in m.net.shapes:
        for loss in ("linear", "kl"):
            found = netcheck.check(m, net=Spoilt(m.net, name, factor), loss=loss)
            assert [c.name for c in found if not c.good] == [name]


def test_checker_finds_a_single_wrong_entry():
    """One entry of one matrix that is 1 % off is found too."""
    m = network()
    for entry in ((0, 0), (4, 6), (2, 3)):
        net = WithKey(m.net)

        def backward(ops, params, tape, dlogits, entry=entry):
            grads = m.net.backward(ops, params, tape, dlogits)
            grads["dense0/W"][entry] *= 1.01
            return grads

        net.backward = backward
        assert [c.name for c in netcheck.check(m, net=net) if not c.good] == ["dense0/W"]


def test_checker_finds_a_gradient_that_is_not_a_number():
    """nan is not good, though it compares with nothing."""
    m = network()
    found = netcheck.check(m, net=Spoilt(m.net, "dense1/b", np.nan))
    assert [c.name for c in found if not c.good] == ["dense1/b"]


@pytest.mark.parametrize("activation, time, residual, dropout", GRID)
def test_fresh_network_gives_nothing(activation, time, residual, dropout):
    """The output of a network that was just initialised is exactly 0, at every step, with dropout noise too."""
    m = network(activation, time, residual, dropout, dtype=np.float32)
    t = np.arange(1, 13)
    x_t = np.random.default_rng(0).integers(0, 2, (12, m.D)).astype(np.uint8)
    for key in (None, Key(0, rng.Q_NOISE, 1)):
        logits = m.net.forward(ops, m.params, x_t, t, key)[0]
        assert logits.dtype == np.float32 and logits.shape == x_t.shape and not logits.any()


@pytest.mark.parametrize("activation, time, residual, dropout", [g for g in GRID if not g[3]])
def test_rows_do_not_meet(activation, time, residual, dropout):
    """The logits of a row are those it has in a batch of its own, or of any other size, to rounding."""
    m = network(activation, time, residual, dropout, dtype=np.float32)
    generator = np.random.default_rng(1)
    m.params.flat += 0.3 * generator.standard_normal(m.params.flat.shape).astype(np.float32)
    x_t, t = generator.integers(0, 2, (23, m.D)).astype(np.uint8), generator.integers(1, 13, 23)
    whole = m.output(x_t, t)
    assert np.abs(whole).max() > 0.1
    for size in (1, 4, 22):
        parts = np.concatenate([m.output(x_t[k : k + size], t[k : k + size]) for k in range(0, 23, size)])
        np.testing.assert_allclose(parts, whole, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("time", ["fourier", "bumps", "readout"])
def test_time_matters(time, residual):
    """With weights that are not fresh, the same bits give other logits at another step."""
    m = network(time=time, residual=residual)
    m.params.flat += 0.3 * np.random.default_rng(1).standard_normal(m.params.flat.shape)
    x_t = np.zeros((12, m.D), np.uint8)
    logits = m.output(x_t, np.arange(1, 13))
    assert min(np.abs(a - b).max() for a, b in zip(logits, logits[1:])) > 1e-3


def test_network_reads_bits_as_signs():
    """The first layer's input is -1 and +1: with no hidden bias, flipping all bits flips an odd network's output."""
    m = network("tanh", "bumps")
    m.params["out/W"][...] = np.random.default_rng(0).normal(size=m.params["out/W"].shape)
    x_t = np.random.default_rng(1).integers(0, 2, (4, m.D)).astype(np.uint8)
    t = np.full(4, 6)
    np.testing.assert_allclose(m.output(1 - x_t, t), -m.output(x_t, t), rtol=1e-12)
    assert np.abs(m.output(x_t, t)).max() > 0.1


def test_first_weights_depend_on_the_seed_alone():
    """One seed gives one set of parameters, another seed another; no two matrices are equal; standard deviations are
    gain / sqrt(n_in)."""
    first, again, other = (network(hidden=(300, 300, 300)).net.init(seed) for seed in (0, 0, 1))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert first[name].any() == (not np.array_equal(first[name], other[name]))
    assert {name for name in first if first[name].any()} == {"dense0/W", "dense1/W", "dense2/W"}
    assert not np.array_equal(first["dense1/W"], first["dense2/W"])
    assert first["dense0/W"].std() * 5**0.5 == pytest.approx(1, rel=0.06)
    for name in ("dense1/W", "dense2/W"):
        assert first[name].std() * 300**0.5 == pytest.approx(2**0.5, rel=0.02)
    blocks = network(residual=True).net.init(0)  # several matrices of one layer draw different words
    assert not np.allclose(blocks["dense1/W"] / 2**0.5, blocks["mix1/W"] / 0.5)


# Dropout
# ----------------------------------------------------------------------------------------------------------------------


def test_dropout_is_off_without_a_key():
    """Sampling and evaluation give no key: the layer then passes its input through."""
    layer, x = Dropout(0.5, 1), np.ones((3, 4))
    y, tape = layer.forward(ops, {}, x, Context(None, None, None))
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(layer.backward(ops, {}, {}, tape, x), x)


def test_dropout_noise_is_addressed():
    """The mask is a function of (seed, layer, step, row), not of the number of rows or the calls before; its shares are
    the rate's."""

    def draw(seed, index, step, rows):
        context = Context(None, None, Key(seed, rng.Q_NOISE, step))
        return Dropout(0.3, index).forward(ops, {}, np.ones((rows, 40)), context)[0]

    base = draw(1, 1, 1, 500)
    np.testing.assert_array_equal(base, draw(1, 1, 1, 500))
    np.testing.assert_array_equal(base[:7], draw(1, 1, 1, 7))
    for other in (draw(2, 1, 1, 500), draw(1, 2, 1, 500), draw(1, 1, 2, 500)):
        agree = ((other != 0) == (base != 0)).mean()
        assert agree == pytest.approx(0.3**2 + 0.7**2, abs=0.015)
    assert (base == 0).mean() == pytest.approx(0.3, abs=0.015)
    np.testing.assert_array_equal(np.unique(base), [0, 1 / 0.7])
    rows = (base != 0).astype(int)
    assert len(np.unique(rows, axis=0)) > 490


@pytest.mark.parametrize("residual", [False, True])
def test_dropout_layers_have_noise_of_their_own(residual):
    """Every dropout layer of a network has an index of its own, so that no two share a mask."""
    layers = network(dropout=0.5, residual=residual, hidden=(7, 7, 7)).net.layers
    inner = [part for layer in layers for part in getattr(layer, "layers", [layer])]
    found = [layer.index for layer in inner if isinstance(layer, Dropout)]
    assert len(found) == (2 if residual else 3) and len(set(found)) == len(found)


def test_dropout_noise_is_not_that_of_q_sample():
    """Dropout's words come from streams of their own, whatever stream the step's key names."""
    x, key = np.ones((50, 40)), Key(1, rng.Q_NOISE, 1)
    mask = Dropout(0.5, 1).forward(ops, {}, x, Context(None, None, key))[0] != 0
    np.testing.assert_array_equal(
        mask, Dropout(0.5, 1).forward(ops, {}, x, Context(None, None, Key(1, rng.TIME, 1)))[0] != 0
    )
    for stream in range(9):
        assert ((rng.draws(Key(1, stream, 1), 50, 40) >= 2**31) == mask).mean() < 0.6


# Time features
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T, count", [(1, 2), (5, 4), (2000, 16)])
def test_bumps_sum_to_one(T, count):
    """Bump j is the largest where t / T is j / (count - 1), and all together are 1 at every t."""
    g = mlp.time_table("bumps", make_chain("paper", T, 0.5).alpha_bar, count)
    assert g.shape == (T + 1, count) and (g > 0).all()
    np.testing.assert_allclose(g.sum(1), 1, rtol=1e-14)
    assert g[0].argmax() == 0 and g[-1].argmax() == count - 1
    np.testing.assert_allclose(g, g[::-1, ::-1], rtol=1e-12)


def test_bump_widths():
    """Neighbouring bumps are one standard deviation apart: a bump has e^(-1/2) of its own weight at the next one's
    centre."""
    g = mlp.time_table("bumps", make_chain("paper", 10, 0.5).alpha_bar, 6)
    np.testing.assert_allclose(g[4, 1] / g[4, 2], np.exp(-0.5), rtol=1e-12)
    np.testing.assert_allclose(g[4, 0] / g[4, 2], np.exp(-2), rtol=1e-12)


@pytest.mark.parametrize("count", [2, 4, 16])
def test_fourier_depends_on_the_signal_alone(count):
    """Two chains whose signals agree at some steps have equal features there, and others elsewhere; none is constant
    but the first."""
    T = 50
    paper = make_chain("paper", T, 0.5).alpha_bar
    bent = np.where(np.arange(T + 1) % 2, paper - 0.003, paper)
    a, b = mlp.time_table("fourier", paper, count), mlp.time_table("fourier", bent, count)
    assert a.shape == (T + 1, count) and np.isfinite(a).all()
    np.testing.assert_array_equal(a[2::2], b[2::2])  # entry 0 is never read
    assert (np.abs(a - b)[1::2].max(1) > 0).all()
    constant = [k for k in range(count) if np.ptp(a[:, k]) == 0]
    assert constant == [0]


def test_fourier_tells_small_steps_apart():
    """At T = 2000 the features of steps 1 and 2 differ by more than 0.05, though their signals differ by 0.0005."""
    table = mlp.time_table("fourier", make_chain("paper", 2000, 0.5).alpha_bar, 16)
    assert np.abs(table[1] - table[2]).max() > 0.05
