"""A training that is killed, interrupted or diverges, and what --resume makes of it: bit for bit what an undisturbed
run gives."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import NET, TRAIN, invoke, make_run, newest

from bdiff_np import config, evaluate, sample
from bdiff_np.data import bits as data
from bdiff_np.model import Model
from bdiff_np.runfolder import checkpoint, conclude, opening, rundir, saving
from bdiff_np.runfolder.stopping import Stopped
from bdiff_np.show import pictures
from bdiff_np.train import Training

HISTORIES = ("losses", "examples_per_epoch", "proportions", "val_bounds", "chosen_epoch")
CONCLUSIONS = ("bounds", "samples")


pytestmark = pytest.mark.usefixtures("quick")


def metrics(results: Path) -> list[dict]:
    with open(results / "metrics.csv", newline="") as file:
        return [{k: v for k, v in line.items() if k != "seconds"} for line in csv.DictReader(file)]


def same_training(found: Path, expected: Path) -> None:
    """Last checkpoint, metrics but for the seconds, histories and conclusions of two results folders are identical."""
    a, b = (list(rundir.checkpoints(r).values())[-1] for r in (found, expected))
    assert a.name == b.name
    (tensors, meta), (others, described) = checkpoint.read(a), checkpoint.read(b)
    assert tensors.keys() == others.keys() and {"m", "v"} < tensors.keys()
    for name in tensors:
        assert tensors[name].tobytes() == others[name].tobytes(), name
    for name in ("step", "epoch", "best", "loss_sum", "loss_count", "data", "net", "config"):
        assert meta[name] == described[name], name
    assert metrics(found) == metrics(expected) and len(metrics(found)) == meta["epoch"]
    left, right = (rundir.read_results(r) for r in (found, expected))
    for name in HISTORIES + CONCLUSIONS:
        assert left[name] == right[name], name
    assert len(left["losses"]) == len(left["examples_per_epoch"]) == meta["epoch"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """undisturbed(**settings): results of a run from beginning to end, to be read only; made once for each settings."""
    made: dict[str, Path] = {}

    def run(code=None, **values) -> Path:
        name = repr((code, values))
        if name not in made:
            folder = make_run(tmp_path_factory.mktemp("undisturbed") / "run", code, **values)
            assert invoke("train", folder).exit_code == 0
            made[name] = newest(folder)
        return made[name]

    return run


SETTINGS = [
    {},
    {"save_every_n_epochs": 2, "num_sample_steps": 3, "dropout": 0.2, "hidden": (8, 8)},
    {"select": "best", "save_every_n_epochs": 4, "pi": "data"},
    {"predict": "x_prev", "time": "readout", "weight_decay": 0.1, "num_val_samples": 0, "steps_per_epoch": 7},
]


# Killed
# ----------------------------------------------------------------------------------------------------------------------

# Runs `train` again and again in forked children, each of which is killed: at a random time, or around a random one of
# its file replacements, counted from the child's start. The last line printed is how many were killed before one came
# to its end.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from bdiff_np import cli, evaluate
from bdiff_np.show import report
from bdiff_np.runfolder import rundir
from bdiff_np.runfolder import looking
from bdiff_np.runfolder import run as training
from bdiff_np.runfolder import conclude
from bdiff_np.show import pictures
from bdiff_np.diffusion.bernoulli_family import Bernoulli
from bdiff_np.diffusion import bernoulli
from bdiff_np.kernels.bernoulli import bernoulli_numpy
from bdiff_np.nets import mlp
import safetensors.numpy, threadpoolctl, tqdm  # all that a child would have to load is loaded before the forks

conclude.EVALUATIONS = looking.VAL_EVALUATIONS = 1 << 7
pictures.draw, Bernoulli.floor, os.fsync = (lambda *_: None), (lambda *_: None), (lambda _: None)
folder, how, dice = sys.argv[1], sys.argv[2], random.Random(int(sys.argv[3]))
replace, left = os.replace, 0

def fatal(source, target):
    global left
    left -= 1
    if left == 0 and how == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def begun():
    every = rundir.all_results(Path(folder))
    return any((r / "reverse_model.py").exists() and (r / "config.yaml").exists() for r in every)

killed, patience = 0, 0.05
while True:
    resume = ["--resume"] if begun() else []
    left = dice.randint(4, 9)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if how != "time":
            os.replace = fatal
        cli.main(["train", folder, *resume])
    if how == "time":
        while not begun():
            time.sleep(0.001)
        time.sleep(dice.uniform(0, patience))
        patience *= 1.3
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status)) if os.WEXITSTATUS(status) else print(killed)
        break
    killed += 1
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("how", ["time", "before", "after"])
@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_killed_and_resumed(tmp_path, undisturbed, number, how):
    """SIGKILL at random moments, or right before or after a file takes its name, again and again: the end is that of an
    undisturbed run."""
    expected = undisturbed(**SETTINGS[number])
    folder = make_run(tmp_path / "killed", **SETTINGS[number])
    # no thread that a fork could lose
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLER, folder, how, str(number)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= 2 and len(rundir.all_results(folder)) == 1
    same_training(newest(folder), expected)
    leftover = [p for p in newest(folder).rglob("*") if p.name.endswith(".tmp")]
    assert how != "after" or not leftover


@pytest.mark.parametrize("write", [0, 1, 2])
def test_killed_while_the_results_folder_is_made(tmp_path, monkeypatch, write):
    """A run that dies before its first step is resumed with its own network or not at all; never with the built-in one
    in its place."""
    folder = make_run(tmp_path / "run", NET, epochs=1)
    calls = 0

    def dying(function):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls > write:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(saving, "write_own", dying(saving.write_own))
    monkeypatch.setattr(shutil, "copyfile", dying(shutil.copyfile))
    invoke("train", folder)
    monkeypatch.undo()
    monkeypatch.setattr(pictures, "draw", lambda *_: None)
    found = invoke("train", folder, "--resume")
    assert found.exit_code in (0, 2)
    if found.exit_code == 0:
        assert checkpoint.read(rundir.resolve(folder).checkpoint)[1]["net"] == "reverse_model.py"


# Interrupted
# ----------------------------------------------------------------------------------------------------------------------


def interrupt(monkeypatch, step: int, times: int = 1) -> None:
    """Ctrl-C during an optimiser step."""
    original = Training.step

    def with_signal(self):
        loss = original(self)
        if self.optimizer.taken == step:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(Training, "step", with_signal)


@pytest.mark.parametrize("step", [1, 25, 30, 31, 60])
@pytest.mark.parametrize("values", SETTINGS[:3])
def test_interrupted_and_resumed(tmp_path, undisturbed, monkeypatch, step, values):
    """Ctrl-C finishes the step, saves where it is, exits with 130 and says how to go on; that leads to the same end."""
    folder, handler = make_run(tmp_path / "run", **values), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        interrupt(patch, step)
        stopped = invoke("train", folder)
    assert stopped.exit_code == 130 and "interrupted" in stopped.stderr and f"train {folder} --resume" in stopped.stderr
    path = list(rundir.checkpoints(newest(folder)).values())[-1]
    assert checkpoint.read(path)[1]["step"] == step
    assert set(CONCLUSIONS) < rundir.read_results(newest(folder)).keys() and str(newest(folder)) in stopped.stdout
    assert signal.getsignal(signal.SIGINT) is handler
    assert invoke("train", folder, "--resume").exit_code == 0
    same_training(newest(folder), undisturbed(**values))


def test_interrupted_between_epochs(tmp_path, undisturbed, monkeypatch):
    """Ctrl-C while samples are drawn does not wait for them: the steps are saved though no checkpoint was due, and the
    epoch's line of metrics comes after --resume."""
    folder = make_run(tmp_path / "run", save_every_n_epochs=4)
    original = sample.draw

    calls = 0

    def draw(model, n, **options):
        nonlocal calls
        calls += 1
        if calls == 5:  # each epoch draws twice
            os.kill(os.getpid(), signal.SIGINT)
        return original(model, n, **options)

    with monkeypatch.context() as patch:
        patch.setattr(sample, "draw", draw)
        patch.setattr(conclude, "conclude", lambda run: sys.exit(130))
        assert invoke("train", folder).exit_code == 130
    assert list(rundir.checkpoints(newest(folder))) == [3] and len(metrics(newest(folder))) == 2
    assert checkpoint.read(rundir.checkpoint_path(newest(folder), 3))[1]["step"] == 30
    assert invoke("train", folder, "--resume").exit_code == 0
    same_training(newest(folder), undisturbed(save_every_n_epochs=4))


