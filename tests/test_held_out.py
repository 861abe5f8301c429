"""Held-out rows: taken from train where there is no val file, and what they decide: the epoch that a run stands for, an
early stop, a sentence on overfitting; and how much is looked at between epochs."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import invoke, make_run, newest

from bdiff_np import config, evaluate
from bdiff_np.data.bits import Bits
from bdiff_np.diffusion.bernoulli_family import FAMILY
from bdiff_np.model import Model
from bdiff_np.runfolder import amounts, checkpoint, conclude, held_out, opening, rundir
from bdiff_np.show import report

pytestmark = pytest.mark.usefixtures("quick")


def rows(N: int, D: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (N, D)).astype(np.uint8)


def folder_of(folder: Path, N: int, val: int = 0, D: int = 12, **values) -> Path:
    """A run folder with N random rows, and so many more in val.txt."""
    make_run(folder, rule=None, **{"epochs": 2, **values})
    (folder / "val.txt").unlink()
    Bits.from_array(rows(N, D)).write(folder / "train.txt")
    if val:
        Bits.from_array(rows(val, D, seed=1)).write(folder / "val.txt")
    return folder


def settings_of(folder: Path, *sets: str):
    return config.load(folder / "config.yaml", sets)


# Split
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("N, count", [(599, 0), (600, 30), (619, 30), (620, 31), (2000, 100)])
def test_a_twentieth_is_held_out(tmp_path, N, count):
    """Of 600 rows or more; both parts together are all rows, each in the order of the file."""
    folder = folder_of(tmp_path / "run", N)
    found = held_out.read(FAMILY, folder, settings_of(folder))
    assert (
        (len(found.val) if found.val else 0) == count and len(found.train) == N - count and found.taken == bool(count)
    )
    if count:
        numbers = lambda part: part.all().astype(int) @ (1 << np.arange(12))  # noqa: E731
        every = numbers(Bits.read(folder / "train.txt")).tolist()
        assert sorted(np.concatenate([numbers(found.train), numbers(found.val)])) == sorted(every)
        again = iter(every)
        assert all(number in again for number in numbers(found.val).tolist())


def test_the_split_is_the_seeds(tmp_path):
    folder = folder_of(tmp_path / "run", 700)
    prints = [
        held_out.read(FAMILY, folder, settings_of(folder, f"training.seed={seed}")).val.fingerprint()
        for seed in (1, 1, 2)
    ]
    assert prints[0] == prints[1] != prints[2]


def test_no_split(tmp_path):
    """data.val: none takes no rows; a val file is read either way."""
    folder = folder_of(tmp_path / "run", 700)
    assert held_out.read(FAMILY, folder, settings_of(folder, "data.val=none")).val is None
    Bits.from_array(rows(3)).write(folder / "val.txt")
    for option in ("none", "auto"):
        found = held_out.read(FAMILY, folder, settings_of(folder, f"data.val={option}"))
        assert len(found.val) == 3 and len(found.train) == 700 and not found.taken


def test_most_is_held_out_of_many(monkeypatch, tmp_path):
    monkeypatch.setattr(held_out, "MOST", 33)
    folder = folder_of(tmp_path / "run", 1000)
    assert len(held_out.read(FAMILY, folder, settings_of(folder)).val) == 33


def test_select_of_any_kind():
    """Data.select has a default that Bits does not need."""
    data = Bits.from_array(rows(9))
    index = np.array([4, 1, 1])
    for found in (data.select(index), super(Bits, data).select(index)):
        np.testing.assert_array_equal(found.all(), data.take(index))


def test_the_split_is_one_for_all_commands(tmp_path):
    """train says it; evaluate and validate take the same rows, --resume too, for the seed is in the checkpoint."""
    folder = folder_of(tmp_path / "run", 700, D=24, seed=3)
    found = invoke("train", folder)
    said = "700 rows of 24 bits: 665 to train on, 35 held out (chosen by training.seed; data.val: none keeps all); T"
    assert found.exit_code == 0 and said in found.stderr
    model, expected = Model.load(folder), held_out.read(FAMILY, folder, settings_of(folder))
    told = json.loads(invoke("evaluate", folder, "--json", "--evaluations", 64).stdout)
    assert told["data"] == "val rows" and told["n_sequences"] == 35
    assert told["bits_per_sequence"] == evaluate.bound(model, expected.val, evaluations=64).bits_per_sequence
    assert json.loads(invoke("evaluate", folder, "--json", "--split", "all").stdout)["n_sequences"] == 700
    assert json.loads(invoke("validate", folder, "--json", "-n", 5).stdout)["val_rows"] == 35
    path = list(rundir.checkpoints(newest(folder)).values())[-1]
    assert checkpoint.read(path)[1]["data"] == [expected.train.fingerprint(), expected.val.fingerprint()]
    assert invoke("train", folder, "--resume", "--set", "training.epochs=3").exit_code == 0


def grow_old(folder: Path, **before) -> None:
    """The results of a run folder as a version without data.val would have left them, patience: null meaning never."""
    file = newest(folder) / "config.yaml"
    text = file.read_text().replace("  val: none\n", "")
    for name, value in before.items():
        text = re.sub(f"  {name}: .*", f"  {name}: {json.dumps(value)}", text)
    file.write_text(text)
    for path in rundir.checkpoints(newest(folder)).values():
        tensors, meta = checkpoint.read(path)
        del meta["config"]["data"]["val"]
        meta["config"]["training"].update(before)
        checkpoint.write(path, tensors, meta)


def test_runs_from_before_there_was_a_split(tmp_path):
    """Neither the config.yaml nor the checkpoint of an old run has data.val: nothing was held out then."""
    folder = folder_of(tmp_path / "run", 700)
    assert invoke("train", folder, "--set", "data.val=none").exit_code == 0
    grow_old(folder, patience=None)
    told = json.loads(invoke("evaluate", folder, "--json", "--evaluations", 64).stdout)
    assert told["data"] == "train rows" and told["n_sequences"] == 700
    found = invoke("train", folder, "--resume", "--set", "training.epochs=3")
    assert found.exit_code == 0 and "700 rows of 12 bits; T" in found.stderr


@pytest.mark.parametrize("patience, expected", [(None, "never"), (3, 3)])
def test_patience_of_before(tmp_path, patience, expected):
    """null meant never: with a val file such a run does not stop early now; a number stays."""
    folder = folder_of(tmp_path / "run", 50, 30, select="best")
    assert invoke("train", folder, "--set", "data.val=none").exit_code == 0
    grow_old(folder, patience=patience)
    job = opening.resume(folder, backend="numpy", sets=["training.epochs=90"])
    job.release()
    assert job.settings.training.patience == expected and job.epoch == 2
    assert not [line for line in job.said if "patience" in line]
    assert not [line for line in job.said if "patience" in line]
    _, meta = checkpoint.read(rundir.checkpoint_path(newest(folder), 2))
    assert config.validate(meta["config"]).training.patience == expected
    mended = opening.resume(folder, backend="numpy", sets=["training.patience=5"])
    mended.release()
    assert mended.settings.training.patience == 5


# What held-out rows decide
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "val, sets, select, patience",
    [
        (30, [], "best", 10),
        (29, [], "last", None),
        (0, [], "last", None),
        (30, ["training.epochs=90"], "best", 23),
        (30, ["training.select=last"], "last", None),
        (30, ["training.patience=never"], "best", None),
        (30, ["training.patience=3"], "best", 3),
        (29, ["training.select=best"], "best", None),
        (29, ["training.select=best", "training.patience=3"], "best", 3),
    ],
)
def test_defaults_rest_on_the_held_out_rows(tmp_path, val, sets, select, patience):
    """From 30 rows on the best epoch counts, and a quarter of the epochs, 10 at least, is waited."""
    folder = folder_of(tmp_path / "run", 50, val)
    job = opening.prepare(folder, settings_of(folder, *sets), backend="numpy")
    assert (job.choice.select, job.choice.patience) == (select, patience)


def test_patience_without_rows_to_rest_on(tmp_path):
    folder = folder_of(tmp_path / "run", 50, 5)
    found = invoke("train", folder, "--set", "training.patience=3")
    assert found.exit_code == 2 and "training.patience: needs 30 held-out rows, or training.select: best (there" in (
        found.stderr
    )
    assert not (folder / "results").exists()


@pytest.fixture
def job(tmp_path):
    """A training of 40 epochs with 30 held-out rows, whose bounds a test writes."""
    folder = folder_of(tmp_path / "run", 50, 30, epochs=40)
    return opening.prepare(folder, settings_of(folder), backend="numpy")


def with_bounds(job, bounds, loss=math.nan):
    for bits in bounds:
        job.history.add({"epoch": job.epoch + 1, "val_bound_bits": bits, "loss_bits": loss}, None)
    return job


@pytest.mark.parametrize(
    "bounds, stops",
    [
        ([9.0, *[9.5] * 10], True),
        ([9.0, *[9.5] * 9], False),
        ([9.0, *[9.1] * 20], False),  # about as good: the learning rate may still help it
        ([9.0, *[9.5] * 10, math.nan], False),  # not looked at
        ([9.0, *[math.nan] * 12, 9.5], True),
        ([-10.0] * 11, False),  # families of real numbers have such bounds
        ([-10.0, *[-9.85] * 10], False),
        ([-10.0, *[-9.75] * 10], True),
    ],
)
def test_an_early_stop_unasked(job, bounds, stops):
    with_bounds(job, bounds)
    assert job.choice.exhausted(job.history) is stops


@pytest.mark.parametrize(
    "bounds, val, says",
    [
        ([9.0, 8.0, 8.1], 8.3, ""),
        ([9.0, 8.0, 9.0], 8.3, "was least in epoch 2, and has risen by 1.00 bits since; the run stands for epoch 2;"),
        ([12.0, 10.0, math.nan, 15.0], 13.0, "cost 13.00 bits, which is more than the 11."),
        ([13.0, 12.0], 11.0, ""),  # what few evaluations say is not held against the 11. bits
        ([math.nan], 9.0, ""),
        ([], 9.0, ""),
        ([-10.0] * 11, -10.0, ""),
        ([-10.0, -9.85], -10.0, ""),
        ([-10.0, -9.75], -10.0, "was least in epoch 1, and has risen by 0.25 bits since;"),
    ],
)
def test_overfitting_in_words(job, bounds, val, says):
    found = report.overfitting(with_bounds(job, bounds, loss=5.0), {"val": {"bits_per_sequence": val}})
    assert says in found and bool(found) == bool(says)
    assert not found or found.startswith("overfitting: ") and "dropout or a smaller network help" in found


def test_what_has_not_been_learned_is_not_overfitted(job):
    """The training rows cost more than independent bits too: it is not said that dropout helps."""
    found = report.overfitting(with_bounds(job, [20.0, 25.0], loss=19.0), {"val": {"bits_per_sequence": 20.0}})
    assert found.startswith("not learned yet: the held-out rows cost 20.00 bits, which is more than the 11.")
    assert found.endswith("more epochs, another learning rate or less dropout help")


def test_overfitting_is_seen(tmp_path):
    """Random bits, which no network can learn but by heart: it stops early, says so, and stands for the best epoch."""
    values = {"epochs": 60, "lr": 0.05, "hidden": (64,), "num_val_samples": 0, "lr_schedule": "constant", "ema": 0.0}
    folder = folder_of(tmp_path / "run", 30, 30, **values)
    found = invoke("train", folder)
    saved = rundir.read_results(newest(folder))
    assert found.exit_code == 0 and "\noverfitting: " in found.stderr and "early stop after" in found.stderr
    assert len(saved["losses"]) < 60 and saved["chosen_epoch"] == 1 + int(
        np.argmin([math.inf if bits is None else bits for bits in saved["val_bounds"]])
    )


# How much is looked at
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows, given, expected",
    [
        # 15,000 rows of 100 bits by default
        (64_000, {}, (4, 3250, 141)),
        # the runs of the repository: heartbeat_paper, repeating_patterns, multiples_of_5
        (87_500, {"evaluations": 0}, (2, 0, 257)),
        (512_000, {}, (1, 6328, 371)),
        (25_600, {"samples": 512}, (4, 3250, 141)),
        # an epoch of some length looks at all
        (5_000_000, {}, (1, 16384, 1024)),
        # a short chain, few samples
        (20, {"samples": 16, "examples": 3, "steps": 20, "evaluations": 128}, (1, 128, 16)),
        (64_000, {"samples": 0}, (3, 3914, 0)),
    ],
)
def test_amounts(rows, given, expected):
    """They follow from sizes alone, and cost what is allowed at most."""
    values = {"evaluations": 1 << 14, "samples": 1024, "examples": 10, "steps": 100} | given
    much = amounts.between_epochs(rows, **values)
    cost = values["steps"] * (amounts.DRAW_STEP * (1 + bool(much.samples)))
    cost += values["steps"] * amounts.SAMPLE_STEP * (values["examples"] + much.samples)
    cost += (amounts.GROUPS * amounts.GROUP + amounts.EVALUATION * much.evaluations) * bool(much.evaluations)
    assert cost <= much.every * amounts.SHARE * max(rows, amounts.LEAST_ROWS)
    assert tuple(much) == expected


@pytest.mark.parametrize("samples", [0, 8])
def test_samples_that_are_not_drawn_are_not_counted(tmp_path, samples):
    """An epoch's line says nothing of them."""
    folder = folder_of(tmp_path / "run", 50, num_val_samples=samples)
    job = opening.prepare(folder, settings_of(folder), backend="numpy")
    shares = dict.fromkeys(job.history.census.names, 0.0)
    job.history.add({"epoch": 1, "step": 10, "seconds": 0, "loss_bits": 1.0, **shares}, np.zeros((3, 12)))
    assert (", samples of " in job.line()) is bool(samples)


