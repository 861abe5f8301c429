"""One `train` on the command line, from the checks to the last word."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from bdiff_np import config
from bdiff_np.errors import InputError
from bdiff_np.model import family_of, kind_of
from bdiff_np.runfolder import conclude, opening, rundir, saving
from bdiff_np.runfolder.files import check_readable
from bdiff_np.runfolder.run import Run
from bdiff_np.runfolder.signals import Watch
from bdiff_np.runfolder.stopping import Stopped
from bdiff_np.show import report
from bdiff_np.streams import OutputFault


def train(
    folder: Path, sets: Sequence[str], *, backend: str, resume: bool, watch: Watch, say: Callable[..., None]
) -> int:
    """Trains a run folder, or goes on with its newest results; returns the exit code: 0, 1 for a training that cannot
    go on, 128 + the number of a signal that ended it.

    sets : changes of the configuration. watch : stands already. say(text, err=True) : prints a line

    Raises InputError, and KeyboardInterrupt for a signal while the last one is being told.
    """
    job = None
    try:
        job = _resume(folder, sets, backend, say) if resume else _prepare(folder, sets, backend)
        done = conclude.concluded(job) if resume else None
        if done is not None:
            say(report.finished(job), err=True)
            say(report.conclusion(job, done))
            return 0
        say(report.plan(job), err=True)
        return _run(job, watch, resume, say)
    except BaseException as fault:
        if not watch.caused(fault):
            raise
        say(_where_it_stands(folder, job), err=True)
        return watch.exit_code
    finally:
        if job is not None:
            job.release()


def _prepare(folder: Path, sets: Sequence[str], backend: str) -> Run:
    return opening.prepare(folder, config.load(opening.config_file(folder), sets), backend=backend, sets=sets)


def _resume(folder: Path, sets: Sequence[str], backend: str, say) -> Run:
    job = opening.resume(folder, backend=backend, sets=sets)
    for line in job.said:
        say(line, err=True)
    return job


def _run(job: Run, watch: Watch, resume: bool, say) -> int:
    if not job.finished:
        job.compile()  # before there is a results folder: who interrupts it leaves nothing behind
    if not resume:
        saving.begin(job)
        say(f"results: {job.results}", err=True)
    elif not job.finished:
        saving.write_config(job)
    try:
        ending = job.train(watch)
    except Stopped as fault:
        say(str(fault), err=True)
        return 1
    for line in (report.ending(job, ending), report.early_stop(job)):
        if line:
            say(line, err=True)
    results = conclude.conclude(job)
    if line := report.overfitting(job, results["bounds"]):
        say(line, err=True)
    try:
        say(report.conclusion(job, results))
    except (OutputFault, SystemExit):
        if watch.number is None:  # else the terminal is gone, as SIGHUP tells
            raise
    return watch.exit_code if ending == "interrupted" else 0


def _where_it_stands(folder: Path, job: Run | None) -> str:
    """After a signal that was not waited for."""
    if job is None or job.results == Path():
        return "\ninterrupted before the training began; nothing is left behind"
    if not rundir.checkpoints(job.results):
        saving.discard(job)
        if not job.results.exists():
            return "\ninterrupted before there was a checkpoint; nothing is left behind"
        return (
            f"\ninterrupted before there was a checkpoint; {job.results} has the metrics of {job.epoch} epochs and no "
            f"weights; begin again: python cli.py train {folder}"
        )
    if job.finished:
        return f"\nthe model is saved in {job.results}; bounds and pictures: python cli.py train {folder} --resume"
    return f"\ninterrupted; go on from the last checkpoint in {job.results}: python cli.py train {folder} --resume"


def plan(folder: Path, sets: Sequence[str], *, backend: str) -> tuple[str, str]:
    """The resolved configuration of a training that is not to begin, and what it would do. Raises InputError."""
    job = _prepare(folder, sets, backend)
    return config.dump(job.settings), report.plan(job)


def check(folder: Path, *, seed: int | None, resume: bool, dry_run: bool) -> None:
    """Raises InputError for a folder that is not there, and for options that contradict one another."""
    check_readable(folder)
    if not folder.is_dir():
        kind = kind_of(family_of(config.load(os.devnull)))
        raise InputError(f"{folder}: there is no such run folder; {kind.example} {folder}")
    if resume and (seed is not None or dry_run):
        raise InputError(
            "--resume goes on with the seed it was begun with, and takes steps; leave out --seed and --dry-run, or "
            "start anew"
        )
