"""Training a run folder: epochs, samples on the way, checkpoints, metrics, pictures, Ctrl-C and resume. The steps themselves are train.py's."""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bdiff_np import __version__, evaluate, sample, validate
from bdiff_np import config as configuration
from bdiff_np.backends import auto
from bdiff_np.backends.auto import AUTO
from bdiff_np.data import bits as data
from bdiff_np.data.generators import Rule, make_rule
from bdiff_np.errors import InputError
from bdiff_np.model import Model, module
from bdiff_np.nets.custom import FILE as CODE
from bdiff_np.optim.adamw import Diverged
from bdiff_np.runfolder import checkpoint, rundir
from bdiff_np.runfolder.files import write_whole
from bdiff_np.runfolder.progress import QUIET_SECONDS, Lines, pace, progress
from bdiff_np.show import plots
from bdiff_np.train import Training, fingerprint, stationary_law

COLUMNS = ("epoch", "step", "seconds", "loss_bits", "val_bound_bits", "learning_rate", "gradient_norm", "train", "val", "other", "valid_unseen")
VAL_EVALUATIONS = 1 << 14  # for the bound of the validation rows after each epoch
FINAL_EVALUATIONS = 1 << 19

BUILT_IN_START = '"""The network of this run is the built-in one'  # how a results folder's file begins that holds no code
BUILT_IN = BUILT_IN_START + ''': bdiff_np/nets/{net}.py, with the settings under `model` in config.yaml.

A file of this name in the run folder, with a class ReverseModel of its own, would have replaced it; docs/custom_net.md shows how.
"""

from bdiff_np.nets.{net} import build  # noqa: F401
'''


