"""What the commands say: results in words and numbers for people, and the few lines of work around them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bdiff_np import config
from bdiff_np.config import config_lines
from bdiff_np.data import bits as data
from bdiff_np.data import generators
from bdiff_np.data.bits import Rows
from bdiff_np.errors import InputError
from bdiff_np.evaluate import Bound
from bdiff_np.model import Model
from bdiff_np.nets import netcheck
from bdiff_np.runfolder import run as training
from bdiff_np.runfolder import rundir
from bdiff_np.runfolder.files import write_whole

# Training -------------------------------------------------------------------------------------------------------------------------------


def plan(job: training.Run) -> str:
    """What a training is going to do."""
    t, settings = job.training, job.settings
    val = f", {len(job.val_rows)} held out" if job.val_rows is not None else ""
    return (
        f"{job.folder}: {len(job.train_rows)} rows of {job.train_rows.D} bits{val}; T = {t.T}, {t.model.params.flat.size} parameters, "
        f"back end {t.model.ops.name}{f' (auto: {job.chosen_because})' if job.chosen_because else ''}\n"
        f"{settings.training.epochs} epochs of {t.steps_per_epoch} steps, {t.batch_rows} rows x {t.repeats} timesteps each"
        + (f", from step {t.optimizer.taken}" if t.optimizer.taken else "")
        + (f"\nresults: {job.results}" if job.results != Path() else "")
    )


def ending(job: training.Run, how: str) -> str:
    """How a training ended."""
    steps = job.training.optimizer.taken
    rate = steps / job.seconds if job.seconds else 0.0
    text = f"{how} after {job.epoch} epochs, {steps} steps in {job.seconds:.1f} s ({rate:.0f} steps/s), {job.wall_seconds:.1f} s in all"
    return text + (f"; go on with: python cli.py train {job.folder} --resume" if how == "interrupted" else "")


def conclusion(job: training.Run, found: dict) -> str:
    """Samples, bounds and where the pictures are."""
    rows = found["rows"]
    lines = [data.text(rows) + f"\n{len(rows)} samples; share of ones {rows.mean():.4f}, in train {_ones(job.train_rows):.4f}\n"]
    for split, b in found["bounds"].items():
        lines.append(bound(Bound(**b), f"{split} rows"))
    lines.append("\n" + census(found["samples"]))
    pictures = sorted(p.name for p in job.results.iterdir() if p.suffix in (".png", ".gif"))
    lines.append(f"\nresults    {job.results}\npictures   {'  '.join(pictures)}")
    return "\n".join(lines)


def _ones(rows: Rows) -> float:
    return float(rows.mean().mean())


# Evaluation -----------------------------------------------------------------------------------------------------------------------------


def bound(b: Bound, name: str) -> str:
    """A bound beside its floor."""
    last = "last step learned" if b.bound == "learned" else "last step fixed, as in the paper"
    lines = [
        f"bound      {b.bits_per_sequence:.4f} +- {b.standard_error_bits:.4f} bits/sequence ({b.nats_per_sequence:.4f} nats), "
        f"{b.n_sequences} {name}, T = {b.steps}, {last}"
    ]
    if b.floor_bits is not None:
        if b.floor_standard_error_bits:
            meaning = f"+- {b.floor_standard_error_bits:.4f} bits: the least that any reverse chain with independent bits within a step can reach"
        else:
            meaning = "bits: the entropy of the data, below which no bound can lie"
        lines.append(f"floor      {b.floor_bits:.4f} {meaning}")
    lines.append(f"K - L_null {b.k_minus_null_bits:.4f} bits gained over bits drawn from the stationary law")
    return "\n".join(lines)


def rows_to_evaluate(model: Model, found: rundir.Found, file: Path | None, split: str | None) -> tuple[str, Rows, np.ndarray | None]:
    """Name and rows to evaluate, and all rows of their law where the model's configuration names one."""
    if file is not None and split is not None:
        raise InputError("give --data or --split, not both")
    if file is not None:
        name, rows = f"rows of {file}", data.read_rows(file)
        if rows.D != model.D:
            raise InputError(f"{file}: has rows of {rows.D} bits, the model was trained on rows of {model.D}")
        law = None if found.run is None else training.known_population(rule(model), rows, rows_of_run(found)[0])
        return name, rows, law
    train_rows, val_rows = rows_of_run(found)
    if split == "val" and val_rows is None:
        raise InputError(f"{found.run}: has no val.txt to evaluate")
    elif val_rows is not None and split in ("val", None):
        name, rows = "val rows", val_rows
    elif val_rows is not None and split == "all":
        name, rows = "train and val rows", Rows(np.concatenate([train_rows.packed, val_rows.packed]), train_rows.D)
    else:
        name, rows = "train rows", train_rows
    return name, rows, training.known_population(rule(model), rows, train_rows)


def rows_of_run(found: rundir.Found) -> tuple[Rows, Rows | None]:
    """Training and held-out rows of the run that a target belongs to."""
    if found.run is None:
        raise InputError(f"{found.checkpoint}: lies in no run folder, so its rows are not known; name a run folder, or a file with --data")
    return data.read_run(found.run)


