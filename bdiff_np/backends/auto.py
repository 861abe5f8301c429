"""Which back end `--backend auto` takes: the fastest here for the work at hand, the wait for a compiler included.

The rule, from the measurements in benchmarks/RESULTS.md: estimate what the work takes on NumPy, and ask each back end
that has kernels for the family whether it saves more of that than its start costs (`Backend.propose`). A network that
no back end can fuse stays on NumPy. A training need not wait for a compiler: NumPy takes its steps until that is done.
"""

from __future__ import annotations

from typing import NamedTuple

from bdiff_np import backends
from bdiff_np.backends import Estimate, Work
from bdiff_np.backends.numpy_backend import ELEMENT, PARAMETER, STEP, TRAINING, UNIT
from bdiff_np.errors import InputError

AUTO = "auto"  # the name with which a user asks for it


class Choice(NamedTuple):
    """A back end and, in words, why; `meanwhile` as in backends.Estimate."""

    backend: str
    reason: str
    meanwhile: str = ""


def for_training(training) -> Choice:
    """For all steps of a train.Training."""
    rows = training.total_steps * training.batch_rows * training.repeats
    return _choose(training.model, training.total_steps * STEP + TRAINING * _seconds(training.model, rows), "training")


def for_sampling(model, rows: int, steps: int) -> Choice:
    """For walking rows back through so many steps of the chain."""
    return _choose(model, _seconds(model, rows * steps), "sampling")


def for_evaluation(model, evaluations: int) -> Choice:
    """For so many values of the KL."""
    return _choose(model, _seconds(model, evaluations) + ELEMENT * model.D * evaluations, "evaluation")


def _seconds(model, rows: float) -> float:
    """For rows through the network once, on NumPy."""
    return rows * (PARAMETER * model.params.flat.size + UNIT * model.net.units())


def _choose(model, seconds: float, kind: str) -> Choice:
    if model.net.stages is None:
        return Choice("numpy", "this network has no compiled form")
    work, best = Work(kind, seconds, model.family.name, model.net.dense is not None), Estimate("numpy", seconds, "")
    for name in backends.in_order():
        if not model.has_kernels(name):
            if not best.reason:
                best = best._replace(reason=f"{name} has no kernels for the family {work.family}")
            continue
        try:
            best = backends.find(name).propose(work, best)
        except InputError as fault:  # of a file that cannot be imported
            best = best._replace(reason=f"{best.reason}; {fault}".removeprefix("; "))
    return Choice(best.backend, best.reason, best.meanwhile)
