"""What samples are: rows of the training data, held-out rows, valid but unseen rows, or none of these."""

from __future__ import annotations

import numpy as np

from bdiff_np.data.bits import Rows


class Census:
    """Counts what samples are: `census(samples)`, as often as needed, for one set of files.

    train, val : the files' rows. rule : a rule of `generators`, if the data obeys one
    """

    def __init__(self, train: Rows, val: Rows | None, rule=None):
        self.known = set(train.keys().tolist())
        self.held_out = set(val.keys().tolist()) - self.known if val is not None else set()
        self.rule = rule

    def __call__(self, samples: Rows) -> dict:
        """
        Returns
        -------
        n, distinct : how many samples, and how many different ones
        train, val, other : shares of the samples; they sum to 1. A row in both files counts as train
        train_found, val_found : different rows of each that were drawn; train_rows, val_rows : out of how many
        With a rule also: valid : share that obeys it; valid_unseen : share that obeys it and is in neither file;
        valid_found and valid_rows : coverage, different valid rows drawn out of all that there are
        """
        drawn, n = samples.keys().tolist(), len(samples)
        distinct = set(drawn)
        is_train = np.array([row in self.known for row in drawn], bool)
        is_val = np.array([row in self.held_out for row in drawn], bool)
        found = {
            "n": n,
            "distinct": len(distinct),
            "train": _share(is_train),
            "val": _share(is_val),
            "other": _share(~(is_train | is_val)),
            "train_found": len(distinct & self.known),
            "train_rows": len(self.known),
            "val_found": len(distinct & self.held_out),
            "val_rows": len(self.held_out),
        }
        if self.rule is not None:
            valid = self.rule.valid(samples.all()) if n else np.zeros(0, bool)
            found |= {
                "valid": _share(valid),
                "valid_unseen": _share(valid & ~(is_train | is_val)),
                "valid_found": len({row for row, good in zip(drawn, valid) if good}),
                "valid_rows": self.rule.count(samples.D),
            }
        return found


def _share(which: np.ndarray) -> float:
    return float(which.mean()) if which.size else 0.0


def census(samples: Rows, train: Rows, val: Rows | None, rule=None) -> dict:
    """What samples are, once: see `Census`."""
    return Census(train, val, rule)(samples)
