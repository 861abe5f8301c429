"""A training without a run folder: rows from Python in, a model out."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from bdiff_np import config as configuration
from bdiff_np.backends.auto import AUTO
from bdiff_np.data import refuse_missing
from bdiff_np.errors import InputError, seed_of
from bdiff_np.model import Model, family_of, kind_of
from bdiff_np.runfolder import saving
from bdiff_np.runfolder.conclude import take_chosen_weights
from bdiff_np.runfolder.run import Run
from bdiff_np.runfolder.signals import Watch
from bdiff_np.runfolder.stopping import Stopped

QUIET = {"num_val_samples": 0, "num_examples": 1}  # samples on the way, which nobody looks at here


def fit(X: Any, val: Any, *, seed: int | None, backend: str, settings: dict[str, Any]) -> Model:
    """As bdiff_np.fit."""
    if isinstance(val, str):  # the setting of that name
        val, settings = None, {**settings, "val": val}
    config = configuration.of({**QUIET, **settings, "seed": seed_of(seed)})
    kind = kind_of(family_of(config))
    rows = kind.from_array(X, "X")
    if rows.understood:
        print(f"X: {rows.understood}", file=sys.stderr)
    held_out = None if val is None else kind.from_array(val, "val").in_form(rows.form, "val")
    for name, given in ("X", rows), ("val", held_out):
        if given is not None and not len(given):
            raise InputError(f"{name}: holds no {kind.elements}; give one row at least")
    if held_out is not None and held_out.D != rows.D:
        raise InputError(f"val: rows have {held_out.D} {kind.elements}, those of X have {rows.D}")
    refuse_missing(family_of(config), rows, held_out)
    with tempfile.TemporaryDirectory(prefix="bdiff_np-") as folder:
        run = Run(
            Path(folder), config, backend=backend, code=None, rows=(rows, held_out),
            place=lambda setting: f"fit({setting.rpartition('.')[2]}=...)",
        )  # fmt: skip
        if run.val_rows is not None and run.val_taken:
            counts = f"{len(run.train_rows)} to train on, {len(run.val_rows)} held out"
            print(f"{len(rows)} rows: {counts} (chosen by the seed; val= gives others)", file=sys.stderr)
        try:
            run.compile()
            saving.begin(run)
            # what ends a process besides Ctrl-C ends it
            with Watch(["SIGINT"], "finishing the step") as watch:
                run.train(watch)
            model = replace(take_chosen_weights(run), form=rows.form)
        except Stopped as fault:
            raise InputError(str(fault.__cause__ or fault)) from None
        finally:
            run.release()
    return replace(model.on("numpy"), auto=True) if backend == AUTO else model