def test_interrupted_twice_leaves_at_once(tmp_path, undisturbed, monkeypatch):
    """A second Ctrl-C does not wait for the pictures; the checkpoint before it is whole and the run goes on from
    there."""
    folder = make_run(tmp_path / "run")
    with monkeypatch.context() as patch:
        interrupt(patch, 25, times=2)
        assert invoke("train", folder).exit_code != 0
    assert list(rundir.checkpoints(newest(folder))) == [1, 2]
    assert invoke("train", folder, "--resume").exit_code == 0
    same_training(newest(folder), undisturbed())


def test_interrupted_run_has_its_pictures(tmp_path, monkeypatch):
    """Ctrl-C mid-epoch draws all pictures, also when not one epoch was completed."""
    monkeypatch.undo()
    monkeypatch.setattr(conclude, "EVALUATIONS", 1 << 7)
    for step, curves in (
        (5, set()),
        (25, {"loss_curve.png", "validation.png", "sample_evolution_throughout_training.gif"}),
    ):
        folder = make_run(tmp_path / str(step))
        with monkeypatch.context() as patch:
            interrupt(patch, step)
            assert invoke("train", folder).exit_code == 130
        found = {p.name for p in newest(folder).iterdir() if p.suffix in (".png", ".gif")}
        assert found == curves | {"reverse_trajectory.gif", "samples.png", "kl_per_step.png"}


