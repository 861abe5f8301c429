"""A family, a net, a kind of data and a back end are new files only: toys (tests/guests/) that go through every
command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
TOYS = Path(__file__).parent / "guests"
CONFIG = """\
model: {family: toy, net: toynet, T: 12, gain: 0.2}
training: {epochs: 3, steps_per_epoch: 40, num_examples: 4, num_val_samples: 32, save_every_n_epochs: 1, lr: 0.05}
data: {batch_size: 8}
"""
LACKS = "back end toyback has no kernels for toy: those of NumPy run in their place, which takes longer\n"


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A copy of the package with the toys in it; none of its own files is written over."""
    root = tmp_path_factory.mktemp("house")
    clean = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "bdiff_np", root / "bdiff_np", ignore=shutil.ignore_patterns("__pycache__", "kernels"))
    shutil.copytree(ROOT / "kernels", root / "bdiff_np" / "kernels", ignore=clean)
    shutil.copy(ROOT / "cli.py", root)
    for toy in TOYS.rglob("*.py"):
        target = root / "bdiff_np" / toy.relative_to(TOYS)
        assert not target.exists(), target
        target.parent.mkdir(exist_ok=True)
        shutil.copy(toy, target)
    return root


def run_folder(folder: Path) -> Path:
    folder.mkdir()
    points = np.random.default_rng(0).normal(size=(30, 2))
    np.savetxt(folder / "train.pts", points[:24])
    np.savetxt(folder / "val.pts", points[24:])
    (folder / "config.yaml").write_text(CONFIG)
    return folder


def command(house: Path, *arguments, code: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "cli.py", *map(str, arguments)], cwd=house, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == code, done.stderr
    return done


def weights(run: Path) -> list[bytes]:
    from bdiff_np.runfolder import checkpoint, rundir

    tensors, _ = checkpoint.read(rundir.resolve(run).checkpoint)
    assert "scale" in tensors  # what the family keeps of its process
    return [tensors[name].tobytes() for name in sorted(tensors)]


@pytest.fixture(scope="module")
def trained(house, tmp_path_factory) -> Path:
    run = run_folder(tmp_path_factory.mktemp("toys") / "run")
    done = command(house, "train", run, "--backend", "toyback", "--seed", "1")
    assert done.stderr.count(LACKS) == 1 and "24 rows of 2 coordinates, 6 held out; T = 12" in done.stderr
    assert "within the range of train" in done.stdout and "bits/sequence" in done.stdout
    (results,) = (run / "results").iterdir()
    drawn = {path.name for path in results.iterdir() if path.suffix in (".png", ".gif")}
    assert {"loss_curve.png", "samples.png", "reverse_trajectory.gif", "validation.png", "kl_per_step.png"} <= drawn
    found = json.loads((results / "results.json").read_text())
    assert set(found["proportions"]) == {"train", "other"} and found["losses"][-1] < found["losses"][0]
    return run


def test_back_ends_agree(house, trained, tmp_path):
    """On NumPy, and by `auto`, the same weights, without a word about kernels."""
    for k, backend in enumerate(("numpy", "auto")):
        run = run_folder(tmp_path / str(k))
        assert LACKS not in command(house, "train", run, "--backend", backend, "--seed", "1").stderr
        assert weights(run) == weights(trained)


def test_killed_and_resumed(house, trained, tmp_path):
    """A training that is killed after an epoch goes on to the same weights."""
    run = run_folder(tmp_path / "run")
    sets = ("--set", "training.steps_per_epoch=20000")
    job = subprocess.Popen(
        [sys.executable, "cli.py", "train", str(run), "--backend", "toyback", "--seed", "1", *sets],
        cwd=house,
        stderr=subprocess.DEVNULL,
    )
    while not list(run.glob("results/*/checkpoints/model_epoch_1.safetensors")):
        assert job.poll() is None
        time.sleep(0.02)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    command(house, "train", run, "--resume", "--backend", "toyback")
    whole = run_folder(tmp_path / "whole")
    command(house, "train", whole, "--backend", "toyback", "--seed", "1", *sets)
    assert weights(run) == weights(whole) != weights(trained)


def test_commands(house, trained, tmp_path):
    """sample, evaluate, validate, doctor, check-net, --dry-run, and a fault of the toy's own settings with its
    place."""
    rows = command(house, "sample", trained, "-n", 5, "--seed", 3, "--backend", "toyback").stdout
    assert (
        rows == command(house, "sample", trained, "-n", 5, "--seed", 3, "--backend", "numpy").stdout
        and len(rows.splitlines()) == 5
    )
    command(house, "sample", trained, "-n", 3, "--steps", 4, "--out", tmp_path / "x.pts")
    assert np.loadtxt(tmp_path / "x.pts").shape == (3, 2)
    bound = json.loads(
        command(house, "evaluate", trained, "--json", "--evaluations", 4000, "--backend", "toyback").stdout
    )
    assert bound["data"] == "val rows" and bound["floor_bits"] is None and bound["standard_error_bits"] > 0
    assert json.loads(command(house, "validate", trained, "-n", 50, "--json").stdout)["n"] == 50
    assert json.loads(command(house, "doctor", "--json").stdout)["backends"]["toyback"]["available"]
    assert "all 3 gradients are right" in command(house, "check-net", trained).stdout
    assert "gain: 0.2" in command(house, "train", trained, "--dry-run").stdout
    fault = command(house, "train", trained, "--set", "model.gian=1", code=2).stderr
    assert fault == "--set model.gian=1: model.gian: unknown key; did you mean gain?\n"


def test_the_perceptron_takes_the_toys_data(house, tmp_path):
    """A net of the house for a family that it has never heard of; on Numba too, whose fused paths it does not fill."""
    run = run_folder(tmp_path / "run")
    (run / "config.yaml").write_text(
        CONFIG.replace("net: toynet, ", "net: mlp, ").replace(", gain: 0.2", ", hidden: [8]")
    )
    assert "gradients are right" in command(house, "check-net", run).stdout
    done = command(house, "train", run, "--backend", "numba", "--set", "training.epochs=1")
    assert "back end numba has no kernels for toy" in done.stderr
