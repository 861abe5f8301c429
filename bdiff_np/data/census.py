"""What samples are: rows of the training data, held-out rows, valid but unseen rows, or none of these."""

from __future__ import annotations

import numpy as np


class RowCensus:
    """Counts what samples are: `census(samples)`, as often as needed, for one set of files.

    train, val : the files' rows, of a kind of data that has keys(). rule : a rule of `generators`, if the data obeys
        one
    """

    names = ("train", "val", "other", "valid_unseen")  # the figures that metrics.csv follows over the epochs

    def __init__(self, train, val=None, rule=None):
        self.known = set(train.keys().tolist())
        self.held_out = set(val.keys().tolist()) - self.known if val is not None else set()
        self.rule, self.has_val = rule, val is not None

    def __call__(self, samples) -> dict:
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
        counts = {
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
            counts |= {
                "valid": _share(valid),
                "valid_unseen": _share(valid & ~(is_train | is_val)),
                "valid_found": len({row for row, good in zip(drawn, valid) if good}),
                "valid_rows": self.rule.count(samples.D),
            }
        return counts

    def words(self, counts: dict) -> str:
        """The same for people."""
        c = counts
        lines = [
            f"samples    {c['n']}: {c['train']:.2%} training rows ({c['train_found']} of {c['train_rows']} different "
            "ones)"
        ]
        if c["val_rows"]:
            lines.append(f"           {c['val']:.2%} held-out rows ({c['val_found']} of {c['val_rows']})")
        if "valid" in c:
            drawn = f"{c['valid_found']} of {c['valid_rows']} valid rows drawn"
            lines.append(
                f"           {c['valid_unseen']:.2%} valid but in neither file, {1 - c['valid']:.2%} invalid; {drawn}"
            )
        else:
            lines.append(f"           {c['other']:.2%} others; {c['distinct']} different rows in all")
        return "\n".join(lines)

    def proportions(self, columns: dict) -> dict:
        """The figures over the epochs as results.json has them; columns : name -> one value an epoch"""
        return {name: columns[name] for name in self.names if name != "valid_unseen" or self.rule is not None}

    def stack(self, columns: dict) -> dict:
        """The same as shares that sum to 1, for the picture of areas."""
        shares = self.proportions(columns)
        if self.rule is not None:
            shares["other"] = [other - unseen for other, unseen in zip(shares["other"], shares["valid_unseen"])]
        return shares

    def shares(self, counts: dict) -> str:
        """The same in half a line; counts : the figures named in `names`"""
        held_out = f"{counts['val']:.1%} val, " if self.has_val else ""
        return f"{counts['train']:.1%} train, {held_out}{counts['other']:.1%} other"


def _share(which: np.ndarray) -> float:
    return float(which.mean()) if which.size else 0.0
