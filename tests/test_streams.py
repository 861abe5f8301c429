"""Standard output and standard error that are full, closed or read by nobody: a sentence and exit code 2, or nothing at
all; never a traceback, and never the loss of a training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bdiff_np import streams

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
CLI = Path(__file__).parent.parent / "cli.py"
FULL = "standard output cannot be written to: No space left on device; free it, or send it to a file or /dev/null\n"
CLOSED = "standard output cannot be written to: it is closed; free it, or send it to a file or /dev/null\n"
SMALL = ["model.T=8", "training.epochs=1", "training.steps_per_epoch=3", "training.num_val_samples=8"]


def run(words, redirection: str, **environment) -> tuple[int, str]:
    """Exit code and stderr of a command whose streams the shell redirects."""
    line = f'exec "$0" "$@" {redirection}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable, str(CLI), *map(str, words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def commands(trained, tmp_path):
    """Every command that prints."""
    return {
        "--help": ["--help"], "train --help": ["train", "--help"], "--version": ["--version"],
        "sample": ["sample", trained.run, "-n", 3], "settings": ["settings"], "doctor": ["doctor", "--json"],
        "evaluate": ["evaluate", trained.run, "--evaluations", 100, "--json"],
        "validate": ["validate", trained.run, "-n", 3, "--json"], "check-net": ["check-net", trained.run],
        "dry run": ["train", trained.run, "--dry-run"],
        "data": ["data", "heartbeat", "--out", tmp_path / "made", "--force"],
    }  # fmt: skip


NAMES = [
    "--help", "train --help", "--version", "sample", "settings", "doctor", "evaluate", "validate", "check-net",
    "dry run", "data",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_output_that_cannot_be_written(trained, tmp_path, name):
    """Full or closed: one sentence after whatever else stderr has, exit code 2. A reader that has left: nothing."""
    words = commands(trained, tmp_path)[name]
    code, said = run(words, ">/dev/full")
    assert code == 2 and said.endswith(FULL)
    code, said = run(words, ">&-")
    assert code == 2 and said.endswith(CLOSED)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, str(CLI), *map(str, words)], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300
    )
    os.close(writing)
    assert done.returncode == 141 and "rror" not in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_every_command_is_in_the_list():
    from bdiff_np.cli import main

    assert set(main.commands) - {"train"} <= set(NAMES) | {"data"}


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "<&- 2>&-"])
def test_errors_that_cannot_be_said_cost_nothing(trained, tmp_path, redirection):
    """The rows are those of a command whose stderr is read, exit code 0; a fault still has exit code 2."""
    out = tmp_path / "rows.txt"
    assert run(["sample", trained.run, "-n", 3, "--out", out], redirection)[0] == 0
    plain = tmp_path / "plain.txt"
    assert run(["sample", trained.run, "-n", 3, "--out", plain], "")[0] == 0
    assert out.read_text() == plain.read_text() and len(out.read_text().splitlines()) == 3
    assert run(["sample", tmp_path / "nowhere"], redirection)[0] == 2


def test_both_closed():
    """Nothing can be said, and the exit code says it."""
    assert run(["--version"], ">&- 2>&-") == (2, "")
    assert run(["--version"], ">/dev/full 2>/dev/full") == (2, "")


def test_output_in_a_locale_of_ascii():
    """click would write past the guard there."""
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
    assert run(["--version"], ">/dev/full", **ascii_only) == (2, FULL)
    assert run(["--version"], "", **ascii_only) == (0, "")


@pytest.mark.parametrize("redirection", [">/dev/full", ">&- 2>&-", "2>/dev/full", "2>&-"])
def test_a_training_is_not_lost(tmp_path, redirection):
    """The conclusion is said in vain, and all of the results are there."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "train.txt").write_text("1000010000\n0100001000\n0010000100\n0000100001\n")
    code, said = run(["train", folder, *(f"--set={s}" for s in SMALL)], redirection)
    assert code == (2 if ">&- " in redirection or redirection.startswith(">") else 0), said
    (results,) = (folder / "results").iterdir()
    assert "bounds" in json.loads((results / "results.json").read_text())
    assert len([p for p in results.iterdir() if p.suffix in (".png", ".gif")]) == 6
    assert redirection != ">/dev/full" or said.endswith(FULL)


def test_the_streams_are_given_back():
    """After a command, sys.stdout and sys.stderr are those of before."""
    before = sys.stdout, sys.stderr
    with streams.guarded():
        assert sys.stdout is not before[0] and sys.stdout.isatty() == before[0].isatty()
    assert (sys.stdout, sys.stderr) == before
