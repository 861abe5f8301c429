"""The commands: what they print and write, and what they say to every bad input."""

from __future__ import annotations

import csv
import gzip
import hashlib
import itertools
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import click
import numpy as np
import pytest
from conftest import TINY, good, invoke, train
from PIL import Image

from bdiff_np import __version__, backends, config, evaluate, memory, sample
from bdiff_np.cli import main
from bdiff_np.data import bits as data
from bdiff_np.model import Model
from bdiff_np.runfolder import checkpoint, conclude, files, opening, rundir
from bdiff_np.show import bits_pictures, curves

ROOT = Path(__file__).parent.parent
PICTURES = {
    "loss_curve.png", "validation.png", "sample_evolution_throughout_training.gif",
    "reverse_trajectory.gif", "kl_per_step.png", "samples.png",
}  # fmt: skip
COLUMNS = "epoch step seconds loss_bits val_bound_bits learning_rate gradient_norm train val other valid_unseen".split()


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder below, with a checksum of the content."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "folder"
        for p in sorted(folder.rglob("*"))
    }


def bits(text: str) -> np.ndarray:
    return np.array([[int(c) for c in line] for line in text.splitlines()], np.uint8)


@pytest.fixture
def run(tmp_path):
    """A run folder that trains: 4 heartbeats of 10 bits, one held out."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "train.txt").write_text("1000010000\n0100001000\n0010000100\n0000100001\n")
    (folder / "val.txt").write_text("0001000010\n")
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the trained run, to change something in it."""
    shutil.copytree(trained.run, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """A run folder with nothing but a train.txt, trained for one short epoch: no val.txt, no config.yaml, no rule."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    folder.mkdir()
    (folder / "train.txt").write_text("110010101\n001101010\n111000111\n")
    settings = "model.T=8", "training.epochs=1", "training.steps_per_epoch=3", "training.num_val_samples=8"
    return train(folder, *(word for s in settings for word in ("--set", s)))


# Models far off
# ----------------------------------------------------------------------------------------------------------------------

FAR_OFF = [
    "training.lr=1000", "training.lr_schedule=constant", "training.epochs=1", "training.steps_per_epoch=1",
    "training.warmup_steps=0", "training.ema=0", "model.T=50", "training.num_val_samples=8",
]  # fmt: skip


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("predict", ["x0", "x_prev"])
def test_a_model_far_off_is_concluded(tmp_path, monkeypatch, backend, predict):
    """One step with a learning rate of 1000: a bound of millions of bits, beside its floor, and every picture."""
    monkeypatch.setattr(conclude, "EVALUATIONS", 1 << 12)
    run = tmp_path / "run"
    good("data", "heartbeat", "--length", 20, "--period", 5, "--hold-out", 4, "--out", run)
    sets = (*FAR_OFF, f"model.predict={predict}")
    done = train(run, "--backend", backend, *(word for s in sets for word in ("--set", s)))
    found = done.json["bounds"]["train"]
    assert 1e4 < found["bits_per_sequence"] < 1e9 and found["floor_bits"] < 3
    assert {p.name for p in done.results.iterdir() if p.suffix in (".png", ".gif")} == PICTURES
    assert "not drawn" not in done.stderr and "Warning" not in done.stderr


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_a_picture_that_fails_costs_a_line(run, monkeypatch, name):
    """Whatever goes wrong with one: stderr names it and the reason; the others, results.json and the conclusion are
    there."""
    functions = {
        "loss_curve.png": (curves, "loss_curve"), "validation.png": (curves, "validation"),
        "kl_per_step.png": (curves, "kl_per_step"), "samples.png": (bits_pictures, "samples"),
        "reverse_trajectory.gif": (bits_pictures, "reverse_trajectory"),
        "sample_evolution_throughout_training.gif": (bits_pictures, "sample_evolution"),
    }  # fmt: skip

    def fail(*_, **__):
        raise ZeroDivisionError("of a picture\nand more")

    monkeypatch.setattr(*functions[name], fail)
    monkeypatch.setattr(conclude, "EVALUATIONS", 1 << 7)
    sets = "model.T=8", "training.epochs=1", "training.steps_per_epoch=3", "training.num_val_samples=8"
    done = train(run, *(word for s in sets for word in ("--set", s)))
    assert f"{done.results / name}: not drawn: ZeroDivisionError: of a picture\n" in done.stderr
    assert done.stderr.count("not drawn") == 1 and "bounds" in done.json
    assert done.stdout.splitlines()[-1] == f"pictures   {'  '.join(sorted(PICTURES - {name}))}"


# More than there is memory for
# ----------------------------------------------------------------------------------------------------------------------

TOO_LARGE = {
    "model.hidden=[1000000, 1000000]": "take narrower layers (model.hidden)",
    "training.num_val_samples=1000000000": "training.num_val_samples: 1000000000 rows of 10 bits: ",
    "model.num_sample_steps=1000000": "take a smaller data.batch_size or model.num_sample_steps, or narrower layers",
}


@pytest.mark.parametrize("setting", TOO_LARGE)
@pytest.mark.parametrize("backend", ["auto", "numpy"])
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_settings_that_do_not_fit_into_memory(run, monkeypatch, setting, backend, more):
    """One sentence that names the setting, with what it needs and what there is, before there is a results folder."""
    if "num_sample_steps" in setting:
        backend = "numpy"  # others take the rows of a batch in slices
    monkeypatch.setattr(memory, "total", lambda: 8.0 * 2**30)
    found = invoke("train", run, "--backend", backend, "--set", setting, *more)
    assert found.exit_code == 2 and found.stdout == "" and not (run / "results").exists()
    (line,) = found.stderr.splitlines()
    assert TOO_LARGE[setting] in line and " GiB of memory needed, 8 GiB there; take " in line, line


@pytest.mark.parametrize(
    "words, expected",
    [
        (["sample", "-n", 10**18], "1000000000000000000 rows of 10 bits: "),
        (["sample", "-n", 10**400], " rows of 10 bits: over 1e+289 GiB of memory needed, "),
        (["validate", "-n", 10**18], "1000000000000000000 rows of 10 bits: "),
        (["evaluate", "--evaluations", 10**18], "1000000000000000000 evaluations: "),
        (["evaluate", "--steps", 10**30], "--steps 1" + "0" * 30 + ": the model has 20 steps, choose 1 to 20"),
    ],
)
def test_numbers_that_do_not_fit_into_memory(trained, words, expected):
    """sample, validate and evaluate say so before they begin."""
    found = invoke(words[0], trained.run, *words[1:], "--backend", "numpy")
    assert found.exit_code == 2 and found.stdout == "" and expected in found.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "words, expected",
    [
        (["heartbeat", "--length", 10**12], "heartbeat: length is 1000000000000; it must be a whole number, from 1 to"),
        (["heartbeat", "--length", 10**7, "--period", 4 * 10**6], "4000000 rows of length 10000000: "),
        (["heartbeat", "--period", 10**18], "heartbeat: the period 1000000000000000000 is longer than a row"),
        (["repeating", "--length", 10**7, "--block", 10**7, "--rows", 10**6], "1000000 rows of length 10000000: "),
        (["multiples", "--k", 10**30], "multiples: k is 1" + "0" * 30),
        (["multiples", "--rows", 10**18], "multiples: num_rows is 1000000000000000000; it must be a whole number"),
    ],
)
def test_example_data_that_does_not_fit(tmp_path, words, expected):
    """A sentence, and no folder."""
    found = invoke("data", *words, "--out", tmp_path / "run")
    assert found.exit_code == 2 and expected in found.stderr and not (tmp_path / "run").exists(), found.stderr


def test_memory_of_a_container(tmp_path, monkeypatch):
    """A container's limit counts where it is less than the machine has; the word max is no limit."""
    (tmp_path / "limit").write_text("1073741824\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(memory, "LIMITS", (tmp_path / "limit", tmp_path / "none", tmp_path / "missing"))
    assert memory.total.__wrapped__() == 2**30
    monkeypatch.setattr(memory, "LIMITS", ())
    assert memory.total.__wrapped__() > 2**30


# How exact a bound is
# ----------------------------------------------------------------------------------------------------------------------


def test_evaluate_stops_at_a_tolerance(trained):
    """By default at 0.02 bits; with --tolerance at that; the evaluations and, on stderr, the seconds are said."""
    for words, most in (([], 0.02), (["--tolerance", 0.05], 0.05)):
        found = json.loads(good("evaluate", trained.run, *words, "--json").stdout)
        assert 0 < found["standard_error_bits"] <= most and found["evaluations"] >= 3 << 16
    shown = good("evaluate", trained.run, "--tolerance", 0.05)
    found = json.loads(good("evaluate", trained.run, *words, "--backend", "numpy", "--json").stdout)
    assert re.search(rf"^evaluated {found['evaluations']} steps of the chain in [0-9.]+ s$", shown.stderr, re.M)
    exact = evaluate.bound(Model.load(trained.run), data.Bits.read(trained.run / "val.txt"), tolerance=0.05)
    assert found["bits_per_sequence"] == exact.bits_per_sequence


def test_evaluate_says_where_a_tolerance_is_not_reached(trained, monkeypatch):
    """A sentence on stderr, the result on stdout, exit code 0: it is a result."""
    monkeypatch.setattr(evaluate, "MOST", 1 << 16)
    found = good("evaluate", trained.run, "--tolerance", 1e-6)
    assert found.stdout.startswith("bound ")
    assert re.search(
        r"^the standard error is 0\.\d{4} bits after 65536 evaluations, the most that are made for a tolerance, here "
        r"0\.0000 bits; ask for more with --evaluations, or take a larger --tolerance$",
        found.stderr,
        re.M,
    )


def test_evaluate_takes_one_of_the_two(trained):
    found = invoke("evaluate", trained.run, "--tolerance", 0.1, "--evaluations", 100)
    assert found.exit_code == 2 and "give one of them" in found.stderr and found.stdout == ""
    assert invoke("evaluate", trained.run, "--tolerance", 0).exit_code == 2


# Rows of which something is known
# ----------------------------------------------------------------------------------------------------------------------


def test_known_rows_are_the_free_ones_that_agree(trained, tmp_path):
    """--known draws by rejection: the first of the free rows that agree; blanks and commas count nothing; --out too."""
    free = good("sample", trained.run, "-n", 3000).stdout.splitlines()
    expected = [row for row in free if row[1] == "1" and row[2] == "0"][:5]
    found = good("sample", trained.run, "-n", 5, "--known", "?10???????")
    assert found.stdout.splitlines() == expected
    model, known = Model.load(trained.run), np.array([-1, 1, 0, *[-1] * 7])
    assert found.stdout == data.Bits.text(model.sample(5, seed=0, known=known, method="rejection"))
    assert good("sample", trained.run, "-n", 5, "--known", "?,1,0, ??? ????").stdout == found.stdout
    assert good("sample", trained.run, "-n", 5, "--known", "?10???????", "--method", "rejection").stdout == found.stdout
    good("sample", trained.run, "-n", 5, "--known", "?10???????", "--out", tmp_path / "rows.txt")
    assert (tmp_path / "rows.txt").read_text() == found.stdout


def test_known_rows_by_clamping(trained):
    """As in Python, with one line that says what it is and no other warning."""
    found = good("sample", trained.run, "-n", 5, "--known", "?10???????", "--method", "clamp")
    with pytest.warns(UserWarning):
        rows = Model.load(trained.run).sample(5, seed=0, known=np.array([-1, 1, 0, *[-1] * 7]))
    assert found.stdout == data.Bits.text(rows)
    assert found.stderr.count("heuristic") == 1 and "Warning" not in found.stderr


@pytest.mark.parametrize(
    "words, says",
    [
        (["--known", "01"], "--known: is of 2 bits, the rows have 10; give 0, 1 or ? for each bit"),
        (["--known", "01x???????"], "--known: character 3 is 'x'; give 0, 1 or ? for each bit"),
        (["--known", ""], "--known: is of 0 bits, the rows have 10"),
        (["--method", "clamp"], "--method is for rows of which something is known; give --known"),
        (["--limit", 5], "--limit is for rows of which something is known; give --known"),
        (["--known", "?" * 10, "--method", "clamp", "--limit", 5], "--limit is for --method rejection"),
        (["--known", "1111111111", "--limit", 200], "0 of 10 rows that agree with what is known were found in 200 dra"),
    ],
)
def test_faults_of_what_is_known(trained, tmp_path, words, says):
    """A sentence, exit code 2, and no file."""
    found = invoke("sample", trained.run, *words, "--out", tmp_path / "rows.txt")
    assert found.exit_code == 2 and says in found.stderr.splitlines()[-1] and not list(tmp_path.iterdir())


# Help
# ----------------------------------------------------------------------------------------------------------------------


def commands(command: click.Command = main, words: tuple[str, ...] = ()):
    """Every command and group with the words that call it."""
    yield words, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*words, name))