@pytest.mark.parametrize("step", [15, 20, 25])
def test_interrupted_run_concludes_with_the_chosen_epoch(tmp_path, monkeypatch, step):
    """With select: best, results.json's bounds are those of the checkpoint that results.json chooses, though training
    went on after it."""
    folder = make_run(tmp_path / "run", select="best")
    interrupt(monkeypatch, step)
    assert invoke("train", folder).exit_code == 130
    found = rundir.read_results(newest(folder))
    assert found["chosen_epoch"] == 1  # the held-out row is of another phase: its bound rises as training goes on
    bound = evaluate.bound(Model.load(folder), TRAIN, evaluations=conclude.EVALUATIONS)
    assert found["bounds"]["train"]["bits_per_sequence"] == bound.bits_per_sequence


# What is resumed
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def half(tmp_path, monkeypatch):
    """half(**settings): a run folder whose training was interrupted after 35 of 60 steps."""

    def run(code=None, **values) -> Path:
        folder = make_run(tmp_path / "half", code, **values)
        with monkeypatch.context() as patch:
            interrupt(patch, 35)
            assert invoke("train", folder).exit_code == 130
        return folder

    return run


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_damaged_checkpoint_is_passed_over(half, undisturbed, damage):
    """With the newest checkpoint damaged, the run goes on from the one before, says so, and ends the same."""
    folder = half()
    last = list(rundir.checkpoints(newest(folder)).values())[-1]
    content = bytearray(last.read_bytes())
    content[-30] ^= 4
    last.write_bytes({"cut": content[:-1], "flip": content, "empty": b""}[damage])
    found = invoke("train", folder, "--resume")
    assert (
        found.exit_code == 0
        and f"{last}: damaged" in found.stderr
        and "an earlier checkpoint is taken" in found.stderr
        and "from step 30" in found.stderr
    )
    same_training(newest(folder), undisturbed())


def test_without_a_readable_checkpoint_it_starts_again(half, undisturbed):
    """With all checkpoints damaged the run begins at step 0, in the same folder, and ends the same."""
    folder = half()
    for path in rundir.checkpoints(newest(folder)).values():
        path.write_bytes(b"nothing")
    assert invoke("train", folder, "--resume").exit_code == 0
    assert len(rundir.all_results(folder)) == 1
    same_training(newest(folder), undisturbed())


def test_finished_run_stays_as_it_is(tmp_path, undisturbed):
    """--resume of a finished run takes no step and changes no checkpoint and no history."""
    results = newest(shutil.copytree(undisturbed().parent.parent, tmp_path / "copy"))
    before = {p.name: p.read_bytes() for p in [*(results / "checkpoints").iterdir(), results / "metrics.csv"]}
    concluded = json.loads((results / "results.json").read_text())
    assert invoke("train", results.parent.parent, "--resume").exit_code == 0
    assert {p.name: p.read_bytes() for p in [*(results / "checkpoints").iterdir(), results / "metrics.csv"]} == before
    assert json.loads((results / "results.json").read_text()) == concluded


