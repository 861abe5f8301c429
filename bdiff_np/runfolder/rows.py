"""Which rows a command works on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bdiff_np.data import Data, find_file, read_file, refuse_missing
from bdiff_np.data.source import shown
from bdiff_np.errors import InputError
from bdiff_np.model import Model
from bdiff_np.runfolder import held_out, rundir


def rows_to_evaluate(
    model: Model, source: rundir.Source, file: Path | None, split: str | None
) -> tuple[str, Data, np.ndarray | None]:
    """Name and rows to evaluate, and all rows of their law where the model's configuration names one."""
    if file is not None and split is not None:
        raise InputError("give --data or --split, not both")
    population, settings, named = model.kind.population, model.config.data, f"rows of {file and shown(file)}"
    if split == "test":
        if source.run is None or (file := find_file(model.kind, source.run, "test")) is None:
            raise InputError(f"{source.run or source.checkpoint}: has no test{model.kind.ENDINGS[0]} to evaluate")
        named = "test rows"
    if file is not None:
        name, rows = named, read_file(model.kind, file, model.form)
        refuse_missing(model.family, rows)
        if rows.D != model.D:
            raise InputError(
                f"{shown(file)}: has rows of {rows.D} {rows.elements}, the model was trained on rows of {model.D}"
            )
        return name, rows, None if source.run is None else population(settings, rows, rows_of_run(model, source)[0])
    train_rows, val_rows = rows_of_run(model, source)
    if split == "val" and val_rows is None:
        raise InputError(f"{source.run}: has no val{model.kind.ENDINGS[0]} to evaluate")
    elif val_rows is not None and split in ("val", None):
        name, rows = "val rows", val_rows
    elif val_rows is not None and split == "all":
        name, rows = "train and val rows", train_rows.join(val_rows)
    else:
        name, rows = "train rows", train_rows
    return name, rows, population(settings, rows, train_rows)


def rows_of_run(model: Model, source: rundir.Source) -> tuple[Data, Data | None]:
    """Training and held-out rows of the run that a target belongs to."""
    if source.run is None:
        raise InputError(
            f"{source.checkpoint}: lies in no run folder, so its rows are not known; name a run folder, or a file with "
            "--data"
        )
    rows = held_out.read(model.family, source.run, model.config)
    return rows.train, rows.val
