"""What a training records on the way: metrics.csv, and the lists in results.json."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np

from bdiff_np.errors import InputError
from bdiff_np.runfolder import rundir
from bdiff_np.runfolder.files import write_whole

COLUMNS = ("epoch", "step", "seconds", "loss_bits", "val_bound_bits", "learning_rate", "gradient_norm")


class History:
    """One row an epoch.

    census : of the samples of each epoch (data.Census), whose figures are columns too, or None. dtype : of examples
    columns : name -> values, one an epoch. examples : the same few samples after each epoch, (n, D) each
    best : the least bound on the held-out rows, in bits, and its epoch; None before the first
    """

    def __init__(self, census, dtype):
        self.census, self.dtype = census, dtype
        self.names = COLUMNS + (census.names if census else ())
        self.columns: dict[str, list] = {name: [] for name in self.names}
        self.examples: list[np.ndarray] = []
        self.best: tuple[float, int] | None = None

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return len(self.columns["epoch"])

    def add(self, values: dict, examples: np.ndarray) -> None:
        """The figures of one more epoch, by column; a column that is not named gets nan."""
        for name in self.names:
            self.columns[name].append(values.get(name, math.nan))
        self.examples.append(examples)
        bound = values["val_bound_bits"]
        if not math.isnan(bound) and (self.best is None or bound < self.best[0]):
            self.best = bound, self.epoch

    def newest(self) -> dict:
        """The figures of the newest epoch."""
        return {name: column[-1] for name, column in self.columns.items()}

    def write_metrics(self, results: Path) -> None:
        """metrics.csv as it stands. It is small, so the whole of it: a killed run never leaves half a line."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.names)
        writer.writerows(zip(*self.columns.values()))
        write_whole(results / "metrics.csv", text.getvalue().encode())

    def summary(self) -> dict:
        """The lists of results.json."""
        h = self.columns
        return {
            "losses": h["loss_bits"],
            "examples_per_epoch": [rows.tolist() for rows in self.examples],
            "proportions": self.census.proportions(h) if self.census else {},
            "val_bounds": [None if math.isnan(v) else v for v in h["val_bound_bits"]],
        }

    def load(self, results: Path, epochs: int) -> None:
        """The first epochs of what a results folder holds. Raises InputError where something of it is missing or
        damaged."""
        saved = rundir.read_results(results)
        try:
            self.examples = [np.array(rows, self.dtype) for rows in saved["examples_per_epoch"][:epochs]]
            with open(results / "metrics.csv", encoding="utf-8", newline="") as file:
                lines = list(csv.DictReader(file))[:epochs]
            self.columns = {
                name: [(int if name in ("epoch", "step") else float)(line[name]) for line in lines]
                for name in self.names
            }
            whole = len(self.examples) == len(lines) == epochs
        except (OSError, KeyError, TypeError, ValueError):
            whole = False
        if not whole:
            raise InputError(
                f"{results}: metrics.csv or results.json is missing or damaged; start anew, without --resume"
            )