def examples(text: str) -> list[list[str]]:
    """The words after `python cli.py` of every line of a text that is such a command line, up to a redirection, # or
    two blanks."""
    found = re.findall(r"^\W*python3? cli\.py ((?:\S| (?! ))+)", text, re.MULTILINE)
    return [
        list(
            itertools.takewhile(lambda word: word not in {">", ">>", "<", "|", "&&"}, shlex.split(line, comments=True))
        )
        for line in found
    ]


@pytest.fixture
def parse(monkeypatch):
    """Parses words as a command line and runs nothing; returns the result. Values are held against the options'
    types."""

    def nothing(**_):
        click.echo("parsed")

    for _, command in commands():
        if not isinstance(command, click.Group):
            monkeypatch.setattr(command, "callback", nothing)
    return lambda words: invoke(*words)


def test_the_parser_of_examples_is_strict(parse):
    """It takes right lines and refuses a misspelt command, a misspelt option, a missing argument and a value out of
    range."""
    assert examples(
        "x\n    python cli.py train runs/a --seed 1    remark\n$ python cli.py sample -n 5 > x  # few\n"
    ) == [
        ["train", "runs/a", "--seed", "1"],
        ["sample", "-n", "5"],
    ]
    assert parse(["data", "heartbeat", "--length", "3", "--out", "x"]).stdout == "parsed\n"
    for wrong in ("trian x", "train x --stes 1", "train", "sample -n -1", "evaluate --evaluations 0", "data primes"):
        assert parse(wrong.split()).exit_code == 2, wrong


@pytest.mark.parametrize("words", [words for words, _ in commands()], ids=lambda words: " ".join(words) or "main")
def test_help_shows_an_example_that_parses(words, parse):
    """-h is --help; it says how the command is called and shows at least one whole command line, which is right."""
    result = good(*words, "--help")
    assert good(*words, "-h").stdout == result.stdout
    assert result.stdout.startswith("Usage: ") and " ".join(words) in result.stdout and result.stderr == ""
    shown = examples(result.stdout)
    assert shown and any(line[: len(words)] == list(words) for line in shown)
    for line in shown:
        assert parse(line).stdout == "parsed\n", line


def test_version():
    assert good("--version").stdout == f"bdiff_np, version {__version__}\n"


# A whole run
# ----------------------------------------------------------------------------------------------------------------------


def test_results_folder_holds_exactly_this(trained):
    """Configuration, network, a checkpoint for each due epoch (every second, and the last), metrics, results, pictures;
    no temporary."""
    assert {p.name for p in trained.results.iterdir()} == PICTURES | {
        "config.yaml",
        "config_given.yaml",
        "reverse_model.py",
        "checkpoints",
        "metrics.csv",
        "results.json",
    }
    assert {p.name for p in (trained.results / "checkpoints").iterdir()} == {
        "model_epoch_2.safetensors",
        "model_epoch_3.safetensors",
    }


def test_results_folder_is_named_by_the_time(trained):
    """d_MM_DD_YYYY_t_HH_MM_SS, local time: that of the first file in it."""
    then = datetime.strptime(trained.results.name, "d_%m_%d_%Y_t_%H_%M_%S")
    assert 0 <= (datetime.fromtimestamp((trained.results / "config.yaml").stat().st_mtime) - then).total_seconds() < 60


def test_two_trainings_in_one_second_have_two_folders(tmp_path):
    """The second gets a number, and counts as the newer."""
    now = datetime(2031, 2, 3, 4, 5, 6)
    first, second, third = (rundir.new_results(tmp_path, now) for _ in range(3))
    assert [p.name for p in (first, second, third)] == [f"d_02_03_2031_t_04_05_06{end}" for end in ("", "_2", "_3")]
    assert rundir.all_results(tmp_path) == [first, second, third]
    assert all((p / "checkpoints").is_dir() for p in (first, second, third))


