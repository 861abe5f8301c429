"""The rows of a run folder: its training rows, and those held out, in a file of their own or taken from the training
rows."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from bdiff_np import rng
from bdiff_np.data import Data, read_run, refuse_missing
from bdiff_np.diffusion import Family
from bdiff_np.model import kind_of
from bdiff_np.rng import Key
from bdiff_np.runfolder.choice import SPEAKING

# Without a val file one row in SHARE is held out, MOST at most; of fewer rows than LEAST none, for the bound of those
# held out would decide nothing, and the training rows would miss them.
SHARE, MOST = 20, 10_000
LEAST = SPEAKING * SHARE


class Rows(NamedTuple):
    """train, val : the rows, None where none are held out. taken : whether val was taken from the file of train"""

    train: Data
    val: Data | None
    taken: bool


def read(family: Family, folder: Path, settings) -> Rows:
    """The rows of a run folder as a configuration asks for them: a function of the files, of data.val and of
    training.seed. Raises InputError as `read_run` does, and for missing values that the family cannot take."""
    train, val = read_run(kind_of(family), folder)
    refuse_missing(family, train, val)
    return of(train, val, settings)


def of(train: Data, val: Data | None, settings) -> Rows:
    """The same of rows that have been read."""
    if val is not None or settings.data.val == "none" or len(train) < LEAST:
        return Rows(train, val, False)
    order = rng.permutation(Key(settings.training.seed, rng.SPLIT, 0), len(train))
    taken = np.zeros(len(train), bool)
    taken[order[: min(len(train) // SHARE, MOST)]] = True
    return Rows(train.select(~taken), train.select(taken), True)
