"""What the commands say: results in words and numbers, for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from bdiff_np import evaluate
from bdiff_np.diffusion import Family
from bdiff_np.evaluate import Bound
from bdiff_np.model import kind_of
from bdiff_np.runfolder import choice
from bdiff_np.runfolder.amounts import FIRST
from bdiff_np.runfolder.run import Run

PRINTED = 10  # samples at the end of a training

# Training
# ----------------------------------------------------------------------------------------------------------------------


def plan(job: Run) -> str:
    """What a training is going to do."""
    t, settings = job.training, job.settings
    of = f"of {job.train_rows.D} {job.train_rows.elements}"
    rows = f"{len(job.train_rows)} rows {of}"
    if job.val_rows is not None and job.val_taken:
        rows = (
            f"{len(job.train_rows) + len(job.val_rows)} rows {of}: {len(job.train_rows)} to train on, "
            f"{len(job.val_rows)} held out (chosen by training.seed; data.val: none keeps all)"
        )
    elif job.val_rows is not None:
        rows += f", {len(job.val_rows)} held out"
    return (
        f"{job.folder}: {rows}; "
        f"T = {t.T}, {t.model.params.flat.size} parameters, "
        f"back end {t.model.ops.name}{f', then {job.later}' if job.later else ''}"
        f"{f' (auto: {job.chosen_because})' if job.chosen_because else ''}\n"
        f"{settings.training.epochs} epochs of {t.steps_per_epoch} steps, {t.batch_rows} rows x {t.repeats} timesteps "
        "each"
        + (f", from step {t.optimizer.taken}" if t.optimizer.taken else "")
        + _looks(job)
        + (f"\nresults: {job.results}" if job.results != Path() else "")
    )


def _looks(job: Run) -> str:
    """What is looked at between epochs, where that is less than could be."""
    much, asked = job.looking.amounts, job.settings.training.num_val_samples if job.history.census else 0
    if much.samples == asked and (much.every == 1 or job.settings.training.epochs <= FIRST):
        return ""
    bound = f"the bound of the held-out rows from {much.evaluations} steps of the chain, " if much.evaluations else ""
    when = "each epoch" if much.every == 1 else f"the first {FIRST} epochs and every {much.every} epochs"
    return f"\nafter {when}, to take a tenth of the time at most: {bound}{much.samples} samples"


def ending(job: Run, how: str) -> str:
    """How a training ended."""
    steps = job.training.optimizer.taken
    rate = steps / job.seconds if job.seconds else 0.0
    text = (
        f"{how} after {job.epoch} epochs, {steps} steps in {_seconds(job.seconds)} s ({rate:.0f} steps/s), "
        f"{_seconds(job.wall_seconds)} s in all"
    )
    return text + (f"; go on with: python cli.py train {job.folder} --resume" if how == "interrupted" else "")


def _seconds(time: float) -> str:
    return f"{time:.1f}" if time >= 1 else f"{time:.2g}"


def finished(job: Run) -> str:
    """That there is no step left to take, and how to go on all the same."""
    more, early = f"training.epochs={2 * job.settings.training.epochs}", ""
    if job.epoch < job.settings.training.epochs:
        more, early = "training.patience=never", " with an early stop"
    return (
        f"finished already{early}: {job.epoch} epochs; to go on: python cli.py train {job.folder} --resume --set {more}"
    )


def early_stop(job: Run) -> str:
    """Why a training ended before its last epoch; empty for one that did not."""
    if job.epoch >= job.settings.training.epochs or not job.choice.exhausted(job.history):
        return ""
    return (
        f"the bound of the held-out rows has not been better for {job.choice.patience} epochs; to go on: python cli.py "
        f"train {job.folder} --resume --set training.patience=never"
    )


def overfitting(job: Run, bounds: Mapping[str, Mapping]) -> str:
    """What the held-out rows say against the model, in a sentence; empty where they say nothing. bounds : of
    results.json; those of the history are of fewer evaluations, the same for all epochs, and to be compared with one
    another alone"""
    if not job.choice.speaking or job.history.best is None:
        return ""
    least, epoch = job.history.best
    stands = (
        f"the run stands for epoch {epoch}" if job.choice.select == "best" else f"select: best would take epoch {epoch}"
    )
    help = "more rows, dropout or a smaller network help"
    name, nats = job.family.baseline(job.train_rows) or ("", math.inf)
    simple, held_out = nats / evaluate.LN2, bounds["val"]["bits_per_sequence"]
    if math.isfinite(simple) and held_out - simple > choice.NOTEWORTHY * abs(simple):
        learned = min(job.history.columns["loss_bits"]) < simple
        return (
            f"{'overfitting' if learned else 'not learned yet'}: the held-out rows cost {held_out:.2f} bits, which is "
            f"more than the {simple:.2f} bits of {name}; {stands}; "
            + (help if learned else "more epochs, another learning rate or less dropout help")
        )
    if choice.risen(job.history):
        last = next(bits for bits in reversed(job.history.columns["val_bound_bits"]) if not math.isnan(bits))
        return (
            f"overfitting: the bound of the held-out rows was least in epoch {epoch}, and has risen by "
            f"{last - least:.2f} bits since; {stands}; {help}"
        )
    return ""


def conclusion(job: Run, results: dict) -> str:
    """Samples, bounds and where the pictures are. results : what conclude.conclude gave, or results.json"""
    train, census, lines = job.train_rows, job.history.census, []
    if "rows" in results:
        rows = results["rows"][:PRINTED]
        summary = train.summary(rows)
        lines.append(f"{train.text(rows)}\n{len(rows)} samples{f'; {summary}' if summary else ''}\n")
    lines += [bound(Bound(**b), f"{split} rows", job.family) for split, b in results["bounds"].items()]
    lines += ["\n" + census.words(results["samples"])] if census else []
    pictures = sorted(p.name for p in job.results.iterdir() if p.suffix in (".png", ".gif"))
    lines.append(f"\nresults    {job.results}\npictures   {'  '.join(pictures)}")
    return "\n".join(lines)


# Evaluation
# ----------------------------------------------------------------------------------------------------------------------


def bound(b: Bound, name: str, family: Family) -> str:
    """A bound beside its floor."""
    lines = [
        f"bound      {b.bits_per_sequence:.4f} +- {b.standard_error_bits:.4f} bits/{kind_of(family).one} "
        f"({b.nats_per_sequence:.4f} nats), {b.n_sequences} {name}, T = {b.steps}, "
        f"{b.process}{', ' if b.process else ''}{family.bounds[b.bound].words}"
    ]
    if b.floor_bits is not None and b.floor_standard_error_bits:
        lines.append(f"floor      {b.floor_bits:.4f} +- {b.floor_standard_error_bits:.4f} bits: {family.floor_words}")
    elif b.floor_bits is not None:
        lines.append(
            f"floor      {b.floor_bits:.4f} bits: the entropy of the law, below which no bound of all it gives can lie"
        )
    lines.append(f"K - L_null {b.k_minus_null_bits:.4f} bits gained over a model that knows the process alone")
    return "\n".join(lines)


def effort(b: Bound, seconds: float) -> str:
    """What a bound took."""
    return f"evaluated {b.evaluations} steps of the chain in {seconds:.1f} s"


def not_reached(b: Bound, tolerance: float, relative: float = 0.0, **_) -> str:
    """A sentence where the standard error is above what was asked for, else nothing."""
    enough = max(tolerance, relative * abs(b.bits_per_sequence))
    if b.standard_error_bits <= enough:
        return ""
    return (
        f"the standard error is {b.standard_error_bits:.4f} bits after {b.evaluations} evaluations, the most that are "
        f"made for a tolerance, here {enough:.4f} bits; ask for more with --evaluations, or take a larger --tolerance"
    )
