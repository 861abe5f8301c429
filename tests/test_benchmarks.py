"""benchmarks/run.py: sizes, counted operations, the check before the timing, peers that train as we do, and a short run
of the whole."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))  # as for `python benchmarks/run.py`, and inherited by the contestants' processes

import contestants  # noqa: E402
from contestants import Entry, Ours, Size, Worker  # noqa: E402

from bdiff_np.diffusion import gaussian  # noqa: E402
from bdiff_np.optim import adamw as optim  # noqa: E402

SMALL = {"bernoulli": Size(6, (8, 5), 32), "gaussian": Size(2, (32, 32), 32)}
PEERS = {"torch": ("peer_torch", "Torch", ("eager", "whole")), "jax": ("peer_jax", "Jax", ("scan",))}


@pytest.fixture(scope="module")
def run():
    """benchmarks/run.py as a module."""
    spec = importlib.util.spec_from_file_location("benchmark_run", BENCHMARKS / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=SMALL)
def problem(request):
    return contestants.make_problem(SMALL[request.param], request.param)


@pytest.fixture(scope="module", params=PEERS)
def peer(request):
    """A peer in its own process, in each of its modes: mode -> Worker."""
    if not importlib.util.find_spec(request.param):
        pytest.skip(f"{request.param} is not installed")
    module, cls, modes = PEERS[request.param]
    with Worker(Entry(request.param, request.param, module, cls, "", 1)) as worker:
        yield worker, modes


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(BENCHMARKS / "run.py"), *arguments], capture_output=True, text=True)


def test_sizes_are_read_and_written():
    assert Size.parse("20-50-50-20@64") == Size(20, (50, 50), 64)
    assert Size.parse("784-512x3-784@256") == Size(784, (512, 512, 512), 256)
    for text in ("20-50-50-20@64", "20-50-50-50-20@64", "784-512x3-784@256", "784-1024x3-784@512", "1-1-1@1"):
        assert str(Size.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "20-50-50-20", "20-20@64", "20-50-19@64", "20-0-20@64", "20-50-20@0", "20x2-50-20x2@64", "20-50-20@6.4"],
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="is not a size"):
        Size.parse(text)


def test_operations_are_those_counted_by_hand():
    """3-4-5-3 at batch 2 with 16 time features: each product of (B, n) and (n, m) costs 2 B n m."""
    forward = 3 * 4 + 16 * 8 + 4 * 5 + 16 * 10 + 5 * 3
    inputs = 4 * 5 + 5 * 3  # not of the first layer, nor of the time features
    assert contestants.make_problem(Size(3, (4, 5), 2)).flop == 2 * 2 * (2 * forward + inputs)


def test_the_loss_is_the_cross_entropy_less_the_entropy():
    """What peers leave out: at T nothing is known, and a bit of x_{T-1} flips with q, by hand."""
    problem = contestants.make_problem(SMALL["bernoulli"])
    x0, x_t, t, entropy = np.array([[0, 1]]), np.array([[0, 0]]), np.array([problem.T]), 0.0
    for q in (problem.chain.agree[problem.T], problem.chain.disagree[problem.T]):
        entropy -= q * np.log(q) + (1 - q) * np.log(1 - q)
    assert problem.family.rest(problem.chain, x0, x_t, t) == pytest.approx(-entropy, rel=1e-6)
    assert problem.family.rest(problem.chain, x0, x_t, np.array([1])) == 0


def test_what_no_weight_changes_of_a_gaussian_kl():
    """Of a network that is right in mean and variance the KL is 0, and a peer's loss (1 + log rho) / 2 a coordinate:
    w = 1 / rho."""
    problem = contestants.make_problem(SMALL["gaussian"], "gaussian")
    training, generator = contestants.make_training(problem.size, "numpy", family="gaussian"), np.random.default_rng(0)
    x0, t = training.rows.take(np.arange(1000)), generator.integers(1, problem.T + 1, 1000)
    x_t = problem.family.noisy(problem.chain, x0, t, generator)
    rho = np.where(t == 1, 1, problem.chain.rho[t])
    control = gaussian.control(training.model.chain, x0, x_t, t).sum()
    rest = problem.family.rest(problem.chain, x0, x_t, t)
    assert rest == pytest.approx(control - (1 + np.log(rho)).sum(), rel=1e-4)


def test_a_wrong_gradient_is_found(run, problem):
    """Of one parameter among many, off by a thousandth of the whole."""

    class Wrong:
        entry = Entry("wrong", "somebody's", "", "", "", 1)

        def call(self, method, *arguments):
            loss, grads = Ours(problem, "numpy", 1).loss_and_grads(*arguments)
            grads["out/b"] = grads["out/b"] * self.factor
            return 0.0, (loss, grads)

    wrong = Wrong()
    wrong.factor = 1
    run.agree(problem, {"right": wrong})
    wrong.factor = 1.002
    with pytest.raises(click.ClickException, match="gradient"):
        run.agree(problem, {"wrong": wrong})


def test_a_wrong_step_is_found(run, problem):
    """Of one of this project's back ends, whose gradient may be right and its fused step not."""
    with Worker(Entry("numpy", "", "contestants", "Ours", "numpy", 1)) as worker:
        worker.build(problem)
        run.agree(problem, {"numpy": worker})
        with pytest.raises(click.ClickException, match="change in 3 steps"):  # it is two steps ahead now
            run.agree(problem, {"numpy": worker})