def test_stored_config_is_the_resolved_one(trained):
    """It loads back equal to config.yaml with the options applied, and to what the checkpoint holds."""
    sets = [f"{key}={value}" for key, value in TINY.items()]
    settings = config.load(trained.run / "config.yaml", sets)
    assert settings.model.T == 20 and settings.data.rule.period == 5  # options and file both count
    assert config.load(trained.results / "config.yaml") == settings
    assert (trained.results / "config.yaml").read_text() == config.dump(settings)
    assert config.validate(checkpoint.read(trained.checkpoint(3))[1]["config"]) == settings


def test_stored_network_is_the_built_in_one(trained):
    """reverse_model.py names the network, and as a module gives it."""
    scope: dict = {}
    exec((trained.results / "reverse_model.py").read_text(), scope)
    from bdiff_np.nets import mlp

    assert scope["NET"] is mlp.NET and "mlp.py" in scope["__doc__"]


def test_metrics(trained):
    """One line per epoch, all numbers, the columns in their order, and the same figures as in results.json."""
    with open(trained.results / "metrics.csv", newline="") as file:
        header, *lines = list(csv.reader(file))
    assert header == COLUMNS
    table = {name: [float(line[i]) for line in lines] for i, name in enumerate(header)}
    found = trained.json
    assert table["epoch"] == [1, 2, 3] and table["step"] == [60, 120, 180]
    assert table["loss_bits"] == found["losses"] and table["val_bound_bits"] == found["val_bounds"]
    assert {name: table[name] for name in found["proportions"]} == found["proportions"]
    assert 0 < table["seconds"][0] <= table["seconds"][1] <= table["seconds"][2] == found["training_seconds"]
    # cosine from 1e-2 to 0 over 180 steps with 10 of warm-up; the value of an epoch is that of its last step
    assert (
        table["learning_rate"][0] > table["learning_rate"][1] > table["learning_rate"][2] >= 0
        and table["learning_rate"][0] < 1e-2
    )
    assert all(norm > 0 for norm in table["gradient_norm"])


def test_results_json_has_the_keys_of_the_reference(trained):
    """losses, examples_per_epoch and proportions have one entry an epoch; proportions sum to 1; the loss falls from
    about 10 bits."""
    found = trained.json
    assert set(found) == {
        "losses", "examples_per_epoch", "proportions", "val_bounds", "chosen_epoch", "training_seconds",
        "wall_seconds", "backends", "bounds", "samples", "version",
    }  # fmt: skip
    assert set(found["proportions"]) == {"train", "val", "other", "valid_unseen"} and set(found["bounds"]) == {
        "train",
        "val",
    }
    assert found["chosen_epoch"] is None and found["version"] == __version__
    for history in (found["losses"], found["examples_per_epoch"], found["val_bounds"], *found["proportions"].values()):
        assert len(history) == 3
    for train_share, val_share, other in zip(*(found["proportions"][name] for name in ("train", "val", "other"))):
        assert train_share + val_share + other == pytest.approx(1, abs=1e-12)
    assert 10.5 > found["losses"][0] > found["losses"][2] > 2.0
    assert np.shape(found["examples_per_epoch"]) == (3, 6, 10)


def test_losses_are_means_of_the_steps_of_their_epoch(trained):
    """In bits per sequence, each epoch on its own; and a second training gives the same numbers to the last bit."""
    steps = opening.prepare(trained.run, config.load(trained.results / "config.yaml"), backend="numpy").training
    nats = [[steps.step() for _ in range(60)] for _ in range(3)]
    np.testing.assert_allclose(trained.json["losses"], np.mean(nats, axis=1) / math.log(2), rtol=1e-12)
    saved, _ = checkpoint.read(trained.checkpoint(3))
    for name, array in steps.tensors().items():
        np.testing.assert_array_equal(array, saved[name], err_msg=name)


@pytest.mark.parametrize("epoch", [2, 3])
def test_examples_share_their_noise_over_the_epochs(trained, epoch):
    """The examples of an epoch are what its checkpoint draws with the run's seed, whatever the epoch: the same x_T, the
    same noise."""
    model = Model.load(trained.checkpoint(epoch))
    np.testing.assert_array_equal(trained.json["examples_per_epoch"][epoch - 1], sample.draw(model, 6, seed=5, steps=7))


@pytest.mark.parametrize("epoch", [2, 3])
def test_proportions_are_counts_of_samples(trained, epoch):
    """They are the shares of 64 samples of that epoch's weights, counted here by hand."""
    rows = data.Bits.text(sample.draw(Model.load(trained.checkpoint(epoch)), 64, seed=6, steps=7)).split()
    train_rows, val_rows = ((trained.run / f"{split}.txt").read_text().split() for split in ("train", "val"))
    found = {name: share[epoch - 1] for name, share in trained.json["proportions"].items()}
    in_train, in_val = sum(row in train_rows for row in rows), sum(row in val_rows for row in rows)
    assert found == {
        "train": in_train / 64,
        "val": in_val / 64,
        "other": (64 - in_train - in_val) / 64,
        "valid_unseen": 0.0,
    }


def test_pictures_decode(trained):
    """Six pictures with ink on them; the animations have a frame for each epoch, and for each time of the chain of 20
    steps."""
    frames = {}
    for name in PICTURES:
        with Image.open(trained.results / name) as picture:
            assert picture.format == ("GIF" if name.endswith(".gif") else "PNG")
            frames[name] = getattr(picture, "n_frames", 1)
            for k in range(frames[name]):
                picture.seek(k)
                shades = picture.convert("L").getextrema()
                assert shades[0] < 100 < shades[1], (name, k)
    assert frames.pop("sample_evolution_throughout_training.gif") == 3 and frames.pop("reverse_trajectory.gif") == 21
    assert set(frames.values()) == {1}


def test_training_prints_samples_bounds_and_pictures(trained):
    """stdout begins with num_examples rows of the chosen model, first to last, and ends with where everything is;
    stderr tells the plan."""
    rows = sample.draw(Model.load(trained.run), 64, seed=6)
    lines = trained.stdout.splitlines()
    assert lines[:6] == data.Bits.text(rows[:6]).split() and lines[6] == ""
    assert lines[7] == f"6 samples; share of ones {rows[:6].mean():.4f}, in train 0.2000"
    assert f"results    {trained.results}" in lines and lines[-1] == f"pictures   {'  '.join(sorted(PICTURES))}"
    b = trained.json["bounds"]
    assert (
        f"{b['train']['bits_per_sequence']:.4f} +- " in trained.stdout
        and f"{b['val']['bits_per_sequence']:.4f} +- " in trained.stdout
    )
    for said in (
        "4 rows of 10 bits, 1 held out; T = 20",
        "3 epochs of 60 steps, 4 rows x 16 timesteps each",
        "finished after 3 epochs, 180 steps",
    ):
        assert said in trained.stderr


@pytest.mark.parametrize("split", ["train", "val"])
def test_bounds_in_results_are_those_of_evaluate(trained, split):
    """`evaluate` with as many evaluations gives the very numbers of results.json, but for the floor, which is of the
    rows in view."""
    shown = json.loads(
        good(
            "evaluate", trained.run, "--split", split, "--evaluations", conclude.EVALUATIONS, "--backend",
            "numpy", "--json",
        ).stdout
    )  # fmt: skip
    assert {key: shown[key] for key in trained.json["bounds"][split]} == trained.json["bounds"][split]


def test_samples_in_results_are_those_of_validate(trained):
    """results.json's `samples` is what `validate` counts with the same seed and number."""
    shown = json.loads(good("validate", trained.run, "-n", 64, "--seed", 6, "--json").stdout)
    del shown["checkpoint"]
    assert shown == trained.json["samples"]


def test_seed_option_is_the_setting(run):
    """--seed 7 is --set training.seed=7, and wins over one."""
    for words in (["--seed", 7], ["--set", "training.seed=7"], ["--set", "training.seed=3", "--seed", 7]):
        assert "  seed: 7\n" in good("train", run, "--dry-run", *words).stdout


