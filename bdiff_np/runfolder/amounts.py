"""How much is looked at between epochs: so much that it takes a tenth of the time of the steps at most.

The amounts follow from sizes and never from a clock: one seed gives one history, on every machine and back end. What
the parts cost is counted in rows of a training step, by the back end where they cost most in this measure (Numba).
"""

from __future__ import annotations

import math
from typing import NamedTuple

SHARE = 0.06  # the first epochs, and the files, take the rest of the tenth
FIRST = 4  # epochs that are looked at whatever it takes, so that a short training has its curves
LEAST_ROWS = 64_000  # a shorter epoch counts as one of so many rows: looking then takes some hundredths of a second
EVALUATION, SAMPLE_STEP = 2.5, 1 / 3  # a row of the bound (1.5 of 20 bits, 2.5 of 100, 0.9 of 784), of a sampler's step
GROUP, DRAW_STEP = 75, 8  # what they cost beside, whatever the number of rows: of a group of the bound, of a step
GROUPS = 8  # of the bound; no standard error is asked for here
LEAST_EVALUATIONS, LEAST_SAMPLES = 3072, 128


class Amounts(NamedTuple):
    """every : epochs from one look to the next. evaluations : of the bound, 0 where no rows are held out
    samples : rows drawn to be counted"""

    every: int
    evaluations: int
    samples: int

    def due(self, epoch: int) -> bool:
        """Whether it is looked after an epoch, 1 being the first; it does not depend on how many there will be."""
        return epoch <= FIRST or epoch % self.every == 0


def between_epochs(rows: int, *, evaluations: int, samples: int, examples: int, steps: int) -> Amounts:
    """What is looked at after epochs of so many rows, each counted as often as a step shows it.

    evaluations, samples : at most. examples : rows drawn for the pictures, all of them each time
    steps : of the chain for each row that is drawn
    """
    budget, each = SHARE * max(rows, LEAST_ROWS), steps * SAMPLE_STEP
    few, drawn = min(evaluations, LEAST_EVALUATIONS), min(samples, LEAST_SAMPLES)
    least = steps * DRAW_STEP + examples * each
    if samples:
        least += steps * DRAW_STEP + drawn * each
    if evaluations:
        least += GROUPS * GROUP + few * EVALUATION
    every = math.ceil(least / budget)
    left = every * budget - least
    more = min(evaluations - few, int(left / 2 / EVALUATION))
    more_drawn = min(samples - drawn, int((left - more * EVALUATION) / each))
    left -= more * EVALUATION + more_drawn * each
    more += min(evaluations - few - more, int(left / EVALUATION))  # what the samples leave over
    return Amounts(every, few + more, drawn + more_drawn)
