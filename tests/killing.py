"""Trainings that are sent signals at random moments and resumed, again and again, as queues, containers and users do.

    python tests/killing.py 200          so many signals on each back end; prints how many of each were sent

What is held: nothing torn and no temporary file at the end, and the last checkpoint's arrays, metrics and history are
those of an undisturbed training, to the last bit.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from test_resume import same_training  # noqa: E402
from tiny import make_run, newest  # noqa: E402

from bdiff_np.runfolder import checkpoint, rundir  # noqa: E402

SIGNALS = [getattr(signal, name) for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
SETTINGS = {
    "numpy": {"epochs": 40, "steps_per_epoch": 60, "save_every_n_epochs": 3},
    "numba": {"epochs": 40, "steps_per_epoch": 4000, "save_every_n_epochs": 3},
}
# `train` with a conclusion of tenths of a second: what takes long in it is not what is tested
TRAIN = """
import sys
from bdiff_np import cli
from bdiff_np.runfolder import conclude
from bdiff_np.show import pictures
conclude.EVALUATIONS = 1 << 7
pictures.draw = lambda *_: None
cli.main(sys.argv[1:])
"""


def start(folder: Path, backend: str, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-c", TRAIN, "train", str(folder), "--backend", backend, *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    said = process.communicate()[1]
    assert process.returncode == 0, said[-2000:]


def undisturbed(folder: Path, backend: str, **values) -> Path:
    finish(start(make_run(folder, **SETTINGS[backend] | values), backend))
    return newest(folder)


def disturbed(folder: Path, backend: str, signals: int, seed: int, **values) -> Counter[str]:
    """Trains a run folder with so many signals at least, then without; it is begun anew where it ends before. How many
    of each signal met a training that was under way."""
    dice, sent, expected = random.Random(seed), Counter[str](), undisturbed(folder / "whole", backend, **values)
    number = 0
    while sent.total() < signals:
        number += 1
        run = make_run(folder / f"run{number}", **SETTINGS[backend] | values)
        while True:
            process = start(run, backend, *(["--resume"] if begun(run) else []))
            while not begun(run) and process.poll() is None:
                time.sleep(0.005)
            wait = dice.uniform(0, 1.5)
            chosen = dice.choice(SIGNALS)
            if sent.total() < signals:
                try:
                    process.wait(wait)
                except subprocess.TimeoutExpired:
                    process.send_signal(chosen)
                    if dice.random() < 0.25:  # who is impatient sends it twice
                        time.sleep(dice.uniform(0, 0.05))
                        process.send_signal(chosen)
                    sent[chosen.name] += 1
            said = process.communicate()[1]
            if process.returncode == 0:
                break
            assert process.returncode in (-chosen, 128 + chosen), f"{chosen.name} gave {process.returncode}:\n{said}"
            check_whole(run)
        same_training(newest(run), expected)
        assert not list(run.rglob("*.tmp")) and len(rundir.all_results(run)) == 1
    return sent


def begun(run: Path) -> bool:
    return any((results / "config.yaml").exists() for results in rundir.all_results(run))


def check_whole(run: Path) -> None:
    """Every file with a name of its own is whole at any time."""
    for results in rundir.all_results(run):
        for path in rundir.checkpoints(results).values():
            checkpoint.load(path, training=True)
        rundir.read_results(results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("signals", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=SETTINGS, action="append", help="Of these alone.  [default: all]")
    given = parser.parse_args()
    for name in given.backend or SETTINGS:
        place, began = Path(tempfile.mkdtemp()), time.monotonic()
        counts = disturbed(place, name, given.signals, given.seed)
        print(f"{name}: {dict(counts)} in {time.monotonic() - began:.0f} s, all resumed to the same end", flush=True)
        shutil.rmtree(place)