def test_dry_run_prints_the_resolved_config_and_makes_nothing(trained, tmp_path):
    """What it prints loads back equal to the file with the options applied."""
    before = tree(trained.run)
    sets = ["model.hidden=[8, 8]", "training.lr=1e-4", "training.clip_thresh=null"]
    result = good("train", trained.run, "--dry-run", *(word for s in sets for word in ("--set", s)))
    assert tree(trained.run) == before
    (tmp_path / "c.yaml").write_text(result.stdout)
    settings = config.load(tmp_path / "c.yaml")
    assert settings == config.load(trained.run / "config.yaml", sets)
    assert settings.model.hidden == (8, 8) and settings.training.lr == 1e-4 and settings.training.clip_thresh is None
    assert "4 rows of 10 bits, 1 held out" in result.stderr and "results:" not in result.stderr


def test_a_folder_with_only_a_train_file_trains(plain):
    """No val.txt: no validation bound, nothing held out, no floor; all pictures and a finished results.json all the
    same."""
    assert {p.name for p in plain.results.iterdir() if p.suffix in (".png", ".gif")} == PICTURES
    assert config.load(plain.results / "config.yaml").model.pi == 0.5  # defaults
    found = plain.json
    assert (
        found["val_bounds"] == [None]
        and set(found["bounds"]) == {"train"}
        and set(found["proportions"]) == {"train", "val", "other"}
    )
    assert (
        found["proportions"]["val"] == [0.0] and found["samples"]["val_rows"] == 0 and "valid" not in found["samples"]
    )
    assert (
        found["bounds"]["train"]["floor_bits"] is None
        and "floor" not in plain.stdout
        and "held-out" not in plain.stdout
    )
    assert "held out" not in plain.stderr


REFERENCE = """\
model:
  T: 9
  num_sample_steps: 4
training:
  epochs: 2
  lr: .0003
  save_every_n_epochs: 10
  num_examples: 3
  num_val_samples: 16
  val_batch_size: 7
  clip_thresh: 1.0
data:
  batch_size: 3
"""


def test_a_config_of_the_reference_trains_unchanged(run):
    """An epoch is ceil(rows / batch_size) x ceil(T / num_sample_steps) steps; the last epoch is saved, due or not."""
    (run / "config.yaml").write_text(REFERENCE)
    done = train(run)
    assert [p.name for p in (done.results / "checkpoints").iterdir()] == ["model_epoch_2.safetensors"]
    with open(done.results / "metrics.csv", newline="") as file:
        assert [int(line["step"]) for line in csv.DictReader(file)] == [2 * 3, 2 * 2 * 3]
    assert np.shape(done.json["examples_per_epoch"]) == (2, 3, 10) and done.json["samples"]["n"] == 16


def test_num_sample_steps_is_timesteps_per_example(run):
    """A step puts batch_size x num_sample_steps rows through the network: each row of the batch at num_sample_steps of
    the T steps."""
    (run / "config.yaml").write_text(REFERENCE)
    job = opening.prepare(run, config.load(run / "config.yaml"), backend="numpy")
    net, seen = job.training.model.net, []
    inner = net.forward
    net.forward = lambda ops, params, x_t, t, key=None: (
        seen.append((len(x_t), len(t))) or inner(ops, params, x_t, t, key)
    )
    job.training.step()
    assert seen == [(3 * 4, 3 * 4)]
    x0, _ = job.training.batch(1)
    assert sorted(Counter(row.tobytes() for row in x0).values()) == [4, 4, 4]


# sample
# ----------------------------------------------------------------------------------------------------------------------


def test_sample_prints_rows_and_nothing_else(trained):
    """n lines of D digits on stdout, drawn from the newest checkpoint, which stderr names; the same seed gives the same
    lines."""
    result = good("sample", trained.run, "-n", 5, "--seed", 3)
    assert re.fullmatch(r"([01]{10}\n){5}", result.stdout)
    np.testing.assert_array_equal(bits(result.stdout), sample.draw(Model.load(trained.checkpoint(3)), 5, seed=3))
    assert result.stderr == f"using {trained.checkpoint(3)}\n"
    assert good("sample", trained.run, "-n", 5, "--seed", 3).stdout == result.stdout
    assert good("sample", trained.run, "-n", 5, "--seed", 4).stdout != result.stdout
    assert good("sample", trained.run, "-n", 3, "--seed", 3).stdout.splitlines() == result.stdout.splitlines()[:3]


def test_sample_takes_ten_rows_of_seed_0_if_not_told(trained):
    assert good("sample", trained.run).stdout == good("sample", trained.run, "-n", 10, "--seed", 0).stdout
    assert good("sample", trained.run).stdout.count("\n") == 10
    assert good("sample", trained.run, "-n", 0).stdout == ""


def test_sample_from_each_kind_of_target(trained):
    """Run folder, results folder and newest checkpoint give the same rows, another one others; a named checkpoint is
    not announced."""
    by_run = good("sample", trained.run, "-n", 20)
    by_results, by_file = good("sample", trained.results, "-n", 20), good("sample", trained.checkpoint(3), "-n", 20)
    assert (
        by_run.stdout == by_results.stdout == by_file.stdout != good("sample", trained.checkpoint(2), "-n", 20).stdout
    )
    assert by_results.stderr == by_run.stderr and by_file.stderr == ""


def test_sample_without_a_target_takes_the_newest_under_runs(trained, monkeypatch):
    monkeypatch.chdir(trained.run.parent.parent)
    (trained.run.parent.parent / "runs").exists() or os.symlink(trained.run.parent, "runs")
    result = good("sample", "-n", 4)
    assert result.stdout == good("sample", trained.run, "-n", 4).stdout
    assert result.stderr == f"using {Path('runs', *trained.checkpoint(3).parts[-5:])}\n"


def test_sample_takes_fewer_steps(trained):
    """--steps K walks K of the T steps; K = T is the whole chain."""
    model = Model.load(trained.run)
    few = bits(good("sample", trained.run, "-n", 40, "--steps", 4).stdout)
    np.testing.assert_array_equal(few, sample.draw(model, 40, steps=4))
    every = bits(good("sample", trained.run, "-n", 40).stdout)
    assert (few != every).any()
    np.testing.assert_array_equal(bits(good("sample", trained.run, "-n", 40, "--steps", 20).stdout), every)


@pytest.mark.parametrize("ending", [".txt", ".csv", ".npy", ".txt.gz", ".csv.gz", ".data", ""])
def test_sample_writes_a_file(trained, tmp_path, ending):
    """--out holds the rows that stdout would have had, in the format of its name, and stdout is empty."""
    path = tmp_path / f"rows{ending}"
    result = good("sample", trained.run, "-n", 6, "--seed", 2, "--out", path)
    assert result.stdout == "" and [p.name for p in tmp_path.iterdir()] == [path.name]
    shown = good("sample", trained.run, "-n", 6, "--seed", 2).stdout
    if ending == ".npy":
        array = np.load(path)
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array, bits(shown))
    else:
        text = (gzip.decompress(path.read_bytes()) if ending.endswith(".gz") else path.read_bytes()).decode()
        assert text == ("".join(",".join(line) + "\n" for line in shown.splitlines()) if ".csv" in ending else shown)


# evaluate
# ----------------------------------------------------------------------------------------------------------------------


def evaluated(*arguments, evaluations=1 << 14) -> dict:
    return json.loads(good("evaluate", *arguments, "--json", "--evaluations", evaluations).stdout)


def test_evaluate_json(trained):
    """The keys that are promised; nats are bits times log 2; with pi = 1/2 independent bits cost exactly D; the floor
    is the known one."""
    found = evaluated(trained.run)
    assert set(found) == {
        "bits_per_sequence", "nats_per_sequence", "standard_error_bits", "k_minus_null_bits", "n_sequences",
        "floor_bits", "floor_standard_error_bits", "bound", "steps", "evaluations", "process", "data", "checkpoint",
    }  # fmt: skip
    assert found["nats_per_sequence"] == pytest.approx(found["bits_per_sequence"] * math.log(2), rel=1e-14)
    assert found["k_minus_null_bits"] == pytest.approx(10 - found["bits_per_sequence"], rel=1e-12)
    assert (
        found["n_sequences"] == 1
        and found["data"] == "val rows"
        and found["bound"] == "learned"
        and found["steps"] == 20
    )
    assert found["checkpoint"] == str(trained.checkpoint(3)) and 0 < found["standard_error_bits"] < 0.3
    # docs/derivation.md, section 10: exact enumeration for these five rows
    assert (
        abs(found["floor_bits"] - 2.5740) < 4 * found["floor_standard_error_bits"] + 5e-5
        and found["floor_standard_error_bits"] < 0.02
    )