class Run:
    """One training of a run folder, new or resumed.

    folder : the run folder. settings : its configuration, read from the file `source`. code : its own network's file, if any
    results : the results folder, once there is one
    """

    def __init__(self, folder: Path, settings: configuration.Config, *, backend: str, code: Path | None, source: Path):
        self.folder, self.settings, self.code = folder, settings, code
        self.results = Path()
        self.train_rows, self.val_rows = data.read_run(folder)
        self.rule = make_rule(**settings.data.rule.model_dump()) if settings.data.rule else None
        faults = list(self._disagreements())
        if faults:
            raise InputError("\n".join(f"{configuration.place(source, path)}: {path}: {reason}" for path, reason in faults))
        pi = stationary_law(settings.model, self.train_rows)
        self._build = lambda name: Training(Model.build(settings, self.train_rows.D, pi, backend=name, code=code), self.train_rows)
        self.auto, self.chosen_because = backend == AUTO, ""
        self.training = self._build("numpy" if self.auto else backend)
        if self.auto:
            choice = auto.for_training(self.training)
            self.chosen_because = choice.reason
            self._use(choice.backend)
        self.net_file = CODE if code else settings.model.net
        self.census = validate.Census(self.train_rows, self.val_rows, self.rule)
        self.history: dict[str, list] = {name: [] for name in COLUMNS}
        self.examples: list[np.ndarray] = []
        self.best: tuple[float, int] | None = None
        self.loss_sum, self.loss_count, self.seconds, self.wall_seconds = 0.0, 0, 0.0, 0.0
        self.stop = False
        self._at_once = 1  # steps between two looks at Ctrl-C and the progress bar

    def _use(self, backend: str) -> None:
        """Another back end, before the first step."""
        if backend != self.training.model.ops.name:
            self.training = self._build(backend)

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return len(self.history["epoch"])

    def _disagreements(self) -> Iterator[tuple[str, str]]:
        """Settings that the data does not fit: name and reason."""
        settings, D = self.settings, self.train_rows.D
        if settings.data.shape and settings.data.shape[0] * settings.data.shape[1] != D:
            yield "data.shape", f"{settings.data.shape[0]} x {settings.data.shape[1]} is not {D}, the number of bits of a row"
        if settings.training.select == "best" and self.val_rows is None:
            yield "training.select", f"best needs held-out rows: put a val.txt into {self.folder}, or say select: last"
        try:
            if self.rule is not None:
                self.rule.check(D)
        except InputError as fault:
            yield "data.rule", str(fault)
        for package, path, maker in (("diffusion", "model.family", "make_chain"), ("nets", "model.net", "build")):
            try:
                module(package, getattr(settings.model, path.split(".")[1]), maker)
            except InputError as fault:
                yield path, str(fault)

    def compile(self) -> None:
        """Compiles what a training uses and is not compiled yet, and says so on stderr; it comes with the first use otherwise."""
        self.training.compile()
        if self.training.fused is not None:
            sample.draw(self.training.averaged, 0)

    # The loop ---------------------------------------------------------------------------------------------------------------------------

    def train(self) -> str:
        """Runs to the end, to an early stop or to Ctrl-C; returns which: "finished", "early stop" or "interrupted"."""
        total = self.training.total_steps
        before = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, self._on_interrupt)
        bar = progress(total, "training", self.training.optimizer.taken, quiet=3 * QUIET_SECONDS)  # lines of the epochs come first
        self._clock = time.monotonic()
        try:
            while self.epoch < self.settings.training.epochs and not self._exhausted():
                self._steps_of_epoch(bar)
                if self.stop:
                    self._save(self.epoch + 1)
                    return "interrupted"
                self._end_epoch()
                due = self.epoch % self.settings.training.save_every_n_epochs == 0 or self.epoch == self.settings.training.epochs
                best = self.settings.training.select == "best" and self.best is not None and self.best[1] == self.epoch
                stale = rundir.checkpoint_path(self.results, self.epoch).exists()  # of this epoch, interrupted and since completed
                if due or best or stale or self.stop or self._exhausted():
                    self._save(self.epoch)
                if isinstance(bar, Lines) and (self.epoch == self.settings.training.epochs or bar.silence() > QUIET_SECONDS):
                    bar.say(self.line())
                if self.stop:
                    return "interrupted"
            return "early stop" if self._exhausted() else "finished"
        finally:
            bar.close()
            signal.signal(signal.SIGINT, before)

    def _on_interrupt(self, *_) -> None:
        if self.stop:  # the second time: at once
            raise KeyboardInterrupt
        self.stop = True
        print("\nCtrl-C: finishing the step, saving, drawing the pictures (again to leave at once)", file=sys.stderr)

    def _steps_of_epoch(self, bar) -> None:
        training, end = self.training, (self.epoch + 1) * self.training.steps_per_epoch
        start = time.perf_counter()
        try:
            with training.model.threads, np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the norm tells, in a sentence
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
            if not kept and not self.epoch:
                shutil.rmtree(self.results)
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
        steps = self._sample_steps()
        self.examples.append(sample.draw(model, t.num_examples, seed=t.seed, steps=steps))
        drawn = sample.draw(model, t.num_val_samples, seed=t.seed + 1, steps=steps, batch=max(t.val_batch_size, 1024))
        found = self.census(data.Rows.from_bits(drawn))
        val_bound = math.nan
        if self.val_rows is not None:
            val_bound = evaluate.bound(model, self.val_rows, evaluations=VAL_EVALUATIONS, seed=t.seed).bits_per_sequence
            if self.best is None or val_bound < self.best[0]:
                self.best = (val_bound, self.epoch + 1)
        row = (
            self.epoch + 1, optimizer.taken, round(self.seconds, 3), self.loss_sum / max(1, self.loss_count) / evaluate.LN2, val_bound,
            optimizer.learning_rate(optimizer.taken), optimizer.grad_norm, found["train"], found["val"], found["other"],
            found.get("valid_unseen", math.nan),
        )  # fmt: skip
        for name, value in zip(COLUMNS, row):
            self.history[name].append(value)
        self.loss_sum, self.loss_count = 0.0, 0
        self._write_metrics()

    def _sample_steps(self) -> int | None:
        wanted = self.settings.training.sample_steps
        return None if wanted is None or wanted >= self.settings.model.T or self.settings.model.predict == "x_prev" else wanted

    def _exhausted(self) -> bool:
        patience = self.settings.training.patience
        return patience is not None and self.best is not None and self.epoch - self.best[1] >= patience

    def line(self) -> str:
        """The newest epoch in one line."""
        h = {name: column[-1] for name, column in self.history.items()}
        val = "" if math.isnan(h["val_bound_bits"]) else f", val bound {h['val_bound_bits']:.4f}"
        shares = f"{h['train']:.1%} train, " + (f"{h['val']:.1%} val, " if self.val_rows is not None else "") + f"{h['other']:.1%} other"
        steps = self._sample_steps() or self.settings.model.T
        return (
            f"epoch {h['epoch']}/{self.settings.training.epochs}, step {h['step']}, {h['seconds']:.0f} s: loss {h['loss_bits']:.4f} bits{val}, "
            f"samples of {steps} steps: {shares}"
        )

    # Files ------------------------------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Makes the results folder, with the resolved configuration and the network's file in it."""
        self.results = rundir.new_results(self.folder)
        code = self.code.read_bytes() if self.code else BUILT_IN.format(net=self.settings.model.net).encode()
        write_whole(self.results / CODE, code)
        write_whole(self.results / "config.yaml", configuration.dump(self.settings).encode())  # last: with it the folder can be resumed

    def _write_metrics(self) -> None:
        """metrics.csv as it stands. It is small, so the whole of it: a killed run never leaves half a line."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(zip(*(self.history[name] for name in COLUMNS)))
        write_whole(self.results / "metrics.csv", text.getvalue().encode())

    def summary(self) -> dict:
        """What results.json holds after each checkpoint."""
        h = self.history
        proportions = {name: h[name] for name in ("train", "val", "other")}
        if self.rule is not None:
            proportions["valid_unseen"] = h["valid_unseen"]
        chosen = self.best[1] if self.settings.training.select == "best" and self.best else None
        return {
            "losses": h["loss_bits"],
            "examples_per_epoch": [rows.tolist() for rows in self.examples],
            "proportions": proportions,
            "val_bounds": [None if math.isnan(v) else v for v in h["val_bound_bits"]],
            "chosen_epoch": chosen,
            "training_seconds": round(self.seconds, 3),  # in optimiser steps
            "wall_seconds": round(self.wall_seconds, 3),  # with samples, bounds and files on the way
        }

    def _save(self, epoch: int) -> None:
        # The histories first: a kill between the two leaves more history than checkpoint, which resume cuts off; never less.
        now = time.monotonic()
        self.wall_seconds, self._clock = self.wall_seconds + now - self._clock, now
        self._write_metrics()
        rundir.write_json(self.results / "results.json", self.summary())
        meta = {
            "step": self.training.optimizer.taken, "epoch": self.epoch, "D": self.train_rows.D, "net": self.net_file,
            "config": self.settings.model_dump(mode="json"), "data": self._fingerprints(), "version": __version__,
            "backend": self.training.model.ops.name,
            "loss_sum": self.loss_sum, "loss_count": self.loss_count, "seconds": self.seconds, "best": self.best,
            "grad_norm": self.training.optimizer.grad_norm, "wall_seconds": self.wall_seconds,
        }  # fmt: skip
        checkpoint.write(rundir.checkpoint_path(self.results, epoch), self.training.tensors(), meta)

    def _fingerprints(self) -> list[int]:
        return [fingerprint(rows) for rows in (self.train_rows, self.val_rows) if rows is not None]

    def resume(self) -> None:
        """Goes on from the newest checkpoint of the results folder that can be read, or from the start if there is none."""
        for left in [*self.results.glob(".*.tmp"), *self.results.glob("checkpoints/.*.tmp")]:  # of a write that a kill cut off
            left.unlink()
        for path in reversed(rundir.checkpoints(self.results).values()):
            try:
                tensors, meta = checkpoint.read(path)
                break
            except InputError as fault:
                print(f"{fault}: passed over", file=sys.stderr)
        else:
            return
        if meta["data"] != self._fingerprints():
            raise InputError(f"{self.folder}: the rows of train or val have changed since {path.name} was saved; start anew, without --resume")
        begun_on = meta.get("backend", "numpy")
        if self.auto and begun_on != self.training.model.ops.name:  # another one rounds differently: to go on exactly takes the same
            try:
                self._use(begun_on)
                self.chosen_because = "it was begun on it"
            except InputError as fault:
                print(f"{fault}; going on with {self.training.model.ops.name}, not bit for bit", file=sys.stderr)
        self.training.restore(tensors, meta["step"])
        self.training.optimizer.grad_norm, self.wall_seconds = meta["grad_norm"], meta["wall_seconds"]
        self.loss_sum, self.loss_count, self.seconds = meta["loss_sum"], meta["loss_count"], meta["seconds"]
        self.best = tuple(meta["best"]) if meta["best"] else None
        found, epoch = rundir.read_results(self.results), meta["epoch"]
        try:
            self.examples = [np.array(rows, np.uint8) for rows in found["examples_per_epoch"][:epoch]]
            with open(self.results / "metrics.csv", encoding="utf-8", newline="") as file:
                lines = list(csv.DictReader(file))[:epoch]
            self.history = {name: [(int if name in ("epoch", "step") else float)(line[name]) for line in lines] for name in COLUMNS}
            whole = len(self.examples) == len(lines) == epoch
        except (OSError, KeyError, TypeError, ValueError):
            whole = False
        if not whole:
            raise InputError(f"{self.results}: metrics.csv or results.json is missing or damaged; start anew, without --resume")

    # The end ----------------------------------------------------------------------------------------------------------------------------

    def conclude(self) -> dict:
        """Bounds, samples and pictures of the model that the run stands for; returns what results.json then holds besides the histories."""
        settings = self.settings
        model = self._chosen_model()
        parts = {"train": (self.train_rows, known_population(self.rule, self.train_rows))}
        if self.val_rows is not None:
            parts["val"] = (self.val_rows, known_population(self.rule, self.train_rows, self.val_rows))
        bar = progress(evaluate.GROUPS * len(parts), "evaluating")
        bounds = {
            name: evaluate.bound(model, rows, evaluations=FINAL_EVALUATIONS, population=law, progress=bar.update)
            for name, (rows, law) in parts.items()
        }
        bar.close()
        n = max(settings.training.num_val_samples, settings.training.num_examples)
        bar = progress(settings.model.T * -(-n // sample.rows_at_once(model)), f"drawing {n} samples")
        rows = sample.draw(model, n, seed=settings.training.seed + 1, progress=bar.update)
        bar.close()
        census = self.census(data.Rows.from_bits(rows))
        found = {"bounds": {name: b.as_dict() for name, b in bounds.items()}, "samples": census, "version": __version__}
        rundir.write_json(self.results / "results.json", {**self.summary(), **found})
        self._pictures(model, bounds, rows)
        return {**found, "rows": rows[: settings.training.num_examples]}

    def _chosen_model(self) -> Model:
        """The averaged weights of now, or of the best epoch if the run selects it."""
        at_its_end = self.best is not None and self.best[1] == self.epoch and not self.loss_count  # of the best epoch
        if self.settings.training.select == "last" or self.best is None or at_its_end:
            return self.training.averaged
        tensors, _ = checkpoint.read(rundir.checkpoint_path(self.results, self.best[1]))
        self.training.optimizer.ema.fill({name[4:]: array for name, array in tensors.items() if name.startswith("ema/")})
        return self.training.averaged

    def _pictures(self, model: Model, bounds: dict, rows: np.ndarray) -> None:
        h, shape, train = self.history, self.settings.data.shape, bounds["train"]
        low = train.floor_bits
        independent = float(model.family.binary_entropy(self.train_rows.mean()).sum()) / evaluate.LN2
        if self.epoch:
            has_val = self.val_rows is not None
            plots.loss_curve(
                self.results / "loss_curve.png", h["step"], h["loss_bits"], val_step=h["step"] if has_val else None,
                val_bits=h["val_bound_bits"] if has_val else None, floor_bits=low, null_bits=independent,
            )  # fmt: skip
            if self.settings.training.num_val_samples:
                shares = {name: h[name] for name in ("train", "val", "other")}
                if self.rule is not None:
                    shares["valid_unseen"] = h["valid_unseen"]
                    shares["other"] = [o - v for o, v in zip(h["other"], h["valid_unseen"])]
                plots.validation(self.results / "validation.png", h["epoch"], shares)
            plots.sample_evolution(self.results / "sample_evolution_throughout_training.gif", h["epoch"], np.stack(self.examples), shape=shape)
        times, states = sample.trajectory(model, self.settings.training.num_examples, seed=self.settings.training.seed)
        plots.reverse_trajectory(self.results / "reverse_trajectory.gif", times, states, shape=shape)
        plots.samples(self.results / "samples.png", rows[:64 if shape else 20], shape=shape)
        kl, least = evaluate.kl_per_step(model, self.train_rows, train.floor_bits and known_population(self.rule, self.train_rows))
        if least is not None:  # the same draws for both; their chance is taken out by what the sum is known to be
            kl, least = kl * (low / least.sum()), least * (low / least.sum())
        plots.kl_per_step(self.results / "kl_per_step.png", np.arange(1, len(kl) + 1), kl, floor_kl_bits=least, T=len(kl))


class Stopped(RuntimeError):
    """A training that cannot go on, in one sentence with the cause and what is left."""


def config_file(folder: Path) -> Path:
    """The run's config.yaml, or an empty file where there is none: every setting has a default."""
    return folder / "config.yaml" if (folder / "config.yaml").exists() else Path(os.devnull)


