"""What the commands say: results in words and numbers, for people."""

from __future__ import annotations

from pathlib import Path

from bdiff_np.diffusion import Family
from bdiff_np.evaluate import Bound
from bdiff_np.runfolder import run as training

# Training
# ----------------------------------------------------------------------------------------------------------------------


def plan(job: training.Run) -> str:
    """What a training is going to do."""
    t, settings = job.training, job.settings
    val = f", {len(job.val_rows)} held out" if job.val_rows is not None else ""
    return (
        f"{job.folder}: {len(job.train_rows)} rows of {job.train_rows.D} {job.train_rows.elements}{val}; "
        f"T = {t.T}, {t.model.params.flat.size} parameters, "
        f"back end {t.model.ops.name}{f' (auto: {job.chosen_because})' if job.chosen_because else ''}\n"
        f"{settings.training.epochs} epochs of {t.steps_per_epoch} steps, {t.batch_rows} rows x {t.repeats} timesteps "
        "each"
        + (f", from step {t.optimizer.taken}" if t.optimizer.taken else "")
        + (f"\nresults: {job.results}" if job.results != Path() else "")
    )


def ending(job: training.Run, how: str) -> str:
    """How a training ended."""
    steps = job.training.optimizer.taken
    rate = steps / job.seconds if job.seconds else 0.0
    text = (
        f"{how} after {job.epoch} epochs, {steps} steps in {job.seconds:.1f} s ({rate:.0f} steps/s), "
        f"{job.wall_seconds:.1f} s in all"
    )
    return text + (f"; go on with: python cli.py train {job.folder} --resume" if how == "interrupted" else "")


def conclusion(job: training.Run, results: dict) -> str:
    """Samples, bounds and where the pictures are."""
    rows, train, census = results["rows"], job.train_rows, job.history.census
    summary = train.summary(rows)
    lines = [f"{train.text(rows)}\n{len(rows)} samples{f'; {summary}' if summary else ''}\n"]
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
        f"bound      {b.bits_per_sequence:.4f} +- {b.standard_error_bits:.4f} bits/sequence "
        f"({b.nats_per_sequence:.4f} nats), {b.n_sequences} {name}, T = {b.steps}, {family.bounds[b.bound].words}"
    ]
    if b.floor_bits is not None and b.floor_standard_error_bits:
        lines.append(f"floor      {b.floor_bits:.4f} +- {b.floor_standard_error_bits:.4f} bits: {family.floor_words}")
    elif b.floor_bits is not None:
        lines.append(f"floor      {b.floor_bits:.4f} bits: the entropy of the data, below which no bound can lie")
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
