"""The network of radial basis functions: its formula, its gradients, far from all centres too, and a training of it
through the commands."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from tiny import invoke, newest

from bdiff_np import config
from bdiff_np.backends import numpy_ops as ops
from bdiff_np.diffusion.gaussian import make_chain
from bdiff_np.model import Model
from bdiff_np.nets import netcheck
from bdiff_np.nets.layers import Context
from bdiff_np.nets.on_host import OnHost
from bdiff_np.nets.rbf import RadialBasis
from bdiff_np.params import Params
from bdiff_np.runfolder import checkpoint, rundir

TIMES = "readout", "bumps", "fourier"


def network(time="bumps", waves=0, dtype=np.float64, D=2, **more) -> Model:
    values = {"family": "gaussian", "net": "rbf", "T": 12, "time": time, "time_features": 4, "waves": waves, **more}
    made = config.of(values)
    chain = make_chain("logsnr", 12, np.zeros(D), np.ones(D), n=waves)
    built = Model.build(made, D, chain, dtype=dtype)
    built.params.fill(built.net.init(0))
    return built


def basis(x, c, s, dtype=np.float64):
    layer = RadialBasis("c", *c.shape)
    params = Params(ops, layer.shapes, dtype).fill({"c/c": c, "c/log_s": np.log(s)})
    return layer.forward(ops, params, x.astype(dtype), Context(None, None, None))[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_units_are_those_of_the_formula(dtype):
    generator = np.random.default_rng(0)
    x, c, s = generator.normal(size=(20, 3)), generator.normal(size=(3, 5)), generator.uniform(0.3, 2, 5)
    phi = np.exp(-((x[:, :, None] - c) ** 2).sum(1) / (2 * s**2))
    found = basis(x, c, s, dtype)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, phi / phi.sum(1, keepdims=True), rtol=1e3 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_all_centres_the_widest_unit_has_all(dtype):
    """Where every exponential is 0 in this precision: no nan; and between two far centres the nearer one."""
    c = np.array([[0.0, 1.0, 5.0]])
    with np.errstate(all="raise", under="ignore"):
        found = basis(np.array([[1e6], [-1e12]]), c, np.array([0.1, 0.2, 0.1]), dtype)
        np.testing.assert_array_equal(found, [[0, 1, 0]] * 2)
        np.testing.assert_array_equal(basis(np.array([[3.1]]), c, np.full(3, 0.01), dtype), [[0, 0, 1]])


@pytest.mark.parametrize("time, waves, variance", [*product(TIMES, (0, 3), ("learned", "beta"))])
def test_gradients(time, waves, variance):
    """Of all parameters, alone and below the bound; a thousandth too much in any one is found."""
    model = network(time, waves, variance=variance)
    assert model.net.shapes["rbf/c"] == (2 + 2 * waves, 16)
    for loss in ("linear", "kl"):
        found = netcheck.check(model, loss=loss)
        assert [c.name for c in found] == list(model.net.shapes) and all(c.good for c in found), found
    right = model.net.backward
    for name in model.net.shapes:

        def wrong(*arguments, name=name):
            grads = right(*arguments)
            grads[name] *= 1.001
            return grads

        model.net.backward = wrong
        assert [c.name for c in netcheck.check(model, loss="linear") if not c.good] == [name]


@pytest.mark.parametrize("time", TIMES)
def test_gradient_by_the_input(time):
    model, generator = network(time), np.random.default_rng(0)
    net, params = model.net, model.params
    params.flat += 0.3 * generator.standard_normal(params.flat.shape)
    x, t = generator.normal(size=(9, 2)), np.resize([1, 12, 5], 9)
    weight, direction = generator.normal(size=(9, 4)), generator.normal(size=(9, 2))
    value = lambda x: (net.forward(ops, params, x, t)[0] * weight).sum()  # noqa: E731
    tape = net.forward(ops, params, x, t)[1]
    alone = net.backward(ops, params, tape, weight).flat.copy()
    grads, dx = net.backward_input(ops, params, tape, weight)
    np.testing.assert_array_equal(grads.flat, alone)
    numeric = (value(x + 1e-6 * direction) - value(x - 1e-6 * direction)) / 2e-6
    assert (dx * direction).sum() == pytest.approx(numeric, rel=1e-7)


@pytest.mark.parametrize("time", TIMES)
def test_the_first_network(time):
    """Gives exactly 0, of its own dtype; its centres are spread as the data, its units overlap; only read-out weights
    decay; another seed, other centres."""
    model = network(time, units=200, dtype=np.float32)
    x, t = np.random.default_rng(0).normal(size=(12, 2)), np.arange(1, 13)
    out, tape = model.net.forward(ops, model.params, x, t)
    assert out.shape == (12, 4) and out.dtype == np.float32 and not out.any()
    first, other = model.net.init(0), model.net.init(1)
    assert abs(first["rbf/c"].std() - 1) < 0.15 and not np.array_equal(first["rbf/c"], other["rbf/c"])
    shares = 1 / (tape[0][-1] ** 2).sum(1)  # how many units share a point, about
    assert 2 < np.median(shares) < 40
    assert [name for name, decays in model.net.decays().items() if decays] == ["out/W"]


def test_time_matters_and_rows_do_not_meet():
    for time in TIMES:
        model, generator = network(time), np.random.default_rng(1)
        model.params.flat += 0.3 * generator.standard_normal(model.params.flat.shape)
        x, t = np.ones((12, 2)), np.arange(1, 13)
        out = model.output(x, t)
        assert np.abs(np.diff(out[:8], axis=0)).max(1).min() > 1e-3  # the Fourier features change little in pure noise
        np.testing.assert_allclose(np.concatenate([model.output(x[k:][:1], t[k:][:1]) for k in t - 1]), out, rtol=1e-12)


def test_beside_a_device_it_runs_on_the_host():
    model, generator = network(), np.random.default_rng(1)
    model.params.flat += 0.3 * generator.standard_normal(model.params.flat.shape)
    x, t, dout = generator.normal(size=(5, 2)), np.arange(1, 6), generator.normal(size=(5, 4))
    results = []
    for net in (model.net, OnHost(model.net, ops)):
        out, tape = net.forward(ops, model.params, x, t)
        results.append([out, net.backward(ops, model.params, tape, dout).flat.copy()])
    for a, b in zip(*results):
        np.testing.assert_array_equal(a, b)


CONFIG = """\
model: {family: gaussian, net: rbf, T: 40, schedule: sigmoid, time: readout}
training: {epochs: EPOCHS, steps_per_epoch: 60, num_val_samples: 20, num_examples: 4, lr: 0.05, lr_schedule: constant}
data: {batch_size: 64}
"""


def weights(run):
    tensors, _ = checkpoint.read(rundir.resolve(run).checkpoint)
    return {name: tensors[name] for name in sorted(tensors)}


@pytest.mark.usefixtures("quick")
def test_trained_resumed_and_sampled(tmp_path):
    """Through the commands; on Numba as on NumPy to rounding, and resumed to the same weights."""
    runs = [tmp_path / name for name in ("whole", "parts", "numba")]
    points = np.random.default_rng(0).normal(size=(300, 1)) * [1.0, 0.1] + [0.0, 2.0]
    for run in runs:
        run.mkdir()
        np.savetxt(run / "train.csv", points, delimiter=",")
        (run / "config.yaml").write_text(CONFIG.replace("EPOCHS", "2"))
    for run, backend in zip(runs, ("numpy", "numpy", "numba")):
        first = ("--set", "training.epochs=1") if run == runs[1] else ()
        done = invoke("train", run, "--seed", 1, "--backend", backend, *first)
        assert done.exit_code == 0, done.stderr
    done = invoke("train", runs[1], "--resume", "--backend", "numpy", "--set", "training.epochs=2")
    assert done.exit_code == 0, done.stderr
    whole, parts, numba = map(weights, runs)
    for name, array in whole.items():
        np.testing.assert_array_equal(parts[name], array)
        np.testing.assert_allclose(numba[name], array, atol=0.01)  # Adam enlarges rounding where gradients are small
    assert "gradients are right" in invoke("check-net", runs[0]).stdout
    done = invoke("sample", runs[0], "-n", 5, "--seed", 3, "--backend", "numpy")
    assert done.exit_code == 0 and len(done.stdout.splitlines()) == 5
    rows = Model.load(newest(runs[0])).sample(500, seed=0)
    assert abs(rows[:, 1].mean() - 2) < 0.1 and np.corrcoef(rows.T)[0, 1] > 0.6  # a line in the plane
