"""What the commands say: results in words and numbers, for people."""

from __future__ import annotations

from pathlib import Path

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
    lines += [bound(Bound(**b), f"{split} rows") for split, b in results["bounds"].items()]
    lines += ["\n" + census.words(results["samples"])] if census else []
    pictures = sorted(p.name for p in job.results.iterdir() if p.suffix in (".png", ".gif"))
    lines.append(f"\nresults    {job.results}\npictures   {'  '.join(pictures)}")
    return "\n".join(lines)


# Evaluation
# ----------------------------------------------------------------------------------------------------------------------


def bound(b: Bound, name: str) -> str:
    """A bound beside its floor."""
    last = "last step learned" if b.bound == "learned" else "last step fixed, as in the paper"
    lines = [
        f"bound      {b.bits_per_sequence:.4f} +- {b.standard_error_bits:.4f} bits/sequence "
        f"({b.nats_per_sequence:.4f} nats), "
        f"{b.n_sequences} {name}, T = {b.steps}, {last}"
    ]
    if b.floor_bits is not None:
        if b.floor_standard_error_bits:
            meaning = (
                f"+- {b.floor_standard_error_bits:.4f} bits: the least that any reverse chain with independent "
                "elements within a step can reach"
            )
        else:
            meaning = "bits: the entropy of the data, below which no bound can lie"
        lines.append(f"floor      {b.floor_bits:.4f} {meaning}")
    lines.append(f"K - L_null {b.k_minus_null_bits:.4f} bits gained over rows drawn from the stationary law")
    return "\n".join(lines)
