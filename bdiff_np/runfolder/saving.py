"""What a training leaves in its results folder, and how it goes on from there. Every file is whole or not there."""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bdiff_np import __version__
from bdiff_np import config as configuration
from bdiff_np.config.training import CHANGEABLE
from bdiff_np.errors import InputError
from bdiff_np.model import process_of
from bdiff_np.nets.custom import FILE as CODE
from bdiff_np.runfolder import checkpoint, rundir
from bdiff_np.runfolder.changes import differences
from bdiff_np.runfolder.files import check_readable, check_regular, write_own
from bdiff_np.runfolder.lock import Lock

if TYPE_CHECKING:
    from bdiff_np.runfolder.run import Run

GIVEN = "config_given.yaml"  # the run folder's config.yaml as it was when the training began

# How a results folder's reverse_model.py begins that holds no code.
BUILT_IN_START = '"""The network of this run is the built-in one'
BUILT_IN = (
    BUILT_IN_START
    + ''': bdiff_np/nets/{net}.py, with the settings under `model` in config.yaml.

A file of this name in the run folder, with a class ReverseModel of its own, would have replaced it;
docs/custom_net.md shows how.
"""

from bdiff_np.nets.{net} import NET  # noqa: F401
'''
)


def begin(run: Run) -> None:
    """Makes the results folder, with the configuration, as given and as resolved, and the network's file in it."""
    run.results, run.new = rundir.new_results(run.folder), True
    try:
        code = run.code.read_bytes() if run.code else BUILT_IN.format(net=run.settings.model.net).encode()
        write_own(run.results / CODE, code)
        write_own(run.results / GIVEN, run.given)
        run.lock = Lock(run.results)
        write_config(run)  # last: with it the folder can be resumed
    except Exception:  # a disk that is full
        discard(run)
        raise


def write_config(run: Run) -> None:
    """The resolved configuration, in the results folder, where it does not stand there yet."""
    file, text = run.results / "config.yaml", configuration.dump(run.settings).encode()
    if not file.exists() or file.read_bytes() != text:
        write_own(file, text)


def discard(run: Run) -> None:
    """Removes the results folder of a new training that fails before its first epoch has ended."""
    if run.new and not run.epoch and not rundir.checkpoints(run.results):
        run.release()  # Windows removes no file that is open
        with suppress(FileNotFoundError):  # somebody else was quicker
            shutil.rmtree(run.results)
        with suppress(FileNotFoundError):
            if not any(run.results.parent.iterdir()):
                run.results.parent.rmdir()


def save(run: Run, epoch: int) -> None:
    """Metrics, results and a checkpoint, as of now, under the number of an epoch."""
    tensors = run.training.tensors()  # raises Diverged where they are no good: then nothing is written over
    # The histories first: a kill between the two leaves more history than checkpoint, which resume cuts off; never
    # less.
    run.tick()
    run.history.write_metrics(run.results)
    rundir.write_json(run.results / "results.json", run.summary())
    meta = {
        "step": run.training.optimizer.taken, "epoch": run.epoch, "D": run.train_rows.D, "net": run.net_file,
        "form": run.train_rows.form,
        "config": run.settings.model_dump(mode="json"), "data": _fingerprints(run), "version": __version__,
        "backend": run.training.model.ops.name, "later": run.later, "backends": run.backends,
        "loss_sum": run.loss_sum, "loss_count": run.loss_count, "seconds": run.seconds,
        "best": run.history.best, "grad_norm": run.training.optimizer.grad_norm,
        "wall_seconds": run.wall_seconds,
    }  # fmt: skip
    path = rundir.checkpoint_path(run.results, epoch)
    with suppress(OSError):  # removed meanwhile, perhaps; what is in the way is told by who writes
        path.parent.mkdir(exist_ok=True)
    checkpoint.write(path, tensors, meta)


def _fingerprints(run: Run) -> list[int]:
    return [rows.fingerprint() for rows in (run.train_rows, run.val_rows) if rows is not None]


