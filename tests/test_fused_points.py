"""Gaussian diffusion on Numba: the fused step is the five lines, the fused chain and KL are those of NumPy, whatever
the threads and batches; and a training of points goes through the commands."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_fused_steps import distance, snapshot
from tiny import invoke, newest

from bdiff_np import config, evaluate, rng, sample
from bdiff_np.data.points import Points, PointsSettings
from bdiff_np.data.points_generators import Law
from bdiff_np.diffusion import gaussian
from bdiff_np.diffusion.gaussian_family import FAMILY
from bdiff_np.kernels.gaussian import gaussian_numba, gaussian_numpy
from bdiff_np.kernels.training.fused_chain_numba import FusedChain
from bdiff_np.kernels.training.fused_kl_numba import FusedKL
from bdiff_np.kernels.training.fused_step_numba import FusedSteps
from bdiff_np.model import Model
from bdiff_np.rng import Key
from bdiff_np.train import Training

ROWS = np.random.default_rng(3).normal(size=(300, 3)) * [1, 5, 0.2] + [0, 100, -3]
CASES = {
    "default": {},
    "waves": {"waves": 7},
    "waves and odds": {"waves": 4, "odds_input": True},
    "noise, beta": {"predict": "noise", "variance": "beta"},
    "x0, posterior": {"predict": "x0", "variance": "posterior", "schedule": "cosine"},
    "forward, paper": {"predict": "forward", "schedule": "paper", "T": 7},
    "one coordinate": {"D": 1},
    "wide": {"hidden": [300], "D": 2},
}


def training(backend: str, D: int = 3, **values) -> Training:
    rows = Points.from_array(ROWS[:, :D])
    model = {"family": "gaussian", "T": 50, "hidden": [24, 16], "time_features": 4, **values}
    settings = config.validate(
        {"model": model, "training": {"steps_per_epoch": 64, "warmup_steps": 5}, "data": {"batch_size": 70}}
    )
    chain = FAMILY.make_chain(settings.model, rows)
    return Training(Model.build(settings, D, chain, backend=backend), rows)


@pytest.mark.parametrize("case", CASES)
def test_the_fused_step_is_the_five_lines(case):
    """On NumPy, to float32 rounding of the movement of twelve steps; losses likewise."""
    fused, lines = training("numba", **CASES[case]), training("numpy", **CASES[case])
    assert isinstance(fused.fused, FusedSteps) and lines.fused is None
    start, losses = snapshot(fused), [each.advance(12) for each in (fused, lines)]
    for name, array in snapshot(fused).items():
        assert distance(array - start[name], snapshot(lines)[name] - start[name]) < 3e-4, name
    np.testing.assert_allclose(*losses, rtol=3e-5, atol=1e-4)


@pytest.mark.parametrize("case", ["default", "waves and odds", "forward, paper"])
def test_the_fused_chain_and_kl_are_those_of_numpy(case):
    """Rows depend on their number alone; also with steps left out."""
    fused, lines = training("numba", **CASES[case]), training("numpy", **CASES[case])
    for job in (fused, lines):
        job.advance(3)
    lines.model.params.flat[:] = fused.model.params.flat
    model, there = fused.model, lines.model
    kernels = model.kernels()
    assert isinstance(model.fused("chain").build(model, kernels, 9), FusedChain)
    rows = sample.draw(model, 200, seed=4)
    scale = model.chain.scale
    np.testing.assert_allclose(sample.draw(there, 200, seed=4) / scale, rows / scale, atol=2e-4)
    assert np.array_equal(sample.draw(model, 40, seed=4, batch=7), sample.draw(model, 40, seed=4))
    if case != "forward, paper":  # which takes all steps
        some = [sample.draw(m, 100, seed=4, steps=10) / scale for m in (model, there)]
        np.testing.assert_allclose(*some, atol=2e-4)
    kl, other = evaluate._kl(model, kernels), evaluate._kl(there, there.kernels())
    assert isinstance(kl, FusedKL)
    key, t = Key(4, rng.EVAL_NOISE, 2), rng.stratified_t(Key(4, rng.EVAL_TIME, 2), 300, model.chain.T)
    np.testing.assert_allclose(kl(ROWS, t, key, 5), other(ROWS, t, key, 5), rtol=1e-3, atol=1e-3)
    found, expected = (evaluate.score(m, ROWS[:9], evaluations=400) for m in (model, there))
    np.testing.assert_allclose(found, expected, atol=2e-2)


def test_threads_change_nothing():
    """Weights after twelve steps, rows and KLs are the same to the last bit with 1, 2 and 3 threads."""
    seen = []
    for threads in (1, 2, 3):
        job = training("numba", waves=4)
        model = job.model
        job.fused = FusedSteps(
            model.net, job.kernels, model.params, job.optimizer, rows=job.rows, batch=70, seed=0, threads=threads,
            x_dtype=np.float32,
        )  # fmt: skip
        job.advance(12)
        chain = FusedChain(model, model.kernels(), 300, threads)
        x = np.array(model.kernels().prior(300, 3, Key(1, rng.PRIOR, 0)))
        chain(x, 50, 50, seed=1)
        t = rng.stratified_t(Key(4, rng.EVAL_TIME, 2), 300, 50)
        kl = FusedKL(model, model.kernels(), 300, threads)(ROWS, t, Key(4, rng.EVAL_NOISE, 2))
        seen.append((job.model.params.flat.tobytes(), x.tobytes(), kl.tobytes()))
    assert len(set(seen)) == 1


@pytest.mark.filterwarnings("ignore:what is known was clamped:UserWarning")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_known_coordinates(backend):
    """They come out as given, the others move; and the chain sees them noised, at t = T like noise."""
    model = training(backend).model
    known = np.where(np.arange(3) == 1, 97.3, np.nan)
    rows = model.sample(50, seed=2, known=known)
    assert (rows[:, 1] == 97.3).all() and rows[:, 0].std() > 0
    at = sample._noised(model, model.kernels(), model.chain, np.full((4000, 3), 97.3), 2, 0)
    assert abs(np.asarray(at(50))[:, 1].std() - 1) < 0.1 and np.ptp(np.asarray(at(0))[:, 1]) == 0
    with pytest.raises(ValueError, match="which coordinates never do"):
        model.sample(5, seed=2, known=known, method="rejection")


def test_the_control_variate_keeps_the_mean():
    """A bound by the definition without it is the same within its error, which is several times larger."""
    job = training("numba", T=200)
    job.advance(60)
    model, rows = job.averaged, job.rows
    found = evaluate.bound(model, rows, evaluations=1 << 15)
    t = rng.stratified_t(Key(7, rng.EVAL_TIME, 0), 1 << 15, 200)
    x0 = ROWS[np.arange(1 << 15) % 300]
    x_t = FAMILY.q_sample(model.chain, x0, t, rng.normals(Key(7, rng.EVAL_NOISE, 0), len(t), 3))
    kl = gaussian.kl(model.chain, "v", "learned", model.output(x_t.astype(np.float32), t), x0, x_t, t)[0]
    nats = 200 * kl.mean() + gaussian.exact_terms(model.chain, ROWS).mean()
    error = 200 * kl.std() / len(t) ** 0.5
    assert abs(nats - found.nats_per_sequence) < 5 * error
    assert found.standard_error_bits * evaluate.LN2 < error / 3


def test_the_first_step_does_not_drown_the_others():
    """Its gradient has the weight of the second's unless asked otherwise; the loss that is said keeps it whole."""
    chain = training("numpy").model.chain
    x0, t = ROWS[:2], np.array([1, 2])
    weight, share = gaussian.first_weight(chain), (1 - chain.alpha_bar[:2]) / (1 - chain.alpha_bar[1:3])
    assert weight == pytest.approx((1 - share[1]) / (1 - share[0]), rel=0.02) and weight < 0.5
    for module in (gaussian_numpy, gaussian_numba):
        plain, even = (module.Kernels(chain, first=first) for first in (1.0, None))
        x_t = plain.q_sample(x0, t, Key(1, rng.Q_NOISE, 1))
        out = np.zeros((2, 6), np.float32)
        (kl, slope), (same, less) = (kernels.kl_grad(out, x0, x_t, t) for kernels in (plain, even))
        assert np.array_equal(kl, same) and np.array_equal(slope[1], less[1])
        np.testing.assert_allclose(less[0], weight * slope[0], rtol=1e-5)