def test_evaluate_of_test_rows(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.run, run)
    assert "has no test.txt to evaluate" in refused(run, "evaluate", run, "--split", "test")
    (run / "test.txt").write_bytes((run / "train.txt").read_bytes())
    train_rows, test_rows = (evaluated(run, "--split", split, evaluations=1 << 8) for split in ("train", "test"))
    assert test_rows["data"] == "test rows" and test_rows["n_sequences"] == 4
    assert test_rows["bits_per_sequence"] == train_rows["bits_per_sequence"]


def test_evaluate_of_each_split(trained):
    """train has 4 rows, val 1, all 5; the bound of all is the mean over the rows; without a word it is val."""
    found = {split: evaluated(trained.run, "--split", split, evaluations=1 << 17) for split in ("train", "val", "all")}
    assert {split: f["n_sequences"] for split, f in found.items()} == {"train": 4, "val": 1, "all": 5}
    assert {split: f["data"] for split, f in found.items()} == {
        "train": "train rows",
        "val": "val rows",
        "all": "train and val rows",
    }
    mean = (4 * found["train"]["bits_per_sequence"] + found["val"]["bits_per_sequence"]) / 5
    error = math.hypot(*(f["standard_error_bits"] for f in found.values()))
    assert abs(found["all"]["bits_per_sequence"] - mean) < 5 * error < 1
    # the held-out row was never seen
    assert found["val"]["bits_per_sequence"] > found["train"]["bits_per_sequence"] + 1
    assert evaluated(trained.run, evaluations=1 << 17) == found["val"]


def test_evaluate_a_file(trained, tmp_path):
    """--data FILE takes any rows of the right length; those of val.txt cost what --split val says."""
    (tmp_path / "mine.csv").write_text("0,0,0,1,0,0,0,0,1,0\n")
    found, val = evaluated(trained.run, "--data", tmp_path / "mine.csv"), evaluated(trained.run, "--split", "val")
    assert found.pop("data") == f"rows of {tmp_path / 'mine.csv'}" and val.pop("data") == "val rows"
    assert found == val


def test_evaluate_a_file_with_a_checkpoint_from_anywhere(trained, tmp_path):
    """With --data no run folder is needed. Its other rows are then not known, and so neither is the floor."""
    shutil.copy(trained.checkpoint(3), tmp_path / "model.safetensors")
    found = evaluated(tmp_path / "model.safetensors", "--data", trained.run / "val.txt")
    assert found["bits_per_sequence"] == evaluated(trained.run)["bits_per_sequence"]
    assert found["floor_bits"] is None


@pytest.mark.parametrize("steps", [None, 5])
def test_evaluate_the_papers_bound(trained, steps):
    """--bound paper is the paper's: at t = 1 the forward kernel in place of the network, D h(beta_1 / 2) bits for pi =
    1/2."""
    words = ["--steps", steps] if steps else []
    found, learned = evaluated(trained.run, "--bound", "paper", *words), evaluated(trained.run, *words)
    assert (
        found["bound"] == "paper"
        and learned["bound"] == "learned"
        and found["steps"] == learned["steps"] == (steps or 20)
    )
    model, rows = Model.load(trained.run), data.Bits.read(trained.run / "val.txt")
    expected = evaluate.bound(model, rows, kind="paper", steps=steps, evaluations=1 << 14)
    assert found["bits_per_sequence"] == expected.bits_per_sequence != learned["bits_per_sequence"]
    # The oracle's last step against the fixed one, D h(1/40) = 1.6866 bits for T = 20: the paper's floor lies higher by
    # the difference.
    f = 1 / (2 * found["steps"])
    fixed = -10 * (f * math.log2(f) + (1 - f) * math.log2(1 - f))
    assert learned["floor_bits"] < found["floor_bits"] < learned["floor_bits"] + fixed


def test_evaluate_without_a_rule_knows_no_floor(plain):
    """floor_bits is null, and the words do not speak of one; the rows are train's where nothing is held out."""
    found = evaluated(plain.run)
    assert found["floor_bits"] is None and found["floor_standard_error_bits"] is None and found["data"] == "train rows"
    assert evaluated(plain.run, "--split", "all")["n_sequences"] == 3
    shown = good("evaluate", plain.run, "--evaluations", 4000).stdout
    assert "bound " in shown and "K - L_null" in shown and "floor" not in shown


def test_evaluate_in_words_says_the_numbers_of_json(trained):
    found, shown = evaluated(trained.run), good("evaluate", trained.run, "--evaluations", 1 << 14).stdout
    first, second, third = shown.splitlines()
    assert first == (
        f"bound      {found['bits_per_sequence']:.4f} +- {found['standard_error_bits']:.4f} bits/sequence "
        f"({found['nats_per_sequence']:.4f} nats), 1 val rows, T = 20, last step learned"
    )
    assert second.startswith(f"floor      {found['floor_bits']:.4f} +- {found['floor_standard_error_bits']:.4f} bits")
    assert third.startswith(f"K - L_null {found['k_minus_null_bits']:.4f} bits")


def test_evaluate_looks_closer_with_more_evaluations_and_another_way_with_another_seed(trained):
    """16 times the evaluations leave a quarter of the standard error, roughly; a seed changes the estimate, within its
    error."""
    one, many, other = (
        json.loads(
            good("evaluate", trained.run, "--split", "train", "--json", "--evaluations", n, "--seed", seed).stdout
        )
        for n, seed in ((1 << 13, 0), (1 << 17, 0), (1 << 17, 1))
    )
    assert 2.5 < one["standard_error_bits"] / many["standard_error_bits"] < 6.4
    difference = abs(many["bits_per_sequence"] - other["bits_per_sequence"])
    assert 0 < difference < 5 * math.hypot(many["standard_error_bits"], other["standard_error_bits"])


# validate
# ----------------------------------------------------------------------------------------------------------------------


def test_validate_counts_the_samples(trained):
    """Its counts are those of `sample` with the same seed, taken here line by line."""
    lines = good("sample", trained.run, "-n", 300, "--seed", 3).stdout.split()
    train_rows, val_rows = (set((trained.run / f"{split}.txt").read_text().split()) for split in ("train", "val"))
    valid = {"".join("1" if i % 5 == phase else "0" for i in range(10)) for phase in range(5)}
    share = lambda rows: sum(line in rows for line in lines) / 300  # noqa: E731
    found = json.loads(good("validate", trained.run, "-n", 300, "--seed", 3, "--json").stdout)
    assert found == {
        "n": 300, "distinct": len(set(lines)), "train": share(train_rows), "val": share(val_rows),
        "other": pytest.approx(1 - share(valid)), "train_found": len(train_rows & set(lines)), "train_rows": 4,
        "val_found": len(val_rows & set(lines)), "val_rows": 1, "valid": share(valid), "valid_unseen": 0.0,
        "valid_found": len(valid & set(lines)), "valid_rows": 5, "checkpoint": str(trained.checkpoint(3)),
    }  # fmt: skip
    assert 0.05 < found["train"] < 1 and found["distinct"] > 5  # else there was nothing to count


def test_validate_in_words(trained, plain):
    found = json.loads(good("validate", trained.run, "-n", 200, "--steps", 4, "--json").stdout)
    shown = good("validate", trained.run, "-n", 200, "--steps", 4).stdout
    assert f"200: {found['train']:.2%} training rows ({found['train_found']} of 4 different ones)" in shown
    assert f"{found['val']:.2%} held-out rows ({found['val_found']} of 1)" in shown
    assert f"{1 - found['valid']:.2%} invalid; {found['valid_found']} of 5 valid rows drawn" in shown
    shown = good("validate", plain.run, "-n", 50).stdout
    assert "held-out" not in shown and "invalid" not in shown and "% others" in shown


# data, check-net
# ----------------------------------------------------------------------------------------------------------------------


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_data_heartbeat(tmp_path):
    """--hold-out names the phases of val.txt, counted from 1; the rest is train.txt, in order."""
    result = good("data", "heartbeat", "--length", 7, "--period", 3, "--hold-out", 2, "--out", tmp_path / "a" / "b")
    folder = tmp_path / "a" / "b"
    assert lines_of(folder / "train.txt") == ["1001001", "0010010"] and lines_of(folder / "val.txt") == ["0100100"]
    assert {p.name for p in folder.iterdir()} == {"train.txt", "val.txt", "config.yaml"}
    rule = config.load(folder / "config.yaml").data.rule
    assert (rule.name, rule.period) == ("heartbeat", 3)
    assert (
        result.stdout
        == f"{folder}: 2 rows in train.txt, 1 in val.txt, settings in config.yaml\ntrain it:  python cli.py train "
        f"{folder}\n"
    )