EARLY = {
    "select": "best",
    "patience": 1,
    "epochs": 40,
    "lr": 0.3,
    "warmup_steps": 0,
    "lr_schedule": "constant",
    "ema": 0.0,
}


def test_early_stop(undisturbed):
    """Training ends after `patience` epochs without a better validation bound, and the run stands for the best one."""
    results = undisturbed(**EARLY)
    bounds = rundir.read_results(results)["val_bounds"]
    best = int(np.argmin(bounds)) + 1
    assert len(bounds) == best + 1 < 40 and rundir.read_results(results)["chosen_epoch"] == best
    assert rundir.resolve(results).checkpoint.name == f"model_epoch_{best}.safetensors"


def test_early_stop_is_final(tmp_path, undisturbed):
    """--resume of a run that stopped early trains no further."""
    results = newest(shutil.copytree(undisturbed(**EARLY).parent.parent, tmp_path / "copy"))
    before = metrics(results)
    assert invoke("train", results.parent.parent, "--resume").exit_code == 0
    assert metrics(results) == before


def test_newest_results_are_resumed(half):
    """Of several trainings in a folder the newest by name goes on; the others are not touched."""
    folder = half()
    first = newest(folder)
    older = first.with_name("d_12_31_2019_t_23_59_59")
    shutil.copytree(first, older)
    os.utime(older)
    content = {p: p.read_bytes() for p in older.rglob("*") if p.is_file()}
    assert invoke("train", folder, "--resume").exit_code == 0
    assert {p: p.read_bytes() for p in older.rglob("*") if p.is_file()} == content and len(metrics(first)) == 6


def test_the_configuration_is_that_of_the_results(half, undisturbed):
    """A config.yaml that was edited since does not change a run that goes on."""
    folder = half()
    (folder / "config.yaml").write_text("model: {T: 3}\n")
    assert invoke("train", folder, "--resume").exit_code == 0
    same_training(newest(folder), undisturbed())


def test_own_network_is_resumed(half, undisturbed):
    """A run with a reverse_model.py goes on with the copy in its results, whatever became of the file in the run
    folder."""
    folder = half(NET)
    (folder / "reverse_model.py").write_text("raise SystemExit('executed')\n")
    assert invoke("train", folder, "--resume").exit_code == 0
    same_training(newest(folder), undisturbed(NET))


def refused(folder: Path, *options: str) -> str:
    """The sentence with which a resume is refused; nothing in the folder changes."""
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    found = invoke("train", folder, "--resume", *options)
    assert found.exit_code == 2 and found.stdout == "" and "Traceback" not in found.stderr
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    return found.stderr.strip()


def test_changed_rows_are_refused(half):
    """A train.txt that is not the one the run began with."""
    folder = half()
    data.Bits.from_array(1 - TRAIN.all()).write(folder / "train.txt")
    assert refused(folder).startswith(
        f"{folder}: the rows of train or val have changed since model_epoch_4.safetensors was saved"
    )


def test_changed_held_out_rows_are_refused(half):
    """A val.txt that is not the one the run began with: best, patience and the column of bounds would mix two sets."""
    folder = half()
    data.Bits.from_array(1 - TRAIN.all()).write(folder / "val.txt")
    assert refused(folder).startswith(f"{folder}: the rows of train or val have changed since")


def test_nothing_to_resume(tmp_path):
    """A run folder without results."""
    assert "nothing to resume" in refused(make_run(tmp_path / "run"))


@pytest.mark.parametrize("options", [("--seed", "3"), ("--dry-run",), ("--seed", "0", "--dry-run")])
def test_resume_takes_no_seed(half, options):
    """--seed and --dry-run contradict --resume."""
    assert "leave out --seed and --dry-run" in refused(half(), *options)


@pytest.mark.parametrize(
    "option",
    [
        "training.lr=1",
        "training.seed=3",
        "training.select=best",
        "model.T=3",
        "data.val=none",
        "training.num_examples=2",
    ],
)
def test_resume_changes_nothing_that_counts(half, option):
    """A setting on which what is trained, or its history, rests is refused by name."""
    name = option.partition("=")[0]
    assert refused(half(), "--set", option).startswith(f"--set {name}: cannot change in a training that goes on")


