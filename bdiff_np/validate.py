"""What samples are: rows of the training data, held-out rows, valid but unseen rows, or none of these."""

from __future__ import annotations

import numpy as np

from bdiff_np.data import Rows


def census(samples: Rows, train: Rows, val: Rows | None, rule=None) -> dict:
    """Counts what samples are.

    rule : a rule of `generators`, if the data obeys one

    Returns
    -------
    n, distinct : how many samples, and how many different ones
    train, val, other : shares of the samples; they sum to 1. A row in both files counts as train
    train_found, val_found : different rows of each that were drawn; train_rows, val_rows : out of how many
    With a rule also: valid : share that obeys it; valid_unseen : share that obeys it and is in neither file;
    valid_found and valid_rows : coverage, different valid rows drawn out of all that there are
    """
    drawn = samples.keys().tolist()
    known = set(train.keys().tolist())
    held_out = set(val.keys().tolist()) - known if val is not None else set()
    is_train = np.array([row in known for row in drawn], bool)
    is_val = np.array([row in held_out for row in drawn], bool)
    n, distinct = len(drawn), set(drawn)
    share = lambda mask: float(mask.sum() / n) if n else 0.0  # noqa: E731
    found = {
        "n": n,
        "distinct": len(distinct),
        "train": share(is_train),
        "val": share(is_val),
        "other": share(~(is_train | is_val)),
        "train_found": len(distinct & known),
        "train_rows": len(known),
        "val_found": len(distinct & held_out),
        "val_rows": len(held_out),
    }
    if rule is not None:
        valid = rule.valid(samples.all()) if n else np.zeros(0, bool)
        found |= {
            "valid": share(valid),
            "valid_unseen": share(valid & ~(is_train | is_val)),
            "valid_found": len({row for row, good in zip(drawn, valid) if good}),
            "valid_rows": rule.count(samples.D),
        }
    return found