def test_points_through_the_commands(tmp_path):
    """Example data, a training, a bound beside the entropy with beta_1 said, the paper's K beside the floor of its
    chain, samples in the data's units, and a resumed training bit for bit."""
    run = tmp_path / "roll"
    made = invoke("data", "swiss-roll", "--rows", "2000", "--val-rows", "200", "--noise", "0", "--out", run)
    assert made.exit_code == 0, made.stderr
    sets = [f"--set={s}" for s in ("training.epochs=2", "training.steps_per_epoch=40", "model.T=20", "model.waves=4")]
    done = invoke("train", run, *sets, "--backend", "numba")
    assert done.exit_code == 0 and "bits/point" in done.stdout and "beta_1 = 1e-05" in done.stdout
    found = invoke("evaluate", run, "--bound", "paper", "--evaluations", "4096")
    assert found.exit_code == 0 and "floor " in found.stdout and "as in the paper" in found.stdout
    out = tmp_path / "more.csv"
    assert invoke("sample", run, "-n", "300", "--out", out, "--backend", "numpy").exit_code == 0
    drawn = Points.read(out).array
    assert drawn.shape == (300, 2) and np.abs(drawn).max() < 30
    assert invoke("validate", run, "-n", "200").exit_code == 0
    names = {path.name for path in newest(run).iterdir()}
    assert {"density.png", "triptych.png", "drift_field.png", "trajectories.png", "reverse_trajectory.gif"} < names