def test_epochs_that_are_not_looked_at(tmp_path, monkeypatch):
    """nan in metrics.csv, null in results.json; pictures and --resume go on with the others, and the plan says it."""
    monkeypatch.undo()
    monkeypatch.setattr(conclude, "EVALUATIONS", 1 << 7)
    monkeypatch.setattr(amounts, "LEAST_ROWS", 1)
    monkeypatch.setattr(amounts, "SHARE", 4.0)  # of 20 rows
    folder = make_run(tmp_path / "run", epochs=12, steps_per_epoch=200)
    job = opening.prepare(folder, settings_of(folder), backend="numpy")
    every = job.looking.amounts.every
    assert every > 4
    found = invoke("train", folder)
    assert found.exit_code == 0 and f"after the first 4 epochs and every {every} epochs" in found.stderr
    with open(newest(folder) / "metrics.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    seen = [e for e in range(1, 13) if e <= 4 or e % every == 0]
    for name in ("val_bound_bits", "train", "valid_unseen"):
        assert [int(line["epoch"]) for line in lines if line[name] != "nan"] == seen
    saved = json.loads((newest(folder) / "results.json").read_text(), parse_constant=pytest.fail)
    for history in (saved["val_bounds"], saved["examples_per_epoch"], saved["proportions"]["train"]):
        assert [epoch for epoch, value in enumerate(history, 1) if value is not None] == seen
    with Image.open(newest(folder) / "sample_evolution_throughout_training.gif") as picture:
        assert picture.n_frames == len(seen)
    rundir.checkpoint_path(newest(folder), 12).unlink()
    assert invoke("train", folder, "--resume").exit_code == 0
    again = json.loads((newest(folder) / "results.json").read_text())
    assert again["examples_per_epoch"] == saved["examples_per_epoch"] and again["val_bounds"] == saved["val_bounds"]