def restore(run: Run) -> None:
    """Goes on from the newest checkpoint of the results folder that is whole and fits, or from the start where none is
    whole.

    Raises InputError for a checkpoint that is no file, and for one of an older format; and where some are whole and
    none of them fits: its network or its history is gone, and to begin again in this folder would lose what was
    trained.
    """
    check_readable(run.results / "checkpoints")
    # of a write that a kill cut off
    for left in [*run.results.glob(".*.tmp"), *run.results.glob("checkpoints/.*.tmp")]:
        left.unlink()
    for path in rundir.checkpoints(run.results).values():
        check_regular(path)  # it will be written over
    passed, misfit = [], None
    for path in reversed(rundir.checkpoints(run.results).values()):
        try:
            tensors, meta = checkpoint.load(path, training=True)
        except InputError as fault:
            passed.append(fault)
            continue
        if meta["format"] != checkpoint.FORMAT:
            raise InputError(
                f"{path}: has format {meta['format']}, and the rule of the random words changed with format "
                f"{checkpoint.FORMAT}, so that this training cannot go on as it began; start anew, without --resume "
                "(sample and evaluate still read it)"
            )
        if meta["data"] != _fingerprints(run):
            raise InputError(
                f"{run.folder}: the rows of train or val have changed since {path.name} was saved; start anew, "
                "without --resume"
            )
        try:
            _go_back(run, path, tensors, meta)
            misfit = None
            break
        except InputError as fault:
            passed.append(fault)
            misfit = misfit or fault
    if misfit:
        raise misfit
    for reason in passed:
        print(f"{reason}; an earlier checkpoint is taken, or the start where there is none", file=sys.stderr)
    weights_of_best(run)  # better now than after hours of work


def weights_of_best(run: Run) -> dict[str, np.ndarray] | None:
    """The averaged weights of the epoch that the run stands for, by name; None for those of now.

    Where its checkpoint is gone or damaged, stderr says so, and of the epochs whose checkpoints are whole the best
    takes its place in the history; where there is none, the last.
    """
    fault = None
    while run.choice.select == "best" and run.history.best is not None:
        epoch = run.history.best[1]
        if epoch == run.epoch and run.training.optimizer.taken == epoch * run.training.steps_per_epoch:
            weights = None
            break
        try:
            weights = _averages(run, epoch)
            break
        except InputError as reason:
            fault = fault or reason
            run.history.disown(epoch, rundir.checkpoints(run.results).keys())
    else:
        weights = None
    if fault is not None:
        instead = f"epoch {run.history.best[1]}" if run.history.best else "the last epoch"
        print(f"{fault}; the run stood for that epoch, and stands for {instead} now", file=sys.stderr)
    return weights


def _averages(run: Run, epoch: int) -> dict[str, np.ndarray]:
    """Those of the checkpoint at the end of an epoch. Raises InputError where it is not one of this training."""
    path, averages = rundir.checkpoint_path(run.results, epoch), run.training.optimizer.ema
    tensors, meta = checkpoint.load(path, training=True)
    weights = {name[4:]: array for name, array in tensors.items() if name.startswith("ema/")}
    shapes = [{name: array.shape for name, array in part.items()} for part in (weights, averages)]
    if meta["epoch"] != epoch or meta["data"] != _fingerprints(run) or shapes[0] != shapes[1]:
        raise InputError(f"{path}: not the end of epoch {epoch} of this training")
    return weights


def _go_back(run: Run, path: Path, tensors: dict, meta: dict) -> None:
    """Puts a run where it was when a checkpoint was saved."""
    length = run.training.steps_per_epoch
    if not 0 <= meta["step"] - meta["epoch"] * length <= length:
        raise InputError(f"{path}: damaged (step {meta['step']} is none of epoch {meta['epoch'] + 1})")
    config, chain = process_of(path, tensors, meta)
    others = [key for key in differences(config, run.settings) if key not in CHANGEABLE]
    if others:
        raise InputError(f"{path}: of a training with another {others[0]}")
    here, there = (run.family.state(each) for each in (run.training.model.chain, chain))
    if not all(np.array_equal(here[name], there[name]) for name in here):
        raise InputError(f"{path}: of a training with another process")
    run.history.load(run.results, meta["epoch"], (run.settings.training.num_examples, run.train_rows.D))
    begun_on = meta.get("backend", "numpy")
    run.backends = [(step, name) for step, name in meta.get("backends", [(1, begun_on)])]
    # another one rounds differently: to go on exactly takes the same, unless it was to be left as soon as it could
    if run.auto and not meta.get("later") and (run.later or begun_on != run.training.model.ops.name):
        try:
            run.use(begun_on)
            run.chosen_because = "the training began on it"
        except InputError as fault:
            print(f"{fault}; going on with {run.training.model.ops.name}, not bit for bit", file=sys.stderr)
    run.training.restore(tensors, meta["step"])
    run.training.optimizer.grad_norm, run.wall_seconds = meta["grad_norm"], meta["wall_seconds"]
    run.loss_sum, run.loss_count, run.seconds = meta["loss_sum"], meta["loss_count"], meta["seconds"]
    run.history.best = tuple(meta["best"]) if meta["best"] else None


def own_network(results: Path) -> Path | None:
    """The reverse_model.py of a results folder, None where it holds no code."""
    code = results / CODE
    check_regular(code)
    return code if code.is_file() and not code.read_bytes().startswith(BUILT_IN_START.encode()) else None
