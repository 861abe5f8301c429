"""What is looked at between epochs: samples, and the bound of the held-out rows, both of the averaged weights."""

from __future__ import annotations

import numpy as np

from bdiff_np import evaluate, sample
from bdiff_np.data import Data
from bdiff_np.runfolder import amounts
from bdiff_np.runfolder.signals import Watch
from bdiff_np.train import Training

VAL_EVALUATIONS = 1 << 14  # for the bound of the held-out rows after an epoch, at most


class Asked(Exception):
    """A signal asks to leave what is being looked at."""


class Looking:
    """training : whose weights. val_rows : held out, or None. census : of samples (data.Census), or None
    amounts : how much is looked at. steps : of the chain for samples, None for all
    """

    def __init__(self, training: Training, val_rows: Data | None, census):
        self.training, self.val_rows, self.census = training, val_rows, census
        model, wanted = training.model, training.settings.sample_steps
        every = wanted is None or wanted >= training.T or model.family.all_steps(model.config.model)
        self.steps = None if every else wanted
        self.amounts = amounts.between_epochs(
            training.steps_per_epoch * training.batch_rows * training.repeats,
            evaluations=VAL_EVALUATIONS if val_rows is not None else 0,
            samples=training.settings.num_val_samples if census else 0,
            examples=training.settings.num_examples,
            steps=self.steps or training.T,
        )
        self._exact: dict[str, float] | None = None  # terms of the bound that know no weights

    def look(self, watch: Watch) -> tuple[dict[str, float], np.ndarray]:
        """Figures, and the samples for the pictures. Raises Asked where a signal comes meanwhile."""
        t, model, much = self.training.settings, self.training.averaged, self.amounts
        figures: dict[str, float] = {}

        def heed(*_) -> None:
            if watch.number is not None:
                raise Asked

        examples = sample.draw(model, t.num_examples, seed=t.seed, steps=self.steps, progress=heed)
        if self.census:
            batch = max(t.val_batch_size, 1024)
            rows = sample.draw(model, much.samples, seed=t.seed + 1, steps=self.steps, batch=batch, progress=heed)
            figures = self.census(model.kind.from_array(rows))
        if self.val_rows is not None:
            self._exact = self._exact or evaluate.exact_terms(model, model.chain, self.val_rows)
            bound = evaluate.bound(
                model, self.val_rows, evaluations=much.evaluations, seed=t.seed, progress=heed,
                groups=amounts.GROUPS, exact=self._exact,
            )  # fmt: skip
            figures["val_bound_bits"] = bound.bits_per_sequence
        return figures, examples

    def shares(self, figures: dict) -> str:
        """The figures of samples in words; empty where none are drawn."""
        if not self.census or not self.amounts.samples:
            return ""
        return f"samples of {self.steps or self.training.T} steps: {self.census.shares(figures)}"
