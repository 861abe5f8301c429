"""How much is looked at between epochs: so much that it takes a tenth of the time of the steps at most.

The amounts follow from sizes and never from a clock: one seed gives one history, on every machine and back end. What
the parts cost is counted in rows of a training step, by the back end where they cost most in this measure (Numba, whose
steps are fused and whose bound is not).
"""

from __future__ import annotations

import math
from typing import NamedTuple

SHARE = 0.1
LEAST_ROWS = 64_000  # a shorter epoch counts as one of so many rows: looking then takes some hundredths of a second
EVALUATION, SAMPLE_STEP = 3.0, 1 / 3  # a row of the bound, a row of a step of the sampler
GROUP, DRAW_STEP = 75, 12  # what they cost beside, whatever the number of rows: of a group of the bound, of a step
GROUPS = 8  # of the bound; no standard error is asked for here
LEAST_EVALUATIONS, LEAST_SAMPLES = 768, 64


class Amounts(NamedTuple):
    """every : epochs from one look to the next. evaluations : of the bound, 0 where no rows are held out
    samples : rows drawn to be counted"""

    every: int
    evaluations: int
    samples: int


def between_epochs(rows: int, *, evaluations: int, samples: int, examples: int, steps: int) -> Amounts:
    """What is looked at after epochs of so many rows, each counted as often as a step shows it.

    evaluations, samples : at most. examples : rows drawn for the pictures, which are among the samples
    steps : of the chain for each row that is drawn
    """
    budget = SHARE * max(rows, LEAST_ROWS)
    few, drawn = min(evaluations, LEAST_EVALUATIONS), max(examples, min(samples, LEAST_SAMPLES))
    least = steps * (DRAW_STEP + drawn * SAMPLE_STEP)
    if evaluations:
        least += GROUPS * GROUP + few * EVALUATION
    every = math.ceil(least / budget)
    left = every * budget - least
    more = min(evaluations - few, int(left / 2 / EVALUATION))
    left -= more * EVALUATION
    more_drawn = min(max(samples - drawn, 0), int(left / (steps * SAMPLE_STEP)))
    left -= more_drawn * steps * SAMPLE_STEP
    more += min(evaluations - few - more, int(left / EVALUATION))  # what the samples leave over
    return Amounts(every, few + more, min(samples, drawn + more_drawn))
