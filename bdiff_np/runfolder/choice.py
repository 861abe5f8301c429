"""What the bound of the held-out rows decides: which epoch a run stands for, whether training stops early, and whether
it is called overfitting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bdiff_np.runfolder.history import History

SPEAKING = 30  # held-out rows from which their bound chooses an epoch, and ends a training, unasked
PATIENCE = 10  # epochs at least before a training ends unasked,
NOTEWORTHY = 0.02  # and by which share of its least the bound must have risen then, or to be called overfitting


@dataclass(frozen=True)
class Choice:
    """settings : the section `training`. held_out : how many rows are"""

    settings: Any
    held_out: int

    @property
    def speaking(self) -> bool:
        """Whether enough rows are held out for their bound to decide something unasked."""
        return self.held_out >= SPEAKING

    @property
    def select(self) -> str:
        """Which epoch the run stands for, "last" or "best"."""
        return self.settings.select or ("best" if self.speaking else "last")

    @property
    def patience(self) -> int | None:
        """Epochs without a better bound of the held-out rows before training stops; None: it does not."""
        patience = self.settings.patience
        if patience is None and self.speaking:
            patience = max(PATIENCE, -(-self.settings.epochs // 4))
        return patience if isinstance(patience, int) and self.select == "best" else None

    def exhausted(self, history: History) -> bool:
        """Whether the newest bound of the held-out rows ends the training early: it has been no better for as many
        epochs as `patience` says and, where nobody set that, it has risen. A bound that stays where it is may still
        fall when the learning rate does."""
        if self.patience is None or history.best is None or math.isnan(history.columns["val_bound_bits"][-1]):
            return False
        if self.settings.patience is None and not risen(history):
            return False
        return history.epoch - history.best[1] >= self.patience


def risen(history: History) -> bool:
    """Whether the last bound of the held-out rows is worse than the least by a noteworthy share of it. Bounds may be
    negative: those of real numbers are."""
    bounds = [bits for bits in history.columns["val_bound_bits"] if not math.isnan(bits)]
    if not bounds or history.best is None:
        return False
    least, _ = history.best
    return bounds[-1] - least > NOTEWORTHY * abs(least)