@pytest.mark.parametrize(
    "words, valid",
    [
        (["heartbeat", "--length", 9, "--period", 9, "--val-fraction", 0.3], lambda row: row.count("1") == 1),
        (["repeating", "--length", 12, "--block", 6, "--val-fraction", 0.25], lambda row: row[:6] == row[6:]),
        (["multiples", "--length", 9, "--k", 7, "--val-fraction", 0.1], lambda row: int(row, 2) % 7 == 0),
    ],
    ids=["heartbeat", "repeating", "multiples"],
)
def test_data_splits_all_valid_rows(tmp_path, words, valid):
    """train.txt and val.txt share no row and hold every valid row; val has its fraction; a seed fixes the files,
    another changes them."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        good("data", *words, "--seed", seed, "--out", tmp_path / name)
    train_rows, val_rows = lines_of(tmp_path / "a" / "train.txt"), lines_of(tmp_path / "a" / "val.txt")
    D, fraction = words[2], words[-1]
    every = [f"{i:0{D}b}" for i in range(2**D)]
    assert sorted(train_rows + val_rows) == [row for row in every if valid(row)]
    assert len(val_rows) == round(fraction * (len(train_rows) + len(val_rows))) > 0
    for split in ("train.txt", "val.txt"):
        same, other = (tmp_path / name / split for name in "bc")
        assert lines_of(same) == lines_of(tmp_path / "a" / split) != lines_of(other)
    assert "rows of" in good("train", tmp_path / "a", "--dry-run").stderr  # what it made is ready to train


def test_data_draws_a_part(tmp_path):
    """--rows N: N different valid rows of a set too large to list; --val-fraction 0 holds none out."""
    good("data", "repeating", "--length", 120, "--block", 60, "--rows", 50, "--val-fraction", 0, "--out", tmp_path)
    rows = lines_of(tmp_path / "train.txt")
    assert len(set(rows)) == len(rows) == 50 and all(row[:60] == row[60:] for row in rows)
    assert not (tmp_path / "val.txt").exists()


def test_data_does_not_overwrite_unless_told(tmp_path):
    """Either file in the way is enough to refuse; --force replaces the rows, a val.txt that is no longer due goes,
    config.yaml stays."""
    words = ["data", "heartbeat", "--length", 6, "--period", 3, "--out", tmp_path]
    (tmp_path / "val.txt").write_text("mine\n")
    (tmp_path / "config.yaml").write_text("model: {T: 77}\n")
    result = invoke(*words)
    assert (
        result.exit_code == 2
        and f"{tmp_path / 'val.txt'}: is there already" in result.stderr
        and "--force" in result.stderr
    )
    assert lines_of(tmp_path / "val.txt") == ["mine"] and not (tmp_path / "train.txt").exists()
    good(*words, "--hold-out", 1, "--force")
    assert lines_of(tmp_path / "val.txt") == ["100100"] and len(lines_of(tmp_path / "train.txt")) == 2
    assert invoke(*words).exit_code == 2 and len(lines_of(tmp_path / "train.txt")) == 2
    good(*words, "--val-fraction", 0, "--force")
    assert not (tmp_path / "val.txt").exists() and len(lines_of(tmp_path / "train.txt")) == 3
    assert (tmp_path / "config.yaml").read_text() == "model: {T: 77}\n"


def test_check_net_lists_every_parameter(trained):
    """A line for each parameter of the network, all ok, and a sentence; it writes nothing."""
    before = tree(trained.run)
    shown = good("check-net", trained.run).stdout
    job = opening.prepare(trained.run, config.load(trained.run / "config.yaml"), backend="numpy")
    names = list(job.training.model.net.shapes)
    assert [line.split()[0] for line in shown.splitlines()[1:-1]] == names and len(names) > 4
    assert all(line.endswith("  ok") for line in shown.splitlines()[1:-1])
    assert f"all {len(names)} gradients are right" in shown and tree(trained.run) == before


def test_the_page_of_settings_is_what_the_command_prints():
    """docs/settings.md is `settings`, up to date; it has a line for every field of every section, with its default."""
    shown = good("settings").stdout
    assert shown == (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    for section in config.schema().sections.values():
        for name, field in section.model_fields.items():
            (line,) = (line for line in shown.splitlines() if line.startswith(f"| `{name}` |"))
            assert field.description.rstrip(".") in line
    assert (
        "| `hidden` | a list of one to 1000 entries, each a whole number, at least 1 and at most 1048576 | `[100]` |"
        in shown
    )


# In a process of its own
# ----------------------------------------------------------------------------------------------------------------


def process(*arguments, cwd=None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
    )


def test_sample_as_a_process(trained, tmp_path):
    """`python cli.py` works from any folder and gives what the call in this process gives."""
    found = process("sample", trained.run, "-n", 5, "--seed", 3, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (0, good("sample", trained.run, "-n", 5, "--seed", 3).stdout)
    assert found.stderr == f"using {trained.checkpoint(3)}\n"


def test_a_fault_as_a_process(tmp_path):
    """One sentence on stderr, exit code 2, nothing on stdout, no traceback."""
    found = process("train", tmp_path / "nowhere")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == (
        f"{tmp_path / 'nowhere'}: there is no such run folder; make an example: python cli.py data heartbeat "
        f"--length 20 --period 5 --out {tmp_path / 'nowhere'}\n"
    )


# Bad input
# ----------------------------------------------------------------------------------------------------------------------


def refused(folder: Path, *arguments: object) -> str:
    """What a command says that must refuse its input: exit code 2, a message on stderr only, no traceback, and no file
    touched."""
    before = tree(folder)
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), f"{result.stdout}{result.exception!r}"
    assert isinstance(result.exception, SystemExit) and "Traceback" not in result.stderr
    assert tree(folder) == before
    return result.stderr


FAULTY_ROWS = {
    "1000\n10x0\n": "train.txt:2:3: the character 'x' is not a bit",
    "1000\n10000\n": "train.txt:2:5: this row has length 5, but line 1 has length 4",
    "1000\n\n1000\n": "train.txt:2:1: a blank line between rows",
    "": "train.txt:1:1: the file is empty",
}


@pytest.mark.parametrize("text", FAULTY_ROWS)
@pytest.mark.parametrize("command", [["train"], ["train", "--dry-run"], ["check-net"]], ids=" ".join)
def test_faulty_rows(run, command, text):
    (run / "train.txt").write_text(text)
    assert f"{run}/{FAULTY_ROWS[text]}" in refused(run, command[0], run, *command[1:])


def test_no_rows(run):
    """The sentence says what to put there and how to make an example."""
    (run / "train.txt").unlink()
    (run / "val.txt").unlink()  # a single file of rows would be named instead
    said = refused(run, "train", run)
    assert f"{run}: has no train.txt" in said and "python cli.py data heartbeat" in said


def test_rows_in_two_files(run):
    (run / "train.csv").write_text("1,0\n")
    assert "train.txt and train.csv both claim to be the train rows" in refused(run, "train", run)


def test_held_out_rows_of_another_length(run):
    (run / "val.txt").write_text("00010\n")
    said = refused(run, "train", run)
    assert f"{run / 'val.txt'}: rows have 5 bits, those of {run / 'train.txt'} have 10" in said


def test_faulty_held_out_rows(run):
    (run / "val.txt").write_text("00010 00010\n00010 0001\n")
    assert f"{run / 'val.txt'}:2:11: this row has length 9, but line 1 has length 10" in refused(run, "train", run)


def test_all_faults_of_a_config_at_once(run):
    """One line each with its place, in the order of the file, and the options behind."""
    (run / "config.yaml").write_text("model:\n  T: 0\n  shedule: cosine\ntraining:\n  batch_size: 5\n")
    said = refused(run, "train", run, "--set", "training.lr=fast").splitlines()
    assert said == [
        f"{run}/config.yaml:2:6: model.T: must be a whole number, at least 1 and at most 100000 (got 0)",
        f"{run}/config.yaml:3:3: model.shedule: unknown key; did you mean schedule?",
        f"{run}/config.yaml:5:3: training.batch_size: unknown key; it belongs to data",
        '--set training.lr=fast: training.lr: must be a number, above 0 and at most 1e+30 (got "fast")',
    ]


@pytest.mark.parametrize(
    "option, says",
    [
        ("nonsense", "--set nonsense: write --set section.key=value"),
        ("training.lrr=1", "training.lrr: unknown key; did you mean lr?"),
        ("training.lr=[", "--set training.lr=[: training.lr: not a value"),
        ("training=1", "training: is a section"),
    ],
)
def test_faulty_options(run, option, says):
    assert says in refused(run, "train", run, "--dry-run", "--set", option)


@pytest.mark.parametrize("command", ["train", "sample", "evaluate", "validate"])
def test_back_end_that_is_not_there(trained, command):
    """The sentence says which there are."""
    said = refused(trained.run, command, trained.run, "--backend", "cuda")
    assert f"back end 'cuda' is not part of this version; there is: auto, {', '.join(backends.names())}\n" in said


@pytest.mark.parametrize(
    "settings, says",
    [
        (["data.shape=[3, 3]"], "data.shape: 3 x 3 is not 10, the number of bits of a row"),
        (
            ["data.rule.name=repeating", "data.rule.block=4"],
            "repeating: a row of 10 bits is not a whole number of blocks of 4",
        ),
        (
            ["data.rule.name=heartbeat", "data.rule.period=11"],
            "heartbeat: the period 11 is longer than a row of 10 bits",
        ),
        (["model.net=transformer"], "there is no 'transformer' in bdiff_np/nets; there is: mlp"),
        (["model.family=poisson"], "there is no 'poisson' in bdiff_np/diffusion; there is: bernoulli, gaussian"),
    ],
)
@pytest.mark.parametrize("dry", [["--dry-run"], []], ids=["dry", "wet"])
def test_settings_that_do_not_fit_the_rows(run, settings, says, dry):
    assert says in refused(run, "train", run, *dry, *(word for s in settings for word in ("--set", s)))


@pytest.mark.parametrize(
    "settings, blamed",
    [
        (["data.shape=[3, 3]"], 0),
        (["data.shape=[3, 3]", "training.lr=1"], 0),
        (["data.shape=[2, 2]", "data.shape=[3, 3]"], 1),
        (["data.rule={name: heartbeat, period: 11}"], 0),
        (["data.rule.name=heartbeat", "data.rule.period=11"], 1),
        (["model.family=os"], 0),
        (["model.net=os"], 0),
        (["training.num_val_samples=1000000000"], 0),
        (["training.patience=3"], 0),
    ],
)
@pytest.mark.parametrize("file", ["", "data:\n  shape: [2, 5]\nmodel:\n  family: bernoulli\n  net: mlp\n", None])
def test_a_fault_of_an_option_is_the_options(run, monkeypatch, settings, blamed, file):
    """Whenever it is found, and whether or not there is a config.yaml that has the setting too, the last option that
    gives it is named."""
    monkeypatch.setattr(memory, "total", lambda: 8.0 * 2**30)
    if file is not None:
        (run / "config.yaml").write_text(file)
    said = refused(run, "train", run, *(word for s in settings for word in ("--set", s))).splitlines()
    assert len(said) == 1 and said[0].startswith(f"--set {settings[blamed]}: {settings[blamed].split('=')[0][:9]}"), (
        said
    )


def test_a_fault_of_the_file_is_the_files(run):
    """Options that give other settings are not blamed for what the file says."""
    (run / "config.yaml").write_text("data:\n  shape: [3, 3]\n")
    said = refused(run, "train", run, "--set", "data.batch_size=2", "--set", "training.seed=1")
    assert said.startswith(f"{run / 'config.yaml'}:2:10: data.shape: 3 x 3 is not 10")


def test_best_needs_held_out_rows(run):
    (run / "val.txt").unlink()
    said = refused(run, "train", run, "--set", "training.select=best")
    assert f"training.select: best needs held-out rows: put a val.txt into {run}, or say select: last" in said


@pytest.mark.parametrize("command", [["sample"], ["evaluate"], ["validate"]])
@pytest.mark.parametrize(
    "make, says",
    [
        (lambda path: None, "{}: there is no such checkpoint, results folder or run folder"),
        (lambda path: path.mkdir(), "{0}: holds no checkpoint and no results; train it first: python cli.py train {0}"),
        (lambda path: path.write_text("0101\n"), "{}: damaged, or not a checkpoint"),
        (lambda path: path.write_bytes(b""), "{}: damaged, or not a checkpoint"),
        (
            lambda path: (path / "results" / "d_01_01_2031_t_00_00_00" / "checkpoints").mkdir(parents=True),
            "{}: holds no checkpoint and no results",
        ),
    ],
    ids=["nothing", "no results", "foreign", "empty", "results without a checkpoint"],
)
def test_targets_that_are_none(tmp_path, command, make, says):
    target = tmp_path / "target"
    make(target)
    assert says.format(target) in refused(tmp_path, *command, target)


def test_a_safetensors_file_of_somebody_else(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    assert "a safetensors file, but not a checkpoint of bdiff_np" in refused(
        tmp_path, "sample", tmp_path / "model.safetensors"
    )


def test_a_full_memory_is_a_sentence(trained, monkeypatch):
    """Of the host or of a GPU, whose library's exception is a MemoryError too."""

    def fail(*_, **__):
        raise MemoryError("Out of memory allocating 9,663,676,416 bytes")

    monkeypatch.setattr("bdiff_np.sample.draw", fail)
    said = refused(trained.run, "sample", trained.run, "-n", 5)
    assert (
        "the memory is full: Out of memory allocating 9,663,676,416 bytes; take smaller batches or narrower layers"
        in said
    )


