"""What a training records on the way: metrics.csv, and the lists in results.json."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Collection
from pathlib import Path

import numpy as np

from bdiff_np.errors import InputError
from bdiff_np.runfolder import rundir
from bdiff_np.runfolder.files import check_regular, write_own

COLUMNS = ("epoch", "step", "seconds", "loss_bits", "val_bound_bits", "learning_rate", "gradient_norm")


class History:
    """One row an epoch.

    census : of the samples of each epoch (data.Census), whose figures are columns too, or None. dtype : of examples
    columns : name -> values, one an epoch, nan where nothing was looked at. examples : the same few samples after each
        epoch, (n, D) each, or None
    best : the least bound on the held-out rows, in bits, and its epoch; None before the first
    """

    def __init__(self, census, dtype):
        self.census, self.dtype = census, dtype
        self.names = COLUMNS + (census.names if census else ())
        self.columns: dict[str, list] = {name: [] for name in self.names}
        self.examples: list[np.ndarray | None] = []
        self.best: tuple[float, int] | None = None

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return len(self.columns["epoch"])

    def add(self, values: dict, examples: np.ndarray | None) -> None:
        """The figures of one more epoch, by column; a column that is not named gets nan."""
        for name in self.names:
            self.columns[name].append(values.get(name, math.nan))
        self.examples.append(examples)
        bound = values.get("val_bound_bits", math.nan)
        if not math.isnan(bound) and (self.best is None or bound < self.best[0]):
            self.best = bound, self.epoch

    def disown(self, epoch: int, others: Collection[int]) -> None:
        """An epoch that is the best no longer: of `others` and the newest, the next best one takes its place; `best` is
        None where there is none."""
        assert self.best is not None
        bounds = zip(self.columns["val_bound_bits"], itertools.count(1))
        worse = [pair for pair in bounds if pair > (self.best[0], epoch)]  # of equal ones the first is the best
        self.best = min((pair for pair in worse if pair[1] in others or pair[1] == self.epoch), default=None)

    def newest(self) -> dict:
        """The figures of the newest epoch."""
        return {name: column[-1] for name, column in self.columns.items()}

    def write_metrics(self, results: Path) -> None:
        """metrics.csv as it stands. It is small, so the whole of it: a killed run never leaves half a line."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.names)
        writer.writerows(zip(*self.columns.values()))
        write_own(results / "metrics.csv", text.getvalue().encode())

    def summary(self) -> dict:
        """The lists of results.json."""
        h = self.columns
        proportions = self.census.proportions(h) if self.census else {}
        return {
            "losses": h["loss_bits"],
            "examples_per_epoch": [None if rows is None else rows.tolist() for rows in self.examples],
            "proportions": {name: _or_none(shares) for name, shares in proportions.items()},
            "val_bounds": _or_none(h["val_bound_bits"]),
        }

    def looked_at(self) -> tuple[dict[str, list], list[np.ndarray]]:
        """Columns and examples of the epochs after which something was looked at."""
        kept = [k for k, rows in enumerate(self.examples) if rows is not None]
        columns = {name: [column[k] for k in kept] for name, column in self.columns.items()}
        return columns, [rows for rows in self.examples if rows is not None]

    def load(self, results: Path, epochs: int, shape: tuple[int, int]) -> None:
        """The first epochs of what a results folder holds. Raises InputError where something of it is missing or
        damaged. shape : of each epoch's examples"""
        try:
            examples = rundir.read_results(results)["examples_per_epoch"][:epochs]
            self.examples = [None if rows is None else np.array(rows, self.dtype) for rows in examples]
            whole = len(self.examples) == epochs and all(rows is None or rows.shape == shape for rows in self.examples)
        except (InputError, KeyError, TypeError, ValueError, OverflowError):
            whole = False
        _check(whole, results / "results.json")
        check_regular(results / "metrics.csv")
        try:
            with open(results / "metrics.csv", encoding="utf-8", newline="") as file:
                lines = list(itertools.islice(csv.DictReader(file), epochs))
            self.columns = {
                name: [(int if name in ("epoch", "step") else float)(line[name]) for line in lines]
                for name in self.names
            }
            whole = self.columns["epoch"] == list(range(1, epochs + 1))
        except (OSError, KeyError, TypeError, ValueError, OverflowError, csv.Error):
            whole = False
        _check(whole, results / "metrics.csv")


def _or_none(values: list[float]) -> list[float | None]:
    """As JSON has them, which knows no nan."""
    return [None if math.isnan(value) else value for value in values]


def _check(whole: bool, path: Path) -> None:
    if not whole:
        raise InputError(f"{path}: is missing or damaged; start anew, without --resume")
