"""How a training of a run folder is opened: a new one, or the newest one where it stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from bdiff_np import config as configuration
from bdiff_np.errors import InputError
from bdiff_np.nets.custom import FILE as CODE
from bdiff_np.runfolder import changes, rundir, saving
from bdiff_np.runfolder.files import check_readable, check_regular
from bdiff_np.runfolder.lock import Lock
from bdiff_np.runfolder.run import Run


def config_file(folder: Path) -> Path:
    """The run's config.yaml, or an empty file where there is none: every setting has a default."""
    return folder / "config.yaml" if (folder / "config.yaml").exists() else Path(os.devnull)


def own_code(folder: Path) -> Path | None:
    """The run's reverse_model.py, if it has one."""
    check_regular(folder / CODE)
    return folder / CODE if (folder / CODE).exists() else None


def prepare(folder: Path, settings: configuration.Config, *, backend: str, sets: Sequence[str] = ()) -> Run:
    """A new training, with nothing on disk yet. Raises InputError if an input is at fault.

    sets : the options among what `settings` was read from, which a fault may be of
    """
    file, code = config_file(folder), own_code(folder)
    return Run(folder, settings, backend=backend, code=code, place=_places(file, sets), given=file.read_bytes())


def _places(file: Path, sets: Sequence[str] = ()) -> Callable[[str], str]:
    return lambda setting: f"{configuration.place(file, setting, sets)}: {setting}"


def resume(folder: Path, *, backend: str, sets: Sequence[str] = ()) -> Run:
    """The newest training of a run folder, where it stopped, with the configuration and the network that it was begun
    with; `sets` changes what can be changed. What a user should know of it is in `said`.

    Raises InputError where there is none, where another process trains it, and for a change that cannot be.
    """
    check_readable(folder / "results")
    every = [results for results in rundir.all_results(folder) if (results / "config.yaml").exists()]
    if not every:
        raise InputError(f"{folder}: nothing to resume, there are no results; leave --resume out")
    results = every[-1]
    lock = Lock(results)
    try:
        begun, settings = changes.load(results, sets)
        code, place = saving.own_network(results), _places(results / "config.yaml", sets)
        run = Run(folder, settings, backend=backend, code=code, place=place)
        run.results, run.lock = results, lock
        saving.restore(run)
        changes.check(run, begun)
        run.said = [
            *changes.edited(run, config_file(folder), results / saving.GIVEN, begun),
            *changes.course(run, begun),
        ]
    except BaseException:
        lock.release()
        raise
    return run