def test_no_target_and_no_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in ("sample", "evaluate", "validate"):
        assert "runs/: no results yet; train a run first" in refused(tmp_path, command)


def test_a_run_folder_that_is_a_file(run):
    assert "there is no such run folder" in refused(run, "train", run / "train.txt")
    assert "there is no such run folder" in refused(run, "check-net", run / "train.txt")


@pytest.mark.parametrize("command", ["sample", "evaluate", "validate"])
def test_steps_out_of_range(trained, command):
    """0 is refused by the option, more than T by the model, with the range."""
    assert "0 is not in the range x>=1" in refused(trained.run, command, trained.run, "--steps", 0)
    assert "--steps 21: the model has 20 steps, choose 1 to 20" in refused(
        trained.run, command, trained.run, "--steps", 21
    )


def test_a_model_of_single_steps_leaves_none_out(run):
    """predict: x_prev knows the posterior of one step only; all T steps go, and their number may be said."""
    settings = [
        "model.predict=x_prev",
        "model.T=6",
        "training.epochs=1",
        "training.steps_per_epoch=2",
        "training.num_val_samples=4",
    ]
    done = train(run, *(word for s in settings for word in ("--set", s)))
    for command in ("sample", "evaluate", "validate"):
        said = refused(run, command, run, "--steps", 3)
        assert re.search("--steps 3: .*x_prev.* takes all of its 6 steps", said)
    assert good("sample", run, "--steps", 6).stdout == good("sample", run).stdout and done.json["losses"][0] > 0


@pytest.mark.parametrize("place", ["missing/rows.txt", "folder"])
def test_out_is_checked_before_the_work(trained, tmp_path, monkeypatch, place):
    """Nothing is drawn for a file that cannot be written."""
    (tmp_path / "folder").mkdir()

    def work(*_, **__):
        raise AssertionError("drew samples first")

    monkeypatch.setattr(sample, "draw", work)
    said = refused(tmp_path, "sample", trained.run, "--out", tmp_path / place)
    assert f"{tmp_path / place}: " in said and ("there is no folder" in said or "is a folder; name a file" in said)


@pytest.mark.parametrize("name", ["rows.npy.gz", "rows.npz"])
def test_out_in_a_format_that_would_not_be_read_back(trained, tmp_path, name):
    """What read_rows refuses by its name is not written under it either."""
    assert name in refused(tmp_path, "sample", trained.run, "--out", tmp_path / name)


def test_rows_of_another_length_to_evaluate(trained, tmp_path):
    (tmp_path / "short.txt").write_text("010\n")
    said = refused(tmp_path, "evaluate", trained.run, "--data", tmp_path / "short.txt")
    assert f"{tmp_path / 'short.txt'}: has rows of 3 bits, the model was trained on rows of 10" in said


