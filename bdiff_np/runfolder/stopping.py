"""A training that cannot go on: what is left of it, and the sentence that says so."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from bdiff_np.errors import InputError
from bdiff_np.nets.custom import FILE as CODE
from bdiff_np.nets.custom import NetFault
from bdiff_np.optim.adamw import Diverged
from bdiff_np.runfolder import rundir, saving

if TYPE_CHECKING:
    from bdiff_np.runfolder.run import Run

GENTLER = (
    "Start anew with a lower training.lr, a longer training.warmup_steps, a smaller training.clip_thresh or less "
    "training.weight_decay"
)


class Stopped(RuntimeError):
    """A training that cannot go on, in one sentence with the cause and what is left."""


def diverged(run: Run, fault: Diverged) -> Stopped:
    """What to raise when numbers are none. Whole epochs since the last checkpoint are saved, as of the step before, if
    that is what the weights are of."""
    if not fault.spoilt and run.epoch > max(rundir.checkpoints(run.results), default=0):
        with suppress(Diverged, InputError):  # not finite either, or a disk that is full: told is why it stops
            saving.save(run, run.epoch + 1)
    saving.discard(run)
    optimizer = run.training.optimizer
    return Stopped(
        f"training stopped in epoch {run.epoch + 1}: {fault} (learning rate "
        f"{optimizer.learning_rate(optimizer.taken + 1):.3g}); {_left(run)}. {GENTLER}"
    )


def net_failed(run: Run, fault: NetFault) -> InputError:
    """What to raise when the user's own network fails. What was trained until then is saved, if it is of any use."""
    at, no_numbers = f"epoch {run.epoch + 1}, after {run.training.optimizer.taken} steps", None
    if run.training.optimizer.taken:
        try:
            saving.save(run, run.epoch + 1)
        except Diverged as found:
            no_numbers = found
    saving.discard(run)
    said = f"{fault}; training stopped in {at}"
    if no_numbers is not None:
        return InputError(f"{said}: {no_numbers}; {_left(run)}. {GENTLER}")
    if not rundir.checkpoints(run.results):
        return InputError(f"{said}; {_left(run)}")
    return InputError(
        f"{said}; {_left(run)}; mend {run.results / CODE} and go on with: python cli.py train {run.folder} --resume"
    )


def _left(run: Run) -> str:
    kept = rundir.checkpoints(run.results)
    if kept:
        return f"the last good checkpoint is {list(kept.values())[-1]}"
    return "there is no checkpoint yet" + ("" if run.results.exists() else ", and nothing is left behind")
