"""Writes example data that obeys a rule into a run folder."""

from __future__ import annotations

from pathlib import Path

from bdiff_np import config
from bdiff_np.data import generators
from bdiff_np.data.bits import BitsSettings
from bdiff_np.data.bits_files import ENDINGS
from bdiff_np.errors import InputError
from bdiff_np.runfolder.files import write_whole


def make_data(out: Path, name: str, parameters: dict, length: int, *, force: bool, **options) -> str:
    """Writes RUN/train.txt, RUN/val.txt and, if there is none, RUN/config.yaml; says what it made."""
    rule = generators.make_rule(name, **parameters)
    train_rows, val_rows = generators.generate(rule, length, **options)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder")
    others = [
        out / (split + ending)
        for split in ("train", "val")
        for ending in ENDINGS[1:]
        if (out / (split + ending)).exists()
    ]
    if others:
        raise InputError(
            f"{others[0]}: is there already and would stand beside the new rows; name another folder, or move it away"
        )
    there = [p for p in (out / "train.txt", out / "val.txt") if p.exists()]
    if there and not force:
        raise InputError(f"{there[0]}: is there already; name another folder, or overwrite it with --force")
    if (out / "config.yaml").exists():
        settings = config.load(out / "config.yaml").data
        if not isinstance(settings, BitsSettings):
            raise InputError(f"{out / 'config.yaml'}: is for other data than bits; name another folder")
        named = settings.rule
        if named is not None and named.model_dump() != {"name": name, **parameters}:
            other = ", ".join(f"{key}: {value}" for key, value in named.model_dump().items())
            where = config.place(out / "config.yaml", "data.rule")
            raise InputError(
                f"{where}: data.rule: this folder's settings are for other rows ({other}); name another folder"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise InputError(f"{out}: cannot be made: {fault.strerror}; name another folder") from None
    train_rows.write(out / "train.txt")
    if val_rows is not None:
        val_rows.write(out / "val.txt")
    elif (out / "val.txt").exists():
        (out / "val.txt").unlink()
    text = (
        f"{out}: {len(train_rows)} rows in train.txt, "
        f"{f'{len(val_rows)} in val.txt' if val_rows is not None else 'no val.txt'}"
    )
    if not (out / "config.yaml").exists():
        values = ", ".join(f"{key}: {value}" for key, value in parameters.items())
        write_whole(
            out / "config.yaml",
            CONFIG.format(rule=f"name: {name}, {values}", repeats=max(1, 512 // len(train_rows))).encode(),
        )
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
