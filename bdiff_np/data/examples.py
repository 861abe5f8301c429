"""Writes example rows into a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bdiff_np import config
from bdiff_np.data import Data
from bdiff_np.errors import InputError
from bdiff_np.runfolder.files import write_whole


def write(
    out: Path, train: Data, val: Data | None, ending: str, text: str, law: tuple[str, Any], *, force: bool
) -> str:
    """Writes RUN/train and RUN/val, with an ending of their kind, and `text` as RUN/config.yaml if there is none; says
    what it made.

    law : the setting of the section `data` that says what the rows obey, its name and value (Settings)
    Raises InputError where the folder cannot be made, holds rows, unless `force`, or has settings for others.
    """
    kind, (field, value) = type(train), law
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder")
    names = {split: f"{split}{ending}" for split in ("train", "val")}
    endings = [other for other in kind.ENDINGS if other != ending]
    others = [out / f"{split}{other}" for split in names for other in endings if (out / f"{split}{other}").exists()]
    if others:
        raise InputError(
            f"{others[0]}: is there already and would stand beside the new rows; name another folder, or move it away"
        )
    there = [out / name for name in names.values() if (out / name).exists()]
    if there and not force:
        raise InputError(f"{there[0]}: is there already; name another folder, or overwrite it with --force")
    settings_file = out / "config.yaml"
    if has_settings := settings_file.exists():
        settings = config.load(settings_file).data
        if not isinstance(settings, kind.Settings):
            raise InputError(f"{settings_file}: is for other data than {kind.elements}; name another folder")
        named = getattr(settings, field)
        if named is not None and named != value:
            other = ", ".join(f"{key}: {value}" for key, value in named.model_dump().items())
            where = config.place(settings_file, f"data.{field}")
            raise InputError(
                f"{where}: data.{field}: this folder's settings are for other rows ({other}); name another folder"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise InputError(f"{out}: cannot be made: {fault.strerror}; name another folder") from None
    train.write(out / names["train"])
    if val is not None:
        val.write(out / names["val"])
    else:
        (out / names["val"]).unlink(missing_ok=True)
    if not has_settings:
        write_whole(settings_file, text.encode())
    held_out = f"{len(val)} in {names['val']}" if val is not None else f"no {names['val']}"
    made = f"{out}: {len(train)} rows in {names['train']}, {held_out}"
    return f"{made}{'' if has_settings else ', settings in config.yaml'}\ntrain it:  python cli.py train {out}"