# Settings that each make a difference within a few hundred steps; with a large eps, the gradient's scale matters, and
# so does clipping.
HARSH = {
    "lr": 0.02,
    "warmup_steps": 100,
    "weight_decay": 0.5,
    "clip": 0.05,
    "ema": 0.99,
    "total_steps": 500,
    "eps": 0.02,
}


def test_peers_do_as_we_do(run, peer, problem, monkeypatch):
    """The same loss and gradient; and after 400 steps averaged weights as good as ours, and as long, which tells of the
    optimiser's every part."""
    worker, modes = peer
    steps, ours = 400, Ours(problem, "numpy", 1)
    start = quality(problem, ours.weights())
    optimizer, settings = ours.training.optimizer, {**HARSH, "clip_thresh": HARSH["clip"]}
    monkeypatch.setattr(optim, "EPS", settings.pop("eps"))
    optimizer.total_steps = settings.pop("total_steps")
    optimizer.settings = optimizer.settings.model_copy(update=settings)
    ours.run(steps)
    loss, lengths = (
        quality(problem, ours.weights()),
        np.array([np.linalg.norm(value) for value in ours.weights().values()]),
    )
    assert loss < 0.9 * start
    for mode in modes:
        worker.entry = worker.entry._replace(mode=mode)
        worker.build(dataclasses.replace(problem, optimizer=problem.optimizer._replace(**HARSH)))
        run.agree(problem, {mode: worker})
        worker.call("run", steps - 1)  # the first is part of the set-up
        _, weights = worker.call("weights")
        assert quality(problem, weights) == pytest.approx(loss, rel=0.005)
        found = [np.linalg.norm(weights[name]) for name in ours.weights()]
        np.testing.assert_allclose(found, lengths, rtol=0.1, atol=0.02)  # of a few biases near 0 it is mostly noise


def quality(problem: contestants.Problem, weights: dict[str, np.ndarray]) -> float:
    """Loss in nats per row, of many rows."""
    ours = Ours(problem, "numpy", 1)
    x0 = np.tile(problem.rows[:1000], (8, 1))
    t = np.random.default_rng(0).integers(1, problem.T + 1, len(x0))
    x_t = problem.family.noisy(problem.chain, x0, t, np.random.default_rng(1))
    ours.start = weights
    return ours.loss_and_grads(x0, x_t, t)[0]


def test_samples_of_another_law_are_found(problem):
    one, other = problem.rows[::2], problem.rows[1::2].copy()
    assert problem.family.apart(one, other) < 6
    if problem.family.name == "bernoulli":
        other[::3, -1] = 1
    else:
        other[:, -1] *= 1.2
    assert problem.family.apart(one, other) > 6


@pytest.mark.parametrize("family", SMALL)
def test_a_short_run(family, tmp_path):
    """One command: Markdown on stdout or in a file; with --json one object in its place, every figure in it."""
    size = SMALL[family]
    words = "--quick", "--family", family, "--sizes", str(size), "--backends", "numpy", "--threads", "1"
    done = command(*words, "--parts", "steps", "--out", str(tmp_path / "speed.md"))
    shown = (tmp_path / "speed.md").read_text()
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert f"## {size}" in shown and "| numpy |" in shown and "No peer was measured" in shown
    assert f"## {size}" in command(*words, "--parts", "steps").stdout
    done = command(*words, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["machine"]["threads"] == 1 and found["machine"]["versions"]["numpy"] == np.__version__
    figures = found["steps"][str(size)]["contestants"]["numpy"]
    assert len(figures["us"]) == 2 and min(figures["us"]) <= figures["us_median"] <= max(figures["us"])
    assert figures["rows_per_s"] == pytest.approx(1e6 * size.batch / figures["us_median"])
    assert figures["gflops"] == pytest.approx(1e-3 * found["steps"][str(size)]["flop"] / figures["us_median"])
    assert found["sampler"]["seconds"]["numpy"]["100"] > 0


def test_help_and_faults():
    shown = command("--help")
    assert shown.returncode == 0 and "python benchmarks/run.py --sizes" in shown.stdout
    for arguments, reason in (
        (("--sizes", "20-50@64"), "is not a size"),
        (("--backends", "numpy,tpu"), "tpu: there is numpy"),
        (("--json", "--out", "no_such_folder/x.json"), "there is no folder"),
        (("--out", f"{Path(__file__)}/x"), "is a file, not a folder"),
        (("--pictures", f"{Path(__file__)}/x"), "Not a directory"),
    ):
        refused = command(*arguments)
        assert refused.returncode == 2 and reason in refused.stderr
