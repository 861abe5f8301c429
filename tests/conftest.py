"""Shared by the tests of the commands: the command line in this process, and one tiny training made through it."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bdiff_np.cli import main


def pytest_addoption(parser):
    parser.addoption(
        "--every-rung",
        action="store_true",
        help="A rung of the GPU ladder that is skipped, or has no test, is a failure.",
    )
    parser.addoption(
        "--stand-in", action="store_true", help="CuPy is the stand-in of tests/cuda_on_cpu, whatever is installed."
    )
    parser.addoption(
        "--order", type=int, default=0, help="Of the stand-in's threads: 0 forward, 1 backward, another number a seed."
    )
    parser.addoption("--fuzz", type=int, default=400, help="Cases of each kind in tests/test_fuzz.py.")
    parser.addoption("--plant", type=int, help="The number of a bug to plant in the kernels: tests/gpu/mutants.py.")
    parser.addoption("--signals", type=int, default=4, help="How many the trainings of test_killing.py are sent each.")
    parser.addoption("--simulator", action="store_true", help="Numba-CUDA runs in Numba's simulator, very slowly.")


def pytest_configure(config):
    """The stand-in and the simulator pretend a GPU for the whole session, before anything asks for one. Where pytest
    runs in a shell's background, which ignores Ctrl-C, the trainings that are tested heed it."""
    from bdiff_np.backends import gpu

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--stand-in"):
        from cuda_on_cpu import compile, stand_in

        stand_in.install()
        compile.order = config.getoption("--order")
    if config.getoption("--plant") is not None:
        from gpu import mutants

        mutants.plant(config.getoption("--plant"))
    if config.getoption("--simulator"):
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    if config.getoption("--stand-in") or config.getoption("--simulator"):
        gpu.driver = lambda: gpu.Driver(13000, ("a stand-in",), "")


def invoke(*arguments: object) -> Result:
    """`python cli.py ARGUMENTS` in this process; stdout and stderr are kept apart."""
    try:
        runner = CliRunner(mix_stderr=False)  # click before 8.2
    except TypeError:
        runner = CliRunner()
    return runner.invoke(main, [str(argument) for argument in arguments])


def good(*arguments: object) -> Result:
    """As `invoke`, of a command that must succeed."""
    result = invoke(*arguments)
    assert result.exit_code == 0, f"{arguments}: {result.stderr}{result.exception!r}"
    return result


@dataclass
class Trained:
    """A run folder after one training. Tests only read it; one that changes something works on a copy."""

    run: Path
    results: Path
    stdout: str
    stderr: str

    @cached_property
    def json(self) -> dict:
        return json.loads((self.results / "results.json").read_text())

    def checkpoint(self, epoch: int) -> Path:
        return self.results / "checkpoints" / f"model_epoch_{epoch}.safetensors"


def train(run: Path, *arguments: object) -> Trained:
    """A training through the command line."""
    result = good("train", run, *arguments)
    (results,) = (run / "results").iterdir()
    return Trained(run, results, result.stdout, result.stderr)


# 10 bits, period 5: docs/derivation.md, section 10 gives the exact floor of this population, 2.5740 bits for T = 20 and
# pi = 1/2.
TINY = {
    "model.T": 20, "model.pi": 0.5, "model.num_sample_steps": 16, "model.hidden": "[16]",
    "training.epochs": 3, "training.steps_per_epoch": 60, "training.lr": 1e-2, "training.warmup_steps": 10,
    "training.ema": 0.95, "training.save_every_n_epochs": 2, "training.num_val_samples": 64,
    "training.num_examples": 6, "training.sample_steps": 7, "training.seed": 5,
}  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    """Heartbeats of 10 bits, phases 1, 2, 3, 5 in train.txt and 4 in val.txt, trained for 3 epochs with the settings
    TINY."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    good("data", "heartbeat", "--length", 10, "--period", 5, "--hold-out", 4, "--out", run)
    return train(run, *(word for key, value in TINY.items() for word in ("--set", f"{key}={value}")))


@pytest.fixture
def quick(monkeypatch):
    """Few evaluations, no floor, no pictures and no waiting for the disk, where none of them is what is tested."""
    from bdiff_np.diffusion.bernoulli_family import Bernoulli
    from bdiff_np.runfolder import conclude, looking
    from bdiff_np.show import pictures

    monkeypatch.setattr(conclude, "EVALUATIONS", 1 << 7)
    monkeypatch.setattr(looking, "VAL_EVALUATIONS", 1 << 7)
    monkeypatch.setattr(Bernoulli, "floor", lambda *_: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(pictures, "draw", lambda *_: None)