def test_rows_to_evaluate_that_are_not_there_or_faulty(trained, tmp_path):
    file = tmp_path / "rows.txt"
    assert f"{file}: there is no such file" in refused(tmp_path, "evaluate", trained.run, "--data", file)
    file.write_text("0000000002\n")
    assert f"{file}:1:10: the character '2' is not a bit" in refused(tmp_path, "evaluate", trained.run, "--data", file)


def test_data_or_split(trained):
    said = refused(trained.run, "evaluate", trained.run, "--data", trained.run / "val.txt", "--split", "val")
    assert said == "give --data or --split, not both\n" or said.endswith("\ngive --data or --split, not both\n")


def test_no_held_out_rows_to_evaluate(plain):
    assert f"{plain.run}: has no val.txt to evaluate" in refused(plain.run, "evaluate", plain.run, "--split", "val")


@pytest.mark.parametrize("command", ["evaluate", "validate"])
def test_a_checkpoint_without_its_run(trained, tmp_path, command):
    """A copy elsewhere has no rows to compare with; the sentence says what to name."""
    shutil.copy(trained.checkpoint(3), tmp_path / "model_epoch_3.safetensors")
    said = refused(tmp_path, command, tmp_path / "model_epoch_3.safetensors")
    assert "lies in no run folder, so its rows are not known" in said


@pytest.mark.parametrize(
    "command",
    [["validate", "-n", "10"], ["evaluate", "--split", "train"], ["evaluate", "--split", "all"]],
    ids=" ".join,
)
@pytest.mark.parametrize("files", [["train.txt"], ["val.txt"], ["train.txt", "val.txt"]], ids=" ".join)
@pytest.mark.parametrize("D", [12, 17])
def test_rows_that_changed_their_length_since_the_training(copy, command, files, D):
    """Rows of another length than the model's are refused, never compared: 12 bits fill as many bytes as 10, 17
    more."""
    for file in files:
        (copy / file).write_text("0" * D + "\n")
    said = refused(copy, command[0], copy, *command[1:])
    assert re.search(rf"\b{D}\b", said.rpartition("safetensors")[2]) and re.search(
        r"\b10\b", said.rpartition("safetensors")[2]
    )


DATA_FAULTS = [
    (["heartbeat", "--val-fraction", 1], "val.fraction is 1.0; it must be at least 0 and less than 1"),
    (["heartbeat", "--val-fraction", 1.5], "1.5 is not in the range"),
    (["heartbeat", "--val-fraction", 0.95], "all 5 rows would be held out; leave at least one to train on"),
    (["heartbeat", "--hold-out", 6], "hold.out is 6; it must be a whole number, from 1 to 5"),
    (["heartbeat", "--hold-out", 1, "--rows", 3], "hold.out names rows among all of them"),
    (["heartbeat", "--length", 3], "the period 5 is longer than a row of 3 bits"),
    (["repeating", "--length", 20, "--block", 7], "a row of 20 bits is not a whole number of blocks of 7"),
    (
        ["repeating", "--length", 60, "--block", 30],
        "1073741824 rows of length 60 are valid, more than the 4194304 that are listed at once.*--rows",
    ),
    (["repeating", "--rows", 2000], "from 1 to 1024"),
    (["multiples", "--k", 0], "0 is not in the range x>=1"),
    (["multiples", "--k", "five"], "'five' is not a valid integer range|'five' is not a valid int"),
]


@pytest.mark.parametrize(
    "words, says", DATA_FAULTS, ids=lambda part: " ".join(map(str, part)) if isinstance(part, list) else ""
)
def test_data_that_cannot_be_made(tmp_path, words, says):
    """Nothing is made, not even the folder, and the sentence speaks of the options that the user can give."""
    assert re.search(says, refused(tmp_path, "data", *words, "--out", tmp_path / "new"))


def test_data_into_a_file(run):
    assert "train.txt: is a file; name a folder" in refused(run, "data", "heartbeat", "--out", run / "train.txt")


def test_data_into_a_folder_that_cannot_be_made(run):
    """A sentence, not a traceback, where a part of the path is a file (or may not be written)."""
    assert "train.txt" in refused(run, "data", "heartbeat", "--out", run / "train.txt" / "new")


def test_data_beside_rows_of_another_name(run):
    """A train.csv in the way is rows too: a train.txt beside it would leave a folder that no command takes."""
    for file in ("train.txt", "val.txt"):
        (run / file).unlink()
    (run / "train.csv").write_text("1,0\n")
    assert "train.csv" in refused(run, "data", "heartbeat", "--out", run)


@pytest.mark.parametrize(
    "words, says",
    [
        (["sample", "-n", "-1"], "-1 is not in the range x>=0"),
        (["validate", "-n", 0], "0 is not in the range x>=1"),
        (["sample", "--seed", "-1"], "-1 is not in the range"),
        (["evaluate", "--evaluations", 0], "0 is not in the range x>=1"),
        (["evaluate", "--split", "tests"], "'tests' is not one of 'train', 'val', 'test', 'all'"),
        (["sample", "--sed", 1], "No such option"),
        (["train"], "Missing argument 'RUN'"),
        (["data", "heartbeat"], "Missing option '--out'"),
        (["smaple"], "No such command 'smaple'"),
    ],
    ids=lambda part: " ".join(map(str, part)) if isinstance(part, list) else "",
)
def test_options_out_of_range(tmp_path, words, says):
    assert says in refused(tmp_path, *words)


def test_a_bound_that_the_family_lacks(trained):
    found = invoke("evaluate", trained.run, "--bound", "exact")
    assert found.exit_code == 2 and "the bound is 'learned' or 'paper', not 'exact'" in found.stderr


def test_resume_takes_no_settings(copy):
    for words in (["--set", "training.lr=1"], ["--seed", 1], ["--dry-run"]):
        said = refused(copy, "train", copy, "--resume", *words)
        assert words[-1] == "training.lr=1" and "--set training.lr: cannot change" in said or "leave out --seed" in said


def test_results_that_cannot_be_made(run):
    """A file where the results folder should be: a sentence, and nothing trained."""
    (run / "results").write_text("mine")
    said = refused(run, "train", run)
    assert f"{run / 'results'}" in said and "cannot be made" in said


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="root may write everywhere; run as another user to test this",
)
def test_a_run_folder_that_may_not_be_written(run):
    run.chmod(0o500)
    try:
        assert "cannot be made: Permission denied" in refused(run, "train", run)
        assert "cannot be written: Permission denied" in refused(run, "data", "heartbeat", "--force", "--out", run)
        assert "Permission denied" in refused(run, "data", "heartbeat", "--out", run / "new")
    finally:
        run.chmod(0o700)


def test_a_disk_that_fills_up_leaves_no_part_of_a_file(trained, tmp_path, monkeypatch):
    """When the write fails, the file that was there stays and no temporary is left."""
    path = tmp_path / "rows.txt"
    path.write_text("old\n")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    assert f"{path}: cannot be written: No space left on device" in refused(
        tmp_path, "sample", trained.run, "--out", path
    )


def test_sample_refuses_an_ending_that_means_something_else(trained, tmp_path):
    """Before any work, with the endings there are."""
    found = invoke("sample", trained.run, "-n", 3, "--out", tmp_path / "x.pdf")
    assert (
        found.exit_code == 2
        and "x.pdf: its ending is not one of rows; use .txt" in found.stderr
        and not list(tmp_path.iterdir())
    )


def test_data_refuses_a_folder_with_settings_for_other_rows(tmp_path):
    """The rule in config.yaml would be the wrong one: named by its place, and nothing is written."""
    (tmp_path / "config.yaml").write_text("data:\n  rule: {name: multiples, k: 5}\n")
    found = invoke("data", "heartbeat", "--out", tmp_path)
    assert (
        found.exit_code == 2 and "config.yaml:2:9: data.rule: this folder's settings are for other rows" in found.stderr
    )
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_the_installed_command_names_itself():
    """Started as `bdiff`, help and faults say `bdiff`."""
    start = "import sys; sys.argv = ['bdiff', *sys.argv[1:]]; from bdiff_np.cli import main; main()"
    for words, stream in ((["--help"], "stdout"), (["train", "nowhere"], "stderr")):
        done = subprocess.run([sys.executable, "-c", start, *words], cwd=ROOT, capture_output=True, text=True)
        assert "bdiff data heartbeat" in getattr(done, stream) or "bdiff train" in getattr(done, stream)
        assert "python cli.py" not in done.stdout + done.stderr
