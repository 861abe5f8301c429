"""Training a run folder: epochs, what is looked at between them, and when it is saved. The steps themselves are
train.py's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from bdiff_np import config as configuration
from bdiff_np import evaluate, memory, sample
from bdiff_np.backends import auto
from bdiff_np.backends.auto import AUTO
from bdiff_np.data import Data
from bdiff_np.errors import InputError
from bdiff_np.model import Model, family_of
from bdiff_np.nets.custom import FILE as CODE
from bdiff_np.nets.custom import NetFault
from bdiff_np.optim.adamw import Diverged
from bdiff_np.runfolder import change_over, held_out, rundir, saving, stopping
from bdiff_np.runfolder.choice import SPEAKING, Choice
from bdiff_np.runfolder.history import History
from bdiff_np.runfolder.lock import Lock
from bdiff_np.runfolder.looking import Asked, Looking
from bdiff_np.runfolder.progress import QUIET_SECONDS, Lines, pace, progress
from bdiff_np.runfolder.set_up import SetUp
from bdiff_np.runfolder.signals import Watch
from bdiff_np.train import Training

clock = time.monotonic  # for what is saved by the clock


class Run:
    """One training of a run folder, new or resumed.

    folder : the run folder. settings : its configuration. place : what a fault of a setting such as "data.shape" begins
        with, where it was given. given : the text that a new training keeps of how it was
    code : its own network's file, if any
    results : the results folder, once there is one, and `lock` on it. new : whether it was made for this training
    later : the back end on which the training goes on as soon as it is set up; empty where there is none
    backends : first step and name of each back end that took steps
    said : lines for a user, once it is resumed
    rows : training data and held-out data of a call from Python, which do not lie in the folder
    """

    def __init__(
        self,
        folder: Path,
        settings: configuration.Config,
        *,
        backend: str,
        code: Path | None,
        place: Callable[[str], str],
        given: bytes = b"",
        rows: tuple[Data, Data | None] | None = None,
    ):
        self.folder, self.settings, self.code, self.given = folder, settings, code, given
        self.results = Path()
        self.lock: Lock | None = None
        self.new = False
        self.said: Sequence[str] = ()
        self.family = family_of(settings)
        parts = held_out.read(self.family, folder, settings) if rows is None else held_out.of(*rows, settings)
        self.train_rows, self.val_rows, self.val_taken = parts
        self.choice = Choice(settings.training, 0 if self.val_rows is None else len(self.val_rows))
        faults = [f"{place(path)}: {reason}" for path, reason in self._disagreements(rows is None)]
        if faults:
            raise InputError("\n".join(faults))
        self.history = History(self.train_rows.census(self.val_rows, settings.data), self.train_rows.dtype)
        self.chain = self.family.make_chain(settings.model, self.train_rows)
        self.auto, self.chosen_because, self.later = backend == AUTO, "", ""
        self.take(self.build("numpy" if self.auto else backend))
        if self.auto:
            choice = auto.for_training(self.training)
            self.chosen_because = choice.reason
            self.use(choice.meanwhile or choice.backend)
            self.later = choice.backend if choice.meanwhile else ""
        self._reserve()
        self.net_file = CODE if code else settings.model.net
        self.loss_sum, self.loss_count, self.seconds, self.wall_seconds = 0.0, 0, 0.0, 0.0
        self.backends: list[tuple[int, str]] = []
        self.set_up: SetUp | None = None
        self.watch = Watch()
        self.saved_at = clock()

    def use(self, backend: str) -> None:
        """Another back end, before the first step, for all of them."""
        self.later = ""
        if backend != self.training.model.ops.name:
            self.take(self.build(backend))

    def build(self, backend: str) -> Training:
        """The training before its first step, on a back end."""
        model = Model.build(self.settings, self.train_rows.D, self.chain, backend=backend, code=self.code)
        return Training(model, self.train_rows)

    def take(self, training: Training) -> None:
        """What steps are taken of, and looked at, from now on."""
        self.training, self.looking = training, Looking(training, self.val_rows, self.history.census)
        self._at_once = 1  # steps between two looks at the signals and the progress bar

    def _reserve(self) -> None:
        """Raises InputError where a step needs more memory than the host has."""
        if self.training.model.ops.on_device:
            return
        try:
            self.training.reserve()
        except InputError:
            if not self.later:
                raise
            self.use(self.later)  # which may need less
            self._reserve()

    def release(self) -> None:
        """Lets others train the results folder, and leaves no process behind."""
        change_over.end(self)
        if self.lock is not None:
            self.lock.release()

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return self.history.epoch

    @property
    def finished(self) -> bool:
        """Whether there is no step left to take."""
        return self.epoch >= self.settings.training.epochs or self.choice.exhausted(self.history)

    def _disagreements(self, from_folder: bool) -> Iterator[tuple[str, str]]:
        """Settings that the data does not fit: name and reason."""
        yield from self.train_rows.misfits(self.settings.data)
        for name in ("num_val_samples", "num_examples"):
            n, rows = getattr(self.settings.training, name), self.train_rows
            need = sample.COPIES * n * rows.D * rows.dtype.itemsize
            if (fault := memory.fault(need, f"{n} rows of {rows.D} {rows.elements}", "take fewer")) is not None:
                yield f"training.{name}", fault
        fix = "give val="
        if from_folder:
            fix = f"put a val{self.train_rows.ENDINGS[0]} into {self.folder}, or say select: last"
        if self.settings.training.select == "best" and self.val_rows is None:
            yield "training.select", f"best needs held-out rows: {fix}"
        elif isinstance(self.settings.training.patience, int) and self.choice.select == "last":
            yield (
                "training.patience",
                f"needs {SPEAKING} held-out rows, or training.select: best (there are "
                f"{self.choice.held_out}); without it, leave patience out or null",
            )

    def compile(self) -> None:
        """Compiles what a training uses and is not compiled yet, and says so on stderr; it comes with the first use
        otherwise. Where the training is to go on elsewhere `later`, that back end's set-up begins."""
        if self.later:
            change_over.begin(self)
        self.training.compile()
        if self.training.fused is not None:
            sample.draw(self.training.averaged, 0)

    # The loop
    # ------------------------------------------------------------------------------------------------------------------

    def train(self, watch: Watch | None = None) -> str:
        """Runs to the end, to an early stop or to a signal; returns which: "finished", "early stop" or "interrupted".

        watch : one that stands already; else one of its own. Raises Stopped for a training that cannot go on.
        """
        if watch is None:
            with Watch() as watch:
                return self.train(watch)
        self.watch = watch
        change_over.note(self)
        # lines of the epochs come first
        bar = progress(self.training.total_steps, "training", self.training.optimizer.taken, quiet=3 * QUIET_SECONDS)
        self.saved_at = clock()
        try:
            with watch.patient():
                while not self.finished:
                    if not (self._steps_of_epoch(bar) and self._end_epoch()):
                        saving.save(self, self.epoch + 1)
                        return "interrupted"
                    if self._due():
                        saving.save(self, self.epoch)
                    elif self.looking.amounts.due(self.epoch):
                        self.history.write_metrics(self.results)
                    if isinstance(bar, Lines) and (self.finished or bar.silence() > QUIET_SECONDS):
                        bar.say(self.line())
                    if watch.number is not None:
                        return "interrupted"
            return "early stop" if self.epoch < self.settings.training.epochs else "finished"
        except Diverged as fault:
            raise stopping.diverged(self, fault) from None
        except NetFault as fault:
            raise stopping.net_failed(self, fault) from None
        except Exception:
            saving.discard(self)
            raise
        finally:
            bar.close()
            change_over.end(self)

    def _due(self) -> bool:
        """Whether the epoch that has just ended is to be saved."""
        best, every = self.history.best, self.settings.training.save_every_n_epochs
        return (
            self.epoch % every == 0
            or self.finished
            or self.watch.number is not None
            or self._overdue()
            or (self.choice.select == "best" and best is not None and best[1] == self.epoch)
            # of this epoch, saved within it and since completed
            or rundir.checkpoint_path(self.results, self.epoch).exists()
        )

    def _overdue(self) -> bool:
        """Whether the last checkpoint is too long ago."""
        minutes = self.settings.training.save_every_minutes
        return minutes is not None and clock() - self.saved_at >= 60 * minutes

    def _steps_of_epoch(self, bar) -> bool:
        """The steps that the epoch still lacks; False where a signal came meanwhile."""
        end = (self.epoch + 1) * self.training.steps_per_epoch
        while self.training.optimizer.taken < end and self.watch.number is None:
            if change_over.due(self):
                change_over.go_over(self, bar)
            self._steps(end, bar)
        return self.watch.number is None

    def _steps(self, end: int, bar) -> None:
        """Steps up to step `end`, to a signal, or until another back end is set up."""
        training = self.training
        # the norm tells of numbers that are none, in a sentence
        with training.model.threads, np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            while training.optimizer.taken < end and self.watch.number is None:
                if change_over.due(self):
                    return
                before, count = time.perf_counter(), min(self._at_once, end - training.optimizer.taken)
                losses = training.advance(count)
                seconds = time.perf_counter() - before
                self.seconds += seconds
                for loss in losses:  # one by one, so that the sum does not depend on the calls
                    self.loss_sum += loss
                    self.loss_count += 1
                if not math.isfinite(self.loss_sum):
                    reason = f"the loss is not a finite number after step {training.optimizer.taken}"
                    raise Diverged(reason, spoilt=True)
                bar.update(count)
                if self.loss_count and training.optimizer.taken % 64 < count:
                    loss = self.loss_sum / self.loss_count / evaluate.LN2
                    bar.set_postfix_str(f"epoch {self.epoch + 1}, {loss:.3f} bits", refresh=False)
                if training.fused is not None:
                    self._at_once = min(training.most_at_once, pace(count, seconds))
                if self._overdue():
                    saving.save(self, self.epoch + 1)

    def _end_epoch(self) -> bool:
        """Loss, validation bound, samples: one line of metrics, one frame of the animation. False where a signal came
        meanwhile: what is looked at is looked at after --resume then."""
        optimizer = self.training.optimizer
        self.training.check_finite()
        figures: dict[str, float] = {}
        examples = None
        if self.looking.amounts.due(self.epoch + 1):
            try:
                figures, examples = self.looking.look(self.watch)
            except Asked:
                return False
            except evaluate.NotFinite:
                reason = f"the bound of the held-out rows is not a finite number after step {optimizer.taken}"
                raise Diverged(reason, spoilt=True) from None
        self.history.add(
            {
                **figures, "epoch": self.epoch + 1, "step": optimizer.taken, "seconds": round(self.seconds, 3),
                "loss_bits": self.loss_sum / max(1, self.loss_count) / evaluate.LN2,
                "learning_rate": optimizer.learning_rate(optimizer.taken), "gradient_norm": optimizer.grad_norm,
            },
            examples,
        )  # fmt: skip
        self.loss_sum, self.loss_count = 0.0, 0
        return True

    def line(self) -> str:
        """The newest epoch in one line."""
        h = self.history.newest()
        val = "" if math.isnan(h["val_bound_bits"]) else f", val bound {h['val_bound_bits']:.4f}"
        shares = "" if self.history.examples[-1] is None else self.looking.shares(h)
        done = f"epoch {h['epoch']}/{self.settings.training.epochs}, step {h['step']}, {h['seconds']:.0f} s"
        return f"{done}: loss {h['loss_bits']:.4f} bits{val}{f', {shares}' if shares else ''}"

    def tick(self) -> None:
        """Counts the time since the last checkpoint; saving.save calls it."""
        now = clock()
        self.wall_seconds, self.saved_at = self.wall_seconds + now - self.saved_at, now

    def summary(self) -> dict:
        """What results.json holds after each checkpoint."""
        best = self.history.best
        return {
            **self.history.summary(),
            "chosen_epoch": best[1] if self.choice.select == "best" and best else None,
            "training_seconds": round(self.seconds, 3),  # in optimiser steps
            "wall_seconds": round(self.wall_seconds, 3),  # with samples, bounds and files on the way
            "backends": [{"from_step": step, "name": name} for step, name in self.backends],
        }