def prepare(folder: Path, settings: configuration.Config, *, backend: str) -> Run:
    """A new training, with nothing on disk yet. Raises InputError if an input is at fault."""
    return Run(folder, settings, backend=backend, code=folder / CODE if (folder / CODE).is_file() else None, source=config_file(folder))


def resume(folder: Path, *, backend: str) -> Run:
    """The newest training of a run folder, where it stopped, with the configuration and the network that it was begun with."""
    every = [results for results in rundir.all_results(folder) if (results / "config.yaml").is_file()]
    if not every:
        raise InputError(f"{folder}: nothing to resume, there are no results; leave --resume out")
    results = every[-1]
    settings = configuration.load(results / "config.yaml")
    code = results / CODE
    own = code.is_file() and not code.read_text(encoding="utf-8").startswith(BUILT_IN_START)
    run = Run(folder, settings, backend=backend, code=code if own else None, source=results / "config.yaml")
    run.results = results
    run.resume()
    return run


def known_population(rule: Rule | None, *files: data.Rows | None) -> np.ndarray | None:
    """The rows, (N, D), that the law of the data gives with equal probability: all different ones of the files.

    None where no rule is known, where a row breaks it, or where some rows of a file come more often than others: there is no such law then.
    """
    given = [rows for rows in files if rows is not None]
    if rule is None:
        return None
    for rows in given:
        _, times = np.unique(rows.keys(), return_counts=True)
        if times.min() != times.max() or not all(rule.valid(rows.take(slice(k, k + 65536))).all() for k in range(0, len(rows), 65536)):
            return None
    return data.Rows(np.unique(np.concatenate([rows.packed for rows in given]), axis=0), given[0].D).all()