def test_a_schedule_that_ends_before_the_chain_does():
    """Too many steps of the sigmoid leave nothing that float32 holds: a sentence."""
    with pytest.raises(ValueError, match="model.T: of the schedule sigmoid with 9000 steps the last add nothing"):
        training("numpy", schedule="sigmoid", T=9000)


def test_a_bound_says_what_it_rests_on():
    bound = evaluate.bound(training("numpy").model, Points.from_array(ROWS), evaluations=64)
    assert dataclasses.asdict(bound)["process"] == "beta_1 = 1e-05"


def test_a_floor_is_that_of_the_law_alone():
    """Rows that are not of it have none; nor has a curve whose points the first step's noise does not cover."""
    law = PointsSettings(law={"name": "8gaussians"})
    own, other = Points(Law("8gaussians").draw(500)), Points(1 + 0.03 * ROWS[:, :2])
    assert Points.entropy(law, own) == Law("8gaussians").entropy and Points.entropy(law, own, other) is None
    curve = PointsSettings(law={"name": "swiss-roll", "noise": 0.0})
    rows = Points(Law("swiss-roll", 0.0).draw(500))
    points = Points.population(curve, rows)
    assert points.shape == (1 << 15, 2) and Points.population(curve, rows, other) is None
    for beta_1, there in ((1e-4, True), (1e-9, False)):
        settings = config.validate({"model": {"family": "gaussian", "T": 3, "beta_1": beta_1}}).model
        found = FAMILY.floor(FAMILY.make_chain(settings, rows), points[:: 1 if there else 8], "paper")
        assert (found is not None) == there


def test_waves_are_damped_by_the_noise_that_there_is():
    """A chain with steps left out tells the network the same of x_t at the same time as the whole chain."""
    chain = training("numpy", waves=5).model.chain
    some = chain.every(10)
    x, t = np.random.default_rng(0).normal(size=(11, 3)), np.arange(11)
    np.testing.assert_array_equal(gaussian.read(some, x, some.time[t]), gaussian.read(chain, x, some.time[t]))
    expected = np.exp(-2 * np.pi**2 * (1 - chain.alpha_bar[30]) * (chain.waves**2).sum(0))
    np.testing.assert_allclose(gaussian.seen(some)[30], expected, rtol=1e-12)


@pytest.mark.parametrize(
    "model, says",
    [
        ({"alpha_bar_T": 0.5, "schedule": "cosine"}, "is of the schedule logsnr alone"),
        ({"alpha_bar_T": 0.5, "beta_1": 0.9}, "must be below 1 - model.beta_1, 0.1"),
        ({"T": 1}, "must be at least 2 with the schedule logsnr"),
    ],
)
def test_settings_that_do_not_agree(model, says):
    with pytest.raises(ValueError, match=says):
        config.validate({"model": {"family": "gaussian", **model}})