@pytest.mark.parametrize("file", ["metrics.csv", "results.json"])
@pytest.mark.parametrize("content", [None, "", "epoch\n1\n", "{}", "[]"])
def test_damaged_history_is_refused(half, file, content):
    """Without its history a run cannot go on as if nothing had happened, and says so."""
    folder = half()
    if content is None:
        (newest(folder) / file).unlink()
    else:
        (newest(folder) / file).write_text(content)
    assert "missing or damaged" in refused(folder)


def test_changed_network_is_refused(half):
    """A reverse_model.py in the results folder whose shapes are no longer those of the checkpoint."""
    folder = half(NET)
    (newest(folder) / "reverse_model.py").write_text(NET.replace("H = alpha_bar, 6", "H = alpha_bar, 7"))
    assert "does not fit the network" in refused(folder)


# Diverged
# ----------------------------------------------------------------------------------------------------------------------

POISONED = NET.replace("x, h, inner = tape", "x, h, inner = tape; self.calls = getattr(self, 'calls', 0) + 1").replace(
    "dlogits.sum(0)}", 'dlogits.sum(0) * (float("nan") if self.calls > LIMIT else 1)}'
)


@pytest.mark.parametrize("limit, good", [(5, None), (25, "model_epoch_2.safetensors")])
def test_nan_stops_with_the_cause(tmp_path, undisturbed, limit, good):
    """A gradient that is not a number ends the run with exit code 1 and one sentence; the last good checkpoint is that
    of a sound run."""
    folder = make_run(tmp_path / "run", POISONED.replace("LIMIT", str(limit)))
    found = invoke("train", folder)
    assert found.exit_code == 1 and "Traceback" not in found.stderr
    last = found.stderr.strip().splitlines()[-1]
    assert (
        f"stopped in epoch {limit // 10 + 1}: the gradient of step {limit + 1} is not a number" in last
        and "training.lr" in last
    )
    if good is None:
        assert "there is no checkpoint yet, and nothing is left behind" in last and not (folder / "results").exists()
        return
    kept = rundir.checkpoints(newest(folder))
    assert str(newest(folder) / "checkpoints" / good) in last and list(kept) == [1, 2]
    tensors, meta = checkpoint.read(kept[2])
    others, _ = checkpoint.read(rundir.checkpoint_path(undisturbed(NET), 2))
    assert meta["step"] == 20 and all(np.isfinite(a).all() for a in tensors.values())
    assert all(tensors[name].tobytes() == others[name].tobytes() for name in tensors)
    assert Model.load(folder).sample(3).shape == (3, 8)


@pytest.mark.parametrize("what", ["loss", "bound"])
def test_weights_of_no_use_are_not_saved(tmp_path, monkeypatch, what):
    """With a loss or a bound that is no finite number they are none to go on from, though each of them is finite: the
    checkpoint before them is the last good one, and epochs since are not saved with them."""
    bound, advance = evaluate.bound, Training.advance

    def no_bound(model, rows, **options):
        if job.epoch == 4:
            model.params.flat[:] = 1e30
        return bound(model, rows, **options)

    def no_loss(self, count):
        losses = advance(self, count)
        return [math.inf] * len(losses) if self.optimizer.taken > 45 else losses

    monkeypatch.setattr(*((evaluate, "bound", no_bound) if what == "bound" else (Training, "advance", no_loss)))
    folder = make_run(tmp_path / "run", save_every_n_epochs=3)
    job = opening.prepare(folder, config.load(folder / "config.yaml"), backend="numpy")
    saving.begin(job)
    of = {"loss": "the loss is", "bound": "the bound of the held-out rows is"}[what]
    with pytest.raises(Stopped, match=f"^training stopped in epoch 5: {of} not a finite number after step (46|50) "):
        job.train()
    job.release()
    assert list(rundir.checkpoints(newest(folder))) == [3]


def test_nan_keeps_the_epochs_since_the_last_checkpoint(tmp_path, undisturbed):
    """They are saved as of the step before the one that failed."""
    folder = make_run(tmp_path / "run", POISONED.replace("LIMIT", "25"), save_every_n_epochs=10)
    found = invoke("train", folder)
    assert found.exit_code == 1 and "Traceback" not in found.stderr
    kept = rundir.checkpoints(newest(folder))
    assert list(kept) == [3] and f"the last good checkpoint is {kept[3]}" in found.stderr
    tensors, meta = checkpoint.read(kept[3])
    assert (meta["epoch"], meta["step"]) == (2, 25) and all(np.isfinite(a).all() for a in tensors.values())
    assert Model.load(folder).sample(3).shape == (3, 8)
