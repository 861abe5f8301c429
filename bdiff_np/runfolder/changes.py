"""What --resume says of settings that differ from those that a training was begun with, and which it may change."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bdiff_np import config as configuration
from bdiff_np.config.training import CHANGEABLE
from bdiff_np.errors import InputError

if TYPE_CHECKING:
    from bdiff_np.runfolder.run import Run


def load(results: Path, sets: Sequence[str] = ()) -> tuple[configuration.Config, configuration.Config]:
    """The configuration that a results folder was begun with, and the same changed by `sets`. Raises InputError for a
    change that a training cannot go on with."""
    file = results / "config.yaml"
    configuration.load(file)  # a file at fault is told as such
    before = [f"{setting}={value}" for setting, value in configuration.meant(configuration.given(file)).items()]
    begun, now = configuration.load(file, before), configuration.load(file, [*before, *sets])
    wrong = [key for key in differences(begun, now) if key not in CHANGEABLE]
    if wrong:
        raise InputError(
            f"--set {wrong[0]}: cannot change in a training that goes on, for what is trained rests on it (--resume "
            f"can change {', '.join(CHANGEABLE)}); start anew, without --resume"
        )
    return begun, now


def differences(one: configuration.Config, other: configuration.Config) -> dict[str, tuple[Any, Any]]:
    """ "section.field" -> both values, where they differ; None for a field that one of them lacks."""
    sections = [{s: getattr(c, s).model_dump() for s in ("model", "training", "data")} for c in (one, other)]
    keys = dict.fromkeys((s, field) for each in sections for s in each for field in each[s])
    pairs = {f"{s}.{field}": (sections[0][s].get(field), sections[1][s].get(field)) for s, field in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def edited(run: Run, file: Path, before: Path, begun: configuration.Config) -> Iterator[str]:
    """A line for each setting that the run folder's config.yaml has otherwise than when the training began, unless
    --set changes it now.

    file : the config.yaml of now. before : the copy of then, which older results lack
    begun : the resolved configuration of then
    """
    with suppress(OSError):
        if before.read_bytes() == file.read_bytes():
            return
    try:
        now = configuration.load(file)
    except InputError as fault:
        first, *_ = str(fault).splitlines()
        yield f"{first}; going on with the settings of {run.results / 'config.yaml'}"
        return
    changed, given = differences(begun, run.settings), _settings(file)
    without = ", without a config.yaml" if str(file) == os.devnull else ""
    for key, (old, new) in _edits(now, given, before, begun, run.results / "config.yaml").items():
        going = _value(run.settings, key)
        if key not in changed and new != going:
            where = "in config.yaml now" if key in given else f"by default now{without}"
            yield f"{key}: {_shown(old)} when begun, {_shown(new)} {where}; going on with {_shown(going)}"


def _edits(now, given: set[str], before: Path, begun, resolved: Path) -> dict[str, tuple[Any, Any]]:
    """The settings that config.yaml has otherwise than before: both files as this version reads them, so that a default
    that has changed is no edit, nor is what --set gave. Without a copy of then, what the resolved configuration, the
    file `resolved`, says stands for it."""
    try:
        return differences(configuration.load(before), now)
    except InputError:
        known = given | (_settings(resolved) - configuration.meant(configuration.given(resolved)).keys())
        return {key: pair for key, pair in differences(begun, now).items() if key in known}


def _settings(file: Path) -> set[str]:
    """The names of the settings that a file gives."""
    return {f"{section}.{field}" for section, fields in configuration.given(file).items() for field in fields}


def _value(config: configuration.Config, key: str) -> Any:
    section, field = key.split(".")
    return getattr(config, section).model_dump().get(field)


def check(run: Run, begun: configuration.Config) -> None:
    """Raises InputError for fewer epochs than the restored run has done."""
    training, epochs = run.training, run.settings.training.epochs
    if epochs != begun.training.epochs and training.optimizer.taken > training.total_steps:
        done = -(-training.optimizer.taken // training.steps_per_epoch)
        raise InputError(f"--set training.epochs={epochs}: epoch {done} is begun already; set {done} at least")


def course(run: Run, begun: configuration.Config) -> Iterator[str]:
    """A line for each setting that is changed, and how the learning rate goes on; for a run that is finished all the
    same, that nothing comes of it."""
    if run.finished:
        reason = "there is no step left to take"
        if run.epoch < run.settings.training.epochs:
            reason = "training has stopped early; add --set training.patience=never"
        for key, (_, new) in differences(begun, run.settings).items():
            yield f"{key}: {_shown(new)} is not kept, for {reason}"
        return
    for key, (old, new) in differences(begun, run.settings).items():
        yield f"{key}: {_shown(old)} up to now, {_shown(new)} from here on"
    optimizer, step = run.training.optimizer, run.training.optimizer.taken + 1
    total, old = run.training.total_steps, begun.training.epochs * run.training.steps_per_epoch
    if total == old:
        return
    if begun.training.lr_schedule == "constant":
        yield f"the learning rate goes on as it would have, {optimizer.learning_rate(step):.6g} in step {step}"
        return
    yield (
        f"the {begun.training.lr_schedule} of the learning rate ends with step {total} instead of {old}: in step "
        f"{step} it is {optimizer.learning_rate(step):.6g} instead of {optimizer.learning_rate(step, old):.6g}"
    )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
