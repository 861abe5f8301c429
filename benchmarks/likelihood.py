"""Quality: trains the example runs and measures them, beside the exact floors and what was published.

    python benchmarks/likelihood.py                     all runs, about 15 minutes on two cores
    python benchmarks/likelihood.py heartbeat_paper     one of them

Every figure comes from the commands that a user has: train, evaluate, validate. They are printed with their results,
and a Markdown table at the end is what RESULTS.md holds.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from bdiff_np.runfolder import rundir

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Figure:
    """One row of the table: a command after training, the key of its JSON, and what to compare with."""

    run: str
    what: str
    command: tuple[str, ...]
    key: str
    target: str
    floor: str
    scale: float = 1.0  # factor on the value: -1 for K, 100 for percent


EVALUATE = ("evaluate", "--evaluations", "8000000")
PAPER = (*EVALUATE, "--bound", "paper")
VALIDATE = ("validate", "-n", "50000")
HEARTBEAT, LONG, REPEATING, MULTIPLES = (
    "heartbeat_paper",
    "heartbeat_len_64_per_32",
    "repeating_patterns_len_20_per_10",
    "multiples_of_5",
)
FIGURES = (
    Figure(HEARTBEAT, "bound, last step learned, bits", EVALUATE, "bits_per_sequence", "<= 2.335", "2.3244"),
    Figure(
        HEARTBEAT,
        "paper's protocol: K, bits",
        PAPER,
        "bits_per_sequence",
        ">= -2.385; the paper: -2.414",
        "-2.3683",
        -1,
    ),
    Figure(
        HEARTBEAT,
        "paper's protocol: K - L_null, bits",
        PAPER,
        "k_minus_null_bits",
        ">= 12.05; the paper: 12.024",
        "12.070",
    ),
    Figure(
        REPEATING,
        "bound over all 1024 rows, bits",
        (*EVALUATE, "--split", "all"),
        "bits_per_sequence",
        "<= 10.06; before: 10.2",
        "10.0203",
    ),
    Figure(REPEATING, "invalid samples of 50,000, %", VALIDATE, "invalid", "<= 0.8; before: 0.7", "0.40", 100),
    Figure(REPEATING, "held-out rows found, of 51", VALIDATE, "val_found", "51", "51"),
    Figure(
        LONG,
        "bound over its 30 training rows, bits",
        (*EVALUATE, "--split", "train"),
        "bits_per_sequence",
        "<= 4.96",
        "4.91",
    ),
    Figure(
        MULTIPLES,
        "held-out bound, bits",
        ("evaluate", "--evaluations", "500000"),
        "bits_per_sequence",
        "<= 18.5; before: none",
        "17.678",
    ),
    Figure(
        MULTIPLES, "valid samples of 2,000, %", ("validate", "-n", "2000"), "valid", ">= 80; before: none", "100", 100
    ),
)
DATA = {MULTIPLES: ("data", "multiples", "--length", "20", "--k", "5", "--out")}


def cli(*arguments: str) -> str:
    """Runs one command of cli.py and returns its stdout."""
    click.echo(f"$ python cli.py {' '.join(arguments)}", err=True)
    done = subprocess.run([sys.executable, "cli.py", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise click.ClickException(f"cli.py {arguments[0]} left with exit code {done.returncode}")
    return done.stdout


def machine() -> str:
    """Processor, cores and versions."""
    import numpy

    names = (
        [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
        if os.path.exists("/proc/cpuinfo")
        else []
    )
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, NumPy {numpy.__version__}"
    )


@click.command()
@click.argument("runs", nargs=-1, type=click.Choice(sorted({figure.run for figure in FIGURES})))
@click.option("--trained", is_flag=True, help="Measure the newest results instead of training.")
def main(runs: tuple[str, ...], trained: bool):
    """Train the example RUNS (all of them by default), measure them, print a Markdown table."""
    rows, answers = [], {}
    for run in dict.fromkeys(figure.run for figure in FIGURES if not runs or figure.run in runs):
        folder = f"runs/{run}"
        if run in DATA and not (ROOT / folder / "train.txt").exists():
            cli(*DATA[run], folder)
        if not trained:
            click.echo(cli("train", folder), err=True)
        found = rundir.read_results(rundir.all_results(ROOT / folder)[-1])
        seconds = f"{found['training_seconds']:.0f} s, {found['wall_seconds']:.0f} s in all"
        for figure in (figure for figure in FIGURES if figure.run == run):
            call = (figure.command[0], folder, *figure.command[1:], "--json")
            if call not in answers:
                answers[call] = json.loads(cli(*call))
            found = answers[call]
            value = 1 - found["valid"] if figure.key == "invalid" else found[figure.key]
            error = f" +- {found['standard_error_bits']:.4f}" if "standard_error_bits" in found else ""
            shown = f"{value * figure.scale:.4f}{error}" if isinstance(value, float) else str(value)
            rows.append(f"| {run} | {figure.what} | {shown} | {figure.target} | {figure.floor} | {seconds} |")
            click.echo(rows[-1], err=True)
    click.echo(
        f"{machine()}\n\n| run | figure | measured | aimed at | exact optimum | training |\n|---|---|---|---|---|---|"
    )
    click.echo("\n".join(rows))


if __name__ == "__main__":
    main()
