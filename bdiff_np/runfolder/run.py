"""Training a run folder: epochs, samples on the way, checkpoints, metrics, pictures, Ctrl-C and resume. The steps
themselves are train.py's."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bdiff_np import config as configuration
from bdiff_np import evaluate, memory, sample
from bdiff_np.backends import auto
from bdiff_np.backends.auto import AUTO
from bdiff_np.data import read_run
from bdiff_np.errors import InputError
from bdiff_np.model import Model, family_of, kind_of
from bdiff_np.nets.custom import FILE as CODE
from bdiff_np.nets.custom import NetFault
from bdiff_np.optim.adamw import Diverged
from bdiff_np.runfolder import rundir, saving
from bdiff_np.runfolder.history import History
from bdiff_np.runfolder.progress import QUIET_SECONDS, Lines, pace, progress
from bdiff_np.train import Training

VAL_EVALUATIONS = 1 << 14  # for the bound of the validation rows after each epoch


class Run:
    """One training of a run folder, new or resumed.

    folder : the run folder. settings : its configuration, read from the file `source` and the options `sets`. code :
        its own network's file, if any
    results : the results folder, once there is one
    """

    def __init__(
        self,
        folder: Path,
        settings: configuration.Config,
        *,
        backend: str,
        code: Path | None,
        source: Path,
        sets: Sequence[str] = (),
    ):
        self.folder, self.settings, self.code = folder, settings, code
        self.results = Path()
        self.family = family_of(settings)
        self.train_rows, self.val_rows = read_run(kind_of(self.family), folder)
        faults = list(self._disagreements())
        if faults:
            raise InputError(
                "\n".join(f"{configuration.place(source, path, sets)}: {path}: {reason}" for path, reason in faults)
            )
        chain = self.family.make_chain(settings.model, self.train_rows)
        self._build = lambda name: Training(
            Model.build(settings, self.train_rows.D, chain, backend=name, code=code), self.train_rows
        )
        self.auto, self.chosen_because = backend == AUTO, ""
        self.training = self._build("numpy" if self.auto else backend)
        if self.auto:
            choice = auto.for_training(self.training)
            self.chosen_because = choice.reason
            self.use(choice.backend)
        if not self.training.model.ops.on_device:
            self.training.reserve()
        self.net_file = CODE if code else settings.model.net
        self.history = History(self.train_rows.census(self.val_rows, settings.data), self.train_rows.dtype)
        self.loss_sum, self.loss_count, self.seconds, self.wall_seconds = 0.0, 0, 0.0, 0.0
        self.stop = False
        self._at_once = 1  # steps between two looks at Ctrl-C and the progress bar

    def use(self, backend: str) -> None:
        """Another back end, before the first step."""
        if backend != self.training.model.ops.name:
            self.training = self._build(backend)

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return self.history.epoch

    def _disagreements(self) -> Iterator[tuple[str, str]]:
        """Settings that the data does not fit: name and reason."""
        yield from self.train_rows.misfits(self.settings.data)
        for name in ("num_val_samples", "num_examples"):
            n, rows = getattr(self.settings.training, name), self.train_rows
            need = sample.COPIES * n * rows.D * rows.dtype.itemsize
            if (fault := memory.fault(need, f"{n} rows of {rows.D} {rows.elements}", "take fewer")) is not None:
                yield f"training.{name}", fault
        if self.settings.training.select == "best" and self.val_rows is None:
            yield (
                "training.select",
                f"best needs held-out rows: put a val{self.train_rows.ENDINGS[0]} into {self.folder}, or say select: "
                "last",
            )

    def compile(self) -> None:
        """Compiles what a training uses and is not compiled yet, and says so on stderr; it comes with the first use
        otherwise."""
        self.training.compile()
        if self.training.fused is not None:
            sample.draw(self.training.averaged, 0)

    # The loop
    # ------------------------------------------------------------------------------------------------------------------

    def train(self) -> str:
        """Runs to the end, to an early stop or to Ctrl-C; returns which: "finished", "early stop" or "interrupted"."""
        total = self.training.total_steps
        before = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, self._on_interrupt)
        # lines of the epochs come first
        bar = progress(total, "training", self.training.optimizer.taken, quiet=3 * QUIET_SECONDS)
        self._clock = time.monotonic()
        try:
            while self.epoch < self.settings.training.epochs and not self._exhausted():
                self._steps_of_epoch(bar)
                if self.stop:
                    saving.save(self, self.epoch + 1)
                    return "interrupted"
                self._end_epoch()
                due = (
                    self.epoch % self.settings.training.save_every_n_epochs == 0
                    or self.epoch == self.settings.training.epochs
                )
                best = (
                    self.settings.training.select == "best"
                    and self.history.best is not None
                    and self.history.best[1] == self.epoch
                )
                # of this epoch, interrupted and since completed
                stale = rundir.checkpoint_path(self.results, self.epoch).exists()
                if due or best or stale or self.stop or self._exhausted():
                    saving.save(self, self.epoch)
                if isinstance(bar, Lines) and (
                    self.epoch == self.settings.training.epochs or bar.silence() > QUIET_SECONDS
                ):
                    bar.say(self.line())
                if self.stop:
                    return "interrupted"
            return "early stop" if self._exhausted() else "finished"
        except NetFault as fault:
            raise InputError(f"{fault}; {self._stopped_by_its_network()}") from None
        except Exception:
            saving.discard(self)
            raise
        finally:
            bar.close()
            signal.signal(signal.SIGINT, before)

    def _stopped_by_its_network(self) -> str:
        """Saves what was trained before the user's own network failed; says where, and how to go on."""
        if self.training.optimizer.taken:
            saving.save(self, self.epoch + 1)
        saving.discard(self)
        kept, at = rundir.checkpoints(self.results), f"epoch {self.epoch + 1}, after {self.training.optimizer.taken}"
        if not kept:
            return f"training stopped in {at} steps; there is no checkpoint yet, and nothing is left behind"
        return (
            f"training stopped in {at} steps; the last good checkpoint is {list(kept.values())[-1]}; mend "
            f"{self.results / CODE} and go on with: python cli.py train {self.folder} --resume"
        )

    def _on_interrupt(self, *_) -> None:
        if self.stop:  # the second time: at once
            raise KeyboardInterrupt
        self.stop = True
        print("\nCtrl-C: finishing the step, saving, drawing the pictures (again to leave at once)", file=sys.stderr)

    def _steps_of_epoch(self, bar) -> None:
        training, end = self.training, (self.epoch + 1) * self.training.steps_per_epoch
        start = time.perf_counter()
        try:
            # the norm tells, in a sentence
            with training.model.threads, np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                while training.optimizer.taken < end and not self.stop:
                    before, count = time.perf_counter(), min(self._at_once, end - training.optimizer.taken)
                    for loss in training.advance(count):
                        self.loss_sum += loss
                        self.loss_count += 1
                    bar.update(count)
                    if self.loss_count and training.optimizer.taken % 64 < count:
                        loss = self.loss_sum / self.loss_count / evaluate.LN2
                        bar.set_postfix_str(f"epoch {self.epoch + 1}, {loss:.3f} bits", refresh=False)
                    if training.fused is not None:
                        self._at_once = min(training.most_at_once, pace(count, time.perf_counter() - before))
        except Diverged as fault:
            kept = rundir.checkpoints(self.results)
            good = f"the last good checkpoint is {list(kept.values())[-1]}" if kept else "there is no checkpoint yet"
            good += "" if kept or self.epoch else ", and nothing is left behind"
            rate = training.optimizer.learning_rate(training.optimizer.taken + 1)
            raise Stopped(
                f"training stopped in epoch {self.epoch + 1}: {fault} (learning rate {rate:.3g}); {good}. "
                f"Start anew with a lower training.lr, a longer training.warmup_steps or a smaller training.clip_thresh"
            ) from None
        finally:
            self.seconds += time.perf_counter() - start

    def _end_epoch(self) -> None:
        """Loss, validation bound, samples: one line of metrics, one frame of the animation."""
        t, model, optimizer = self.settings.training, self.training.averaged, self.training.optimizer
        steps, census = self._sample_steps(), self.history.census
        examples = sample.draw(model, t.num_examples, seed=t.seed, steps=steps)
        figures = {}
        if census:
            drawn = sample.draw(
                model, t.num_val_samples, seed=t.seed + 1, steps=steps, batch=max(t.val_batch_size, 1024)
            )
            figures = census(model.kind.from_array(drawn))
        val_bound = math.nan
        if self.val_rows is not None:
            val_bound = evaluate.bound(model, self.val_rows, evaluations=VAL_EVALUATIONS, seed=t.seed).bits_per_sequence
        self.history.add(
            {
                **figures, "epoch": self.epoch + 1, "step": optimizer.taken, "seconds": round(self.seconds, 3),
                "loss_bits": self.loss_sum / max(1, self.loss_count) / evaluate.LN2, "val_bound_bits": val_bound,
                "learning_rate": optimizer.learning_rate(optimizer.taken), "gradient_norm": optimizer.grad_norm,
            },
            examples,
        )  # fmt: skip
        self.loss_sum, self.loss_count = 0.0, 0
        self.history.write_metrics(self.results)

    def _sample_steps(self) -> int | None:
        wanted, model = self.settings.training.sample_steps, self.settings.model
        return None if wanted is None or wanted >= self.training.T or self.family.all_steps(model) else wanted

    def _exhausted(self) -> bool:
        patience, best = self.settings.training.patience, self.history.best
        return patience is not None and best is not None and self.epoch - best[1] >= patience

    def line(self) -> str:
        """The newest epoch in one line."""
        h, census = self.history.newest(), self.history.census
        val = "" if math.isnan(h["val_bound_bits"]) else f", val bound {h['val_bound_bits']:.4f}"
        shares = f", samples of {self._sample_steps() or self.training.T} steps: {census.shares(h)}" if census else ""
        done = f"epoch {h['epoch']}/{self.settings.training.epochs}, step {h['step']}, {h['seconds']:.0f} s"
        return f"{done}: loss {h['loss_bits']:.4f} bits{val}{shares}"

    def tick(self) -> None:
        """Counts the time since the last look at the clock."""
        now = time.monotonic()
        self.wall_seconds, self._clock = self.wall_seconds + now - self._clock, now

    def summary(self) -> dict:
        """What results.json holds after each checkpoint."""
        best = self.history.best
        return {
            **self.history.summary(),
            "chosen_epoch": best[1] if self.settings.training.select == "best" and best else None,
            "training_seconds": round(self.seconds, 3),  # in optimiser steps
            "wall_seconds": round(self.wall_seconds, 3),  # with samples, bounds and files on the way
        }