def rule(model: Model) -> generators.Rule | None:
    """The rule that the model's data obeys, if its configuration names one."""
    named = model.config.data.rule
    return generators.make_rule(**named.model_dump()) if named else None


def census(c: dict) -> str:
    """What samples are, in words."""
    lines = [f"samples    {c['n']}: {c['train']:.2%} training rows ({c['train_found']} of {c['train_rows']} different ones)"]
    if c["val_rows"]:
        lines.append(f"           {c['val']:.2%} held-out rows ({c['val_found']} of {c['val_rows']})")
    if "valid" in c:
        found = f"{c['valid_found']} of {c['valid_rows']} valid rows drawn"
        lines.append(f"           {c['valid_unseen']:.2%} valid but in neither file, {1 - c['valid']:.2%} invalid; {found}")
    else:
        lines.append(f"           {c['other']:.2%} others; {c['distinct']} different rows in all")
    return "\n".join(lines)


def settings() -> str:
    """Every setting of config.yaml as a Markdown document."""
    lines = ["# Settings", "", "What `config.yaml` can say. Each has a default; `--set section.name=value` overrules the file for one training."]
    for section, schema in config.SECTIONS.items():
        lines += ["", f"## {section}", "", (schema.__doc__ or "").strip(), "", "| name | value | default | meaning |", "|---|---|---|---|"]
        for name, field in schema.model_fields.items():
            values = config_lines.expects(field.annotation, field.metadata).replace("|", "or")
            default = json.dumps(field.default) if not isinstance(field.default, str) else field.default
            lines.append(f"| `{name}` | {values} | `{default}` | {field.description} |")
    return "\n".join(lines)


# Network and data -----------------------------------------------------------------------------------------------------------------------


def check_net(run: Path, seed: int) -> tuple[str, bool]:
    """A table of all parameters, and whether all their gradients are right."""
    if not run.is_dir():
        raise InputError(f"{run}: there is no such run folder")
    settings = config.load(training.config_file(run))
    rows, _ = data.read_run(run)
    code = run / training.CODE
    pi = training.stationary_law(settings.model, rows)
    model = Model.build(settings, rows.D, pi, code=code if code.is_file() else None, dtype=np.float64)
    found = netcheck.check(model.ops, model.net, model.kernels(), model.D, model.chain.T, seed=seed)
    width = max(len(c.name) for c in found)
    lines = [f"{'parameter':{width}}  {'analytic':>13}  {'numeric':>13}  {'difference':>10}"]
    lines += [f"{c.name:{width}}  {c.analytic:13.6e}  {c.numeric:13.6e}  {c.error:10.1e}  {'ok' if c.good else 'WRONG'}" for c in found]
    wrong = [c.name for c in found if not c.good]
    where = str(code) if code.is_file() else f"the built-in network {settings.model.net}"
    lines.append(f"{where}: " + (f"the gradient is wrong for {', '.join(wrong)}" if wrong else f"all {len(found)} gradients are right"))
    return "\n".join(lines), not wrong


def make_data(out: Path, name: str, parameters: dict, length: int, *, force: bool, **options) -> str:
    """Writes RUN/train.txt, RUN/val.txt and, if there is none, RUN/config.yaml; says what it made."""
    rule = generators.make_rule(name, **parameters)
    train_rows, val_rows = generators.generate(rule, length, **options)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder")
    others = [out / (split + ending) for split in ("train", "val") for ending in data.ENDINGS[1:] if (out / (split + ending)).exists()]
    if others:
        raise InputError(f"{others[0]}: is there already and would stand beside the new rows; name another folder, or move it away")
    there = [p for p in (out / "train.txt", out / "val.txt") if p.exists()]
    if there and not force:
        raise InputError(f"{there[0]}: is there already; name another folder, or overwrite it with --force")
    if (out / "config.yaml").exists():
        named = config.load(out / "config.yaml").data.rule
        if named is not None and named.model_dump() != {"name": name, **parameters}:
            other = ", ".join(f"{key}: {value}" for key, value in named.model_dump().items())
            where = config.place(out / "config.yaml", "data.rule")
            raise InputError(f"{where}: data.rule: the settings there are for other rows ({other}); name another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise InputError(f"{out}: cannot be made: {fault.strerror}; name another folder") from None
    data.write_rows(out / "train.txt", train_rows)
    if val_rows is not None:
        data.write_rows(out / "val.txt", val_rows)
    elif (out / "val.txt").exists():
        (out / "val.txt").unlink()
    text = f"{out}: {len(train_rows)} rows in train.txt, {f'{len(val_rows)} in val.txt' if val_rows is not None else 'no val.txt'}"
    if not (out / "config.yaml").exists():
        values = ", ".join(f"{key}: {value}" for key, value in parameters.items())
        write_whole(out / "config.yaml", CONFIG.format(rule=f"name: {name}, {values}", repeats=max(1, 512 // len(train_rows))).encode())
        text += ", settings in config.yaml"
    return f"{text}\ntrain it:  python cli.py train {out}"


CONFIG = """\
model:
  T: 1000
  pi: data
  num_sample_steps: {repeats}
  hidden: [64, 64]
training:
  epochs: 20
  steps_per_epoch: 500
  lr: 4.0e-3
data:
  batch_size: 512
  rule: {{{rule}}}
"""
