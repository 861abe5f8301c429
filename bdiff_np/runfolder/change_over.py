"""How a training goes over from the back end that it begins on to one that is being set up meanwhile (`Run.later`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bdiff_np.errors import InputError
from bdiff_np.runfolder.progress import say_beside
from bdiff_np.runfolder.set_up import SetUp

if TYPE_CHECKING:
    from bdiff_np.runfolder.run import Run


def begin(run: Run) -> None:
    """Begins the set-up; where no process can be begun, the later back end takes all steps, and is set up in this
    one."""
    try:
        run.set_up = SetUp(run.later, run.training)
    except OSError:
        run.use(run.later)


def due(run: Run) -> bool:
    """Whether the set-up has ended, and the training should go over before its next step."""
    return run.set_up is not None and run.set_up.ended()


def go_over(run: Run, bar) -> None:
    """Takes the back end that has been set up, from the next step on, as from a checkpoint; where the set-up failed,
    the training stays where it is to the end. A line says which. Raises Diverged as Training.tensors does."""
    assert run.set_up is not None
    fault, name, before = run.set_up.fault, run.later, run.training
    end(run)
    if not fault:
        try:
            training = run.build(name)
        except InputError as reason:
            fault = str(reason)
    if fault:
        say_beside(bar, f"{name} could not be set up ({fault}); the training stays on {before.model.ops.name}")
        return
    training.restore(before.tensors(), before.optimizer.taken)
    training.optimizer.grad_norm = before.optimizer.grad_norm
    run.take(training)
    note(run)
    say_beside(bar, f"from step {before.optimizer.taken + 1} the training runs on {name}, which is ready now")


def end(run: Run) -> None:
    """Leaves nothing of the set-up."""
    if run.set_up is not None:
        run.set_up.stop()
        run.set_up, run.later = None, ""


def note(run: Run) -> None:
    """Adds the back end that takes the next step to those that took some."""
    name = run.training.model.ops.name
    if not run.backends or run.backends[-1][1] != name:
        run.backends.append((run.training.optimizer.taken + 1, name))