class Stopped(RuntimeError):
    """A training that cannot go on, in one sentence with the cause and what is left."""


def config_file(folder: Path) -> Path:
    """The run's config.yaml, or an empty file where there is none: every setting has a default."""
    return folder / "config.yaml" if (folder / "config.yaml").exists() else Path(os.devnull)


def prepare(folder: Path, settings: configuration.Config, *, backend: str, sets: Sequence[str] = ()) -> Run:
    """A new training, with nothing on disk yet. Raises InputError if an input is at fault.

    sets : the options among what `settings` was read from, which a fault may be of
    """
    return Run(
        folder,
        settings,
        backend=backend,
        code=folder / CODE if (folder / CODE).is_file() else None,
        source=config_file(folder),
        sets=sets,
    )


def resume(folder: Path, *, backend: str) -> Run:
    """The newest training of a run folder, where it stopped, with the configuration and the network that it was begun
    with."""
    every = [results for results in rundir.all_results(folder) if (results / "config.yaml").is_file()]
    if not every:
        raise InputError(f"{folder}: nothing to resume, there are no results; leave --resume out")
    results = every[-1]
    settings = configuration.load(results / "config.yaml")
    code, source = saving.own_network(results), results / "config.yaml"
    run = Run(folder, settings, backend=backend, code=code, source=source)
    run.results = results
    saving.restore(run)
    return run
